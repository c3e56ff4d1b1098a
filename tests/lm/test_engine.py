"""The engine: requests that join and leave, and what each gets, beside the same request alone."""

import concurrent.futures
import random
import re
import threading

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from refusals import refused

from lm.base.errors import UserError
from lm.infer import prefixes, programs
from lm.infer.engine import Engine
from lm.infer.requests import Handle, QueueFull, Request
from lm.infer.sampling import Sampling
from lm.infer.slots import Slot
from lm.model import apart
from lm.parallel import sharding
from lm.weights.pretrained import abstract_params

CAPACITY = 48
ROWS = 3


def new_engine(tiny, *, fields=(), **options):
  config, params = tiny(**dict(fields))
  options = {'rows': ROWS, 'capacity': CAPACITY, 'steps': 4} | options
  return Engine(config, params, **options)


def alone(tiny, request, **options):
  """The completion of a request that has an engine for itself."""
  engine = new_engine(tiny, **options)
  handle = engine.submit(request)
  engine.run()
  return handle.result()


def requests(count, seed=0):
  """Requests of every kind and of mixed lengths."""
  rng = random.Random(seed)
  ways = [
    {},
    {'temperature': 0},
    {'temperature': 0.8, 'top_k': 5},
    {'top_p': 0.7},
    {'temperature': 0, 'repetition_penalty': 1.4},
    {'min_p': 0.1, 'logit_bias': {4: 3.0}},
  ]
  return [
    Request(
      [rng.randrange(23) for _ in range(rng.choice([1, 3, 9, 20, 40]))],
      rng.randint(1, 12),
      Sampling(**ways[i % len(ways)]),
      seed=i,
      stop_ids=[7] if i % 4 == 0 else [],
      num_top=2 if i % 5 == 0 else 0,
      prompt_log_probs=i % 7 == 3,
    )
    for i in range(count)
  ]


