"""Reads the rows of public conversation data sets as this project's messages.

A row's form is told by its fields. To add a form, write a function from a row to messages and add
it to FORMS.
"""

from typing import Any

from data.chat import schema
from data.records import forms
from data.records.forms import Form, require_text
from data.tasks import gsm8k, math_problems
from lm.base.errors import UserError

Messages = list[dict[str, Any]]
CALLS = ('tool', 'steps')  # What the notes of word problems become.

# The roles of ShareGPT's rows, by the names that its exports and derived data sets use.
SHAREGPT_ROLES = {
  'system': 'system',
  'human': 'user',
  'user': 'user',
  'gpt': 'assistant',
  'chatgpt': 'assistant',
  'assistant': 'assistant',
}


def from_messages(row: dict[str, Any], calls: str) -> Messages:
  """Returns the messages of {"messages": [{"role", "content"}, ...]}.

  This is the project's own form, and that of UltraChat-200k.
  """
  return row['messages']


def from_ultrachat(row: dict[str, Any], calls: str) -> Messages:
  """Returns the messages of {"data": [TEXT, ...]}: user and assistant in turn.

  UltraChat has this form (Ding et al. 2023, arXiv 2305.14233).
  """
  turns = row['data']
  if not isinstance(turns, list):
    raise UserError(field='data', value=turns, allowed='a list of texts')
  for i, turn in enumerate(turns):
    require_text(f'data[{i}]', turn)
  return [{'role': ('user', 'assistant')[i % 2], 'content': turn} for i, turn in enumerate(turns)]


def from_sharegpt(row: dict[str, Any], calls: str) -> Messages:
  """Returns the messages of {"conversations": [{"from", "value"}, ...]}, as ShareGPT exports.

  Turns may have "role" and "content" instead.
  """
  turns = row['conversations']
  if not isinstance(turns, list):
    raise UserError(field='conversations', value=turns, allowed='a list of turns')
  messages = []
  for i, turn in enumerate(turns):
    where = f'conversations[{i}]'
    fields = turn.keys() if isinstance(turn, dict) else set()
    speaker, text = ('role', 'content') if {'role', 'content'} <= fields else ('from', 'value')
    if not {speaker, text} <= fields:
      raise UserError(field=where, value=turn, allowed='an object with "from" and "value"')
    if not isinstance(turn[speaker], str) or turn[speaker] not in SHAREGPT_ROLES:
      raise UserError(field=f'{where}.{speaker}', value=turn[speaker], allowed=SHAREGPT_ROLES)
    require_text(f'{where}.{text}', turn[text])
    others = {name: value for name, value in turn.items() if name not in (speaker, text)}
    messages.append({**others, 'role': SHAREGPT_ROLES[turn[speaker]], 'content': turn[text]})
  return messages


def from_alpaca(row: dict[str, Any], calls: str) -> Messages:
  """Returns the messages of {"instruction", "input", "output"}: one question and its answer.

  The question is the instruction, and below it the input if there is one. Stanford Alpaca has this
  form (Taori et al. 2023). Derived data sets have "history", [[question, answer], ...], the turns
  before.
  """
  texts = {name: row.get(name) or '' for name in ('instruction', 'input', 'output')}
  for name, text in texts.items():
    require_text(name, text)
  messages = []
  history = row.get('history') or []
  if not isinstance(history, list) or not all(isinstance(x, list) and len(x) == 2 for x in history):
    raise UserError(field='history', value=history, allowed='a list of [question, answer]')
  for i, pair in enumerate(history):
    for j, role in enumerate(('user', 'assistant')):
      content = require_text(f'history[{i}][{j}]', pair[j])
      messages.append({'role': role, 'content': content})
  question = '\n\n'.join(part for part in (texts['instruction'], texts['input']) if part.strip())
  return [
    *messages,
    {'role': 'user', 'content': question},
    {'role': 'assistant', 'content': texts['output']},
  ]


def from_gsm8k(row: dict[str, Any], calls: str) -> Messages:
  """Returns the messages of {"question", "answer"}: a word problem that is solved in steps.

  The notes <<48/2=24>> of the answer become calls of the calculator if `calls` is 'tool' (Cobbe et
  al. 2021, arXiv 2110.14168).
  """
  question, answer = gsm8k.parse(row)
  solution = gsm8k.with_calls(answer) if calls == 'tool' else gsm8k.in_steps(answer)
  return [{'role': 'user', 'content': question}, {'role': 'assistant', 'content': solution}]


def from_math(row: dict[str, Any], calls: str) -> Messages:
  """Returns the messages of {"problem", "solution"}, a problem of MATH and its solution."""
  problem = math_problems.parse(row)
  return [
    {'role': 'user', 'content': problem.question},
    {'role': 'assistant', 'content': problem.solution},
  ]


def from_rollout(row: dict[str, Any], calls: str) -> Messages:
  """Returns the messages of {"asked", "reply", "right", "end"}, an answer that RL sampled.

  The reply keeps its thoughts and its calls of tools. An answer that is wrong, or that did not end
  by itself, is refused: what remains is a rejection sample of the policy (Yuan et al. 2023, arXiv
  2308.01825).
  """
  if row['right'] is not True or row['end'] != 'stop':
    raise UserError(
      field='right', value=[row['right'], row['end']], allowed='a right answer that ended'
    )
  asked = row['asked']
  if not isinstance(asked, list):
    raise UserError(field='asked', value=asked, allowed='a list of messages')
  return [*asked, {'role': 'assistant', 'content': row['reply']}]


# Each reads (row, calls) -> messages, with `calls` of `conversation`.
FORMS = {
  'messages': Form(frozenset({'messages'}), from_messages, wins=True),
  'ultrachat': Form(frozenset({'data'}), from_ultrachat),
  'sharegpt': Form(frozenset({'conversations'}), from_sharegpt),
  'alpaca': Form(frozenset({'instruction', 'output'}), from_alpaca),
  'math': Form(frozenset({'problem', 'solution'}), from_math),
  'rollout': Form(frozenset({'asked', 'reply', 'right', 'end'}), from_rollout),
  'gsm8k': Form(frozenset({'question', 'answer'}), from_gsm8k),
}


def conversation(row: Any, calls: str = CALLS[0]) -> dict[str, Messages]:
  """Returns {"messages": [...]} of a row of any form.

  The text of a field "system" is the system turn, unless the conversation has one. A row with
  "messages" is read by them, whatever else it has. Other fields are ignored, and so are a last
  question without an answer and a system turn without text.

  Args:
    row: the JSON value of a row.
    calls: 'tool' or 'steps': whether the notes <<48/2=24>> of word problems become calls of the
      calculator, or are left out.

  Raises:
    UserError: the row has no form or more than one, or a field of it is wrong.
  """
  messages = forms.read(row, FORMS, calls)
  if isinstance(messages, list) and len(messages) > 1 and isinstance(messages[-1], dict):
    messages = messages[:-1] if messages[-1].get('role') == 'user' else messages
  return {'messages': schema.taken(schema.with_system(messages, row.get('system')), 'assistant')}
