"""Mixed load on a server: python tests/lm/soak.py --seconds=600

Clients stream, wait, cancel in the middle, leave in the middle of a body, and send what nobody
should, all at once. Whatever was not cancelled must equal the same request alone; no row may be
lost; memory is printed as it goes.
"""

import argparse
import asyncio
import importlib
import json
import pathlib
import random
import sys
import time

import httpx

sys.path[:0] = [str(pathlib.Path(__file__).parents[i]) for i in range(3)]  # if run as a script
serving = importlib.import_module('serving')

CLIENTS = 12
WRONG = ({'model': 'tiny'}, {'model': 'x', 'prompt': 'a'}, {'model': 'tiny', 'prompt': [-1]})
BANS = {str(i): -100 for i in serving.SPECIAL.values()}


def bodies(rng, count):
  """(path, body) of requests of every kind and of mixed lengths, with seeds."""
  made = []
  for seed in range(count):
    fields = {'model': 'tiny', 'max_tokens': rng.choice([1, 5, 20, 60]), 'seed': seed}
    fields |= rng.choice([{}, {'temperature': 0}, {'top_p': 0.8}, {'n': 2}, {'stop': ['a', 'xyz']}])
    text = 'a' + ''.join(rng.choice('abcdefgh ') for _ in range(rng.choice([1, 8, 30, 90])))
    if rng.random() < 0.5:
      made.append(('/v1/completions', {'prompt': text} | fields))
    else:
      fields |= rng.choice([{}, {}, {'logprobs': True}])
      if 'stop' not in fields and rng.random() < 0.3:
        fields |= {'response_format': {'type': 'json_object'}, 'max_tokens': 20}
      messages = [{'role': 'system', 'content': 'A system turn that many requests share.'}]
      made.append(('/v1/chat/completions', {'messages': [*messages, user(text)]} | fields))
  return made


def user(text):
  return {'role': 'user', 'content': text}


def texts(choices):
  """What the choices of a whole answer say."""
  return [
    choice.get('text') or choice.get('message', {}).get('content') or '' for choice in choices
  ]


async def whole(client, path, body):
  response = await client.post(path, json=body)
  if response.status_code == 429:
    return None
  assert response.status_code == 200, response.text
  return texts(response.json()['choices'])


async def streamed(client, path, body, stop_after):
  """What a stream says; None if it was left after so many lines."""
  said, lines = [''] * body.get('n', 1), 0
  async with client.stream('POST', path, json=body | {'stream': True}) as response:
    if response.status_code == 429:
      return None
    assert response.status_code == 200
    async for line in response.aiter_lines():
      lines += bool(line)
      if lines == stop_after:
        return None
      if line.startswith('data: {'):
        event = json.loads(line[6:])
        assert 'error' not in event, event
        for choice in event['choices']:
          piece = choice.get('text') or choice.get('delta', {}).get('content') or ''
          said[choice['index']] += piece
  return said


async def leave(address):
  """Sends half a request and leaves."""
  host, port = address.removeprefix('http://').split(':')
  _, writer = await asyncio.open_connection(host, int(port))
  writer.write(
    b'POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 99\r\n\r\n{"mo'
  )
  await writer.drain()
  writer.close()


async def load(address, app, *, count=None, seconds=None, seed=0, report=lambda text: None):
  """Runs the load; returns counts of what was done."""
  rng = random.Random(seed)
  asked = bodies(rng, 40)
  done = {'equal': 0, 'cancelled': 0, 'refused': 0, 'left': 0, 'queue full': 0}
  began = time.monotonic()
  first_memory = None
  async with httpx.AsyncClient(base_url=address, timeout=300) as client:
    alone = [await whole(client, *one) for one in asked]
    report(f'alone: {len(alone)} answers after {time.monotonic() - began:.0f} s')
    started = 0

    def goes_on():
      if count is not None:
        return started < count
      return time.monotonic() - began < seconds

    async def work():
      nonlocal started, first_memory
      while goes_on():
        started += 1
        if started % 200 == 0:
          report(f'{started} requests, {memory()} MB, {done}')
          first_memory = first_memory or memory()
        i, kind = rng.randrange(len(asked)), rng.random()
        path, body = asked[i]
        if kind < 0.1:
          response = await client.post('/v1/completions', json=rng.choice(WRONG))
          assert response.status_code in (400, 404)
          done['refused'] += 1
        elif kind < 0.15:
          await leave(address)
          done['left'] += 1
        else:
          stop_after = rng.randrange(1, 6) if kind < 0.4 else None
          if kind < 0.7:
            said = await streamed(client, path, body, stop_after)
          else:
            said = await whole(client, path, body)
          if said is None:
            done['cancelled' if stop_after else 'queue full'] += 1
          else:
            assert said == alone[i], (body, said, alone[i])
            done['equal'] += 1

    async with asyncio.TaskGroup() as group:
      for _ in range(CLIENTS):
        group.create_task(work())
  while not serving.idle(app) or app.state.service.num_open:
    await asyncio.sleep(0.05)
  return done | {'memory': (first_memory or memory(), memory())}


def memory():
  """The resident memory of this process, MB."""
  pages = int(pathlib.Path('/proc/self/statm').read_text().split()[1])
  return pages * 4096 >> 20


def main():
  """Runs the load for a while, on a random model."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--seconds', type=float, default=600, help='how long (default 600)')
  args = parser.parse_args()
  from conftest import make  # tests/lm/conftest.py

  config, params = make(vocab_size=serving.TOKENIZER.vocab_size, max_len=serving.CAPACITY)
  app = serving.application(serving.served(config, params))

  def report(text):
    print(text, flush=True)

  with serving.listening_at(app) as address:
    print(asyncio.run(load(address, app, seconds=args.seconds, report=report)))


if __name__ == '__main__':
  main()
