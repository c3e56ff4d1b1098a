"""Reads the rows of public preference data sets as comparisons of two answers.

A row's form is told by its fields. To add a form, write a function from a row to comparisons and
add it to FORMS.
"""

import dataclasses
import itertools
import math
import re
from collections.abc import Sequence
from typing import Any

from data.chat import schema
from data.records import forms
from data.records.forms import Form, require_text
from lm.base import files
from lm.base.errors import UserError, unknown

Content = str | list[dict]
WINNERS = ('a', 'b', 'tie')
ARENA_VOTES = ('left', 'right', 'tie', 'both_bad')
# The speakers of HH's transcripts.
HH_ROLES = {'Human': 'user', 'Assistant': 'assistant'}
_HH_TURN = re.compile(r'\n\n(Human|Assistant):')
_HH_END = re.compile(r'\n\nAssistant:\s*$')


@dataclasses.dataclass(frozen=True)
class Comparison:
  """Two answers to one prompt, and which of them is better.

  Attributes:
    messages: the conversation before the answer, which ends with a user's turn.
    a, b: the contents of the two answers.
    winner: one of WINNERS, or '' where nobody has judged.
    margin: how much better the winner is, in the unit of its source; 0 where that is not known.
  """

  messages: list[dict]
  a: Content
  b: Content
  winner: str = ''
  margin: float = 0.0

  @property
  def prompt(self) -> str:
    """A digest of the conversation before the answer."""
    return files.digest(self.messages)

  @property
  def is_decided(self) -> bool:
    """Whether one of the answers is better; of two that are the same, none is."""
    return self.winner in ('a', 'b') and self.a != self.b

  def won(self, winner: str) -> 'Comparison':
    """Returns the comparison as another judge sees it."""
    return dataclasses.replace(self, winner=winner)

  def ordered(self) -> tuple[Content, Content]:
    """Returns (the better answer, the other one) of a decided comparison."""
    return (self.a, self.b) if self.winner == 'a' else (self.b, self.a)


def comparisons(row: Any) -> list[Comparison]:
  """Returns the comparisons of a row of any form.

  The text of a field "system" is the system turn, unless the conversation has one. Other fields of
  no form are ignored.

  Raises:
    UserError: the row has no form or more than one, or a field of it is wrong.
  """
  found = []
  for comparison in forms.read(row, FORMS):
    messages = schema.with_system(comparison.messages, row.get('system'))
    for content in (comparison.a, comparison.b):
      schema.check({'messages': [*messages, _assistant(content)]})
    found.append(dataclasses.replace(comparison, messages=messages))
  return found


def ranked(
  messages: list[dict], answers: Sequence[Content], scores: Sequence[float]
) -> list[Comparison]:
  """Returns the comparisons of all pairs of answers, of which the one with more points wins."""
  found = []
  for (a, of_a), (b, of_b) in itertools.combinations(zip(answers, scores, strict=True), 2):
    winner = 'tie' if of_a == of_b else 'a' if of_a > of_b else 'b'
    found.append(Comparison(messages, a, b, winner, abs(of_a - of_b)))
  return found


def pair_row(comparison: Comparison) -> dict[str, Any]:
  """Returns the row of the form `pairs` for a decided comparison."""
  chosen, rejected = comparison.ordered()
  row = {'prompt': _prompt(comparison.messages), 'chosen': chosen, 'rejected': rejected}
  return row | ({'margin': comparison.margin} if comparison.margin else {})


def vote_row(comparison: Comparison, by: str) -> dict[str, Any]:
  """Returns the row of the form `votes` for a comparison that `by` judged."""
  return {
    'prompt': _prompt(comparison.messages),
    'a': comparison.a,
    'b': comparison.b,
    'winner': comparison.winner,
    'by': by,
  }


