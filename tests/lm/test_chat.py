"""The terminal chat, on a tiny random model and on models that say what a test says."""

import io
import json
import os
import signal
import sys

import numpy as np
import pytest
import serving
from commands import run
from refusals import refused
from serving import FORMAT, TOKENIZER, ids

from data.chat import chat_formats as template
from data.tokenizers import loading as tokenizer_lib
from data.tools import calculator
from lm import chat
from lm.infer.sampling import Sampling
from lm.serve import chat_session, terminal
from lm.serve.answer_parts import AnswerParts

PYTHON, (END,) = FORMAT.tag_ids('python'), FORMAT.stops
ASSISTANT = '<|assistant|>'


def session_of(config, params, max_new_tokens=10, **options):
  return chat_session.Session(
    config,
    params,
    FORMAT,
    Sampling(0),
    call_tool=calculator.calculate,
    max_new_tokens=max_new_tokens,
    **options,
  )


def new_session(tiny, max_len=160, **options):
  return session_of(*tiny(vocab_size=TOKENIZER.vocab_size, max_len=max_len), **options)


def saying(tiny, *paths, **options):
  """A session whose model writes the given paths of tokens."""
  return session_of(*serving.chain(tiny, *paths), max_new_tokens=60, **options)


def likeliest(session, forward, count):
  """What should have been drawn as the last `count` tokens, read anew without a cache."""
  tokens = np.array([session.ids], np.int32)
  logits = np.array(forward(session.config, session.params, tokens)[0, -count - 1 : -1])
  logits[:, list(FORMAT.tag_ids('output'))] = -np.inf  # never drawn
  return logits.argmax(-1).tolist()


def shown(pieces):
  return ''.join(text for text, _ in pieces)


def asides(pieces):
  return ''.join(text for text, aside in pieces if aside)


@pytest.mark.slow
def test_second_turn_reads_only_itself_and_continues_the_whole_conversation(tiny, forward):
  session = new_session(tiny, system='Be brief.')
  list(session.reply('Hello there, who are you?'))
  prompt = [
    {'role': 'system', 'content': 'Be brief.'},
    {'role': 'user', 'content': 'Hello there, who are you?'},
  ]
  expected = FORMAT.render_prompt(prompt)
  assert session.ids[: len(expected)] == expected and session.fed == len(expected)
  assert len(session.ids) == len(expected) + 10  # the random model never stops
  first = list(session.ids)
  list(session.reply('And then?'))
  names = TOKENIZER.special_tokens
  turn = [END, names['<|user|>'], *b'And then?', END, names['<|assistant|>']]
  assert session.ids[: len(first) + len(turn)] == first + turn
  assert session.fed == len(expected) + len(turn)
  assert session.reused == len(first) - 1  # all but the token drawn last, which was not read
  assert session.ids[-10:] == likeliest(session, forward, 10)


@pytest.mark.slow
def test_a_conversation_of_several_turns_is_the_one_that_training_saw(tiny):
  """Calls are answered, thoughts and results stay, and a finished turn gets no second end."""
  call = ids(ASSISTANT, '<|python|>', '3*4', '<|/python|>')
  session = saying(tiny, call, ids('<|/output|>', 'Is 1.', '<|end|>'))
  pieces = list(session.reply('3*4?'))
  assert shown(pieces) == '[python: 3*4 -> 12]Is 1.' and asides(pieces) == '[python: 3*4 -> 12]'
  list(session.reply('Again'))
  answer = [
    {'type': 'python', 'text': '3*4'},
    {'type': 'output', 'text': '12'},
    {'type': 'text', 'text': 'Is 1.'},
  ]
  messages = []
  for question in ('3*4?', 'Again'):
    messages += [
      {'role': 'user', 'content': question},
      {'role': 'assistant', 'content': answer},
    ]
  assert session.ids == FORMAT.render({'messages': messages})[0]
  assert session.messages() == messages


@pytest.mark.slow
def test_rows_of_the_vocabulary_that_are_no_token_are_never_drawn(tiny):
  size = TOKENIZER.vocab_size
  config, params = tiny(vocab_size=size + 100, max_len=160, tie_embeddings=False)
  head = np.array(params['head'])
  head[size:] *= 100  # by far the likeliest, if they could be drawn
  session = session_of(config, {**params, 'head': head}, max_new_tokens=20)
  session.sampling = Sampling(1.0, banned_ids=session.sampling.banned_ids)
  list(session.reply('Hello'))
  assert session.fed < len(session.ids) and max(session.ids) < size


