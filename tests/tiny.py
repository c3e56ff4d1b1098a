"""A run of train.py that takes seconds, for tests that start it many times."""

import hashlib
import json
import pathlib

import jax
import numpy as np

from configs import base
from lm.parallel import sharding
from lm.weights import checkpoint_folders, pretrained


def arguments(text: pathlib.Path, **fields: object) -> list[str]:
  """train.py and its options: one layer on the bytes of a text; fields with __ for dots are set on
  top.
  """
  options = {
    'data.train': text,
    'data.held_out': 0.0,
    'eval.prompts': '()',
    'eval.baselines': False,
    'model.num_layers': 1,
    'model.embed_dim': 32,
    'model.mlp_dim': 64,
    'model.num_heads': 2,
    'model.num_kv_heads': 2,
    'seq_len': 32,
    'log_every': 1,
  } | {name.replace('__', '.'): value for name, value in fields.items()}
  return [
    'train.py',
    '--config=configs/pretrain.py:smoke',
    *(f'--config.{name}={value}' for name, value in options.items()),
  ]


def write_text(path: pathlib.Path, noise: int = 0, sentences: int = 1200) -> pathlib.Path:
  """A text of 50 bytes a sentence that is easy to learn, in which `noise` stretches of 60
  characters are not.
  """
  rng = np.random.default_rng(0)
  words = list('the cat sat on the mat and the dog lay on the rug. ' * sentences)
  for start in rng.integers(0, len(words) - 60, noise):
    words[start : start + 60] = [chr(c) for c in rng.integers(33, 1000, 60)]
  path.write_text(''.join(words))
  return path


def lines(run: pathlib.Path) -> list[dict]:
  """The metrics of a run, without what depends on the clock."""
  read = [json.loads(line) for line in (run / 'metrics.jsonl').read_text().splitlines()]
  return [
    {name: value for name, value in line.items() if not name.startswith(('perf/', 'goodput/'))}
    for line in read
  ]


def parameters(run: pathlib.Path) -> str:
  """A digest of the bits of the parameters of the last checkpoint of a run."""
  config = base.get_config()
  mesh = sharding.make_mesh(config.mesh, jax.devices()[:1])
  stored = checkpoint_folders.provenance(checkpoint_folders.locate(run))['config']['model']
  config.model.update({field: stored[field] for field in pretrained.EXECUTION})
  params = pretrained.load(run, config.model, base.get_config().model, mesh).params
  return hashlib.sha256(
    b''.join(np.asarray(x).tobytes() for x in jax.tree.leaves(params))
  ).hexdigest()
