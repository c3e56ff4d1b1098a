"""Checkpoints against plain NumPy copies of what was saved, under kills, full disks, torn files and
other shardings.
"""

import errno
import importlib
import logging
import pathlib
import re
import resource
import signal
import subprocess
import sys
import threading
import time
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from refusals import refused

from lm.base import buckets, files
from lm.base.errors import UserError
from lm.weights import best as best_lib
from lm.weights import checkpoint, checkpoint_arrays, checkpoint_folders, origin

PROVENANCE = {
  'config': {'model': {'num_layers': 2}},
  'code': 'abc',
  'data': 'd1',
  'tokenizer': 't1',
}


def sharding(*axes, shape=(4, 2)):
  devices = np.array(jax.devices()[: shape[0] * shape[1]]).reshape(shape)
  return jax.sharding.NamedSharding(
    jax.sharding.Mesh(devices, ('data', 'model')), jax.sharding.PartitionSpec(*axes)
  )


def make_state(step=0, w_sharding=None):
  rng = np.random.default_rng(step)
  w = jax.device_put(rng.normal(size=(8, 6)).astype(np.float32), w_sharding)
  params = {'layer': {'w': w, 'b': jnp.asarray(rng.normal(size=6), jnp.bfloat16)}}
  return {'params': params, 'opt_state': optax.adamw(1e-3).init(params), 'step': jnp.int32(step)}


def abstract(tree, of=lambda x: x.sharding):
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=of(x)), tree)


def assert_same(a, b):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    assert x.dtype == y.dtype
    np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


def saved(directory, steps=(1,), **options):
  with checkpoint.Checkpointer(directory, **{'keep_last': 9, **options}) as checkpointer:
    for step in steps:
      checkpointer.save(step, make_state(step), PROVENANCE)
  return directory


def test_restores_bits_types_and_provenance(tmp_path):
  saved(tmp_path, (1, 2))
  with checkpoint.Checkpointer(tmp_path, keep_last=2) as checkpointer:
    assert checkpointer.steps() == [1, 2] and checkpointer.latest() == 2
    assert_same(checkpointer.restore(abstract(make_state())), make_state(2))
    assert_same(checkpointer.restore(abstract(make_state()), step=1), make_state(1))
    assert checkpointer.provenance(1) == PROVENANCE


@pytest.mark.slow
@pytest.mark.parametrize(('rule', 'best'), [('min:eval/val/loss', 2), ('max:eval/val/loss', 4)])
def test_the_best_checkpoint_is_kept_and_used(tmp_path, rule, best):
  config = {**PROVENANCE['config'], 'checkpoint': {'best': rule}}
  losses = {1: 3.0, 2: 1.0, 3: float('nan'), 4: 5.0, 5: 2.0, 6: None}
  options = {'keep_last': 1, 'keep_best': best_lib.parse(rule)}
  for steps in ((1, 2, 3), (4, 5, 6)):  # the second time it goes on with what it finds
    with checkpoint.Checkpointer(tmp_path, **options) as checkpointer:
      for step in steps:
        measured = {} if losses[step] is None else {'eval/val/loss': losses[step]}
        assert checkpointer.is_best(measured) == (step in (1, best))
        checkpointer.save(step, make_state(step), {**PROVENANCE, 'config': config}, measured)
  with checkpoint.Checkpointer(tmp_path, **options) as checkpointer:
    assert checkpointer.steps() == [best, 6] and checkpointer.sound() == 6
    assert_same(checkpointer.restore(abstract(make_state())), make_state(6))
  assert checkpoint_folders.locate(tmp_path).name == str(best)
  (tmp_path / str(best) / 'provenance.json').write_text('{')
  assert checkpoint_folders.locate(tmp_path).name == '6'


@pytest.mark.parametrize('text', ['eval/val/loss', 'least:eval/val/loss', 'min:'])
def test_a_rule_for_the_best_checkpoint_has_a_direction_and_a_metric(text):
  with pytest.raises(UserError) as error:
    best_lib.parse(text)
  assert error.value.field == 'config.checkpoint.best' and error.value.value == text


def test_restores_onto_another_sharding(tmp_path):
  state = make_state(3, sharding('data', 'model'))
  with checkpoint.Checkpointer(tmp_path, keep_last=1) as checkpointer:
    checkpointer.save(3, state, PROVENANCE)
    checkpointer.wait()
    new = sharding(None, 'data', shape=(2, 1))
    target = abstract(state, lambda x: new if x.ndim == 2 else sharding())
    restored = checkpointer.restore(target)
  assert restored['params']['layer']['w'].sharding == new
  assert_same(restored, make_state(3))


