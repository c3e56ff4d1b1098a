"""/v1/completions, beside the engine itself and the model's own forward pass."""

import threading

import jax
import numpy as np
import pytest
import serving
from serving import TOKENIZER, complete, events

from lm.serve import responding

START = serving.FORMAT.document_start


def log_probs(forward, model, ids):
  """The model's log-probabilities of the tokens from the second on."""
  logits = forward(model.config, model.params, np.array([ids], np.int32))[0]
  table = np.asarray(jax.nn.log_softmax(logits))
  return [float(table[i, token]) for i, token in enumerate(ids[1:])]


def greedy(forward, model, ids, count):
  """The most probable continuation, read anew for each token."""
  written = []
  for _ in range(count):
    logits = forward(model.config, model.params, np.array([[*ids, *written]], np.int32))[0, -1]
    logits = np.array(logits)
    logits[list(model.banned_ids)] = -np.inf
    written.append(int(logits.argmax()))
  return written


@pytest.mark.slow
def test_a_text_is_continued_as_a_document(app, random_model, forward):
  answer = complete(app, 'ab', max_tokens=8, temperature=0)
  expected = greedy(forward, random_model, [START, *b'ab'], 8)
  choice = answer['choices'][0]
  text = b''.join(TOKENIZER.token_bytes(i) for i in expected).decode('utf-8', 'replace')
  assert choice['text'] == text and choice['finish_reason'] == 'length'
  usage = answer['usage']
  assert usage['prompt_tokens'] == 2 and usage['completion_tokens'] == 8
  assert answer['object'] == 'text_completion' and answer['model'] == 'tiny'


@pytest.mark.slow
def test_log_probs_of_prompt_and_answer_are_the_forward_passs(app, random_model, forward):
  answer = complete(app, 'abc', max_tokens=4, temperature=0, echo=True, logprobs=2)
  told = answer['choices'][0]['logprobs']
  ids = [START, *b'abc', *greedy(forward, random_model, [START, *b'abc'], 4)]
  expected = log_probs(forward, random_model, ids)
  np.testing.assert_allclose(told['token_logprobs'], expected, atol=1e-4)
  assert told['tokens'][:3] == ['a', 'b', 'c'] and told['text_offset'][:4] == [0, 1, 2, 3]
  assert all(len(top) <= 3 for top in told['top_logprobs'])
  by_ids = complete(app, [START, *b'abc'], max_tokens=0, echo=True, logprobs=0)['choices'][0]
  assert by_ids['logprobs']['token_logprobs'][0] is None
  np.testing.assert_allclose(by_ids['logprobs']['token_logprobs'][1:], expected[:3], atol=1e-4)
  assert by_ids['text'] == '<|endoftext|>abc' and by_ids['logprobs']['top_logprobs'][1] is None


def test_the_token_itself_is_among_its_alternatives(app):
  answer = complete(app, max_tokens=8, echo=True, logprobs=1, temperature=2, seed=1)
  told = answer['choices'][0]['logprobs']
  assert {len(top) for top in told['top_logprobs']} == {1, 2}
  each = (told[name] for name in ('tokens', 'token_logprobs', 'token_ids'))
  for *expected, tops, ids in zip(*each, told['top_logprobs'], told['top_token_ids'], strict=True):
    token, log_prob, index = expected
    assert tops[token] == log_prob and ids[token] == index


def test_cached_tokens_are_those_of_each_prompt_once(random_model):
  def cached(**fields):
    usage = complete(app, max_tokens=1, **fields)['usage']
    return usage['prompt_tokens_details']['cached_tokens']

  model = serving.served(random_model.config, random_model.params)
  with serving.running(model) as app:
    assert cached(prompt=[[7, 8, 9, 10]], n=3) == 0
    assert cached(prompt=[[7, 8, 9, 10]], n=3) == 3
    assert cached(prompt=[[7, 8, 9, 10]] * 2) == 6
    text = serving.send(app, 'GET', '/metrics').text
  assert 'deepdive_tokens_total{kind="cached",model="tiny"} 9.0' in text


