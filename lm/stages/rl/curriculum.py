"""A curriculum by success: problems that the policy sometimes solves are asked more often.

Problems belong together that are about as hard (`difficulty` of a task). Where every answer is
right, or none is, there is little to learn.
"""

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

MEMORY = 0.9  # What earlier groups of answers weigh after another group of the same difficulty.


class Curriculum:
  """Success by difficulty, and which problems are passed over for it.

  The success of a difficulty is the share of right answers, of which those of earlier groups weigh
  less and less. `state` is all that it knows: a run that resumes goes on with it.
  """

  def __init__(self, rl: ConfigDict, seed: int):
    """Begins without answers.

    Args:
      rl: config.rl, whose `curriculum` is (low, high), or () for none.
      seed: of what is passed over.
    """
    self.is_on = bool(rl.curriculum)
    self._bounds, self._rest, self._seed = tuple(rl.curriculum), rl.curriculum_rest, seed
    self._counts: dict[str, list[float]] = {}  # Right answers and all, by difficulty.

  def state(self) -> dict[str, Any]:
    """Returns what `restore` takes, as JSON can have it."""
    return {'success': {name: list(counts) for name, counts in self._counts.items()}}

  def restore(self, state: Mapping[str, Any]) -> None:
    """Goes back to what `state` returned; {} is the beginning."""
    self._counts = {name: list(counts) for name, counts in state.get('success', {}).items()}

  def teaches(self, difficulty: str) -> bool:
    """Returns whether success is between the bounds, or not known."""
    if not self.is_on or difficulty not in self._counts:
      return True
    right, answers = self._counts[difficulty]
    return self._bounds[0] < right / answers < self._bounds[1]

  def wants(self, difficulty: str, question: int, attempt: int) -> bool:
    """Returns whether a problem is to be asked, the `attempt`-th that is drawn for a question."""
    if self.teaches(difficulty):
      return True
    return random.Random(f'{self._seed}/{question}/{attempt}').random() < self._rest

  def learn(self, difficulty: str, right_G: np.ndarray) -> None:
    """Adds the answers to one question."""
    if self.is_on:
      right, answers = self._counts.get(difficulty, (0.0, 0.0))
      self._counts[difficulty] = [
        MEMORY * right + float(np.sum(right_G)),
        MEMORY * answers + len(right_G),
      ]
