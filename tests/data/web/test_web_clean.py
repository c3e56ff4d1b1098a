"""The cleaning stage from WARC files written by hand to documents."""

import gzip
import hashlib
import inspect
import io
import json
import random
import subprocess
import sys

import pytest
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from data.web import clean as clean_module
from data.web.clean import clean
from data.web.extract import extract, tidy
from data.web.language import detect
from data.web.read import read_pages, warc_files
from data.web.rules import gopher_repetition
from lm.errors import UserError

WORDS = """\
miller letter boat garden clock river captain spoon bridge teacher merchant horse candle window mountain basket farmer
carried painted forgot described repaired followed borrowed remembered admired counted sold found hid washed
old young wooden silent broken honest narrow golden careful distant heavy patient empty bright
near behind without before after under beside because"""
NOUNS, VERBS, ADJECTIVES, LINKS = (line.split() for line in WORDS.splitlines())


def article(seed, sentences=20):
  """English prose of one sentence a line, the same for the same seed."""
  rng = random.Random(seed)

  def thing():
    return f'{rng.choice(ADJECTIVES)} {rng.choice(NOUNS)}'

  return [
    f'The {thing()} and my {thing()} {rng.choice(VERBS)} that {thing()} {rng.choice(LINKS)} her {thing()}.'
    for _ in range(sentences)
  ]


def page(lines, title='A page'):
  return f'<html><head><title>{title}</title></head><body><p>' + '</p><p>'.join(lines) + '</p></body></html>'


FRENCH = [
  'Le vieux meunier portait chaque matin une lettre à sa fille qui habitait dans la grande ville.',
  'Personne au village ne se souvenait de la couleur du pont avant la guerre.',
  'Quand le froid arrive trop tôt, les bergers descendent avec leurs moutons.',
]


def write(path, responses, gzipped=True):
  """Writes (url, status, content type, body, extra headers) as a WARC file."""
  with open(path, 'wb') as f:
    writer = WARCWriter(f, gzip=gzipped)
    writer.write_record(writer.create_warcinfo_record(path.name, {'software': 'test'}))
    for url, status, kind, body, *extra in responses:
      body = body.encode() if isinstance(body, str) else body
      headers = StatusAndHeaders(str(status), [('Content-Type', kind), *extra], protocol='HTTP/1.1')
      writer.write_record(writer.create_warc_record(url, 'response', io.BytesIO(body), http_headers=headers))


HTML = 'text/html; charset=utf-8'


@pytest.fixture
def corpus(tmp_path):
  near = article(1)
  near[7] = 'This one line was changed by somebody.'
  chunked = ''.join(f'{len(part):x}\r\n{part}\r\n' for part in (page(article(4))[:500], page(article(4))[500:], ''))
  write(
    tmp_path / 'a.warc.gz',
    [
      ('http://h/1-near', 200, HTML, page(near)),
      ('http://h/1', 200, HTML, page([*article(1), 'This is the longer one of two that are nearly the same page.'])),
      ('http://h/2', 200, HTML, page(article(2))),
      ('http://h/2-again', 200, HTML, page([line.lower() for line in article(2)])),
      ('http://h/gone', 404, HTML, page(article(3))),
      ('http://h/pic', 200, 'image/png', b'\x89PNG'),
      ('http://h/empty', 200, HTML, '<html><body></body></html>'),
      ('http://h/fr', 200, HTML, page(FRENCH * 3)),
      ('http://h/short', 200, HTML, page(article(5, sentences=2))),
      ('http://h/same', 200, HTML, page(article(6, sentences=3) * 6)),
    ],
  )
  write(
    tmp_path / 'b.warc',
    [
      ('http://h/chunked', 200, HTML, chunked, ('Transfer-Encoding', 'chunked')),
      ('http://h/gzip', 200, HTML, gzip.compress(page(article(7)).encode()), ('Content-Encoding', 'gzip')),
      ('http://h/latin', 200, 'text/html; charset=iso-8859-1', page([*article(8), 'Café.']).encode('latin-1')),
      ('http://h/torn', 200, HTML, page(article(9))),
    ],
    gzipped=False,
  )
  whole = (tmp_path / 'b.warc').read_bytes()
  (tmp_path / 'b.warc').write_bytes(whole[:-600])
  return tmp_path


