"""The cleaning stage from WARC files written by hand to documents."""

import contextlib
import glob
import gzip
import html
import html.parser
import json
import os
import random
import re
import shutil
import signal

import fsspec
import pytest
from commands import kill_at, run
from datatrove.io import DataFolder
from refusals import refused
from web import COMMAND, FRENCH, HTML, article, documents_of, page, settings, write

from data import why
from data.web import blocks
from data.web.clean import clean
from data.web.extract import EXTRACTORS, extract, tidy
from data.web.language import detect
from data.web.limits import time_limit
from data.web.personal import EMAIL
from data.web.read import read_pages, warc_files
from lm.base import files
from lm.base.errors import UserError

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
KEPT = {f'http://h/{name}' for name in ('1', '2', 'chunked', 'gzip', 'latin')}
LINES_ONLY = {'gopher_repetition': {'max_paragraph_share': None, 'max_paragraph_char_share': None}}


@pytest.mark.slow
@pytest.mark.parametrize(
  ('place', 'tasks'), [('{}/out', 1), ('file://{}/out', 2), ('memory:/{}', 3)]
)
def test_every_page_is_kept_or_dropped_by_the_rule_it_breaks(corpus, place, tasks):
  out = place.format(corpus)
  report = clean(corpus, out, settings(**LINES_ONLY), tasks=tasks)
  documents = documents_of(out)
  assert {
    rule: [e['url'] for e in found] for rule, found in report['examples'].items()
  } == EXPECTED_DROPS
  assert report['drops'] == {rule: len(urls) for rule, urls in EXPECTED_DROPS.items()}
  assert report['pages_in'] == 14 == report['pages_out'] + sum(report['drops'].values())
  assert {document['metadata']['url'] for document in documents} == KEPT and len(documents) == 5
  assert report['bytes_out'] == sum(len(document['text'].encode()) for document in documents)
  assert report['languages'] == {'en': 9, 'fr': 1} and report['domains'] == {'h': 5}
  for document in documents:
    assert document['metadata']['title'] == 'A page' and document['metadata']['language'] == 'en'
    assert document['metadata'].keys() == {'url', 'title', 'language', 'language_score', 'cluster'}
  assert len({document['id'] for document in documents}) == 5
  assert len({document['metadata']['cluster'] for document in documents}) == 5
  texts = {document['metadata']['url']: document['text'] for document in documents}
  assert (
    'The café was open.' in texts['http://h/latin'] and article(4)[11] in texts['http://h/chunked']
  )
  for before, after in zip(report['steps'], report['steps'][1:], strict=False):
    assert (before['pages_out'], before['bytes_out']) == (after['pages_in'], after['bytes_in'])
    assert after['pages_in'] == after['pages_out'] + sum(after['drops'].values())
    assert after['drops'].keys() == after['dropped_bytes'].keys()
    if after['step'] not in ('extract', 'c4', 'pii'):  # what changes texts
      assert after['bytes_in'] == after['bytes_out'] + sum(after['dropped_bytes'].values())
  with fsspec.open(f'{out}/report.json') as f:
    assert json.load(f) == report


@pytest.mark.slow
def test_every_page_is_on_record_with_its_figures(corpus):
  clean(corpus, corpus / 'out', settings(**LINES_ONLY))
  record = {}
  for name in glob.glob(f'{corpus}/out/pages/*/*.jsonl.gz'):
    with gzip.open(name) as f:
      record |= {line['url']: line for line in map(json.loads, f)}
  assert {url for url in record if not record[url]['rule']} == KEPT and len(record) == 14
  assert (
    record['http://h/short']['detail']
    == f'words {len(" ".join(article(5, sentences=2)).split())} < 50'
  )
  assert record['http://h/1-near']['detail'] == 'of http://h/1'
  figures = record['http://h/1']['figures']
  assert (
    figures['gopher_words: words'][1:] == [50, 100_000]
    and 'fineweb_list: line breaks per word' in figures
  )
  assert record['http://h/gone']['rule'] == 'status' and not record['http://h/gone']['figures']


