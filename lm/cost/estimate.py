"""What a training step takes, by formula, before anything is compiled: python -m lm.budget
--config=FILE --topology=v5e:16x16

Per chip: bytes of memory by what holds them, floating-point operations, bytes sent by mesh axis,
and from the chip's published figures the shortest and the longest time that the step can take at
their full use. `train.py` prints it, `lm.aot` sets it beside what the compiler says. --json prints
one line of JSON; its keys are those of `lm.aot` where it has the same, and

  memory                        {what holds it: bytes} at the peak; the sum is peak_bytes
  phases                        {part of the step: bytes held at its peak}
  seconds                       {compute, hbm, ici, dcn}: each by itself, with nothing else in its way
  step_seconds                  [all of them at once, one after the other]
  mfu                           [with the longer step, with the shorter]: model FLOPs a second over the chip's peak
  notes                         what the formula leaves out of this config

Model FLOPs are PaLM's (arXiv 2204.02311, appendix B): 6 for each parameter of a matrix and token,
the head included and the tables not, and 12 L T N H for attention, the causal half that is masked
included. Recomputation does not count; in `hlo_flops`, what the chip executes, it does, and blocks
of attention that a kernel skips do not.

Memory: the state and the batch are exact. The rest is what XLA keeps under the scan over layers:
  the layers' weights once in
the type of the products, the inputs that the backward pass of each layer needs, gradients of all
layers, and the working set of one: its activations and their gradients, and its weights gathered
from all shards. lm/cost/ahead_of_time.py's tests compare.

Chips: cloud.google.com/tpu/docs (v4, v5e, v5p, v6e, tpu7x: "System architecture" of each; half of
  the bidirectional ICI
bandwidth is sent), nvidia.com's data sheets of A100 and H100 SXM (dense bfloat16, NVLink one way).
"""

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ml_collections import ConfigDict, FrozenConfigDict

from lm.base import config as config_lib
from lm.base.errors import UserError, unknown

# No jax at the top: lm/cost/step_time.py's workers may live where there is none.

GIB = 2**30
LANES = 128  # of a TPU


@dataclasses.dataclass(frozen=True)
class Chip:
  """The published figures of an accelerator."""

  kind: str  # how jax calls the device
  flops: float  # a second, dense bfloat16
  hbm_bytes: int
  hbm_bandwidth: float  # bytes a second
  ici_bandwidth: float  # bytes a second that it sends to its neighbours, over all its links
  dcn_bandwidth: float  # bytes a second that it sends out of its slice or host; 0: not published


CHIPS = {
  'v4': Chip('TPU v4', 275e12, 32 * GIB, 1200e9, 300e9, 6.25e9),
  'v5e': Chip('TPU v5 lite', 197e12, 16 * GIB, 819e9, 200e9, 3.125e9),
  'v5p': Chip('TPU v5', 459e12, 95 * GIB, 2765e9, 600e9, 6.25e9),
  'v6e': Chip('TPU v6 lite', 918e12, 32 * GIB, 1638e9, 400e9, 12.5e9),
  # A chip is two devices; these are one's.
  'tpu7x': Chip('TPU7x', 2307e12 / 2, 96 * GIB, 7380e9 / 2, 600e9 / 2, 12.5e9 / 2),
  'a100': Chip('NVIDIA A100', 312e12, 80 * GIB, 2039e9, 300e9, 0.0),
  'h100': Chip('NVIDIA H100', 989e12, 80 * GIB, 3350e9, 450e9, 0.0),
}


TPUS = tuple(name for name, chip in CHIPS.items() if chip.kind.startswith('TPU'))


def chip_of(device_kind: str) -> str | None:
  """The name among CHIPS of what jax calls `device_kind`, or None."""
  exact = [name for name, chip in CHIPS.items() if chip.kind == device_kind]
  near = [
    name
    for name, chip in CHIPS.items()
    if chip.kind.startswith('NVIDIA') and device_kind.startswith(chip.kind)
  ]
  return next(iter(exact + near), None)


# ---- Operations ----------------------------------------------------------------------------------