def from_pair(row: dict[str, Any]) -> list[Comparison]:
  """Returns the comparison of {"prompt", "chosen", "rejected"}.

  The prompt is a question, or the messages before the answer. An answer is a text, a list with its
  message, or the whole conversation: UltraFeedback's binarized form (Tunstall et al., arXiv
  2310.16944) is read. Without a prompt, the answers are whole conversations as messages, or
  transcripts '\\n\\nHuman: ...\\n\\nAssistant: ...' as those of HH (Bai et al., arXiv 2204.05862).
  The prompt may be such a transcript, too, which ends with '\\n\\nAssistant:'.

  The margin is "margin", or the difference of "score_chosen" and "score_rejected".
  """
  before = _messages(row['prompt']) if 'prompt' in row else None
  sides = {side: row[side] for side in ('chosen', 'rejected')}
  if _is_transcript(row.get('prompt')):
    sides = {side: x.strip() if isinstance(x, str) else x for side, x in sides.items()}
  chosen, rejected = (_conversation(answer, side, before) for side, answer in sides.items())
  if chosen[:-1] != rejected[:-1]:
    raise UserError(
      field='rejected',
      value=row['rejected'],
      allowed='the conversation of "chosen" but for the last answer',
    )
  margin = 0.0
  if 'margin' in row:
    margin = _number('margin', row['margin'])
  elif 'score_chosen' in row and 'score_rejected' in row:
    scores = [_number(name, row[name]) for name in ('score_chosen', 'score_rejected')]
    margin = scores[0] - scores[1]
  return [Comparison(chosen[:-1], chosen[-1]['content'], rejected[-1]['content'], 'a', margin)]


def from_vote(row: dict[str, Any]) -> list[Comparison]:
  """Returns the comparison of {"prompt", "a", "b", "winner"}.

  A row without a winner is a comparison that nobody has judged.
  """
  winner = row.get('winner', '')
  if winner not in ('', *WINNERS):  # a tuple because a winner may not be hashable
    raise unknown('winner', winner, WINNERS)
  return [Comparison(_messages(row['prompt']), row['a'], row['b'], winner)]


def from_ranks(row: dict[str, Any]) -> list[Comparison]:
  """Returns the comparisons of {"prompt", "answers": [...], "ranks": [...]}; the best rank is 1.

  Answers of equal rank are tied. The margin is the difference of ranks.
  """
  answers, ranks = row['answers'], row['ranks']
  if not isinstance(answers, list) or len(answers) < 2:
    raise UserError(field='answers', value=answers, allowed='a list of two answers or more')
  if not isinstance(ranks, list) or len(ranks) != len(answers):
    raise UserError(field='ranks', value=ranks, allowed=f'a list of {len(answers)} numbers')
  scores = [-_number(f'ranks[{i}]', rank) for i, rank in enumerate(ranks)]
  return ranked(_messages(row['prompt']), answers, scores)


def from_ultrafeedback(row: dict[str, Any]) -> list[Comparison]:
  """Returns the comparisons of {"instruction", "completions": [{"response", "overall_score"}]}.

  This is the form of UltraFeedback (Cui et al., arXiv 2310.01377). The margin is the difference of
  scores.
  """
  completions = row['completions']
  if not isinstance(completions, list):
    raise UserError(field='completions', value=completions, allowed='a list')
  answers, scores = [], []
  for i, completion in enumerate(completions):
    where = f'completions[{i}]'
    if not isinstance(completion, dict) or not {'response', 'overall_score'} <= completion.keys():
      raise UserError(
        field=where, value=completion, allowed='an object with "response" and "overall_score"'
      )
    answers.append(require_text(f'{where}.response', completion['response']))
    scores.append(_number(f'{where}.overall_score', completion['overall_score']))
  return ranked(_messages(row['instruction']), answers, scores)