def test_many_log_probs_do_not_keep_other_clients_waiting(random_model, monkeypatch):
  """They are written apart, in as many steps as there are choices."""
  threads = set()
  text = responding.token_text

  def noted(*arguments):
    threads.add(threading.current_thread().name)
    return text(*arguments)

  model = serving.served(random_model.config, random_model.params)
  with serving.running(model) as app:
    fields = {'prompt': ['ab' * 40] * 2, 'max_tokens': 0, 'echo': True, 'logprobs': 2}
    expected = complete(app, **fields)
    monkeypatch.setattr(responding, 'token_text', noted)
    monkeypatch.setattr(responding, 'MOST_AT_ONCE', 16)
    found = complete(app, **fields)
  assert len(threads) == 1
  for one, other in zip(found['choices'], expected['choices'], strict=True):
    told, known = one.pop('logprobs'), other.pop('logprobs')
    assert one == other and told.keys() == known.keys() and told['tokens'] == known['tokens']
    np.testing.assert_allclose(told['token_logprobs'], known['token_logprobs'], atol=1e-4)
    assert [len(told[name]) for name in told] == [80] * len(told)
  assert threading.current_thread().name not in threads


def test_prompts_of_all_four_kinds_and_n_choices_are_numbered(app):
  answer = complete(app, ['ab', 'c'], n=2, max_tokens=3, seed=1)
  assert [choice['index'] for choice in answer['choices']] == [0, 1, 2, 3]
  texts = [choice['text'] for choice in answer['choices']]
  assert texts[0] != texts[1]
  ids = complete(app, [[START, *b'ab'], [START, *b'c']], n=2, max_tokens=3, seed=1)
  assert [choice['text'] for choice in ids['choices']] == texts
  one = complete(app, [START, *b'ab'], max_tokens=3, seed=1)
  assert one['choices'][0]['text'] == texts[0]


@pytest.mark.slow
def test_equal_seeds_give_equal_answers_and_others_do_not(app):
  def text(**fields):
    return complete(app, max_tokens=12, **fields)['choices'][0]['text']

  assert text(seed=5) == text(seed=5) != text(seed=-(2**63))
  assert text(seed=2**64 - 1) == text(seed=2**64 - 1)
  assert text() != text()


def test_equal_prompts_of_a_request_without_a_seed_have_other_answers(app):
  def texts(**fields):
    answer = complete(app, ['ab'] * 4, max_tokens=12, **fields)
    return {choice['text'] for choice in answer['choices']}

  assert len(texts()) == 4
  assert len(texts(seed=5)) == 1


def test_best_of_returns_the_most_probable(app):
  answer = complete(app, max_tokens=4, n=1, best_of=4, seed=3, logprobs=0)
  chosen = answer['choices'][0]
  all_of_them = complete(app, max_tokens=4, n=4, seed=3, logprobs=0)['choices']
  sums = [sum(choice['logprobs']['token_logprobs']) for choice in all_of_them]
  assert chosen['text'] == all_of_them[int(np.argmax(sums))]['text']
  assert answer['usage']['completion_tokens'] == 16


def test_a_stream_says_what_the_whole_answer_says(app):
  body = {'prompt': 'ab', 'max_tokens': 9, 'seed': 7, 'logprobs': 1, 'echo': True, 'n': 2}
  found = events(app, '/v1/completions', body | {'stream_options': {'include_usage': True}})
  whole = complete(app, **body)
  *changes, last = found
  for index in range(2):
    mine = [event['choices'][0] for event in changes if event['choices'][0]['index'] == index]
    assert ''.join(change['text'] for change in mine) == whole['choices'][index]['text']
    tokens = [t for change in mine if change['logprobs'] for t in change['logprobs']['tokens']]
    assert tokens == whole['choices'][index]['logprobs']['tokens']
    assert [change['finish_reason'] for change in mine[-2:]] == [None, 'length']
  assert last['choices'] == [] and last['usage']['completion_tokens'] == 18
  assert all(event['usage'] is None for event in changes)


def test_logit_bias_and_stop_strings_shape_the_answer(app):
  biased = complete(app, max_tokens=5, temperature=0, logit_bias={str(ord('x')): 100})
  assert biased['choices'][0]['text'] == 'xxxxx'
  stopped = complete(app, max_tokens=9, temperature=0, logit_bias={'120': 100}, stop=['xxx'])
  assert stopped['choices'][0] | {'index': 0} == {
    'index': 0,
    'text': '',
    'logprobs': None,
    'finish_reason': 'stop',
  }


