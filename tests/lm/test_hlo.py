"""Counting what a compiled program does: texts written by hand, and a program whose counts are
known.
"""

import functools
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec
from refusals import refused

from lm.cost import hlo

MESH = {'data': 2, 'fsdp': 4}

LOOP = """HloModule jit_step, is_scheduled=true

%body (p: (s32[], bf16[8,16], f32[16])) -> (s32[], bf16[8,16], f32[16]) {
  %p = (s32[]{:T(128)}, bf16[8,16]{1,0:T(8,128)(2,1)}, /*index=2*/f32[16]{0:T(128)S(1)}) parameter(0)
  %x = bf16[8,16]{1,0:T(8,128)(2,1)} get-tuple-element(%p), index=1
  %w = bf16[16,16]{1,0} fusion(%x), kind=kOutput, calls=%gathered
  %y = bf16[8,16]{1,0} convolution(%x, %w), dim_labels=bf_io->bf, metadata={op_name="a(b" stack_frame_id=1}
  %i = s32[]{:T(128)} get-tuple-element(%p), index=0
  %step = s32[]{:T(128)} constant(1)
  %next = s32[]{:T(128)} add(%i, %step)
  ROOT %t = (s32[]{:T(128)}, bf16[8,16]{1,0}, f32[16]{0}) tuple(%next, %y, %p)
}

%condition (p: (s32[], bf16[8,16], f32[16])) -> pred[] {
  %p = (s32[], bf16[8,16], f32[16]) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %n = s32[] BOUND
  ROOT %c = pred[] compare(%i, %n), direction=LT
}

%gathered (x: bf16[8,16]) -> bf16[16,16] {
  %x = bf16[8,16]{1,0} parameter(0)
  %g = bf16[16,16]{1,0} all-gather(%x), channel_id=3, replica_groups=GROUPS, dimensions={0}, use_global_device_ids=true
  ROOT %h = bf16[16,16]{1,0} all-gather(%x), replica_groups=GROUPS, backend_config={AGAIN}
}

ENTRY %main (x: bf16[8,16], w: f32[16]) -> bf16[8,16] {
  %x = bf16[8,16]{1,0} parameter(0)
  %w = f32[16]{0} parameter(1)
  %first = s32[] constant(2)
  %copy = s32[] copy(%first)
  %start = (s32[], bf16[8,16], f32[16]) tuple(%copy, %x, %w)
  %loop = (s32[], bf16[8,16]{1,0}, f32[16]{0}) while(%start), condition=%condition, body=%body
  ROOT %out = bf16[8,16]{1,0} get-tuple-element(%loop), index=1
}
"""


def text(bound='constant(7)', groups='[4,2]<=[2,4]T(1,0)'):
  again = '"async_collective_fusion_config":{"flag_start":"2","flag_end":"8"}'
  return LOOP.replace('BOUND', bound).replace('GROUPS', groups).replace('AGAIN', again)


def test_a_loop_counts_as_often_as_it_turns():
  cost = hlo.cost(text(), MESH)
  assert cost.flops == 5 * 2 * 8 * 16 * 16
  # the other goes on with it
  assert cost.collectives() == {'data': {'all-gather': {'count': 5, 'bytes': 5 * 8 * 16 * 2}}}
  assert hlo.cost(
    text().replace('%step = s32[]{:T(128)} constant(1)', '%step = s32[]{:T(128)} constant(2)'), MESH
  ).flops == (3 * 2 * 8 * 16 * 16)  # 2, 4, 6
  cost = hlo.cost(text('get-tuple-element(%p), index=0'), MESH, trips=3)
  assert cost.flops == 3 * 2 * 8 * 16 * 16


@pytest.mark.parametrize(
  'groups, axes, n',
  [
    ('{{0,4},{1,5},{2,6},{3,7}}', 'data', 2),
    ('{{0,1,2,3},{4,5,6,7}}', 'fsdp', 4),
    ('[2,4]<=[8]', 'fsdp', 4),
    ('[1,8]<=[8]', 'data+fsdp', 8),
    ('{}', 'data+fsdp', 8),
    ("mesh['a'=2,'b'=4] {'a'}", 'data', 2),
    ("mesh['a'=2,'b'=4] {'b'}", 'fsdp', 4),
    ("mesh['a'=1,'b'=8] {'a','b'}", 'data+fsdp', 8),
    ("mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)) {'a'}", 'fsdp', 4),
    ("mesh['a'=2,'b'=2,'c'=2] {'b'}", 'fsdp', 2),
  ],
)
def test_groups_are_told_by_the_axes_along_which_their_devices_differ(groups, axes, n):
  (found,), (kinds,) = zip(*hlo.cost(text(groups=groups), MESH).collectives().items(), strict=True)
  assert (found, kinds['all-gather']['bytes']) == (axes, 5 * 8 * 16 * 2 * (n - 1))


@pytest.mark.parametrize(
  'line, flops',
  [
    # The heads are a spatial axis that is reversed and padded: each meets its own part of the
    # weight.
    (
      '%y = bf16[4,32,2,8]{3,2,1,0} convolution(%a, %b), window={size=1x2 pad=0_0x1_1 '
      'rhs_reversal=0x1}, '
      'dim_labels=0bf1_i1o0->0b1f',
      2 * 4 * 32 * 2 * 8 * 16,
    ),
    # The sum is over a spatial axis of the window.
    (
      '%y = bf16[16,8,1]{1,0,2} convolution(%c, %d), window={size=4}, dim_labels=0fb_0io->bf0',
      2 * 16 * 8 * 4 * 32,
    ),
  ],
)
def test_matrix_products_that_are_convolutions(line, flops):
  program = f"""
ENTRY %main (a: bf16[4,32,16,1]) -> bf16[1] {{
  %a = bf16[4,32,16,1]{{3,2,1,0}} parameter(0)
  %b = bf16[16,2,8,1]{{3,2,1,0}} parameter(1)
  %c = bf16[4,32,16]{{2,1,0}} parameter(2)
  %d = bf16[4,32,8]{{2,1,0}} parameter(3)
  ROOT {line}
}}"""
  assert hlo.cost(program, MESH).flops == flops


