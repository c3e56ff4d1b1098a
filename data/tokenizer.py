"""Text to token ids and back, one interface whatever the tokenizer's file: `load(spec)`.

    'bytes'                         the 256 bytes
    'path/x.tiktoken:PATTERN'       a tiktoken rank file; PATTERN names how text is split first (see bpe.PATTERNS)
    'path/x.tiktoken:PATTERN:JSON'  with its special tokens, in a JSON file: {"<|endoftext|>":
    100257, ...}
    'path/tokenizer.json'           a Hugging Face tokenizers file
    'path/x.model'                  a SentencePiece model (needs the extra deepdive-lm[sentencepiece])
    'path'                          a folder that holds tokenizer.json or else tokenizer.model (what `save` writes)

Special tokens are never made from text: `encode('<|endoftext|>')` gives the tokens of those
characters.

A plain byte-level BPE is the same tokenizer in either file: it has one fingerprint, runs on
tiktoken (five times the speed of `tokenizers` a thread), and gives the same ids. Other
tokenizer.json files run on `tokenizers`, SentencePiece models on tensorflow-text.

    python -m data.tokenizer show --tokenizer=SPEC [--merges] "text"
    python -m data.bench tokenizer [--tokenizer=SPEC,...]
"""

import argparse
from collections.abc import Sequence

from data.tokenizers import loading
from data.tokenizers.show import show
from lm.base import errors


def main(argv: Sequence[str] | None = None) -> None:
  parser = argparse.ArgumentParser(
    prog='python -m data.tokenizer', description='Shows how a text is cut into tokens.'
  )
  parser.add_argument('command', choices=['show'])
  parser.add_argument('text')
  parser.add_argument('--tokenizer', required=True, help=loading.SPEC)
  parser.add_argument(
    '--merges', action='store_true', help='also show the merge steps of each token'
  )
  args = parser.parse_args(argv)
  print(show(loading.load(args.tokenizer), args.text, args.merges))


if __name__ == '__main__':
  errors.run(main)
