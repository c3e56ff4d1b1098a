"""What every other room uses: errors, configs, files and buckets, metrics, documents, plots.

This room imports no jax and no other room, and is the only one of lm/ that data/ may import. Start
reading at errors.py and config.py.
"""
