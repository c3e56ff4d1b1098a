"""The benchmarks, on little text."""

import argparse
import gzip
import importlib.metadata
import json
import math
import struct
import sys
from unittest import mock

import commands
import pytest
from refusals import refused
from web import HTML, article, page, write

from data import bench
from data.benchmarks import benchmarks
from data.benchmarks import cleaning as web_bench
from data.web import blocks, pages
from data.web.extract import EXTRACTORS
from lm.base.errors import UserError


def test_tokenizer():
  options = ('--megabytes=0.2', '--rounds=1')
  status, out, err = commands.call('-m', 'data.bench', 'tokenizer', *options)
  assert status == 0, err
  (figures,) = map(json.loads, out.splitlines())
  assert figures['vocab_size'] == 4096 and figures['bytes'] > 2e5
  assert figures['same_as_tiktoken'] and figures['speed_over_tiktoken'] > 0


def write_catalogue(path, messages):
  """A .mo file: gettext's header, tables of lengths and offsets, then the strings, sorted by
  key.
  """
  messages = {'': 'Content-Type: text/plain; charset=UTF-8\n', **messages}
  items = sorted(
    (key.encode(errors='surrogateescape'), message.encode()) for key, message in messages.items()
  )
  tables, strings = [[], []], b''
  for column in (0, 1):
    for item in items:
      tables[column] += [len(item[column]), 28 + 16 * len(items) + len(strings)]
      strings += item[column] + b'\0'
  head = (0x950412DE, 0, len(items), 28, 28 + 8 * len(items), 0, 0)
  path.parent.mkdir(parents=True)
  path.write_bytes(struct.pack(f'<{7 + 4 * len(items)}I', *head, *tables[0], *tables[1]) + strings)


def test_language(tmp_path):
  said = {
    'de': 'Die Datei %s konnte nicht geöffnet werden, weil sie auf diesem Rechner nicht vorhanden '
    'ist.',
    'fr': "Le fichier %s n'a pas pu être ouvert parce qu'il n'existe pas sur cette machine.",
    'pl': 'Nie można było otworzyć pliku %s, ponieważ nie ma go na tym komputerze.',
  }
  for code, text in said.items():
    write_catalogue(
      tmp_path / code / 'LC_MESSAGES' / 'a.mo', {f'message {i}': f'{text} {i}' for i in range(30)}
    )
  write_catalogue(
    tmp_path / 'es' / 'LC_MESSAGES' / 'a.mo',
    {f'message {i}': f'{said["de"]} {i}' for i in range(30)},
  )
  write_catalogue(tmp_path / 'pt' / 'LC_MESSAGES' / 'a.mo', {'\udcff': 'ficheiro'})
  options = ('language', f'--catalogues={tmp_path}', '--languages=de,fr,pl,es,pt')
  status, out, err = commands.call('-m', 'data.bench', *options)
  assert status == 0, err
  found = {line['language']: line for line in map(json.loads, out.splitlines())}
  assert [found[code]['right'] for code in ('de', 'fr', 'pl', 'es', 'all')] == [
    1,
    1,
    1,
    0,
    pytest.approx(0.75, abs=0.05),
  ]
  assert found['de']['pages'] == 5 and found['all']['pages'] == sum(
    found[code]['pages'] for code in ('de', 'fr', 'pl', 'es')
  )
  assert found['all']['unreadable_files'] == 1
  status, _, err = commands.call(
    '-m', 'data.bench', 'language', f'--catalogues={tmp_path}', '--languages=xx'
  )
  assert status == 1 and "--languages is 'xx'" in err


@pytest.mark.slow
def test_duplicates():
  status, out, err = commands.call(
    '-m', 'data.bench', 'duplicates', '--beside=60', '--rounds=1', '--sizes=50,200'
  )
  assert status == 0, err
  beside, *alone, fit = map(json.loads, out.splitlines())
  assert beside['pages'] == 60 and beside['speed_over_datatrove'] > 0
  assert [line['pages'] for line in alone] == [50, 200]
  assert fit['sizes'] == [50, 200] and math.isfinite(fit['exponent'])


