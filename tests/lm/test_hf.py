"""Hugging Face folders against what transformers computed of them (golden/, by make_golden.py), and
back to the byte.
"""

import dataclasses
import functools
import json
import math
import pathlib
import shutil

import commands
import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
import tokenizers
import transformers
from ml_collections import ConfigDict, FrozenConfigDict
from refusals import refused

from configs import base
from lm.base.errors import UserError
from lm.infer import generation
from lm.infer.sampling import Sampling
from lm.model import heads, transformer
from lm.model.cache import init_cache
from lm.parallel import sharding
from lm.weights import (
  checkpoint,
  checkpoint_arrays,
  checkpoint_folders,
  families,
  hub_folder,
  hub_format,
  hub_params,
  pretrained,
)

GOLDEN = pathlib.Path(__file__).parent / 'golden'
FAMILIES = sorted(path.parent.name for path in GOLDEN.glob('*/model.safetensors'))
VOCAB = 101


def mesh_of(**sizes):
  devices = jax.devices()[: math.prod(sizes.values())]
  return sharding.make_mesh(ConfigDict(dict.fromkeys(sharding.AXES, 1) | sizes), devices)


def execution(**fields):
  config = base.get_config().model
  config.update(fields)
  return config


def load(path, mesh=None, **fields):
  return pretrained.load(path, execution(**fields), execution(), mesh or mesh_of())


@functools.cache
def golden(name):
  return dict(np.load(GOLDEN / name / 'expected.npz'))


@functools.partial(jax.jit, static_argnums=0)
def forward(config, params, tokens_BT, positions_BT, segment_ids_BT):
  hidden, _ = transformer.Transformer(config).apply(
    {'params': params}, tokens_BT, positions_BT=positions_BT, segment_ids_BT=segment_ids_BT
  )
  return heads.unembed(params, config, hidden)


@functools.partial(jax.jit, static_argnums=0)
def append(config, params, tokens_BT, cache, num_B):
  hidden, cache = transformer.Transformer(config).apply(
    {'params': params}, tokens_BT, cache=cache, num_tokens_B=num_B
  )
  return heads.unembed(params, config, hidden), cache


def logits(loaded, name):
  """Of the real tokens: the first row with padding behind it, the others packed into one."""
  expected = golden(name)
  T, (first, *others) = expected['tokens'].shape[1] + 4, expected['lengths']
  tokens, positions, segments = np.zeros((3, 2, T), np.int32)
  tokens[0, :first], positions[0], segments[0, :first] = (
    expected['tokens'][0, :first],
    np.arange(T),
    1,
  )
  tokens[1, : sum(others)] = np.concatenate(
    [row[:n] for row, n in zip(expected['tokens'][1:], others, strict=True)]
  )
  positions[1, : sum(others)] = np.concatenate([np.arange(n) for n in others])
  segments[1, : sum(others)] = np.repeat([1, 2], others)
  out = forward(loaded.config, loaded.params, tokens, positions, segments)
  return np.asarray(out)[segments > 0]


# together they have whatever changes how a cache is read
QUICK = ('gpt2', 'llama3', 'gemma3', 'mixtral')


@pytest.mark.slow
@pytest.mark.parametrize(
  'name, scan', [*((name, True) for name in FAMILIES), *((name, False) for name in QUICK)]
)
def test_logits_are_those_of_transformers(name, scan):
  loaded = load(GOLDEN / name, scan_layers=scan)
  np.testing.assert_allclose(logits(loaded, name), golden(name)['logits'], rtol=0, atol=1e-4)


