"""Pages and WARC records that broke something once, or might: each with the rule that must drop it,
None if it is kept.
"""

import gzip
import io
import os
import signal
import zlib

import brotli
from fastwarc.stream_io import ZstdWriter
from web import HTML, article, page

GOOD = page(article(500))
PROSE = ''.join(f'<p>{line}</p>' for line in article(501))


def zstd(data):
  """Packed by Zstandard, which the standard library has from Python 3.14 on only."""
  out = io.BytesIO()
  writer = ZstdWriter(out)
  writer.write(data)
  writer.close()
  return out.getvalue()


def bomb(megabytes, pack):
  """A page that unpacks to so many megabytes."""
  return pack(f'<p>{"a" * 999} '.encode() * (megabytes * 1000))


def with_charset(name):
  prose = page(article(sum(name.encode()) + 1000))
  return (
    200,
    f'text/html; charset={name}',
    prose.encode('latin-1') + b'<p>caf\xe9 \\ud800 +2AA- \\x00</p>',
  )


def packed(name, body):
  return (200, HTML, body, ('Content-Encoding', name))


PAGES = {
  # name: ((status, content type, body, extra headers), rule)
  **{f'charset-{name}': (with_charset(name), None) for name in (
    'unicode_escape', 'raw_unicode_escape', 'idna', 'punycode', 'rot13', 'undefined', 'utf-7', 'base64', 'zlib', 'hex', 'mbcs',
    'no-such', 'utf-32', '"', "'")},
  'surrogates': ((200, HTML, f'<title>\\ud800 &#xd800;</title>{PROSE}<p>&#xdfff; '
                             '&#55296;</p>'), None),
  'gzip-cut': (packed('gzip', gzip.compress(GOOD.encode())[:-200]), 'damaged'),
  'gzip-damaged': (packed('gzip', gzip.compress(GOOD.encode())[:200] + b'?' * 300), 'damaged'),
  'gzip-not': (packed('gzip', page(article(502))), None),  # an archive that holds bodies unpacked
  'gzip-twice': (packed('gzip, gzip', gzip.compress(gzip.compress(page(article(503)).encode()))), None),
  'deflate': (packed('deflate', zlib.compress(page(article(504)).encode())), None),
  'deflate-raw': (packed('deflate', zlib.compress(page(article(505)).encode())[2:-4]), None),
  'br': (packed('br', brotli.compress(page(article(506)).encode())), None),
  'br-damaged': (packed('br', b'\xff' + brotli.compress(GOOD.encode())), 'damaged'),
  'zstd': (packed('zstd', zstd(page(article(507)).encode())), None),
  'chunks-damaged': ((200, HTML, 'zz\r\n' + GOOD, ('Transfer-Encoding', 'chunked')), 'damaged'),
  'chunks-not': ((200, HTML, page(article(508)), ('Transfer-Encoding', 'chunked')), None),
  'codings': (packed(', '.join(['gzip'] * 100), gzip.compress(GOOD.encode())), 'damaged'),
  'mso': ((200, HTML, '<![ if gte mso '
                      f'9]><xml></xml><![endif]>{"".join(f"<p>{x}</p>" for x in article(509))}'), None),
  'nul': ((200, HTML, '\0' * 1000 + page([*article(510), '\0' * 50]).replace('boat', 'bo\0at')), None),
  'utf-16-in-meta': ((200, 'text/html', f'<meta charset="utf-16">{page(article(511))}'), None),
  'status': (('2OO', HTML, GOOD), 'damaged'),
  'status-long': (('9' * 5000, HTML, GOOD), 'damaged'),
  'status-none': (('', HTML, GOOD), 'damaged'),
  'type-odd': ((200, 'text/html; charset=\\ud800', page(article(512))), None),
  'title-huge': ((200, HTML, page(article(513), title='word ' * 400_000)), None),
  'title-nul': ((200, HTML, page(article(514), title='a\0b\x1b[31m')), None),
  'spaces': ((200, HTML, page(article(515)) + f'<pre>a\tb{" " * 300_000}c</pre>'), None),
  'links-to-files': ((200, HTML, page(article(516)) + '<a href="file:">' * 30_000), None),
  'entities': ((200, HTML, page(article(517)) + '&amp ' * 20 + '&#0;&#x110000;&#-1;'), None),
  'attributes-of-body': ((200, HTML, page(article(518)).replace('<body', '<body onload="[" '
                                                                         'x=http://[')), None),
}  # fmt: skip
URLS = {
  # URL: rule
  'http://[': None,
  'http://[::1': None,
  'http://h:port/': None,
  'http://\udcff/': None,
  'javascript:alert(1)': None,
  'http://h/\0': None,
  '//': None,
  f'http://h/{"a" * 20_000}': None,
  f'http://h/{"b" * 100_000}': 'damaged',
  '': 'damaged',
}
SLOW = {
  # What takes the parsers minutes, in C, where no signal is heeded.
  'divs': '<div>' * 100_000 + 'text' + '</div>' * 100_000,
  'attributes': f'<p {" ".join(f"a{i}=1" for i in range(300_000))}>text</p>',
}


def answer(what):
  """What a sandbox calls: does what a parser might do, at worst."""
  if what.startswith('SIG'):
    os.kill(os.getpid(), signal.Signals[what])
  if what == 'raise':
    raise ValueError('no')
  if what == 'recurse':
    return answer(what)
  if what == 'fill':
    return bytearray(1 << 40)
  return what
