"""Meshes of eight devices against one device; what does not fit is named."""

import functools

import flax.linen as nn
import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec
from ml_collections import ConfigDict, FrozenConfigDict

from configs import base
from lm import stages
from lm.base.errors import UserError
from lm.model import transformer
from lm.model.cache import init_cache
from lm.parallel import sharding
from lm.train import optimizers, program, train_step
from lm.weights.pretrained import abstract_params

ROWS, LENGTH, VOCAB = 8, 16, 24
QUICK = {'xla_backend_optimization_level': 0}  # seven programs to compile, each run twice
FIELDS = {
  'vocab_size': VOCAB,
  'num_layers': 2,
  'embed_dim': 16,
  'num_heads': 4,
  'num_kv_heads': 2,
  'head_dim': 4,
  'mlp_dim': 24,
  'max_len': LENGTH,
  'attention_bias': 'all',
  'qk_norm': 'head',
  'tie_embeddings': False,
  'init_std': 0.3,
}


def mesh_of(devices=None, **axes):
  return sharding.make_mesh(ConfigDict(dict.fromkeys(sharding.AXES, 1) | axes), devices)


def model_config(**fields):
  return FrozenConfigDict(base.get_config().model.to_dict() | FIELDS | fields)


def batch(stage):
  rng = np.random.default_rng(0)
  tokens = rng.integers(VOCAB, size=(1, ROWS, LENGTH + 1), dtype=np.int32)
  shape = 1, ROWS, LENGTH
  # documents that cross every border
  segments = np.broadcast_to(np.arange(LENGTH) // 6 + 1, shape).astype(np.int32)
  positions = np.broadcast_to(np.arange(LENGTH) % 6, shape).astype(np.int32)
  floats = {
    name: rng.normal(size=shape).astype(np.float32)
    for name in ('advantages', 'old_log_probs', 'reference_log_probs')
  }
  return {
    'inputs': tokens[..., :-1],
    'targets': tokens[..., 1:],
    'positions': positions,
    'segment_ids': segments,
    'weights': rng.choice([0, 1], size=shape).astype(np.float32),
    **{name: x if name == 'advantages' else -3 + 0.1 * x for name, x in floats.items()},
  }


@functools.cache
def train(name, stage='pretrain', experts=0, attention='reference', **axes):
  """State and metrics after two updates, as train.py makes them; the parameters start from the same
  NumPy arrays.
  """
  mesh = mesh_of(jax.devices()[:1] if not axes else None, **axes)
  model_fields = {'num_experts': experts} if experts else {'mlp_blocks': 3 if axes else 1}
  config, settings = model_config(attention=attention, **model_fields), base.get_config()
  settings.update(stage=stage, batch_size=ROWS, seq_len=LENGTH)
  settings.optim.update(name=name, schedule='constant', warmup=0, lr=0.01, eps=1e-3)
  settings.loss.vocab_blocks = 3 if axes else 0
  settings.rl.kl = 0.1
  # optax raises b1 to the power of an integer
  with jax.set_mesh(mesh), jax.numpy_dtype_promotion('standard'):
    prog = program.make(settings, stages.make(settings), config, mesh)
    state = prog.start(
      jax.device_put(start(experts), jax.tree.map(lambda x: x.sharding, prog.state['params']))
    )
    data = {name: x for name, x in batch(stage).items() if name in prog.batch}
    step = prog.step.lower(state, sharding.put_batch(data, prog.stage.batch_axes, mesh), 1).compile(
      QUICK
    )
    for _ in range(2):
      state, metrics = step(state, sharding.put_batch(data, prog.stage.batch_axes, mesh), 1)
  # What comes out lies as what went in: nothing is compiled again.
  jax.tree.map(
    lambda x, s: (
      x.sharding.is_equivalent_to(s.sharding, x.ndim) or pytest.fail(f'{x.sharding} {s}')
    ),
    state,
    prog.state,
  )
  return state, metrics


@functools.cache
def start(experts):
  config = model_config(num_experts=experts)
  return jax.tree.map(
    np.asarray, jax.jit(functools.partial(transformer.init_params, config))(jax.random.key(0))
  )


EIGHT = [{'fsdp': 8}, {'context': 8}, {'data': 4, 'tensor': 2}]
SLOW = [
  {'dcn': 2, 'fsdp': 2, 'tensor': 2},
  {'fsdp': 2, 'context': 2, 'tensor': 2},
  {'dcn': 2, 'data': 2, 'context': 2},
]
ROUTED = [{'fsdp': 2, 'expert': 4}]
SLOW_ROUTED = [{'data': 2, 'expert': 2, 'context': 2}, {'fsdp': 2, 'expert': 2, 'tensor': 2}]


def case(name, stage, experts, axes, slow):
  words = (
    name,
    stage,
    'routed' if experts else 'dense',
    *(f'{axis}{size}' for axis, size in axes.items()),
  )
  return pytest.param(
    name, stage, experts, axes, id=' '.join(words), marks=[pytest.mark.slow] if slow else []
  )


@pytest.mark.slow
@pytest.mark.parametrize(
  'name, stage, experts, axes',
  [
    *(
      case('adamw', 'pretrain', 0, axes, slow)
      for slow, many in ((False, EIGHT), (True, SLOW))
      for axes in many
    ),
    *(
      case('adamw', 'pretrain', 4, axes, slow)
      for slow, many in ((False, ROUTED), (True, SLOW_ROUTED))
      for axes in many
    ),
    case('adamw', 'pretrain', 0, {'fsdp': 2, 'context': 2, 'tensor': 2, 'attention': 'ring'}, True),
    *(
      case('adamw', stage, 0, {'fsdp': 2, 'context': 2, 'tensor': 2}, True)
      for stage in ('sft', 'rl')
    ),
    *(
      case('adamw', stage, 4, {'fsdp': 2, 'expert': 2, 'tensor': 2}, True)
      for stage in ('sft', 'rl')
    ),
    case('muon', 'pretrain', 0, {'data': 2, 'fsdp': 2, 'tensor': 2}, True),
  ],
)
def test_a_mesh_trains_as_one_device(name, stage, experts, axes):
  expected, one = train(name, stage, experts)
  state, metrics = train(name, stage, experts, **axes)
  for metric in ('train/loss', 'opt/grad_norm'):
    assert float(metrics[metric]) == pytest.approx(float(one[metric]), rel=1e-5)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), state['params'], expected['params']
  )
  ways = axes.get('fsdp', 1) * axes.get('tensor', 1)
  down, head = state['params']['layers']['mlp']['down']['kernel'], state['params']['head']
  # it is spread, not only equal
  for x, split in ((down, ways * axes.get('expert', 1)), (head, ways)):
    assert x.addressable_shards[0].data.size == x.size // split
  moments = [x for x in jax.tree.leaves(state['opt_state']) if x.shape == down.shape]
  assert len(moments) == (2 if name == 'adamw' else 1)
  for x in moments:
    assert x.sharding.is_equivalent_to(down.sharding, x.ndim)


