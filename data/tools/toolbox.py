"""The tools that a model may call while it answers, by name, and how a call names its tool.

The text between a call's tags is the tool's name, a line end, and the tool's input:

  <|python|>search
  who wrote the first compiler<|/python|><|output|>[1] ...<|/output|>

A call without a name is the calculator's, `<|python|>1+1<|/python|>`: so all conversations and
tokenizers from when it was the only tool stay valid. To add a tool, add it to TOOLS.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from data.tools import calculator, corpus_search, python_sandbox
from lm.base import config as config_lib
from lm.base.errors import UserError, unknown

Answer = Callable[[str], str]
DEFAULT = 'calculator'  # the tool of a call that names none


@dataclasses.dataclass(frozen=True)
class Tool:
  """How a tool is opened, and what a model is told of it.

  Attributes:
    about: what the model is told that it does, a sentence.
    example: an input, as a model would write it.
    open: returns the function that answers an input with the result as text, given the options of
      `open_tools`. It raises UserError where the tool cannot run. What it returns does not raise
      for any input: faults of a call are part of the result, as 'error: ...'.
  """

  about: str
  example: str
  open: Callable[[Mapping[str, Any]], Answer]


@functools.cache
def sandbox() -> python_sandbox.Sandbox:
  """Returns the one sandbox of this process."""
  return python_sandbox.Sandbox()


def _open_calculator(options: Mapping[str, Any]) -> Answer:
  del options
  return calculator.calculate


def _open_python(options: Mapping[str, Any]) -> Answer:
  del options
  opened = sandbox()
  return lambda code: opened.run(code).text


def _open_search(options: Mapping[str, Any]) -> Answer:
  if not options.get('index'):
    allowed = 'a folder that `python -m data.tools index` wrote'
    raise UserError(field='config.tools.index', value='', allowed=allowed)
  return corpus_search.Index(options['index']).search


TOOLS = {
  DEFAULT: Tool(
    'It evaluates an arithmetic expression with + - * / // % **, round, abs, min and max.',
    '(17 + 5) * 3',
    _open_calculator,
  ),
  'python': Tool(
    'It runs a Python program and returns what it prints, and the value of its last expression. '
    'The standard library is there; the network, sockets and with them asyncio, and files are not.',
    'import math\nmath.factorial(20)',
    _open_python,
  ),
  'search': Tool(
    'It returns the passages of a collection of documents that fit some words best.',
    'standard library regular expressions',
    _open_search,
  ),
}


class Toolbox:
  """Tools that are open: called with the text of a call, it returns the result as text.

  Attributes:
    names: the tools that calls may name.
  """

  def __init__(self, answers: Mapping[str, Answer]):
    self._answers = dict(answers)
    self.names = tuple(answers)

  def __call__(self, call: str) -> str:
    """Returns the result of a call, or 'error: ...' if it is for a tool that is not allowed."""
    tool, text = read_call(call)
    if tool not in self._answers:
      return f'error: no tool {tool}; allowed: {", ".join(self.names) or "none"}'
    return self._answers[tool](text)

  @property
  def about(self) -> str:
    """What a system turn tells a model of these tools; '' for the calculator alone.

    Models that were trained to call the calculator were not told of it.
    """
    if self.names == (DEFAULT,):
      return ''
    tools = (
      f'{name}: {TOOLS[name].about} Example:\n{write_call(name, TOOLS[name].example)}'
      for name in self.names
    )
    return '\n'.join(['You can call these tools.', *tools])


def open_tools(names: Iterable[str], *, index: str = '') -> Toolbox:
  """Returns tools by name, ready to answer.

  Args:
    names: names in TOOLS; none is allowed too.
    index: folder of the documents' index, for `search`.

  Raises:
    UserError: a name does not exist, or a tool cannot run on this machine.
  """
  names = tuple(dict.fromkeys(names))
  for name in names:
    if name not in TOOLS:
      raise unknown('tool', name, TOOLS)
  return Toolbox({name: TOOLS[name].open({'index': index}) for name in names})


def from_config(tools: Any) -> Toolbox:
  """Returns the tools of `config.tools`."""
  return open_tools(config_lib.names(tools.names), index=tools.index)


def write_call(tool: str, text: str) -> str:
  """Returns the text of a call, for a part {"type": "python"} of a conversation."""
  return text if tool == DEFAULT else f'{tool}\n{text}'


def read_call(call: str) -> tuple[str, str]:
  """Returns the tool and the input of a call. Without a tool's name it is the calculator's."""
  first, end, rest = call.partition('\n')
  return (first.strip(), rest) if end and first.strip() in TOOLS else (DEFAULT, call)
