"""Web pages to documents: WARC -> text -> language -> quality -> duplicates. `python -m data.web
--help`.
"""