def test_moments_lie_as_their_parameter_and_counters_everywhere():
  mesh = mesh_of(data=2, fsdp=2, tensor=2)
  shapes, axes = abstract_params(model_config(), mesh)
  tx, _ = optimizers.make(base.get_config().optim, 1000, axes)
  with jax.numpy_dtype_promotion('standard'):
    state = sharding.abstract_state(functools.partial(train_step.init_state, tx=tx), shapes, mesh)
  adam = next(
    s
    for s in jax.tree.leaves(state['opt_state'], is_leaf=lambda x: hasattr(x, 'mu'))
    if hasattr(s, 'mu')
  )
  for moments in (adam.mu, adam.nu):
    assert jax.tree.map(lambda x: x.sharding, moments) == jax.tree.map(lambda x: x.sharding, shapes)
  assert adam.count.sharding.spec == state['step'].sharding.spec == PartitionSpec()
  # Written by hand: embed over fsdp; heads, feed-forward and vocabulary over tensor; layers and
  # head_dim whole.
  by_hand = {
    'q': (None, 'fsdp', 'tensor', None),
    'k': (None, 'fsdp', 'tensor', None),
    'o': (None, 'tensor', None, 'fsdp'),
  }
  for name, axes in by_hand.items():
    assert state['params']['layers']['attention'][name]['kernel'].sharding.spec == PartitionSpec(
      *axes
    )
  assert state['params']['layers']['mlp']['down']['kernel'].sharding.spec == PartitionSpec(
    None, 'tensor', 'fsdp'
  )
  assert state['params']['embedding'].sharding.spec == PartitionSpec('tensor', 'fsdp')


@pytest.mark.parametrize('fields, mesh, axis, allowed', [
  ({'num_kv_heads': 1}, {'data': 4, 'tensor': 2}, 'tensor',
   "a divisor of 1, the size of axis 'kv_heads' of parameter layers/attention/k/bias"),
  ({'embed_dim': 12}, {'fsdp': 8}, 'fsdp', "a divisor of 12, the size of axis 'embed'"),
  ({'num_experts': 4}, {'expert': 8}, 'expert', "a divisor of 4, the size of axis 'expert'"),
  ({'vocab_size': 25}, {'data': 4, 'tensor': 2}, 'tensor',
   "a divisor of 25, the size of axis 'vocab' of parameter embedding"),
])  # fmt: skip
def test_an_axis_that_does_not_divide_is_named(fields, mesh, axis, allowed):
  with pytest.raises(UserError) as raised:
    abstract_params(model_config(**fields), mesh_of(**mesh))
  assert (raised.value.field, raised.value.value) == (f'config.mesh.{axis}', mesh[axis])
  assert raised.value.allowed.startswith(allowed)


