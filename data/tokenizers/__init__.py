"""Converts text to token ids and back, with one interface and one file for each kind.

It also trains tokenizers. This room may import data.records and lm.base. Start reading at
`loading.load` and `interface.Tokenizer`.
"""
