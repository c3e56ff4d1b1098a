"""Requests to buckets: each names its URL where it fails, and none is sent to a lost endpoint.

The errors of gcsfs and s3fs are of many types, and most of them name no bucket. This module imports
neither library.
"""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from typing import Any

ENDPOINTS = {  # environment variables that send requests elsewhere than to the provider, by scheme
  'gs': ('STORAGE_EMULATOR_HOST',),
  's3': ('AWS_ENDPOINT_URL_S3', 'AWS_ENDPOINT_URL'),
}
REQUEST_SECONDS = 120  # in which a request must be answered, its repetitions included
LOST_SECONDS = 60  # in which nothing is asked of an endpoint that did not answer


class Requests:
  """The requests of one scheme, 'gs' or 's3', from this process."""

  def __init__(self, scheme: str):
    self._scheme = scheme
    self._lost_at: float | None = None  # when the endpoint last failed to answer
    self._lost_text = ''  # the error of that request

  async def send(self, url: str, request: Callable[[], Awaitable[Any]]) -> Any:
    """Returns the answer to a request.

    Args:
      url: the object or the bucket that the request is about.
      request: sends it.

    Raises:
      PermissionError: the request is refused.
      OSError: it is not answered within REQUEST_SECONDS. After that, no request is sent for
        LOST_SECONDS, and each raises the same. Otherwise a run would repeat each of the many
        requests with which it ends, and last for hours.
    """
    if self._lost_at is not None and time.monotonic() - self._lost_at < LOST_SECONDS:
      raise OSError(self._lost_text)
    try:
      return await asyncio.wait_for(request(), REQUEST_SECONDS)
    except Exception as error:
      cause = text_of(error) if str(error) else f'no answer in {REQUEST_SECONDS} s'
      text = f'{url}: {cause}{endpoint(self._scheme)}'
      if isinstance(error, PermissionError) or text_of(error).startswith('Forbidden'):
        raise PermissionError(text) from error
      if _no_answer(error):
        self._lost_at, self._lost_text = time.monotonic(), text
        raise OSError(text) from error
      raise


def _no_answer(error: Exception) -> bool:
  """Returns whether a request failed because the endpoint was not reached or could not serve it."""
  if type(error).__name__ == 'HttpError':  # gcsfs'
    return (error.code or 0) >= 500
  # Types of Python, aiohttp and botocore, some of which are no OSErrors.
  names = {'TimeoutError', 'ConnectionError', 'ClientConnectionError', 'HTTPClientError'}
  return not names.isdisjoint(kind.__name__ for kind in type(error).__mro__)


def text_of(error: Exception) -> str:
  """Returns the message of an error in one line, or the name of its type."""
  return ' '.join(str(error).split()) or type(error).__name__


def endpoint(scheme: str) -> str:
  """Returns ' at ADDRESS (VARIABLE)' where requests do not go to the provider's own address."""
  for name in ENDPOINTS[scheme]:
    if os.environ.get(name):
      return f' at {os.environ[name]} ({name})'
  return ''
