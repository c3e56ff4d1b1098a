"""Byte-level byte-pair encoding, read from tiktoken's rank files or from tokenizer.json."""

import base64
import binascii
import concurrent.futures
import itertools
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence

import tiktoken
import tokenizers
from tokenizers import pre_tokenizers

from data.tokenizers import merging
from data.tokenizers.interface import Specials, Tokenizer, assign_ids, valid
from lm.base import files
from lm.base.errors import UserError

_SPACES = r'\s*[\r\n]+|\s+(?!\S)|\s+'
_LLAMA3 = (
  r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
)
_UPPER, _LOWER = r'[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]', r'[\p{Ll}\p{Lm}\p{Lo}\p{M}]'
_TAIL = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
_O200K = (
  rf'[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{_TAIL}|'
  rf'[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{_TAIL}|'
  r'\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|' + _SPACES
)
# How text is split before merging; no token crosses a split. The first four are their authors', in
# a plain form that both regex engines read alike. 'deepdive' is llama3's with one digit per token,
# for arithmetic, and with combining marks kept with their letters.
PATTERNS = {
  'gpt2': r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
  'cl100k': _LLAMA3 + r'\s++\z|' + _SPACES,  # white space that ends a text stays in one piece
  'o200k': _O200K,
  'llama3': _LLAMA3 + _SPACES,
  'deepdive': r"'(?:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}[\p{L}\p{M}]*|\p{N}| "
  r'?[^\s\p{L}\p{N}]+[\r\n]*|' + _SPACES,
}
BYTES = {bytes([b]): b for b in range(256)}  # the smallest vocabulary
# GPT-2's visible characters for all bytes, which every byte-level tokenizer.json uses.
_PRINTABLE = [*range(33, 127), *range(161, 173), *range(174, 256)]
_CHAR = dict(zip(_PRINTABLE, map(chr, _PRINTABLE), strict=True))
_CHAR |= {b: chr(256 + i) for i, b in enumerate(b for b in range(256) if b not in _CHAR)}
BYTE = {c: b for b, c in _CHAR.items()}
# tiktoken's regex engine overflows its stack on a million white-space characters in a row.
_MAX_SPACES = 500_000
_LONG_SPACES = re.compile(rf'\s{{{_MAX_SPACES}}}(?=\s)')


