"""What a server serves: models with their engines, tokenizers, limits, and whether it is ending."""

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jax.sharding import Mesh
from ml_collections import FrozenConfigDict

from lm.base.errors import UserError
from lm.serve.api_errors import ApiError
from lm.serve.engine_thread import EngineThread
from lm.serve.json_grammar import TokenMasks
from lm.serve.monitoring import Monitor


@dataclasses.dataclass(frozen=True)
class Limits:
  """What the server accepts.

  Attributes:
    body_bytes: of a request.
    body_seconds: for a request's body to arrive.
    request_seconds: for a response; then the answer is cancelled.
    write_seconds: that a client may leave written data unread before it is disconnected.
    header_seconds: for the head of a request to arrive on an open connection.
    connections: open at once.
    prompts: of one request.
    choices: of each prompt, `n` and `best_of`.
    answers: of one request, all choices of all prompts.
    new_tokens: of an answer; None means the context.
  """

  body_bytes: int = 1 << 20
  body_seconds: float = 30
  request_seconds: float = 600
  write_seconds: float = 30
  header_seconds: float = 10
  connections: int = 256
  prompts: int = 128
  choices: int = 16
  answers: int = 256
  new_tokens: int | None = None


@dataclasses.dataclass(frozen=True)
class ServedModel:
  """A model and the engine that runs it.

  Attributes:
    name: what requests call it.
    config, params: of the model.
    chat_format: how turns are written as tokens (`data.chat.chat_formats.Format`); its `tokenizer`
      is the model's.
    engine: the thread that steps the engine.
    call_tool: answers the calls of the server's own tools, the text of a call to its result; None
      if it runs none.
    tools_about: what a system turn tells a model of these tools; '' for nothing.
    created: Unix time.
  """

  name: str
  config: FrozenConfigDict
  params: Any
  chat_format: Any
  engine: EngineThread
  call_tool: Callable[[str], str] | None = None
  tools_about: str = ''
  created: int = dataclasses.field(default_factory=lambda: int(time.time()))

  @property
  def told_tools(self) -> str:
    """Returns what a system turn tells of the server's tools; '' if the model can call none."""
    can_call = len(self.chat_format.tag_ids('python')) == 2
    return self.tools_about if can_call else ''

  def check_tools(self, names: Sequence[str]) -> None:
    """Raises UserError if the model cannot be told of the server's tools, by these names."""
    if self.told_tools and self.can_chat and self.chat_format.layout.system is None:
      message = (
        f'The chat template of {self.name} allows no system turn, which tells of the others.'
      )
      raise UserError(field='--tools', value=','.join(names), allowed='calculator', message=message)

  @property
  def context(self) -> int:
    """Returns the most tokens of a prompt and its answer."""
    return self.engine.engine.capacity

  @functools.cached_property
  def banned_ids(self) -> tuple[int, ...]:
    """The tokens that are never drawn."""
    return tuple(self.chat_format.banned_ids(self.config.vocab_size))

  @functools.cached_property
  def stop_ids(self) -> tuple[int, ...]:
    """The tokens that end a text: of a document, and of an answer if the model can chat."""
    stops = self.chat_format.stops if self.can_chat else ()
    return tuple(dict.fromkeys((*stops, self.chat_format.document_start)))

  @functools.cached_property
  def can_chat(self) -> bool:
    """Whether the model has a chat template that can be used."""
    try:
      self.chat_format.check_layout()
    except UserError:
      return False
    return True

  @functools.cached_property
  def longest_token(self) -> int:
    """The most bytes of a token."""
    return int(self.chat_format.tokenizer.byte_lengths().max())

  @functools.cached_property
  def token_masks(self) -> TokenMasks:
    """Which tokens may follow in a JSON object."""
    tokenizer = self.chat_format.tokenizer
    return TokenMasks([tokenizer.token_bytes(i) for i in range(tokenizer.vocab_size)])


class Service:
  """The state of a server, which every handler reaches as `request.app.state.service`.

  Attributes:
    models: by name; the first is the default of pages.
    mesh: of the models.
    tokenizers: by name, for pages that show how they split texts.
    limits: what is accepted.
    thinking: how much of a model's thoughts leaves the process, one of
      `lm.base.choices.THINKING`.
    api_keys: keys of which requests must bring one; empty if none is needed.
    hosts: values of the header Host that are answered; empty for all.
    monitor: what /metrics shows.
    draining: whether new work is refused, because the server ends.
    num_open: requests that are being answered.
    end: ends the server; set while it listens.
  """

  def __init__(
    self,
    models: Mapping[str, ServedModel],
    mesh: Mesh,
    *,
    tokenizers: Mapping[str, Any] | None = None,
    limits: Limits | None = None,
    thinking: str = 'show',
    api_keys: tuple[str, ...] = (),
    hosts: tuple[str, ...] = (),
  ):
    self.models, self.mesh = dict(models), mesh
    self.tokenizers = dict(tokenizers or {})
    for name, model in self.models.items():
      self.tokenizers.setdefault(name, model.chat_format.tokenizer)
    self.limits = limits or Limits()
    self.thinking, self.api_keys, self.hosts = thinking, tuple(api_keys), tuple(hosts)
    self.draining, self.num_open = False, 0
    self.end: Callable[[], object] = lambda: None
    self.monitor = Monitor(self.models)

  def model(self, name: str) -> ServedModel:
    """Returns a model by name.

    Raises:
      ApiError: there is no such model.
    """
    if name not in self.models:
      message = f'no model {name[:100]!r}; this server has: {", ".join(self.models)}'
      raise ApiError(404, message, param='model', code='model_not_found')
    return self.models[name]

  @property
  def is_healthy(self) -> bool:
    """Returns whether all engines run and new work is accepted."""
    return not self.draining and all(m.engine.failure is None for m in self.models.values())

  def start(self) -> None:
    """Starts the engines' threads."""
    for model in self.models.values():
      model.engine.start()

  def stop(self) -> None:
    """Ends the engines' threads."""
    for model in self.models.values():
      model.engine.stop()


def named(specs: Sequence[str]) -> dict[str, str]:
  """Returns models by the names that requests use.

  Args:
    specs: paths, NAME=PATH, or names of models that packages carry. Without a name, the last part
      of the path is it, or of its parent if that is the number of a step.

  Raises:
    UserError: two have the same name.
  """
  models: dict[str, str] = {}
  for spec in specs:
    name, found, path = spec.partition('=')
    if not found or '/' in name:
      parts = [part for part in spec.rstrip('/').split('/') if part != 'checkpoints']
      name, path = next((part for part in reversed(parts) if not part.isdigit()), spec), spec
    if name in models:
      allowed = 'one model of each name; --checkpoint=NAME=DIR names one'
      raise UserError(field='--checkpoint', value=spec, allowed=allowed)
    models[name] = path
  return models
