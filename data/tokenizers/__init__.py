"""The kinds of tokenizers. `data.tokenizer.load` picks one."""
