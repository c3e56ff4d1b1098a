"""Sums of dates: what date is some days later, and how many days are between two dates."""

import calendar
import contextlib
import dataclasses
import datetime
import itertools
import random
import re
from collections.abc import Iterator
from typing import ClassVar

from data.chat import schema
from data.tasks import claims
from data.tasks.claimed_number import strongest
from data.tasks.protocol import Worked, ask, question

MONTHS = (
  *('january', 'february', 'march', 'april', 'may', 'june', 'july', 'august', 'september'),
  *('october', 'november', 'december'),
)
_MONTH = '|'.join(rf'{month[:3]}(?:{month[3:]})?\.?' for month in MONTHS)
_DAY = r'(?P<day>[0-9]{1,2})(?:st|nd|rd|th)?'
_DATES = tuple(
  re.compile(pattern, re.IGNORECASE)
  for pattern in (
    r'(?<![\w-])(?P<year>[0-9]{4})[-/](?P<month>[0-9]{1,2})[-/](?P<day>[0-9]{1,2})'
    r'(?:T[0-9]{2}:[0-9]{2}[0-9:.]*(?:Z|[+-][0-9:]+)?)?(?![\w-])',
    r'(?<![\w.-])(?P<day>[0-9]{1,2})\.(?P<month>[0-9]{1,2})\.(?P<year>[0-9]{4})(?![\w-])',
    r'(?<![\w.,-])(?P<year>20[0-9]{2})(?P<month>[01][0-9])(?P<day>[0-3][0-9])(?![\w-]|[.,][0-9])',
    rf'\b{_DAY}(?: of)?[ -](?P<month>{_MONTH}),?[ -](?P<year>[0-9]{{4}})\b',
    rf'\b(?P<month>{_MONTH})(?: the)? {_DAY},? (?P<year>[0-9]{{4}})\b',
  )
)


@dataclasses.dataclass(frozen=True, eq=False)
class Dates(Worked):
  """Dates that are up to `max_days` days apart, written as 2024-03-31."""

  max_days: int = 60
  years: tuple[int, int] = (2020, 2029)  # first and last of the earlier date
  name: ClassVar[str] = 'dates'
  after: ClassVar[tuple[str, ...]] = (
    'What date is {days} days after {start}?',
    'Which date comes {days} days after {start}?',
  )
  between: ClassVar[tuple[str, ...]] = (
    'How many days are there from {start} to {end}?',
    'How many days after {start} is {end}?',
  )

  def draw(self, rng: random.Random) -> dict:
    first, last = (datetime.date(year, 1, 1).toordinal() for year in self.years)
    start = datetime.date.fromordinal(rng.randrange(first, last + 365))
    days = rng.randint(2, self.max_days)
    end = start + datetime.timedelta(days)
    between = rng.random() < 0.5
    asked = rng.choice(self.between if between else self.after)
    return {
      'messages': ask(asked.format(days=days, start=start, end=end)),
      'key': f'{start} + {days}',
      'group': self.name,
      'start': str(start),
      'end': str(end),
      'days': days,
      'between': between,
      'answer': str(days if between else end),
    }

  def steps(self, problem: dict) -> str:
    """Returns the months from one date to the other, each with the days that are left or passed."""
    start, end = (datetime.date.fromisoformat(problem[name]) for name in ('start', 'end'))
    derived = _days_between(start, end) if problem['between'] else _date_after(start, end)
    return f'{"; ".join(derived)}. Answer: {problem["answer"]}'

  def program(self, problem: dict) -> tuple[str, str]:
    start, end = (_call(problem[name]) for name in ('start', 'end'))
    found = f'({end} - {start}).days'
    if not problem['between']:
      found = f'print({start} + timedelta({problem["days"]}))'
    return f'from datetime import *\n{found}', problem['answer']

  def grade(self, problem: dict, reply: dict) -> float:
    if problem['between']:
      return super().grade(problem, reply)
    said = claimed_date(schema.text(reply['content']), question(problem))
    return float(said == problem['answer'])


def _call(date: str) -> str:
  """Returns Python that makes a date: 'date(2024, 3, 31)' of '2024-03-31'."""
  return f'date({", ".join(str(int(part)) for part in date.split("-"))})'


def _months(start: datetime.date, end: datetime.date) -> list[tuple[int, int]]:
  """Returns the number and the length in days of each month from one date to another."""
  months = range(12 * start.year + start.month - 1, 12 * end.year + end.month)
  return [(m % 12 + 1, calendar.monthrange(m // 12, m % 12 + 1)[1]) for m in months]


def _date_after(start: datetime.date, end: datetime.date) -> list[str]:
  """Returns steps from a date to a later one, as if its first month went on.

  From 2024-03-03, 45 days: '03: 3+45=48', '04: 48-31=17', which is 2024-04-17.
  """
  months, days = _months(start, end), (end - start).days
  day = start.day + days
  steps = [f'{start.month:02}: {start.day}+{days}={day}']
  for (_, length), (month, _) in itertools.pairwise(months):
    steps.append(f'{month:02}: {day}-{length}={day - length}')
    day -= length
  return steps


def _days_between(start: datetime.date, end: datetime.date) -> list[str]:
  """Returns steps that add up the days of each month between two dates.

  From 2024-03-03 to 2024-05-22: '03: 31-3=28', '04: 28+30=58', '05: 58+22=80'.
  """
  (first, length), *others = _months(start, end)
  if not others:
    return [f'{first:02}: {end.day}-{start.day}={end.day - start.day}']
  passed = length - start.day
  steps = [f'{first:02}: {length}-{start.day}={passed}']
  for month, days in [*others[:-1], (end.month, end.day)]:
    steps.append(f'{month:02}: {passed}+{days}={passed + days}')
    passed += days
  return steps


def claimed_date(text: str, asked: str = '') -> str | None:
  """Returns the date that a reply claims as the answer, as 2024-03-31, or None.

  Args:
    text: the reply, with dates such as 2024-03-31, 20240331, 2024-03-31T00:00:00, 31.03.2024,
      31 March 2024 or March 31, 2024.
    asked: the question. Its own dates are no claims where the reply only repeats them.
  """
  text = claims.plain(text)
  echoes = {mention.value for mention in _dates(claims.plain(asked))}
  return strongest(text, list(_dates(text)), echoes)


def _dates(text: str) -> Iterator[claims.Mention]:
  """Yields the dates of a text; those that no calendar has are left out."""
  found = (match for pattern in _DATES for match in pattern.finditer(text))
  for match in sorted(found, key=re.Match.start):
    name = match['month'].lower()
    numbers = [int(name)] if name.isdecimal() else []
    numbers += [i for i, month in enumerate(MONTHS, 1) if month.startswith(name.rstrip('.'))]
    with contextlib.suppress(ValueError):
      date = datetime.date(int(match['year']), numbers[0], int(match['day']))
      yield claims.Mention(str(date), match.start(), match.end())
