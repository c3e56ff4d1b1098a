"""Requests to stop, jumps over data, and the refusal of bad steps, against hand-made sequences."""

import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lm.base import files
from lm.train import faults, train_step


def test_which_batch_an_update_reads_after_jumps(tmp_path):
  jumps = faults.Jumps(tmp_path / 'jumps.json')
  assert jumps.ranges(0, 10) == [(0, 10)]
  jumps.add(4, 3)  # batches 4, 5, 6
  jumps.add(4, 1)  # and 7: the same checkpoint was gone back to again
  jumps.add(6, 2)  # updates 4, 5 read 8, 9; 10, 11 are left out
  for same in (jumps, faults.Jumps(tmp_path / 'jumps.json')):
    assert [same.batch(update) for update in range(10)] == [0, 1, 2, 3, 8, 9, 12, 13, 14, 15]
    assert same.ranges(0, 10) == [(0, 4), (8, 10), (12, 16)]
    assert same.ranges(4, 10) == [(8, 10), (12, 16)]
    assert same.ranges(7, 10) == [(13, 16)]
    assert same.ranges(10, 10) == []
  jumps.clear()
  assert files.read_json(tmp_path / 'jumps.json') == [] and jumps.batch(9) == 9


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_request_waits_while_it_is_looked_for_and_ends_the_process_otherwise(number):
  before = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]
  with faults.Stop() as stop:
    stop.polled(True)
    assert not stop.asked()
    signal.raise_signal(number)
    assert stop.asked() and stop.asked()
    with pytest.raises(KeyboardInterrupt):
      signal.raise_signal(signal.SIGINT)
    with pytest.raises(SystemExit) as ended:
      stop.polled(False)  # it came after the last look
    assert ended.value.code == 0
  with pytest.raises(SystemExit) as ended, faults.Stop() as stop:
    signal.raise_signal(number)
  assert ended.value.code == 0
  assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] == before


def run(losses, spike, schedule=lambda updates: updates.astype(jnp.float32)):
  """The metrics and last state of steps whose losses are given; the parameter falls by 1 in each
  that is taken.
  """
  tx = optax.sgd(1.0)

  def loss_fn(params, batch, key):
    one = jnp.float32(1)
    total = params['x'] - jax.lax.stop_gradient(params['x']) + batch['loss']
    return {'train/total': (total, one), 'train/loss': (batch['loss'], one)}

  step = jax.jit(train_step.make_train_step(loss_fn, tx, schedule, spike=spike))
  state, seen = train_step.init_state({'x': jnp.float32(0)}, tx), []
  for loss in losses:
    state, metrics = step(state, {'loss': jnp.full((1,), loss, jnp.float32)}, 1)
    seen.append({name: float(value) for name, value in metrics.items()})
  return seen, state


def test_spikes_and_what_is_not_finite_are_refused_and_counted():
  rng = np.random.default_rng(0)
  plain = rng.uniform(1, 2, 100).tolist()
  # the first 9 comes before FEWEST
  losses = [*plain[:5], 9.0, *plain[5:60], np.nan, 7.0, *plain[60:], 2.2, np.inf, 8.0]
  seen, state = run(losses, spike=3.0)
  accepted, expected = [], []
  for loss in losses:
    median = (
      sorted(accepted[-train_step.RECENT :])[(len(accepted[-train_step.RECENT :]) - 1) // 2]
      if accepted
      else np.nan
    )
    bad = not np.isfinite(loss) or (len(accepted) >= train_step.FEWEST and loss > 3 * median)
    expected.append(bad)
    accepted += [] if bad else [loss]
  assert [bool(m['train/bad']) for m in seen] == expected and sum(expected) == 4
  assert [m['train/finite'] == 0 for m in seen] == [not np.isfinite(loss) for loss in losses]
  assert seen[-1]['train/bad_steps'] == 4
  assert seen[-1]['train/spike'] == pytest.approx(8.0 / np.median(accepted[-64:]), rel=0.05)
  assert float(state['params']['x']) == -len(accepted) and int(state['updates']) == len(accepted)
  assert int(state['step']) == len(losses)
  # The schedule is that of the updates made: a skipped one does not use up a learning rate.
  assert [m['opt/lr'] for m in seen] == [
    sum(not bad for bad in expected[:i]) for i in range(len(losses))
  ]


def test_without_a_limit_no_finite_loss_is_a_spike():
  seen, state = run([1.0] * 20 + [1e6], spike=0.0)
  assert (
    not any(m['train/bad'] for m in seen)
    and 'train/spike' not in seen[0]
    and int(state['updates']) == 21
  )


@pytest.mark.parametrize(
  'losses, median',
  [
    ([1.0] * 32 + [4.0] * 32, 1),
    ([1.0] * 32 + [4.0] * 33, 4),
    ([4.0] + [1.0] * 31 + [4.0] * 32, 4),
  ],
)
def test_a_spike_is_measured_by_the_lower_median_of_the_last_64_losses(losses, median):
  seen, _ = run([*losses, 8.0], spike=100.0)
  assert seen[-1]['train/spike'] == 8 / median
