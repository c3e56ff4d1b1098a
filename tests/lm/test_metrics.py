"""Metrics files against what was written, and against TensorBoard's own record format read by
hand.
"""

import json
import pathlib
import signal
import struct
import subprocess
import sys

import numpy as np
import pytest
from refusals import refused
from tensorboardX.proto import event_pb2

from lm.base import metrics


def events(workdir):
  """All (step, tag, value) in the event files: length-prefixed protocol buffers with two
  checksums.
  """
  found = []
  for path in sorted(workdir.glob('events.out.tfevents.*')):
    content = path.read_bytes()
    while content:
      (size,) = struct.unpack('<Q', content[:8])
      event = event_pb2.Event.FromString(content[12 : 12 + size])
      for v in event.summary.value:
        found.append(
          (
            event.step,
            v.tag,
            v.tensor.string_val[0].decode() if v.tensor.string_val else v.simple_value,
          )
        )
      content = content[16 + size :]
  return found


def write(workdir, steps, resume_step=None):
  with metrics.Metrics(workdir, resume_step) as m:
    for step in steps:
      m.write(step, {'train/loss': 1 / (step + 1), 'data/epoch': step})
      m.text(step, 'sample', f'text {step}\né')
      m.rollouts(step, [{'reward': 0.5}, {'reward': 1.0}])


def test_lines_and_events_hold_what_was_written(tmp_path):
  with metrics.Metrics(tmp_path / 'run') as m:
    m.write(0, {'train/loss': np.float32(1.25), 'perf/tokens': 12})
    m.text(0, 'sample', 'a <b>\nc')
    # Flushed at once: readable before the file is closed.
    assert metrics.read(tmp_path / 'run') == [{'step': 0, 'train/loss': 1.25, 'perf/tokens': 12}]
    assert json.loads((tmp_path / 'run' / 'samples.jsonl').read_text()) == {
      'step': 0, 'name': 'sample', 'text': 'a <b>\nc'
    }  # fmt: skip
  found = events(tmp_path / 'run')
  assert (0, 'train/loss', 1.25) in found and (0, 'perf/tokens', 12.0) in found
  assert [text for _, tag, text in found if tag.startswith('sample')] == ['    a <b>\n    c']


def test_what_is_not_finite_becomes_null(tmp_path):
  """It is left out of TensorBoard, whose library would warn of each."""
  with metrics.Metrics(tmp_path) as m:
    m.write(1, {'a': float('nan'), 'b': np.float32('inf'), 'c': 1.0})
  assert metrics.read(tmp_path) == [{'step': 1, 'a': None, 'b': None, 'c': 1.0}]
  assert 'NaN' not in (tmp_path / 'metrics.jsonl').read_text()
  assert [event[:2] for event in events(tmp_path)] == [(1, 'c')]


@pytest.mark.parametrize('torn', ['', '{"step": 9, "train/lo'])
def test_a_resumed_run_leaves_the_files_of_an_unbroken_one(tmp_path, torn):
  write(tmp_path / 'unbroken', range(10))
  write(tmp_path / 'broken', range(8))
  for name in metrics.JSONL:
    with open(tmp_path / 'broken' / name, 'a') as f:
      f.write(torn)
  write(tmp_path / 'broken', range(6, 10), resume_step=5)
  for name in metrics.JSONL:
    assert (tmp_path / 'broken' / name).read_bytes() == (tmp_path / 'unbroken' / name).read_bytes()


def test_starting_anew_removes_what_was_there(tmp_path):
  write(tmp_path, range(3))
  (tmp_path / 'events.out.tfevents.1.old').write_bytes(b'')
  write(tmp_path, range(2))
  assert len(list(tmp_path.glob('events*'))) == 1
  assert [line['step'] for line in metrics.read(tmp_path)] == [0, 1]
  assert max(step for step, _, _ in events(tmp_path)) == 1


def test_a_torn_last_line_is_not_read_and_a_corrupt_one_is_named(tmp_path):
  path = tmp_path / 'metrics.jsonl'
  path.write_text('{"step": 1}\n{"step": 2')
  assert metrics.read(tmp_path) == [{'step': 1}]
  path.write_text('{"step": 1}\n{"step": \n{"step": 3}\n')
  for call in (metrics.read, lambda d: metrics.Metrics(d, resume_step=3)):
    with refused(f'line 2 of {path}', b'{"step": ', 'JSON'):
      call(tmp_path)
  with pytest.raises(FileNotFoundError, match='nowhere'):
    metrics.read(tmp_path / 'nowhere')


