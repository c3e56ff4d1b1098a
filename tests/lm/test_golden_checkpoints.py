"""Checkpoints that were written at the git tag house-moved: later versions read and go on from them."""

import hashlib
import json
import shutil

import commands
import jax
import make_golden_checkpoints as golden
import numpy as np
import pytest

from configs import base
from lm.parallel import sharding
from lm.weights import checkpoint_folders, pretrained


def expected(variant):
  return json.loads((golden.FOLDER / variant / 'expected.json').read_text())


@pytest.fixture(params=golden.VARIANTS)
def variant(request):
  return request.param


@pytest.fixture
def killed(variant, tmp_path):
  """The folder of a run of the variant that was killed after its third update."""
  run = tmp_path / 'run'
  shutil.copytree(golden.FOLDER / variant, run)
  return run


def test_parameters_are_read_to_the_bit(variant):
  """As config.init_from, eval.py and lm.chat read them."""
  config = base.get_config()
  mesh = sharding.make_mesh(config.mesh, jax.devices()[:1])
  model = pretrained.load(golden.FOLDER / variant, config.model, base.get_config().model, mesh)
  found = {
    sharding.leaf_name(path): hashlib.sha256(np.asarray(x).tobytes()).hexdigest()
    for path, x in jax.tree_util.tree_leaves_with_path(model.params)
  }
  assert found == expected(variant)['arrays']['params']
  assert model.step == 3
  assert model.config.tie_embeddings == (variant == 'adamw')


@pytest.mark.slow
def test_a_killed_run_goes_on_with_the_same_losses(variant, killed):
  status, _, err = commands.call(
    *golden.command(variant, killed), '--config.checkpoint.allow_mismatch=code'
  )
  assert status == 0, err
  # On another kind of CPU, sums of floating-point numbers are rounded otherwise.
  assert golden.losses(killed) == pytest.approx(expected(variant)['losses'], rel=1e-5)
  assert checkpoint_folders.locate(killed).name == '5'


@pytest.mark.slow
def test_another_run_starts_from_it(tmp_path):
  options = f'--config.init_from={golden.FOLDER / "adamw"}', '--config.steps=1'
  status, _, err = commands.call(*golden.command('adamw', tmp_path), *options)
  assert status == 0, err
  # its first loss is near where the run before it was: at the start of that one it was 5.6
  assert golden.losses(tmp_path)['1'] < 5.3