class BPE(Tokenizer):
  """Byte-level byte-pair encoding (Sennrich et al. 2016, in GPT-2's form over bytes).

  tiktoken runs it.

  Attributes:
    ranks: id of each token's bytes. The pair whose joined bytes have the lowest id merges first.
    pattern: regular expression that splits the text before merging; None for a vocabulary of single
      bytes.
  """

  def __init__(self, pattern: str | None, ranks: dict[bytes, int], special_tokens: Specials):
    missing = [b for b in BYTES if b not in ranks]
    if missing:
      raise UserError(
        field='number of bytes that the vocabulary lacks',
        value=len(missing),
        allowed='0',
        message=f'The first is {missing[0]!r}.',
      )
    self.pattern = pattern if len(ranks) > 256 else None  # without merges, splits change nothing
    self.ranks = ranks
    specials = assign_ids(special_tokens, {}, taken=set(ranks.values()))
    for name in specials:
      if set(name) <= BYTE.keys() and from_visible(name) in ranks:
        raise UserError(
          field='special token',
          value=name,
          allowed='a name that is no ordinary token of the vocabulary',
        )
    tokens = sorted((i, token.hex()) for token, i in ranks.items())
    super().__init__(
      specials, max(ranks.values()), json.dumps([self.pattern, tokens, sorted(specials.items())])
    )
    self._bytes = {i: token for token, i in ranks.items()}
    self._plain = ranks == BYTES
    self._encoding = tiktoken.Encoding(
      'deepdive',
      pat_str=self.pattern or PATTERNS['gpt2'],
      mergeable_ranks=ranks,
      special_tokens=specials,
    )

  def encode(self, text: str) -> list[int]:
    if self._plain:
      return list(valid(text).encode())
    if len(text) <= _MAX_SPACES:
      return self._encoding.encode_ordinary(text)
    first, *rest = map(self._encoding.encode_ordinary, _pieces(text))
    return first + list(itertools.chain(*rest)) if rest else first

  def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
    if self._plain:
      return super().encode_batch(texts)
    cores = os.cpu_count()
    # The number of texts in a task: enough to amortise the call, few enough to busy all cores.
    size = min(64, 1 + len(texts) // (8 * cores))
    tasks = [texts[i : i + size] for i in range(0, len(texts), size)]
    with concurrent.futures.ThreadPoolExecutor(cores) as pool:
      return [ids for part in pool.map(super().encode_batch, tasks) for ids in part]

  def token_bytes(self, index: int) -> bytes:
    return self._bytes.get(index, b'')

  def merge_steps(self, piece: bytes, below: int | None = None) -> Iterator[list[bytes]]:
    """Yields the parts of one piece after each merge, lowest id first.

    `below` excludes tokens from that id on.
    """
    limit = below if below is not None else self.vocab_size
    parts = [piece[i : i + 1] for i in range(len(piece))]
    yield list(parts)
    while len(parts) > 1:
      pairs = enumerate(itertools.pairwise(parts))
      rank, at = min((self.ranks.get(a + b, limit), i) for i, (a, b) in pairs)
      if rank >= limit:
        return
      parts[at : at + 2] = [parts[at] + parts[at + 1]]
      yield list(parts)

  def trace(self, text: str) -> merging.Trace:
    if not self.pattern:
      pieces = [valid(text).encode()]
    else:
      split = pre_tokenizers.Split(tokenizers.Regex(self.pattern), 'isolated')
      pieces = [piece.encode() for piece, _ in split.pre_tokenize_str(valid(text))]
    return merging.trace(
      pieces, lambda left, right: self.ranks.get(left + right), self.ranks.__contains__
    )

  def merges(self) -> list[tuple[bytes, bytes]]:
    """Returns the two parts of each longer token, in id order.

    The parts of a token are what merging with only the ids below it leaves. A merge list with
    exactly these pairs gives the same ids as the ranks: when a token's turn comes, all lower merges
    inside its bytes are done and none has crossed its ends, so its parts are the same in every
    text. A token without two parts is reached only as a whole piece ("ignore_merges").
    """
    tokens = sorted((i, token) for token, i in self.ranks.items() if len(token) > 1)
    parts = (list(self.merge_steps(token, below=i))[-1] for i, token in tokens)
    return [tuple(p) for p in parts if len(p) == 2]

  def _json(self) -> str:
    byte_level = {
      'type': 'ByteLevel',
      'add_prefix_space': False,
      'trim_offsets': True,
      'use_regex': False,
    }
    split = {
      'type': 'Split',
      'pattern': {'Regex': self.pattern},
      'behavior': 'Isolated',
      'invert': False,
    }
    flags = {
      'single_word': False,
      'lstrip': False,
      'rstrip': False,
      'normalized': False,
      'special': True,
    }
    specials = sorted(self.special_tokens.items(), key=lambda item: item[1])
    vocab = {visible(token): i for token, i in sorted(self.ranks.items(), key=lambda item: item[1])}
    if [i for _, i in specials] != [*range(len(vocab), len(vocab) + len(specials))]:
      # `tokenizers` numbers added tokens from len(vocab) on, unless they are in the vocabulary.
      vocab |= specials
    merges = self.merges()
    sequence = {'type': 'Sequence', 'pretokenizers': [split, byte_level]}
    value = {
      'version': '1.0',
      'truncation': None,
      'padding': None,
      'normalizer': None,
      'post_processor': None,
      'added_tokens': [{'id': i, 'content': name, **flags} for name, i in specials],
      'pre_tokenizer': sequence if self.pattern else byte_level,
      'decoder': byte_level,
      'model': {
        'type': 'BPE',
        'dropout': None,
        'unk_token': None,
        'continuing_subword_prefix': None,
        'end_of_word_suffix': None,
        'fuse_unk': False,
        'byte_fallback': False,
        'ignore_merges': len(merges) < len(self.ranks) - 256,
        'vocab': vocab,
        'merges': [[visible(a), visible(b)] for a, b in merges],
      },
    }
    return json.dumps(value, ensure_ascii=False, indent=1) + '\n'


def read_ranks(path: files.Path) -> dict[bytes, int]:
  """Returns the tokens of a tiktoken rank file: lines of base64 bytes, a space, and an id."""
  ranks = {}
  for number, line in enumerate(files.as_path(path).read_bytes().splitlines(), 1):
    try:
      token, rank = line.split()
      ranks[base64.b64decode(token, validate=True)] = int(rank)
    except (ValueError, binascii.Error) as error:
      raise UserError(
        field=f'line {number}', value=line.decode(errors='replace'), allowed='base64 and a number'
      ).at(path) from error
  different = len(set(ranks.values()))
  if different < len(ranks) or not ranks:
    raise UserError(
      field=f'number of different ids in {path}',
      value=different,
      allowed=f'that of its tokens, {len(ranks)}, which is not 0',
    )
  return ranks


def write_ranks(path: files.Path, ranks: Mapping[bytes, int]) -> None:
  """Writes a tiktoken rank file in the order of ids."""
  by_id = sorted(ranks.items(), key=lambda item: item[1])
  lines = [f'{base64.b64encode(token).decode()} {i}\n' for token, i in by_id]
  files.write_text(path, ''.join(lines))


def from_json(value: dict, special_tokens: Specials) -> BPE | None:
  """Returns the byte-level BPE of a tokenizer.json if ranks can express it, else None.

  See `BPE.merges` for what ranks can express.
  """
  model, added = value['model'], value['added_tokens']
  steps = value['pre_tokenizer'] or {'type': None}
  steps = steps['pretokenizers'] if steps['type'] == 'Sequence' else [steps]
  pattern = PATTERNS['gpt2'] if len(steps) == 1 else steps[0].get('pattern', {}).get('Regex')
  extras = ('dropout', 'continuing_subword_prefix', 'end_of_word_suffix', 'byte_fallback')
  plain_model = model.get('type') == 'BPE' and not any(model.get(extra) for extra in extras)
  plain_text = value['normalizer'] is None and all(token['special'] for token in added)
  if not (plain_model and plain_text and pattern in PATTERNS.values() and _is_plain(steps, model)):
    return None
  specials = {token['content']: token['id'] for token in added}
  vocab = {token: i for token, i in model['vocab'].items() if token not in specials}
  if not all(c in BYTE for token in vocab for c in token):
    return None
  ranks = {from_visible(token): i for token, i in vocab.items()}
  taken = set(ranks.values()) | set(specials.values())
  bpe = BPE(pattern, ranks, assign_ids(special_tokens, specials, taken=taken))
  merges = [tuple(m.split(' ') if isinstance(m, str) else m) for m in model['merges']]
  reached = len(merges) == len(ranks) - 256 or model.get('ignore_merges')
  return bpe if reached and merges == [(visible(a), visible(b)) for a, b in bpe.merges()] else None


def _is_plain(steps: list[dict], model: dict) -> bool:
  """Returns whether the pre-tokenizer splits by one pattern and then writes bytes."""
  if len(steps) == 1:
    isolated = True
  else:
    split = steps[0]
    isolated = len(steps) == 2 and split['behavior'] == 'Isolated' and split['invert'] is False
  last = steps[-1]
  byte_level = last['type'] == 'ByteLevel' and last.get('add_prefix_space') is False
  # ByteLevel splits by GPT-2's pattern if it is alone. Without merges no split matters.
  return isolated and byte_level and (last['use_regex'] == (len(steps) == 1) or not model['merges'])


def from_visible(token: str) -> bytes:
  """Returns the bytes that a token of a byte-level tokenizer.json represents."""
  return bytes(map(BYTE.__getitem__, token))


def visible(token: bytes) -> str:
  """Returns the characters that represent a token's bytes in a byte-level tokenizer.json."""
  return ''.join(map(_CHAR.__getitem__, token))


def _pieces(text: str) -> Iterator[str]:
  """Yields the text, divided within runs of white space that are too long for the regex engine."""
  # Reading every so-many-th character suffices to see that there is no run as long as that.
  if not re.search(r'\s{7}', text[:: _MAX_SPACES // 8]):
    yield text
    return
  start = 0
  for match in _LONG_SPACES.finditer(text):
    yield text[start : match.end()]
    start = match.end()
  yield text[start:]
