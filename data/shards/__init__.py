"""Token shards on disk, and batches as a pure function of the step.

It converts documents to shards, and reads shards, alone or mixed, as batches. This room may import
data.records, data.tokenizers, data.chat and lm.base. Start reading at `loader.Loader.batch`,
`token_shards` for the format, and `tokenization.tokenize`.
"""