@pytest.mark.slow
def test_the_report_shows_every_page_and_runs_nothing(corpus):
  hostile = '<script>alert(1)</script><b/onclick="alert(2)">'
  bad = page([html.escape(hostile)] * 3)
  write(corpus / 'c.warc', [(f'http://h/{hostile}', 200, HTML, bad), ('http://<b>&amp;h/', 200, HTML, page(article(50)))],
        gzipped=False)  # fmt: skip
  report = clean(corpus, corpus / 'out', settings(**LINES_ONLY), tasks=2)
  measured = {name: sum(histogram['counts']) for name, histogram in report['statistics'].items()}
  words = report['statistics']['gopher_words: words']
  left = sum(
    report['drops'].get(rule, 0)
    for rule in ('gopher_duplicate_lines', 'status', 'not_html', 'empty', 'damaged')
  )
  assert measured['gopher_words: words'] == 16 - left - report['drops']['language']
  assert sum(n for n, edge in zip(words['counts'], words['edges'], strict=False) if edge < 50) == 1
  assert (words['low'], words['high']) == (50, 100_000) and measured[
    'fineweb_list: line breaks per word'
  ] == 8
  assert report['duplicate_clusters'] == {'2': 2}
  text = (corpus / 'out/report.html').read_text()
  seen = html.parser.HTMLParser()
  tags = []
  seen.handle_starttag = lambda tag, attributes: tags.append((tag, dict(attributes)))
  seen.feed(text)
  assert {tag for tag, _ in tags} & {'table', 'svg', 'details'} and not {tag for tag, _ in tags} & {
    'script',
    'img',
    'b',
  }
  assert not [
    attributes for _, attributes in tags if attributes.keys() & {'src', 'href', 'onclick'}
  ]
  assert text.count(html.escape(hostile)) >= 2 and html.escape('<b>&amp;h') in text
  for name in (
    *report['drops'],
    *(step['step'] for step in report['steps']),
    *report['languages'],
    *report['domains'],
  ):
    assert html.escape(name) in text
  dashed = [attributes for _, attributes in tags if 'dasharray' in attributes.get('style', '')]
  assert len(dashed) == sum(
    h[bound] is not None for h in report['statistics'].values() for bound in ('low', 'high')
  )


@pytest.mark.slow
def test_url_lists_are_datatroves(tmp_path, monkeypatch):
  """The lists themselves take 800 MB: here a few names of each kind."""
  lists = blocks.OfflineUrlFilter(2, extra_domains=['bad.com', 'sub.good.com'],
                    extra_urls=['http://good.com/x'], banned_words=['worst'],
                    soft_banned_words=['soft', 'softer'], use_integrated_lists=False)  # fmt: skip
  monkeypatch.setattr(blocks, 'url_filter', lambda soft_words: lists)
  urls = {'http://www.bad.com/': 'url_domain', 'http://sub.good.com/': 'url_subdomain', 'http://good.com/x': 'url_url',
          'http://good.com/the-worst': 'url_hard_blacklisted', 'http://a.com/soft/softer': 'url_soft_blacklisted',
          'http://a.com/soft': '', 'http://good.com/': ''}  # fmt: skip
  write(
    tmp_path / 'a.warc',
    [(url, 200, HTML, page(article(i))) for i, url in enumerate(urls)],
    gzipped=False,
  )
  report = clean(tmp_path, tmp_path / 'out', settings(url_lists=True))
  found = {line['url']: line['rule'] for url in urls for line in why.find(tmp_path / 'out', url)}
  assert found == urls and report['pages_out'] == 2


