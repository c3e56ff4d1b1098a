"""A page never ends a run or blocks it: it is kept, or dropped for a cause that is on record."""

import functools
import gzip
import pathlib
import tempfile

import brotli
import hostile
import hypothesis
import pytest
from hypothesis import strategies as st
from web import HTML, article, documents_of, page, settings, write

from data import why
from data.web import blocks, minhash, personal, rules
from data.web.clean import clean
from data.web.extract import extract, tidy
from data.web.limits import PageError, Sandbox, time_limit
from data.web.read import read_pages
from lm.base.errors import UserError

LOOSE = {'gopher_repetition': {'max_paragraph_share': None, 'max_paragraph_char_share': None}, 'minhash': {'bands': 0},
         'languages': {'en': 0.3}, 'c4': {'max_curly_brackets': None},
         'gopher_quality': {'min_alphabetic_words': None}}  # fmt: skip


def record_of(out, url):
  (line,) = why.find(out, url)
  return line


@pytest.mark.slow
@pytest.mark.parametrize('gzipped', [True, False])
def test_hostile_pages_are_kept_or_dropped_for_a_cause_on_record(tmp_path, gzipped):
  responses = [(f'http://h/{name}', *response) for name, (response, _) in hostile.PAGES.items()]
  responses.append(('http://h/good', 200, HTML, page(article(0))))
  write(tmp_path / ('a.warc.gz' if gzipped else 'a.warc'), responses, gzipped)
  report = clean(tmp_path, tmp_path / 'out', settings(**LOOSE))
  lines = {
    name: record_of(tmp_path / 'out', f'http://h/{name}') for name in (*hostile.PAGES, 'good')
  }
  expected = {name: rule or '' for name, (_, rule) in hostile.PAGES.items()} | {'good': ''}
  assert {name: line['rule'] for name, line in lines.items()} == expected
  assert all(line['detail'] for line in lines.values() if line['rule'])
  assert report['drops']['damaged'] == sum(rule == 'damaged' for _, rule in hostile.PAGES.values())
  assert (
    report['pages_in']
    == len(hostile.PAGES) + 1
    == report['pages_out'] + sum(report['drops'].values())
  )
  for document in documents_of(tmp_path / 'out'):
    for text in (document['text'], document['metadata']['title']):
      text.encode()
      assert '\0' not in text and len(text) < 700_000
    assert len(document['metadata']['title']) <= 1000


@pytest.mark.slow
def test_hostile_urls(tmp_path):
  pages = [(url, 200, HTML, page(article(i))) for i, url in enumerate(hostile.URLS)]
  path = tmp_path / 'a.warc'
  write(path, [(f'http://url{i}/', *rest) for i, (_, *rest) in enumerate(pages)], gzipped=False)
  data = path.read_bytes()
  for i, url in enumerate(hostile.URLS):
    data = data.replace(b'http://url%d/' % i, url.encode('utf-8', 'surrogateescape'))
  path.write_bytes(data)
  report = clean(tmp_path, tmp_path / 'out', settings(**LOOSE))
  assert report['pages_in'] == len(pages) and report['drops'] == {'damaged': 2}
  assert report['domains'] and sum(report['domains'].values()) == len(pages) - 2


@pytest.mark.slow
@pytest.mark.parametrize(
  ('module', 'function', 'step'),
  [
    (blocks.language, 'detect', 'language'),
    (blocks.rules, 'first_failure', 'gopher_repetition'),
    (minhash, 'shingles', 'signatures'),
  ],
)
def test_a_step_that_fails_at_a_page_drops_it_and_says_why(
  tmp_path, monkeypatch, module, function, step
):
  right, odd = getattr(module, function), article(2)[0]

  def fails(given, *rest):  # the text, or the checks of a rule, which is a generator over it
    if odd in (given if isinstance(given, str) else given.gi_frame.f_locals['text']):
      raise IndexError('whatever a page provokes')
    return right(given, *rest)

  monkeypatch.setattr(module, function, fails)
  write(tmp_path / 'a.warc.gz', [(f'http://h/{i}', 200, HTML, page(article(i))) for i in range(4)])
  report = clean(tmp_path, tmp_path / 'out', settings(minhash={'ngram': 5}))
  assert report['drops'] == {f'{step}_failed': 1} and report['pages_out'] == 3
  assert report['examples'][f'{step}_failed'][0]['detail'] == 'IndexError: whatever a page provokes'