def test_every_line_survives_a_kill(tmp_path):
  code = 'import os, signal, sys; from lm.base.metrics import Metrics; m = Metrics(sys.argv[1]); '
  code += '[m.write(i, {"x": i}) for i in range(50)]; os.kill(os.getpid(), signal.SIGKILL)'
  root = pathlib.Path(metrics.__file__).parents[2]
  assert (
    subprocess.run([sys.executable, '-c', code, tmp_path], cwd=root).returncode == -signal.SIGKILL
  )
  assert [line['x'] for line in metrics.read(tmp_path)] == list(range(50))


@pytest.mark.slow
def test_peak_memory_counts_what_was_freed():
  code = (
    'from lm.base.metrics import peak_rss_bytes as p; a = p(); b = bytearray(300 << 20); del b; '
    'print(a, p())'
  )
  root = pathlib.Path(metrics.__file__).parents[2]
  a, b = map(int, subprocess.check_output([sys.executable, '-c', code], cwd=root).split())
  assert 5e6 < a < 200e6 and 300e6 < b - a < 330e6


def test_clock_tells_the_parts_of_a_run_apart():
  now = [0.0]

  def spend(seconds):
    now[0] += seconds

  clock = metrics.Clock(lambda: now[0])
  spend(10)
  with clock.part('eval'):
    spend(5)
  clock.started()
  with clock.part('compile'):
    spend(20)
  clock.first_step()
  for _ in range(2):
    with clock.part('input'):
      spend(1)
    with clock.part('step'):
      spend(3)
    spend(1)
    clock.step(50, 100.0)
    clock.first_step()
  first = clock.read()
  assert {name: value for name, value in first.items() if name.startswith('perf/')} == {
    'perf/step_s': 5,
    'perf/input_s': 1,
    'perf/tokens_per_s': 10,
    'perf/model_flops_per_s': 20,
    'perf/first_step_s': 20,
  }
  shares = {
    name.partition('/')[2]: value * 45
    for name, value in first.items()
    if name.startswith('goodput/')
  }
  assert shares == pytest.approx(
    {
      'start': 10,
      'eval': 5,
      'compile': 20,
      'input': 2,
      'rollout': 0,
      'score': 0,
      'step': 6,
      'save': 0,
    }
  )
  spend(3)
  with clock.part('step'), clock.part('save'):
    spend(10)
  clock.step(6, 0.5)
  second = clock.read()
  assert {name: value for name, value in second.items() if name.startswith('perf/')} == {
    'perf/step_s': 3,
    'perf/input_s': 0,
    'perf/tokens_per_s': 2,
    'perf/model_flops_per_s': 1 / 6,
  }
  assert second['goodput/save'] == 10 / 58 and second['goodput/step'] == pytest.approx(6 / 58)


def test_clock_books_rollouts_beside_the_step_that_they_are_for():
  now = [0.0]
  clock = metrics.Clock(lambda: now[0])
  clock.started()
  # the last learns nothing
  for rollout_s, step_s, tokens in ((100, 10, 40), (8, 2, 10), (5, 0.5, 0)):
    with clock.part('input'):
      now[0] += 0.25
      with clock.part('rollout'):
        now[0] += rollout_s
    with clock.part('step'):
      now[0] += step_s
    clock.step(tokens, 6.0 * tokens)
    read = clock.read()
    assert (read['perf/rollout_s'], read['perf/step_s'], read['perf/input_s']) == (
      rollout_s,
      step_s + 0.25,
      0.25,
    )
    assert read['perf/tokens_per_s'] == pytest.approx(tokens / (step_s + 0.25))
    assert read['perf/model_flops_per_s'] == pytest.approx(6 * tokens / (step_s + 0.25))


def test_only_an_active_writer_writes_and_a_rewind_takes_lines_back(tmp_path):
  with metrics.Metrics(tmp_path / 'other', active=False) as m:
    m.write(1, {'a': 1})
    m.text(1, 'a', 'b')
    m.rewind(0)
  assert not (tmp_path / 'other').exists()
  with metrics.Metrics(tmp_path) as m:
    for step in range(4):
      m.write(step, {'a': step})
    m.rewind(1)
    m.write(2, {'a': 20})
  assert [line['a'] for line in metrics.read(tmp_path)] == [0, 1, 20]
