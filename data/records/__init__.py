"""Input files and the rows and documents in them, which every other room of data/ reads.

It finds local and remote files, reads JSON Lines, and decides which documents are held out. It may
import lm.base only. Start reading at `spans.documents`, then `jsonl.read` and `split.cutoff`.
"""