@pytest.mark.slow
def test_why_tells_the_verdict_and_the_figures(corpus):
  out = corpus / 'out'
  clean(corpus, out, settings(**LINES_ONLY), tasks=2)
  status, text, err = run('-m', 'data.why', 'http://h/short', f'--run={out}')
  words = len(' '.join(article(5, sentences=2)).split())
  assert (
    status == 0 and f'dropped by gopher_words (step gopher_quality): words {words} < 50' in text
  ), err
  bound = r'>= 50 \(config\.gopher_quality\.min_words\)'
  assert re.search(rf'gopher_words: words +{words} +{bound}\n', text) and 'fineweb' not in text
  (name,) = (
    document['id'] for document in documents_of(out) if document['metadata']['url'] == 'http://h/1'
  )
  status, text, err = run('-m', 'data.why', name, f'--run={out}')
  assert (
    status == 0 and text.startswith(f'http://h/1  id {name}\n  kept\n') and '<= 0.67' in text
  ), err
  status, _, err = run('-m', 'data.why', 'http://h/none', f'--run={out}')
  assert status == 1 and "page is 'http://h/none'; allowed: " in err
  status, _, err = run('-m', 'data.why', 'http://h/none', f'--run={corpus}')
  assert status == 1 and err.startswith('error: --run is ')


@pytest.mark.slow
def test_input_may_be_any_path_that_fsspec_knows(corpus):
  system = fsspec.filesystem('memory')
  for path in corpus.glob('*.warc*'):
    system.put(str(path), f'/crawl/{path.name}')
  there, here = (
    clean(source, corpus / name, settings())
    for source, name in (('memory://crawl', 'a'), (corpus, 'b'))
  )
  assert there['drops'] == here['drops'] and documents_of(corpus / 'a') == documents_of(
    corpus / 'b'
  )
  assert documents_of(corpus / 'a')


def test_a_path_of_another_kind_is_refused_by_name(corpus):
  fsspec.register_implementation(
    'far', 'no_such_package.FarFileSystem', errtxt='Install no_such_package'
  )
  for path, cause in (
    ('far://a', 'Install no_such_package'),
    ('farther://a', 'Protocol not known: farther'),
  ):
    for source, out, changes in (
      (path, corpus / 'out', {}),
      (corpus, path, {}),
      (corpus, corpus / 'out', {'decontaminate': path}),
      (corpus, corpus / 'out', {'quality': {'model': path}}),
    ):
      with refused(path, allowed='a path that can be opened') as raised:
        clean(source, out, settings(**changes))
      assert cause in raised.value.value
    with refused(path, allowed='a path that can be opened'):
      list(why.find(path, 'http://h/1'))
  assert not (corpus / 'out').exists()


@pytest.mark.slow
def test_the_split_into_tasks_changes_nothing(corpus):
  for name, tasks in (('one', 1), ('two', 2), ('many', 5)):
    clean(corpus, corpus / name, settings(cluster_similarity=0.5), tasks=tasks)
  one, *others = [
    sorted(map(json.dumps, documents_of(corpus / name))) for name in ('one', 'two', 'many')
  ]
  assert others == [one, one] and len(one) == 5


@pytest.mark.slow
def test_settings_change_what_is_kept(corpus):
  free = {'max_line_share': None, 'max_line_char_share': None, 'max_paragraph_share': None,
          'max_paragraph_char_share': None, 'max_top_ngram_char_share': (), 'max_duplicate_ngram_char_share': ()}  # fmt: skip
  config = settings(languages={'fr': 0.5, 'en': 1.0}, gopher_repetition=free, gopher_quality={'min_stop_words': None},
                    fineweb={'max_line_char_share': None})  # fmt: skip
  report = clean(corpus, corpus / 'french', config)
  assert report['pages_out'] == 1 and report['drops']['language'] == 9
  config = settings(minhash={'bands': 0}, cluster_similarity=0.5)
  report = clean(corpus, corpus / 'exact', config)
  clusters = {
    document['metadata']['url']: document['metadata']['cluster']
    for document in documents_of(corpus / 'exact')
  }
  assert (
    clusters['http://h/1'] == clusters['http://h/1-near']
    and len(set(clusters.values())) == len(clusters) - 1
  )
  assert report['drops']['exact_duplicate'] == 1 and 'near_duplicate' not in report['drops']
  with refused('config.extractor', 'lynx'):
    clean(corpus, corpus / 'new', settings(extractor='lynx'))
  with refused('executor', 'slum'):
    clean(corpus, corpus / 'new', settings(), executor='slum')
  assert not (corpus / 'new').exists()


