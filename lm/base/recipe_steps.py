"""The steps of recipes: what data/pipeline/steps.py lists and lm/launch/recipes.py runs."""

from collections.abc import Callable
from typing import NamedTuple


class Step(NamedTuple):
  """What a name in `config.stages` stands for.

  Attributes:
    function: does the work, given a part of the config, if it has one, and a folder.
    part: the name of that part; '' for none.
    output: a path in the work folder that exists once the work is complete.
  """

  function: Callable[..., None]
  part: str
  output: str
