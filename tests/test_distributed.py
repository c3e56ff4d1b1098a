"""Runs of several processes on this machine, each with a device of its own, against runs of one."""

import json
import os
import random
import signal
import time

import commands
import pytest
import tiny

from lm.base.errors import UserError
from lm.parallel import distributed


@pytest.mark.parametrize('given, field, value', [
  (('h:1', None, None), '--num-processes', None),
  (('h:1', 2, None), '--process-id', None),
  ((None, 2, 0), '--coordinator', None),
  (('h:1', 2, 2), '--process-id', 2),
])  # fmt: skip
def test_half_a_description_of_the_run_is_an_error(given, field, value):
  with pytest.raises(UserError) as raised:
    distributed.initialize(*given, heartbeat_seconds=10)
  assert (raised.value.field, raised.value.value) == (field, value)


def test_who_is_taken_for_one_of_several(monkeypatch):
  begun = []
  monkeypatch.setattr(
    distributed.jax.distributed, 'initialize', lambda *args, **_: begun.append(args)
  )
  for name in ('SLURM_STEP_NUM_TASKS', 'OMPI_COMM_WORLD_SIZE'):
    monkeypatch.delenv(name, raising=False)
  distributed.initialize(None, None, None, 10)
  monkeypatch.setenv('SLURM_STEP_NUM_TASKS', '1')  # a lone task
  distributed.initialize(None, None, None, 10)
  assert begun == []
  monkeypatch.setenv('SLURM_STEP_NUM_TASKS', '4')
  distributed.initialize(None, 1, None, 10)  # told to stay alone
  assert begun == []
  distributed.initialize(None, None, None, 10)
  distributed.initialize('h:1', 2, 1, 10)
  assert begun == [(None, None, None), ('h:1', 2, 1)]


# In each process: a run of train.py, and how many rows of training and of held-out data it read.
COUNT = """
import json, os, sys
import train
from data.shards import loader
rows = {'train': 0, 'val': 0}
read = loader.Loader.rows_of

def rows_of(self, examples):
  rows['val' if self._pad_last else 'train'] += len(examples)
  return read(self, examples)

loader.Loader.rows_of = rows_of
number = next((a.partition('=')[2] for a in sys.argv if a.startswith('--process-id')), '0')
folder = sys.argv.pop(1)
train.main()
with open(f'{folder}/rows.{number}', 'w') as file:
  json.dump(rows, file)
"""


def counted(folder, count, *arguments):
  """The rows that each of `count` processes read; the run is folder/run."""
  command = '-c', COUNT, folder, *arguments, f'--workdir={folder / "run"}'
  folder.mkdir()
  processes = (
    commands.start_many(count, folder, *command, anew=False)
    if count > 1
    else [commands.start(folder / 'log.0', *command, anew=False)]
  )
  assert commands.end(processes) == [0] * count, (folder / 'log.0').read_text()
  return [json.loads((folder / f'rows.{i}').read_text()) for i in range(count)]


SHARED = tiny.arguments(
  'lm/model/*.py',
  steps=8,
  checkpoint__every=4,
  data__held_out=0.05,
  eval__every=4,
  eval__prompts="('the',)",
  optim__lr=1e-3,
)[1:]


@pytest.fixture(scope='module')
def alone(tmp_path_factory):
  """The folder of a run of one process, and how many rows it read."""
  folder = tmp_path_factory.mktemp('alone') / 'a'
  (rows,) = counted(folder, 1, *SHARED)
  return folder, rows