@pytest.mark.parametrize(
  'name',
  [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES if name not in QUICK)],
)
def test_cached_decoding_is_that_of_transformers(name):
  expected, loaded = golden(name), load(GOLDEN / name, scan_layers=False)
  tokens, lengths = expected['tokens'], expected['lengths']
  cache, read, rows = (
    init_cache(loaded.config, len(tokens), 64),
    np.zeros(len(tokens), int),
    [[] for _ in tokens],
  )
  while (read < lengths).any():  # chunks of a size that divides nothing, rows of unequal length
    chunk = np.zeros((len(tokens), 7), np.int32)
    num = np.minimum(lengths - read, [7, 5, 2]).clip(0).astype(np.int32)
    for row, start, n, part in zip(tokens, read, num, chunk, strict=True):
      part[:n] = row[start : start + n]
    out, cache = append(loaded.config, loaded.params, chunk, cache, num)
    for done, part, n in zip(rows, np.asarray(out), num, strict=True):
      done.append(part[:n])
    read += num
  found = np.concatenate([part for row in rows for part in row])
  np.testing.assert_allclose(found, expected['logits'], rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize('name', QUICK)
def test_greedy_continuations_are_those_of_transformers(name):
  expected, loaded = golden(name), load(GOLDEN / name, scan_layers=False)
  prompt = expected['tokens'][-1, : expected['lengths'][-1]].tolist()
  [completion] = generation.generate(
    loaded.config,
    loaded.params,
    [prompt],
    key=jax.random.key(0),
    sampling=Sampling(0),
    max_new_tokens=len(expected['continuation']),
    stop_ids=[],
    capacity=64,
  )
  assert completion.tokens == expected['continuation'].tolist()


@pytest.mark.slow
@pytest.mark.parametrize('name, field, value', [
  ('llama3', 'rope_scaling', 'none'), ('llama3', 'rope_theta', 10_000.0), ('smollm2', 'rope_scaling', 'none'),
  ('smollm3', 'layer_types', ('full',)), ('mistral', 'layer_types', ('full',)), ('mistral', 'window', 8),
  ('qwen2', 'layer_types', ('full',)), ('gemma2', 'attention_scale', 0.0), ('gemma2', 'attention_softcap', 0.0),
  ('gemma2', 'logit_softcap', 0.0), ('gemma2', 'scale_embeddings', False), ('gemma2', 'norm_offset', False),
  ('gemma3', 'rope_theta_window', 0.0), ('gemma3', 'rope_factor', 1.0), ('qwen3_moe', 'normalize_experts', True),
  ('qwen3_moe', 'experts_per_token', 2), ('mixtral', 'normalize_experts', False), ('gpt2', 'activation', 'relu2'),
])  # fmt: skip
def test_the_golden_models_tell_fields_apart(name, field, value):
  loaded = load(GOLDEN / name, scan_layers=True)
  wrong = dataclasses.replace(
    loaded, config=FrozenConfigDict(loaded.config.to_dict() | {field: value})
  )
  assert np.abs(logits(wrong, name) - golden(name)['logits']).max() > 1e-2


# ---- Folders with a tokenizer, and changes of them -----------------------------------------------


def copy(name, to, change=None, dtype=None, **fields):
  """A golden folder with a tokenizer; `change` edits its tensors, `fields` its config.json."""
  shutil.copytree(GOLDEN / name, to, ignore=shutil.ignore_patterns('expected.npz'))
  (to / 'tokenizer.json').write_text(tokenizer().to_str())
  (to / 'tokenizer_config.json').write_text(
    '{"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<e>"}'
  )
  (to / 'chat_template.jinja').write_text('{{ messages }}')
  config = json.loads((to / 'config.json').read_text()) | fields
  (to / 'config.json').write_text(json.dumps(config))
  tensors = safetensors.numpy.load_file(to / 'model.safetensors')
  if dtype:
    tensors = {key: value.astype(dtype) for key, value in tensors.items()}
  if change:
    tensors = change(tensors)
  safetensors.numpy.save_file(tensors, to / 'model.safetensors', {'format': 'pt'})
  return to


def tokenizer():
  vocab = {'<e>': 0} | {chr(33 + i): i for i in range(1, VOCAB)}
  made = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocab, unk_token='<e>'))
  made.pre_tokenizer = tokenizers.pre_tokenizers.Split('', 'isolated')
  made.add_special_tokens(['<e>'])
  return made


