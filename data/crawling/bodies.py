"""Decodes response bodies by Content-Encoding; a damaged or oversized body raises an error."""

import gzip
import io
import sys
import zlib
from collections.abc import Callable, Iterator

import brotli

from data.crawling.failures import Fault

if sys.version_info >= (3, 14):
  from compression import zstd
else:
  from backports import zstd

_BLOCK = 1 << 16
_MOST_CODINGS = 4  # applied to one body; ordinary servers apply one
_ZSTD_WINDOW = 23  # log2 of bytes; the largest window that RFC 9659 allows in HTTP
_DAMAGE = (gzip.BadGzipFile, EOFError, zlib.error, brotli.error, zstd.ZstdError)


def _gunzip(body: bytes) -> Iterator[bytes]:
  with gzip.GzipFile(fileobj=io.BytesIO(body)) as stream:
    while block := stream.read1(_BLOCK):
      yield block


def _inflate(body: bytes) -> Iterator[bytes]:
  # Some servers omit the zlib header; negative window bits select raw deflate.
  has_header = body[0] & 15 == zlib.DEFLATED and int.from_bytes(body[:2], 'big') % 31 == 0
  stream = zlib.decompressobj(zlib.MAX_WBITS if has_header else -zlib.MAX_WBITS)
  while not stream.eof:
    block = stream.decompress(body, _BLOCK)
    body = stream.unconsumed_tail
    if not block and not body and not stream.eof:
      raise EOFError('ends early')
    yield block


def _unbrotli(body: bytes) -> Iterator[bytes]:
  stream = brotli.Decompressor()
  while not stream.is_finished():
    block = stream.process(body, output_buffer_limit=_BLOCK)
    if not block and not body and not stream.is_finished():
      raise EOFError('ends early')
    body = b''
    yield block


def _unzstd(body: bytes) -> Iterator[bytes]:
  options = {zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW}
  with zstd.ZstdFile(io.BytesIO(body), options=options) as stream:
    while block := stream.read1(_BLOCK):
      yield block


_CODINGS: dict[str, Callable[[bytes], Iterator[bytes]]] = {
  'gzip': _gunzip,
  'x-gzip': _gunzip,
  'deflate': _inflate,
  'br': _unbrotli,
  'zstd': _unzstd,
}


def decode(body: bytes, encoding: str, limit: int, *, cut: bool = False) -> bytes:
  """Returns a body with its Content-Encodings (gzip, deflate, br, zstd, or several) undone.

  Args:
    body: bytes as sent.
    encoding: value of the Content-Encoding header, codings separated by commas; '' if it was
      absent.
    limit: largest number of bytes after decoding.
    cut: return what comes before `limit`, or before the damage, instead of raising.

  Raises:
    Fault: 'too_large' if there are more than `limit` bytes, 'encoding' if the body is damaged or
      its coding is unknown.
  """
  named = [part.strip() for part in encoding.lower().split(',')]
  codings = [coding for coding in named if coding not in ('', 'identity')]
  if unknown := [coding for coding in codings if coding not in _CODINGS]:
    raise Fault('encoding', f'unknown Content-Encoding {unknown[0][:40]!r}')
  if len(codings) > _MOST_CODINGS:
    raise Fault('encoding', f'{len(codings)} Content-Encodings one after another')
  for coding in reversed(codings):
    body = _undo(coding, body, limit, cut) if body else b''
  if len(body) > limit and not cut:
    raise Fault('too_large', f'more than {limit:,} bytes')
  return body[:limit]


def _undo(coding: str, body: bytes, limit: int, cut: bool) -> bytes:
  """Returns a body with one coding undone, up to just over `limit` bytes."""
  blocks, size = [], 0
  try:
    for block in _CODINGS[coding](body):
      blocks.append(block)
      size += len(block)
      if size > limit:
        if cut:
          break
        raise Fault('too_large', f'more than {limit:,} bytes after {coding} is undone')
  except _DAMAGE as error:
    if not cut:
      raise Fault('encoding', f'damaged {coding} body: {error}') from error
  return b''.join(blocks)
