"""Pages that hold evaluation items are dropped, and no others."""

import gzip
import json
import re

import pytest
from commands import run
from refusals import refused
from web import COMMAND, HTML, article, documents_of, page, settings, write

from data.web.clean import clean
from data.web.decontaminate import Items
from lm.base.errors import UserError

ITEM = (
  'A farmer sells seven eggs to each of his nineteen neighbours and keeps eleven for breakfast, '
  'so how many does he gather?'
)
WORDS = ITEM.rstrip('?').replace(',', '').split()
LINE = json.dumps(
  {'id': 7, 'question': ITEM, 'choices': ['Too short an answer', article(900, 2)[0]]}
)


def items(folder, n=13, min_words=8, line=LINE):
  (folder / 'a.jsonl').write_text(line)
  return Items((f'{folder}/*.jsonl',), n, min_words)


@pytest.mark.parametrize(
  ('text', 'first'),
  [
    (ITEM, 0),
    (f'Before. {" ".join(WORDS[:13])} and after.', 0),
    (f'Before. {" ".join(WORDS[3:16])} and after.', 3),
    # twelve words shared, then one, then seven
    (f'{" ".join(WORDS[:12])} other {" ".join(WORDS[13:])}', None),
    (f'Before. {" ".join(WORDS[5:17])} and after.', None),
    (' '.join(reversed(WORDS)), None),
    (ITEM.upper(), 0),
    ('- ' + ' -- '.join(f'"{word}"!' for word in WORDS), 0),
    ('\n\n'.join(WORDS), 0),
    ('Too short an answer', None),
    (ITEM[:20], None),
    ('', None),
  ],
)
def test_thirteen_words_in_a_row_are_found_whatever_stands_between(tmp_path, text, first):
  expected = '' if first is None else ' '.join(WORDS[first : first + 13]).lower()
  assert items(tmp_path).shared(text) == expected


def test_the_length_is_a_setting(tmp_path):
  assert not items(tmp_path, 13).shared(' '.join(WORDS[5:17]))
  assert items(tmp_path, 12).shared(' '.join(WORDS[5:17])) == ' '.join(WORDS[5:17])
  assert items(tmp_path, 4, 4).shared('too short, an ANSWER') == 'too short an answer'


@pytest.mark.parametrize('count', [8, 9, 12])
def test_a_short_item_is_found_as_a_whole(tmp_path, count):
  found = items(
    tmp_path, line=json.dumps({'question': ' '.join(WORDS[:count]), 'answer': 'eleven'})
  )
  whole = ' '.join(WORDS[:count]).lower()
  assert found.shared(f'Before. {whole.upper()}, and after.') == whole == found.shared(whole)
  assert not found.shared(' '.join(WORDS[: count - 1])) and not found.shared(
    f'other {" ".join(WORDS[1:count])} other'
  )
  assert not found.shared('eleven')
  assert found.coverage == {
    'items': 1,
    'by_ngrams': 0,
    'whole': 1,
    'too_short': 1,
    'items_not_sought': 0,
    'not_sought': [],
  }


@pytest.mark.slow
def test_items_that_are_too_short_are_counted_and_named(tmp_path):
  lines = [
    LINE,
    *(json.dumps({'question': f'What is {i} plus 2?', 'answer': i}) for i in range(30)),
  ]
  (tmp_path / 'eval.jsonl').write_text('\n'.join(lines))
  write(
    tmp_path / 'a.warc.gz', [('http://h/1', 200, HTML, page([*article(1), 'What is 3 plus 2?']))]
  )
  options = (
    f'--input={tmp_path}',
    f'--out={tmp_path}/out',
    f'--config.decontaminate={tmp_path}/eval.jsonl',
  )
  status, text, err = run(*COMMAND, *options)
  assert status == 0 and re.search(
    r'evaluation items too short to look for, of 31 +30\n?$', text
  ), err
  found = json.loads((tmp_path / 'out/report.json').read_text())['decontamination']
  assert (
    found.items()
    >= {'items': 31, 'by_ngrams': 2, 'whole': 0, 'too_short': 31, 'items_not_sought': 30}.items()
  )
  assert (
    found['not_sought'][3] == f'{tmp_path}/eval.jsonl, line 5: What is 3 plus 2?'
    and len(found['not_sought']) == 20
  )
  html = (tmp_path / 'out/report.html').read_text()
  assert '30 of 31 items' in html and 'What is 3 plus 2?' in html


