"""Reward models: a scalar head that learns which answers people prefer (Bradley and Terry, 1952).

A row of a batch is a prompt with an answer, and its reward is the value at the answer's last token.
`config.reward.group_size` rows in turn are answers to one prompt. The loss of a group is the mean
over all comparisons among them, so that a prompt weighs the same however often it was compared
(Ouyang et al., arXiv 2203.02155, section 3.5).
"""

import copy
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict, FrozenConfigDict

from lm.base import config as config_lib
from lm.base.errors import UserError
from lm.model.heads import scalar_values
from lm.model.transformer import Transformer
from lm.parallel import distributed, sharding
from lm.stages.stage import Field, Stage, per_row, per_token
from lm.train.batches import Run
from lm.train.program import rows_of_microbatch
from lm.train.train_step import LossFn
from lm.weights import pretrained


class Reward(Stage):
  """Trains a reward model on comparisons of answers."""

  reads = 'answer_groups'
  sections = ('preference', 'reward')
  blocks_vocabulary = False
  cost_note = 'the vocabulary head is counted, which a reward model does not compute'
  unused = (
    'data.weights',
    'data.epochs',
    'loss.chunk',
    'loss.vocab_blocks',
    'loss.balance',
    'loss.z_loss',
    'preference.loss',
    'preference.beta',
  )

  @property
  def batch_fields(self) -> Mapping[str, Field]:
    per_answer = Field('float32', ('batch', 'answers'))
    return {
      'inputs': per_token('int32'),
      'ends': per_row('int32'),  # The position of the answer's last token; -1 in an empty row.
      'wins': per_answer,  # How often the answer was preferred to each answer of its group.
      'margins': per_answer,  # By how much, on average.
    }

  @property
  def axis_sizes(self) -> Mapping[str, int]:
    return {'answers': self.config.reward.group_size}

  def make_loss(self, model_config: FrozenConfigDict, banned_ids: Sequence[int] = ()) -> LossFn:
    del banned_ids
    return make_loss(model_config, self.config.reward)

  def make_compare(self, model_config: FrozenConfigDict) -> Callable:
    return make_compare(model_config, self.config.reward.group_size)

  def check(self, defaults: ConfigDict) -> None:
    """Raises UserError also where groups of answers do not fill batches, or have no comparison."""
    super().check(defaults)
    config, size = self.config, self.config.reward.group_size
    if size < 2:
      raise UserError(field='config.reward.group_size', value=size, allowed='at least 2')
    rows = {
      'batch_size / microbatches': rows_of_microbatch(config),
      'eval.batch_size': config.eval.batch_size,
    }
    for name, number in rows.items():
      if number % size:
        raise UserError(
          field=f'config.{name}',
          value=number,
          allowed=f'a multiple of config.reward.group_size, {size}',
        )


def make_score(
  model_config: FrozenConfigDict,
) -> Callable[[Any, jax.Array, jax.Array], jax.Array]:
  """Returns `score(params, inputs, ends)`: the rewards of answers, float32 [B].

  The inputs are prompts with answers, int32 [B, T], and `ends`, int32 [B], the positions of the
  last tokens. What follows these is not read. A row whose end is -1 has the reward 0.
  """
  model = Transformer(model_config)

  def score(params, inputs_BT, ends_B):
    hidden_BTD, _ = model.apply({'params': params}, inputs_BT)
    values_BT = scalar_values(params, model_config, hidden_BTD)
    is_end_BT = jnp.arange(inputs_BT.shape[1])[None] == ends_B[:, None]
    return jnp.sum(jnp.where(is_end_BT, values_BT, 0.0), axis=1)

  return score


def make_scorer(
  model_config: FrozenConfigDict, mesh: Mesh, *, batch_size: int, max_len: int
) -> Callable[[Any, Sequence[Sequence[int]]], np.ndarray]:
  """Returns `score(params, rows)`: the rewards of prompts with answers, float32 [rows].

  This is what best-of-n and reinforcement learning call, with rows that end in the token that ended
  the answer. All processes call it with the same rows.

  Args:
    model_config: that of the reward model.
    mesh: the devices, which `params` are laid out over.
    batch_size: number of rows that are scored at the same time.
    max_len: tokens of a row, to which shorter ones are padded.

  Raises:
    UserError: the mesh does not divide the rows. `score` raises it where a row is empty or longer.
  """
  sharding.check_rows(mesh, {'batch_size': batch_size})
  axes = {'inputs': ('batch', 'length'), 'ends': ('batch',)}
  score = jax.jit(make_score(model_config))

  def score_rows(params, rows):
    for row in rows:
      if not 0 < len(row) <= max_len:
        raise UserError(
          field='length of a prompt with its answer',
          value=len(row),
          allowed=f'from 1 to {max_len} tokens',
        )
    rewards = []
    for start in range(0, len(rows), batch_size):
      part = rows[start : start + batch_size]
      inputs = np.zeros((1, batch_size, max_len), np.int32)
      ends = np.full((1, batch_size), -1, np.int32)
      for i, row in enumerate(part):
        inputs[0, i, : len(row)], ends[0, i] = row, len(row) - 1
      own = sharding.own_rows({'inputs': inputs, 'ends': ends}, mesh)
      placed = sharding.put_batch({name: x[0] for name, x in own.items()}, axes, mesh)
      scored = distributed.fetch(score(params, placed['inputs'], placed['ends']))
      rewards.append(scored[: len(part)])
    return np.concatenate(rewards) if rewards else np.zeros(0, np.float32)

  return score_rows


