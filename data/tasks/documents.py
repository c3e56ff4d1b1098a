"""What tasks take from the cleaned documents: modules, the functions they describe in a line,
common words.
"""

import collections
import dataclasses
import itertools
import pathlib
import re
import urllib.parse
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from data.records import jsonl, split
from data.records.spans import check_document
from lm.base.errors import UserError
from lm.base.files import Path

# A signature as pydoc prints it, at the start of a line: get(key, default=None, /) -> object
_SIGNATURE = re.compile(
  r'^[-*\s]*(?:class )?([A-Za-z][A-Za-z0-9_]*)\((.*)\)(?: -> .*| from .*| method of .*)?$'
)
_SUMMARY = re.compile(r'^[A-Z][a-z]+,? [^\n]*[a-z0-9)*\'"]\.$')
_MODULE = re.compile(r'^[A-Za-z][A-Za-z0-9_]*(\.[A-Za-z][A-Za-z0-9_]*)*$')


@dataclasses.dataclass(frozen=True, order=True)
class Entry:
  """A function of a module and what its documentation says it does, in one sentence."""

  module: str
  name: str
  summary: str


@dataclasses.dataclass(frozen=True)
class Documents:
  """Sorted, so that the tasks made from them depend on the documents alone and not on their
  order.
  """

  modules: tuple[str, ...]
  # no two with the same name and summary: inherited methods are described again and again
  train: tuple[Entry, ...]
  # of held-out documents, without what documents of the train split say too
  test: tuple[Entry, ...]
  # name of a function in documents of the train split: all that describe it
  modules_of: Mapping[str, tuple[str, ...]]
  words: tuple[str, ...]  # common ones of 3 to 8 lower-case letters
  names: frozenset[str]  # every name and word that occurs: what a made-up name must not be


def read(
  path: Path, *, held_out: float = 0.05, max_words: int = 12, num_words: int = 4000
) -> Documents:
  """Reads a JSONL file of documents: {"text": str, "metadata": {"url": str, "cluster": str, ...},
  ...} a line.

  Args:
    path: the file.
    held_out: share of the near-duplicate clusters that the test split is of; the same documents as
      `data.tokenize` holds out from training if given the same share.
    max_words: of a summary.
    num_words: how many of the commonest words are kept.

  A row that is no such document is skipped, and said to be.

  Raises:
    OSError: the file cannot be read. UserError: it holds no documents, or they describe nothing.
  """
  skipped = jsonl.Skipped()
  pages = list(jsonl.read(path, _parse, skipped))
  if not pages:
    raise skipped.nothing_left(f'{path}: no documents')
  skipped.report()
  cutoff = split.cutoff([page.split_hash for page in pages], held_out)
  modules, counts, names = set(), collections.Counter(), set()
  modules_of = collections.defaultdict(set)
  # by whether it is held out: (name, summary) to the first module that has it
  entries = {False: {}, True: {}}
  for page in pages:
    identifiers = re.findall(r'[A-Za-z_][A-Za-z0-9_]*', page.text)
    names.update(word.lower() for word in identifiers)
    counts.update(word for word in identifiers if re.fullmatch(r'[a-z]{3,8}', word))
    if page.module is None:
      continue
    modules.add(page.module)
    held = page.split_hash < cutoff
    found = entries[held]
    for name, summary in extract(page.text):
      if not held:
        modules_of[name].add(page.module)
      if len(summary.split()) <= max_words:
        found[name, summary] = min(page.module, found.get((name, summary), page.module))
  train, test = (
    tuple(
      sorted(Entry(module, *pair) for pair, module in entries[held].items() if pair not in other)
    )
    for held, other in ((False, {}), (True, entries[False]))
  )
  if not train:
    raise UserError(f'{path}: found no descriptions of functions in its {len(modules)} modules')
  words = sorted(counts, key=lambda word: (-counts[word], word))[:num_words]
  homes = {name: tuple(sorted(found)) for name, found in sorted(modules_of.items())}
  return Documents(
    tuple(sorted(modules)),
    train,
    test,
    homes,
    tuple(words),
    frozenset(names | {m.lower() for m in modules}),
  )


class _Page(NamedTuple):
  split_hash: float
  module: str | None
  text: str


def _parse(row: Any) -> _Page:
  """The page of a row. Raises UserError if it is no document."""
  if not isinstance(row, dict) or not isinstance(row.get('text'), str):
    raise UserError(f'a document has a "text"; found {row!r:.80}')
  metadata = check_document(row).get('metadata')
  if (
    not isinstance(metadata, dict)
    or 'cluster' not in metadata
    or not isinstance(metadata.get('url'), str)
  ):
    raise UserError(f'metadata must have "url" and "cluster"; found {metadata!r:.80}')
  try:
    return _Page(split.split_hash(row), module_of(metadata['url']), row['text'])
  except ValueError as error:
    raise UserError(f'metadata.url is {metadata["url"]!r:.80}: {error}') from error


def extract(text: str) -> Iterator[tuple[str, str]]:
  """(name, summary) of each public function that a page describes in one whole sentence below its
  signature.
  """
  lines = [' '.join(line.split()) for line in text.splitlines()]  # pydoc writes no-break spaces
  for line, following in itertools.pairwise(lines):
    signature, summary = _SIGNATURE.match(line), following.strip(' -*')
    if signature and _SUMMARY.match(summary) and len(summary.split()) >= 3:
      yield signature[1], summary


def module_of(url: str) -> str | None:
  """The module that a page of the documentation server is about; None for indexes and the like."""
  name = urllib.parse.unquote(pathlib.PurePosixPath(urllib.parse.urlsplit(url).path).name)
  stem = name.removesuffix('.html')
  if stem == name or stem in ('index', 'topics', 'keywords') or not _MODULE.match(stem):
    return None
  return stem
