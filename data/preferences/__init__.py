"""Comparisons of answers: read from files, made by programs, judged by people and by models.

This room may import data.records, data.chat, data.tasks, data.probing and what they import. Start
reading at comparison_rows.py; `python -m data.preferences` is its command.
"""