def open_scorers(
  runs: Sequence[str],
  model: ConfigDict,
  defaults: ConfigDict,
  mesh: Mesh,
  *,
  tokenizer: str,
  batch_size: int,
  max_len: int,
) -> dict[str, Callable[[Sequence[Sequence[int]]], np.ndarray]]:
  """Returns `make_scorer` of the reward models of runs, with their parameters, by run.

  Args:
    runs: checkpoints, as `lm.weights.pretrained.load` takes them.
    model: a `config.model` that says how they are computed.
    defaults: `config.model` as configs/base.py has it.
    tokenizer: the fingerprint of the tokenizer that made the rows.
    batch_size, max_len: as of `make_scorer`.

  Raises:
    UserError: a model has no scalar head, another tokenizer, or a shorter context.
    FileNotFoundError: there is no such checkpoint.
  """
  execution = copy.deepcopy(defaults)
  execution.update({name: model[name] for name in pretrained.EXECUTION})
  scorers = {}
  for run in runs:
    loaded = pretrained.load(run, execution, defaults, mesh)
    loaded.check_tokenizer(tokenizer)
    if 'scalar' not in loaded.config.heads:
      raise UserError(
        field=f'heads of the reward model {run}', value=loaded.config.heads, allowed='with scalar'
      )
    if max_len > loaded.config.max_len:
      raise UserError(
        field='config.seq_len',
        value=max_len,
        allowed=f'at most max_len of the reward model, {loaded.config.max_len}',
      )
    score = make_scorer(loaded.config, mesh, batch_size=batch_size, max_len=max_len)
    scorers[run] = functools.partial(score, loaded.params)
  return scorers


def open_scorer(run: Run) -> Callable[[Sequence[Sequence[int]]], np.ndarray]:
  """Returns `score(rows)`, the mean of the reward models of `config.rl.reward_model`.

  The arguments and errors are those of `open_scorers`, from a run of RL.
  """
  config = run.config
  scorers = open_scorers(
    config_lib.names(config.rl.reward_model),
    config.model,
    run.defaults.model,
    run.mesh,
    tokenizer=run.chat_format.tokenizer.fingerprint,
    batch_size=rows_of_microbatch(config),
    max_len=config.seq_len,
  )
  return lambda rows: np.mean([score(rows) for score in scorers.values()], axis=0)


def make_compare(
  model_config: FrozenConfigDict, group_size: int
) -> Callable[[Any, dict[str, jax.Array]], tuple[jax.Array, jax.Array]]:
  """Returns `compare(params, batch) -> (log_odds, wins)`, both float32 [rows, group_size].

  The first are the predicted log-odds that each answer is preferred to each one of its group, and
  the second how often it was.
  """
  score = make_score(model_config)

  def compare(params, batch):
    rewards_B = score(params, batch['inputs'], batch['ends'])
    return _differences(rewards_B, group_size).reshape(batch['wins'].shape), batch['wins']

  return compare


def _differences(rewards_B: jax.Array, group_size: int) -> jax.Array:
  """Returns the reward of each answer minus that of each one of its group, [Q, G, G]."""
  rewards_QG = rewards_B.reshape(-1, group_size)
  return rewards_QG[:, :, None] - rewards_QG[:, None, :]


def make_loss(model_config: FrozenConfigDict, settings: ConfigDict) -> LossFn:
  """Returns the loss of a batch of groups of answers.

  Args:
    model_config: the model's, which has a scalar head.
    settings: `config.reward`.

  The loss of a comparison, train/loss, is -log sigmoid(r_w - r_l): the cross entropy of the label
  under the Bradley-Terry model. It is averaged over the comparisons of a group, then over the
  groups. train/total is what is minimized. With `settings.margin` the difference of rewards must
  exceed this factor times the margin of the comparison (Touvron et al., arXiv 2307.09288, equation
  2). With `settings.center` the square of r_w + r_l is added, with this weight, which keeps rewards
  around 0 (Eisenstein et al., arXiv 2312.09244): the loss alone does not say where they are.

  The other metrics are means over comparisons: reward/accuracy, the share whose preferred answer
  has the higher reward, and reward/gap, r_w - r_l. reward/mean_reward is that over answers.
  """
  score, size = make_score(model_config), settings.group_size

  def loss_fn(params, batch, key):
    del key
    rewards_B = score(params, batch['inputs'], batch['ends'])
    gap_QGG = _differences(rewards_B, size)
    wins_QGG = batch['wins'].reshape(gap_QGG.shape)
    margins_QGG = batch['margins'].reshape(gap_QGG.shape)
    compared_Q = wins_QGG.sum(axis=(1, 2))
    groups = jnp.sum((compared_Q > 0).astype(jnp.float32))
    share_QGG = wins_QGG / jnp.maximum(compared_Q, 1)[:, None, None]

    def of_groups(x_QGG):
      return jnp.sum(share_QGG * x_QGG), groups

    def of_comparisons(x_QGG):
      return jnp.sum(wins_QGG * x_QGG), wins_QGG.sum()

    minimized_QGG = jax.nn.softplus(settings.margin * margins_QGG - gap_QGG)
    if settings.center:
      rewards_QG = rewards_B.reshape(-1, size)
      sum_QGG = rewards_QG[:, :, None] + rewards_QG[:, None, :]
      minimized_QGG += settings.center * jnp.square(sum_QGG)
    is_answer_B = (batch['ends'] >= 0).astype(jnp.float32)
    return {
      'train/loss': of_groups(jax.nn.softplus(-gap_QGG)),
      'train/total': of_groups(minimized_QGG),
      'reward/accuracy': of_comparisons((gap_QGG > 0).astype(jnp.float32)),
      'reward/gap': of_comparisons(gap_QGG),
      'reward/mean_reward': (jnp.sum(is_answer_B * rewards_B), is_answer_B.sum()),
    }

  return loss_fn
