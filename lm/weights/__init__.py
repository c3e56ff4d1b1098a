"""Weights on disk and in buckets: checkpoints, Hugging Face folders, GGUF files, families.

This room may import base, parallel and model. Start reading at pretrained.py, which opens any of
them; then checkpoint.py for our own format, hub_folder.py, hub_params.py and families/ for open
weights, and hub_format.py for their import and export.
"""
