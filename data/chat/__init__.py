"""Converts conversations to tokens and a loss mask, and completions back to parts.

This is the only place that knows special tokens and chat templates. It may import data.records,
data.tokenizers and lm.base. Start reading at schema.py, which says what a conversation is, and
`chat_formats.Format.render`.
"""