@pytest.mark.parametrize(
  'error', [UserError(field='a setting'), OSError('no space left'), ModuleNotFoundError('no spacy')]
)
def test_a_fault_of_the_machine_is_no_fault_of_a_page(tmp_path, monkeypatch, error):
  def fails(text):
    raise error

  monkeypatch.setattr(minhash, 'digest', fails)
  write(tmp_path / 'a.warc.gz', [('http://h/1', 200, HTML, page(article(1)))])
  with pytest.raises(type(error), match=str(error)):
    clean(tmp_path, tmp_path / 'out', settings())


@pytest.mark.slow
@pytest.mark.parametrize('extractor', ['resiliparse', 'trafilatura_fast'])
def test_a_page_that_a_parser_cannot_get_through_is_dropped_and_the_next_is_read(
  tmp_path, extractor
):
  responses = [('http://h/0', 200, HTML, page(article(0)))]
  for name, html in hostile.SLOW.items():
    responses += [
      (f'http://h/{name}', 200, HTML, html),
      (f'http://h/after-{name}', 200, HTML, page(article(len(name)))),
    ]
  write(tmp_path / 'a.warc.gz', responses)
  report = clean(tmp_path, tmp_path / 'out', settings(extractor=extractor, step_seconds=0.5))
  lines = {name: record_of(tmp_path / 'out', f'http://h/{name}') for name in hostile.SLOW}
  assert {line['rule'] for line in lines.values()} <= {'extract_timeout', 'empty'}
  assert lines['attributes']['rule'] == 'extract_timeout'
  assert lines['attributes']['detail'].startswith('more than 0.5 s of processor time, for ')
  kept = {document['metadata']['url'] for document in documents_of(tmp_path / 'out')}
  assert (
    kept == {'http://h/0', *(f'http://h/after-{name}' for name in hostile.SLOW)}
    and report['pages_out'] == 3
  )


def test_a_parser_that_crashes_ends_only_the_page():
  with Sandbox(hostile.answer, ('warm up',), 0) as call:
    assert call('a') == 'a'
    for cause in ('SIGSEGV', 'SIGKILL'):
      with pytest.raises(PageError, match=f'ended by {cause}'):
        call(cause)
      assert call('b') == 'b'
    with pytest.raises(PageError, match=r'^ValueError: no$'):
      call('raise')
    with pytest.raises(PageError, match=r'^RecursionError'):
      call('recurse')
    with pytest.raises(PageError, match=r'^MemoryError'):
      call('fill')
    assert call('c') == 'c'
    process = call._process
  assert call._process is None
  with pytest.raises(ValueError, match='closed'):
    process.is_alive()


PACKERS = {'gzip': functools.partial(gzip.compress, compresslevel=1), 'br': functools.partial(brotli.compress, quality=1),
           'zstd': hostile.zstd, '': bytes}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize('pack', PACKERS)
def test_a_decompression_bomb_is_not_unpacked(tmp_path, pack):
  """What is read of it is bounded, in the response and in the WARC record."""
  body = hostile.bomb(50, PACKERS[pack])
  coding = [('Content-Encoding', pack)] if pack else []
  write(tmp_path / 'a.warc.gz', [('http://h/bomb', 200, HTML, body, *coding),
                                 ('http://h/good', 200, HTML, page(article(1)))])  # fmt: skip
  del body
  largest = max(len(found.body) for found in read_pages(tmp_path / 'a.warc.gz', 1_000_000))
  assert largest == 1_000_001
  report = clean(tmp_path, tmp_path / 'out', settings(max_page_bytes=1_000_000))
  assert report['drops'] == {'too_large': 1} and report['pages_out'] == 1
  assert record_of(tmp_path / 'out', 'http://h/bomb')['detail'] == 'more than 1,000,000 bytes'


