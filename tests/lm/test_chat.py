"""The terminal chat on a tiny random model."""

import os
import signal

import jax
import numpy as np
import pytest
from commands import run

from configs import base
from data.chat import chat_formats as template
from data.tokenizers import loading as tokenizer_lib
from data.tools import calculator
from lm.base.errors import UserError
from lm.infer import programs
from lm.infer.sampling import Sampling
from lm.parallel import sharding
from lm.serve import chat_session
from lm.weights import checkpoint, pretrained

FORMAT = template.load('bytes')
TOKENIZER = FORMAT.tokenizer
PYTHON, (END,) = FORMAT.tag_ids('python'), FORMAT.stops


def new_session(tiny, max_len=160, max_new_tokens=10, **options):
  config, params = tiny(vocab_size=TOKENIZER.vocab_size, max_len=max_len)
  return chat_session.Session(
    config,
    params,
    FORMAT,
    Sampling(0),
    calculate=calculator.calculate,
    max_new_tokens=max_new_tokens,
    **options,
  )


def likeliest(session, forward, count):
  """What should have been drawn as the last `count` tokens, read anew without a cache."""
  tokens = np.array([session.ids], np.int32)
  logits = np.array(forward(session.config, session.params, tokens)[0, -count - 1 : -1])
  logits[:, list(FORMAT.tag_ids('output'))] = -np.inf  # never drawn
  return logits.argmax(-1).tolist()


def script(session, monkeypatch, *calls):
  """Makes the model draw the given lists of tokens, each by one call of decode; after them it draws
  by itself.
  """
  queue, engine = list(calls), session.engine
  decode = engine._run_decode

  def draw(queue_BF, num_B, budget_B):
    if not queue:
      return decode(queue_BF, num_B, budget_B)
    ids = queue.pop(0)
    read = [*queue_BF[0, : num_B[0]].tolist(), *ids[:-1]]
    engine._make_room(engine._slots, len(read))
    tokens_RT = np.zeros((1, 64), np.int32)
    tokens_RT[0, : len(read)] = read
    rows_R, num_R = np.zeros(1, np.int32), np.array([len(read)], np.int32)
    engine._rows = programs.prefill(
      session.config, engine._params, engine._rows, rows_R, tokens_RT, num_R, engine._size
    )
    nothing = np.zeros((1, len(ids)))
    return programs.Decoded(
      np.array([ids]), nothing, np.array([len(ids)]), np.array([len(read)]), nothing, None, None
    )

  monkeypatch.setattr(engine, '_run_decode', draw)


def shown(pieces):
  return ''.join(text for text, _ in pieces)


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


def test_a_finished_turn_gets_no_second_end(tiny, monkeypatch):
  session = new_session(tiny)
  script(session, monkeypatch, [*TOKENIZER.encode('Yes.'), END], [END])
  assert shown(session.reply('A?')) == 'Yes.'
  list(session.reply('B?'))
  talk = [
    {'role': role, 'content': text}
    for role, text in (('user', 'A?'), ('assistant', 'Yes.'), ('user', 'B?'))
  ]
  assert session.ids[:-1] == FORMAT.render_prompt(talk)


def test_calls_are_answered_and_their_results_condition_what_follows(tiny, forward, monkeypatch):
  session = new_session(tiny, max_new_tokens=30)
  call = [PYTHON[0], *TOKENIZER.encode('3*4'), PYTHON[1]]
  script(session, monkeypatch, call, [*TOKENIZER.encode('It is 12.'), END])
  pieces = list(session.reply('3*4?'))
  assert shown(pieces) == '[python: 3*4 -> 12]It is 12.'
  assert shown(p for p in pieces if p[1]) == '[python: 3*4 -> 12]'
  content = [
    {'type': 'python', 'text': '3*4'},
    {'type': 'output', 'text': '12'},
    {'type': 'text', 'text': 'It is 12.'},
  ]
  messages = [{'role': 'user', 'content': '3*4?'}, {'role': 'assistant', 'content': content}]
  assert session.ids == FORMAT.render({'messages': messages})[0]
  list(session.reply('And?'))
  assert session.ids[-30:] == likeliest(session, forward, 30)


def test_rows_of_the_vocabulary_that_are_no_token_are_never_drawn(tiny):
  size = TOKENIZER.vocab_size
  config, params = tiny(vocab_size=size + 100, max_len=160, tie_embeddings=False)
  head = np.array(params['head'])
  head[size:] *= 100  # by far the likeliest, if they could be drawn
  session = chat_session.Session(
    config,
    {**params, 'head': head},
    FORMAT,
    Sampling(1.0),
    calculate=calculator.calculate,
    max_new_tokens=20,
  )
  list(session.reply('Hello'))
  assert session.fed < len(session.ids) and max(session.ids) < size


