"""A client of chat completions over HTTP, as OpenAI's API, `lm.serve` and others have them."""

import concurrent.futures
import dataclasses
import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from lm.base import progress
from lm.base.errors import UserError

In, Out = TypeVar('In'), TypeVar('Out')
REQUESTS = 8  # number of items that are asked about at the same time

RETRIES = 4  # of a request that fails for a while
TIMEOUT_SECONDS = 300.0
BUSY = (408, 429, 500, 502, 503, 504)  # statuses after which a request is sent again
REFUSED = (400, 413, 422)  # statuses of one request that is refused, where others may not be


class RefusedRequest(UserError):
  """One request was refused, or its answer is not one; other requests may succeed."""


@dataclasses.dataclass(frozen=True)
class Endpoint:
  """Where a model is served.

  Attributes:
    url: the address up to the version, such as http://127.0.0.1:8000/v1.
    model: the name of the model there.
    key: the API key; '' for none.
    sleep: waits for so many seconds.
  """

  url: str
  model: str
  key: str = ''
  sleep: Callable[[float], None] = time.sleep

  def complete(
    self, messages: Sequence[dict], *, samples: int, temperature: float, max_tokens: int
  ) -> list[str]:
    """Returns sampled answers to a conversation, as text.

    Args:
      messages: the conversation, each message with its text.
      samples: number of answers.
      temperature: of the draws.
      max_tokens: longest answer.

    Raises:
      RefusedRequest: the endpoint refuses this request, or its answer is not one.
      UserError: the endpoint cannot be reached, or refuses all requests.
    """
    body = {
      'model': self.model,
      'messages': list(messages),
      'n': samples,
      'temperature': temperature,
      'max_tokens': max_tokens,
    }
    found = self._post(f'{self.url.rstrip("/")}/chat/completions', body)
    try:
      return [choice['message']['content'] or '' for choice in found['choices']]
    except (KeyError, TypeError) as error:
      raise RefusedRequest(
        field=f'answer of {self.url}', value=found, allowed='a chat completion'
      ) from error

  def _post(self, url: str, body: dict) -> Any:
    headers = {'Content-Type': 'application/json'}
    if self.key:
      headers['Authorization'] = f'Bearer {self.key}'
    cause = ''
    for attempt in range(RETRIES + 1):
      if attempt:
        self.sleep(2.0**attempt)
      try:
        request = urllib.request.Request(url, json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:
          return json.loads(response.read())
      except urllib.error.HTTPError as error:
        with error:
          cause = f'{error.code} {error.reason}: {error.read(2000).decode(errors="replace")}'
        if error.code in REFUSED:
          raise RefusedRequest(
            field='request', value=cause, allowed=f'one that {url} answers'
          ) from error
        if error.code not in BUSY:
          break
      except (OSError, http.client.HTTPException) as error:
        cause = str(error) or type(error).__name__
      except ValueError as error:  # a URL that is none, or an answer that is not JSON
        cause = str(error)
        break
    raise UserError(field='--endpoint', value=url, allowed=f'an endpoint that answers ({cause})')


def ask_all(
  ask: Callable[[In], Out], items: Sequence[In], desc: str, unit: str
) -> Iterator[Out | RefusedRequest]:
  """Yields `ask` of each item in order, or why a request about it was refused, with a bar.

  Several items are asked about at the same time.

  Args:
    ask: sends the requests about an item.
    items: the items.
    desc, unit: what the bar says.

  Raises:
    UserError: the endpoint cannot be reached, or refuses all requests.
  """

  def answer(item: In) -> Out | RefusedRequest:
    try:
      return ask(item)
    except RefusedRequest as error:
      return error

  with concurrent.futures.ThreadPoolExecutor(REQUESTS) as pool:
    yield from progress.bar(pool.map(answer, items), total=len(items), desc=desc, unit=unit)