def import_(source, to, **options):
  return hub_format.import_model(
    hub_folder.open_folder(source), to, execution(), lambda folder: 'fingerprint', **options
  )


def shard(folder):
  """Splits the weights of a folder into three files with an index."""
  tensors = safetensors.numpy.load_file(folder / 'model.safetensors')
  (folder / 'model.safetensors').unlink()
  names = sorted(tensors)
  where = {name: f'model-0000{1 + i % 3}-of-00003.safetensors' for i, name in enumerate(names)}
  for file in set(where.values()):
    safetensors.numpy.save_file(
      {name: tensors[name] for name in names if where[name] == file}, folder / file
    )
  (folder / 'model.safetensors.index.json').write_text(
    json.dumps({'metadata': {}, 'weight_map': where})
  )
  return folder


# ---- There and back ------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize('name', FAMILIES)
def test_the_round_trip_gives_the_same_bytes(name, tmp_path):
  source = copy(name, tmp_path / 'source')
  import_(source, tmp_path / 'run')
  hub_format.export_model(
    tmp_path / 'run', tmp_path / 'out', execution(), vocab_size=VOCAB, tokens={'eos_token_id': 5}
  )
  assert sorted(p.name for p in (tmp_path / 'out').iterdir()) == sorted(
    p.name for p in source.iterdir()
  )
  for path in source.iterdir():
    if path.name == 'config.json':
      assert json.loads((tmp_path / 'out' / path.name).read_text()) == json.loads(path.read_text())
    else:
      assert (tmp_path / 'out' / path.name).read_bytes() == path.read_bytes(), path.name
  loaded, direct = load(tmp_path / 'run'), load(source)
  assert loaded.config.to_dict() == direct.config.to_dict()
  jax.tree.map(np.testing.assert_array_equal, loaded.params, direct.params)


def test_an_imported_run_says_where_it_comes_from(tmp_path):
  source = copy('llama3', tmp_path / 'source')
  import_(source, tmp_path / 'run')
  provenance = checkpoint_folders.provenance(tmp_path / 'run')
  assert provenance['source']['path'] == str(source)
  assert provenance['source']['files'].keys() == {'config.json', 'model.safetensors'}
  assert provenance['hf_config'] == json.loads((source / 'config.json').read_text())
  assert (
    provenance['tokenizer'] == 'fingerprint'
    and provenance['config']['model']['rope_scaling'] == 'llama3'
  )
  loaded = load(tmp_path / 'run')
  loaded.check_tokenizer('fingerprint')
  with refused('tokenizer', 'another'):
    loaded.check_tokenizer('another')
  assert loaded.tokenizer == str(tmp_path / 'run' / 'tokenizer')
  direct = load(source)
  assert direct.tokenizer == str(source)
  direct.check_tokenizer('whatever is there')


@pytest.mark.slow
def test_weights_keep_their_type_and_are_cast_for_a_run(tmp_path):
  source = copy('qwen3', tmp_path / 'source', dtype=ml_dtypes.bfloat16)
  config = import_(source, tmp_path / 'run')
  assert config.param_dtype == 'bfloat16'
  assert {x.dtype for x in checkpoint_arrays.params_metadata(tmp_path / 'run').values()} == {
    np.dtype(ml_dtypes.bfloat16)
  }
  hub_format.export_model(
    tmp_path / 'run', tmp_path / 'out', execution(), vocab_size=VOCAB, tokens={}
  )
  assert (tmp_path / 'out/model.safetensors').read_bytes() == (
    source / 'model.safetensors'
  ).read_bytes()
  assert json.loads((tmp_path / 'out/config.json').read_text())['dtype'] == 'bfloat16'
  for path in (tmp_path / 'run', source):
    loaded = load(path)
    assert {x.dtype for x in jax.tree.leaves(loaded.params)} == {np.dtype(np.float32)}
    np.testing.assert_allclose(logits(loaded, 'qwen3'), golden('qwen3')['logits'], rtol=0, atol=0.2)
    kept = load(path, param_dtype='bfloat16')
    jax.tree.map(
      lambda a, b: np.testing.assert_array_equal(np.asarray(a, np.float32), b),
      kept.params,
      loaded.params,
    )