@pytest.mark.slow
def test_a_dropped_reply_leaves_a_conversation_that_goes_on(tiny, forward):
  session = new_session(tiny)
  next(session.reply('Hello'))
  assert len(session.ids) == session.fed + chat_session.DRAW
  list(session.reply('Again'))
  assert session.ids[-10:] == likeliest(session, forward, 10)


@pytest.mark.slow
def test_the_oldest_turns_give_way_when_the_context_is_full(tiny, forward):
  session = new_session(tiny, max_len=96, system='Hm.')
  for i in range(4):
    pieces = list(session.reply(f'Question {i}?'))
    assert len(session.ids) <= 96
  dropped = '[the oldest turn was dropped, because the context is full]\n'
  assert asides(pieces) == dropped + ' [stopped after 10 tokens]' and session.dropped
  kept = [exchange.question for exchange in session.exchanges]
  assert kept == [f'Question {i}?' for i in range(session.dropped, 4)]
  start = FORMAT.render_prompt(
    [{'role': 'system', 'content': 'Hm.'}, {'role': 'user', 'content': kept[0]}]
  )
  assert session.ids[: len(start)] == start
  assert session.ids[-10:] == likeliest(session, forward, 10)
  assert session.gauge() == f'{len(session.ids)}/96'


@pytest.mark.slow
def test_what_does_not_fit_at_all_is_said_and_reset_helps(tiny):
  session = new_session(tiny, max_len=40, max_new_tokens=100)
  with refused('number of tokens', 40) as raised:
    list(session.reply('Hello'))
  assert len(session.ids) == 40 and 'cut off' in raised.value.message
  with refused('number of tokens') as raised:
    list(session.reply('x' * 40))
  assert raised.value.value > 40
  assert len(session.ids) == 40 and len(session.exchanges) == 1
  session.reset()
  assert session.ids == [] and session.fed == 0
  assert next(session.reply('Hello')) and session.fed == len(session.ids) - chat_session.DRAW


THOUGHT = ids(ASSISTANT, '<|think|>', 'secr', '<|/think|>', 'Hi', '<|end|>')


@pytest.mark.parametrize(
  ('thinking', 'expected'),
  [
    ('show', '[think: secr]Hi'),
    ('fold', '[thought for 6 tokens; /thought shows it] Hi'),
    ('length', '[thought for 6 tokens] Hi'),
    ('withhold', 'Hi'),
  ],
)
def test_thoughts_are_shown_folded_measured_or_withheld(tiny, thinking, expected, tmp_path, capsys):
  session = saying(tiny, THOUGHT, thinking=thinking)
  assert shown(session.reply('Q')) == expected
  session.save(str(tmp_path / 'talk.jsonl'))
  terminal.command(session, '/thought', '')
  hidden = thinking in ('length', 'withhold')
  assert ('secr' in capsys.readouterr().out) != hidden
  assert ('secr' in (tmp_path / 'talk.jsonl').read_text()) != hidden


@pytest.mark.slow
def test_a_saved_conversation_is_one_that_training_reads(tiny, tmp_path):
  session = saying(tiny, THOUGHT, system='S')
  with refused('conversation to save'):
    session.save(str(tmp_path / 'a'))
  list(session.reply('Q'))
  session.save(str(tmp_path / 'a'))
  with refused('/save', str(tmp_path / 'a')):
    session.save(str(tmp_path / 'a'))
  saved = json.loads((tmp_path / 'a').read_text())
  assert FORMAT.render(saved)[0] == session.ids
  assert saved['messages'][0] == {'role': 'system', 'content': 'S'}


@pytest.mark.slow
def test_a_document_is_continued_beside_the_conversation(tiny, forward):
  session = new_session(tiny)
  list(session.reply('Hello'))
  before = list(session.ids)
  text = shown(session.continue_document('ab'))
  tokens = [FORMAT.document_start, *b'ab']
  for _ in range(10):
    logits = np.array(forward(session.config, session.params, np.array([tokens], np.int32))[0, -1])
    logits[list(FORMAT.banned_ids(session.config.vocab_size))] = -np.inf
    tokens.append(int(logits.argmax()))
  parts = AnswerParts(FORMAT)
  piece = serving.drawn(tokens[3:])
  expected = [part for part in (*parts.read(piece), *parts.end()) if part.kind == 'text']
  assert ''.join(part.text for part in expected) in text
  assert session.ids == before
  list(session.reply('Again'))
  assert session.reused == len(before) - 1


# ---- The terminal


