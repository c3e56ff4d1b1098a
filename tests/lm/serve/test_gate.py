"""What every request passes: bodies nobody should send, keys, hosts, limits, and counting."""

import asyncio
import json
import threading

import httpx
import pytest
import serving
from starlette.responses import JSONResponse
from starlette.routing import Route

from lm.base.errors import UserError
from lm.serve import gate, service
from lm.serve.api_errors import ApiError

JSON = {'content-type': 'application/json'}
GOOD = {'model': 'tiny', 'prompt': 'ab', 'max_tokens': 1}


def raw(app, content, path='/v1/completions', headers=JSON):
  return serving.send(app, 'POST', path, content=content, headers=headers)


HOSTILE = {
  'nothing': b'',
  'no JSON': b'{"model": "tiny", ',
  'not UTF-8': b'{"model": "tiny", "prompt": "\xff\xfe"}',
  'a lone surrogate': b'{"model": "tiny", "prompt": "\\ud800"}',
  'NaN': b'{"model": "tiny", "prompt": "a", "temperature": NaN}',
  'infinity': b'{"model": "tiny", "prompt": "a", "top_p": 1e999}',
  'a huge number': b'{"model": "tiny", "prompt": "a", "max_tokens": 1' + b'0' * 5000 + b'}',
  'a negative number': b'{"model": "tiny", "prompt": "a", "n": -1}',
  'a fraction': b'{"model": "tiny", "prompt": "a", "n": 1.5}',
  'text for a number': b'{"model": "tiny", "prompt": "a", "max_tokens": "5"}',
  'a boolean for a number': b'{"model": "tiny", "prompt": "a", "max_tokens": true}',
  'depth': b'{"model": "tiny", "prompt": ' + b'[' * 100_000 + b']' * 100_000 + b'}',
  'a list': b'[]',
  'null': b'null',
  'an empty list of prompts': b'{"model": "tiny", "prompt": []}',
  'an empty prompt of ids': b'{"model": "tiny", "prompt": [[]]}',
  'mixed prompts': b'{"model": "tiny", "prompt": ["a", 1]}',
  'ids beyond the vocabulary': b'{"model": "tiny", "prompt": [999999]}',
  'negative ids': b'{"model": "tiny", "prompt": [-1]}',
  'huge ids': b'{"model": "tiny", "prompt": [99999999999999999999]}',
  'too many prompts': json.dumps(GOOD | {'prompt': ['a'] * 129}).encode(),
  'an empty stop string': b'{"model": "tiny", "prompt": "a", "stop": ""}',
  'a bias of text': b'{"model": "tiny", "prompt": "a", "logit_bias": {"x": 1}}',
  'a bias of infinity': b'{"model": "tiny", "prompt": "a", "logit_bias": {"1": 1e999}}',
  'a seed out of range': b'{"model": "tiny", "prompt": "a", "seed": 18446744073709551616}',
  'an unknown field': b'{"model": "tiny", "prompt": "a", "frobnicate": 1}',
  'a strange name of a field': b'{"model": "tiny", "prompt": "a", "\\u0000\\ud83d\\ude00": 1}',
  'very many wrong items': b'{"model": "tiny", "prompt": [' + b'null,' * 100_000 + b'null]}',
  'very many fields': json.dumps({f'{i}': 1 for i in range(50_000)}).encode(),
  'very many biases': json.dumps(GOOD | {'logit_bias': {f'{i}': 1 for i in range(2000)}}).encode(),
  'UTF-16': '{"model": "tiny"}'.encode('utf-16'),
}


@pytest.mark.parametrize('name', HOSTILE)
def test_bodies_that_nobody_should_send_get_a_4xx_in_openais_form(app, name, caplog):
  response = raw(app, HOSTILE[name])
  assert response.status_code == 400, response.text
  error = response.json()['error']
  assert error.keys() == {'message', 'type', 'param', 'code'} and error['message']
  assert error['type'] == 'invalid_request_error' and 'Traceback' not in response.text
  assert not caplog.records and serving.idle(app)


