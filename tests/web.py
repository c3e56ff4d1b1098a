"""Web pages for tests: English prose from a seed, WARC files of given responses, and what a
cleaning made of them.
"""

import io
import json
import random

import fsspec
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from configs.data import fineweb

COMMAND = ('-m', 'data.web', '--config=configs/data/fineweb.py:smoke', '--config.extractor=resiliparse',
           '--config.words=whitespace')  # fmt: skip

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
    f'The {thing()} and my {thing()} {rng.choice(VERBS)} that {thing()} {rng.choice(LINKS)} her '
    f'{thing()}.'
    for _ in range(sentences)
  ]


def page(lines, title='A page'):
  return (
    f'<html><head><title>{title}</title></head><body><p>'
    + '</p><p>'.join(lines)
    + '</p></body></html>'
  )


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
      writer.write_record(
        writer.create_warc_record(url, 'response', io.BytesIO(body), http_headers=headers)
      )


HTML = 'text/html; charset=utf-8'


def settings(**changes):
  """FineWeb's, without what takes seconds to load: the block lists, trafilatura and spaCy."""
  config = fineweb.get_config()
  config.update({'url_lists': False, 'extractor': 'resiliparse', 'words': 'whitespace'} | changes)
  return config


def documents_of(out):
  """The clean documents of a run, wherever it wrote them."""
  found = fsspec.open_files(f'{out}/documents*.jsonl*', 'rb', compression='infer')
  lines = []
  for file in found:
    with file as f:
      lines += [json.loads(line) for line in f]
  return lines
