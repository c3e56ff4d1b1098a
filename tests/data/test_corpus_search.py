"""Search in documents: what is found, in which order, and how it is written."""

import json
import math
import sys

import pytest
from refusals import refused

from data.tools import corpus_search
from data.tools.corpus_search import PASSAGE_CHARS, RESULT_CHARS, Index, build, passages

DOCUMENTS = [
  ('Volcanoes', 'https://a.org/v', 'Lava flows from a volcano.\nAsh falls on the fields.'),
  ('Rivers', 'https://a.org/r', 'A river flows to the sea. Rivers carry sand.'),
  ('Bread', 'https://a.org/b', 'Bakers bake bread from flour and water.'),
  ('', '', 'A page without a title says that tides follow the moon.'),
]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  path = tmp_path_factory.mktemp('search')
  rows = [
    {'id': f'd{i}', 'text': text, 'metadata': {'title': title, 'url': url}}
    for i, (title, url, text) in enumerate(DOCUMENTS)
  ]
  lines = [*map(json.dumps, rows), 'no JSON', json.dumps({'messages': []})]
  (path / 'documents.jsonl').write_text('\n'.join(lines))
  assert build(path / 'documents.jsonl', path / 'index') == len(DOCUMENTS)
  return path


@pytest.fixture
def index(folder):
  return Index(folder / 'index')


def test_rows_that_are_no_documents_are_skipped_and_reported(folder, tmp_path, capsys):
  build(folder / 'documents.jsonl', tmp_path / 'index')
  assert '2 rows skipped; the first: ' in capsys.readouterr().err


@pytest.mark.parametrize(
  'query, first',
  [
    ('volcano', 'Volcanoes (https://a.org/v)'),
    ('volcanoes lava', 'Volcanoes (https://a.org/v)'),
    ('BAKING bread', 'Bread (https://a.org/b)'),
    ('rivers flowing', 'Rivers (https://a.org/r)'),
    ('moon', 'd3'),
  ],
)
def test_the_best_passage_comes_first_with_its_title_and_source(index, query, first):
  assert index.search(query).splitlines()[0] == f'[1] {first}'


def test_results_are_the_passages_that_share_a_word_by_bm25(index):
  """'flows' is in two documents; the shorter text, with the word as often, ranks higher."""
  assert index.search('flows') == (
    '[1] Rivers (https://a.org/r)\nA river flows to the sea. Rivers carry sand.\n'
    '[2] Volcanoes (https://a.org/v)\nLava flows from a volcano.\nAsh falls on the fields.'
  )


def test_scores_agree_with_the_formula_of_bm25(tmp_path):
  """Robertson's formula with k1 = 1.2 and b = 0.75, computed here; words are their own stems."""
  texts = ['cat dog cat', 'dog bird', 'cat ' + 'fish ' * 9, 'bird bird bird cat dog', 'fish']
  rows = [json.dumps({'id': str(i), 'text': text}) for i, text in enumerate(texts)]
  (tmp_path / 'd.jsonl').write_text('\n'.join(rows))
  build(tmp_path / 'd.jsonl', tmp_path / 'index')
  words = [text.split() for text in texts]
  mean = sum(map(len, words)) / len(words)

  def score(query, document):
    total = 0.0
    for word in query:
      n = sum(word in other for other in words)
      idf = math.log(1 + (len(words) - n + 0.5) / (n + 0.5))
      tf = document.count(word)
      total += idf * tf * 2.2 / (tf + 1.2 * (0.25 + 0.75 * len(document) / mean))
    return total

  for query in (['cat'], ['dog', 'bird'], ['fish', 'cat']):
    scores = [score(query, document) for document in words]
    expected = sorted((i for i in range(5) if scores[i]), key=lambda i: -scores[i])[:3]
    found = Index(tmp_path / 'index').search(' '.join(query)).splitlines()[::2]
    assert [int(line.split()[1]) for line in found] == expected, query


@pytest.mark.parametrize(
  'query, text',
  [
    ('', 'error: no words to search for'),
    (' \n?!', 'error: no words to search for'),
    ('xylophone', 'no results'),
    ('a' * 1001, 'error: longer than 1,000 characters'),
  ],
)
def test_queries_without_results(index, query, text):
  assert index.search(query) == text


@pytest.mark.parametrize(
  'query', ['title:bread', 'bread AND (', '"bread', '*', 'bread~9^2', '/(a*)*b/', '\0bread\ud800']
)
def test_queries_have_no_syntax(index, query):
  text = index.search(query.replace('\ud800', ''))
  assert text.startswith('[1] ') or text.startswith('error: no words') or text == 'no results'


def test_a_long_query_of_many_words_is_answered(index):
  assert index.search('bread ' * 160).startswith('[1] Bread')


def test_results_are_no_longer_than_their_limit(tmp_path):
  text = '\n'.join(f'word{i} common ' * 60 for i in range(20))
  row = {'text': text, 'metadata': {'title': 't' * 3000, 'url': 'u' * 3000}}
  (tmp_path / 'd.jsonl').write_text(json.dumps(row))
  build(tmp_path / 'd.jsonl', tmp_path / 'index')
  found = Index(tmp_path / 'index').search('common')
  assert RESULT_CHARS // 2 < len(found) <= RESULT_CHARS
  assert [line[:4] for line in found.splitlines() if line.startswith('[')] == [
    '[1] ',
    '[2] ',
    '[3] ',
  ]


def test_passages_are_whole_paragraphs_and_lose_no_word():
  text = '\n\n'.join(' '.join(f'w{i}x{j}' for j in range(i * 7 % 300)) for i in range(60))
  found = list(passages(text))
  assert max(map(len, found)) <= PASSAGE_CHARS and len(found) > 5
  assert ' '.join(found).split() == text.split()
  assert list(passages('x' * 2000)) == ['x' * 800, 'x' * 800, 'x' * 400]
  assert list(passages(' \n \n')) == []
  assert list(passages('a\n\nb')) == ['a\nb']


def test_a_new_index_replaces_the_old_one(folder, tmp_path):
  build(folder / 'documents.jsonl', tmp_path / 'index')
  (tmp_path / 'one.jsonl').write_text(json.dumps({'text': 'A single page about gardens.'}))
  assert build(tmp_path / 'one.jsonl', tmp_path / 'index') == 1
  assert Index(tmp_path / 'index').search('bread') == 'no results'


def test_an_input_without_documents_is_an_error_and_keeps_the_old_index(folder, tmp_path):
  build(folder / 'documents.jsonl', tmp_path / 'index')
  (tmp_path / 'none.jsonl').write_text('{}')
  with refused(f'document in {tmp_path / "none.jsonl"}'):
    build(tmp_path / 'none.jsonl', tmp_path / 'index')
  assert Index(tmp_path / 'index').search('bread').startswith('[1] Bread')


def test_a_folder_without_an_index_is_an_error(tmp_path):
  for path in (tmp_path, tmp_path / 'missing'):
    with refused('config.tools.index', str(path)):
      Index(path)


def test_a_missing_package_is_an_error_that_names_the_extra(monkeypatch, tmp_path):
  monkeypatch.setitem(sys.modules, 'tantivy', None)
  with refused('package tantivy') as raised:
    corpus_search.Index(tmp_path)
  assert "'.[tools]'" in raised.value.message