def flops_per_token(c: Mapping[str, Any], params: int, seq_len: int) -> float:
  """Model FLOPs, forward and backward, for each token (see above).

  Args:
    c: config.model.
    params: of the whole model.
  """
  tables = c['vocab_size'] * c['embed_dim'] * (not c['tie_embeddings'])
  tables += c['max_len'] * c['embed_dim'] * (c['position'] == 'learned')
  idle = (
    c['num_layers']
    * max(0, c['num_experts'] - c['experts_per_token'])
    * _matrices(c)
    * c['embed_dim']
    * c['mlp_dim']
  )
  keys = sum(
    min(seq_len, c['window']) if kind == 'window' else seq_len for kind in config_lib.layer_types(c)
  )
  return 6 * (params - tables - idle) + 12 * keys * c['num_heads'] * c['head_dim']


def _matrices(c) -> int:
  """Of a feed-forward block."""
  return 3 if c['activation'] in ('swiglu', 'geglu') else 2


def attention_share(c: Mapping[str, Any], seq_len: int, context: int) -> float:
  """The share of all pairs of its queries and a key of their row that a device computes in
  attention, mean over the layers.

  Splash skips blocks of 512 that are masked (lm/model/attention/kernels.py), the reference the keys behind each
  quarter of the queries (lm/model/attention/reference.py); of cuDNN half is assumed. In a ring it is that of the
  last device along `context`, which has the most.
  """
  if c['attention'] == 'cudnn':
    return 0.5
  if c['attention'] == 'reference':
    from lm.model.attention.reference import CAUSAL_BLOCKS

    size = max(64, -(-seq_len // CAUSAL_BLOCKS))
    return (
      sum((min(a + size, seq_len) - a) * min(a + size, seq_len) for a in range(0, seq_len, size))
      / seq_len**2
    )
  if c['attention'] == 'ring':
    return sum(ring_stops(c, seq_len, context)) / context / c['num_layers']
  from lm.model.attention.kernels import BLOCK

  block = next(
    size for size in range(min(BLOCK, seq_len), 0, -1) if seq_len % size == 0 and size % LANES == 0
  )
  blocks = seq_len // block
  shares = []
  for kind in config_lib.layer_types(c):
    # blocks of keys that one of queries sees
    back = blocks if kind != 'window' else -(-(c['window'] - 1) // block) + 1
    shares.append(sum(min(i + 1, back) for i in range(blocks)) / blocks**2)
  return sum(shares) / len(shares)


def ring_stops(c: Mapping[str, Any], seq_len: int, context: int) -> list[int]:
  """Of each layer, on how many devices keys are read (lm/model/attention/ring.py)."""
  from lm.model.attention import ring

  return [
    ring.stops(context, seq_len // context, c['window'] if kind == 'window' else 0)
    for kind in config_lib.layer_types(c)
  ]


# Matrix products of attention: forward, of the recomputation, backward.
PRODUCTS = {'reference': (2, 1, 5), 'splash': (2, 2, 7), 'cudnn': (2, 2, 5), 'ring': (2, 2, 5)}
KERNELS = {
  'splash_mha_fwd': 2,
  'splash_mha_dkv': 4,
  'splash_mha_dq': 3,
  'ragged-dot-none': 1,
  'ragged-dot-metadata': 0,
}


def kernel_flops(c: Mapping[str, Any], mesh: Mapping[str, int], kernels: list[Any]) -> float:
  """Operations of the calls of kernels in a compiled program (`lm.cost.hlo.Kernel`): Splash's, and XLA's
  for experts.

  Raises UserError on another's.
  """
  total = 0.0
  for kernel in kernels:
    name = next((name for name in KERNELS if kernel.name.startswith(name)), None)
    if name is None:
      raise unknown('kernel', kernel.name, KERNELS)
    floats = [shape for kind, shape in kernel.operands if kind in ('bf16', 'f32')]
    if name.startswith('splash'):
      queries, (*_, keys, _) = floats[:2]  # [B, N, T, H], [B, K, S, H], without B where it is 1
      pairs = math.prod(queries) * keys * attention_share(c, keys, mesh['context'])
    else:  # rows of all choices, of which each device along `expert` takes its part
      pairs = sum(
        math.prod(rows) * c['embed_dim'] * c['mlp_dim'] / mesh['tensor'] / rows[1] / mesh['expert']
        for rows in floats
        if len(rows) == 2
      )
    total += kernel.count * KERNELS[name] * 2 * pairs
  return total


# ---- The whole -----------------------------------------------------------------------------------


class Budget:
  """The formulas, for one config on one mesh. All of one chip, and of one update unless said
  otherwise.

  Args:
    c: the model's config.
    mesh: size of each axis.
    prog: the `lm.train.program.Program`.
  """

  def __init__(self, config: ConfigDict, c: FrozenConfigDict, mesh: Mapping[str, int], prog: Any):
    import jax

    from lm.parallel.sharding import BATCH

    def held(tree):
      return sum(
        math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(tree)
      )

    state, batch = prog.state, prog.batch
    self.config, self.c, self.mesh, self.stage = config, c, mesh, prog.stage
    self.params = sum(x.size for x in jax.tree.leaves(state['params']))
    self.state_bytes, self.batch_bytes = held(state), held(batch)
    self.gradient_bytes = held(state['params'])
    self.layer_gradient_bytes = held(state['params']['layers'])
    self.head_gradient_bytes = held(state['params']['embedding' if c.tie_embeddings else 'head'])
    self.item = 2 if c.dtype == 'bfloat16' else 4
    self.param_item = 2 if c.param_dtype == 'bfloat16' else 4
    self.ways = math.prod(mesh[axis] for axis in BATCH)
    self.rows = config.batch_size // config.microbatches  # of a microbatch, on all chips
    # of a microbatch, on one
    self.tokens = self.rows * config.seq_len / (self.ways * mesh['context'])
    self.recomputes = c.remat != 'none'
    heads, kv = (
      c.num_heads * c.head_dim / mesh['tensor'],
      c.num_kv_heads * c.head_dim / mesh['tensor'],
    )
    self.D, self.NH, self.KH = c.embed_dim, heads, kv
    self.F = c.mlp_dim / mesh['tensor']
    self.V = c.vocab_size / mesh['tensor']
    # Rows that a layer's feed-forward block computes, and holds, for each token: experts of a group
    # hold all its tokens.
    self.choices = c.experts_per_token if c.num_experts else 1
    self.spread = self.choices * (mesh['expert'] if c.num_experts else 1)
    self.narrow = mesh['fsdp'] > 1 and c.embed_dim // mesh['fsdp'] % LANES > 0
    # the loss is cut into these, or else into chunks
    self.blocks = config.loss.vocab_blocks if self.stage.blocks_vocabulary else 0
    self.chunks = self.blocks or -(-config.seq_len // max(1, config.loss.chunk // self.rows))

  def products(self) -> list[tuple[float, float, bool]]:
    """(inputs, outputs, whether there is one for each expert) of the matrix products of a layer,
    the last one last.
    """
    D, F, routed = self.D, self.F, self.c.num_experts > 0
    router = [(D, self.c.num_experts, False)] if routed else []
    up = [(D, F, routed)] * (_matrices(self.c) - 1)
    return [
      (D, self.NH, False),
      (D, self.KH, False),
      (D, self.KH, False),
      (self.NH, D, False),
      *router,
      *up,
      (F, D, routed),
    ]

  def layer_bytes(self, mlp_blocks: int = 1) -> float:
    """Matrices of one layer, whole over the shards of fsdp, in the type of the products; of one of
    so many blocks' alone.
    """
    experts = self.c.num_experts / self.mesh['expert']
    products = self.products()
    attention, mlp = products[: -_matrices(self.c)], products[-_matrices(self.c) :]
    return self.item * sum(
      m * n * (experts if routed else 1) / parts
      for some, parts in ((attention, 1), (mlp, mlp_blocks))
      for m, n, routed in some
    )

  def hlo_flops(self) -> float:
    c, L, t = self.c, self.c.num_layers, self.tokens
    forward = [2 * t * m * n * (self.choices if routed else 1) for m, n, routed in self.products()]
    # nothing needs its output again
    last = forward[-1] if c.norm_position == 'pre' and not c.num_experts else 0
    times = 3 * sum(forward) + (sum(forward) - last if c.remat == 'full' else 0)
    if c.num_experts:  # XLA forms the gradient of each expert's matrices from the rows of all
      times += (c.num_experts - 1) * sum(forward[-_matrices(c) :])
    first, again, backward = PRODUCTS[c.attention]
    products = first + backward + (again if self.recomputes else 0)
    if c.attention == 'reference' and not c.scan_layers and not self.recomputes:
      products -= 1  # XLA sees that both passes compute the same scores
    share = attention_share(c, self.config.seq_len, self.mesh['context'])
    attention = products * 2 * t * self.config.seq_len * self.NH * share
    head = (8 if self.blocks or self.stage.recomputes_logits else 6) * t * self.D * self.V
    return self.config.microbatches * (L * (times + attention) + head)

  def model_flops(self) -> float:
    tokens = self.config.batch_size * self.config.seq_len / math.prod(self.mesh.values())
    return tokens * flops_per_token(self.c, self.params, self.config.seq_len)

  # -- Memory

  def saved_bytes(self) -> float:
    """What a layer keeps of each token for the backward pass."""
    D, NH, KH, F, gated = self.D, self.NH, self.KH, self.F * self.spread, _matrices(self.c) - 1
    if self.c.remat == 'full':
      return self.item * D
    if self.c.remat == 'dots':  # x, q, k, v, o, and what comes up
      return self.item * (2 * D + NH + 2 * KH + gated * F)
    # x, its norm, q, k, v, attention's output as it is and as o reads it, x after it, its norm;
    # gate, act, up, their product
    return self.item * (4 * D + 3 * NH + 2 * KH + 2 * gated * F)

  def working(self) -> dict[str, float]:
    """Of the layer that is in its backward pass."""
    c, t, item = self.c, self.tokens, self.item
    gated = _matrices(c) - 1
    terms = {
      'residual stream and its gradient': 4 * item * t * self.D,
      'feed-forward and its gradient': 2 * gated * item * t * self.F * self.spread / c.mlp_blocks,
    }
    if c.num_experts:
      terms['tokens by expert'] = 2 * item * t * self.D * self.spread
    if self.recomputes:
      terms['queries, keys, values, output'] = item * t * (2 * self.NH + 2 * self.KH)
    if c.attention == 'splash' and self.recomputes:  # the kernel writes each once in every lane
      terms['logarithms of attention'] = 4 * LANES * t * self.NH / c.head_dim
    if c.attention == 'reference':
      blocks = max(1, min(4, self.config.seq_len // 64))
      terms['scores of attention'] = 4 * t / blocks * self.config.seq_len * self.NH / c.head_dim * 2
    if c.attention == 'ring':
      from lm.model.attention import ring

      block = ring.block(self.config.seq_len // self.mesh['context'])
      terms['scores of attention'] = 4 * t * block * self.NH / c.head_dim * 2
      terms['keys that travel, and sums of gradients'] = t * (
        item * 2 * self.KH + 4 * (self.NH + 2 * self.KH)
      )
    if self.mesh['fsdp'] > 1:
      terms['gathered weights'] = self.layer_bytes(c.mlp_blocks)
    return terms

  def memory(self) -> dict[str, dict[str, float]]:
    """{part of the step: {what holds it: bytes}}."""
    c, t, L, fsdp = self.c, self.tokens, self.c.num_layers, self.mesh['fsdp']
    always = {'state': self.state_bytes, 'batch': self.batch_bytes}
    if self.config.microbatches > 1:
      always['sums of gradients'] = self.gradient_bytes
    kept = always | {'saved for the backward pass': L * t * self.saved_bytes()}
    if self.item != self.param_item:
      kept['weights as bfloat16'] = L * self.layer_bytes() / fsdp
    if c.attention == 'reference':
      kept['mask'] = t * self.config.seq_len
    head = self.D * self.V
    # and in the type of the products
    loss = {
      'logits': 4 * t * self.V / self.chunks * (2 if self.blocks else 1.5),
      'gradient of the head': 4 * head / fsdp * (1 if self.blocks or fsdp == 1 else 1 + fsdp),
      'head': self.item * head / fsdp * (1 if self.blocks or fsdp == 1 else 1 + fsdp),
      'hidden states and their gradient': (self.item + (4 if self.blocks else self.item))
      * t
      * self.D,
    }
    backward = {'gradients': self.layer_gradient_bytes + self.head_gradient_bytes}
    return {
      'loss': kept | loss,
      'backward pass': kept | backward | self.working(),
      'update': always | {'gradients': self.gradient_bytes},
    }

  # -- Traffic

  def collectives(self) -> Counter:
    """(mesh axes, kind) -> bytes sent by a chip, counted as lm/cost/hlo.py does. Small ones (norms,
    sums) are left out.
    """
    c, t, L, mesh, item = self.c, self.tokens, self.c.num_layers, self.mesh, self.item
    sent: Counter = Counter()
    f, x, k, e = mesh['fsdp'], mesh['tensor'], mesh['context'], mesh['expert']
    layer, head = self.layer_bytes(), self.D * self.V
    stream = t * self.D * item
    if f > 1:
      part, passes = (f - 1) / f, 2 if self.blocks else self.chunks
      head_gradient = head * (item if self.blocks else 4)
      sent['fsdp', 'all-gather'] += part * 2 * L * layer
      if self.narrow:
        sent['fsdp', 'all-reduce'] += 2 * part * (L * layer + head_gradient + passes * item * head)
      else:
        # A product whose result is scattered over more than two is done in a ring, which sends one
        # part more.
        scattered = 1 if f > 2 else part
        sent['fsdp', 'all-gather'] += part * passes * item * head
        sent['fsdp', 'reduce-scatter'] += scattered * L * layer + head_gradient * (
          scattered if self.blocks else part * passes
        )
      # of the embedding: tokens of all, a part of D
      sent['fsdp', 'all-to-all'] += part * t * self.D * (item + 4)
    experts = c.num_experts / e * _matrices(c) * self.D * self.F * item
    # a tied one is both, each with its gradient
    tables = head + self.D * (self.V + c.max_len * (c.position == 'learned'))
    for axes, size in (
      (('data', 'context'), L * experts),
      (('data', 'expert', 'context'), L * (layer - experts) + 4 * tables),
    ):
      axes = [axis for axis in axes if mesh[axis] > 1]
      m = math.prod(mesh[axis] for axis in axes)
      if axes and size:
        sent['+'.join(axes), 'all-reduce'] += 2 * (m - 1) / m / f * size
      if mesh['dcn'] > 1 and size:  # first within a slice, then each chip its part of the sum
        sent['dcn', 'all-reduce'] += 2 * (mesh['dcn'] - 1) / mesh['dcn'] / f / m * size
    if x > 1:
      # The output of attention, and again; gradients of what both parts read; the output of each
      # block, and their sum.
      times = 3 + (c.remat == 'full') + c.mlp_blocks + (c.mlp_blocks > 1)
      sent['tensor', 'all-reduce'] += (
        2 * (x - 1) / x * (L * times * stream + stream + 4 * t * self.D)
      )
    if k > 1 and c.attention == 'ring':
      # with the documents of the keys, and home again
      for stops in ring_stops(c, self.config.seq_len, k):
        sent['context', 'collective-permute'] += (
          (stops - 1) * t * (item * 2 * self.KH + 4) * (2 + self.recomputes)
        )
        sent['context', 'collective-permute'] += stops * t * 4 * 2 * self.KH * (stops > 1)
    elif k > 1:
      keys = item * t * 2 * self.KH * (k - 1)
      sent['context', 'all-gather'] += L * keys * (1 + self.recomputes)
      sent['context', 'reduce-scatter'] += L * keys
    if e > 1 and c.num_experts:
      sent['expert', 'all-gather'] += (e - 1) * L * stream * (2 + self.recomputes)
      sent['expert', 'reduce-scatter'] += (e - 1) * L * stream * 2
    return Counter({key: value * self.config.microbatches for key, value in sent.items()})

  def hbm_traffic(self) -> float:
    """Bytes read and written where each product reads its inputs and writes its output once, and
    nothing else moves.
    """
    c, t = self.c, self.tokens
    passes = 3 + (c.remat == 'full')
    layer = self.layer_bytes() + sum(
      self.item * t * (m + n) * (self.choices if routed else 1) for m, n, routed in self.products()
    )
    head = (4 if self.blocks else 3) * (4 * t * self.V + self.item * self.D * self.V * self.chunks)
    return self.config.microbatches * (c.num_layers * passes * layer + head) + 2 * self.state_bytes

  def result(self, chip_name: str | None) -> dict[str, Any]:
    """The keys of the docstring above; those that need a chip's figures are None where it is not
    known.
    """
    phases = self.memory()
    peak = max(phases, key=lambda name: sum(phases[name].values()))
    sent = self.collectives()
    table: dict[str, dict[str, dict[str, float]]] = {}
    for (axes, kind), size in sorted(sent.items()):
      table.setdefault(axes, {})[kind] = {'bytes': size}
    chips = math.prod(self.mesh.values())
    result = {
      'chip': chip_name,
      'chips': chips,
      'mesh': dict(self.mesh),
      'parameters': self.params,
      'tokens_per_chip': self.config.batch_size * self.config.seq_len / chips,
      'argument_bytes': self.state_bytes + self.batch_bytes,
      'peak_bytes': sum(phases[peak].values()),
      'memory': phases[peak],
      'phases': {name: sum(terms.values()) for name, terms in phases.items()},
      'model_flops': self.model_flops(),
      'hlo_flops': self.hlo_flops(),
      'collective_bytes': sum(sent.values()),
      'collectives': table,
      'notes': self.notes(),
      **dict.fromkeys(('hbm_bytes', 'fits', 'seconds', 'step_seconds', 'mfu')),
    }
    result['temporary_bytes'] = result['peak_bytes'] - result['argument_bytes']
    if chip_name:
      chip = CHIPS[chip_name]
      slow = sent['dcn', 'all-reduce']
      seconds = {
        'compute': result['hlo_flops'] / chip.flops,
        'hbm': self.hbm_traffic() / chip.hbm_bandwidth,
        'ici': (result['collective_bytes'] - slow) / chip.ici_bandwidth,
      }
      if slow and chip.dcn_bandwidth:
        seconds['dcn'] = slow / chip.dcn_bandwidth
      result |= {
        'hbm_bytes': chip.hbm_bytes,
        'fits': result['peak_bytes'] <= chip.hbm_bytes,
        'seconds': seconds,
        'step_seconds': [max(seconds.values()), sum(seconds.values())],
      }
      result['mfu'] = sorted(result['model_flops'] / chip.flops / s for s in result['step_seconds'])
    return result

  def notes(self) -> list[str]:
    notes = []
    if self.config.optim.name == 'muon':
      notes.append("Muon's own products and gathers are left out")
    if self.c.num_experts:
      notes.append(
        'experts are taken to be chosen evenly; XLA forms the gradient of each from the tokens of '
        'all'
      )
    if self.narrow:
      notes.append(
        f'shards of embed_dim are {self.c.embed_dim // self.mesh["fsdp"]} wide, no multiple of '
        f'{LANES}: XLA adds up '
        'gradients whole instead of scattering them, and may pad products'
      )
    if self.mesh['context'] > 1 and not self.blocks:
      notes.append(
        'what the compiler does to cut rows that are spread along context into chunks is left out'
      )
    if not self.c.scan_layers:
      notes.append(
        'layers are taken to be scanned: unrolled, more of them may be gathered at one time'
      )
    if self.stage.cost_note:
      notes.append(self.stage.cost_note)
    return notes


def predict(
  config: ConfigDict, model_config: FrozenConfigDict, mesh: Any, prog: Any, chip: str | None
) -> dict[str, Any]:
  """The keys of the docstring above for a program (`lm.train.program.make`) on its mesh, of jax or
  abstract.
  """
  return Budget(config, model_config, dict(mesh.shape), prog).result(chip)


def rows_flops(c: Mapping[str, Any], params: int, lengths: Iterable[int]) -> float:
  """Model FLOPs, forward and backward, of rows of these lengths (tokens), without padding.

  Args:
    c, params: as for `flops_per_token`.
  """
  return sum(n * flops_per_token(c, params, n) for n in lengths)


def measured(
  result: dict[str, Any], flops_per_s: float, updates: int, peak_bytes: int | None
) -> dict[str, float]:
  """Metrics of what was measured beside what was predicted.

  perf/mfu, perf/predicted_step_s (of all updates, the shorter; in stage rl of whole batches of full
  rows), perf/peak_bytes and perf/predicted_peak_bytes; those that the chip or its runtime do not
  tell are left out.

  Args:
    flops_per_s: model FLOPs a second of a chip.
    updates: of a step.
    peak_bytes: the most that the device has held; None: it does not say.
  """
  values = {'perf/predicted_peak_bytes': result['peak_bytes']}
  if result['chip']:
    values['perf/mfu'] = flops_per_s / CHIPS[result['chip']].flops
    values['perf/predicted_step_s'] = updates * result['step_seconds'][0]
  if peak_bytes is not None:
    values['perf/peak_bytes'] = peak_bytes
  return values


# ---- The front end -------------------------------------------------------------------------------


def size(x: float) -> str:
  """Bytes or operations as people read them: 1.23 G."""
  for power, prefix in ((15, 'P'), (12, 'T'), (9, 'G'), (6, 'M'), (3, 'k')):
    if abs(x) >= 10**power:
      return f'{x / 10**power:.3g} {prefix}'
  return f'{x:.3g} '


def summary(result: dict[str, Any]) -> str:
  """Two lines."""
  of = f' of {size(result["hbm_bytes"])}B' if result['chip'] else ''
  text = (
    f'budget of a chip: {size(result["peak_bytes"])}B{of} at the peak, '
    f'{size(result["hlo_flops"])}FLOP an update '
    f"({size(result['model_flops'])}FLOP the model's), {size(result['collective_bytes'])}B sent"
  )
  if result['chip']:
    low, high = result['step_seconds']
    text += f'\n{result["chip"]}: {low:.3g} to {high:.3g} s an update, MFU {result["mfu"][0]:.0%} to {result["mfu"][1]:.0%}'
  return text


def describe(result: dict[str, Any]) -> str:
  """The whole, as a table."""
  mesh = ' '.join(f'{axis}={n}' for axis, n in result['mesh'].items() if n > 1) or 'one device'
  lines = [
    f'{result["chips"]} x {result["chip"] or "a chip that is not known"}, {mesh}, '
    f'{result["parameters"]:,} parameters; '
    f'of one chip, an update of {result["tokens_per_chip"]:,.0f} tokens:'
  ]

  def row(name, value, unit, note=''):
    lines.append(f'  {name:42} {size(value):>10}{unit} {note}'.rstrip())

  for name, held in result['memory'].items():
    row(name, held, 'B')
  phase = max(result['phases'], key=result['phases'].get)
  of = ''
  if result['chip']:
    of = f' {result["peak_bytes"] / result["hbm_bytes"]:.0%} of {size(result["hbm_bytes"])}B' + (
      '' if result['fits'] else ': DOES NOT FIT'
    )
  others = ', '.join(
    f'{name} {size(held)}B' for name, held in result['phases'].items() if name != phase
  )
  row(f'all, at the peak ({phase})', result['peak_bytes'], 'B', f'{of}; {others}')
  row('operations of the model', result['model_flops'], 'FLOP')
  row('operations carried out', result['hlo_flops'], 'FLOP')
  for axes, kinds in result['collectives'].items():
    for kind, sent in kinds.items():
      row(f'sent along {axes}: {kind}', sent['bytes'], 'B')
  if result['chip']:
    for name, seconds in result['seconds'].items():
      row(f'time of {name}', seconds, 's')
    low, high = result['step_seconds']
    lines.append(
      f'  an update takes {low:.3g} s (all at once) to {high:.3g} s (one after the other): '
      f'MFU {result["mfu"][1]:.1%} to {result["mfu"][0]:.1%}'
    )
  return '\n'.join([*lines, *(f'  note: {note}' for note in result['notes'])])


def parse_topology(text: str, slices: int) -> tuple[str, int]:
  """(chip, devices) of 'v5e:16x16' or 'h100:8'. Raises UserError, with what is known."""
  chip, _, sides = text.partition(':')
  if chip not in CHIPS:
    raise unknown('chip in --topology', chip, CHIPS)
  if not re.fullmatch(r'\d+(x\d+)*', sides):
    raise UserError(
      f'--topology is {text!r}; the chip and the sides of a slice are wanted, for example v5e:16x16'
    )
  return chip, math.prod(map(int, sides.split('x'))) * slices * (2 if chip == 'tpu7x' else 1)


def sized_model(config: ConfigDict, vocab_size: Callable[[], int]) -> FrozenConfigDict:
  """The model of a config, of `vocab_size()` ids where the config gives no vocabulary.

  Raises UserError where it cannot be told without reading a checkpoint, or train.py would refuse
  it.
  """
  from lm.model import transformer

  if config.init_from:
    raise UserError(
      f'config.init_from is {config.init_from!r}, a model that is not read here: set it to nothing '
      '(--config.init_from=) and config.model to its shape'
    )
  if config.batch_size % config.microbatches:
    raise UserError(
      f'config.microbatches is {config.microbatches}; it must divide batch_size, '
      f'{config.batch_size}'
    )
  return transformer.sized(config.model, config.model.vocab_size or vocab_size())
