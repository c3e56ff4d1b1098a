"""Measures a run beside its prediction: model FLOPs of what it computes, MFU, peak memory."""

from typing import Any

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict, FrozenConfigDict

from lm.cost import estimate


class Meter:
  """Counts the work of steps, and sets what was measured beside what was predicted.

  Attributes:
    predicted: the figures of `lm.cost.estimate.predict`.
  """

  def __init__(self, config: ConfigDict, model_config: FrozenConfigDict, mesh: Mesh, program: Any):
    """Predicts the cost of a program's step on the devices of a mesh."""
    self._config, self._model_config = config, model_config
    self._chips, self._updates = mesh.size, program.updates
    self._device = jax.local_devices()[0]
    self.predicted = estimate.predict(
      config, model_config, mesh, program, estimate.chip_of(self._device.device_kind)
    )

  def work(self, lengths: list[int] | None) -> tuple[int, float]:
    """Returns the tokens of a step, and the model FLOPs of one chip, over all its updates.

    Args:
      lengths: tokens of each row that is computed, without padding; None: all rows are full.
    """
    if lengths is None:
      tokens = self._config.batch_size * self._config.seq_len
      return self._updates * tokens, self._updates * self.predicted['model_flops']
    flops = estimate.rows_flops(self._model_config, self.predicted['parameters'], lengths)
    return self._updates * sum(lengths), self._updates * flops / self._chips

  def metrics(self, flops_per_s: float) -> dict[str, float]:
    """Returns the metrics perf/... that compare a measured rate, of one chip, with the prediction."""
    memory = self._device.memory_stats()  # None where the backend does not count
    peak = memory and memory.get('peak_bytes_in_use')
    return estimate.measured(self.predicted, flops_per_s, self._updates, peak)
