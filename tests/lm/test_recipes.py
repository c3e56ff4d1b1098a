"""The jobs of a recipe: run, skipped, resumed, killed, measured.

The jobs are functions of a script that is written here.
"""

import contextlib
import importlib
import itertools
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import commands
import pytest
from refusals import refused

from lm.launch import recipes
from lm.launch.recipes import Job

ROOT = pathlib.Path(recipes.__file__).parents[2]
SCRIPT = """
import errno, os, pathlib, signal, subprocess, sys, time
from lm.base import errors
from lm.launch import recipes

def note(path, text):
  with open(path, 'a') as f:
    f.write(f'{text}\\n')

def fail(kind, text):
  disk = OSError(errno.ENOSPC, text, '/some/dir')
  raise {'user': errors.UserError(field='port', value=text), 'bug': TypeError(text), 'disk': disk}[kind]

def die(number):
  os.kill(os.getpid(), number)

def hold(megabytes, record):
  'Half of it here, half in a process of its own, until the record was written twice meanwhile.'
  code = f'x = bytearray({megabytes} << 19); print(flush=True); input()'
  pipes = {'stdin': subprocess.PIPE, 'stdout': subprocess.PIPE}
  with subprocess.Popen([sys.executable, '-c', code], **pipes) as other:
    x = bytearray(megabytes << 19)
    other.stdout.readline()
    for _ in range(2):
      before = record.stat().st_mtime_ns
      while record.stat().st_mtime_ns == before:
        time.sleep(0.01)

def linger(path, seconds=600):
  child = subprocess.Popen([sys.executable, '-c', f'import time; time.sleep({seconds})'])
  note(path, f'{os.getpid()} {child.pid}')
  try:
    time.sleep(seconds)
  except KeyboardInterrupt:
    note(path, 'asked to stop')
    raise

def leave(path):
  note(path, subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']).pid)
  forked = os.fork()
  if not forked:
    time.sleep(600)
  note(path, forked)

def main():
  workdir = pathlib.Path(sys.argv[1])
  recipes.run_jobs(workdir, [
    recipes.Job('first', note, (workdir / 'log', 'first'), 'f1'),
    recipes.Job('second', linger, (workdir / 'pids', float(sys.argv[2])), 'f2'),
  ])

if __name__ == '__main__':
  signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs, perhaps these tests, ignore it
  errors.run(main)
"""


@pytest.fixture
def script(tmp_path, monkeypatch):
  folder = tmp_path / 'script'
  folder.mkdir()
  (folder / 'recipe_script.py').write_text(SCRIPT)
  monkeypatch.syspath_prepend(folder)
  sys.modules.pop('recipe_script', None)
  return importlib.import_module('recipe_script')


@contextlib.contextmanager
def started(script, workdir, seconds=600):
  """The script as a process; yields it and the pids of its second stage and of the process that
  that one started.
  """
  command = [sys.executable, script.__file__, workdir, str(seconds)]
  environment = os.environ | {'PYTHONPATH': str(ROOT)}
  pids = workdir / 'pids'
  pids.unlink(missing_ok=True)
  with subprocess.Popen(
    command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
  ) as process:
    try:
      wait_for(lambda: pids.exists() and pids.read_text().endswith('\n'), process)
      yield process, [int(x) for x in pids.read_text().split()]
    finally:
      process.kill()


def wait_for(condition, process=None):
  """Waits until the condition holds; fails if a process that has to bring it about ends before."""
  while not condition():
    assert process is None or process.poll() is None or condition(), process.communicate()
    time.sleep(0.02)


def running(pid):
  try:
    return pathlib.Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0] != 'Z'
  except OSError:
    return False


def record(workdir, name):
  return json.loads((workdir / 'stages' / f'{name}.json').read_text())


@pytest.mark.slow
def test_runs_in_order_then_skips_what_is_complete(script, tmp_path, capfd):
  log = tmp_path / 'log'
  recipe = [
    Job('a', script.note, (log, 'a'), 'fa', ('log',)),
    Job('b', script.note, (log, 'b'), 'fb'),
  ]
  times = itertools.chain([100.0], itertools.repeat(107.5))
  recipes.run_jobs(tmp_path, recipe, clock=lambda: next(times))
  assert log.read_text() == 'a\nb\n'
  assert '[1/2] a: starting ...\n' in capfd.readouterr().out
  a = record(tmp_path, 'a')
  assert a['complete'] and a['fingerprint'] == 'fa' and a['seconds'] == 7.5
  recipes.run_jobs(tmp_path, [*recipe, Job('c', script.note, (log, 'c'), 'fc')])
  assert log.read_text() == 'a\nb\nc\n'
  assert '[1/3] a: complete, skipped (' in capfd.readouterr().out
  assert record(tmp_path, 'a') == a
  log.unlink()  # the output of a
  recipes.run_jobs(tmp_path, recipe)
  assert log.read_text() == 'a\n'


@pytest.mark.slow
def test_another_config_is_refused_before_anything_runs(script, tmp_path):
  log = tmp_path / 'log'

  def run(fingerprint, lr):
    settings = {'optim': {'lr': lr, 'betas': (0.9, 0.95)}}
    first = Job('a', script.note, (log, 'a'), 'fa', ('absent',))
    recipes.run_jobs(
      tmp_path, [first, Job('b', script.note, (log, 'b'), fingerprint, settings=settings)]
    )

  run('f1', 0.1)
  before = log.read_text()
  with refused("optim.lr of job 'b'", 0.2) as raised:
    run('f2', 0.2)
  assert raised.value.allowed.startswith('0.1')
  with refused("fingerprint of job 'b'", 'f2'):
    run('f2', 0.1)
  assert log.read_text() == before
  run('f1', 0.1)  # as it was: goes on


