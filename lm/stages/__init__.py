"""One object for each stage of training, in a registry: `make(config)` returns that of a config.

A stage is what training differs in (lm/stages/stage.py). May import all rooms of lm/ up to train/.
Start reading at stage.py, then pretrain.py, the shortest.
"""

import importlib
from typing import TYPE_CHECKING

from ml_collections import ConfigDict

from lm.base.errors import unknown

if TYPE_CHECKING:
  from lm.stages.stage import Stage

# The class of each stage, as MODULE:CLASS, imported when it is asked for.
STAGES = {
  'pretrain': 'lm.stages.pretrain:Pretrain',
  'sft': 'lm.stages.sft:SupervisedFineTuning',
  'preference': 'lm.stages.preference:Preference',
  'rl': 'lm.stages.rl.policy_gradient:PolicyGradient',
}


def make(config: ConfigDict) -> 'Stage':
  """Returns the stage of a training config. Raises UserError if there is none of that name."""
  if config.stage not in STAGES:
    raise unknown('config.stage', config.stage, (*STAGES, 'recipe'))
  module, _, name = STAGES[config.stage].partition(':')
  return getattr(importlib.import_module(module), name)(config)
