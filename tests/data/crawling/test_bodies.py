"""Content-Encoding is undone whole or not at all."""

import gzip
import sys
import zlib

import brotli
import pytest

from data.crawling.bodies import decode
from data.crawling.failures import Fault

if sys.version_info >= (3, 14):
  from compression import zstd
else:
  from backports import zstd

TEXT = b'some words ' * 30_000  # more than one block


def raw_deflate(data):
  stream = zlib.compressobj(wbits=-15)
  return stream.compress(data) + stream.flush()


CODINGS = {
  'gzip': gzip.compress, 'x-gzip': gzip.compress, 'deflate': zlib.compress, 'br': brotli.compress,
  'zstd': zstd.compress,
}  # fmt: skip


@pytest.mark.parametrize('coding', CODINGS)
def test_whole_bodies_come_back_and_damaged_ones_are_faults(coding):
  body = CODINGS[coding](TEXT)
  assert (
    decode(body, coding, len(TEXT)) == decode(body, f' {coding.upper()}, identity', 10**6) == TEXT
  )
  broken = bytearray(body)
  broken[len(body) // 2] ^= 0xFF
  for damaged in (
    body[:-1],
    body[: len(body) // 2],
    body[:1],
    bytes(broken),
    b'plain text',
    b'\0' * 100,
  ):
    with pytest.raises(Fault) as fault:
      decode(damaged, coding, 10**6)
    assert fault.value.cause == 'encoding'


@pytest.mark.parametrize('coding', CODINGS)
def test_no_more_than_the_limit_comes_out(coding):
  body = CODINGS[coding](TEXT)
  with pytest.raises(Fault) as fault:
    decode(body, coding, len(TEXT) - 1)
  assert fault.value.cause == 'too_large'
  assert decode(body, coding, 1000, cut=True) == TEXT[:1000]


def test_deflate_without_a_header_several_members_and_several_codings():
  assert decode(raw_deflate(TEXT), 'deflate', 10**6) == TEXT
  assert decode(gzip.compress(b'a') + gzip.compress(b'b'), 'gzip', 10) == b'ab'
  assert decode(brotli.compress(gzip.compress(TEXT)), 'gzip, br', 10**6) == TEXT
  assert decode(b'', 'gzip', 10) == b'' and decode(TEXT, '', 10**6) == TEXT
  for encoding in ('gzip,' * 5, 'compress', 'gzip, rot13'):
    with pytest.raises(Fault, match='Content-Encoding'):
      decode(b'x', encoding, 10)


def test_a_zstd_window_larger_than_http_allows_is_a_fault():
  options = {zstd.CompressionParameter.window_log: 27}
  stream = zstd.ZstdCompressor(options=options)
  body = stream.compress(b'x' * (1 << 20)) + stream.flush()
  with pytest.raises(Fault) as fault:
    decode(body, 'zstd', 1 << 21)
  assert fault.value.cause == 'encoding'