@pytest.mark.slow
def test_several_processes_train_as_one_and_each_reads_its_rows(alone, tmp_path):
  alone, rows = alone
  together, parts = tmp_path / 'together', 2  # the processes of a tensor axis hold the same rows
  axes = '--config.mesh.data=1', '--config.mesh.fsdp=2', '--config.mesh.tensor=2'
  shares = counted(together, 4, *SHARED, *axes)
  # Reading ahead goes past what is trained on by as much as the queue holds, and never past the
  # last step.
  assert rows['train'] == 8 * 8 and all(
    share == {'train': 64 // parts, 'val': rows['val'] // parts} for share in shares
  )
  one, many = tiny.lines(alone / 'run'), tiny.lines(together / 'run')
  assert [line['step'] for line in one] == [line['step'] for line in many] and len(one) == 11
  for a, b in zip(one, many, strict=True):
    assert a == pytest.approx(b, rel=2e-4)
  samples = [
    (folder / 'run' / 'samples.jsonl').read_text().count('\n') for folder in (alone, together)
  ]
  assert samples == [2, 2]
  assert len(list((together / 'run').glob('events.out.tfevents.*'))) == 1
  assert sorted(p.name for p in (together / 'run' / 'checkpoints').iterdir()) == ['4', '8']
  reports = [
    json.loads((folder / 'run' / 'report.json').read_text()) for folder in (alone, together)
  ]
  assert reports[0]['pretrain'] == pytest.approx(reports[1]['pretrain'], rel=1e-4)


@pytest.mark.slow
def test_two_processes_evaluate_as_one(alone, tmp_path):
  """Each reads its rows of the held-out text, and process 0 writes the report."""
  run = alone[0] / 'run'
  arguments = (
    'eval.py',
    '--config=configs/eval.py:smoke',
    f'--checkpoint={run}',
    f'--config.data.val={run}/data/val/manifest.json',
    '--config.seq_len=128',
  )
  status, _, err = commands.call(*arguments, f'--out={tmp_path}/1.json')
  assert status == 0, err
  many = commands.start_many(2, tmp_path / 'logs', *arguments, f'--out={tmp_path}/2.json')
  assert commands.end(many) == [0, 0]
  one, two = (json.loads((tmp_path / f'{n}.json').read_text()) for n in (1, 2))
  assert two['val_bpb'] == pytest.approx(one['val_bpb'], rel=1e-5)
  assert two['scores'] == one['scores'] and two['continuations'] == one['continuations']


@pytest.mark.slow
def test_two_processes_sample_grade_and_learn_as_one(tmp_path):
  command = 'train.py', '--config=configs/rl.py:smoke', '--config.steps=2'
  status, _, err = commands.call(*command, f'--workdir={tmp_path / "one"}')
  assert status == 0, err
  processes = commands.start_many(2, tmp_path, *command, f'--workdir={tmp_path / "two"}')
  assert commands.end(processes) == [0, 0], (tmp_path / 'log.0').read_text()
  one, two = (tiny.lines(tmp_path / name) for name in ('one', 'two'))
  assert len(one) == len(two) and one[0]['train/weight'] > 0
  first, other = (
    {name: value for name, value in line.items() if value is not None} for line in (one[0], two[0])
  )
  assert first == pytest.approx(other, rel=1e-3)  # later draws may turn on a rounding
  scores = [
    json.loads((tmp_path / name / 'report.json').read_text())['scores'] for name in ('one', 'two')
  ]
  assert scores[0].keys() == scores[1].keys() and scores[1]['arithmetic']['n'] == 8


@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory):
  """The command of a run of two processes, which hold half of each parameter, and the folder of one
  that nothing disturbed.
  """
  folder = tmp_path_factory.mktemp('undisturbed')
  fields = {'steps': 120, 'checkpoint__every': 20, 'mesh__data': 1, 'mesh__fsdp': 2}
  command = (
    *tiny.arguments(tiny.write_text(folder / 'text.txt'), **fields),
    '--heartbeat-seconds=10',
  )
  # Interpreters of their own, whose hashes of strings differ: nothing may depend on those.
  run = f'--workdir={folder / "run"}'
  processes = commands.start_many(2, folder, *command, run, anew=True)
  assert commands.end(processes) == [0, 0], (folder / 'log.0').read_text()
  return command, folder / 'run'


