"""Counts the floating-point operations and collectives of a compiled program from its HLO text.

XLA's own `cost_analysis` counts the body of a loop once; here it counts as often as it runs. The
text is that of `jax.stages.Compiled.as_text()`: the program of one device, with the collectives
that the partitioner inserted.
"""

import dataclasses
import functools
import math
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from lm.base.errors import UserError

COLLECTIVES = ('all-gather', 'all-reduce', 'reduce-scatter', 'collective-permute', 'all-to-all')
# The bits of the types whose names do not end in that number.
BITS = {'pred': 8, 'c64': 64, 'c128': 128}
_HEAD = re.compile(r'^(?:ENTRY )?%?([\w.-]+) \(.*-> .*\{$')
_LINE = re.compile(r'^\s+(ROOT )?%?([\w.-]+) = (.*)$')
# An instruction that continues or ends an asynchronous collective of a TPU names it again, and must
# not be counted again.
_CONTINUED = re.compile(r'"async_collective_fusion_config":\{"flag_start":"\d')
_ARRAY = re.compile(r'\b([a-z]+\d*[a-z0-9]*)\[([\d,]*)\]')


Shape = tuple[str, tuple[int, ...]]  # the type and the dimensions of an array


@dataclasses.dataclass(frozen=True)
class Instruction:
  """One line of a computation: `name = shapes opcode(operands), attributes`.

  Attributes:
    shapes: that of the result, or those of the parts of a tuple.
    operands: the names of the instructions that it reads.
    arguments: the text between the parentheses.
    root: whether it gives the result of the computation.
  """

  name: str
  shapes: tuple[Shape, ...]
  opcode: str
  operands: tuple[str, ...]
  arguments: str
  attributes: str
  root: bool

  def attribute(self, name: str) -> str | None:
    """Returns the value of `name=value`, without the % of a computation."""
    found = re.search(rf'[, ]{name}=%?([\w.<>\->]+|\{{[^}}]*\}})', self.attributes)
    return found and found[1]


@dataclasses.dataclass(frozen=True)
class Kernel:
  """Calls of a kernel whose operations XLA cannot count."""

  name: str
  count: int
  operands: tuple[Shape, ...]


@dataclasses.dataclass
class Cost:
  """What one device does in one run of the program.

  Attributes:
    flops: operations of matrix products, 2 for each multiply-add, without those of kernels.
    kernels: the calls of kernels.
    counts: collectives run, by (mesh axes joined by +, kind).
    bytes: bytes that the device sends, by the same.
  """

  flops: float = 0.0
  kernels: list[Kernel] = dataclasses.field(default_factory=list)
  counts: Counter = dataclasses.field(default_factory=Counter)
  bytes: Counter = dataclasses.field(default_factory=Counter)

  def collectives(self) -> dict[str, dict[str, dict[str, float]]]:
    """Returns {mesh axes: {kind: {count, bytes}}}; several axes are joined by +."""
    table: dict[str, dict[str, dict[str, float]]] = {}
    for (axes, kind), count in sorted(self.counts.items()):
      table.setdefault(axes, {})[kind] = {'count': count, 'bytes': self.bytes[axes, kind]}
    return table


def cost(text: str, mesh: dict[str, int], trips: int = 1) -> Cost:
  """Counts what a program does on one device.

  Bytes sent are those of a ring of n devices: an all-gather sends its input n - 1 times, a
  reduce-scatter and an all-to-all (n - 1) / n of their inputs, an all-reduce twice that, and a
  permutation its input. What a chip hands to its machine to send to other slices counts under 'dcn'
  as it is. Of the branches of a conditional, the one with the most operations counts.

  Args:
    text: the program.
    mesh: the size of each axis, outermost first; devices are numbered along it.
    trips: the iterations of a loop whose number of iterations is an argument of the program.

  Raises:
    UserError: the text has a form that is not known here.
  """
  return _Counter(_parse(text), mesh, trips).cost