@pytest.mark.slow
def test_other_types_of_content_and_other_methods_are_refused(app):
  body = json.dumps(GOOD).encode()
  assert raw(app, body, headers={'content-type': 'text/plain'}).status_code == 415
  assert raw(app, body, headers={}).status_code == 415
  accepted = {'content-type': 'application/json; charset=utf-8'}
  assert raw(app, body, headers=accepted).status_code == 200
  response = serving.send(app, 'GET', '/v1/completions')
  assert response.status_code == 405 and response.json()['error']['message']
  assert serving.send(app, 'GET', '/nowhere').json()['error']['type'] == 'invalid_request_error'


def test_a_body_is_bounded_before_it_is_read(random_model, tiny):
  model = serving.served(random_model.config, random_model.params)
  with serving.running(model, limits={'body_bytes': 1000}) as app:
    assert raw(app, b'x' * 1001).status_code == 413
    taken = 0

    async def endless():
      nonlocal taken
      for _ in range(1000):
        taken += 100
        yield b'x' * 100

    async def go():
      transport = httpx.ASGITransport(app=app)
      async with httpx.AsyncClient(transport=transport, base_url='http://localhost') as client:
        return await client.post('/v1/completions', content=endless(), headers=JSON)

    assert asyncio.run(go()).status_code == 413
    assert taken <= 1100 + gate.DISCARDED * 1000


def test_a_body_that_does_not_arrive_is_given_up(random_model):
  model = serving.served(random_model.config, random_model.params)
  with serving.running(model, limits={'body_seconds': 0.05}) as app:

    async def never():
      yield b'{'
      await asyncio.sleep(60)

    async def go():
      transport = httpx.ASGITransport(app=app)
      async with httpx.AsyncClient(transport=transport, base_url='http://localhost') as client:
        return await client.post('/v1/completions', content=never(), headers=JSON)

    response = asyncio.run(go())
    assert response.status_code == 408 and response.json()['error']['type']


def test_keys_are_asked_for(random_model, tmp_path):
  file = tmp_path / 'keys'
  file.write_text('first-key\n\nsecond-key\n')
  keys = gate.read_keys(str(file))
  assert keys == ('first-key', 'second-key')
  model = serving.served(random_model.config, random_model.params)
  with serving.running(model, api_keys=keys) as app:
    for value in (None, 'Bearer wrong', 'Bearer ', 'first-key', 'Basic first-key', 'Bearer \u00e9'):
      headers = {} if value is None else {'authorization': value.encode()}
      for path in ('/v1/models', '/metrics'):
        response = serving.send(app, 'GET', path, headers=headers)
        assert response.status_code == 401 and response.json()['error']['code'] == 'invalid_api_key'
    for key in keys:
      headers = {'authorization': f'Bearer {key}'}
      assert serving.send(app, 'GET', '/v1/models', headers=headers).status_code == 200
    assert serving.send(app, 'GET', '/health').status_code == 200
  for text in ('', '\n \n', 'with space\n'):
    file.write_text(text)
    with pytest.raises(UserError) as raised:
      gate.read_keys(str(file))
    assert raised.value.field == '--api-key-file'


def test_pages_of_other_names_do_not_reach_a_server_of_this_machine(random_model):
  model = serving.served(random_model.config, random_model.params)
  with serving.running(model, hosts=('localhost', '127.0.0.1', '::1')) as app:
    for host, status in (('evil.example', 400), ('localhost:80', 200), ('[::1]:80', 200)):
      assert serving.send(app, 'GET', '/health', headers={'host': host}).status_code == status


def test_more_routes_are_mounted_and_their_failures_are_told(random_model, caplog):
  async def fail(request):
    raise RuntimeError('private details')

  async def refuse(request):
    raise UserError(field='color', value='red', allowed='blue')

  async def greet(request):
    return JSONResponse(list(request.app.state.service.models))

  routes = [Route('/fail', fail), Route('/refuse', refuse), Route('/greet', greet)]
  model = serving.served(random_model.config, random_model.params)
  with serving.running(model, routes=routes) as app:
    assert serving.send(app, 'GET', '/greet').json() == ['tiny']
    response = serving.send(app, 'GET', '/fail')
    assert response.status_code == 500 and 'private' not in response.text
    assert 'private details' in caplog.text
    response = serving.send(app, 'GET', '/refuse')
    assert response.status_code == 400 and response.json()['error']['param'] == 'color'


