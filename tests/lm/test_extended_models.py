"""Checkpoints whose models get heads and adapters, or have their adapters merged; their export."""

import json
import logging
import pathlib
import shutil

import commands
import jax
import make_golden_checkpoints as golden_runs
import numpy as np
import pytest
from refusals import refused

from configs import base
from lm.model import adapters, heads, param_rules, transformer
from lm.parallel import sharding
from lm.weights import checkpoint, hub_format, pretrained

GOLDEN = pathlib.Path(__file__).parent / 'golden'
TOKENS = np.random.default_rng(0).integers(23, size=(2, 9), dtype=np.int32)
LORA = {'lora_rank': 3, 'lora_alpha': 6.0}


def load(path, seed=0, **fields):
  config = base.get_config()
  config.model.update(fields)
  mesh = sharding.make_mesh(config.mesh, jax.devices()[:1])
  return pretrained.load(path, config.model, base.get_config().model, mesh, seed)


def save(folder, config, params):
  """A run's folder with a checkpoint of step 3."""
  provenance = {'config': {'model': json.loads(config.to_json())}, 'init_from': None}
  with checkpoint.Checkpointer(folder / 'checkpoints', keep_last=1) as saver:
    saver.save(3, {'params': params, 'step': np.int32(3)}, provenance)
  return folder