def test_state_may_be_donated_while_it_is_being_written(tmp_path):
  step = jax.jit(lambda s: jax.tree.map(lambda x: x + jnp.ones((), x.dtype), s), donate_argnums=0)
  state = {
    'params': {'w': jnp.zeros((1024, 2048))},
    'opt_state': {'m': jnp.zeros((1024, 2048))},
    'step': jnp.int32(0),
  }
  target = abstract(state)
  with checkpoint.Checkpointer(tmp_path, keep_last=9) as checkpointer:
    for i in range(4):
      checkpointer.save(i, state, PROVENANCE)
      for _ in range(3):
        state = jax.block_until_ready(step(state))
    checkpointer.wait()
    for i in range(4):
      for leaf in jax.tree.leaves(checkpointer.restore(target, step=i)):
        assert np.unique(np.asarray(leaf)).tolist() == [3 * i]


def test_saving_happens_in_the_background(tmp_path, monkeypatch):
  write, go_on, waited = files.write_json, threading.Event(), []
  monkeypatch.setattr(files, 'write_json', lambda *a: (waited.append(go_on.wait()), write(*a)))
  with checkpoint.Checkpointer(tmp_path, keep_last=1) as checkpointer:
    # Returns while the writing is held up; a save in the foreground would wait for ever.
    checkpointer.save(1, make_state(1), PROVENANCE)
    assert checkpointer.steps() == []  # not complete, so not listed
    go_on.set()
    checkpointer.wait()
    assert checkpointer.steps() == [1]
  assert waited


@pytest.mark.parametrize(
  ('content', 'field'), [({'params/../../outside': ''}, 'file name in {}'), (['params/x'], '{}')]
)
def test_a_digest_that_names_files_elsewhere_is_refused(tmp_path, content, field):
  step = saved(tmp_path / 'checkpoints') / '1'
  files.write_json(step / 'digest.json', content)
  with refused(field.format(step / 'digest.json')):
    checkpoint_arrays.load_params(tmp_path, {})


@pytest.mark.parametrize(
  ('content', 'field', 'value'),
  [
    ({'run': '../elsewhere'}, 'file name in {}', '../elsewhere'),
    ({'run': '/elsewhere'}, 'file name in {}', '/elsewhere'),
    ({'run': 3}, 'file name in {}', 3),
    ({}, '{}', {}),
    ([], '{}', []),
  ],
)
def test_a_recipe_whose_last_run_lies_elsewhere_is_refused(tmp_path, content, field, value):
  saved(tmp_path / 'elsewhere' / 'checkpoints')
  files.write_json(tmp_path / 'recipe' / 'final.json', content)
  with refused(field.format(tmp_path / 'recipe' / 'final.json'), value):
    checkpoint_folders.locate(tmp_path / 'recipe')


def test_keeps_the_last_and_every_nth(tmp_path):
  saved(tmp_path, range(1, 8), keep_last=2, keep_every=3)
  assert sorted(p.name for p in tmp_path.iterdir()) == ['3', '6', '7']
  with refused('keep_last', 0):
    checkpoint.Checkpointer(tmp_path, keep_last=0)


def test_does_not_overwrite_a_step(tmp_path):
  saved(tmp_path)
  with (
    checkpoint.Checkpointer(tmp_path, keep_last=1) as checkpointer,
    refused(f'step to be saved in {tmp_path}', 1),
  ):
    checkpointer.save(1, make_state(2), PROVENANCE)


def test_params_are_read_without_the_optimizer(tmp_path):
  step = saved(tmp_path / 'checkpoints', (4,)) / '4'
  for path in sorted((step / 'state').rglob('*'), reverse=True):
    path.unlink() if path.is_file() else path.rmdir()
  target = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), make_state()['params'])
  params, provenance = checkpoint_arrays.load_params(tmp_path, target)
  assert_same(params, make_state(4)['params'])
  assert provenance == PROVENANCE


