"""The terminal chat: what it feeds, what it draws, what it prints, and how it ends."""

import os
import pathlib
import shutil
import signal
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import base
from data import chat as template
from data import tokenizer as tokenizer_lib
from lm import chat, checkpoint, files, model, sample
from lm import config as config_lib

BYTES = tokenizer_lib.load('bytes', template.SPECIAL_TOKENS)
ROOT = pathlib.Path(__file__).parents[2]


def session(tiny, capacity=64, temperature=0.0, **options):
  config, params = tiny(vocab_size=BYTES.vocab_size)
  return chat.Session(config, params, sample.Sampling(temperature, **options), capacity)


def special(name):
  return BYTES.special_tokens[name]


def test_second_turn_feeds_itself_only_and_sees_the_first(tiny):
  conversation = chat.Chat(session(tiny), BYTES, system='Be.')
  first = list(conversation.say('hi', 5))
  fed = conversation.session.fed
  second = list(conversation.say('you?', 1))
  turn = [special('<|end|>')] * (first[-1] != special('<|end|>')) + [
    special('<|user|>'), *b'you?', special('<|end|>'), special('<|assistant|>')]
  assert conversation.session.fed - fed == len(turn)

  whole = session(tiny)
  whole.feed([special('<|endoftext|>'), special('<|system|>'), *b'Be.', special('<|end|>'), special('<|user|>'), *b'hi',
              special('<|end|>'), special('<|assistant|>'), *first, *turn, *second])
  assert conversation.session.length == whole.length
  np.testing.assert_allclose(conversation.session.state.logits_BV, whole.state.logits_BV, rtol=1e-4, atol=1e-4)


def test_logits_of_a_session_equal_the_full_forward(tiny, forward):
  s = session(tiny)
  s.feed([5, 6, 7])
  drawn = [s.draw(), s.draw()]
  s.feed([8, 9])
  logits = forward(s.config, s.params, np.array([[5, 6, 7, *drawn, 8, 9]], np.int32))
  np.testing.assert_allclose(s.state.logits_BV, logits[:, -1], rtol=1e-4, atol=1e-4)


def scripted(s, tokens):
  """Has a session draw these tokens, whatever the model says."""
  script = iter(tokens)

  def draw():
    token = next(script)
    s.feed([token])
    return token

  s.draw = draw
  return s


def test_a_tool_call_is_answered_and_the_reply_goes_on(tiny):
  call = [special('<|python|>'), *b'3*4', special('<|/python|>')]
  s = scripted(session(tiny), [*call, *b'12', special('<|end|>')])
  conversation, shown = chat.Chat(s, BYTES), []
  got = list(conversation.say('3*4?', 50))
  assert got == [*call, special('<|output|>'), *b'12', special('<|/output|>'), *b'12', special('<|end|>')]
  printer = chat.Printer(BYTES, shown.append, colour=False)
  for token in got:
    printer.token(token)
  printer.end()
  assert ''.join(shown) == '[python: 3*4 -> 12]12\n'


def test_calls_are_limited_and_results_must_fit(tiny):
  close = special('<|/python|>')
  s = scripted(session(tiny), [close] * 99)
  assert list(s.stream(99, (), {close}, lambda ids: [1])) == [close, 1] * chat.MAX_CALLS + [close]
  s = scripted(session(tiny, capacity=10), [close] * 99)
  assert list(s.stream(99, (), {close}, lambda ids: [1] * 10)) == [close]
  assert s.length == 1


def test_stops_at_the_end_token_at_the_limit_and_on_request(tiny):
  end = special('<|end|>')
  conversation = chat.Chat(scripted(session(tiny), [65, 66, end, 67, 68, 69]), BYTES)
  assert list(conversation.say('a', 50)) == [65, 66, end]
  assert list(conversation.say('b', 50, stopped=lambda: True)) == [67]
  before = conversation.session.fed
  assert list(conversation.say('c', 1)) == [68]
  assert conversation.session.fed - before == 1 + 4 + 1  # the stopped turn is closed first; then the turn, then the reply


