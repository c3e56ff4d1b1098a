"""A server on a port of this machine: OpenAI's client, clients that leave or do not read, its end."""

import asyncio
import json
import pathlib
import signal
import socket
import threading
import time

import commands
import httpx
import numpy as np
import openai
import pytest
import serving

from lm.serve import gate
from lm.weights import checkpoint

ASK = [{'role': 'user', 'content': 'Hi'}]
GOOD = {'model': 'tiny', 'prompt': 'ab'}
# It does not end by itself.
LONG = GOOD | {'max_tokens': 240, 'logit_bias': {str(i): -100 for i in serving.SPECIAL.values()}}


@pytest.fixture(scope='module')
def model(random_model):
  """A model with an engine of its own, which the server starts and ends."""
  return serving.served(random_model.config, random_model.params, max_waiting=256)


@pytest.fixture(scope='module')
def app(model):
  """The application that listens at `address`."""
  limits = {'header_seconds': 0.3, 'write_seconds': 0.3, 'connections': 8}
  return serving.application(model, limits=limits, api_keys=('k1', 'k2'))


@pytest.fixture(scope='module')
def address(app):
  """Where the server of this file listens."""
  with serving.listening_at(app) as address:
    yield address


@pytest.fixture(scope='module')
def client(address):
  """OpenAI's own client."""
  with openai.OpenAI(base_url=f'{address}/v1', api_key='k2', max_retries=0) as client:
    yield client


# ---- OpenAI's client


def test_openais_client_lists_models(client):
  assert [model.id for model in client.models.list()] == ['tiny']
  assert client.models.retrieve('tiny').owned_by == 'deepdive'


@pytest.mark.slow
def test_openais_client_chats(client):
  sent = {'model': 'tiny', 'messages': ASK, 'max_tokens': 8, 'seed': 3}
  answer = client.chat.completions.create(**sent, logprobs=True, top_logprobs=2, n=2)
  assert [choice.index for choice in answer.choices] == [0, 1]
  assert answer.choices[0].finish_reason == 'length' and answer.usage.completion_tokens == 16
  assert all(len(entry.top_logprobs) == 2 for entry in answer.choices[0].logprobs.content)
  with client.chat.completions.create(
    **sent, stream=True, stream_options={'include_usage': True}
  ) as stream:
    chunks = list(stream)
  text = ''.join(c.choices[0].delta.content or '' for c in chunks if c.choices)
  assert text == answer.choices[0].message.content
  assert chunks[-1].usage.completion_tokens == 8 and chunks[-2].choices[0].finish_reason == 'length'


def test_openais_client_completes(client):
  sent = {'model': 'tiny', 'prompt': ['ab', 'c'], 'max_tokens': 5, 'seed': 3, 'logprobs': 2}
  answer = client.completions.create(**sent, echo=True)
  assert [choice.text[:1] for choice in answer.choices] == ['a', 'c']
  assert len(answer.choices[1].logprobs.tokens) == 6
  with client.completions.create(**sent, stream=True) as stream:
    texts = ['', '']
    for chunk in stream:
      texts[chunk.choices[0].index] += chunk.choices[0].text
  assert [choice.text for choice in answer.choices] == [f'ab{texts[0]}', f'c{texts[1]}']


def test_openais_client_reads_our_errors(client, address):
  with pytest.raises(openai.BadRequestError) as raised:
    client.completions.create(model='tiny', prompt='a', suffix='b')
  assert raised.value.param == 'suffix'
  with pytest.raises(openai.NotFoundError) as raised:
    client.chat.completions.create(model='gpt-4', messages=ASK)
  assert raised.value.code == 'model_not_found'
  with (
    openai.OpenAI(base_url=f'{address}/v1', api_key='wrong', max_retries=0) as other,
    pytest.raises(openai.AuthenticationError),
  ):
    other.models.list()