# In each process: the last checkpoint of a run onto meshes of this run's own, and the digests of
# all bits of the state.
RESTORE = """
import hashlib, sys, pathlib
coordinator, count, number, run, *meshes = sys.argv[1:]
from lm.parallel import distributed
distributed.initialize(coordinator or None, int(count), int(number), 30)
import jax, numpy as np
from configs import base
from lm import stages
from lm.weights import checkpoint, checkpoint_folders
from lm.model import transformer
from lm.train import program
from lm.parallel import sharding
c = base.get_config()
stored = checkpoint_folders.provenance(checkpoint_folders.locate(run))['config']
c.optim.update(stored['optim'])
c.steps = stored['steps']
c.model.update({k: tuple(v) if isinstance(v, list) else v for k, v in stored['model'].items()})
saved = checkpoint.Checkpointer(pathlib.Path(run) / 'checkpoints', keep_last=9)
for axes in meshes:
  c.mesh.update(data=1, fsdp=1, tensor=1)
  c.mesh.update({name: int(size) for name, size in (axis.split('=') for axis in axes.split(','))})
  mesh = sharding.make_mesh(c.mesh, jax.devices()[:c.mesh.data * c.mesh.fsdp * c.mesh.tensor])
  jax.set_mesh(mesh)
  prog = program.make(c, stages.make(c), transformer.sized(c.model, c.model.vocab_size), mesh)
  state = saved.restore(prog.state, saved.sound())
  assert any(not x.is_fully_replicated for x in jax.tree.leaves(state)) == (mesh.size > 1)
  bits = b''.join(np.asarray(x).tobytes() for x in jax.tree.leaves(distributed.fetch(state)))
  print('digest', axes, hashlib.sha256(bits).hexdigest())
"""


def restore(log, *arguments, **environment):
  """A process of RESTORE."""
  return commands.start(log, '-c', RESTORE, *arguments, anew=False, **environment)


@pytest.mark.slow
def test_a_checkpoint_is_restored_to_the_bit_by_other_numbers_of_processes_and_meshes(
  undisturbed, tmp_path
):
  _, run = undisturbed
  address = f'127.0.0.1:{commands.free_port()}'
  eight = f'{commands.ENVIRONMENT["XLA_FLAGS"]} --xla_force_host_platform_device_count=8'
  alone = 'data=1', 'fsdp=8', 'tensor=2', 'fsdp=2,tensor=2'
  processes = [
    restore(tmp_path / 'alone', '', 1, 0, run, *alone, XLA_FLAGS=eight),
    *(restore(tmp_path / f'log.{i}', address, 4, i, run, 'fsdp=4') for i in range(4)),
  ]
  logs = [tmp_path / name for name in ('alone', 'log.0', 'log.1', 'log.2', 'log.3')]
  assert commands.end(processes) == [0] * 5, [log.read_text() for log in logs]
  found = [
    line.split()[1:]
    for log in logs
    for line in log.read_text().splitlines()
    if line.startswith('digest')
  ]
  assert [axes for axes, _ in found] == [*alone, *['fsdp=4'] * 4]
  assert len({digest for _, digest in found}) == 1


def wait_for(condition, processes, folder):
  """Waits until the condition holds; fails if a process ends before."""
  while not condition():
    for i, process in enumerate(processes):
      assert process.poll() is None, (folder / f'log.{i}').read_text()
    time.sleep(0.02)


def logged(run):
  """The number of lines of metrics that a run has written."""
  path = run / 'metrics.jsonl'
  return path.read_bytes().count(b'\n') if path.exists() else 0


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_chaos(undisturbed, tmp_path):
  """A run of two processes loses one again and again, which ends the other with an error, or is
  told to stop; its last parameters are the unbroken run's.
  """
  command, whole = undisturbed
  run, logs = tmp_path / 'broken', tmp_path / 'logs'
  kill, stop = signal.SIGKILL, signal.SIGTERM
  rng = random.Random(0)
  for number, victim in [(kill, 1), (stop, 1), (kill, 0)]:
    processes = commands.start_many(2, logs, *command, f'--workdir={run}')
    lines = logged(run) + rng.randint(1, 25)
    wait_for(lambda lines=lines: logged(run) >= lines, processes, logs)
    os.kill(processes[victim].pid, number)
    statuses = commands.end(processes)
    if number == stop:
      assert statuses == [0, 0], (logs / 'log.0').read_text()
    else:
      assert statuses[victim] == -kill and statuses[1 - victim] not in (0, -kill)
    assert not (run / 'report.json').exists()
  assert commands.end(commands.start_many(2, logs, *command, f'--workdir={run}')) == [0, 0]
  assert tiny.lines(run) == tiny.lines(whole)
  assert tiny.parameters(run) == tiny.parameters(whole)