TOLD = [*article(1), 'Write to jane.doe@some-company.com or 8.8.8.8 but not to 192.168.0.1 please.']
SECRETS = re.compile(rb'jane|some-company|8\.8\.8\.8')


@pytest.mark.slow
def test_personal_data_gives_way_to_reserved_examples(tmp_path):
  write(tmp_path / 'a.warc.gz', [('http://h/1', 200, HTML, page(TOLD))])
  for pii in (True, False):
    clean(tmp_path, tmp_path / str(pii), settings(pii=pii))
  (hidden,), (open_,) = documents_of(tmp_path / 'True'), documents_of(tmp_path / 'False')
  assert f'Write to {EMAIL} or 192.0.2.1 but not to 192.168.0.1 please.' in hidden['text']
  assert TOLD[-1] in open_['text']


@pytest.mark.slow
@pytest.mark.parametrize('pii', [True, False])
def test_personal_data_is_in_no_file_that_is_written(tmp_path, monkeypatch, pii):
  """Titles, URLs, dropped pages, causes, examples; also where a run was cut off before its end."""
  mail = 'jane.doe@some-company.com'
  title = f'Profile of {mail} at 8.8.8.8'
  urls = {
    f'http://h/u?mail={mail}&x=1': page(article(1), title),
    'http://h/u/jane%40some-company.com/1': page(TOLD, title),
    'http://h/u%3Fm%3Djane%2540some-company.com': page(article(3), title),
    'http://8.8.8.8/a': page(article(4), title),
    f'http://h/short/{mail}': page([f'{mail} ' * 9]),
    f'http://h/same/{mail}': page([*article(1), 'A last line of it.'], title),
    f'http://h/french/{mail}': page(
      [f'{line} {mail} {mail.replace("@", "%40")} 8.8.8.8' for line in FRENCH]
    ),
  }
  gone = [
    (f'http://h/{mail}', 404, HTML, f'<p>{"x" * 190}{mail}'),
    (f'http://h/pic/{mail}', 200, f'image/{mail}', mail),
    (
      f'http://h/references/{mail}',
      404,
      HTML,
      '<p>jane&#64;some-company.com jane&commat;some-company.com',
    ),
    (f'http://h/json/{mail}', 200, 'application/json', '{"mail": "jane\\u0040some-company.com"}'),
    (f'http://h/wide/{mail}', 404, HTML, f'<p>{mail}'.encode('utf-16')),
  ]
  (tmp_path / 'items.txt').write_text(mail)
  (tmp_path / 'items.jsonl').write_text(json.dumps({'q': 'eight words that no page has in a row'}))
  write(tmp_path / 'a.warc.gz', [*((url, 200, HTML, body) for url, body in urls.items()), *gone])
  monkeypatch.setattr(DataFolder, 'rm', lambda *_, **__: None)  # keeps what the steps hand on
  report = clean(tmp_path, tmp_path / 'out', settings(pii=pii, decontaminate=f'{tmp_path}/items.*'))
  assert report['pages_out'] == 3 and sum(report['drops'].values()) == 9
  found = set()
  for name in glob.glob(f'{tmp_path}/out/**', recursive=True):
    if os.path.isfile(name):
      with (gzip.open if name.endswith('.gz') else open)(name, 'rb') as f:
        if SECRETS.search(f.read().replace(b'\\u0000', b'')):
          found.add(os.path.relpath(name, tmp_path / 'out'))
  assert bool(found) != pii and (not pii or not found)
  for url in [*urls, *(url for url, *_ in gone)]:  # and each page can still be asked for
    lines = list(why.find(tmp_path / 'out', url))
    assert lines and all(SECRETS.search(line['url'].encode()) is None for line in lines) == pii
  assert '192.0.2.1' in report['domains'] or not pii


