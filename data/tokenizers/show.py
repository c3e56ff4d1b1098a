"""Shows in colour how a tokenizer splits a text."""

from data.tokenizers.bpe import BPE, visible
from data.tokenizers.interface import Tokenizer, valid
from lm.base.errors import UserError


def show(tokenizer: Tokenizer, text: str, merges: bool = False) -> str:
  """Returns the pieces of a text on alternating colours, and their ids.

  Args:
    tokenizer: the tokenizer.
    text: the text to split.
    merges: also show how each token was merged.
  """
  ids = tokenizer.encode(text)
  tokens = [tokenizer.token_bytes(i) for i in ids]
  # A token may be a part of a character.
  pieces = [token.decode('utf-8', errors='backslashreplace') for token in tokens]
  lines = [''.join(f'\x1b[{42 + n % 5};30m{piece}\x1b[0m' for n, piece in enumerate(pieces))]
  for i, token, piece in zip(ids, tokens, pieces, strict=True):
    lines.append(f'{i:>8} {piece if piece.encode() == token else token!r}')
  if merges:
    if not isinstance(tokenizer, BPE):
      raise UserError(
        field='--merges',
        value=True,
        allowed='with a byte-level BPE: bytes, a rank file or most tokenizer.json files',
      )
    for i in dict.fromkeys(ids):
      steps = tokenizer.merge_steps(tokenizer.token_bytes(i))
      lines.append(f'{i:>8} ' + ' -> '.join(' '.join(map(visible, parts)) for parts in steps))
  if (decoded := tokenizer.decode(ids)) != text:
    lines.append(f'decodes to {decoded!r}')
  size = len(valid(text).encode())
  return '\n'.join(
    [*lines, f'{len(ids)} tokens, {size} bytes, {size / max(len(ids), 1):.2f} bytes per token']
  )
