"""Describes why a page could not be fetched: a cause to count by, and a sentence."""

import os
import socket
import ssl

import aiohttp
from scrapy import exceptions


class Fault(Exception):
  """A page that the host sent but that cannot be used."""

  def __init__(self, cause: str, message: str):
    super().__init__(message)
    self.cause = cause


_CAUSES = (
  (exceptions.DownloadTimeoutError, 'timeout'),
  (exceptions.ResponseDataLossError, 'incomplete'),
  (exceptions.DownloadCancelledError, 'too_large'),
  ((exceptions.DownloadConnectionRefusedError, exceptions.CannotResolveHostError), 'connection'),
)


def cause(error: BaseException) -> str:
  """Returns the word under which the report counts this kind of failure."""
  if isinstance(error, Fault):
    return error.cause
  if isinstance(error, exceptions.DownloadFailedError):
    return 'bad_http' if isinstance(error.__cause__, aiohttp.ClientResponseError) else 'connection'
  return next((word for kinds, word in _CAUSES if isinstance(error, kinds)), 'error')


def unanswered(error: BaseException) -> bool:
  """Returns whether the host may be gone: there was no answer, or an incomplete one."""
  return cause(error) in ('timeout', 'incomplete', 'connection', 'bad_http')


def message(error: BaseException) -> str:
  """Returns a description of the failure, one line of at most 200 characters."""
  reason = error.__cause__
  if isinstance(reason, aiohttp.ClientResponseError):
    text = reason.message
  elif isinstance(reason, aiohttp.ClientConnectorError):
    found = reason.os_error
    # The error numbers of these two kinds are not those of the operating system.
    named = isinstance(found, socket.gaierror | ssl.SSLError)
    text = found.strerror if named or not found.errno else os.strerror(found.errno)
  else:
    text = error
  return ' '.join(str(text).split())[:200] or type(error).__name__
