"""The values of config.rl that fit together: any other is an error that names its field."""

from ml_collections import ConfigDict

from lm.base.errors import UserError, unknown
from lm.stages.rl import advantages, policy_losses

NAMES = {  # The registries that fields name an entry of.
  'advantage': advantages.ADVANTAGES,
  'ratio': tuple(policy_losses.RATIOS),
  'aggregation': tuple(policy_losses.AGGREGATIONS),
  'kl_estimator': tuple(policy_losses.DIVERGENCES),
  'kl_in': policy_losses.PLACES,
}


def check(rl: ConfigDict, defaults: ConfigDict) -> None:
  """Raises UserError for a field of config.rl whose value is not allowed, or has no effect.

  Args:
    rl: config.rl.
    defaults: the same part of configs/base.py.
  """

  def require(holds: bool, field: str, allowed: str, message: str = '') -> None:
    if not holds:
      raise UserError(field=f'config.rl.{field}', value=rl[field], allowed=allowed, message=message)

  def unused(fields: tuple[str, ...], where: str) -> None:
    for field in fields:
      require(rl[field] == defaults[field], field, f'{defaults[field]}, {where}')

  for field, names in NAMES.items():
    if rl[field] not in names:
      raise unknown(f'config.rl.{field}', rl[field], names)
  for field in ('group_size', 'max_new_tokens', 'inner_updates'):
    require(rl[field] >= 1, field, 'at least 1')
  require(rl.temperature > 0, 'temperature', 'above 0, since answers are sampled')
  require(rl.kl >= 0, 'kl', 'at least 0')
  for field in ('gamma', 'gae_lambda'):
    require(0 <= rl[field] <= 1, field, 'from 0 to 1')
  require(rl.dual_clip == 0 or rl.dual_clip > 1, 'dual_clip', '0, or above 1')
  require(rl.importance_cap >= 0, 'importance_cap', 'at least 0')
  require(rl.resamples >= 0, 'resamples', 'at least 0')
  bounds = rl.curriculum
  ordered = len(bounds) == 2 and 0 <= bounds[0] < bounds[1] <= 1
  require(not bounds or ordered, 'curriculum', '(), or two shares (low, high) from 0 to 1')
  require(0 < rl.curriculum_rest <= 1, 'curriculum_rest', 'above 0, and at most 1')
  if not bounds:
    unused(('curriculum_rest',), 'since config.rl.curriculum is ()')
  longest = rl.max_new_tokens
  buffer_fits = 0 <= rl.overlong_buffer <= longest
  require(buffer_fits, 'overlong_buffer', f'0 to max_new_tokens, {longest}')

  if not rl.reward_model:
    unused(('grade_weight', 'gold'), 'since config.rl.reward_model is empty')
  is_relative = rl.advantage in advantages.RELATIVE
  require(
    rl.group_size > 1 or not is_relative,
    'group_size',
    f'at least 2 with config.rl.advantage = {rl.advantage}',
    'It compares the answers of a group.',
  )
  in_reward = advantages.has_penalties(rl)
  if not advantages.has_values(rl):
    values = ('gamma', 'gae_lambda', 'value_weight', 'value_clip', 'value_warmup')
    unused(values, f'since config.rl.advantage = {rl.advantage} has no values')
  if not rl.kl:
    unused(('kl_in', 'kl_estimator'), 'since config.rl.kl is 0')
  if not is_relative or in_reward:
    unused(('resamples',), 'since equal rewards of a group teach something here')
  require(
    not rl.kl or in_reward or rl.kl_estimator != 'k1',
    'kl_estimator',
    'k2 or k3, or k1 with config.rl.kl_in = reward',
    'The gradient of k1 in the loss has a mean of 0, whatever the divergence.',
  )