def test_a_large_parameter_that_would_be_whole_on_every_device_is_named():
  with pytest.raises(UserError) as raised:
    abstract_params(model_config(position='learned', max_len=256), mesh_of(data=4, tensor=2))
  assert (raised.value.field, raised.value.value) == ('config.mesh', {'tensor': 2})
  assert "('positions', 'embed')" in raised.value.allowed


def test_the_rest_of_the_devices():
  ones = dict.fromkeys(sharding.AXES, 1)
  assert dict(mesh_of(data=-1, tensor=2).shape) == ones | {'data': 4, 'tensor': 2}
  assert dict(mesh_of(fsdp=-1).shape) == ones | {'fsdp': 8}


@pytest.mark.parametrize('sizes, allowed', [
  ({'data': 3}, 'sizes whose product is the number of devices, 8'),
  ({'data': -1, 'tensor': 3}, 'sizes whose product is the number of devices, 8'),
  ({'data': -1, 'fsdp': -1}, 'sizes of at least 1, and -1 for one of them'),
  ({'fsdp': 0}, 'sizes of at least 1, and -1 for one of them'),
])  # fmt: skip
def test_a_mesh_that_does_not_fit_is_refused(sizes, allowed):
  with pytest.raises(UserError) as raised:
    mesh_of(**sizes)
  error = raised.value
  assert (error.field, error.allowed) == ('config.mesh', allowed)
  assert {axis: error.value[axis] for axis in sizes} == sizes


def test_rows_must_split_over_the_mesh():
  mesh = mesh_of(data=2, fsdp=2, tensor=2)
  sharding.check_rows(mesh, {'batch_size': 8})
  with pytest.raises(UserError) as raised:
    sharding.check_rows(mesh, {'batch_size': 8, 'eval.batch_size': 6})
  assert (raised.value.field, raised.value.value) == ('config.eval.batch_size', 6)
  assert raised.value.allowed.startswith('a multiple of 4')


def test_batches_are_split_by_rows():
  x = np.arange(2 * 8 * 3).reshape(2, 8, 3)
  axes = {'x': ('batch', 'length'), 'row': ('batch',), 'reward': ('batch',)}
  mesh = mesh_of(data=2, fsdp=2, tensor=2)
  batch = {'x': x, 'row': np.arange(8), 'reward': np.zeros((3, 8), np.float32)}
  put = sharding.put_batch(batch, axes, mesh)
  # one value a row of each of three microbatches: only the rows are split
  assert put['reward'].addressable_shards[0].data.shape == (3, 2)
  np.testing.assert_array_equal(put['x'], x)
  assert put['x'].addressable_shards[0].data.shape == (2, 2, 3) and put['row'].addressable_shards[
    0
  ].data.shape == (2,)


def test_every_axis_of_every_parameter_has_a_rule():
  for fields in (
    {},
    {'position': 'learned', 'norm': 'layernorm', 'activation': 'gelu', 'mlp_bias': True},
  ):
    config = model_config(**fields)
    boxed = jax.eval_shape(lambda config=config: transformer.init(config, jax.random.key(0)))
    names = jax.tree.leaves(sharding.axis_names(boxed), is_leaf=lambda x: isinstance(x, tuple))
    shapes = jax.tree.leaves(nn.unbox(boxed))
    for axes, x in zip(names, shapes, strict=True):
      assert len(axes) == x.ndim and set(axes) <= set(sharding.RULES)


@functools.cache
def reading(experts, rows=3, length=7):
  """A compiled reader of whole rows, and of rows of unequal length into a cache; what it reads; the
  results on one device.
  """
  config = model_config(num_experts=experts)
  tokens = np.random.default_rng(0).integers(config.vocab_size, size=(rows, length), dtype=np.int32)

  @jax.jit
  def read(params, tokens):
    whole, _ = transformer.Transformer(config).apply({'params': params}, tokens)
    empty, num_B = init_cache(config, rows, 16), np.arange(rows, dtype=np.int32) + 5
    cached, cache = transformer.Transformer(config).apply(
      {'params': params}, tokens, cache=empty, num_tokens_B=num_B
    )
    return whole, cached, cache.layers['k']

  return read, tokens, jax.device_get(read(start(experts), tokens))


@pytest.mark.slow
@pytest.mark.parametrize(
  'experts, axes',
  [
    (4, {'data': 8}),
    (4, {'fsdp': 2, 'expert': 4}),
    (4, {'expert': 2, 'context': 2, 'tensor': 2}),
    (0, {'fsdp': 2, 'context': 2, 'tensor': 2}),
  ],
  ids=str,
)
def test_rows_that_a_mesh_does_not_divide_are_read_as_by_one_device(experts, axes):
  read, tokens, expected = reading(experts)
  mesh = mesh_of(**axes)
  shapes, _ = abstract_params(model_config(num_experts=experts), mesh)
  with jax.set_mesh(mesh):
    got = read(jax.device_put(start(experts), jax.tree.map(lambda x: x.sharding, shapes)), tokens)
  for a, b in zip(got, expected, strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
