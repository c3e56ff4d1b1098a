"""The bodies of requests, as OpenAI's API has them, checked by pydantic.

A field that would change the answer and is not supported is refused by its name, never ignored.
Fields beyond OpenAI's are top_k, min_p, repetition_penalty and thinking.
"""

from typing import Annotated, Any, Literal, TypeVar

import pydantic
import pydantic_core
from pydantic import Field

from lm.base.errors import UserError
from lm.serve.api_errors import ApiError

MAX_STOPS = 16  # stop strings of a request
MAX_STOP_CHARS = 256
MAX_BIASES = 1024  # entries of logit_bias
MAX_FIELDS = 64  # of any other object, except for the parameters of a function
MAX_MESSAGES = 1024
MAX_TOOLS = 64

Id = Annotated[int, Field(ge=0, lt=2**31)]
StopString = Annotated[str, Field(min_length=1, max_length=MAX_STOP_CHARS)]
Item = TypeVar('Item')
# A list that is not empty, whose reading ends at the first item that is wrong.
Listed = Annotated[list[Item], Field(min_length=1, fail_fast=True)]
Zero = Annotated[float, Field(ge=0, le=0)]
FunctionName = Annotated[str, Field(pattern=r'^[a-zA-Z0-9_-]{1,64}$')]


Form = TypeVar('Form', bound=pydantic.BaseModel)


class Schema(pydantic.BaseModel):
  """A JSON object without other fields than its own."""

  model_config = pydantic.ConfigDict(extra='forbid', strict=True, allow_inf_nan=False)


class StreamOptions(Schema):
  """What a stream tells besides its text."""

  include_usage: bool | None = None
  include_obfuscation: bool | None = Field(None, description='Accepted and not used.')


class Body(Schema):
  """What completions and chat completions have in common."""

  model: Annotated[str, Field(min_length=1, max_length=512)]
  max_tokens: Annotated[int, Field(ge=0, lt=2**31)] | None = None
  temperature: Annotated[float, Field(ge=0, le=2)] | None = None
  top_p: Annotated[float, Field(ge=0, le=1)] | None = None
  top_k: Annotated[int, Field(ge=0, lt=2**31)] | None = None
  min_p: Annotated[float, Field(ge=0, le=1)] | None = None
  repetition_penalty: Annotated[float, Field(gt=0, le=100)] | None = None
  presence_penalty: Zero | None = Field(None, description='Only 0 is supported.')
  frequency_penalty: Zero | None = Field(None, description='Only 0 is supported.')
  n: Annotated[int, Field(ge=1, lt=2**31)] | None = None
  stop: (
    StopString | Annotated[list[StopString], Field(max_length=MAX_STOPS, fail_fast=True)] | None
  ) = None
  seed: Annotated[int, Field(ge=-(2**63), lt=2**64)] | None = None
  logit_bias: (
    Annotated[
      dict[
        Annotated[str, Field(pattern=r'^[0-9]{1,10}$')], Annotated[float, Field(ge=-100, le=100)]
      ],
      Field(max_length=MAX_BIASES),
    ]
    | None
  ) = None
  stream: bool | None = None
  stream_options: StreamOptions | None = None
  thinking: Literal['show', 'fold', 'length', 'withhold'] | None = Field(
    None, description="How much of the model's thoughts to send: no more than the server allows."
  )
  user: str | None = Field(None, description='Accepted and not used.')

  @property
  def stop_strings(self) -> list[str]:
    """Returns the stop strings."""
    return [self.stop] if isinstance(self.stop, str) else list(self.stop or ())


class CompletionBody(Body):
  """The body of /v1/completions."""

  prompt: str | Listed[str] | Listed[Id] | Listed[Listed[Id]]
  best_of: Annotated[int, Field(ge=1, lt=2**31)] | None = None
  echo: bool | None = None
  logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
  suffix: None = Field(None, description='Not supported: the models continue a text at its end.')


class TextPart(Schema):
  """A part of a message's content."""

  type: Literal['text']
  text: str


Content = str | Annotated[list[TextPart], Field(fail_fast=True)]


class CalledFunction(Schema):
  """A function that was called, with its arguments as JSON text."""

  name: Annotated[str, Field(min_length=1, max_length=64)]
  arguments: str


class ToolCall(Schema):
  """A call in a message of the assistant."""

  id: Annotated[str, Field(min_length=1, max_length=256)]
  type: Literal['function'] = 'function'
  function: CalledFunction
  index: int | None = None


