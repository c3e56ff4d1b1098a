"""The interface of a stage of training: its batch, its loss, its data and its headline."""

import abc
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from ml_collections import ConfigDict, FrozenConfigDict

from lm.base import config as config_lib
from lm.base import files
from lm.base.errors import UserError
from lm.train.batches import Batches, Run, TokenBatches
from lm.train.faults import Symptom
from lm.train.train_step import LossFn


@dataclasses.dataclass(frozen=True)
class Field:
  """One array of a batch, of shape [microbatches, *axes]."""

  dtype: str
  axes: tuple[str, ...]  # 'batch' (rows), 'length' (tokens of a row), or of Stage.axis_sizes.


def per_token(dtype: str) -> Field:
  """Returns a field with one value for each token, [rows, T]."""
  return Field(dtype, ('batch', 'length'))


def per_row(dtype: str) -> Field:
  """Returns a field with one value for each row, [rows]."""
  return Field(dtype, ('batch',))


# Parts of the config that some stages alone read.
SECTIONS = ('sft', 'preference', 'reward', 'rl')


class Stage(abc.ABC):
  """One kind of training, such as pretraining, fine-tuning or an algorithm of RL.

  Everything that differs between them is here, and nothing else compares `config.stage`. A subclass
  is one file of lm/stages/ and one line of its registry, STAGES.

  Attributes:
    reads: the reader of data/batches that opens what the stage trains on.
    is_chat: whether its texts are conversations, which need a chat format and its special tokens.
    loss_is_positive: whether the loss is above 0, so that its ratio to the median shows a spike.
    blocks_vocabulary: whether the loss reads `config.loss.vocab_blocks`.
    recomputes_logits: whether the backward pass computes the logits again.
    is_sparse: whether many tokens have weight 0, whose logits one device does not compute.
    cost_note: what a predicted cost leaves out of this stage, as a note without capital; ''.
    sections: which of SECTIONS it reads; setting a field of another one is an error.
    unused: fields elsewhere that the stage has no use for; setting one is an error, too.
  """

  reads: ClassVar[str]
  is_chat: ClassVar[bool] = True
  loss_is_positive: ClassVar[bool] = True
  blocks_vocabulary: ClassVar[bool] = True
  recomputes_logits: ClassVar[bool] = False
  is_sparse: ClassVar[bool] = False
  cost_note: ClassVar[str] = ''
  sections: ClassVar[tuple[str, ...]] = ()
  unused: ClassVar[tuple[str, ...]] = ()

  def __init__(self, config: ConfigDict):
    self.config = config

  @property
  @abc.abstractmethod
  def batch_fields(self) -> Mapping[str, Field]:
    """The arrays of a batch, by name.

    A name that ends in `inputs` holds what the model reads.
    """

  @abc.abstractmethod
  def make_loss(self, model_config: FrozenConfigDict, banned_ids: Sequence[int] = ()) -> LossFn:
    """Returns the loss of a microbatch of `batch_fields`.

    Args:
      model_config: the model's.
      banned_ids: tokens that the sampler never draws.
    """

  @property
  def updates_per_batch(self) -> int:
    """The number of updates that are made on each batch."""
    return 1

  @property
  def reads_start(self) -> bool:
    """Whether the loss compares a model with the one that its training started from."""
    return False

  @property
  def axis_sizes(self) -> Mapping[str, int]:
    """The sizes of the axes of a batch that are neither its rows nor their length."""
    return {}

  @property
  def batch_axes(self) -> dict[str, tuple[str, ...]]:
    """The axes of each array of a batch, without that of microbatches."""
    return {name: field.axes for name, field in self.batch_fields.items()}

  def make_compare(self, model_config: FrozenConfigDict) -> Callable | None:
    """Returns what predicts held-out comparisons, for their calibration; None by default.

    It is `compare(params, batch) -> (log_odds, wins)`: arrays [rows, ...] of the predicted log-odds
    that an answer is preferred to another, and of how often it was.
    """
    del model_config

  def make_batches(self, run: Run, copy_start: Callable[[], Any]) -> Batches:
    """Returns where batches come from; by default, what the reader of data/batches reads.

    Args:
      run: the run that is trained.
      copy_start: makes a copy of the parameters that training started from.
    """
    del copy_start
    return TokenBatches(run, self.batch_axes)

  def symptoms(self, metrics: Mapping[str, float]) -> list[Symptom]:
    """Returns what is wrong with a step by its metrics; by default, nothing ever is."""
    del metrics
    return []

  def inputs(self) -> dict[str, Any]:
    """Returns digests, by name, of what decides the numbers of a run beside config and data."""
    return {}

  def summarize(self, run: Run, metrics: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns what this stage adds to a run's report.json.

    Args:
      metrics: the lines of the run's metrics.jsonl.
    """
    del run, metrics
    return {}

  def free_on_resume(self) -> tuple[str, ...]:
    """Returns the sections of the config that this stage never reads."""
    return tuple(name for name in SECTIONS if name not in self.sections)

  def check(self, defaults: ConfigDict) -> None:
    """Raises UserError where the config sets a field that this stage does not use."""
    for name in self.unused:
      self._refuse(name, field(defaults, name), field(self.config, name))
    for part in self.free_on_resume():
      plain, chosen = (config_lib.as_json(config[part]) for config in (defaults, self.config))
      for name, default, value in files.differences(plain, chosen):
        self._refuse(f'{part}.{name}', default, value)

  def _refuse(self, name: str, default: Any, value: Any) -> None:
    if value != default:
      raise UserError(
        field=f'config.{name}',
        value=value,
        allowed=f'{default}, since stage {self.config.stage} does not use it',
      )


def field(config: ConfigDict, path: str) -> Any:
  """Returns the value of a field given its dotted path, such as 'loss.z_loss'.

  A section is returned as a dictionary: two ConfigDicts differ if only one of them is locked.
  """
  for name in path.split('.'):
    config = config[name]
  return config.to_dict() if isinstance(config, ConfigDict) else config