def same(one, other):
  """Asserts that two completions are equal, their numbers to rounding."""
  assert (one.tokens, one.end, one.sampled) == (other.tokens, other.end, other.sampled)
  np.testing.assert_allclose(one.log_probs, other.log_probs, atol=1e-5)
  for a, b in zip(one.tops + one.prompt_tops, other.tops + other.prompt_tops, strict=True):
    assert a.ids == b.ids
    np.testing.assert_allclose([a.log_prob, *a.log_probs], [b.log_prob, *b.log_probs], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize('reads', [None, 1])
def test_what_a_request_gets_does_not_depend_on_the_others(tiny, reads):
  """They join between steps, in three rows, and every fifth is cancelled on the way."""
  engine, asked = new_engine(tiny, reads=reads), requests(24)
  handles, rng = [], random.Random(1)
  for i, request in enumerate(asked):
    handles.append(engine.submit(request))
    for _ in range(rng.randrange(3)):
      engine.step()
    if i % 5 == 2:
      handles[i].cancel()
  engine.run()
  assert engine.is_idle and engine.num_running == engine.num_waiting == 0
  for handle in handles:
    expected, got = alone(tiny, handle.request), handle.result()
    if got.end == 'cancelled':
      assert got.tokens == expected.tokens[: len(got.tokens)]
    else:
      same(got, expected)
  assert sum(handle.result().end == 'cancelled' for handle in handles) >= 2


@pytest.mark.slow
def test_the_number_of_compilations_is_bounded(tiny):
  compiled = [
    programs.decode,
    programs.prefill,
    programs.prefill_and_score,
    programs.set_row,
  ]
  engine = new_engine(tiny, capacity=200)
  for request in requests(12):
    engine.submit(request)
  engine.run()
  before = [program._cache_size() for program in compiled]
  for seed in (1, 2):
    for request in requests(12, seed):
      engine.submit(request)
    engine.run()
  after = [program._cache_size() for program in compiled]
  # all prompts fit into the first bucket: no mix of lengths and ways compiles `decode` again, and
  # prompts are read in three lengths, by one row or by as many as there may be
  assert after[0] == before[0] and after[3] == before[3]
  assert all(b - a <= 2 * len(programs.CHUNKS) for a, b in zip(before, after, strict=True))
  assert programs.buckets(200) == [64, 128, 200] and programs.buckets(40) == [40]
  assert programs.buckets(80) == [80]


@pytest.mark.parametrize('num_rows', [1, 2])
def test_no_token_copies_the_cache(tiny, num_rows):
  """A copy of a layer's keys for each token would take longer than the model, in long contexts."""
  config, params = tiny()
  rows = programs.start(config, num_rows, CAPACITY, 'none', False)
  queue, ones = np.ones((num_rows, programs.QUEUE), np.int32), np.ones(num_rows, np.int32)
  arguments = apart.for_inference(params), rows, queue, ones, ones, np.bool_(False)
  text = programs.decode.lower(config, 4, *arguments).compile().as_text()
  sizes = ','.join(map(str, jax.tree.leaves(rows.cache.layers)[0].shape))
  assert f'f32[{sizes}]' in text
  assert not re.findall(rf'f32\[{sizes}\]\S* copy\(', text)


@pytest.mark.slow
def test_the_cache_grows_with_the_longest_row_and_shrinks_again(tiny):
  engine = new_engine(tiny, capacity=200)
  short, long = Request([3, 1, 4], 8, Sampling(0)), Request([5] * 90, 60, Sampling(0))
  sizes, handles = [], [engine.submit(short), engine.submit(long)]
  while not engine.is_idle:
    engine.step()
    sizes.append(engine._rows.cache.capacity)
  assert sizes[0] >= 96 and max(sizes) in (192, 200) and sizes == sorted(sizes)
  again = engine.submit(short)
  engine.run()
  assert engine._rows.cache.capacity == 64
  same(again.result(), handles[0].result())
  same(handles[1].result(), alone(tiny, long, capacity=200))


def test_a_shared_beginning_is_copied_and_a_conversation_goes_on_in_its_row(tiny):
  engine = new_engine(tiny)
  system = [int(x) for x in np.random.default_rng(0).integers(23, size=20)]
  first = Request([*system, 1, 2], 5, Sampling(0))
  handles = [engine.submit(first), engine.submit(Request([*system, 3], 5, Sampling(0)))]
  engine.run()
  assert [handle.result().reused for handle in handles] == [0, 20]
  turn = [*first.prompt, *handles[0].result().tokens, 9, 9]
  following = engine.submit(Request(turn, 5, Sampling(0)))
  engine.run()
  # the token drawn last was not read
  assert following.result().reused == len(first.prompt) + 4
  for handle in (*handles, following):
    same(handle.result(), alone(tiny, handle.request))


def test_pieces_come_as_they_are_drawn_and_add_up(tiny):
  engine = new_engine(tiny)
  handle = engine.submit(Request([1, 2, 3], 10, Sampling(1.0), seed=4))
  pieces = list(engine.stream(handle))
  assert [len(piece.tokens) for piece in pieces] == [4, 4, 2]
  completion = handle.result()
  assert [token for piece in pieces for token in piece.tokens] == completion.tokens
  assert [log_p for piece in pieces for log_p in piece.log_probs] == completion.log_probs
  assert completion.end == 'length' and not completion.finished


def test_a_stream_that_is_abandoned_frees_its_row(tiny):
  engine = new_engine(tiny)
  handle = engine.submit(Request([1, 2, 3], 30, Sampling(0)))
  next(stream := engine.stream(handle))
  stream.close()
  assert engine.is_idle and handle.result().end == 'cancelled'


def letters(token):
  return b'ab'[token % 2 : token % 2 + 1] + bytes([ord('c') + token])


def test_stop_strings_end_answers_in_the_middle_of_tokens(tiny):
  """A token is two letters; the stop string begins inside one token and ends inside another."""
  free = alone(tiny, Request([1, 2], 12, Sampling(1.0), seed=3, token_bytes=letters))
  text = b''.join(map(letters, free.tokens))
  assert free.text == text
  stop = text[9:12].decode()
  at = text.find(stop.encode())
  request = Request(
    [1, 2], 12, Sampling(1.0), seed=3, token_bytes=letters, stop_strings=['zzzz', stop]
  )
  engine = new_engine(tiny)
  handle = engine.submit(request)
  shown = [piece.text for piece in engine.stream(handle)]
  done = handle.result()
  assert done.end == 'string' and done.finished
  assert done.text == text[:at] == b''.join(shown)
  assert done.tokens == free.tokens[: -(-(at + 3) // 2)]
  # what was drawn behind the stop string is not taken for a part of the answer later
  following = Request([1, 2, *done.tokens, 5], 6, Sampling(0))
  later = engine.submit(following)
  engine.run()
  same(later.result(), alone(tiny, following))


@pytest.mark.slow
def test_text_that_a_stop_string_may_begin_with_is_shown_in_the_end(tiny):
  free = alone(tiny, Request([1, 2], 6, Sampling(0), token_bytes=letters))
  stop = (free.text[-3:] + b'??').decode()
  done = alone(tiny, Request([1, 2], 6, Sampling(0), token_bytes=letters, stop_strings=[stop]))
  assert done.text == free.text and done.end == 'length'


def test_log_probs_of_the_prompt_and_alternatives_are_the_models_own(tiny, forward):
  config, params = tiny()
  prompt = [int(x) for x in np.random.default_rng(5).integers(23, size=20)]
  request = Request(
    prompt, 5, Sampling(0.5, banned_ids=(3,)), seed=1, num_top=4, prompt_log_probs=True
  )
  got = alone(tiny, request)
  row = [*prompt, *got.tokens]
  tokens = np.zeros((1, 32), np.int32)
  tokens[0, : len(row)] = row
  expected = np.asarray(jax.nn.log_softmax(forward(config, params, tokens)[0]))
  tops = got.prompt_tops + got.tops
  assert len(tops) == len(row) - 1
  for place, top in enumerate(tops):
    assert top.log_prob == pytest.approx(expected[place, row[place + 1]], abs=2e-4)
    order = np.argsort(-expected[place])[:4]
    assert top.ids == order.tolist()
    np.testing.assert_allclose(top.log_probs, expected[place, order], atol=2e-4)
  only = alone(tiny, Request(prompt, 0, prompt_log_probs=True))
  assert only.tokens == [] and only.end == 'length' and len(only.prompt_tops) == 19


def test_a_tool_runs_while_other_rows_go_on(tiny):
  release, started = threading.Event(), threading.Event()

  def tool(ids):
    started.set()
    assert release.wait(60)
    return [11, 12]

  free = alone(tiny, Request([1, 2, 3], 8, Sampling(0)))
  pause = free.tokens[1]
  with concurrent.futures.ThreadPoolExecutor(1) as executor:
    engine = new_engine(tiny, executor=executor)
    calling = engine.submit(
      Request([1, 2, 3], 8, Sampling(0), pause_ids=[pause], tool=tool, max_calls=1)
    )
    other = engine.submit(Request([4, 5], 20, Sampling(1.0), seed=2))
    while not other.done:
      engine.step()
    assert started.is_set() and not calling.done
    release.set()
    engine.run()
  n = free.tokens.index(pause) + 1
  answer = calling.result()
  assert answer.tokens[: n + 2] == [*free.tokens[:n], 11, 12]
  assert answer.sampled[: n + 2] == [True] * n + [False, False]
  same(other.result(), alone(tiny, other.request))


def test_a_tool_that_raises_ends_its_request_only(tiny):
  def tool(ids):
    raise ValueError('no such page')

  engine = new_engine(tiny)
  broken = engine.submit(Request([1], 8, Sampling(0), pause_ids=range(23), tool=tool))
  other = engine.submit(Request([4, 5], 6, Sampling(0)))
  engine.run()
  with pytest.raises(ValueError, match='no such page'):
    broken.result()
  assert broken.completion.end == 'error' and len(other.result().tokens) == 6


def test_tokens_that_begin_the_answer_are_read_as_the_prompt_is(tiny):
  forced = [3, 1, 4, 1, 5, 9]
  begun = alone(tiny, Request([1, 2], 5, Sampling(0), forced=forced, stop_ids=[1]))
  whole = alone(tiny, Request([1, 2, *forced], 5, Sampling(0), stop_ids=[1]))
  assert begun.tokens == forced + whole.tokens and begun.end == whole.end
  assert begun.sampled[:6] == [False] * 6 and begun.log_probs[:6] == [0] * 6
  np.testing.assert_allclose(begun.log_probs[6:], whole.log_probs, atol=1e-5)


@pytest.mark.slow
def test_a_full_queue_says_so_and_takes_requests_again(tiny):
  engine = new_engine(tiny, rows=1, max_waiting=2)
  handles = [engine.submit(Request([1], 2, Sampling(0))) for _ in range(2)]
  with pytest.raises(QueueFull) as raised:
    engine.submit(Request([1], 2, Sampling(0)))
  assert raised.value.value == 2
  handles[1].cancel()  # before it has a row
  engine.run()
  assert [handle.result().end for handle in handles] == ['length', 'cancelled']
  engine.submit(Request([1], 32, Sampling(0)))
  engine.step()
  waiting = [engine.submit(Request([1], 2, Sampling(0))) for _ in range(2)]
  for handle in waiting:
    handle.cancel()
  engine.step()  # The only row is still taken, but those that wait no longer fill the queue.
  assert engine.num_running == 1 and engine.num_waiting == 0
  assert all(handle.result().end == 'cancelled' for handle in waiting)


@pytest.mark.parametrize(
  'fields, name',
  [
    ({'prompt': []}, 'prompt'),
    ({'prompt': [1] * 48}, 'prompt'),
    ({'prompt': [23]}, 'prompt'),
    ({'max_new_tokens': -1}, 'max_new_tokens'),
    ({'num_top': 21}, 'num_top'),
    ({'stop_ids': [-1]}, 'stop_ids'),
    ({'stop_strings': ['a']}, 'stop_strings'),
    ({'sampling': Sampling(logit_bias={99: 1.0})}, 'logit_bias'),
  ],
)
def test_requests_that_cannot_be_served_are_refused_at_once(tiny, fields, name):
  engine = new_engine(tiny)
  with pytest.raises(UserError) as raised:
    engine.submit(Request(**({'prompt': [1], 'max_new_tokens': 2} | fields)))
  assert raised.value.field == name and engine.is_idle


def test_other_threads_submit_cancel_and_read_while_one_steps(tiny):
  engine, ended = new_engine(tiny), threading.Event()

  def serve():
    while not ended.is_set():
      if engine.wait_for_work(0.01):
        engine.step()

  def client(request):
    handle = engine.submit(request)
    tokens = []
    for piece in handle:
      tokens += piece.tokens
      if request.seed % 5 == 0:
        handle.cancel()
    assert tokens == handle.result().tokens
    return handle

  server = threading.Thread(target=serve)
  server.start()
  asked = requests(15)
  try:
    with concurrent.futures.ThreadPoolExecutor(5) as clients:
      handles = list(clients.map(client, asked))
  finally:
    ended.set()
    server.join()
  for request, handle in zip(asked, handles, strict=True):
    expected, got = alone(tiny, request), handle.result()
    assert got.tokens == expected.tokens[: len(got.tokens)]
    assert request.seed % 5 == 0 or got.end == expected.end
  assert engine.is_idle


@pytest.mark.slow
@pytest.mark.parametrize(
  'fields',
  [
    {'layer_types': ('window', 'full'), 'window': 3, 'attention_softcap': 2.0},
    {'num_experts': 4, 'experts_per_token': 2},
  ],
  ids=['window', 'experts'],
)
def test_models_of_other_kinds_decode_as_a_forward_pass_says(tiny, forward, fields):
  config, params = tiny(**fields)
  engine = new_engine(tiny, fields=fields.items())
  rng = np.random.default_rng(2)
  prompts = [rng.integers(23, size=n).tolist() for n in (20, 3, 7)]
  handles = [engine.submit(Request(prompt, 8, Sampling(0))) for prompt in prompts]
  engine.run()
  for prompt, handle in zip(prompts, handles, strict=True):
    tokens = np.zeros((1, 32), np.int32)
    tokens[0, : len(prompt) + 8] = prompt + handle.result().tokens
    logits = forward(config, params, tokens)[0]
    assert handle.result().tokens == logits[len(prompt) - 1 : len(prompt) + 7].argmax(-1).tolist()


@pytest.mark.slow
def test_an_int8_cache_is_a_quarter_as_large_and_nearly_as_exact(tiny):
  fields = {'head_dim': 64}
  request = Request([5, 2, 9, 9, 1, 3, 7], 12, Sampling(0), num_top=5)
  exact = alone(tiny, request, fields=fields.items())
  engine = new_engine(tiny, fields=fields.items(), cache='int8')
  handle = engine.submit(request)
  engine.run()
  small, (config, params) = handle.result(), tiny(**fields)
  sizes = [
    sum(x.nbytes for x in jax.tree.leaves(e._rows.cache.layers))
    for e in (engine, Engine(config, params, rows=ROWS, capacity=CAPACITY))
  ]
  assert sizes[0] < 0.27 * sizes[1]
  first, other = small.tops[0], exact.tops[0]
  assert 1e-7 < abs(first.log_prob - other.log_prob) < 0.05
  with refused('quantization of the cache', 'int3'):
    new_engine(tiny, cache='int3')


@pytest.mark.slow
@pytest.mark.parametrize('axes', [{'data': 2, 'tensor': 2}, {'fsdp': 2, 'tensor': 2}], ids=str)
def test_a_mesh_gives_the_same(tiny, axes):
  """Four rows over the data axes, and heads over the tensor axis."""
  fields = {'vocab_size': 24}
  config, params = tiny(**fields)
  asked = requests(8)
  engine = new_engine(tiny, fields=fields.items(), rows=4)
  expected = [engine.submit(request) for request in asked]
  engine.run()
  ones = dict.fromkeys(sharding.AXES, 1)
  mesh = sharding.make_mesh(ConfigDict(ones | axes), jax.devices()[:4])
  shapes, _ = abstract_params(config, mesh)
  with jax.set_mesh(mesh):
    placed = jax.device_put(params, jax.tree.map(lambda x: x.sharding, shapes))
    engine = Engine(config, placed, rows=4, capacity=CAPACITY, steps=4)
    handles = [engine.submit(request) for request in asked]
    engine.run()
  for handle, one in zip(handles, expected, strict=True):
    same(handle.result(), one.result())


def test_no_stop_string_goes_on_behind_the_result_of_a_call():
  request = Request([1], 9, stop_strings=['2.'], token_bytes=lambda token: bytes([token]))
  slot, handle = Slot(0), Handle(request)
  slot.begin(handle, 0, 1)
  slot.force([ord('2')])
  assert not slot.draw([ord('.')], [0.0], [], 0)
  assert slot.draw([ord('2'), ord('.')], [0.0] * 2, [], 0)
  assert handle.completion.text == b'2.'


def test_the_call_of_an_answer_that_ends_is_cancelled():
  slot = Slot(0)
  slot.begin(Handle(Request([1], 9)), 0, 1)
  slot.call = future = concurrent.futures.Future()
  slot.finish('cancelled', 1)
  assert future.cancelled()


def test_the_row_with_the_longest_beginning_is_found_among_two(monkeypatch):
  rng, slots = random.Random(0), [Slot(i) for i in range(300)]
  for slot in slots:
    slot.held = [rng.randrange(3) for _ in range(rng.randrange(40))]
  known = prefixes.Prefixes(slots)
  for slot in slots[:100]:  # rows change
    slot.held = [rng.randrange(3) for _ in range(rng.randrange(40))]
    known.update(slot)
  compared = []
  common = prefixes._common
  monkeypatch.setattr(prefixes, '_common', lambda *keys: compared.append(keys) or common(*keys))

  def shared(slot, prompt):
    pairs = zip(slot.held, prompt[:-1], strict=False)
    return next(
      (n for n, (a, b) in enumerate(pairs) if a != b), min(len(slot.held), len(prompt) - 1)
    )

  for _ in range(100):
    prompt = [*rng.choice(slots).held, *(rng.randrange(3) for _ in range(5))]
    compared.clear()
    found = known.find(prefixes.key_of(prompt))
    longest = max(shared(slot, prompt) for slot in slots)
    assert len(compared) <= 2
    if found.slot:
      assert found.length == longest == shared(found.slot, prompt)
    else:
      assert longest < min(prefixes.WORTH_COPYING, len(prompt) - 1)