def from_arena(row: dict[str, Any]) -> list[Comparison]:
  """Returns the comparison of a vote of the playground (lm/serve/playground/README.md).

  `tie` and `both_bad` are both ties. A vote about a text that was continued, not answered, is an
  error.
  """
  answers, models, vote = row['answers'], row['models'], row['vote']
  for name, pair in (('answers', answers), ('models', models)):
    if not isinstance(pair, list) or len(pair) != 2:
      raise UserError(field=name, value=pair, allowed='a list of two')
  if vote not in ARENA_VOTES:
    raise unknown('vote', vote, ARENA_VOTES)
  if row['kind'] != 'chat':
    raise unknown('kind', row['kind'], ('chat',))
  if row['left'] not in models:
    raise unknown('left', row['left'], models)
  left = WINNERS[models.index(row['left'])]
  winners = {'left': left, 'right': 'b' if left == 'a' else 'a'}
  return [Comparison(_messages(row['prompt']), *answers, winners.get(vote, 'tie'))]


FORMS = {
  'pairs': Form(frozenset({'chosen', 'rejected'}), from_pair),
  'votes': Form(frozenset({'prompt', 'a', 'b'}), from_vote),
  'ranks': Form(frozenset({'prompt', 'answers', 'ranks'}), from_ranks),
  'ultrafeedback': Form(frozenset({'instruction', 'completions'}), from_ultrafeedback),
  'arena': Form(frozenset({'kind', 'prompt', 'models', 'answers', 'left', 'vote'}), from_arena),
}


def _assistant(content: Any) -> dict[str, Any]:
  return {'role': 'assistant', 'content': content}


def _messages(prompt: Any) -> list[dict]:
  """Returns a prompt, which is a question or the messages before the answer, as messages.

  A question may be a transcript of HH that ends with "\\n\\nAssistant:".
  """
  if isinstance(prompt, str):
    if _is_transcript(prompt):
      transcript = _HH_END.sub('', f'\n\n{prompt.lstrip()}')
      return schema.taken(_transcript(transcript, 'prompt'), last='user')
    return [{'role': 'user', 'content': prompt}]
  if not isinstance(prompt, list):
    raise UserError(field='prompt', value=prompt, allowed='a string or a list of messages')
  return schema.taken(prompt, last='user')


def _prompt(messages: list[dict]) -> Any:
  """Returns messages as the field `prompt` has them: text where they are one question."""
  if len(messages) == 1 and isinstance(messages[0]['content'], str):
    return messages[0]['content']
  return messages


def _conversation(value: Any, side: str, before: list[dict] | None) -> list[dict]:
  """Returns the messages of one side of a pair, the last of which is the answer.

  Args:
    value: an answer, or a whole conversation. One without a system turn has that of `before`.
    side: the name of the field, for errors.
    before: the messages before the answer; None where the row has no prompt.
  """
  if isinstance(value, str):
    messages = _transcript(value, side) if before is None else [*before, _assistant(value)]
  elif isinstance(value, list) and value:
    messages = value if before is None or len(value) > 1 else [*before, *value]
    if before and before[0]['role'] == 'system':
      messages = schema.with_system(messages, schema.text(before[0]['content']))
  else:
    raise UserError(field=side, value=value, allowed='a string or a list of messages')
  return schema.taken(messages, last='assistant')


def _is_transcript(prompt: Any) -> bool:
  """Returns whether a prompt is a transcript of HH that ends where the assistant is to answer."""
  if not isinstance(prompt, str):
    return False
  return prompt.lstrip().startswith('Human:') and _HH_END.search(prompt) is not None


def _transcript(text: str, side: str) -> list[dict]:
  """Returns the messages of a transcript of HH."""
  before, *turns = _HH_TURN.split(text)
  if before.strip() or not turns:
    raise UserError(
      field=side,
      value=text,
      allowed='a transcript of turns that begin with "\\n\\nHuman:" and "\\n\\nAssistant:"',
      message='The row has no prompt.',
    )
  return [
    {'role': HH_ROLES[speaker], 'content': said.strip()}
    for speaker, said in zip(turns[::2], turns[1::2], strict=True)
  ]


def _number(field: str, value: Any) -> float:
  if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
    raise UserError(field=field, value=value, allowed='a finite number')
  return float(value)
