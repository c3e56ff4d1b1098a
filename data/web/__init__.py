"""Turns WARC files into clean documents, and records why each page was kept or dropped.

The steps are blocks of a datatrove pipeline: text extraction, language, quality rules, personal
data and duplicates. This room may import data.records and lm.base. Start reading at
`clean.pipeline`; data/web/README.md describes the steps and their output.
"""