@pytest.mark.slow
def test_shards_are_read_and_written(tmp_path):
  source = shard(copy('gemma3', tmp_path / 'source'))
  import_(source, tmp_path / 'run')
  np.testing.assert_allclose(
    logits(load(tmp_path / 'run'), 'gemma3'), golden('gemma3')['logits'], rtol=0, atol=1e-4
  )
  hub_format.export_model(
    tmp_path / 'run',
    tmp_path / 'out',
    execution(),
    vocab_size=VOCAB,
    tokens={},
    max_shard_bytes=40_000,
  )
  index = json.loads((tmp_path / 'out/model.safetensors.index.json').read_text())
  files = sorted(set(index['weight_map'].values()))
  assert len(files) == 3 and files[0] == 'model-00001-of-00003.safetensors'
  original = safetensors.numpy.load_file(GOLDEN / 'gemma3/model.safetensors')
  assert index['metadata']['total_size'] == sum(x.nbytes for x in original.values())
  for file in files:
    part = safetensors.numpy.load_file(tmp_path / 'out' / file)
    assert sum(x.nbytes for x in part.values()) <= 40_000
    assert part.keys() == {name for name, where in index['weight_map'].items() if where == file}
    for name, value in part.items():
      np.testing.assert_array_equal(value, original.pop(name))
  assert not original


@pytest.mark.slow
@pytest.mark.parametrize(
  'mesh, name',
  [
    ({'fsdp': 8}, 'gpt2'),
    ({'data': 2, 'fsdp': 2, 'tensor': 2}, 'qwen2'),
    ({'fsdp': 2, 'expert': 2, 'tensor': 2}, 'mixtral'),
  ],
)
def test_each_device_reads_its_own_parts(mesh, name, tmp_path):
  """On a mesh of eight devices the parameters are as on one, and no more is read than the devices
  hold.
  """

  def even(tensors):  # a vocabulary that two devices divide
    return {key: value[:100] if VOCAB in value.shape else value for key, value in tensors.items()}

  folder = copy(name, tmp_path / 'source', even, vocab_size=100)
  source, read = hub_folder.open_folder(folder), []

  def counted(stored):
    def read_part(index):
      part = stored.read(index)
      read.append(part.nbytes)
      return part

    return hub_folder.Stored(stored.dtype, stored.shape, read_part)

  source = hub_folder.Source(
    **vars(source) | {'tensors': {key: counted(stored) for key, stored in source.tensors.items()}}
  )
  mesh, config = mesh_of(**mesh), hub_params.model_config(source, execution())
  params = hub_params.load(source, config, pretrained.abstract_params(config, mesh)[0])
  # each byte once: replicas share what was read
  assert sum(read) == sum(x.nbytes for x in jax.tree.leaves(params))
  assert len(params['layers']['attention']['q']['kernel'].sharding.device_set) == 8
  held = params['layers']['mlp']['up']['kernel'].addressable_shards[0].data.nbytes
  assert held <= params['layers']['mlp']['up']['kernel'].nbytes / 4
  jax.tree.map(
    np.testing.assert_array_equal, jax.device_get(params), jax.device_get(load(folder).params)
  )