@pytest.mark.slow
def test_shared_passages_are_cut_and_what_is_left_is_judged(tmp_path):
  menu = article(99, 8)
  responses = [(f'http://h/{i}', 200, HTML, page(menu + article(i, 10 + i))) for i in range(5)]
  responses.append(('http://h/menu', 200, HTML, page(menu)))
  write(tmp_path / 'a.warc.gz', responses)
  report = clean(tmp_path, tmp_path / 'out', settings(passage_lines=3))
  assert report['drops'] == {'repeated_passages': 1} and report['pages_out'] == 5
  documents = documents_of(tmp_path / 'out')
  assert [document['metadata']['url'] for document in documents if menu[3] in document['text']] == [
    'http://h/4'
  ]


def test_nothing_left_names_the_folder_and_the_rules(tmp_path):
  write(tmp_path / 'a.warc.gz', [(f'http://h/{i}', 404, HTML, 'no') for i in range(3)])
  with refused(f'document left of the 3 pages of {tmp_path}') as raised:
    clean(tmp_path, tmp_path / 'out', settings())
  assert 'status 3' in raised.value.message
  with refused('--input', str(tmp_path / 'out')):
    clean(tmp_path / 'out', tmp_path / 'out2', settings())


def test_a_folder_is_written_by_one_process(corpus):
  with files.locked(corpus / 'out'), refused(corpus / 'out', f'process {os.getpid()} uses it'):
    clean(corpus, corpus / 'out', settings())


@pytest.mark.slow
def test_a_folder_holds_one_run(corpus):
  clean(corpus, corpus / 'out', settings())
  before = (corpus / 'out/report.json').stat().st_mtime_ns
  clean(corpus, corpus / 'out', settings(memory_gb=1))
  assert (corpus / 'out/report.json').stat().st_mtime_ns == before
  with pytest.raises(UserError) as raised:
    clean(corpus, corpus / 'out', settings(gopher_quality={'min_words': 40}))
  assert (raised.value.field, raised.value.value) == ('settings.gopher_quality.min_words', 40)
  assert raised.value.allowed.startswith('50, with which')
  shutil.copy(corpus / 'a.warc.gz', corpus / 'c.warc.gz')
  with pytest.raises(UserError) as raised:
    clean(corpus, corpus / 'out', settings())
  assert raised.value.field.startswith('inputs')


@pytest.mark.slow
@pytest.mark.parametrize('workers', [1, 2])
def test_a_killed_run_goes_on_to_the_same_result(corpus, workers):
  for i in range(4):
    write(
      corpus / f'd{i}.warc.gz',
      [(f'http://h/{i}/{j}', 200, HTML, page(article(10 * i + j))) for j in range(10)],
    )
  options = (f'--input={corpus}', '--tasks=6', f'--workers={workers}')
  out, whole = corpus / 'cut', corpus / 'whole'
  kill_at(out / 'logs/filter/completions/00002', *COMMAND, *options, f'--out={out}')
  kill_at(out / 'logs/pairs/completions/00003', *COMMAND, *options, f'--out={out}')
  assert not (out / 'report.json').exists()
  done = out / 'logs/filter/completions/00002'
  before = done.stat().st_mtime_ns
  for place in (out, whole):
    status, text, err = run(*COMMAND, *options, f'--out={place}')
    assert status == 0 and 'pages out' in text, err
  assert done.stat().st_mtime_ns == before
  for name in [*(f'documents-{i:05d}-of-00006.jsonl.gz' for i in range(6)), 'run.json']:
    assert (out / name).read_bytes() == (whole / name).read_bytes(), name
  reports = [json.loads((place / 'report.json').read_text()) for place in (out, whole)]
  for report in reports:
    del report['seconds']
    for step in report['steps']:
      del step['seconds']
  assert reports[0] == reports[1] and reports[0]['pages_in'] == 54
  records = [
    {str(name.relative_to(place)): name.read_bytes() for name in place.glob('pages/*/*')}
    for place in (out, whole)
  ]
  assert records[0] == records[1]


