"""Measures a run beside its prediction: model FLOPs of what it computes, MFU, peak memory."""

from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict, FrozenConfigDict

from lm.cost import chips, estimate, flops
from lm.cost.step_shapes import StepShapes


class Meter:
  """Counts the work of steps, and compares what was measured with what was predicted.

  Attributes:
    predicted: the figures of `lm.cost.estimate.predict`.
  """

  def __init__(self, config: ConfigDict, model_config: FrozenConfigDict, mesh: Mesh, program: Any):
    """Predicts the cost of a program's step on the devices of a mesh."""
    self._config = config
    self._chips, self._updates = mesh.size, program.updates
    self._device = jax.local_devices()[0]
    chip = chips.chip_of(self._device.device_kind)
    self.predicted = estimate.predict(config, model_config, mesh, program, chip)
    self._shapes = StepShapes(config, model_config, dict(mesh.shape), program)

  @property
  def tokens_of_run(self) -> int:
    """The tokens of all batches of the run, padding included."""
    return self._config.steps * self._config.batch_size * self._config.seq_len

  def work(self, lengths: Sequence[int] | None) -> tuple[int, float]:
    """Returns the tokens of a step and its model FLOPs on one chip, over all its updates.

    Args:
      lengths: the tokens of each row that is computed, without padding. None: all rows are full.
    """
    if lengths is None:
      tokens = self._config.batch_size * self._config.seq_len
      return self._updates * tokens, self._updates * self.predicted['model_flops']
    total = flops.rows_flops(self._shapes, lengths)
    return self._updates * sum(lengths), self._updates * total / self._chips

  def metrics(self, flops_per_s: float) -> dict[str, float]:
    """Returns the metrics of `measured` for a rate of model FLOPs on one chip."""
    memory = self._device.memory_stats()  # None where the backend does not count
    peak = memory and memory.get('peak_bytes_in_use')
    return measured(self.predicted, flops_per_s, self._updates, peak)


def measured(
  predicted: dict[str, Any], flops_per_s: float, updates: int, peak_bytes: int | None
) -> dict[str, float]:
  """Returns metrics that compare what was measured with what was predicted.

  perf/mfu                    model FLOPs per second over the chip's peak
  perf/predicted_step_s       the shortest time of a step, of all its updates; in RL of full rows
  perf/peak_bytes             the largest memory that the device has held
  perf/predicted_peak_bytes   the largest memory that it should hold

  Those that need figures that the chip or its runtime do not tell are left out.

  Args:
    predicted: the result of `lm.cost.estimate.predict`.
    flops_per_s: model FLOPs per second on one chip.
    updates: the number of updates in a step.
    peak_bytes: the largest memory that the device has held. None: it does not tell.
  """
  values = {'perf/predicted_peak_bytes': predicted['peak_bytes']}
  if predicted['chip']:
    values['perf/mfu'] = flops_per_s / chips.CHIPS[predicted['chip']].flops
    values['perf/predicted_step_s'] = updates * predicted['step_seconds'][0]
  if peak_bytes is not None:
    values['perf/peak_bytes'] = peak_bytes
  return values