@pytest.mark.parametrize('damage', ['torn', 'altered', 'missing'])
def test_every_damaged_file_is_named(tmp_path, damage):
  step = saved(tmp_path) / '1'
  for path in sorted(
    p
    for p in step.rglob('*')
    if p.is_file() and p.name not in ('digest.json', 'commit_success.txt')
  ):
    content = path.read_bytes()
    if damage == 'missing':
      path.unlink()
    else:
      path.write_bytes(
        content[:-1] if damage == 'torn' else content[:-1] + bytes([content[-1] ^ 1])
      )
    name = path.relative_to(step).as_posix()
    if name != '_CHECKPOINT_METADATA':  # Orbax's note of the time; nothing is read from it
      field = f'{name} of checkpoint {step}'
      with refused(field if damage == 'missing' else f'SHA-256 of {field}'):
        checkpoint_folders.provenance(step)
        checkpoint.Checkpointer(tmp_path, keep_last=1).restore(abstract(make_state()))
    path.write_bytes(content)


@pytest.mark.slow
@pytest.mark.parametrize('damage', ['torn', 'altered', 'missing', 'digest torn', 'digest missing'])
def test_a_corrupt_newest_checkpoint_is_set_aside_and_the_one_before_is_used(
  tmp_path, caplog, damage
):
  saved(tmp_path, (1, 2, 3))
  for step in (2, 3):
    folder = tmp_path / str(step)
    victim = max(
      (p for p in (folder / 'state').rglob('*') if p.is_file()), key=lambda p: p.stat().st_size
    )
    victim = folder / 'digest.json' if damage.startswith('digest') else victim
    content = victim.read_bytes()
    if damage.endswith('missing'):
      victim.unlink()
    else:
      victim.write_bytes(
        content[: len(content) // 2]
        if damage.endswith('torn')
        else bytes([content[0] ^ 1]) + content[1:]
      )
  with (
    checkpoint.Checkpointer(tmp_path, keep_last=9) as checkpointer,
    caplog.at_level(logging.WARNING),
  ):
    assert checkpointer.sound() == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ['1', '2.corrupt', '3.corrupt']
    assert (
      f'checkpoint {tmp_path / "3"} is corrupt' in caplog.text
      and 'going on from step 1' in caplog.text
    )
    assert_same(checkpointer.restore(abstract(make_state()), 1), make_state(1))
    checkpointer.save(3, make_state(3), PROVENANCE)
    checkpointer.wait()
    assert checkpointer.sound() == 3 and checkpointer.steps() == [1, 3]


def test_a_run_without_a_sound_checkpoint_is_not_started_anew(tmp_path):
  with checkpoint.Checkpointer(tmp_path, keep_last=9) as checkpointer:
    assert checkpointer.sound() is None
  saved(tmp_path, (1, 2))
  for step in (1, 2):
    (tmp_path / str(step) / 'provenance.json').write_text('{}')
  with (
    checkpoint.Checkpointer(tmp_path, keep_last=9) as checkpointer,
    refused(f'SHA-256 of provenance.json of checkpoint {tmp_path / "2"}'),
  ):
    checkpointer.sound()
  assert sorted(p.name for p in tmp_path.iterdir()) == ['1', '2']


def test_what_does_not_fit_is_named(tmp_path):
  saved(tmp_path)
  with checkpoint.Checkpointer(tmp_path, keep_last=1) as checkpointer:

    def check(field, value, allowed, change):
      target = abstract(make_state())
      change(target)
      with refused(field, value, f'{allowed}, as in the model'):
        checkpointer.restore(target)

    w = jax.ShapeDtypeStruct((8, 7), jnp.float32)
    layer, none = 'params/layer', 'no such array'
    check(
      f'{layer}/w',
      'float32[8,6]',
      'float32[8,7]',
      lambda t: t['params']['layer'].update(w=w),
    )
    b = jax.ShapeDtypeStruct((6,), jnp.float32)
    check(f'{layer}/b', 'bfloat16[6]', 'float32[6]', lambda t: t['params']['layer'].update(b=b))
    check(f'{layer}/x', none, 'float32[6]', lambda t: t['params']['layer'].update(x=b))
    check(f'{layer}/b', 'bfloat16[6]', none, lambda t: t['params']['layer'].pop('b'))
    check(
      'state/opt_state/0/count',
      'int32[]',
      none,
      lambda t: t.update(opt_state=optax.sgd(0.1).init(t['params'])),
    )


def test_params_are_cast_to_another_float_and_to_nothing_else(tmp_path):
  saved(tmp_path)
  params = make_state(1)['params']
  asked = {
    'layer': {
      'w': jax.ShapeDtypeStruct((8, 6), jnp.bfloat16),
      'b': jax.ShapeDtypeStruct((6,), jnp.float32),
    }
  }
  read, _ = checkpoint_arrays.load_params(tmp_path, asked)
  assert_same(
    read,
    {
      'layer': {
        'w': params['layer']['w'].astype(jnp.bfloat16),
        'b': params['layer']['b'].astype(jnp.float32),
      }
    },
  )
  asked['layer']['w'] = jax.ShapeDtypeStruct((8, 6), jnp.int32)
  with pytest.raises(UserError) as raised:
    checkpoint_arrays.load_params(tmp_path, asked)
  assert raised.value.field == 'params/layer/w' and raised.value.allowed.startswith('int32[8,6]')
  # a run goes on in the type that it began in
  with checkpoint.Checkpointer(tmp_path, keep_last=1) as checkpointer:
    state = abstract(make_state())
    state['params']['layer']['w'] = jax.ShapeDtypeStruct((8, 6), jnp.bfloat16)
    with pytest.raises(UserError) as raised:
      checkpointer.restore(state)
    assert raised.value.allowed.startswith('bfloat16[8,6]')


def test_params_are_written_one_by_one_and_read_by_name(tmp_path):
  params, alive = jax.tree.map(np.asarray, make_state(3)['params']), []

  def deferred(array):
    def make():
      made = array.copy()
      alive.append(weakref.ref(made))
      # Waits until the one before was written and dropped, perhaps by a thread of Orbax's.
      while sum(ref() is not None for ref in alive) > 1:
        time.sleep(0.01)
      return made

    return checkpoint_arrays.Deferred(make)

  checkpoint_arrays.write_params(
    tmp_path / 'checkpoints' / '0', jax.tree.map(deferred, params), PROVENANCE
  )
  assert len(alive) == 2
  read, provenance = checkpoint_arrays.load_params(
    tmp_path, abstract(params, lambda _: sharding('data', shape=(2, 1)))
  )
  assert_same(read, params)
  assert provenance == PROVENANCE
  metadata = checkpoint_arrays.params_metadata(tmp_path)
  assert {name: str(x) for name, x in metadata.items()} == {
    'layer/b': 'bfloat16[6]',
    'layer/w': 'float32[8,6]',
  }
  found = checkpoint_arrays.read_params(tmp_path, ['layer/b'])
  assert found.keys() == {'layer/b'} and type(found['layer/b']) is np.ndarray
  assert_same(found['layer/b'], params['layer']['b'])
  torn = next((tmp_path / 'checkpoints/0/params/d').iterdir())
  torn.write_bytes(b'torn')
  with refused(f'SHA-256 of params/d/{torn.name} of checkpoint {tmp_path / "checkpoints/0"}'):
    checkpoint_arrays.params_metadata(tmp_path)


def test_locate_takes_a_step_a_run_or_a_recipe(tmp_path):
  run = tmp_path / 'quickstart' / 'rl'
  saved(run / 'checkpoints', (2, 10))
  files.write_json(tmp_path / 'quickstart' / 'final.json', {'run': 'rl'})
  last = run / 'checkpoints' / '10'
  for path in (last, run / 'checkpoints', run, tmp_path / 'quickstart'):
    assert checkpoint_folders.locate(path) == last
  assert checkpoint_folders.locate(run / 'checkpoints' / '2').name == '2'
  (run / 'checkpoints' / '11').mkdir()  # not complete: no digest
  assert checkpoint_folders.locate(run) == last
  for path, text in (
    (tmp_path / 'nowhere', 'no such folder'),
    (run / 'checkpoints' / '11', ''),
    (tmp_path, ''),
  ):
    with pytest.raises(FileNotFoundError, match=f'no complete checkpoint at {path}.*{text}'):
      checkpoint_arrays.load_params(path, {})


def test_a_step_that_is_sound_is_not_read_again_to_be_restored(tmp_path, monkeypatch):
  with checkpoint.Checkpointer(saved(tmp_path), keep_last=1) as checkpointer:
    assert checkpointer.sound() == 1
    monkeypatch.setattr(files, 'sha256_all', None)
    assert_same(checkpointer.restore(abstract(make_state()), 1), make_state(1))


REQUESTS = {
  'gs': ('gcsfs', 'GCSFileSystem', '_request'),
  's3': ('s3fs', 'S3FileSystem', '_call_s3'),
}


@pytest.mark.slow
@pytest.mark.parametrize('scheme', REQUESTS)
def test_a_bucket_that_cannot_be_listed_is_not_taken_for_an_empty_one(scheme, monkeypatch):
  library, kind, method = REQUESTS[scheme]

  async def forbidden(self, *_, **__):
    raise PermissionError('Forbidden')

  monkeypatch.setattr(buckets, 'reach', lambda *_: None)
  buckets.filesystem(scheme)
  monkeypatch.setattr(getattr(importlib.import_module(library), kind), method, forbidden)
  monkeypatch.setenv('AWS_ENDPOINT_URL', 'http://127.0.0.1:1')
  monkeypatch.setenv('STORAGE_EMULATOR_HOST', 'http://127.0.0.1:1')
  with pytest.raises(Exception, match=r'Forbidden|Could not connect|credentials'):
    checkpoint_folders.steps(files.as_path(f'{scheme}://bucket/run/checkpoints'))


class Unreachable(pathlib.PosixPath):
  """A folder whose files cannot be asked for, as in a bucket whose requests are refused."""

  def is_file(self):
    return False

  def exists(self):
    if self.name == 'digest.json':
      raise PermissionError('Forbidden')
    return super().exists()


def test_a_checkpoint_that_cannot_be_asked_for_is_not_unfinished(tmp_path):
  saved(tmp_path)
  for function in (
    checkpoint_folders.steps,
    lambda folder: checkpoint_folders.verify(folder / '1', 'params/'),
  ):
    with pytest.raises(PermissionError, match='Forbidden'):
      function(Unreachable(tmp_path))


def test_provenance_mismatch_is_named_unless_allowed():
  origin.check_provenance(PROVENANCE, PROVENANCE)
  origin.check_provenance({'shape': [1, 2]}, {'shape': (1, 2)})
  with refused('tokenizer', 't2', "'t1', as in the checkpoint"):
    origin.check_provenance(PROVENANCE, {**PROVENANCE, 'tokenizer': 't2'}, allow=('code', 'data'))
  with refused('config.model.num_layers', 3, '2, as in the checkpoint'):
    origin.check_provenance(PROVENANCE, {'config': {'model': {'num_layers': 3}}})
  with refused('optimizer', 'adamw', 'None, as in the checkpoint'):
    origin.check_provenance(PROVENANCE, {'optimizer': 'adamw'})
  origin.check_provenance(
    PROVENANCE, {**PROVENANCE, 'tokenizer': 't2', 'data': 'd2'}, allow=('tokenizer', 'data')
  )


def test_fields_of_the_config_are_free_or_allowed_by_name():
  stored = {
    'config': {
      'optim': {'lr': 1, 'b1': 2},
      'mesh': {'data': 1},
      'data': {'train': 'a'},
      'optimal': 1,
    },
    'data': 'd1',
  }
  new = {
    'config': {
      'optim': {'lr': 3, 'b1': 4},
      'mesh': {'data': 2},
      'data': {'train': 'b'},
      'optimal': 2,
    },
    'data': 'd2',
  }

  def lacking(*allow):
    with pytest.raises(UserError) as error:
      origin.check_provenance(stored, new, allow, free=('mesh',))
    return error.value.message.partition('allow_mismatch=')[2].split()[0]

  assert lacking() == 'data.train,optim.b1,optim.lr,optimal,data'
  assert lacking('optim') == 'data.train,optimal,data'
  assert lacking('optim.lr', 'data') == 'optim.b1,optimal'
  assert lacking('config') == 'data'
  origin.check_provenance(stored, new, ('optim', 'optimal', 'data'), free=('mesh',))


# TensorStore's other writes end after Orbax has left their event loop; Python reports that from
# TensorStore's threads.
@pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')
def test_disk_full(tmp_path, caplog):
  """A file-size limit stands for a full disk: both come back from write(2). The second save is the
  big one.
  """
  big = {
    'params': {f'w{i}': jnp.ones((512, 512)) for i in range(6)},
    'opt_state': {},
    'step': jnp.int32(2),
  }
  soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  with (
    checkpoint.Checkpointer(tmp_path, keep_last=1) as checkpointer,
    caplog.at_level(logging.ERROR),
  ):
    checkpointer.save(1, make_state(1), PROVENANCE)
    checkpointer.wait()
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, hard))
    try:
      checkpointer.save(2, big, PROVENANCE)
      with pytest.raises(OSError) as caught:
        # the failure in the background surfaces here
        checkpointer.save(3, make_state(3), PROVENANCE)
    finally:
      resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.errno == errno.EFBIG and caught.value.filename == str(tmp_path)
    assert 'checkpoint 2 is not saved, the last good one is 1' in str(caught.value)
    assert '\n' not in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ['1']
    assert_same(checkpointer.restore(abstract(make_state())), make_state(1))
    checkpointer.save(3, make_state(3), PROVENANCE)  # room again
  assert not [r for r in caplog.records if r.exc_info]
  assert checkpoint_folders.locate(tmp_path).name == '3'


