"""Predicts by formula what an update takes of each chip, before anything is compiled.

`predict` joins the formulas of flops.py, memory.py and communication.py with the figures of
chips.py. `python -m lm.budget --help` explains the keys of its result.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict, FrozenConfigDict

from lm.base.errors import UserError
from lm.cost import communication, flops, memory
from lm.cost.chips import CHIPS, LANES
from lm.cost.step_shapes import StepShapes

# No jax at the top: it reads the environment when it is imported, and lm.aot sets that first.


def predict(
  config: ConfigDict,
  model_config: FrozenConfigDict,
  mesh: Any,
  program: Any,
  chip: str | None,
) -> dict[str, Any]:
  """Returns what an update takes of one chip; `python -m lm.budget --help` explains the keys.

  Args:
    config: the config of the run.
    model_config: the config of the model.
    mesh: a mesh of jax, or an abstract one, which needs no devices.
    program: the `lm.train.program.Program` on that mesh.
    chip: a name in CHIPS. None: the chip is not known, and the keys that need its figures are None.
  """
  shapes = StepShapes(config, model_config, dict(mesh.shape), program)
  phases = memory.phases(shapes)
  phase_bytes = {name: sum(terms.values()) for name, terms in phases.items()}
  peak = max(phase_bytes, key=phase_bytes.get)
  sent = communication.sent_bytes(shapes)
  argument_bytes = shapes.state_bytes + shapes.batch_bytes
  result = {
    'chip': chip,
    'chips': shapes.chips,
    'mesh': shapes.mesh,
    'parameters': shapes.num_params,
    'tokens_per_chip': config.batch_size * config.seq_len / shapes.chips,
    'argument_bytes': argument_bytes,
    'peak_bytes': phase_bytes[peak],
    'temporary_bytes': phase_bytes[peak] - argument_bytes,
    'memory': phases[peak],
    'phases': phase_bytes,
    'model_flops': flops.model_flops(shapes),
    'hlo_flops': flops.executed_flops(shapes),
    'collective_bytes': sum(sent.values()),
    'collectives': _by_axes(sent),
    'notes': _notes(shapes),
    **dict.fromkeys(('hbm_bytes', 'fits', 'seconds', 'step_seconds', 'mfu')),
  }
  return result | _on_chip(chip, result, memory.traffic(shapes)) if chip else result


def _by_axes(sent: Counter) -> dict[str, dict[str, dict[str, float]]]:
  """Returns {mesh axes: {kind of collective: {'bytes': bytes}}}."""
  table: dict[str, dict[str, dict[str, float]]] = {}
  for (axes, kind), size in sorted(sent.items()):
    table.setdefault(axes, {})[kind] = {'bytes': size}
  return table


def _on_chip(name: str, result: dict[str, Any], traffic: float) -> dict[str, Any]:
  """Returns the keys of `predict` that need the figures of a chip."""
  chip = CHIPS[name]
  over_dcn = sum(sent['bytes'] for sent in result['collectives'].get('dcn', {}).values())
  seconds = {
    'compute': result['hlo_flops'] / chip.flops,
    'hbm': traffic / chip.hbm_bandwidth,
    'ici': (result['collective_bytes'] - over_dcn) / chip.ici_bandwidth,
  }
  if over_dcn and chip.dcn_bandwidth:
    seconds['dcn'] = over_dcn / chip.dcn_bandwidth
  step_seconds = [max(seconds.values()), sum(seconds.values())]
  return {
    'hbm_bytes': chip.hbm_bytes,
    'fits': result['peak_bytes'] <= chip.hbm_bytes,
    'seconds': seconds,
    'step_seconds': step_seconds,
    'mfu': sorted(result['model_flops'] / chip.flops / s for s in step_seconds),
  }


def _notes(shapes: StepShapes) -> list[str]:
  """Returns what the formulas leave out of this config."""
  notes = []
  if shapes.num_frozen:
    notes.append(
      f'{shapes.num_frozen:,} parameters are not trained; what is sent is counted as if they were'
    )
  if shapes.config.optim.name == 'muon':
    notes.append("the products and gathers of Muon's orthogonalization are left out")
  if shapes.model.num_experts:
    notes.append(
      'tokens are assumed to be spread evenly over the experts; XLA forms the gradient of each '
      'expert from the tokens of all'
    )
  if shapes.has_narrow_shards:
    width = shapes.model.embed_dim // shapes.mesh['fsdp']
    notes.append(
      f'shards of embed_dim are {width} wide, not a multiple of {LANES}: XLA sums gradients whole '
      'instead of scattering them, and may pad products'
    )
  if shapes.mesh['context'] > 1 and not shapes.vocab_blocks:
    notes.append(
      'the collectives that cut rows spread along context into chunks of the loss are left out'
    )
  if not shapes.model.scan_layers:
    notes.append(
      'layers are assumed to be scanned: unrolled, weights of several may be gathered at a time'
    )
  if shapes.stage.cost_note:
    notes.append(shapes.stage.cost_note)
  return notes


def sized_model(config: ConfigDict, vocab_size: Callable[[], int]) -> FrozenConfigDict:
  """Returns the model of a config, with `vocab_size()` ids where the config has no vocabulary size.

  Raises:
    UserError: the model cannot be told without reading a checkpoint, or train.py would refuse the
      config.
  """
  from lm.model import transformer

  if config.init_from:
    raise UserError(
      field='config.init_from',
      value=config.init_from,
      allowed="''",
      message='The checkpoint is not read here: set the shape of its model in config.model, and '
      '--config.init_from= to nothing.',
    )
  if config.batch_size % config.microbatches:
    raise UserError(
      field='config.microbatches',
      value=config.microbatches,
      allowed=f'a divisor of batch_size, {config.batch_size}',
    )
  return transformer.sized(config.model, config.model.vocab_size or vocab_size())