@pytest.mark.parametrize('exponent', [1, 1.5, 2])
def test_the_exponent_of_a_cost_is_found(exponent):
  sizes = [100, 300, 1000, 5000]
  seconds = [1e-3 * size**exponent for size in sizes]
  assert benchmarks.fit_exponent(sizes, seconds) == pytest.approx(exponent)


def test_extract(tmp_path):
  status, out, err = commands.call(
    '-m', 'data.bench', 'extract', '--count=4', '--rounds=1', f'--beside={sys.executable}'
  )
  assert status == 0, err
  *ours, beside = map(json.loads, out.splitlines())
  assert [line['extractor'] for line in ours] == list(EXTRACTORS)
  assert (
    beside['extractor']
    == f'trafilatura {importlib.metadata.version("trafilatura")}, precision favoured'
  )
  for line in (*ours, beside):
    assert line['pages'] == 4 and line['recall'] > 0.95 and line['precision'] > 0.6
  assert all(
    line['speed_over_beside'] == pytest.approx(line['pages_per_s'] / beside['pages_per_s'])
    for line in ours
  )

  (tmp_path / 'html').mkdir()
  text = (
    'The keeper of the harbour wrote a long letter to his daughter, and then he went out to '
    'count the boats.'
  )
  (tmp_path / 'html' / 'a.html.gz').write_bytes(
    gzip.compress(f'<html><body><p>{text}</p></body></html>'.encode())
  )
  (tmp_path / 'ground-truth.json').write_text(
    json.dumps({'a': {'articleBody': text, 'url': 'http://h/a'}})
  )
  status, out, err = commands.call(
    '-m', 'data.bench', 'extract', f'--pages={tmp_path}', '--rounds=1'
  )
  assert status == 0 and [json.loads(line)['f1'] for line in out.splitlines()] == [1, 1, 1], err
  status, _, err = commands.call('-m', 'data.bench', 'extract', f'--pages={tmp_path}/none')
  assert status == 1 and 'none/ground-truth.json' in err


def test_shingle_scores():
  known = ['a b c d e f', 'one two', '']
  found = ['a b c d x', 'one two', 'not there at all']
  # Of page 1: abcd is common, bcde and cdef are missed, bcdx is extra; page 2 is one shingle; page
  # 3 is one extra.
  true, extra, missed = 1 / 4 + 1, 1 / 4 + 1, 2 / 4
  precision, recall = true / (true + extra), true / (true + missed)
  expected = {
    'f1': 2 * precision * recall / (precision + recall),
    'precision': precision,
    'recall': recall,
  }
  assert web_bench.shingle_scores(known, found) == pytest.approx(expected)


def test_both_sides_of_clean_read_the_same_pages(tmp_path):
  """Pages that libmagic takes for other things than HTML, that are compressed, or in another
  charset.
  """
  pytest.importorskip(
    'magic', exc_type=ImportError, reason="datatrove's reader of WARC files needs libmagic"
  )
  texts = [page(article(i)) for i in range(6)]
  texts[1] = 'import os\n' * 30 + texts[1]
  texts[2] = f'<?xml version="1.0" encoding="ascii"?>{texts[2]}'
  latin = page([*article(6), 'caf\xe9']).encode('latin-1')
  write(tmp_path / 'a.warc.gz', [
    *((f'http://h/{i}', 200, HTML, text) for i, text in enumerate(texts)),
    ('http://h/gzip', 200, HTML, gzip.compress(texts[0].encode()), ('Content-Encoding', 'gzip')),
    ('http://h/latin', 200, 'text/html; charset=latin-1', latin),
    ('http://h/gone', 404, HTML, texts[0]), ('http://h/text', 200, 'text/plain', texts[0]),
    ('http://h/torn', 200, HTML, b'\x1f\x8b?', ('Content-Encoding', 'gzip')), ('http://h/empty', 200, HTML, ' '),
  ])  # fmt: skip
  given = tmp_path / 'pages.warc.gz'
  urls = [f'http://h/{name}' for name in (*range(6), 'gzip', 'latin')]
  assert pages.write_warc(given, web_bench.usable_pages(str(tmp_path / 'a.warc.gz'))) == len(urls)
  for reader in (blocks.ReadWarc([str(given)], 1_000_000), web_bench.DatatroveReader([str(given)])):
    assert [document.metadata['url'] for document in reader.run()] == urls
    assert web_bench.forwarded(reader) == len(urls)
  write(tmp_path / 'none.warc.gz', [('http://h/gone', 404, HTML, texts[0])])
  with pytest.raises(UserError) as raised:
    list(web_bench.clean(argparse.Namespace(input=str(tmp_path / 'none.warc.gz'))))
  assert raised.value.field == '--input'