def test_too_little_room_is_found_before_writing(tmp_path, monkeypatch):
  usage = type('Usage', (), {'free': 100})
  with checkpoint.Checkpointer(saved(tmp_path), keep_last=1) as checkpointer:
    monkeypatch.setattr(checkpoint.shutil, 'disk_usage', lambda path: usage)
    monkeypatch.setattr(checkpointer._saver, 'save', None)
    with pytest.raises(
      OSError, match='No space left on device: checkpoint 2 is not saved, the last good one is 1'
    ):
      checkpointer.save(2, make_state(2), PROVENANCE)


def test_disk_full_while_writing_the_digest(tmp_path, monkeypatch):
  saved(tmp_path)

  def full(*_):
    raise OSError(errno.ENOSPC, 'No space left on device')

  monkeypatch.setattr(files, 'write_json', full)
  checkpointer = checkpoint.Checkpointer(tmp_path, keep_last=1)
  checkpointer.save(2, make_state(2), PROVENANCE)
  with pytest.raises(
    OSError, match=f'No space left on device: checkpoint 2 is not saved.*{re.escape(str(tmp_path))}'
  ):
    checkpointer.close()
  assert sorted(p.name for p in tmp_path.iterdir()) == ['1']


# Saves one checkpoint after the other, and kills itself when it is about to make, rename or remove
# a file or folder for the so many'th time.
VICTIM = """
import os, signal, sys, jax.numpy as jnp
from lm.weights import checkpoint
folder, left = sys.argv[1], int(sys.argv[2])

def count(event, arguments):
  global left
  changes = event in ('os.mkdir', 'os.remove', 'os.rename', 'os.rmdir') or (
    event == 'open' and arguments[1] and set(arguments[1]) & set('wax+'))
  if changes and str(arguments[0]).startswith(folder):
    left -= 1
    if left < 0:
      os.kill(os.getpid(), signal.SIGKILL)

with checkpoint.Checkpointer(folder, keep_last=2) as c:
  step = c.latest() or 0
  sys.addaudithook(count)
  while True:
    step += 1
    state = {'params': {'w': jnp.full((512, 512), step)}, 'opt_state': {}, 'step': jnp.int32(step)}
    c.save(step, state, {'step': step})
"""