@pytest.mark.slow
def test_pages_with_an_item_are_dropped_before_duplicates_are_sought(tmp_path):
  (tmp_path / 'eval').mkdir()
  (tmp_path / 'eval/a.jsonl.gz').write_bytes(gzip.compress(LINE.encode()))
  (tmp_path / 'eval/b.txt').write_text('\n'.join(article(70, 4)))
  clean_text = article(1)
  pages = {
    '1': clean_text,
    # the longer of two that are nearly the same
    '1-and-item': [*clean_text, ITEM.upper().replace(' ', ', ')],
    'text': [*article(2), *article(70, 4)[1:3]],
    'near': [*article(3), ' '.join([*WORDS[:12], 'other', *WORDS[13:]]) + '.'],
  }
  write(
    tmp_path / 'a.warc.gz',
    [(f'http://h/{name}', 200, HTML, page(lines)) for name, lines in pages.items()],
  )
  where = f'{tmp_path}/eval/*.jsonl.gz, {tmp_path}/eval/b.txt'
  report = clean(tmp_path, tmp_path / 'out', settings(decontaminate=where), tasks=2)
  assert {document['metadata']['url'] for document in documents_of(tmp_path / 'out')} == {
    'http://h/1',
    'http://h/near',
  }
  assert report['drops'] == {'contaminated': 2}
  details = {example['url']: example['detail'] for example in report['examples']['contaminated']}
  assert details['http://h/1-and-item'] == ' '.join(WORDS[:13]).lower()
  assert (
    len(details['http://h/text'].split()) == 13
    and details['http://h/text'] in ' '.join(article(70, 4)[1:3]).lower()
  )
  assert clean(tmp_path, tmp_path / 'off', settings())['drops'] == {'near_duplicate': 1}
  (tmp_path / 'eval/b.txt').write_text(ITEM)
  with pytest.raises(UserError) as raised:
    clean(tmp_path, tmp_path / 'out', settings(decontaminate=where), tasks=2)
  assert raised.value.field.startswith('items')


@pytest.mark.slow
def test_faults_are_named(tmp_path):
  cut, flipped = gzip.compress(LINE.encode())[:-12], gzip.compress(LINE.encode())[:12]
  for name, content, field, allowed in (
    ('a.jsonl', b'{"q": "a"}\n{"q"\n', '{}, line 2', 'JSON'),
    ('b.txt', b'\xff\xfe\xfa', '{}', 'UTF-8'),
    ('c.csv', b'a,b', 'config.decontaminate', 'files whose names end in .jsonl'),
    ('cut.jsonl.gz', cut, '{}', 'a whole gzip file'),
    ('cut.txt.gz', gzip.compress(ITEM.encode())[:-1], '{}', 'a whole gzip file'),
    ('plain.jsonl.gz', LINE.encode(), '{}', 'a whole gzip file'),
    ('flipped.jsonl.gz', flipped + b'\xff' * 200, '{}', 'a whole gzip file'),
    ('d.txt', b'too short', 'config.decontaminate', 'config.decontaminate_min_words, 8, words'),
  ):
    path = tmp_path / name
    path.write_bytes(content)
    with refused(field.format(path)) as raised:
      Items((str(path),), 13, 8)
    assert allowed in raised.value.allowed
  with refused('config.decontaminate_ngram', 0):
    Items((f'{tmp_path}/a.jsonl',), 0, 0)
  for least in (0, 14):
    with refused('config.decontaminate_min_words', least) as raised:
      Items((f'{tmp_path}/a.jsonl',), 13, least)
    assert raised.value.allowed.endswith('13')
  write(tmp_path / 'a.warc.gz', [('http://h/1', 200, HTML, page(article(1)))])
  options = (
    f'--input={tmp_path}',
    f'--out={tmp_path}/out',
    f'--config.decontaminate={tmp_path}/none*.jsonl',
  )
  status, _, err = run(*COMMAND, *options)
  assert (
    status == 1
    and err.startswith('error: config.decontaminate is ')
    and not (tmp_path / 'out').exists()
  )