@pytest.mark.slow
def test_a_page_of_one_line_of_50_megabytes(tmp_path):
  line = ' '.join(article(1)) + ' ' + 'word ' * 10_000_000
  write(tmp_path / 'a.warc.gz', [('http://h/50', 200, HTML, page([line])), ('http://h/5', 200, HTML, page([line[:5_000_000]])),
                                 ('http://h/good', 200, HTML, page(article(1)))])  # fmt: skip
  report = clean(tmp_path, tmp_path / 'out', settings())
  assert report['drops'] == {'too_large': 1, 'gopher_top_2gram': 1} and report['pages_out'] == 1


TEXTS = ['a.' * 50_000, 'a-' * 50_000 + '@', '! ' * 50_000, '")]' * 50_000, '. ' + '"' * 100_000, 'a@' * 50_000,
         '%40' * 50_000, 'a%2B' * 50_000 + '@', '\t ' * 50_000, '\n\n ' * 50_000, '[' * 100_000, '1.' * 50_000]  # fmt: skip


@pytest.mark.parametrize('text', TEXTS)
def test_no_expression_takes_long_on_text_made_for_it(text):
  """Seconds of the processor, not of the clock; each takes milliseconds, and minutes where time
  grows with the square.
  """
  with time_limit(5):
    tidied = tidy(text)
    for rule in (rules.gopher_repetition, rules.gopher_quality, rules.c4, rules.fineweb):
      rules.first_failure(
        rule(tidied, words='whitespace') if rule is not rules.c4 else rule(tidied)
      )
    rules.c4_lines(text)
    personal.hide_in_url(text)
    minhash.shingles(text)


def _warc(gzipped):
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / 'a.warc'
    write(path, [(f'http://h/{i}', 200, HTML, page(article(i, 5))) for i in range(3)], gzipped)
    return path.read_bytes()


WARCS = [_warc(False), _warc(True)]
MARKUP = (
  page(article(1), title='Ünïcode &amp; ').encode() + b'<![CDATA[x]]><!-- a --><table><tr><td>'
)
TORN = [
  b'<',
  b'\0',
  b'\r\n\r\n',
  b'&#xD800;',
  b'<![ if',
  b'charset=utf-7',
  b'Content-Encoding: br',
  b'WARC/1.0\r\n',
]


@st.composite
def damaged(draw, whole):
  """Bytes with a few parts cut out, overwritten or doubled."""
  data = bytearray(whole)
  for _ in range(draw(st.integers(1, 8))):
    start = draw(st.integers(0, len(data)))
    stop = min(start + draw(st.integers(0, 30)), len(data))
    part = bytes(data[start:stop]) * 3
    data[start:stop] = draw(st.one_of(st.binary(max_size=30), st.just(part), st.sampled_from(TORN)))
  return bytes(data)


@hypothesis.settings(max_examples=150, derandomize=True)
@hypothesis.given(
  damaged(MARKUP),
  damaged(b'text/html; charset=utf-8'),
  st.sampled_from(['resiliparse', 'trafilatura_fast']),
)
def test_any_page_gives_text_that_can_be_written(body, kind, extractor):
  title, text = extract(body, kind.decode('latin-1'), extractor)
  assert (title + text).encode() is not None and '\0' not in title + text


@pytest.mark.slow
@hypothesis.settings(max_examples=300, derandomize=True)
@hypothesis.given(st.data())
def test_any_damage_of_a_warc_file_is_read_to_its_end(data):
  gzipped = data.draw(st.booleans())
  whole = WARCS[gzipped]
  with tempfile.NamedTemporaryFile() as file:
    file.write(data.draw(damaged(whole)))
    file.flush()
    found = list(read_pages(file.name, 100_000))
  assert len(found) < 20 and all(
    isinstance(part, str) for one in found for part in (one.url, one.content_type, one.fault)
  )