@pytest.mark.slow
def test_damaged_files_are_counted_and_read_to_their_end(tmp_path):
  path = tmp_path / 'a.warc.gz'
  write(path, [(f'http://h/{i}', 200, HTML, page(article(i))) for i in range(6)])
  data = bytearray(path.read_bytes())
  starts = [i for i in range(len(data)) if data[i : i + 3] == b'\x1f\x8b\x08']
  data[starts[3] : starts[3] + 40] = b'?' * 40  # the head of the third page
  del data[-100:]
  path.write_bytes(data)
  pages = list(read_pages(path, 1_000_000))
  assert [p.url for p in pages if not p.fault] == [
    'http://h/0',
    'http://h/1',
    'http://h/3',
    'http://h/4',
  ]
  assert len([p for p in pages if p.fault]) == 2
  assert clean(tmp_path, tmp_path / 'out', settings())['drops']['damaged'] == 2
  rng = random.Random(0)
  for _ in range(200):  # any damage: no exception, and an end
    noisy = bytearray(data)
    for _ in range(rng.choice((1, 10))):
      at = rng.randrange(len(noisy))
      noisy[at : at + rng.randrange(20)] = rng.randbytes(rng.randrange(20))
    path.write_bytes(noisy)
    assert len(list(read_pages(path, 1_000_000))) < 50


def test_records_without_what_a_response_needs(tmp_path):
  path = tmp_path / 'a.warc'
  write(path, [('http://h/0', 200, HTML, page(article(0)))], gzipped=False)
  odd = b'WARC/1.0\r\nWARC-Type: response\r\nContent-Length: 5\r\n\r\nhello\r\n\r\n'
  path.write_bytes(odd + path.read_bytes())
  assert [(bool(p.fault), p.url) for p in read_pages(path, 1_000_000)][-1] == (False, 'http://h/0')
  assert (
    warc_files(tmp_path) == warc_files(f'{tmp_path}/*.warc') == [(str(path), path.stat().st_size)]
  )


def test_reference_pages_keep_their_lines():
  body = (
    b'<html><head><title> Pydoc:\n module  x</title></head><body><a '
    b'href="file:/home/me/x.py">/home/me/x.py</a>'
    b'<dl><dt><strong>f</strong>(a, '
    b'b=None)</dt><dd><span>Adds&nbsp;two&nbsp;numbers.<br>\n&nbsp;<br>\n'
    b'&gt;&gt;&gt;&nbsp;f(1,&nbsp;2)<br>\n3</span></dd></dl></body></html>'
  )
  title, text = extract(body, 'text/html', 'resiliparse')
  assert title == 'Pydoc: module x'
  assert text.split('\n') == ['f(a, b=None)', 'Adds two numbers.', '', '>>> f(1, 2)', '3']
  assert tidy('a\xa0b \t c\r\n\r\n\r\n\r\nd\x00  \n') == 'a b c\n\nd'


@pytest.mark.slow
def test_a_step_that_takes_too_long_over_a_page_drops_it(corpus, monkeypatch):
  def slow(text):
    if 'café' in text:
      with contextlib.suppress(Exception):  # as extractors do
        while True:
          pass
    if article(2)[0] in text:
      re.match('(a*)*b', 'a' * 40)  # years
    return detect(text)

  monkeypatch.setattr(blocks.language, 'detect', slow)
  report = clean(corpus, corpus / 'out', settings(**LINES_ONLY, step_seconds=0.2))
  examples = {
    example['url']: example['detail'] for example in report['examples']['language_timeout']
  }
  assert examples.keys() == {'http://h/latin', 'http://h/2'} and report['pages_out'] == 4
  assert re.fullmatch(
    r'more than 0.2 s of processor time, for [\d,]+ bytes', examples['http://h/2']
  )
  assert signal.getsignal(signal.SIGVTALRM) is signal.SIG_DFL and signal.getitimer(
    signal.ITIMER_VIRTUAL
  ) == (0, 0)
  with pytest.raises(UserError) as raised:
    clean(corpus, corpus / 'new', settings(step_seconds=-1.0))
  assert (raised.value.field, raised.value.value) == ('config.step_seconds', -1)


