"""Finds pages that contain evaluation items by their word n-grams (Brown et al. 2020).

The method is that of arXiv 2005.14165, appendix C.
"""

from collections import defaultdict
from collections.abc import Iterator

import fsspec
import numpy as np

from data.web import inputs, minhash
from lm.base import files
from lm.base.errors import UserError, invalid

FORMATS = ('.jsonl', '.jsonl.gz', '.txt', '.txt.gz')
NAMED = 20  # number of items without a usable text whose place the report gives


def item_files(globs: tuple[str, ...]) -> list[tuple[str, int]]:
  """Returns (path, bytes) of the files with evaluation items."""
  return inputs.find(globs, FORMATS, 'config.decontaminate')


def read_items(path: str) -> Iterator[tuple[str, list[str]]]:
  """Yields (place, texts) of each item: a whole text file, or every string in a JSONL line.

  Raises UserError that names file and line.
  """
  if not path.removesuffix('.gz').endswith('.txt'):
    for place, item in inputs.json_lines(path):
      yield place, list(_strings(item))
    return
  with files.unpacking(path), fsspec.open(path, 'rb', compression='infer') as file:
    try:
      yield path, [file.read().decode()]
    except UnicodeDecodeError as error:
      raise invalid(path, 'UTF-8', error) from error


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
  """The hashed n-grams of lower-case words of evaluation items; punctuation does not count.

  A text of fewer than n words but at least `min_words` is looked for as a whole. A shorter text
  could occur in any page by chance, and is not looked for; `coverage` counts these texts, and names
  the items that have no other.

  Args:
    globs: patterns of the files with the items.
    n: number of words in an n-gram.
    min_words: smallest number of words in a text that is looked for.

  Raises:
    UserError: a file cannot be read, or no item has a text that is long enough.
  """

  def __init__(self, globs: tuple[str, ...], n: int, min_words: int):
    if n < 1:
      raise UserError(field='config.decontaminate_ngram', value=n, allowed='at least 1')
    if not 1 <= min_words <= n:
      raise UserError(
        field='config.decontaminate_min_words',
        value=min_words,
        allowed=f'from 1 to config.decontaminate_ngram, {n}',
      )
    grams = defaultdict(list)
    self.coverage = {
      'items': 0,
      'by_ngrams': 0,
      'whole': 0,
      'too_short': 0,
      'items_not_sought': 0,
      'not_sought': [],
    }
    for path, _ in item_files(globs):
      for place, texts in read_items(path):
        parts = [words for words in map(minhash.words, texts) if words]
        self._count(place, texts, [len(words) for words in parts], n, min_words)
        for words in parts:
          if len(words) >= min_words:
            grams[min(n, len(words))].append(minhash.ngrams(words, n))
    if not grams:
      raise UserError(
        field='config.decontaminate',
        value=', '.join(globs),
        allowed=f'files with an item of config.decontaminate_min_words, {min_words}, words or more',
      )
    # {number of words: sorted hashes}
    self.hashes = {size: np.unique(np.concatenate(found)) for size, found in grams.items()}

  def _count(self, place: str, texts: list[str], sizes: list[int], n: int, min_words: int) -> None:
    found = self.coverage
    found['items'] += 1
    found['by_ngrams'] += sum(size >= n for size in sizes)
    found['whole'] += sum(min_words <= size < n for size in sizes)
    found['too_short'] += sum(size < min_words for size in sizes)
    if max(sizes, default=0) < min_words:
      found['items_not_sought'] += 1
      if len(found['not_sought']) < NAMED:
        found['not_sought'].append(f'{place}: {" | ".join(texts)[:100]}')

  def shared(self, text: str) -> str:
    """Returns the first n-gram of the text that an item also has, or '' if there is none.

    An item of fewer than n words counts as one n-gram.
    """
    words = minhash.words(text)
    for size, hashes in sorted(self.hashes.items(), reverse=True):
      if len(words) < size:
        continue
      grams = minhash.ngrams(words, size)
      places = np.minimum(np.searchsorted(hashes, grams), hashes.size - 1)
      found = np.flatnonzero(hashes[places] == grams)
      if found.size:
        return ' '.join(words[found[0] : found[0] + size])
    return ''
