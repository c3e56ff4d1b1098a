"""As test_hf.py, but against transformers itself, in this process: pip install -e
'.[test,parity]'.
"""

import json
import shutil

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict, FrozenConfigDict

from configs import base
from lm.model import heads, transformer
from lm.parallel import sharding
from lm.stages import sft
from lm.train import train_step
from lm.weights import checkpoint, families, hub_folder, hub_format, hub_params, pretrained

torch = pytest.importorskip('torch', reason="needs pip install -e '.[parity]'")
# torch and transformers have warnings of their own
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings('default')]

import make_golden  # noqa: E402
import transformers  # noqa: E402


@pytest.fixture(scope='module', params=make_golden.MODELS)
def name(request):
  return request.param


@pytest.fixture(scope='module')
def theirs(name):
  return make_golden.make(name)


@pytest.fixture(scope='module')
def folder(theirs, tmp_path_factory):
  path = tmp_path_factory.mktemp('theirs')
  theirs.save_pretrained(path)
  (path / 'tokenizer.json').write_text('{}')  # copied, not read
  return path


def load(path, **fields):
  execution = base.get_config().model
  execution.update(fields)
  mesh = sharding.make_mesh(ConfigDict(dict.fromkeys(sharding.AXES, 1)), jax.devices()[:1])
  return pretrained.load(path, execution, base.get_config().model, mesh)


def from_pretrained(path, **options):
  return transformers.AutoModelForCausalLM.from_pretrained(
    path, attn_implementation='eager', **options
  ).eval()


def logits(loaded):
  tokens, mask = make_golden.inputs()
  hidden, _ = transformer.Transformer(loaded.config).apply(
    {'params': loaded.params}, tokens, segment_ids_BT=mask.astype(np.int32)
  )
  return np.asarray(heads.unembed(loaded.params, loaded.config, hidden))[mask]


@pytest.mark.parametrize('scan', [True, False])
def test_logits(theirs, folder, scan):
  np.testing.assert_allclose(
    logits(load(folder, scan_layers=scan)), make_golden.logits(theirs), rtol=0, atol=1e-4
  )


def test_export_gives_transformers_the_same_model(theirs, folder, tmp_path):
  hub_format.import_model(
    hub_folder.open_folder(folder), tmp_path / 'run', base.get_config().model, lambda path: ''
  )
  hub_format.export_model(
    tmp_path / 'run',
    tmp_path / 'out',
    base.get_config().model,
    vocab_size=1,
    tokens={},
    max_shard_bytes=30_000,
  )
  back = from_pretrained(tmp_path / 'out')
  assert type(back) is type(theirs)
  np.testing.assert_array_equal(make_golden.logits(back), make_golden.logits(theirs))
  for key, value in theirs.state_dict().items():
    assert torch.equal(back.state_dict()[key], value), key


def test_config_json_of_our_own_gives_transformers_the_same_model(theirs, folder, tmp_path):
  """What is written for models that were not imported, in the form that transformers 4 reads
  too.
  """
  shutil.copy(folder / 'model.safetensors', tmp_path)
  ours = hub_params.model_config(hub_folder.open_folder(folder), base.get_config().model)
  family, written = families.express(ours)
  assert family is families.of(json.loads((folder / 'config.json').read_text()))
  (tmp_path / 'config.json').write_text(json.dumps(written))
  back = from_pretrained(tmp_path, dtype=torch.float32)
  np.testing.assert_allclose(
    make_golden.logits(back), make_golden.logits(theirs), rtol=0, atol=1e-5
  )


@pytest.mark.parametrize('layers', [1, 2])
def test_what_is_trained_here_runs_in_transformers(tiny, forward, layers, tmp_path):
  """A model whose shape is of no family by name: grouped heads, biases, tied."""
  config, params = tiny(attention_bias='qkv', num_layers=layers)
  with checkpoint.Checkpointer(tmp_path / 'run/checkpoints', keep_last=1) as saver:
    saver.save(
      1,
      {'params': params, 'step': np.int32(1)},
      {'config': {'model': json.loads(config.to_json())}},
    )
  hub_format.export_model(
    tmp_path / 'run',
    tmp_path / 'out',
    base.get_config().model,
    vocab_size=config.vocab_size,
    tokens={'eos_token_id': 3},
  )
  theirs = from_pretrained(tmp_path / 'out')
  tokens = np.random.default_rng(0).integers(config.vocab_size, size=(2, 9))
  with torch.no_grad():
    found = theirs(torch.from_numpy(tokens)).logits.numpy()
  np.testing.assert_allclose(found, forward(config, params, tokens), rtol=0, atol=1e-4)
  assert theirs.config.eos_token_id == 3


@pytest.mark.parametrize('name', ['gpt2', 'llama3'], indirect=True)
def test_gradients_of_an_sft_step_are_torchs(theirs, folder):
  """Of the mean cross entropy over the mask's tokens, with rows of unequal length; each gradient to
  1e-4 of its norm.
  """
  tokens, real = make_golden.inputs()
  weights = (np.random.default_rng(1).random(tokens.shape) < 0.4) & real
  weights[:, 0] = False  # the first token is not predicted
  loaded = load(folder)
  batch = {
    'inputs': tokens[:, :-1],
    'targets': tokens[:, 1:],
    'weights': weights[:, 1:].astype(np.float32),
    'segment_ids': real[:, :-1].astype(np.int32),
    'positions': np.broadcast_to(
      np.arange(tokens.shape[1] - 1, dtype=np.int32), tokens[:, 1:].shape
    ),
  }
  batch = {
    key: value.astype(np.int32) if value.dtype == np.int64 else value
    for key, value in batch.items()
  }
  loss_fn = sft.make_loss(loaded.config, base.get_config().loss)

  def mean(params):
    total, weight = train_step.objective(loss_fn(params, batch, jax.random.key(0)))
    return total / weight

  loss, gradients = jax.jit(jax.value_and_grad(mean))(loaded.params)

  theirs.zero_grad()
  out = theirs(
    torch.from_numpy(tokens[:, :-1]), attention_mask=torch.from_numpy(real[:, :-1]).long()
  ).logits
  losses = torch.nn.functional.cross_entropy(
    out.transpose(1, 2), torch.from_numpy(tokens[:, 1:]), reduction='none'
  )
  expected = losses[torch.from_numpy(weights[:, 1:])].mean()
  expected.backward()
  assert float(loss) == pytest.approx(expected.item(), rel=1e-5)

  def stored(gradient):
    return hub_folder.Stored('F32', gradient.shape, gradient.__getitem__)

  tensors = {key: stored(weight.grad.numpy()) for key, weight in theirs.named_parameters()}
  layout = hub_params.layouts(
    families.of(theirs.config.to_dict()), FrozenConfigDict(loaded.config.to_dict())
  )
  flat = jax.tree_util.tree_leaves_with_path(gradients)
  leaves = {jax.tree_util.keystr(path, simple=True, separator='/'): x for path, x in flat}
  # a query's scores all move by the same: nothing to learn, rounding is left
  if loaded.config.position == 'learned':
    assert np.abs(leaves.pop('layers/attention/k/bias')).max() < 1e-7
  assert len(leaves) > 8
  for name, found in leaves.items():
    wanted = layout[name].read(tensors, tuple(slice(0, size) for size in layout[name].shape))
    error = np.linalg.norm(found - wanted) / np.linalg.norm(wanted)
    assert error < 1e-4, (name, error)
