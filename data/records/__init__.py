"""Input files and the rows and documents in them, which every other room of data/ reads.

It finds local and remote files, reads JSON Lines, JSON lists and Parquet, and decides which
documents are held out. It may import lm.base only. Start reading at `spans.documents`, then
`rows.read` and `split.cutoff`.
"""
