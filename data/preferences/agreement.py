"""Measures how often voters on the same comparisons agree.

The labellers of InstructGPT agree with each other in 72.6 % of comparisons (Ouyang et al., arXiv
2203.02155, section 3.4).
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from data.preferences.comparison_rows import Comparison
from lm.base import files, intervals


def agreements(votes: Mapping[str, Sequence[Comparison]]) -> list[dict[str, Any]]:
  """Returns how often each two voters agree about the comparisons that both judged.

  A voter with several votes on one comparison, such as a file of many people's votes, is also
  compared with itself.

  Args:
    votes: what each voter judged. Which answer is a and which is b does not matter.

  Returns:
    {voters, all, decided} for each two voters that have a comparison in common: the agreement
    {share, low, high, n} with a 95 % interval, first of all votes, where a tie agrees with a tie
    alone, then of those in which neither is a tie.
  """
  by_voter = {name: _by_comparison(cast) for name, cast in votes.items()}
  found = []
  for one, other in itertools.combinations_with_replacement(by_voter, 2):
    pairs = []  # (prompt, vote, vote)
    for key in by_voter[one].keys() & by_voter[other].keys():
      prompt, mine = by_voter[one][key]
      _, theirs = by_voter[other][key]
      both = itertools.combinations(mine, 2) if one == other else itertools.product(mine, theirs)
      pairs += [(prompt, *pair) for pair in both]
    if pairs:
      decided = [pair for pair in pairs if 'tie' not in pair[1:]]
      found.append({'voters': [one, other], 'all': _share(pairs), 'decided': _share(decided)})
  return found


def _by_comparison(cast: Sequence[Comparison]) -> dict[tuple[str, ...], tuple[str, list[str]]]:
  """Returns {comparison: (prompt, votes)}; a vote is a digest of the winner, or 'tie'."""
  found: dict[tuple[str, ...], tuple[str, list[str]]] = {}
  for comparison in cast:
    if comparison.winner:
      answers = {'a': files.digest(comparison.a), 'b': files.digest(comparison.b)}
      key = comparison.prompt, *sorted(answers.values())
      _, votes = found.setdefault(key, (comparison.prompt, []))
      votes.append(answers.get(comparison.winner, 'tie'))
  return found


def _share(pairs: Sequence[tuple[str, str, str]]) -> dict[str, float]:
  """Returns the share of pairs of votes that are the same, with its interval."""
  if not pairs:
    low, high = intervals.wilson(0, 0)
    return {'share': float('nan'), 'low': low, 'high': high, 'n': 0}
  agreed = [mine == theirs for _, mine, theirs in pairs]
  share, low, high = intervals.of_clusters(agreed, [prompt for prompt, *_ in pairs])
  return {'share': share, 'low': low, 'high': high, 'n': len(agreed)}
