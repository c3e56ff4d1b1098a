"""Reads what tasks need from clean documents: modules, their functions, and common words."""

import collections
import dataclasses
import itertools
import pathlib
import re
import urllib.parse
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from data.records import jsonl, rows, split
from data.records.spans import check_document
from lm.base.errors import UserError
from lm.base.files import Path

# A signature at the start of a line, as pydoc prints it: get(key, default=None, /) -> object
_SIGNATURE = re.compile(
  r'^[-*\s]*(?:class )?([A-Za-z][A-Za-z0-9_]*)\((.*)\)(?: -> .*| from .*| method of .*)?$'
)
_SUMMARY = re.compile(r'^[A-Z][a-z]+,? [^\n]*[a-z0-9)*\'"]\.$')
_MODULE = re.compile(r'^[A-Za-z][A-Za-z0-9_]*(\.[A-Za-z][A-Za-z0-9_]*)*$')


@dataclasses.dataclass(frozen=True, order=True)
class Entry:
  """A function of a module, and what its documentation says it does, in one sentence."""

  module: str
  name: str
  summary: str


@dataclasses.dataclass(frozen=True)
class Documents:
  """What tasks need from documents. It is sorted, so the order of the documents does not matter."""

  modules: tuple[str, ...]
  # Entries without repetition: every subclass describes its inherited methods again.
  train: tuple[Entry, ...]
  # Entries of held-out documents that documents of the train split do not contain.
  test: tuple[Entry, ...]
  # {function in documents of the train split: modules that describe it}
  modules_of: Mapping[str, tuple[str, ...]]
  words: tuple[str, ...]  # common words of 3 to 8 lower-case letters
  names: frozenset[str]  # every name and word that occurs, which a made-up name must not be


def read(
  path: Path, *, held_out: float = 0.05, max_words: int = 12, num_words: int = 4000
) -> Documents:
  """Reads a file of documents: {"text": str, "metadata": {"url", "cluster", ...}, ...}.

  A row that is not such a document is skipped and reported.

  Args:
    path: the file.
    held_out: fraction of the near-duplicate clusters in the test split. Given the same fraction,
      `data.tokenize` holds out the same documents.
    max_words: largest number of words in a summary.
    num_words: number of the most common words to keep.

  Raises:
    OSError: the file cannot be read.
    UserError: the file has no documents, or they describe no function.
  """
  skipped = jsonl.Skipped()
  pages = list(rows.read(path, _parse, skipped))
  if not pages:
    raise skipped.nothing_left(f'document in {path}')
  skipped.report()
  cutoff = split.cutoff([page.split_hash for page in pages], held_out)
  modules, counts, names = set(), collections.Counter(), set()
  modules_of = collections.defaultdict(set)
  # {(name, summary): the first module that has it}, of train documents and of held-out ones.
  train, test = {}, {}
  for page in pages:
    identifiers = re.findall(r'[A-Za-z_][A-Za-z0-9_]*', page.text)
    names.update(word.lower() for word in identifiers)
    counts.update(word for word in identifiers if re.fullmatch(r'[a-z]{3,8}', word))
    if page.module is None:
      continue
    modules.add(page.module)
    held = page.split_hash < cutoff
    found = test if held else train
    for name, summary in extract(page.text):
      if not held:
        modules_of[name].add(page.module)
      if len(summary.split()) <= max_words:
        found[name, summary] = min(page.module, found.get((name, summary), page.module))
  if not train:
    raise UserError(field=f'description of a function in the {len(modules)} modules of {path}')
  words = sorted(counts, key=lambda word: (-counts[word], word))[:num_words]
  return Documents(
    modules=tuple(sorted(modules)),
    train=_entries(train),
    test=_entries({pair: module for pair, module in test.items() if pair not in train}),
    modules_of={name: tuple(sorted(found)) for name, found in sorted(modules_of.items())},
    words=tuple(words),
    names=frozenset(names | {module.lower() for module in modules}),
  )


def _entries(found: Mapping[tuple[str, str], str]) -> tuple[Entry, ...]:
  return tuple(sorted(Entry(module, name, summary) for (name, summary), module in found.items()))


class _Page(NamedTuple):
  """What is kept of a document while all are read."""

  split_hash: float
  module: str | None
  text: str


def _parse(row: Any) -> _Page:
  """Returns the page of a row. Raises UserError if the row is not a document."""
  if not isinstance(row, dict) or not isinstance(row.get('text'), str):
    raise UserError(field='row', value=row, allowed='an object with "text", a string')
  metadata = check_document(row).get('metadata')
  known = isinstance(metadata, dict) and 'cluster' in metadata
  if not known or not isinstance(metadata.get('url'), str):
    raise UserError(field='metadata', value=metadata, allowed='an object with "url" and "cluster"')
  try:
    return _Page(split.split_hash(row), module_of(metadata['url']), row['text'])
  except ValueError as error:
    raise UserError(
      field='metadata.url', value=metadata['url'], allowed='a URL', message=str(error)
    ) from error


def extract(text: str) -> Iterator[tuple[str, str]]:
  """Yields (name, summary) of each public function that a page describes in one sentence.

  The sentence follows the function's signature.
  """
  lines = [' '.join(line.split()) for line in text.splitlines()]  # pydoc writes no-break spaces
  for line, following in itertools.pairwise(lines):
    signature, summary = _SIGNATURE.match(line), following.strip(' -*')
    if signature and _SUMMARY.match(summary) and len(summary.split()) >= 3:
      yield signature[1], summary


def module_of(url: str) -> str | None:
  """Returns the module that a page of pydoc's server is about, or None for indexes and the like."""
  name = urllib.parse.unquote(pathlib.PurePosixPath(urllib.parse.urlsplit(url).path).name)
  stem = name.removesuffix('.html')
  if stem == name or stem in ('index', 'topics', 'keywords') or not _MODULE.match(stem):
    return None
  return stem