# ---- Forms of files ------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize('name, change', [
  # as OpenAI's was published
  ('gpt2', lambda t: {key.removeprefix('transformer.'): value for key, value in t.items()}),
  ('gpt2', lambda t: t | {'lm_head.weight': t['transformer.wte.weight']}),
  ('gpt2', lambda t: t | {f'transformer.h.{i}.attn.bias': np.tril(np.ones((1, 1, 64, 64), bool)) for i in range(2)}),
  ('gpt2', lambda t: {key.removeprefix('transformer.'): value for key, value in t.items()} | {
    'h.0.attn.masked_bias': np.full((), -1e4, np.float32), 'h.0.attn.bias': np.ones((1, 1, 64, 64), np.uint8)}),
  ('llama', lambda t: t | {'model.layers.0.self_attn.rotary_emb.inv_freq': np.ones(6, np.float32)}),
])  # fmt: skip
def test_forms_of_published_files(name, change, tmp_path):
  loaded = load(copy(name, tmp_path / 'source', change))
  np.testing.assert_allclose(logits(loaded, name), golden(name)['logits'], rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize('change, field, value', [
  (lambda t: {k: v for k, v in t.items() if 'layers.1.mlp.up' not in k},
   "tensor 'model.layers.1.mlp.up_proj.weight'", None),
  (lambda t: t | {'model.layers.2.mlp.up_proj.weight': np.ones((40, 32), np.float32)},
   'name of a tensor', 'model.layers.2.mlp.up_proj.weight'),
  (lambda t: t | {'model.layers.0.self_attn.q_proj.bias': np.ones(40, np.float32)},
   'name of a tensor', 'model.layers.0.self_attn.q_proj.bias'),
  (lambda t: t | {'model.norm.weight': np.ones(33, np.float32)},
   "shape of tensor 'model.norm.weight'", [33]),
  (lambda t: t | {'model.layers.0.self_attn.k_proj.weight': np.ones((32, 20), np.float32)},
   "shape of tensor 'model.layers.0.self_attn.k_proj.weight'", [32, 20]),
  (lambda t: t | {'model.norm.weight': np.ones(32, np.int8)},
   "type of tensor 'model.norm.weight'", 'I8'),
  (lambda t: t | {'model.layers.0.input_layernorm.weight': np.ones(32, np.float16)},
   'types of the tensors of layers/attention_norm/scale', ['F16', 'F32']),
  (lambda t: t | {'lm_head.weight': t['model.embed_tokens.weight'] + 1},
   'tie_word_embeddings in config.json', True),
])  # fmt: skip
def test_tensors_that_do_not_fit_are_named(change, field, value, tmp_path):
  source = copy('qwen3', tmp_path / 'source', change)
  with refused(field, value, place=source):
    load(source)
  with refused(field, value, place=source):
    import_(source, tmp_path / 'run')
  assert not (tmp_path / 'run').exists()


def test_folders_that_cannot_be_read_are_named(tmp_path):
  pickled = copy('llama', tmp_path / 'pickled')
  (pickled / 'model.safetensors').rename(pickled / 'pytorch_model.bin')
  with refused(f'model.safetensors or model.safetensors.index.json in {pickled}') as raised:
    load(pickled)
  assert 'pytorch_model.bin is a pickle' in raised.value.message
  torn = copy('llama', tmp_path / 'torn')
  (torn / 'model.safetensors').write_bytes((torn / 'model.safetensors').read_bytes()[:-100])
  with refused(torn / 'model.safetensors', allowed='a safetensors file'):
    load(torn)
  lacking = shard(copy('llama', tmp_path / 'lacking'))
  (lacking / 'model-00002-of-00003.safetensors').unlink()
  with pytest.raises(FileNotFoundError, match=r'model-00002-of-00003.safetensors'):
    load(lacking)
  unknown = copy('llama', tmp_path / 'unknown', architectures=['MambaForCausalLM'])
  with refused('architecture in config.json', 'MambaForCausalLM', place=unknown):
    load(unknown)
  with refused('config.model.num_layers', 5):
    load(GOLDEN / 'llama', num_layers=5)


@pytest.mark.parametrize(
  'entry',
  ['../outside.safetensors', '{tmp_path}/outside.safetensors', 'a/../../outside.safetensors', 7],
)
def test_an_index_that_names_files_outside_its_folder_is_refused(entry, tmp_path):
  folder = shard(copy('llama', tmp_path / 'model'))
  index = json.loads((folder / hub_folder.SHARDED).read_text())
  entry = entry.format(tmp_path=tmp_path) if isinstance(entry, str) else entry
  shutil.move(folder / 'model-00002-of-00003.safetensors', tmp_path / 'outside.safetensors')
  where = {name: entry if '00002' in file else file for name, file in index['weight_map'].items()}
  (folder / hub_folder.SHARDED).write_text(json.dumps({'weight_map': where}))
  with refused(f'file name in {folder / hub_folder.SHARDED}', entry):
    load(folder)


def test_links_of_the_hubs_cache_are_followed(tmp_path):
  folder, blobs = shard(copy('llama', tmp_path / 'snapshots' / 'main')), tmp_path / 'blobs'
  blobs.mkdir()
  for i, path in enumerate(sorted(folder.iterdir())):
    shutil.move(path, blobs / str(i))
    path.symlink_to(f'../../blobs/{i}')
  np.testing.assert_allclose(logits(load(folder), 'llama'), logits(load(GOLDEN / 'llama'), 'llama'))


def test_a_parameter_that_a_family_has_no_tensor_for_is_named():
  family = families.of(hub_folder.open_folder(GOLDEN / 'llama').config)
  tensors = {name: x for name, x in family.tensors.items() if name != 'layers/attention/q/kernel'}
  lacking = dataclasses.replace(family, tensors=tensors)
  config = hub_params.model_config(hub_folder.open_folder(GOLDEN / 'llama'), execution())
  with refused("tensor of LlamaForCausalLM for our parameter 'layers/attention/q/kernel'"):
    hub_params.layouts(lacking, config)


def test_import_refuses_what_it_cannot_finish(tmp_path):
  (tmp_path / 'there').mkdir()
  with refused('DST', str(tmp_path / 'there')):
    import_(GOLDEN / 'llama', tmp_path / 'there')
  with refused(f'tokenizer.json or tokenizer.model in {GOLDEN / "llama"}'):
    import_(GOLDEN / 'llama', tmp_path / 'run')
  source = copy('llama', tmp_path / 'source', mood='good')
  with refused('mood in config.json', 'good'):
    import_(source, tmp_path / 'run')
  import_(source, tmp_path / 'run', ignore=['mood'])
  with refused('DST', str(tmp_path / 'there')):
    hub_format.export_model(
      tmp_path / 'run', tmp_path / 'there', execution(), vocab_size=VOCAB, tokens={}
    )
  assert sorted(p.name for p in tmp_path.iterdir()) == ['run', 'source', 'there']


# ---- Export of what was trained here -------------------------------------------------------------


def save_run(folder, config, params, init_from=None):
  with checkpoint.Checkpointer(folder / 'checkpoints', keep_last=1) as saver:
    provenance = {
      'config': {'model': json.loads(config.to_json())},
      'tokenizer': 'x',
      'init_from': init_from,
    }
    saver.save(3, {'params': params, 'step': np.int32(3)}, provenance)
  (folder / 'tokenizer').mkdir()
  (folder / 'tokenizer' / 'tokenizer.json').write_text(tokenizer().to_str())
  return folder


@pytest.mark.slow
@pytest.mark.parametrize(
  'fields, architecture',
  [
    ({}, 'LlamaForCausalLM'),
    ({'qk_norm': 'head', 'tie_embeddings': False}, 'Qwen3ForCausalLM'),
    (
      {
        'norm': 'layernorm',
        'position': 'learned',
        'attention_bias': 'all',
        'mlp_bias': True,
        'num_kv_heads': 4,
        'activation': 'gelu',
      },
      'GPT2LMHeadModel',
    ),
  ],
)
def test_what_was_trained_from_scratch_is_exported(tiny, forward, fields, architecture, tmp_path):
  config, params = tiny(**fields)
  hub_format.export_model(
    save_run(tmp_path / 'run', config, params),
    tmp_path / 'out',
    execution(),
    vocab_size=config.vocab_size,
    tokens={'eos_token_id': 7},
  )
  written = json.loads((tmp_path / 'out/config.json').read_text())
  assert (written['architectures'], written['eos_token_id']) == ([architecture], 7)
  assert (
    json.loads((tmp_path / 'out/tokenizer_config.json').read_text())['tokenizer_class']
    == 'PreTrainedTokenizerFast'
  )
  loaded = load(tmp_path / 'out')
  tokens = np.random.default_rng(0).integers(config.vocab_size, size=(2, 9))
  np.testing.assert_array_equal(
    forward(loaded.config, loaded.params, tokens), forward(config, params, tokens)
  )
  assert (
    transformers.AutoConfig.from_pretrained(tmp_path / 'out').model_type == written['model_type']
  )


@pytest.mark.slow
def test_rows_that_training_added_beyond_the_tokenizer_are_not_exported(tmp_path):
  start = load(copy('qwen3', tmp_path / 'source'))
  grown = np.concatenate([start.params['embedding'], np.ones((27, 32), np.float32)])
  config = FrozenConfigDict(start.config.to_dict() | {'vocab_size': 128})
  run = save_run(
    tmp_path / 'run', config, start.params | {'embedding': grown}, init_from=start.provenance
  )
  hub_format.export_model(
    run, tmp_path / 'out', execution(), vocab_size=104, tokens={'eos_token_id': 103}
  )
  written = json.loads((tmp_path / 'out/config.json').read_text())
  original = json.loads((tmp_path / 'source/config.json').read_text())
  assert written == original | {'vocab_size': 104, 'eos_token_id': 103}
  np.testing.assert_array_equal(load(tmp_path / 'out').params['embedding'], grown[:104])
  # spare rows that it came with are its own
  hub_format.export_model(run, tmp_path / 'fewer', execution(), vocab_size=90, tokens={})
  assert load(tmp_path / 'fewer').config.vocab_size == VOCAB


@pytest.mark.slow
def test_what_no_family_has_is_not_exported(tiny, tmp_path):
  config, params = tiny(activation='relu2')
  with pytest.raises(UserError) as raised:
    hub_format.export_model(
      save_run(tmp_path / 'run', config, params),
      tmp_path / 'out',
      execution(),
      vocab_size=23,
      tokens={},
    )
  assert (raised.value.field, raised.value.value) == ('config.model.activation', 'relu2')
  assert not (tmp_path / 'out').exists()


@pytest.mark.slow
def test_exported_tokenizers_are_read_by_transformers(tmp_path):
  import_(copy('llama', tmp_path / 'source'), tmp_path / 'run')
  hub_format.export_model(
    tmp_path / 'run', tmp_path / 'out', execution(), vocab_size=VOCAB, tokens={}
  )
  theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / 'out')
  assert theirs.encode('AB', add_special_tokens=False) == tokenizer().encode('AB').ids
  assert theirs.eos_token == '<e>' and theirs.chat_template == '{{ messages }}'