def test_full_context_is_told_and_reset_helps(tiny, capsys):
  conversation = chat.Chat(session(tiny, capacity=24, banned_ids=(special('<|end|>'), special('<|endoftext|>'))), BYTES)
  printer = chat.Printer(BYTES, lambda text: None, colour=False)
  chat.answer(conversation, printer, 'hello', 99)
  assert conversation.session.length == 24 and 'context is full: 24 tokens; /reset' in capsys.readouterr().out
  chat.answer(conversation, printer, 'more', 99)
  assert 'context is full: 24 of 24 tokens are taken' in capsys.readouterr().out
  conversation.reset()
  assert conversation.session.length == 0
  chat.answer(conversation, printer, 'hello', 2)
  assert capsys.readouterr().out == ''


def test_results_can_not_be_drawn(tiny):
  s = session(tiny, temperature=50.0, banned_ids=tuple(range(3, BYTES.vocab_size)))
  s.feed([1])
  drawn = [s.draw() for _ in range(30)]
  assert set(drawn) == {0, 1, 2}


def test_prints_whole_characters_only():
  shown = []
  printer = chat.Printer(BYTES, shown.append, colour=True)
  for byte in '€🙂'.encode() + b'\xe2\x82':
    printer.token(byte)
  printer.token(special('<|end|>'))
  printer.token(special('<|python|>'))
  printer.end()
  assert [s for s in shown if s] == ['€', '🙂', '\ufffd', '\x1b[2m[python: ', '\x1b[0m\n']


def test_ctrl_c_in_a_reply_is_noticed_and_nothing_else():
  with chat.interruptible() as stopped:
    assert not stopped()
    os.kill(os.getpid(), signal.SIGINT)
    assert stopped()
  with pytest.raises(KeyboardInterrupt):
    os.kill(os.getpid(), signal.SIGINT)
    signal.sigtimedwait([], 1)


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """The folder of a training run with one checkpoint."""
  folder = tmp_path_factory.mktemp('run')
  c = base.get_config()
  c.model.update(vocab_size=BYTES.vocab_size, num_layers=1, embed_dim=16, num_heads=2, num_kv_heads=1, head_dim=8,
                 mlp_dim=16, max_len=64)
  config = model.sized(c.model, BYTES.vocab_size)
  params = jax.jit(lambda key: model.init_params(config, key))(jax.random.key(0))
  with checkpoint.Checkpointer(folder / 'checkpoints', keep_last=1) as saved:
    saved.save(1, {'params': params, 'step': jnp.int32(1)}, {'config': config_lib.as_json(c), 'tokenizer': BYTES.fingerprint})
  BYTES.save(folder / 'tokenizer')
  return folder


def piped(run, text, *options):
  command = [sys.executable, '-m', 'lm.chat', f'--checkpoint={run}', '--max-new-tokens=3', *options]
  return subprocess.run(command, input=text, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def test_piped(run):
  result = piped(run, 'hello\n\n/help\n/rest\n/reset\nhello\n/exit\nnever\n', '--temperature=0', '--system=S')
  assert result.returncode == 0, result.stderr
  assert '/reset' in result.stdout and "'/rest' (did you mean '/reset'?)" in result.stdout
  first, second = result.stdout.split('/help')[0], result.stdout.split('(a new conversation)\n')[1]
  assert first and second == first  # the same question again, and nothing after /exit


@pytest.mark.parametrize('fault', ['missing', 'corrupt', 'tokenizer', 'temperature'])
def test_faults_are_one_line(run, tmp_path, fault):
  copy = tmp_path / 'run'
  if fault != 'missing':
    shutil.copytree(run, copy)
  if fault == 'corrupt':
    files.write_text(copy / 'checkpoints/1/provenance.json', '{}')
  if fault == 'tokenizer':
    tokenizer_lib.load('bytes', [*template.SPECIAL_TOKENS, '<|more|>']).save(copy / 'tokenizer')
  result = piped(copy, 'hello\n', '--temperature=-1' if fault == 'temperature' else '--temperature=1')
  expected = {'missing': 'no such folder', 'corrupt': 'corrupt checkpoint', 'tokenizer': 'tokenizer of the checkpoint is',
              'temperature': 'temperature'}[fault]
  assert result.returncode == 1 and result.stderr.count('\n') == 1 and result.stderr.startswith('error: ')
  assert expected in result.stderr