@pytest.mark.slow
def test_a_complete_job_runs_again_for_a_setting_that_changes_no_number(script, tmp_path):
  log = tmp_path / 'log'

  def run(lr, every):
    settings = {'optim': {'lr': lr}, 'eval': {'every': every}}
    job = Job('a', script.note, (log, 'a'), f'f{lr}', settings=settings, free=('eval',))
    recipes.run_jobs(tmp_path, [job])
    return log.read_text()

  assert [run(0.1, every) for every in (1, 1, 2, 2)] == ['a\n', 'a\n', 'a\na\n', 'a\na\n']
  with refused("optim.lr of job 'a'", 0.2):
    run(0.2, 3)


@pytest.mark.slow
@pytest.mark.parametrize(
  ('kind', 'expected'),
  [
    ('user', refused('port', 'taken')),
    ('disk', pytest.raises(OSError, match=r"^\[Errno 28\] taken: '/some/dir'$")),
  ],
)
def test_an_error_for_the_user_arrives_as_it_was(script, tmp_path, capfd, kind, expected):
  with expected:
    recipes.run_jobs(tmp_path, [Job('a', script.fail, (kind, 'taken'), 'f')])
  assert 'Traceback' not in capfd.readouterr().err
  assert not record(tmp_path, 'a')['complete']


@pytest.mark.slow
def test_a_fault_of_ours_prints_its_traceback_and_names_the_job(script, tmp_path, capfd):
  with refused("exit status of job 'a'", 1, '0'):
    recipes.run_jobs(
      tmp_path,
      [Job('a', script.fail, ('bug', 'oh'), 'f'), Job('b', script.note, (tmp_path, 'b'))],
    )
  assert 'TypeError: oh' in capfd.readouterr().err
  assert not (tmp_path / 'stages' / 'b.json').exists()
  with refused("exit status of job 'c'", -signal.SIGKILL) as raised:
    recipes.run_jobs(tmp_path, [Job('c', script.die, (signal.SIGKILL,))])
  assert 'SIGKILL (out of memory?)' in raised.value.message


@pytest.mark.slow
def test_peak_memory_is_that_of_the_whole_family(script, tmp_path, monkeypatch):
  monkeypatch.setattr(recipes, 'SAMPLE_SECONDS', 0.05)
  sizes = {'small': 0, 'big': 400}
  recipes.run_jobs(
    tmp_path,
    [
      Job(name, script.hold, (megabytes, tmp_path / 'stages' / f'{name}.json'))
      for name, megabytes in sizes.items()
    ],
  )
  small, big = (record(tmp_path, name)['peak_rss_bytes'] for name in ('small', 'big'))
  assert 5e6 < small < 150e6
  assert 400 * 2**20 < big < 550 * 2**20


def test_what_a_job_leaves_running_is_ended(script, tmp_path):
  recipes.run_jobs(tmp_path, [Job('a', script.leave, (tmp_path / 'pid',))])
  pids = [int(pid) for pid in (tmp_path / 'pid').read_text().split()]
  assert len(pids) == 2
  wait_for(lambda: not any(running(pid) for pid in pids))


@pytest.mark.slow
def test_kill_of_the_parent_ends_all_and_the_next_run_goes_on(script, tmp_path):
  with started(script, tmp_path) as (process, pids):
    assert all(running(pid) for pid in pids)
    wait_for(lambda: record(tmp_path, 'second')['seconds'] > 0.5, process)
    os.kill(process.pid, signal.SIGKILL)
    wait_for(lambda: not any(running(pid) for pid in pids))
  spent = record(tmp_path, 'second')
  assert record(tmp_path, 'first')['complete'] and not spent['complete']
  with started(script, tmp_path, seconds=0.1) as (process, _):
    out, _ = process.communicate()
    assert process.returncode == 0 and '[2/2] second: going on ...' in out
  assert (tmp_path / 'log').read_text() == 'first\n'
  assert (
    record(tmp_path, 'second')['complete']
    and record(tmp_path, 'second')['seconds'] > spent['seconds'] > 0.5
  )


@pytest.mark.slow
@pytest.mark.parametrize(('number', 'status'), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_reaches_the_job_and_ends_the_run(script, tmp_path, number, status):
  with started(script, tmp_path) as (process, pids):
    process.send_signal(number)
    process.communicate()
    assert process.returncode == status
    assert not any(running(pid) for pid in pids)
  assert ('asked to stop' in (tmp_path / 'pids').read_text()) == (number == signal.SIGINT)
  assert not record(tmp_path, 'second')['complete'] and record(tmp_path, 'second')['seconds'] > 0


@pytest.mark.slow
def test_two_runs_never_share_a_folder(script, tmp_path, monkeypatch):
  monkeypatch.setattr(recipes, 'LOCK_SECONDS', 0)
  with started(script, tmp_path) as (process, pids):
    with refused(tmp_path, f'process {process.pid} uses it'):
      recipes.run_jobs(tmp_path, [])
    os.kill(pids[0], signal.SIGSTOP)  # cannot notice that its parent is gone
    while pathlib.Path(f'/proc/{pids[0]}/stat').read_text().rpartition(') ')[2][0] != 'T':
      time.sleep(0.01)
    process.kill()
    process.wait()
    with refused(tmp_path, allowed='free'):
      recipes.run_jobs(tmp_path, [])
    os.kill(pids[0], signal.SIGCONT)
  monkeypatch.setattr(recipes, 'LOCK_SECONDS', float('inf'))
  recipes.run_jobs(tmp_path, [])  # once the job has noticed


def test_imports_no_jax():
  code = 'import sys; from lm.launch import recipes; assert not {"jax", "flax", "orbax"} & set(sys.modules)'
  assert commands.run('-c', code) == (0, '', '')