@pytest.mark.slow
def test_commands(tmp_path):
  """Trained here, exported, then used as a Hugging Face folder and as an import: training,
  evaluation, chat, export.
  """
  run, out = tmp_path / 'run', tmp_path / 'hf'
  imported, again, tuned = (tmp_path / name for name in ('imported', 'again', 'tuned'))
  few = [
    '--config.steps=2',
    '--config.optim.warmup=1',
    '--config.eval.tasks=',
    '--config.data.examples=40',
  ]

  def ok(*arguments, text=''):
    status, stdout, stderr = commands.call(*arguments, text=text)
    assert status == 0, stderr
    return stdout

  train = 'train.py', '--config=configs/sft.py:smoke', *few
  ok(*train, f'--workdir={run}')
  ok('-m', 'lm.hf', 'export', run, out)
  ok('-m', 'lm.hf', 'import', out, imported)
  ok('-m', 'lm.hf', 'export', imported, again)
  for path in out.iterdir():
    assert (again / path.name).read_bytes() == path.read_bytes(), path.name
  ok(*train, f'--workdir={tuned}', f'--config.init_from={imported}')
  ok('-m', 'lm.hf', 'export', tuned, tmp_path / 'sharded', '--max-shard-gb=0.0001')
  assert (tmp_path / 'sharded' / 'model.safetensors.index.json').exists()
  evaluate = 'eval.py', '--config=configs/eval.py:smoke', f'--out={tmp_path / "report.json"}'
  ok(*evaluate, f'--checkpoint={out}')
  ok('-m', 'lm.chat', f'--checkpoint={out}', '--max-new-tokens=4', text='hello\n')
  for one, other in ((out, imported), (tuned, tmp_path / 'sharded')):
    jax.tree.map(np.testing.assert_array_equal, load(one).params, load(other).params)
  status, _, stderr = commands.call('-m', 'lm.hf', 'import', out, imported)
  assert status == 1 and stderr.startswith('error: DST is ')