def same(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.fixture
def adapted(tiny, tmp_path):
  """(config, parameters, folder) of a run with adapters whose B is not 0, and a scalar head."""
  config, params = tiny(**LORA, heads=('vocabulary', 'scalar'))
  return config, params, save(tmp_path / 'adapted', config, params)


@pytest.mark.slow
@pytest.mark.parametrize(
  'source', [golden_runs.FOLDER / 'muon', GOLDEN / 'qwen3'], ids=['run', 'hugging-face']
)
def test_heads_and_adapters_that_a_checkpoint_lacks_begin_fresh(source, caplog):
  plain = load(source)
  with caplog.at_level(logging.WARNING):
    model = load(source, heads=('vocabulary', 'scalar'), lora_rank=2)
  (line,) = [r.getMessage() for r in caplog.records if 'begin fresh' in r.getMessage()]
  assert 'scalar_head' in line and 'layers/mlp/up/lora_b' in line and 'kernel' not in line
  assert model.config.heads == ('vocabulary', 'scalar') and model.config.lora_rank == 2
  assert jax.tree.structure(model.axes, is_leaf=lambda x: isinstance(x, tuple)) == (
    jax.tree.structure(model.params)
  )
  params = dict(model.params)
  assert np.std(params.pop('scalar_head')) > 0
  same(adapters.merge(params, 1.0), plain.params)  # B is 0
  q = params['layers']['attention']['q']['lora_a']
  other = load(source, seed=1, lora_rank=2).params['layers']['attention']['q']['lora_a']
  assert np.std(q) > 0 and not np.array_equal(q, other)


def test_a_checkpoints_own_heads_and_adapters_are_kept_where_none_are_chosen(adapted):
  config, params, folder = adapted
  model = load(folder)
  assert (model.config.heads, model.config.lora_rank) == (config.heads, 3)
  same(model.params, params)


@pytest.mark.slow
def test_adapters_that_are_not_to_be_kept_are_merged(adapted, forward, caplog):
  config, params, folder = adapted
  expected = forward(config, params, TOKENS)
  with caplog.at_level(logging.WARNING):
    merged, others = load(folder, lora_rank=0), load(folder, lora_rank=2)
  assert sum('are merged' in record.getMessage() for record in caplog.records) == 2
  assert not any(map(adapters.is_adapter, map(str, merged.params['layers']['attention']['q'])))
  np.testing.assert_allclose(forward(merged.config, merged.params, TOKENS), expected, atol=2e-4)
  assert others.params['layers']['attention']['q']['lora_a'].shape == (2, 16, 2)
  np.testing.assert_allclose(forward(others.config, others.params, TOKENS), expected, atol=2e-4)


def test_a_head_is_not_taken_away(adapted):
  with refused('config.model.heads', ('vocabulary',)):
    load(adapted[-1], heads=('vocabulary',))


def test_a_parameter_that_is_missing_otherwise_is_named(adapted, tmp_path):
  config, params, _ = adapted
  params = {name: x for name, x in params.items() if name != 'scalar_head'}
  with refused('params/scalar_head', 'no such array'):
    load(save(tmp_path / 'torn', config, params))


@pytest.mark.slow
def test_export_merges_adapters_and_leaves_the_scalar_head_out(adapted, forward, tmp_path, caplog):
  config, params, folder = adapted
  with caplog.at_level(logging.WARNING):
    hub_format.export_model(
      folder, tmp_path / 'out', base.get_config().model, vocab_size=23, tokens={}
    )
  assert any('scalar_head is not exported' in r.getMessage() for r in caplog.records)
  back = load(tmp_path / 'out')
  assert back.config.lora_rank == 0 and 'scalar_head' not in back.params
  got = forward(back.config, back.params, TOKENS)
  np.testing.assert_allclose(got, forward(config, params, TOKENS), atol=2e-4)
  assert np.abs(got - forward(back.config, load(folder, lora_rank=0).params, TOKENS)).max() < 1e-5


@pytest.mark.slow
def test_adapters_of_several_experts_are_exported(tiny, forward, tmp_path):
  fields = {'num_experts': 4, 'lora_params': 'layers/.*/kernel'}
  config, params = tiny(**LORA, **fields)
  folder = save(tmp_path / 'run', config, params)
  hub_format.export_model(
    folder, tmp_path / 'out', base.get_config().model, vocab_size=23, tokens={}
  )
  back = load(tmp_path / 'out')
  got = forward(back.config, back.params, TOKENS)
  np.testing.assert_allclose(got, forward(config, params, TOKENS), atol=2e-4)


def test_a_grown_vocabulary_keeps_adapters(adapted):
  config, params, folder = adapted
  mesh = sharding.make_mesh(base.get_config().mesh, jax.devices()[:1])
  grown = pretrained.grow(load(folder), config.vocab_size + 1, mesh)
  assert grown.params['embedding'].shape[0] == 128
  same(grown.params['layers'], params['layers'])
  assert heads.head(grown.params, grown.config).shape[0] == 128


@pytest.mark.slow
def test_a_run_with_adapters_resumes_and_is_evaluated_chatted_with_and_exported(tmp_path):
  """From the command line: only adapters move, and every front end reads what they leave behind."""
  start, run = golden_runs.FOLDER / 'adamw', tmp_path / 'run'
  options = {
    'init_from': start,
    'steps': 4,
    'checkpoint.every': 2,
    'model.lora_rank': 2,
    'model.max_len': 128,
    'optim.rates': 'layers/attention/.*:0.5',
  }

  def train(workdir, **more):
    overrides = [f'--config.{name}={value}' for name, value in (options | more).items()]
    status, _, err = commands.call(*golden_runs.command('adamw', workdir), *overrides)
    assert status == 0, err
    return golden_runs.losses(workdir)

  losses = train(run)
  assert losses['4'] < losses['1']
  shutil.copytree(run, tmp_path / 'killed')
  shutil.rmtree(tmp_path / 'killed' / 'checkpoints' / '4')
  assert train(tmp_path / 'killed') == losses

  before, after = load(start), load(run)
  assert after.config.lora_rank == 2
  kept, added = param_rules.split(after.params, frozenset(param_rules.leaf_names(before.params)))
  same(kept, before.params)
  assert all(np.abs(x).max() > 0 for x in jax.tree.leaves(added))
  state = golden_runs.digests(run / 'checkpoints' / '4' / 'state')
  moments = {name for name in state if '/mu/' in name or '/nu/' in name}
  assert moments and all(name.endswith(('lora_a', 'lora_b')) for name in moments)

  merged = tmp_path / 'merged'
  train(merged, **{'init_from': run, 'model.lora_rank': 0, 'steps': 1})
  assert load(merged).config.lora_rank == 0

  config = [
    '--config=configs/eval.py',
    '--config.eval.tasks=',
    '--config.eval.prompts=("the cat",)',
  ]
  config += ['--config.eval.max_new_tokens=4']
  out, hub = tmp_path / 'report.json', tmp_path / 'hub'
  for command in (
    ['eval.py', *config, f'--checkpoint={run}', f'--out={out}'],
    ['-m', 'lm.hf', 'export', run, hub],
  ):
    status, _, err = commands.call(*command)
    assert status == 0, err
  assert json.loads(out.read_text())['continuations'][0]['prompt'] == 'the cat'
  status, said, err = commands.call(
    '-m', 'lm.chat', f'--checkpoint={run}', '--max-new-tokens=4', text='Hi\n'
  )
  assert status == 0 and said, err
  exported = load(hub)
  tokens = np.arange(8, dtype=np.int32)[None]
  logits = [heads.unembed(m.params, m.config, hidden(m, tokens)) for m in (after, exported)]
  np.testing.assert_allclose(logits[1], logits[0], atol=1e-5)


def hidden(model, tokens):
  return transformer.Transformer(model.config).apply({'params': model.params}, tokens)[0]
