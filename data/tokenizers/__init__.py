"""The kinds of tokenizers. `data.tokenizers.loading.load` picks one."""