def test_fused_scatters_permutations_conditionals_and_kernels():
  program = """
%all-reduce-scatter.1 (a: f32[64]) -> f32[16] {
  %a = f32[64]{0} parameter(0)
  %r = f32[64]{0} all-reduce(%a), channel_id=1, replica_groups=[2,4]<=[8], to_apply=%add
  ROOT %s = f32[16]{0} dynamic-slice(%r, %a), dynamic_slice_sizes={16}
}

%one (a: f32[8,8]) -> f32[8,8] {
  %a = f32[8,8]{1,0} parameter(0)
  ROOT %d = f32[8,8]{1,0} dot(%a, %a), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}

%two (a: f32[8,8]) -> f32[8,8] {
  %a = f32[8,8]{1,0} parameter(0)
  %d = f32[8,8]{1,0} call(%a), to_apply=%one
  ROOT %e = f32[8,8]{1,0} call(%d), to_apply=%one
}

ENTRY %main (a: f32[64], b: f32[8,8], i: s32[]) -> f32[8,8] {
  %a = f32[64]{0} parameter(0)
  %b = f32[8,8]{1,0} parameter(1)
  %i = s32[] parameter(2)
  %s = f32[16]{0} fusion(%a), kind=kCustom, calls=%all-reduce-scatter.1
  %p = (f32[8,8], f32[8,8], u32[]) collective-permute-start(%b), channel_id=2, source_target_pairs={{0,4},{1,5},{2,2}}
  %q = f32[8,8]{1,0} collective-permute-done(%p)
  %f = token[] after-all()
  %h = (f32[8,8], u32[], token[]) send(%b, %f), is_host_transfer=true, frontend_attributes={h="xla_megascale_runtime"}
  %k = (f32[8,8]{1,0}, f32[8]{0}) custom-call(%b, %a), custom_call_target="tpu_custom_call", frontend_attributes={x={
"y":"z"
}}
  ROOT %c = f32[8,8]{1,0} conditional(%i, %b, %b), branch_computations={%one, %two}
}"""
  cost = hlo.cost(program, MESH)
  assert cost.flops == 2 * 2 * 8**3
  assert cost.kernels == [hlo.Kernel('k', 1, (('f32', (8, 8)), ('f32', (64,))))]
  assert cost.collectives() == {
    'data': {'collective-permute': {'count': 1, 'bytes': 8 * 8 * 4 * 2 / 8}},
    'dcn': {'send': {'count': 1, 'bytes': 8 * 8 * 4}},
    'fsdp': {'reduce-scatter': {'count': 1, 'bytes': 64 * 4 * 3 / 4}},
  }


@pytest.mark.parametrize(
  'program, field, value',
  [
    (text(groups='[2,4]='), 'replica_groups of an HLO instruction', mock.ANY),
    (text('constant(7)').replace('LT', 'GT'), 'condition of the HLO loop loop', 'compare'),
    ('HloModule x', 'ENTRY computation of the HLO', None),
    (
      text().replace('%first = s32[] constant(2)', '%first = s32[] negate(%w)'),
      'counter of the HLO loop loop',
      'from negate first by add next',
    ),
    (
      text().replace('add(%i, %step)', 'multiply(%i, %step)'),
      'counter of the HLO loop loop',
      'from constant first by multiply next',
    ),
  ],
)
def test_what_is_not_understood_is_an_error(program, field, value):
  with refused(field, value):
    hlo.cost(program, MESH)


def test_a_program_of_eight_devices():
  mesh = Mesh(np.array(jax.devices()).reshape(2, 4), ('data', 'fsdp'))

  def local(x, w):  # on each device x [4, 32] and w [3, 8, 32]

    def layer(x, w):
      return jnp.tanh(x @ jax.lax.all_gather(w, 'fsdp', tiled=True)), None

    x, _ = jax.lax.scan(layer, x, w)
    x = jax.lax.ppermute(jax.lax.psum(x, 'data'), 'fsdp', [(i, (i + 1) % 4) for i in range(4)])
    return jax.lax.psum_scatter(x, 'fsdp', tiled=True)

  spec = functools.partial(PartitionSpec)
  run = jax.shard_map(
    local, mesh=mesh, in_specs=(spec(('data', 'fsdp')), spec(None, 'fsdp')), out_specs=spec('fsdp')
  )
  shapes = (
    jax.ShapeDtypeStruct((32, 32), jnp.float32),
    jax.ShapeDtypeStruct((3, 32, 32), jnp.float32),
  )
  cost = hlo.cost(jax.jit(run).lower(*shapes).compile().as_text(), MESH)
  assert cost.flops == 3 * 2 * 4 * 32 * 32
  x = 4 * 32 * 4
  assert cost.collectives() == {
    'data': {'all-reduce': {'count': 1, 'bytes': x}},
    'fsdp': {
      'all-gather': {'count': 3, 'bytes': 3 * 3 * 8 * 32 * 4},
      'collective-permute': {'count': 1, 'bytes': x},
      'reduce-scatter': {'count': 1, 'bytes': x * 3 / 4},
    },
  }