def test_the_queue_is_bounded(random_model, monkeypatch):
  model = serving.served(random_model.config, random_model.params, max_waiting=2)
  engine, resumed = model.engine.engine, threading.Event()
  has_work = engine.wait_for_work
  monkeypatch.setattr(engine, 'wait_for_work', lambda s: resumed.wait(s) and has_work(s))
  with serving.running(model, limits={'answers': 16}) as app:
    never = serving.complete(app, ['a'] * 17, max_tokens=1, status=400)
    assert never['error']['param'] == 'prompt'
    body = GOOD | {'prompt': ['a'] * 16}
    response = serving.send(app, 'POST', '/v1/completions', json=body)
    assert response.status_code == 429 and response.json()['error']['code'] == 'queue_full'
    assert response.headers['retry-after']
    resumed.set()
    assert serving.complete(app, 'a', max_tokens=1)
    assert serving.idle(app)


def test_an_answer_that_takes_too_long_is_given_up(random_model):
  model = serving.served(random_model.config, random_model.params)
  with serving.running(model, limits={'request_seconds': 0.0}) as app:
    error = serving.complete(app, 'a', max_tokens=200, status=408)['error']
    assert error['code'] == 'timeout'
    response = serving.send(app, 'POST', '/v1/completions', json=GOOD | {'stream': True})
    assert response.status_code == 408


def test_a_server_that_ends_refuses_new_work(random_model):
  model = serving.served(random_model.config, random_model.params)
  with serving.running(model) as app:
    app.state.service.draining = True
    response = serving.send(app, 'POST', '/v1/completions', json=GOOD)
    assert response.status_code == 503 and response.json()['error']['code'] == 'shutting_down'
    assert serving.send(app, 'GET', '/health').status_code == 503


def test_an_engine_that_fails_ends_every_answer(random_model, monkeypatch, caplog):
  model = serving.served(random_model.config, random_model.params)

  def broken():
    raise MemoryError('private details')

  monkeypatch.setattr(model.engine.engine, 'step', broken)
  with serving.running(model) as app:
    for _ in range(2):
      response = serving.send(app, 'POST', '/v1/completions', json=GOOD)
      assert response.status_code == 503 and 'private' not in response.text
    assert serving.send(app, 'GET', '/health').json() == {'status': 'failed'}


def test_metrics_count_what_was_answered(random_model):
  model = serving.served(random_model.config, random_model.params)
  with serving.running(model) as app:
    serving.complete(app, 'abc', max_tokens=5, temperature=0)
    serving.send(app, 'GET', '/nowhere/1')
    text = serving.send(app, 'GET', '/metrics').text
  for line in (
    'deepdive_requests_total{path="/v1/completions",status="200"} 1.0',
    'deepdive_requests_total{path="other",status="404"} 1.0',
    'deepdive_tokens_total{kind="completion",model="tiny"} 5.0',
    'deepdive_tokens_total{kind="prompt",model="tiny"} 3.0',
    'deepdive_first_token_seconds_count{model="tiny"} 1.0',
    'deepdive_waiting{model="tiny"} 0.0',
  ):
    assert line in text, text


def test_models_get_their_names_from_paths():
  specs = ['runs/quickstart', 'mine=/a/b', 'runs/x/checkpoints/300', 'smollm2']
  assert service.named(specs) == {
    'quickstart': 'runs/quickstart',
    'mine': '/a/b',
    'x': 'runs/x/checkpoints/300',
    'smollm2': 'smollm2',
  }
  with pytest.raises(UserError):
    service.named(['a/x', 'b/x'])


def test_messages_of_errors_are_bounded_text():
  error = ApiError(400, 'x\ud800' * 1000)
  assert len(error.message) == 1000 and error.response().body