def test_a_conversation_of_several_turns_is_the_one_that_training_saw(tiny, monkeypatch):
  session = new_session(tiny, max_new_tokens=30)
  call = [
    {'type': 'python', 'text': '3*4'},
    {'type': 'output', 'text': '12'},
    {'type': 'text', 'text': '12'},
  ]
  told = [('3*4?', call), ('Who are you?', 'I am Ann.'), ('Spell ox.', 'o-x')]
  said = [*TOKENIZER.encode('12'), END], [*TOKENIZER.encode('I am Ann.'), END]
  last = [*TOKENIZER.encode('o-x'), END]
  script(session, monkeypatch, [PYTHON[0], *TOKENIZER.encode('3*4'), PYTHON[1]], *said, last)
  for question, _ in told:
    list(session.reply(question))
  messages = []
  for question, answer in told:
    messages += [{'role': 'user', 'content': question}, {'role': 'assistant', 'content': answer}]
  assert session.ids == FORMAT.render({'messages': messages})[0]


def test_no_piece_ends_inside_a_character():
  data = 'né €𝄞'.encode()
  pieces = chat_session.Pieces(FORMAT)
  texts = [shown(pieces([byte])) for byte in data]
  assert texts == ['n', '', 'é', ' ', '', '', '€', '', '', '', '𝄞']
  assert pieces.end() == ('', False)
  pieces = chat_session.Pieces(FORMAT)
  assert shown(pieces(['€'.encode()[0]])) == '' and pieces.end()[0] == '\ufffd'
  assert shown(chat_session.Pieces(FORMAT)(['€'.encode()[0], END])) == '\ufffd'


def test_a_dropped_reply_leaves_a_conversation_that_goes_on(tiny, forward):
  session = new_session(tiny)
  next(session.reply('Hello'))
  assert len(session.ids) == session.fed + chat_session.DRAW
  list(session.reply('Again'))
  assert session.ids[-10:] == likeliest(session, forward, 10)


def test_ctrl_c_stops_the_reply_only(tiny, capsys):
  session = new_session(tiny, max_new_tokens=100)
  before, step = signal.getsignal(signal.SIGINT), session.engine.step

  def interrupted():
    os.kill(os.getpid(), signal.SIGINT)
    step()

  session.engine.step = interrupted
  chat_session.converse(session, 'Hello')
  assert capsys.readouterr().out.endswith('[stopped]\n')
  assert len(session.ids) == session.fed + chat_session.DRAW
  assert signal.getsignal(signal.SIGINT) is before


def test_a_full_context_is_said_and_reset_helps(tiny):
  session = new_session(tiny, max_len=40, max_new_tokens=100)
  with pytest.raises(UserError, match='context of 40 tokens is full: the reply is cut off; /reset'):
    list(session.reply('Hello'))
  assert len(session.ids) == 40
  with pytest.raises(UserError, match=r'full: \d+ more tokens do not fit behind 40'):
    list(session.reply('Hello?'))
  assert len(session.ids) == 40
  session.reset()
  assert next(session.reply('Hello')) and session.fed == len(session.ids) - chat_session.DRAW
  session.reset()
  with pytest.raises(UserError, match='more tokens do not fit behind 0'):
    list(session.reply('x' * 40))
  assert session.ids == [] and session.fed == 0


@pytest.fixture
def run_folder(tiny, tmp_path):
  config, params = tiny(vocab_size=TOKENIZER.vocab_size)
  with checkpoint.Checkpointer(tmp_path / 'checkpoints', keep_last=1) as saver:
    provenance = {'config': {'model': config.to_dict()}, 'tokenizer': TOKENIZER.fingerprint}
    saver.save(3, {'params': params, 'step': np.int32(3)}, provenance)
  TOKENIZER.save(tmp_path / 'tokenizer')
  return tmp_path


def chat_process(folder, text='', **environment):
  return run(
    '-m', 'lm.chat', f'--checkpoint={folder}', '--max-new-tokens=6', text=text, **environment
  )


def test_piped_conversation(run_folder):
  config = base.get_config()
  mesh = sharding.make_mesh(config.mesh)
  with jax.set_mesh(mesh):
    model = pretrained.load(run_folder, config.model, config.model, mesh)
    session = chat_session.Session(
      model.config,
      model.params,
      FORMAT,
      Sampling(0),
      calculate=calculator.calculate,
      max_new_tokens=6,
    )
    expected = shown(session.reply('Hi')).translate(chat_session.CONTROLS)
  status, out, err = chat_process(
    run_folder, '/help\nHi\n\n/rest\n/reset\nHi\n' + 'long' * 50 + '\n/exit\nHi\n'
  )
  assert status == 0, err
  assert out.count(expected + '\n') == 2
  assert all(name in out for name in chat_session.COMMANDS)
  assert "unknown command '/rest' (did you mean '/reset'?)" in out
  assert 'context of 64 tokens is full' in out and '\033' not in out


def test_what_cannot_be_loaded_is_one_line(run_folder):
  def error(folder):
    status, out, err = chat_process(folder)
    assert status == 1 and out == ''
    assert err.startswith('error: ') and err.count('\n') == 1
    return err

  assert 'no complete checkpoint at' in error(run_folder / 'missing')
  tokenizer_lib.load('bytes', [*template.SPECIAL_TOKENS, '<|more|>']).save(run_folder / 'tokenizer')
  assert 'tokenizer of the checkpoint is' in error(run_folder)
  largest = max(
    (run_folder / 'checkpoints/3/params').rglob('*'), key=lambda p: p.is_file() and p.stat().st_size
  )
  largest.write_bytes(largest.read_bytes()[:-1] + b'?')
  assert 'corrupt checkpoint' in error(run_folder)