EXPECTED_DROPS = {
  'exact_duplicate': ['http://h/2-again'],
  'near_duplicate': ['http://h/1-near'],
  'status': ['http://h/gone'],
  'not_html': ['http://h/pic'],
  'empty': ['http://h/empty'],
  'language': ['http://h/fr'],
  'gopher_words': ['http://h/short'],
  'gopher_duplicate_lines': ['http://h/same'],
  'damaged': ['http://h/torn'],
}


def test_every_page_is_kept_or_dropped_by_the_rule_it_breaks(corpus):
  paragraphs_off = {'max_paragraph_share': None, 'max_paragraph_char_share': None}
  report = clean(corpus, corpus / 'out', gopher_repetition=paragraphs_off)
  documents = [json.loads(line) for line in (corpus / 'out/documents.jsonl').read_text().splitlines()]
  assert {rule: [e['url'] for e in found] for rule, found in report['examples'].items()} == EXPECTED_DROPS
  assert report['drops'] == {rule: len(urls) for rule, urls in EXPECTED_DROPS.items()}
  assert report['pages_in'] == 14 == report['pages_out'] + sum(report['drops'].values())
  urls = {document['metadata']['url'] for document in documents}
  assert urls == {f'http://h/{name}' for name in ('1', '2', 'chunked', 'gzip', 'latin')} and len(documents) == 5
  assert report['bytes_out'] == sum(len(document['text'].encode()) for document in documents)
  assert report['languages'] == {'en': 9, 'fr': 1}
  assert json.loads((corpus / 'out/report.json').read_text()) == report
  for document in documents:
    assert document['metadata']['title'] == 'A page' and document['metadata']['language'] == 'en'
    assert document['id'] == hashlib.sha256(' '.join(document['text'].lower().split()).encode()).hexdigest()[:16]
  assert len({document['id'] for document in documents}) == 5
  texts = {document['metadata']['url']: document['text'] for document in documents}
  assert 'Café.' in texts['http://h/latin'] and article(4)[11] in texts['http://h/chunked']


def test_thresholds_and_steps_can_be_changed(corpus):
  off = dict.fromkeys(inspect.signature(gopher_repetition).parameters)
  del off['text']
  rules = {'gopher_repetition': off, 'gopher_quality': {'min_stop_words': 0}, 'fineweb': {'max_line_char_share': None}}
  report = clean(corpus, corpus / 'out', languages={'fr': 0.5}, **rules)
  assert report['pages_out'] == 1 and report['drops']['language'] == 9
  report = clean(corpus, corpus / 'out', near_duplicates=False)
  documents = [json.loads(line) for line in (corpus / 'out/documents.jsonl').read_text().splitlines()]
  clusters = {document['metadata']['url']: document['metadata']['cluster'] for document in documents}
  assert clusters['http://h/1'] == clusters['http://h/1-near'] and len(set(clusters.values())) == len(clusters) - 1
  with pytest.raises(UserError, match=r"gopher_quality threshold 'min_word'.*did you mean 'min_words'"):
    clean(corpus, corpus / 'out', gopher_quality={'min_word': 3})
  with pytest.raises(UserError, match=r"extractor 'lynx'"):
    clean(corpus, corpus / 'out', extractor='lynx')


def test_shared_passages_are_cut_and_what_is_left_is_judged(tmp_path):
  menu = article(99, 8)
  responses = [(f'http://h/{i}', 200, HTML, page(menu + article(i, 10 + i))) for i in range(5)]
  responses.append(('http://h/menu', 200, HTML, page(menu)))
  write(tmp_path / 'a.warc.gz', responses)
  report = clean(tmp_path, tmp_path / 'out', passage_lines=3)
  assert report['drops'] == {'repeated_passages': 1} and report['pages_out'] == 5
  documents = [json.loads(line) for line in (tmp_path / 'out/documents.jsonl').read_text().splitlines()]
  assert [document['metadata']['url'] for document in documents if menu[3] in document['text']] == ['http://h/4']


def test_nothing_left_names_the_folder_and_the_rules(tmp_path):
  write(tmp_path / 'a.warc.gz', [(f'http://h/{i}', 404, HTML, 'no') for i in range(3)])
  with pytest.raises(UserError, match=rf'{tmp_path}: no document left of 3 pages.*status 3'):
    clean(tmp_path, tmp_path / 'out')
  assert not (tmp_path / 'out').exists() or not list((tmp_path / 'out').iterdir())
  with pytest.raises(UserError, match='no WARC file'):
    clean(tmp_path / 'out', tmp_path / 'out2')


