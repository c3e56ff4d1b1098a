"""The stages of training, one object each, in a registry: `make(config)` returns a config's stage.

A stage holds what differs between kinds of training (lm/stages/stage.py). This room may import all
rooms of lm/ up to train. Start reading at stage.py, then pretrain.py, the shortest.
"""

import importlib
from typing import TYPE_CHECKING

from ml_collections import ConfigDict

from lm.base.errors import unknown

if TYPE_CHECKING:
  from lm.stages.stage import Stage

# The class of each stage, as MODULE:CLASS, which is imported only when it is needed.
STAGES = {
  'pretrain': 'lm.stages.pretrain:Pretrain',
  'sft': 'lm.stages.sft:SupervisedFineTuning',
  'preference': 'lm.stages.preference:Preference',
  'reward': 'lm.stages.reward:Reward',
  'rl': 'lm.stages.rl.policy_gradient:PolicyGradient',
}


def make(config: ConfigDict) -> 'Stage':
  """Returns the stage of a training config.

  Raises:
    UserError: there is no stage of that name.
  """
  if config.stage not in STAGES:
    raise unknown('config.stage', config.stage, (*STAGES, 'recipe'))
  module, _, name = STAGES[config.stage].partition(':')
  return getattr(importlib.import_module(module), name)(config)