@pytest.mark.slow
@pytest.mark.parametrize('chunk', [1, 4])
def test_no_event_ends_inside_a_character(tiny, chunk):
  """The chain of the bytes of one long character, drawn one or four at a time."""
  path = [*b'\xf0\x9d\x84\x9e']
  config, params = serving.chain(tiny, [*b'a', *path, *b'b', START])
  with serving.running(serving.served(config, params, steps=chunk)) as app:
    found = events(
      app, '/v1/completions', {'prompt': 'a', 'temperature': 0, 'stop': ['\U0001d11eb']}
    )
    texts = [event['choices'][0]['text'] for event in found]
    assert ''.join(texts) == '' and found[-1]['choices'][0]['finish_reason'] == 'stop'
    found = events(app, '/v1/completions', {'prompt': 'a', 'temperature': 0})
    assert ''.join(event['choices'][0]['text'] for event in found) == '\U0001d11eb'
    assert all('\ufffd' not in event['choices'][0]['text'] for event in found)


def test_top_p_of_zero_takes_the_most_probable_token(app):
  texts = [
    complete(app, max_tokens=6, **fields)['choices'][0]['text']
    for fields in ({'top_p': 0}, {'top_p': 0, 'temperature': 2, 'seed': 1}, {'temperature': 0})
  ]
  assert texts[0] == texts[1] == texts[2]


def test_options_of_a_stream_may_be_null(app):
  options = {'include_usage': None, 'include_obfuscation': False}
  body = {'prompt': 'ab', 'max_tokens': 2, 'stream_options': options}
  found = events(app, '/v1/completions', body)
  assert all(event['choices'] and 'usage' not in event for event in found)


WRONG = {
  'suffix': {'suffix': 'x'},
  'best_of': {'n': 3, 'best_of': 2},
  'n': {'n': 17},
  'stream_options': {'stream_options': {'include_usage': True}},
  'logit_bias': {'logit_bias': {'100000': 1.0}},
  'presence_penalty': {'presence_penalty': 0.5},
  'prompt': {'prompt': 'x' * 300},
  'logprobs': {'logprobs': 21},
  'temperature': {'temperature': -1},
  'max_tokens': {'max_tokens': -1},
  'frequency_penalty': {'frequency_penalty': 1},
  'best_of ': {'stream': True, 'best_of': 2},
  'thinking': {'thinking': 'loud'},
  'min_tokens': {'min_tokens': 3},
}


@pytest.mark.parametrize('field', WRONG)
def test_what_is_not_supported_is_refused_by_its_name(app, field):
  error = complete(app, **{'prompt': 'ab'} | WRONG[field], status=400)['error']
  assert error['param'].startswith(field.strip()) and error['type'] == 'invalid_request_error'


@pytest.mark.parametrize(
  ('param', 'prompt'),
  [
    ('prompt', 5),
    ('prompt', []),
    ('prompt[0]', [1.5]),
    ('prompt[1]', ['a', 1]),
    ('prompt[0][1]', [[1, 'a']]),
    ('prompt[1]', [1, -1]),
  ],
)
def test_a_wrong_prompt_is_named_by_its_place(app, param, prompt):
  error = complete(app, prompt, status=400)['error']
  assert error['param'] == param and 'constrained' not in error['message']


def test_an_unknown_model_is_not_found(app):
  error = complete(app, model='gpt-4', status=404)['error']
  assert error['code'] == 'model_not_found' and 'tiny' in error['message']
  listed = serving.send(app, 'GET', '/v1/models').json()
  assert [model['id'] for model in listed['data']] == ['tiny']
  assert serving.send(app, 'GET', '/v1/models/tiny').json() == listed['data'][0]
  assert serving.send(app, 'GET', '/v1/models/other').status_code == 404


def test_special_tokens_in_a_text_are_text(app, random_model):
  answer = complete(app, '<|endoftext|>', max_tokens=0, echo=True, logprobs=0)
  assert answer['usage']['prompt_tokens'] == len('<|endoftext|>')