def test_a_run_that_is_cut_short_leaves_the_old_files(corpus, monkeypatch):
  clean(corpus, corpus / 'out')
  before = {path.name: path.read_bytes() for path in (corpus / 'out').iterdir()}
  dumps, written = json.dumps, []

  def full(value, **options):
    if len(written) == 2:
      raise OSError('No space left on device')
    written.append(value)
    return dumps(value, **options)

  monkeypatch.setattr(clean_module.json, 'dumps', full)
  with pytest.raises(OSError, match='No space'):
    clean(corpus, corpus / 'out', near_duplicates=False)
  monkeypatch.undo()
  assert {path.name: path.read_bytes() for path in (corpus / 'out').iterdir()} == before


def test_damaged_files_are_counted_and_read_to_their_end(tmp_path):
  path = tmp_path / 'a.warc.gz'
  write(path, [(f'http://h/{i}', 200, HTML, page(article(i))) for i in range(6)])
  data = bytearray(path.read_bytes())
  starts = [i for i in range(len(data)) if data[i : i + 3] == b'\x1f\x8b\x08']
  data[starts[3] : starts[3] + 40] = b'?' * 40  # the head of the third page
  del data[-100:]
  path.write_bytes(data)
  pages = list(read_pages(path))
  assert [p.url for p in pages if not p.fault] == ['http://h/0', 'http://h/1', 'http://h/3', 'http://h/4']
  assert len([p for p in pages if p.fault]) == 2
  assert clean(tmp_path, tmp_path / 'out')['drops']['damaged'] == 2
  rng = random.Random(0)
  for _ in range(200):  # any damage: no exception, and an end
    noisy = bytearray(data)
    for _ in range(rng.choice((1, 10))):
      at = rng.randrange(len(noisy))
      noisy[at : at + rng.randrange(20)] = rng.randbytes(rng.randrange(20))
    path.write_bytes(noisy)
    assert len(list(read_pages(path))) < 50


def test_records_without_what_a_response_needs(tmp_path):
  path = tmp_path / 'a.warc'
  write(path, [('http://h/0', 200, HTML, page(article(0)))], gzipped=False)
  odd = b'WARC/1.0\r\nWARC-Type: response\r\nContent-Length: 5\r\n\r\nhello\r\n\r\n'
  path.write_bytes(odd + path.read_bytes())
  assert [(bool(p.fault), p.url) for p in read_pages(path)][-1] == (False, 'http://h/0')
  assert warc_files(tmp_path) == warc_files(f'{tmp_path}/*.warc') == [path]


def test_reference_pages_keep_their_lines():
  body = (
    b'<html><head><title> Pydoc:\n module  x</title></head><body><a href="file:/home/me/x.py">/home/me/x.py</a>'
    b'<dl><dt><strong>f</strong>(a, b=None)</dt><dd><span>Adds&nbsp;two&nbsp;numbers.<br>\n&nbsp;<br>\n'
    b'&gt;&gt;&gt;&nbsp;f(1,&nbsp;2)<br>\n3</span></dd></dl></body></html>'
  )
  title, text = extract(body, 'text/html')
  assert title == 'Pydoc: module x'
  assert text.split('\n') == ['f(a, b=None)', 'Adds two numbers.', '', '>>> f(1, 2)', '3']
  assert tidy('a\xa0b \t c\r\n\r\n\r\n\r\nd\x00  \n') == 'a b c\n\nd'


def test_charset_is_the_headers_else_the_pages_else_a_guess():
  russian = 'Мельник нёс письмо'
  html = f'<html><head><meta charset="koi8-r"></head><body><p>{russian}</p></body></html>'
  assert extract(html.encode('cp1251'), 'text/html; charset=windows-1251')[1] == russian
  assert extract(html.encode('koi8-r'), 'text/html')[1] == russian
  assert extract(html.encode('utf-8'), 'text/html; charset=no-such')[1] == russian


@pytest.mark.parametrize(('text', 'code'), [(' '.join(article(0)), 'en'), ('\n'.join(FRENCH), 'fr')])
def test_language(text, code):
  found, score = detect(text)
  assert found == code and 0.65 < score <= 1


def test_command(corpus):
  run = [sys.executable, '-m', 'data.web', f'--input={corpus}/*.warc*', f'--out={corpus}/out']
  process = subprocess.run(run, capture_output=True, text=True)
  assert process.returncode == 0 and 'pages in' in process.stdout and (corpus / 'out/documents.jsonl').exists()
  run[3] = f'--input={corpus}/nothing'
  process = subprocess.run(run, capture_output=True, text=True)
  assert process.returncode == 1 and process.stderr.startswith('error: no WARC file')
