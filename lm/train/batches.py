"""The batches of a run: a batch, the run that it is for, and batches read from token shards."""

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict, FrozenConfigDict

from lm.base.metrics import Clock
from lm.parallel import sharding
from lm.train.faults import Jumps


@dataclasses.dataclass(frozen=True)
class Batch:
  """The arrays that one step trains on, and what is logged of them.

  Attributes:
    arrays: [microbatches, rows, ...], laid out over the mesh.
    count: how many microbatches, the first of them, are computed; 0 if there is nothing to learn.
    lengths: tokens of each row that is computed, without padding; None if all rows are full.
    metrics: what is logged of the batch.
    texts: (name, text) pairs that are kept in samples.jsonl.
    rollouts: answers that are kept in rollouts.jsonl, one a line.
  """

  arrays: dict[str, jax.Array]
  count: int
  lengths: list[int] | None
  metrics: dict[str, float]
  texts: list[tuple[str, str]] = dataclasses.field(default_factory=list)
  rollouts: list[dict[str, Any]] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Run:
  """The parts of a run that the stage it trains may use.

  Attributes:
    config, model_config: the run's, and its model's.
    defaults: configs/base.py, for the fields that checkpoints of other models lack.
    program: the run's `lm.train.program.Program`.
    source: the data that the reader of data/batches opened for the stage.
    chat_format: how text and conversations become tokens.
    jumps: the batches that the run leaves out.
    clock: measures the time of each part of the run.
    call_tool: answers the calls of tools: the text of a call to its result.
    workdir: the run's folder.
  """

  config: ConfigDict
  defaults: ConfigDict
  model_config: FrozenConfigDict
  mesh: Mesh
  program: Any
  source: Any
  chat_format: Any
  jumps: Jumps
  clock: Clock
  call_tool: Callable[[str], str]
  workdir: Any


class Batches(Protocol):
  """A run's batches, in order.

  Attributes:
    waits: whether a batch is drawn from the parameters, so that it waits for the step before it.
    judge: (params, examples, batch_size) -> {name: the rewards of answers to test problems}; None
      where no reward model is trained against.
  """

  waits: bool
  judge: Callable[[Any, int, int], dict[str, Any]] | None

  def state(self) -> dict[str, Any]:
    """Returns what the next batch depends on beside its number and the parameters.

    It is a JSON object, which is saved with a checkpoint.
    """

  def seek(self, update: int, state: Mapping[str, Any]) -> None:
    """Makes `next` continue with the batch of this update, counted from 0.

    The loop calls it before the first batch, and where it goes back to an earlier step.

    Args:
      update: the update.
      state: what `state` returned before it; {} at the beginning.
    """

  def next(self, update: int, params: Any) -> Batch:
    """Returns the batch of an update.

    It is called for one update after the other.
    """

  def complete(self, arrays: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Adds to held-out rows what is computed from the parameters that training started from."""


class TokenBatches:
  """Batches of token shards, read ahead of the steps."""

  waits = False
  judge = None

  def __init__(self, run: Run, axes: Mapping[str, tuple[str, ...]]):
    """Reads from `run.source.train`, whose arrays are those of `axes`."""
    self._run, self._axes = run, axes
    self._loader = run.source.train
    self._stream: Iterator[dict[str, Any]] | None = None  # `seek` opens it.

  def state(self) -> dict[str, Any]:
    """Returns nothing, because every batch follows from its number."""
    return {}

  def seek(self, update: int, state: Mapping[str, Any]) -> None:
    """Makes `next` continue with the batch of this update."""
    del state
    self._stream = self.read(update, *sharding.batch_share(self._run.mesh))

  def read(self, update: int, index: int = 0, count: int = 1) -> Any:
    """Yields the rows that one process reads of the batches of all updates from `update` on."""
    config, jumps = self._run.config, self._run.jumps
    spans = jumps.ranges(update, config.steps)
    return itertools.chain.from_iterable(
      self._loader.iterate(*span, index, count, config.microbatches) for span in spans
    )

  def next(self, update: int, params: Any) -> Batch:
    """Returns the next batch."""
    del params
    count = self._run.config.microbatches
    rows = {name: x.reshape(count, -1, *x.shape[1:]) for name, x in next(self._stream).items()}
    epoch = self._loader.epoch(self._run.jumps.batch(update) + 1)
    arrays = sharding.put_batch(rows, self._axes, self._run.mesh)
    return Batch(self.complete(arrays), count, lengths=None, metrics={'data/epoch': epoch})

  def complete(self, arrays: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Adds what is computed from the parameters that training started from; here, nothing."""
    return arrays
