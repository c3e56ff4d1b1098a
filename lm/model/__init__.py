"""The one Transformer of training, scoring and generation, with its cache, heads and adapters.

This room may import base and parallel. Start reading at transformer.py, whose docstring names the
axes of arrays.
"""
