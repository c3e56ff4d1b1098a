"""Python programs to write, from files with unit tests, which run in the sandbox.

Each line of a file is a problem in the form of MBPP (Austin et al. 2021, arXiv 2108.07732), in that
of HumanEval (Chen et al. 2021, arXiv 2107.03374), or {"prompt", "solution", "tests"}: what is asked
for, a program that does it, and Python that raises an error if a program does not.
"""

import ast
import dataclasses
import re
import secrets
from typing import Any, ClassVar, NamedTuple

from data.chat import schema
from data.records import forms
from data.tasks import problem_files
from data.tasks.protocol import ask
from data.tools import toolbox
from lm.base.errors import UserError

_FENCE = re.compile(r'\s*(`{3,}|~{3,})\s*(\w*)\s*')
PYTHON = ('', 'python', 'python3', 'py', 'py3')  # names of languages after a fence


class Program(NamedTuple):
  """A problem of a file.

  Attributes:
    question: what is asked for.
    solution: a program that passes.
    before: Python that runs before a reply's program.
    tests: Python that runs after it.
  """

  question: str
  solution: str
  before: str
  tests: str


def read(paths: str, test_paths: str = '') -> problem_files.Problems[Program]:
  """Returns the problems of files (`problem_files.read`).

  Raises:
    UserError: no row is a problem with tests, or the sandbox cannot run on this machine.
  """
  toolbox.sandbox()
  return problem_files.read('programs', 'program with its tests', parse, paths, test_paths)


def parse(row: Any) -> Program:
  """Returns the problem of a row of any form. Raises UserError if the row has none."""
  problem = forms.read(row, FORMS)
  for name in ('question', 'solution', 'tests'):
    if not getattr(problem, name).strip():
      raise UserError(field=f'{name} of a program', value='', allowed='text that is not blank')
  return problem


def from_mbpp(row: dict[str, Any]) -> Program:
  """Returns the problem of {"text" or "prompt", "code", "test_list", "test_setup_code"?}."""
  tests = row['test_list']
  if not isinstance(tests, list) or not all(isinstance(test, str) for test in tests):
    raise UserError(field='test_list', value=tests, allowed='a list of texts')
  text = forms.require_text('text', row.get('text') or row.get('prompt'))
  setup = forms.require_text('test_setup_code', row.get('test_setup_code') or '')
  imports = '\n'.join(map(str, row.get('test_imports') or ()))
  asked = f'{text.strip()}\nYour code should pass:\n' + '\n'.join(tests)
  before = '\n'.join(filter(None, (imports, setup)))
  return Program(asked, forms.require_text('code', row['code']), before, '\n'.join(tests))


def from_human_eval(row: dict[str, Any]) -> Program:
  """Returns the problem of {"prompt", "canonical_solution", "test", "entry_point"}.

  The prompt is the beginning of a function, and runs before a reply, which may define it again.
  """
  prompt, body, test, name = (
    forms.require_text(field, row[field])
    for field in ('prompt', 'canonical_solution', 'test', 'entry_point')
  )
  asked = f'Complete this function.\n```python\n{prompt.strip()}\n```'
  return Program(asked, prompt + body, prompt + '\n', f'{test}\ncheck({name})')


def from_tests(row: dict[str, Any]) -> Program:
  """Returns the problem of {"prompt", "solution", "tests"}."""
  fields = (forms.require_text(field, row[field]) for field in ('prompt', 'solution'))
  return Program(*fields, '', forms.require_text('tests', row['tests']))


FORMS = {
  'mbpp': forms.Form(frozenset({'code', 'test_list'}), from_mbpp),
  'human_eval': forms.Form(frozenset({'prompt', 'test', 'entry_point'}), from_human_eval),
  'tests': forms.Form(frozenset({'prompt', 'solution', 'tests'}), from_tests),
}


@dataclasses.dataclass(frozen=True, eq=False)
class Programs(problem_files.FileTask):
  """Programs that must pass unit tests; demonstrations are the solutions of the file."""

  name: ClassVar[str] = 'programs'
  reads: ClassVar[str] = 'programs'

  def from_row(self, row: Program) -> dict:
    return {
      'messages': ask(row.question),
      'answer': row.solution,
      'before': row.before,
      'tests': row.tests,
    }

  def reply(self, problem: dict, rng: Any) -> str:
    return f'```python\n{problem["answer"].strip()}\n```'

  def grade(self, problem: dict, reply: dict) -> float:
    """Returns 1.0 if the program of a reply passes all tests, else 0.0.

    It passes if the last thing that is printed is a word, other at each call, that stands after the
    tests: a program that ends before them does not. A program that searches its own process for the
    word can find it; rollouts.jsonl shows rewards that were earned so.
    """
    word = secrets.token_hex(16)
    parts = (problem['before'], program(schema.text(reply['content'])), problem['tests'])
    result = toolbox.sandbox().run('\n'.join([*parts, f'print("\\n{word}")']))
    return float(not result.error and result.output.rstrip().endswith(word))


def program(text: str) -> str:
  """Returns the program of a reply: its fenced blocks of Python, or all of it.

  Blocks that are not Python, such as a program's output, are left out. Of several, those that
  define something are the program, and the others show its use.
  """
  found = _blocks(text)
  if not found:
    return text
  trees = {block: _parsed(block) for block in found}
  valid = [block for block in found if trees[block] is not None]
  defining = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
  defines = [b for b in valid if any(isinstance(node, defining) for node in trees[b].body)]
  return '\n'.join(defines or valid or found)


def _blocks(text: str) -> list[str]:
  """Returns the fenced blocks of a text that may be Python, without the indent of their fences."""
  blocks, lines, fence, indent, is_python = [], [], '', 0, False
  for line in text.splitlines():
    match = _FENCE.fullmatch(line)
    if not fence and match:
      fence, indent = match[1], match.start(1)
      lines, is_python = [], match[2].lower() in PYTHON
    elif fence and match and match[1].startswith(fence) and not match[2]:
      blocks += ['\n'.join(lines)] if is_python else []
      fence = ''
    elif fence:
      lines.append(line[min(indent, len(line) - len(line.lstrip())) :])
  if fence and is_python:  # a reply that was cut off, or that forgot the last fence
    blocks.append('\n'.join(lines))
  return blocks


def _parsed(block: str) -> ast.Module | None:
  try:
    return ast.parse(block)
  except (SyntaxError, ValueError, RecursionError, MemoryError):
    return None