def test_no_time_limit_sets_no_signal():
  before = signal.getsignal(signal.SIGVTALRM)
  with time_limit(0):
    assert signal.getsignal(signal.SIGVTALRM) is before and signal.getitimer(
      signal.ITIMER_VIRTUAL
    ) == (0, 0)


@pytest.mark.parametrize('extractor', EXTRACTORS)
def test_charset_is_utf8_if_it_can_be_else_the_headers_else_the_pages_else_a_guess(extractor):
  russian = 'Мельник нёс письмо через старый каменный мост, пока снег не засыпал дорогу.'
  html = f'<html><head><meta charset="koi8-r"></head><body><p>{russian}</p></body></html>'
  for encoding, kind in (
    ('cp1251', 'text/html; charset=windows-1251'),
    ('koi8-r', 'text/html'),
    ('utf-8', 'text/html; charset=latin-1'),
    ('utf-8-sig', ''),
    ('utf-16', 'text/html; charset=utf-16'),
  ):
    assert extract(html.encode(encoding), kind, extractor)[1] == russian
  for encoding in ('no-such', 'idna'):
    assert extract(html.replace('koi8-r', encoding).encode('cp1251'), '', extractor)[1] == russian


@pytest.mark.parametrize('extractor', EXTRACTORS)
@pytest.mark.parametrize('body', [b'', b'<!-- -->', b'\0\1', b'<html><frameset></frameset></html>'])
def test_pages_without_text(extractor, body):
  assert extract(body, '', extractor) == ('', '')


def test_fast_extraction_finds_the_article_and_is_rescued_where_it_does_not():
  around = (
    '<nav><a href="/">Home</a> <a href="/b">Business</a></nav>{}<footer>All rights '
    'reserved.</footer>'
  )
  article = '\n'.join(f'{line} {line}' for line in FRENCH)
  paragraphs = ''.join(f'<p>{line}</p>' for line in article.split('\n'))
  title, text = extract(
    f'<title>Le\npont</title>{around.format(paragraphs)}'.encode(), '', 'trafilatura_fast'
  )
  assert (title, text) == ('Le pont', article)
  hidden = around.format(f'<p>{FRENCH[0]}</p><fieldset>{paragraphs}</fieldset>').encode()
  assert extract(hidden, '', 'trafilatura')[1] == FRENCH[0]
  found = extract(hidden, '', 'trafilatura_fast')[1]
  assert [line for line in found.split('\n') if line] == [FRENCH[0], *article.split('\n')]


@pytest.mark.parametrize(
  ('text', 'code'), [(' '.join(article(0)), 'en'), ('\n'.join(FRENCH), 'fr')]
)
def test_language(text, code):
  found, score = detect(text)
  assert found == code and 0.65 < score <= 1


@pytest.mark.slow
def test_command(corpus):
  options = [*COMMAND, f'--input={corpus}/*.warc*', f'--out={corpus}/out']
  status, text, err = run(*options)
  assert status == 0 and 'pages in' in text and (corpus / 'out/documents.jsonl').exists(), err
  assert 'datatrove' not in err
  options[-2] = f'--input={corpus}/nothing'
  status, _, err = run(*options)
  assert status == 1 and err.startswith(f"error: --input is '{corpus}/nothing'; allowed: ")
  status, _, err = run(*options, '--config.gopher_quality.min_word=3')
  assert status == 1 and "did you mean 'config.gopher_quality.min_words'" in err
  status, _, err = run(*COMMAND, f'--out={corpus}/out')
  assert status == 1 and err.startswith('error: --input is missing')