@pytest.mark.slow
def test_import_and_export_stream(tmp_path):
  """Neither holds the weights: with 400 MB of them, half of which is one parameter, less than 1.3
  times that is taken.
  """
  rng, tensors = np.random.default_rng(0), {}
  D, V, L, F = 512, 100_000, 12, 4_000
  names = {'self_attn.q_proj': (D, D), 'self_attn.k_proj': (D, D), 'self_attn.v_proj': (D, D), 'self_attn.o_proj': (D, D),
           'mlp.gate_proj': (F, D), 'mlp.up_proj': (F, D), 'mlp.down_proj': (D, F), 'input_layernorm': (D,),
           'post_attention_layernorm': (D,)}  # fmt: skip
  shapes = {'model.embed_tokens.weight': (V, D), 'model.norm.weight': (D,)}
  shapes |= {
    f'model.layers.{l}.{name}.weight': shape for l in range(L) for name, shape in names.items()
  }
  for name, shape in shapes.items():
    tensors[name] = rng.standard_normal(shape, dtype=np.float32)
  source = copy(
    'llama',
    tmp_path / 'source',
    lambda _: tensors,
    attention_bias=False,
    mlp_bias=False,
    hidden_size=D,
    vocab_size=V,
    num_hidden_layers=L,
    intermediate_size=F,
    num_attention_heads=8,
    num_key_value_heads=8,
    head_dim=64,
    tie_word_embeddings=True,
  )
  script = """
import resource, sys
from configs import base
from lm.weights import hub_folder, hub_format
def peak():
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before = peak()
if sys.argv[1] == 'import':
  source = hub_folder.open_folder(sys.argv[2])
  hub_format.import_model(source, sys.argv[3], base.get_config().model, lambda folder: "")
else:
  hub_format.export_model(sys.argv[2], sys.argv[3], base.get_config().model, vocab_size=1, tokens={})
print(peak() - before)
"""
  size = sum(x.nbytes for x in tensors.values())
  for what, a, b in (
    ('import', source, tmp_path / 'run'),
    ('export', tmp_path / 'run', tmp_path / 'out'),
  ):
    status, stdout, stderr = commands.run('-c', script, what, a, b)
    assert status == 0, stderr
    assert int(stdout.split()[-1]) < 1.3 * size
  assert (tmp_path / 'out/model.safetensors').read_bytes() == (
    source / 'model.safetensors'
  ).read_bytes()