class _Counter:
  """Walks through a program from its entry, and adds up its cost."""

  def __init__(
    self, program: tuple[dict[str, dict[str, Instruction]], str], mesh: dict[str, int], trips: int
  ):
    self._computations, entry = program
    self._mesh, self._trips = mesh, trips
    self._devices = math.prod(mesh.values())
    self.cost = Cost()
    self._walk(entry, 1, self.cost)

  def _walk(self, name, times, cost):
    """Adds the cost of `times` runs of a computation."""
    body = self._computations[name]
    for x in body.values():
      kind = x.opcode.removesuffix('-start')
      if x.opcode == 'while':
        self._walk(x.attribute('body'), times * self._turns(x, body), cost)
      elif x.opcode == 'conditional':
        self._branch(x, times, cost)
      elif x.opcode == 'fusion' and 'all-reduce-scatter' in x.attribute('calls'):
        inside = self._computations[x.attribute('calls')]
        one = next(i for i in inside.values() if i.opcode.startswith('all-reduce'))
        self._collective(one, 'reduce-scatter', inside, times, cost)
      elif x.opcode in ('fusion', 'call', 'async-start'):
        self._walk(x.attribute('calls') or x.attribute('to_apply'), times, cost)
      elif x.opcode == 'convolution':
        cost.flops += times * _convolution(x, *(_shape(body, name) for name in x.operands))
      elif x.opcode == 'dot':
        summed = [int(i) for i in _numbers(x.attribute('lhs_contracting_dims'))]
        lhs = _shape(body, x.operands[0])
        cost.flops += times * 2 * math.prod(x.shapes[0][1]) * math.prod(lhs[i] for i in summed)
      elif kind in COLLECTIVES:
        self._collective(x, kind, body, times, cost)
      elif x.opcode == 'send' and 'xla_megascale_runtime' in x.attributes:
        cost.counts['dcn', 'send'] += times
        cost.bytes['dcn', 'send'] += times * sum(map(_bytes, body[x.operands[0]].shapes))
      elif x.opcode == 'custom-call' and 'custom_call_target="tpu_custom_call"' in x.attributes:
        operands = tuple(shape for name in x.operands for shape in body[name].shapes)
        cost.kernels.append(Kernel(re.sub(r'[.\d]+$', '', x.name), times, operands))

  def _branch(self, x, times, cost):
    """Adds the cost of the branch of a conditional that has the most operations."""
    names = x.attribute('branch_computations')
    if names is None:
      names = f'{x.attribute("true_computation")},{x.attribute("false_computation")}'
    costs = []
    for name in re.findall(r'[\w.-]+', names):
      costs.append(Cost())
      self._walk(name, times, costs[-1])

    def operations(cost):
      return cost.flops, sum(k.count for k in cost.kernels), sum(cost.bytes.values())

    most = max(costs, key=operations)
    cost.flops += most.flops
    cost.kernels += most.kernels
    cost.counts.update(most.counts)
    cost.bytes.update(most.bytes)

  def _turns(self, x, body):
    """Returns the number of iterations of a loop.

    Its counter goes by a constant step from one constant to another, or to an argument of the
    program.
    """
    if known := re.search(r'"known_trip_count":\{"n":"(\d+)"\}', x.attributes):
      return int(known[1])
    condition = self._computations[x.attribute('condition')]
    root = _root(condition)
    counter, bound = root.operands[0], root.operands[-1]
    if root.opcode == 'fusion':  # it contains only the comparison
      inside = self._computations[root.attribute('calls')]
      root, given = _root(inside), root.operands
      counter, bound = (given[int(inside[name].arguments)] for name in root.operands)
    if root.opcode != 'compare' or root.attribute('direction') != 'LT':
      raise UserError(
        field=f'condition of the HLO loop {x.name}',
        value=root.opcode,
        allowed='whether one number is below another',
      )
    if condition[bound].opcode != 'constant':
      return self._trips
    place = None  # of the counter in the tuple that the loop carries
    if condition[counter].opcode == 'get-tuple-element':
      place = int(condition[counter].attribute('index'))
    first = self._part(body, body[x.operands[0]], place)
    inside = self._computations[x.attribute('body')]
    last = self._part(inside, _root(inside), place)
    added = [inside[name] for name in last.operands]
    if last.opcode == 'fusion':  # it contains only the addition
      computation = self._computations[last.attribute('calls')]
      last, given = _root(computation), added
      terms = [computation[name] for name in last.operands]
      added = [given[int(i.arguments)] if i.opcode == 'parameter' else i for i in terms]
    steps = [int(i.arguments) for i in added if i.opcode == 'constant']
    if first.opcode != 'constant' or last.opcode != 'add' or len(steps) != 1:
      raise UserError(
        field=f'counter of the HLO loop {x.name}',
        value=f'from {first.opcode} {first.name} by {last.opcode} {last.name}',
        allowed='from a constant by a constant',
      )
    distance = int(condition[bound].arguments) - int(first.arguments)
    return -(-distance // steps[0])

  def _part(self, computation, x, place):
    """Returns the instruction behind part `place` of a tuple, or behind the copy `x`."""
    if x.opcode == 'tuple':
      x = computation[x.operands[place]]
    while x.opcode in ('copy', 'bitcast'):
      x = computation[x.operands[0]]
    return x

  def _collective(self, x, kind, body, times, cost):
    """Adds the cost of a collective."""
    if _CONTINUED.search(x.attributes):
      return
    operands = x.operands[:1] if kind == 'collective-permute' else x.operands
    size = sum(_bytes(shape) for name in operands for shape in body[name].shapes)
    if kind == 'collective-permute':
      found = re.search(r'source_target_pairs=(\{\{.*?\}\})', x.attributes)[1]
      pairs = np.array(_numbers(found)).reshape(-1, 2)
      moved = pairs[pairs[:, 0] != pairs[:, 1]]
      axes, sent = self._axes(moved), size * len(moved) / self._devices
    else:
      groups = _groups(x.attributes, self._devices)
      axes, n = self._axes(groups), groups.shape[1]
      times_sent = {
        'all-gather': n - 1,
        'all-reduce': 2 * (n - 1) / n,
        'reduce-scatter': (n - 1) / n,
        'all-to-all': (n - 1) / n,
      }
      sent = size * times_sent[kind]
    if axes:
      cost.counts[axes, kind] += times
      cost.bytes[axes, kind] += times * sent

  def _axes(self, groups: np.ndarray) -> str:
    """Returns the mesh axes along which devices of the same group differ, joined by +."""
    places = np.stack(np.unravel_index(groups, tuple(self._mesh.values())))
    varies = (places != places[:, :, :1]).any((1, 2))
    return '+'.join(axis for axis, differs in zip(self._mesh, varies, strict=True) if differs)


def _root(computation: dict[str, Instruction]) -> Instruction:
  """Returns the instruction that gives the result of a computation."""
  return next(x for x in computation.values() if x.root)


def _groups(attributes: str, devices: int) -> np.ndarray:
  """Returns the devices of each group, [groups, devices of one].

  XLA writes them in several forms:

  `{{0,1},{2,3}}`             the groups
  `[2,2]<=[2,2]T(1,0)`        0, 1, 2, ... reshaped, transposed, reshaped
  `mesh['a'=2,'b'=2] {'b'}`   the groups along the axes in braces of a mesh of 0, 1, 2, ..., or of
                              `device_ids=([2,2]T(1,0))`
  `{}`                        one group of all devices
  """
  text = attributes.partition('replica_groups=')[2]
  if found := re.match(r"mesh\[([^\]]*)\](?:, device_ids=\((\S+)\))? \{([\w',]+)\}", text):
    axes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", found[1])}
    along = re.findall(r"'(\w+)'", found[3])
    ids = _iota(found[2] or f'[{math.prod(axes.values())}]').reshape(tuple(axes.values()))
    places = [list(axes).index(name) for name in along]
    moved = np.moveaxis(ids, places, range(-len(along), 0))
    return moved.reshape(-1, math.prod(axes[name] for name in along))
  if found := re.match(r'\[([\d,]+)\]<=(\[[\d,]+\]\S*?)(?:, |$)', text):
    return _iota(found[2]).reshape(_numbers(found[1]))
  if found := re.match(r'\{\{[\d,{}]+\}\}', text):
    groups = re.findall(r'[\d,]+', found[0].replace('},{', ' '))
    return np.array([_numbers(group) for group in groups])
  if text.startswith('{}'):
    return np.arange(devices)[None]
  allowed = '{{0,1},{2,3}}, [2,2]<=[4], mesh[...] {...} or {}'
  raise UserError(field='replica_groups of an HLO instruction', value=text, allowed=allowed)


def _iota(text: str) -> np.ndarray:
  """Returns 0, 1, 2, ... in the shape and order of a text such as `[4,2]T(1,0)`."""
  shape, _, order = text.partition('T')
  ids = np.arange(math.prod(_numbers(shape))).reshape(_numbers(shape))
  return ids.transpose(_numbers(order)) if order else ids


def _numbers(text: str) -> list[int]:
  return [int(n) for n in re.findall(r'\d+', text)]


def _shape(body, name) -> tuple[int, ...]:
  return body[name].shapes[0][1]


def _bytes(shape) -> int:
  kind, dimensions = shape
  bits = BITS.get(kind) or int(re.match(r'[a-z]+(\d+)', kind)[1])
  return math.prod(dimensions) * bits // 8


def _convolution(x: Instruction, lhs: Sequence[int], rhs: Sequence[int]) -> float:
  """Returns the operations of a convolution, into which TPUs turn matrix products.

  Products with padding are not counted, since they are not computed.
  """
  left, right, out = re.match(r'(\w+)_(\w+)->(\w+)', x.attribute('dim_labels')).groups()
  window = dict(re.findall(r'(\w+)=([\dx_-]+)', x.attribute('window') or ''))
  result, pairs = x.shapes[0][1], 1
  for i, axis in enumerate(sorted(set(left) - {'b', 'f'})):

    def setting(name, default, i=i):
      return int(window[name].split('x')[i].split('_')[0]) if name in window else default

    pairs *= _valid(
      size=lhs[left.index(axis)],
      result=result[out.index(axis)],
      kernel=rhs[right.index(axis)],
      stride=setting('stride', 1),
      pad=setting('pad', 0),
      spread=setting('lhs_dilate', 1),
      apart=setting('rhs_dilate', 1),
    )
  return 2.0 * result[out.index('b')] * result[out.index('f')] * rhs[right.index('i')] * pairs


@functools.cache
def _valid(size, result, kernel, stride, pad, spread, apart) -> int:
  """Returns the pairs of output and kernel positions that meet an input, not padding."""
  position = np.arange(result)[:, None] * stride + np.arange(kernel) * apart - pad
  is_input = (position >= 0) & (position % spread == 0) & (position // spread < size)
  return int(is_input.sum())


def _parse(text: str) -> tuple[dict[str, dict[str, Instruction]], str]:
  """Returns {computation: {name: instruction}}, and the name of the entry computation."""
  text = re.sub(r'/\*.*?\*/', '', text)
  computations: dict[str, dict[str, Instruction]] = {}
  entry, body = None, None
  for line in text.splitlines():
    if head := _HEAD.match(line):
      body = computations.setdefault(head[1], {})
      entry = head[1] if line.startswith('ENTRY') else entry
    elif body is not None and (found := _LINE.match(line)):
      x = _instruction(found[2], found[3], bool(found[1]))
      body[x.name] = x
  if entry is None:
    raise UserError(field='ENTRY computation of the HLO')
  return computations, entry


def _instruction(name: str, text: str, root: bool) -> Instruction:
  """Returns the instruction that a line describes."""
  end = _close(text, 0) if text.startswith('(') else text.index(' ')
  shapes = tuple((kind, tuple(_numbers(sizes))) for kind, sizes in _ARRAY.findall(text[:end]))
  opcode = re.match(r' ([\w-]+)\(', text[end:])
  start = end + opcode.end() - 1
  stop = _close(text, start)
  arguments = text[start + 1 : stop - 1]
  return Instruction(
    name=name,
    shapes=shapes,
    opcode=opcode[1],
    operands=tuple(re.findall(r'%([\w.-]+)', arguments)),
    arguments=arguments,
    attributes=text[stop:],
    root=root,
  )


def _close(text: str, start: int) -> int:
  """Returns the place after the parenthesis that closes the one at `start`."""
  depth = 0
  for found in re.finditer(r'[()]', text[start:]):
    depth += 1 if found[0] == '(' else -1
    if not depth:
      return start + found.end()
  raise UserError(field='HLO instruction', value=text, allowed='parentheses that are closed')
