"""BM25 search in a corpus of documents, whose results are text for a model's context.

`build` writes an index folder from the documents that `data.web` writes, and `Index(folder).search`
reads it. The index is Tantivy's (extra `tools`): documents are divided into passages, and a passage
is found by the words of its text and of its document's title, after English stemming.
"""

import os
from collections.abc import Iterator

from data.records import jsonl, sources, spans
from lm.base import files
from lm.base.errors import UserError, missing_package

PASSAGE_CHARS = 800  # about as many characters of a document are found together
RESULT_CHARS = 1_600  # of all results of a query
RESULTS = 3  # passages that a query returns at most
MAX_QUERY_CHARS = 1_000
_WRITER_BYTES = 64 << 20  # memory in which postings are collected before they are written
_WORDS = 'words'  # the name of the analyzer in the index


def build(inputs: sources.Inputs, out: files.Path) -> int:
  """Writes an index of documents to a folder, and returns the number of passages.

  Rows that are no documents are skipped, and the first of them is printed to stderr.

  Args:
    inputs: files or globs of JSON Lines with {"text", "metadata": {"title", "url"}}, or of text.
    out: the folder; it replaces an older index.

  Raises:
    FileNotFoundError, UserError: no such file, or no document in them; the package is missing.
  """
  tantivy = _tantivy()
  schema = tantivy.SchemaBuilder()
  for name in ('title', 'text'):
    schema.add_text_field(name, stored=True, tokenizer_name=_WORDS)
  schema.add_text_field('source', stored=True, tokenizer_name='raw', index_option='basic')
  found, skipped, count = sources.find(inputs), jsonl.Skipped(), 0
  target = files.local_path(out, 'the index folder')
  with files.atomic_dir(target) as folder:
    index = tantivy.Index(schema.build(), path=os.fspath(folder), reuse=False)
    index.register_tokenizer(_WORDS, _analyzer())
    # One thread, so that equal inputs make equal indexes.
    writer = index.writer(_WRITER_BYTES, num_threads=1)
    for row in spans.documents(spans.spans(found, 1 << 30), skipped, _check_text):
      metadata = row.get('metadata') or {}
      title, url = (metadata.get(name) or '' for name in ('title', 'url'))
      source = str(url or row.get('id') or '')
      for passage in passages(row['text']):
        writer.add_document(tantivy.Document(title=str(title), text=passage, source=source))
        count += 1
    writer.commit()
    writer.wait_merging_threads()
    skipped.report()
    if not count:
      raise skipped.nothing_left(f'document in {sources.names(found)}')
  return count


def passages(text: str) -> Iterator[str]:
  """Yields a document's text in passages of whole paragraphs, of at most PASSAGE_CHARS characters.

  A longer paragraph is cut between words, where there are any.
  """
  passage = ''
  for paragraph in filter(None, map(str.strip, text.split('\n'))):
    while len(passage) + 1 + len(paragraph) > PASSAGE_CHARS:
      if passage:
        yield passage
        passage = ''
      if len(paragraph) <= PASSAGE_CHARS:
        break
      cut = paragraph.rfind(' ', 1, PASSAGE_CHARS + 1)
      cut = cut if cut > 0 else PASSAGE_CHARS
      yield paragraph[:cut].rstrip()
      paragraph = paragraph[cut:].lstrip()
    passage = f'{passage}\n{paragraph}' if passage else paragraph
  if passage:
    yield passage


class Index:
  """An index that `build` wrote."""

  def __init__(self, folder: files.Path):
    """Opens it. Raises UserError if the folder has no index."""
    tantivy = _tantivy()
    path = os.fspath(files.local_path(folder, 'the index folder'))
    if not os.path.isdir(path) or not tantivy.Index.exists(path):
      allowed = 'a folder that `python -m data.tools index` wrote'
      raise UserError(field='config.tools.index', value=path, allowed=allowed)
    self._index = tantivy.Index.open(path)
    self._analyzer = _analyzer()
    self._index.register_tokenizer(_WORDS, self._analyzer)
    self._searcher = self._index.searcher()

  def search(self, query: str) -> str:
    """Returns the passages that match a query best as text, or 'error: ...'. It never raises.

    Each has a line '[N] TITLE (SOURCE)' above it. Together they have at most RESULT_CHARS
    characters.

    Args:
      query: words; there is no syntax. A passage needs one of them, and ranks by BM25.
    """
    tantivy = _tantivy()
    if len(query) > MAX_QUERY_CHARS:
      return f'error: longer than {MAX_QUERY_CHARS:,} characters'
    words = dict.fromkeys(self._analyzer.analyze(query))
    if not words:
      return 'error: no words to search for'
    terms = [
      (tantivy.Occur.Should, tantivy.Query.term_query(self._index.schema, field, word, 'freq'))
      for word in words
      for field in ('text', 'title')
    ]
    hits = self._searcher.search(tantivy.Query.boolean_query(terms), RESULTS, count=False).hits
    if not hits:
      return 'no results'
    room = RESULT_CHARS // len(hits) - 1  # the line between two results
    return '\n'.join(
      _shown(i, self._searcher.doc(address), room) for i, (_, address) in enumerate(hits, 1)
    )


def _shown(number: int, passage: dict, room: int) -> str:
  """Returns one result with its heading, in at most `room` characters."""
  title, source = passage.get_first('title'), passage.get_first('source')
  named = f'{title} ({source})' if title and source else title or source
  heading = f'[{number}] {named}'.rstrip()[: room // 2]
  return f'{heading}\n{passage.get_first("text")}'[:room].rstrip()


def _check_text(row: dict) -> dict:
  if not isinstance(row.get('text'), str):
    raise UserError(field='text', message='A conversation is no document.')
  return spans.check_document(row)


def _analyzer():
  """Returns what makes words of a text: lower case, without endings, no longer than 40 bytes."""
  tantivy = _tantivy()
  builder = tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.simple())
  for each in ('remove_long', 40), ('lowercase',), ('stemmer', 'english'):
    builder = builder.filter(getattr(tantivy.Filter, each[0])(*each[1:]))
  return builder.build()


def _tantivy():
  """Returns the package, which only this tool needs."""
  try:
    import tantivy
  except ImportError as error:
    raise missing_package('tantivy', 'tools', 'The tool search') from error
  return tantivy