# How many changes of the disk each of the victims makes: a checkpoint takes about 50.
CHANGES = (75, 90, 110, 140, 175)


@pytest.mark.slow
def test_kill_at_any_moment_leaves_a_good_last_checkpoint(tmp_path):
  root = pathlib.Path(checkpoint.__file__).parents[2]
  last = 0
  for changes in CHANGES:
    command = [sys.executable, '-c', VICTIM, str(tmp_path), str(changes)]
    assert subprocess.run(command, cwd=root).returncode == -signal.SIGKILL
    found = int(checkpoint_folders.locate(tmp_path).name)
    assert found >= last
    last = found
    params, provenance = checkpoint_arrays.load_params(
      tmp_path, {'w': jax.ShapeDtypeStruct((512, 512), jnp.int32)}
    )
    assert np.unique(np.asarray(params['w'])).tolist() == [found] and provenance == {'step': found}
  assert last > len(CHANGES)
  with checkpoint.Checkpointer(tmp_path, keep_last=2) as checkpointer:
    assert [p.name for p in tmp_path.iterdir() if not p.name.isdecimal()] == [] and len(
      checkpointer.steps()
    ) <= 3


def test_code_version_is_the_commit_or_the_package_version(tmp_path, monkeypatch):
  package = tmp_path / 'lm' / 'weights' / 'checkpoint.py'
  package.parent.mkdir(parents=True)
  package.write_text('1')
  monkeypatch.setattr(origin, '__file__', str(package))
  assert re.fullmatch(r'deepdive-lm \d+\.\d+.*', origin.code_version())

  def git(*command):
    identity = ['-c', 'user.name=a', '-c', 'user.email=a@b']
    command = ['git', '-C', tmp_path, *identity, *command]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout

  git('init')
  git('add', '.')
  git('commit', '-m', 'first')
  commit = git('rev-parse', 'HEAD').strip()
  assert origin.code_version() == commit
  package.write_text('2')
  assert origin.code_version() == commit + '-dirty'
