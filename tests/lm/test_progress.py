"""Progress bars on terminals and in log files, by a clock that the test turns."""

import io
import sys

import pytest
import tqdm.std

from lm.base import progress


class Stream(io.StringIO):
  def __init__(self, terminal):
    super().__init__()
    self.isatty = lambda: terminal


@pytest.fixture
def seconds(monkeypatch):
  """seconds(bar, n): n steps of a second each."""
  now = [1000.0]
  monkeypatch.setattr(tqdm.std, 'time', lambda: now[0])

  def pass_by(bar, count):
    for i in range(count):
      now[0] += 1
      bar.set_postfix_str(f'loss {i}', refresh=False)
      bar.update()

  return pass_by


def test_a_log_gets_a_line_every_ten_seconds_and_the_last_one(seconds, monkeypatch):
  monkeypatch.setattr(sys, 'stderr', Stream(terminal=False))
  with (
    progress.bar(total=100, desc='pretrain', unit='step', mininterval=0.5, leave=False) as bar,
    progress.bar(total=5, desc='short') as short,
  ):
    seconds(short, 5)
    seconds(bar, 45)
    progress.write('said in between')
    assert 'short' not in sys.stderr.getvalue()  # it never came to ten seconds
  lines = sys.stderr.getvalue().splitlines()
  assert [line.split('%')[0].split() for line in lines if line.startswith('pretrain')] == [
    ['pretrain:', done] for done in ('5', '15', '25', '35', '45', '45')
  ]
  assert lines.count('said in between') == 1
  assert len([line for line in lines if not line.startswith(('pretrain', 'short'))]) == 1
  assert 'loss 44' in lines[-1] + lines[-2] and not {'\r', '\x1b'} & set(sys.stderr.getvalue())


def test_an_iterable_is_gone_through(seconds, monkeypatch):
  monkeypatch.setattr(sys, 'stderr', Stream(terminal=False))
  assert list(progress.bar([1, 2, 3], desc='three')) == [1, 2, 3]
  assert sys.stderr.getvalue() == ''


def test_a_terminal_has_the_bar_drawn_in_place(seconds, monkeypatch):
  monkeypatch.setattr(sys, 'stderr', Stream(terminal=True))
  with progress.bar(total=20, desc='pretrain', position=0) as bar:
    seconds(bar, 20)
  assert sys.stderr.getvalue().count('\r') > 15 and sys.stderr.getvalue().count('\n') == 1
