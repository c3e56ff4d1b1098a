"""The published figures of accelerators.

Sources: cloud.google.com/tpu/docs (v4, v5e, v5p, v6e, tpu7x: "System architecture" of each; a chip
sends half of the bidirectional ICI bandwidth), and NVIDIA's data sheets of A100 and H100 SXM (dense
bfloat16, NVLink in one direction).
"""

import dataclasses
import math
import re

from lm.base.errors import UserError, unknown

GIB = 2**30
LANES = 128  # width of a TPU's vector registers, in elements


@dataclasses.dataclass(frozen=True)
class Chip:
  """The published figures of an accelerator.

  Attributes:
    kind: what jax calls the device.
    flops: floating-point operations per second, in dense bfloat16.
    hbm_bytes: the size of its memory.
    hbm_bandwidth: bytes per second between its memory and its processors.
    ici_bandwidth: bytes per second that it sends to its neighbours, over all links.
    dcn_bandwidth: bytes per second that it sends out of its slice or machine. 0: not published.
    devices: the number of devices that jax sees for each chip; the other figures are of one device.
  """

  kind: str
  flops: float
  hbm_bytes: int
  hbm_bandwidth: float
  ici_bandwidth: float
  dcn_bandwidth: float
  devices: int = 1


CHIPS = {
  'v4': Chip('TPU v4', 275e12, 32 * GIB, 1200e9, 300e9, 6.25e9),
  'v5e': Chip('TPU v5 lite', 197e12, 16 * GIB, 819e9, 200e9, 3.125e9),
  'v5p': Chip('TPU v5', 459e12, 95 * GIB, 2765e9, 600e9, 6.25e9),
  'v6e': Chip('TPU v6 lite', 918e12, 32 * GIB, 1638e9, 400e9, 12.5e9),
  'tpu7x': Chip('TPU7x', 2307e12 / 2, 96 * GIB, 7380e9 / 2, 600e9 / 2, 12.5e9 / 2, devices=2),
  'a100': Chip('NVIDIA A100', 312e12, 80 * GIB, 2039e9, 300e9, 0.0),
  'h100': Chip('NVIDIA H100', 989e12, 80 * GIB, 3350e9, 450e9, 0.0),
}
TPUS = tuple(name for name, chip in CHIPS.items() if chip.kind.startswith('TPU'))


def chip_of(device_kind: str) -> str | None:
  """Returns the name in CHIPS of what jax calls `device_kind`, or None."""
  for name, chip in CHIPS.items():
    # jax adds the memory and the form to the name of a GPU: 'NVIDIA H100 80GB HBM3'.
    is_nvidia = chip.kind.startswith('NVIDIA')
    if chip.kind == device_kind or (is_nvidia and device_kind.startswith(chip.kind)):
      return name
  return None


def parse_topology(text: str, slices: int) -> tuple[str, int]:
  """Returns the chip and the number of devices of so many slices such as 'v5e:16x16' or 'h100:8'.

  Raises:
    UserError: the chip is not in CHIPS, or the text has another form.
  """
  chip, _, sides = text.partition(':')
  if chip not in CHIPS:
    raise unknown('chip in --topology', chip, CHIPS)
  if not re.fullmatch(r'\d+(x\d+)*', sides):
    raise UserError(
      field='--topology',
      value=text,
      allowed='a chip and the sides of a slice, for example v5e:16x16',
    )
  return chip, math.prod(map(int, sides.split('x'))) * slices * CHIPS[chip].devices
