"""Word n-grams of evaluation sets, to keep out pages that hold them (Brown et al. 2020, arXiv 2005.14165, appendix C)."""

from collections.abc import Iterator

import fsspec
import numpy as np

from data.web import dedup, inputs
from lm import files
from lm.errors import UserError

FORMATS = ('.jsonl', '.jsonl.gz', '.txt', '.txt.gz')


def item_files(globs: tuple[str, ...]) -> list[tuple[str, int]]:
  """(path, bytes) of the files of evaluation items: see inputs.find."""
  return inputs.find(globs, FORMATS, 'config.decontaminate')


def read_texts(path: str) -> Iterator[str]:
  """A text file as a whole, or every string in each line of a JSONL file. Raises UserError that names file and line."""
  if not path.removesuffix('.gz').endswith('.txt'):
    for _, item in inputs.json_lines(path):
      yield from _strings(item)
    return
  with files.unpacking(path), fsspec.open(path, 'rb', compression='infer') as file:
    try:
      yield file.read().decode()
    except UnicodeDecodeError as error:
      raise UserError(f'{path} is not UTF-8: {error}') from error


def _strings(value: object) -> Iterator[str]:
  match value:
    case str():
      yield value
    case list():
      for part in value:
        yield from _strings(part)
    case dict():
      yield from _strings(list(value.values()))


class Items:
  """The n-grams of lower-case words (marks do not count) of evaluation items, as hashes of 64 bits.

  An item of fewer than n words has none, and is looked for in no page. Raises UserError if that is so of all.
  """

  def __init__(self, globs: tuple[str, ...], n: int):
    if n < 1:
      raise UserError(f'config.decontaminate_ngram={n} must be positive')
    self.n = n
    texts = (text for path, _ in item_files(globs) for text in read_texts(path))
    grams = [dedup.ngrams(words, n) for words in map(dedup.words, texts) if len(words) >= n]
    if not grams:
      raise UserError(f'config.decontaminate: no item in {", ".join(globs)} has config.decontaminate_ngram={n} words')
    self.hashes = np.unique(np.concatenate(grams))

  def shared(self, text: str) -> str:
    """The first n-gram of the text that is also in an item, or ''."""
    words = dedup.words(text)
    if len(words) < self.n:
      return ''
    grams = dedup.ngrams(words, self.n)
    places = np.minimum(np.searchsorted(self.hashes, grams), self.hashes.size - 1)
    found = np.flatnonzero(self.hashes[places] == grams)
    return ' '.join(words[found[0] : found[0] + self.n]) if found.size else ''
