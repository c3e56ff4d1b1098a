"""What a training step takes, by formula."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Chip:
  """The published figures of an accelerator."""

  flops: float  # a second, dense bfloat16
  hbm_bytes: float
  hbm_bandwidth: float  # bytes a second
  ici_bandwidth: float  # bytes a second that it sends to its neighbours over all its links
  dcn_bandwidth: float  # bytes a second that it sends to other slices or hosts, its share of its host's

GIB = 2**30
CHIPS = {
  'v4': Chip(275e12, 32 * GIB, 1228e9, 300e9, 6.25e9),
  'v5e': Chip(197e12, 16 * GIB, 819e9, 200e9, 3.125e9),
  'v5p': Chip(459e12, 95 * GIB, 2765e9, 600e9, 6.25e9),
  'v6e': Chip(918e12, 32 * GIB, 1638e9, 400e9, 12.5e9),
  'tpu7x': Chip(2307e12, 192 * GIB, 7380e9, 600e9, 12.5e9),
}
TPUS = ('v4', 'v5e', 'v5p', 'v6e', 'tpu7x')