def talk(session, monkeypatch, capsys, text):
  """What a session prints for lines of input."""
  monkeypatch.setattr(sys, 'stdin', io.StringIO(text))
  terminal.loop(session)
  return capsys.readouterr().out


def test_commands(tiny, monkeypatch, capsys, tmp_path):
  session = saying(tiny, ids(ASSISTANT, 'Hi', '<|end|>'), ids('b', 'cd', '<|endoftext|>'))
  file = tmp_path / 'talk'
  text = (
    f'/help\nQ\n/temperature 0.5\n/temperature hot\n/temperature -1\n/save {file}\n/save {file}\n'
  )
  text += (
    '/save\n/rest\n/system Be brief.\n/thinking loud\n/thinking fold\n/base ab\n/base\n/exit\nQ\n'
  )
  out = talk(session, monkeypatch, capsys, text)
  assert all(name in out for name in terminal.COMMANDS) and out.count('Hi\n') == 1
  assert session.sampling.temperature == 0.5 and session.thinking == 'fold'
  assert "/temperature is 'hot'; allowed: a number" in out and 'temperature is -1' in out
  assert f'[wrote {file}]' in out and 'allowed: a file that does not exist yet' in out
  assert "unknown command '/rest' (did you mean '/reset'?)" in out and '\033' not in out
  assert session.system == 'Be brief.' and session.exchanges == []
  assert json.loads(file.read_text())['messages'][0]['content'] == 'Q'


def test_messages_of_several_lines(tiny, monkeypatch, capsys):
  session = saying(tiny, ids(ASSISTANT, 'Hi', '<|end|>'))
  talk(session, monkeypatch, capsys, 'one\\\ntwo\n"""\n/three\n\n four\n"""\n')
  assert [e.question for e in session.exchanges] == ['one\ntwo', '/three\n\n four']


@pytest.mark.slow
def test_ctrl_c_stops_the_reply_only(tiny, capsys, monkeypatch):
  session = new_session(tiny, max_new_tokens=100)
  before, step = signal.getsignal(signal.SIGINT), session.engine.step

  def interrupted():
    os.kill(os.getpid(), signal.SIGINT)
    step()

  monkeypatch.setattr(session.engine, 'step', interrupted)
  terminal.converse(session.reply('Hello'))
  assert capsys.readouterr().out.endswith('[stopped]\n')
  assert len(session.ids) == session.fed + chat_session.DRAW
  assert signal.getsignal(signal.SIGINT) is before and session.engine.is_idle


def test_control_characters_do_not_reach_the_terminal(capsys):
  terminal.show('a\033[31mb\x9b\ttab\n', False)
  assert capsys.readouterr().out == 'a\ufffd[31mb\ufffd\ttab\n'


@pytest.mark.slow
def test_the_command_talks(run_folder, tiny):
  config, params = tiny(vocab_size=TOKENIZER.vocab_size)
  expected = shown(session_of(config, params, max_new_tokens=6).reply('Hi'))
  status, out, err = run(
    '-m',
    'lm.chat',
    f'--checkpoint={run_folder}',
    '--max-new-tokens=6',
    text='Hi\n\n/reset\nHi\n' + 'long' * 50 + '\n/exit\nHi\n',
  )
  assert status == 0, err
  assert out.count(expected.translate(terminal.CONTROLS) + '\n') == 2
  assert 'number of tokens is ' in out and '\033' not in out


def test_an_unknown_tool_is_an_error_before_anything_is_loaded():
  with refused('tool', 'shell', ('calculator', 'python', 'search')):
    chat.main(['--checkpoint=missing', '--tools=calculator,shell'])


def test_what_cannot_be_loaded_is_an_error(run_folder, monkeypatch, capsys):
  monkeypatch.setattr(sys, 'stdin', io.TextIOWrapper(io.BytesIO()))

  with pytest.raises(FileNotFoundError, match='missing'):
    chat.main([f'--checkpoint={run_folder}/missing'])
  tokenizer_lib.load('bytes', [*template.SPECIAL_TOKENS, '<|more|>']).save(run_folder / 'tokenizer')
  with refused('tokenizer'):
    chat.main([f'--checkpoint={run_folder}'])
  largest = max(
    (run_folder / 'checkpoints/3/params').rglob('*'), key=lambda p: p.is_file() and p.stat().st_size
  )
  largest.write_bytes(largest.read_bytes()[:-1] + b'?')
  name = largest.relative_to(run_folder / 'checkpoints/3')
  with refused(f'SHA-256 of {name} of checkpoint {run_folder}/checkpoints/3'):
    chat.main([f'--checkpoint={run_folder}'])