class ServerCall(Schema):
  """A call of a tool of the server's own, as it was sent with an earlier answer."""

  call: str
  result: str | None = None
  offset: Annotated[int, Field(ge=0)] | None = Field(
    None, description='How many characters of `content` come before the call.'
  )


class RoleMessage(Schema):
  """What the messages of all roles have in common."""

  name: str | None = Field(None, description='Accepted and not used.')
  type: Literal['text'] | None = Field(None, description='Accepted and not used: lm-eval sends it.')


class SystemMessage(RoleMessage):
  """Instructions; a template without a system turn refuses them."""

  role: Literal['system', 'developer']
  content: Content


class UserMessage(RoleMessage):
  """What the user says."""

  role: Literal['user']
  content: Content


class AssistantMessage(RoleMessage):
  """An earlier answer."""

  role: Literal['assistant']
  content: Content | None = None
  reasoning_content: str | None = None
  reasoning_length: dict[str, int] | None = Field(None, description='Accepted and not used.')
  tool_calls: Annotated[list[ToolCall], Field(fail_fast=True)] | None = None
  server_tool_calls: Annotated[list[ServerCall], Field(fail_fast=True)] | None = None
  refusal: None = None
  annotations: list[Any] | None = None
  audio: None = None
  function_call: None = None


class ToolMessage(RoleMessage):
  """The result of a call."""

  role: Literal['tool']
  content: Content
  tool_call_id: str


Message = Annotated[
  SystemMessage | UserMessage | AssistantMessage | ToolMessage, Field(discriminator='role')
]


class Function(Schema):
  """A function that the model may call."""

  name: FunctionName
  description: str | None = None
  parameters: dict[str, Any] | None = None
  strict: Literal[False] | None = Field(None, description='true is not supported.')


class Tool(Schema):
  """A tool of the client's."""

  type: Literal['function']
  function: Function


class ChosenName(Schema):
  """The name of a function."""

  name: FunctionName


class ChosenTool(Schema):
  """The tool that the model must call."""

  type: Literal['function']
  function: ChosenName


class ResponseFormat(Schema):
  """The form of the answer."""

  type: Literal['text', 'json_object'] = Field(description='json_schema is not supported.')


class ChatBody(Body):
  """The body of /v1/chat/completions."""

  messages: Annotated[Listed[Message], Field(max_length=MAX_MESSAGES)]
  max_completion_tokens: Annotated[int, Field(ge=0, lt=2**31)] | None = None
  logprobs: bool | None = None
  top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
  response_format: ResponseFormat | None = None
  tools: Annotated[list[Tool], Field(max_length=MAX_TOOLS, fail_fast=True)] | None = None
  tool_choice: Literal['none', 'auto', 'required'] | ChosenTool | None = None
  parallel_tool_calls: bool | None = Field(
    None, description='Accepted: the model makes one call at a time.'
  )
  store: Literal[False] | None = None
  metadata: dict[str, str] | None = Field(None, description='Accepted and not used.')


def text_of(content: Content | None) -> str:
  """Returns the text of a message."""
  if content is None or isinstance(content, str):
    return content or ''
  return ''.join(part.text for part in content)


def read(data: bytes, schema: type[Form]) -> Form:
  """Returns a body, checked.

  Each wrong field has its error, so that objects with very many are refused before.

  Raises:
    ApiError: it is not JSON, or does not have this form.
    UserError: an object has too many fields.
  """
  try:
    value = pydantic_core.from_json(data, allow_inf_nan=False, cache_strings='none')
  except ValueError as error:
    raise ApiError(400, f'the body is not JSON: {error}', code='invalid_json') from None
  _check_sizes(value)
  try:
    return schema.model_validate(value)
  except pydantic.ValidationError as error:
    raise ApiError.of_body(error, value) from None


def _check_sizes(value: Any, name: str = 'body') -> None:
  """Raises UserError where an object has too many fields."""
  if isinstance(value, dict):
    most = MAX_BIASES if name == 'logit_bias' else MAX_FIELDS
    if len(value) > most:
      raise UserError(field=name[:100], value=f'{len(value)} fields', allowed=f'at most {most}')
    for key, inner in value.items():
      if key != 'parameters':
        _check_sizes(inner, key)
  elif isinstance(value, list):
    for inner in value:
      if isinstance(inner, dict | list):
        _check_sizes(inner, name)