@pytest.mark.slow
def test_openais_client_calls_functions(client):
  tool = {'type': 'function', 'function': {'name': 'add', 'parameters': {'type': 'object'}}}
  chosen = {'type': 'function', 'function': {'name': 'add'}}
  answer = client.chat.completions.create(
    model='tiny', messages=ASK, tools=[tool], tool_choice=chosen, max_tokens=6, seed=1
  )
  message = answer.choices[0].message
  assert message.tool_calls[0].function.name == 'add'
  result = {'role': 'tool', 'tool_call_id': message.tool_calls[0].id, 'content': '3'}
  answer = client.chat.completions.create(
    model='tiny', messages=[*ASK, message, result], tools=[tool], max_tokens=4
  )
  assert answer.choices[0].finish_reason in ('length', 'stop', 'tool_calls')


def test_openais_client_gets_json(client):
  answer = client.chat.completions.create(
    model='tiny', messages=ASK, response_format={'type': 'json_object'}, max_tokens=30
  )
  assert isinstance(json.loads(answer.choices[0].message.content), dict)


def test_many_clients_at_once_get_what_each_would_alone(client):
  def texts(i):
    answer = client.completions.create(model='tiny', prompt='a' * (1 + i), max_tokens=6 + i, seed=i)
    return answer.choices[0].text

  alone, together = [texts(i) for i in range(6)], [None] * 6

  def fill(i):
    together[i] = texts(i)

  threads = [threading.Thread(target=fill, args=(i,)) for i in range(6)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert together == alone


# ---- Clients that misbehave


def request_bytes(body, path='/v1/completions'):
  """A request as bytes."""
  body = json.dumps(body).encode()
  head = f'POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n'
  head += f'authorization: Bearer k1\r\ncontent-length: {len(body)}\r\n\r\n'
  return head.encode() + body


def connect(address):
  host, port = address.removeprefix('http://').split(':')
  return socket.create_connection((host, int(port)), timeout=60)


@pytest.mark.parametrize('stream', [False, True])
def test_a_client_that_leaves_frees_its_row(address, app, model, stream):
  before = model.engine.engine.num_running
  assert before == 0
  with connect(address) as connection:
    connection.sendall(request_bytes(LONG | {'stream': stream, 'n': 3}))
    assert serving.wait_until(lambda: model.engine.engine.num_running)
  assert serving.wait_until(lambda: serving.is_idle(app) and not app.state.service.num_open)


def test_a_client_that_leaves_in_the_middle_of_its_body_is_forgotten(address, app):
  with connect(address) as connection:
    connection.sendall(request_bytes(GOOD)[:-5])
    assert serving.wait_until(lambda: app.state.service.num_open)
  assert serving.wait_until(lambda: not app.state.service.num_open)


def test_a_client_that_does_not_finish_its_head_is_disconnected(address):
  for sent in (b'', b'POST /v1/completions HTTP/1.1\r\nhost: loc'):
    with connect(address) as connection:
      connection.sendall(sent)
      assert connection.recv(100) == b''
  with connect(address) as connection:  # after a request, too
    connection.sendall(b'GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n')
    assert connection.recv(1000).startswith(b'HTTP/1.1 200')
    connection.sendall(b'GET /health HTTP/1.1\r\nho')
    while connection.recv(1000):
      pass


EARLY = {
  'a body without a type': 'POST /v1/completions HTTP/1.1\r\nauthorization: Bearer k1\r\n',
  'a body without a key': 'POST /v1/completions HTTP/1.1\r\n',
  'a body that nothing reads': 'GET /health HTTP/1.1\r\n',
}
LENGTHS = {
  'of a length': 'content-length: 500000\r\n',
  'in chunks': 'transfer-encoding: chunked\r\n',
}


def closed_after(connection, data, pause):
  """How many times data is sent until the server closes the connection."""
  for count in range(10_000):
    try:
      connection.sendall(data)
      if count and not connection.recv(1 << 16, socket.MSG_DONTWAIT):
        return count
    except BlockingIOError:
      pass
    except ConnectionError:
      return count
    time.sleep(pause)
  return None


@pytest.mark.parametrize('length', LENGTHS)
@pytest.mark.parametrize('early', EARLY)
def test_a_body_that_trickles_behind_its_response_is_disconnected(
  address, app, monkeypatch, early, length
):
  monkeypatch.setattr(gate, 'DISCARD_SECONDS', 0.1)
  with connect(address) as connection:
    connection.sendall(f'{EARLY[early]}host: localhost\r\n{LENGTHS[length]}\r\n'.encode())
    assert connection.recv(1000).startswith(b'HTTP/1.1 ')
    data = b'1\r\nx\r\n' if 'chunks' in length else b'x'
    assert closed_after(connection, data, 0.05) is not None
  assert serving.wait_until(lambda: not app.state.service.num_open)


def test_a_body_that_floods_behind_its_response_is_disconnected(address, app):
  most = app.state.service.limits.body_bytes
  with connect(address) as connection:
    head = f'GET /health HTTP/1.1\r\nhost: localhost\r\n{LENGTHS["in chunks"]}\r\n'
    connection.sendall(head.encode())
    assert connection.recv(1000).startswith(b'HTTP/1.1 200')
    data = b'10000\r\n' + b'x' * 0x10000 + b'\r\n'
    sent = closed_after(connection, data, 0)
  buffers = 16 << 20  # of the two sockets, at most
  assert sent is not None and sent * len(data) < most + buffers


def test_a_client_that_sends_too_much_in_chunks_can_read_why(address, app):
  """Clients send their whole body before they read."""
  most = app.state.service.limits.body_bytes
  with connect(address) as connection:
    head = request_bytes(GOOD).split(b'content-length')[0]
    connection.sendall(head + LENGTHS['in chunks'].encode() + b'\r\n')
    chunk = b'%x\r\n' % 0x10000 + b'x' * 0x10000 + b'\r\n'
    for _ in range(4 * most // 0x10000):
      connection.sendall(chunk)
    connection.sendall(b'0\r\n\r\n')
    answer = b''
    while data := connection.recv(1000):
      answer += data
  assert answer.startswith(b'HTTP/1.1 413') and b'body_too_large' in answer


def test_a_body_that_ends_behind_its_response_leaves_the_connection_open(address):
  """And a connection on which nothing follows is closed, as it is without a body."""
  with connect(address) as connection:
    head = 'GET /health HTTP/1.1\r\nhost: localhost\r\ncontent-length: 3\r\n\r\n'
    for _ in range(2):
      connection.sendall(head.encode())
      answer = b''
      while not answer.endswith(b'{"status":"ok"}'):
        answer += connection.recv(1000)
      connection.sendall(b'abc')
    while connection.recv(1000):
      pass


@pytest.mark.slow
def test_a_client_that_does_not_read_is_disconnected_and_holds_no_row(address, app, client):
  """Its receive buffer is small, and it asks for more than fits."""
  before = app.state.service.num_open
  big = GOOD | {
    'prompt': ['ab'] * 64,
    'max_tokens': 60,
    'stream': True,
    'logprobs': 20,
    'echo': True,
  }
  host, port = address.removeprefix('http://').split(':')
  with socket.socket() as connection:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect((host, int(port)))
    connection.sendall(request_bytes(big))
    assert serving.wait_until(lambda: app.state.service.num_open > before)
    answer = client.completions.create(model='tiny', prompt='a', max_tokens=2)
    assert answer.choices[0].text is not None
    assert serving.wait_until(lambda: app.state.service.num_open == before and serving.is_idle(app))


def test_what_is_not_http_is_answered_and_closed(address):
  for sent in (
    b'hello\r\n\r\n',
    b'GET / HTTP/1.1\r\n\r\n',
    b'\x16\x03\x01\x02\x00' * 20 + b'\r\n\r\n',
  ):
    with connect(address) as connection:
      connection.sendall(sent)
      answer = b''
      while data := connection.recv(1000):
        answer += data
      assert (
        answer.startswith(b'HTTP/1.1 400') and json.loads(answer.split(b'\r\n\r\n')[1])['error']
      )


def test_too_many_connections_are_refused_with_an_error(address, app, client):
  held = [connect(address) for _ in range(8)]
  try:
    with connect(address) as connection:
      answer = connection.recv(2000)
      assert answer.startswith(b'HTTP/1.1 503') and b'too_many_connections' in answer
  finally:
    for connection in held:
      connection.close()
  assert serving.wait_until(lambda: answers(address))


def answers(address):
  """Whether the server takes a connection again."""
  try:
    return httpx.get(f'{address}/health').status_code == 200
  except httpx.HTTPError:
    return False


# ---- The end


def test_an_ending_server_finishes_what_runs_and_refuses_the_rest(random_model):
  model = serving.served(random_model.config, random_model.params)
  app = serving.application(model)
  with serving.listening_at(app) as address:

    async def go():
      async with httpx.AsyncClient(base_url=address, timeout=60) as client:
        body = LONG | {'max_tokens': 60, 'stream': True}
        async with client.stream('POST', '/v1/completions', json=body) as running:
          lines = running.aiter_lines()
          await anext(lines)
          app.state.service.end()
          while not app.state.service.draining:
            await asyncio.sleep(0.01)
          refused = await client.post('/v1/completions', json=GOOD)
          rest = [line async for line in lines]
        return refused, rest

    refused, rest = asyncio.run(go())
    assert refused.status_code == 503 and refused.json()['error']['code'] == 'shutting_down'
    assert rest[-2] == 'data: [DONE]' and '"finish_reason":"length"' in ''.join(rest)


@pytest.fixture
def run_folder(random_model, tmp_path):
  """A checkpoint of the random model."""
  config = random_model.config
  with checkpoint.Checkpointer(tmp_path / 'mini' / 'checkpoints', keep_last=1) as saver:
    provenance = {
      'config': {'model': config.to_dict()},
      'tokenizer': serving.TOKENIZER.fingerprint,
    }
    saver.save(3, {'params': random_model.params, 'step': np.int32(3)}, provenance)
  serving.TOKENIZER.save(tmp_path / 'mini' / 'tokenizer')
  return tmp_path / 'mini'


@pytest.mark.slow
def test_the_command_serves_until_sigterm_and_ends_well(run_folder, tmp_path):
  keys, log = tmp_path / 'keys', tmp_path / 'log'
  keys.write_text('secret-key\n')
  arguments = [f'--checkpoint={run_folder}', '--port=0', f'--api-key-file={keys}', '--rows=2']
  arguments.append(f'--arena-file={tmp_path / "votes.jsonl"}')
  process = commands.start(log, '-m', 'lm.serve', *arguments)
  try:
    assert serving.wait_until(
      lambda: 'serving mini at' in log.read_text() or process.poll() is not None
    )
    address = log.read_text().split('serving mini at ')[1].split()[0]
    headers = {'authorization': 'Bearer secret-key'}
    assert httpx.get(address).text.startswith('<!doctype html>')
    assert httpx.get(f'{address}/playground/about', headers=headers).json()['takes_votes']
    body = {'model': 'mini', 'prompt': 'a', 'max_tokens': 200, 'stream': True}
    with httpx.stream(
      'POST', f'{address}/v1/completions', json=body, headers=headers, timeout=300
    ) as running:
      lines = running.iter_lines()
      next(lines)
      process.send_signal(signal.SIGTERM)
      rest = list(lines)
    assert rest[-2] == 'data: [DONE]'
    assert process.wait(60) == 0
  finally:
    process.kill()
    process.wait()
  text = pathlib.Path(log).read_text()
  assert 'Traceback' not in text and 'secret-key' not in text


def test_wrong_flags_are_one_line(run_folder, tmp_path):
  def error(*arguments):
    done = commands.call('-m', 'lm.serve', *arguments)
    assert done[0] == 1 and done[1] == '' and done[2].count('\n') == 1, done
    return done[2]

  assert 'no complete checkpoint' in error(f'--checkpoint={tmp_path / "none"}', '--port=0')
  assert 'directory' in error(f'--checkpoint={run_folder}', f'--arena-file={tmp_path}', '--port=0')
  with socket.create_server(('127.0.0.1', 0)) as taken:
    port = taken.getsockname()[1]
    assert 'in use' in error(f'--checkpoint={run_folder}', f'--port={port}')