@pytest.mark.slow
def test_clean():
  pytest.importorskip(
    'magic', exc_type=ImportError, reason="datatrove's reader of WARC files needs libmagic"
  )
  status, out, err = commands.call('-m', 'data.bench', 'clean', '--count=12', '--rounds=1')
  assert status == 0, err
  (figures,) = map(json.loads, out.splitlines())
  assert figures['pages'] == figures['ours_pages_read'] == figures['datatrove_pages_read'] == 12
  assert all(6 < figures[f'{side}_pages_extracted'] <= 12 for side in web_bench.SIDES)
  assert figures['speed_over_datatrove'] > 0
  assert (
    figures['kept_by_both'] > 4
    and figures['kept_by_ours_alone'] + figures['kept_by_datatrove_alone'] < 4
  )
  status, _, err = commands.call('-m', 'data.bench', 'clean', '--input=/nowhere/*.warc.gz')
  assert status == 1 and "--input is '/nowhere/*.warc.gz'; allowed: " in err


def test_loader():
  status, out, err = commands.call(
    '-m', 'data.bench', 'loader', '--steps=4', '--batch-tokens=4096', '--rounds=1'
  )
  assert status == 0, err
  lines = [json.loads(line) for line in out.splitlines()]
  assert [(line['layout'], line['seq_len'], line['batch_size']) for line in lines] == [
    ('windows', 256, 16), ('packed', 256, 16), ('windows', 1024, 4), ('packed', 1024, 4)]  # fmt: skip
  assert all(line['tokens_per_s'] > 0 for line in lines)


def test_without_a_command_all_run(monkeypatch, capsys):
  ran = []
  for name in benchmarks.ALL:
    monkeypatch.setattr(
      benchmarks,
      name,
      mock.Mock(__doc__=name, side_effect=lambda args, n=name: ran.append(n) or [{'bench': n}]),
    )
  monkeypatch.setattr(sys, 'argv', ['data.bench'])
  bench.main()
  assert (
    ran
    == list(benchmarks.ALL)
    == [json.loads(line)['bench'] for line in capsys.readouterr().out.splitlines()]
  )


def test_by_turns():
  # the round that warms up, then two of 1 s beside 2 s
  times = iter([0, 9, 9, 18, 0, 1, 1, 3, 3, 4, 4, 6])
  figures = benchmarks.encoding_speeds(
    {'ours': list, 'theirs': sorted}, ['é' * 500_000], rounds=2, clock=lambda: next(times)
  )
  assert figures['ours_mb_per_s'] == 1 and figures['theirs_mb_per_s'] == 0.5
  assert figures['speed_over_theirs'] == 2 and figures['same_as_theirs']


def test_inputs_without_text(tmp_path):
  (tmp_path / 'talk.jsonl').write_text('{"id": "a", "messages": []}\n')
  with refused(f"text of document 'a' of {tmp_path / 'talk.jsonl'}"):
    benchmarks.read_texts(str(tmp_path / 'talk.jsonl'), 1)
  (tmp_path / 'none.jsonl').write_text('')
  with refused(f'document in {tmp_path / "none.jsonl"}'):
    benchmarks.read_texts(str(tmp_path / 'none.jsonl'), 1)
