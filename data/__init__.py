"""Turns web pages and conversations into token batches, without JAX.

Files in this folder are commands, such as `python -m data.crawl`. Folders are rooms: libraries with
one subject each, and without flags. data/README.md shows the flow of data from a URL to a batch.
"""
