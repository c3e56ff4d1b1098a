"""Weights on disk and in buckets: checkpoints, Hugging Face folders, GGUF files, families.

This room may import base, parallel and model. Start reading at pretrained.py, then checkpoint.py
for our own format and hub_format.py and families/ for open weights.
"""
