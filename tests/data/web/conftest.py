"""A small crawl in which every rule finds a page."""

import gzip

import pytest
from web import FRENCH, HTML, article, page, write


@pytest.fixture
def corpus(tmp_path):
  near = article(1)
  near[7] = 'This one line was changed by somebody.'
  chunked = ''.join(
    f'{len(part):x}\r\n{part}\r\n' for part in (page(article(4))[:500], page(article(4))[500:], '')
  )
  write(
    tmp_path / 'a.warc.gz',
    [
      ('http://h/1-near', 200, HTML, page(near)),
      (
        'http://h/1',
        200,
        HTML,
        page([*article(1), 'This is the longer one of two that are nearly the same page.']),
      ),
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
      (
        'http://h/gzip',
        200,
        HTML,
        gzip.compress(page(article(7)).encode()),
        ('Content-Encoding', 'gzip'),
      ),
      (
        'http://h/latin',
        200,
        'text/html; charset=iso-8859-1',
        page([*article(8), 'The café was open.']).encode('latin-1'),
      ),
      ('http://h/torn', 200, HTML, page(article(9))),
    ],
    gzipped=False,
  )
  whole = (tmp_path / 'b.warc').read_bytes()
  (tmp_path / 'b.warc').write_bytes(whole[:-600])
  return tmp_path
