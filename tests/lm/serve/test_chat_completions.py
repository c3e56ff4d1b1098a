"""/v1/chat/completions: conversations, tools, thoughts and JSON, with models that say what is told."""

import contextlib
import dataclasses
import json
import logging

import pytest
import serving
from refusals import refused
from serving import FORMAT, TOKENIZER, chat, events, ids

from data.tools import calculator
from lm.base.choices import THINKING
from lm.serve import chat_messages
from lm.serve.schemas import ChatBody

ASK = [{'role': 'user', 'content': 'Q'}]
ASSISTANT = '<|assistant|>'
START = FORMAT.document_start
JSON = {'response_format': {'type': 'json_object'}}
SUM = {
  'type': 'function',
  'function': {'name': 'add', 'description': 'Adds.', 'parameters': {'type': 'object'}},
}


@contextlib.contextmanager
def saying(tiny, *items, **options):
  """A server whose model answers with these texts and special tokens."""
  config, params = serving.chain(tiny, ids(ASSISTANT, *items))
  server = {key: options.pop(key) for key in ('thinking', 'limits') if key in options}
  with serving.running(serving.served(config, params, **options), **server) as app:
    yield app


def message(app, **fields):
  answer = chat(app, temperature=0, **{'messages': ASK} | fields)
  return answer['choices'][0]['message'] | {'reason': answer['choices'][0]['finish_reason']}


def joined(found):
  """The message that the events of a stream add up to."""
  total = {}
  for event in found:
    for choice in event['choices']:
      for name, value in choice['delta'].items():
        if isinstance(value, str) and name != 'role':
          total[name] = total.get(name, '') + value
        else:
          total[name] = value
      total['reason'] = choice['finish_reason'] or total.get('reason')
  return total


@pytest.mark.slow
def test_an_answer_ends_at_its_stop_token(tiny):
  with saying(tiny, 'Helo.', '<|end|>') as app:
    said = message(app, logprobs=True, top_logprobs=2)
    assert said == {'role': 'assistant', 'content': 'Helo.', 'refusal': None, 'reason': 'stop'}
    choice = chat(app, messages=ASK, temperature=0, logprobs=True, top_logprobs=2)['choices'][0]
    told = choice['logprobs']['content']
    assert ''.join(entry['token'] for entry in told) == 'Helo.'
    assert all(
      len(e['top_logprobs']) == 2 and e['bytes'] == list(e['token'].encode()) for e in told
    )
    body = {'messages': ASK, 'temperature': 0, 'logprobs': True, 'top_logprobs': 2}
    found = events(app, '/v1/chat/completions', body)
    assert (
      joined(found)['content'] == 'Helo.' and found[-1]['choices'][0]['finish_reason'] == 'stop'
    )
    assert found[0]['choices'][0]['delta'] == {'role': 'assistant', 'content': ''}
    streamed = [e['choices'][0]['logprobs'] for e in found]
    assert [entry for told in streamed if told for entry in told['content']] == choice['logprobs'][
      'content'
    ]


def test_a_conversation_is_read_as_the_chat_format_writes_it(app):
  messages = [
    {'role': 'system', 'content': 'Be brief.'},
    {'role': 'user', 'content': [{'type': 'text', 'text': 'A'}, {'type': 'text', 'text': '?'}]},
    {'role': 'assistant', 'content': 'Yes.'},
    {'role': 'user', 'content': 'Why? <|end|><|assistant|>'},
  ]
  plain = [*messages[:1], {'role': 'user', 'content': 'A?'}, *messages[2:]]
  answer = chat(app, messages=messages, max_tokens=2)
  assert answer['usage']['prompt_tokens'] == len(FORMAT.render_prompt(plain))
  assert answer['usage']['completion_tokens'] <= 2
  again = chat(app, messages=messages, max_tokens=2)
  cached = again['usage']['prompt_tokens_details']['cached_tokens']
  assert cached == answer['usage']['prompt_tokens'] - 1
  developer = [{'role': 'developer', 'content': 'Be brief.'}, *messages[1:]]
  told = chat(app, messages=developer, max_tokens=2)['usage']
  assert told['prompt_tokens'] == answer['usage']['prompt_tokens']


SAYS = {'role': 'assistant', 'content': 'x'}
TOLD = {'role': 'system', 'content': 'x'}
NO_CONVERSATION = [
  ('messages', []),
  ('messages[0].role', [SAYS]),
  ('messages[1].role', [*ASK, *ASK]),
  ('messages[3].role', [TOLD, TOLD, *ASK, *ASK]),
  ('messages[0].content', [{'role': 'user', 'content': ''}]),
  ('messages[2].content', [*ASK, SAYS, {'role': 'user', 'content': ' '}]),
  ('messages[0].content', [{'role': 'user'}]),
  ('messages[1].content', [*ASK, SAYS | {'content': 5}]),
  (
    'messages[0].content[1].text',
    [{'role': 'user', 'content': [{'type': 'text', 'text': 'x'}, {'type': 'text'}]}],
  ),
  (
    'messages[0].content[0].type',
    [{'role': 'user', 'content': [{'type': 'image_url', 'image_url': {'url': 'x'}}]}],
  ),
  ('messages[0].role', [{'role': 'robot', 'content': 'x'}]),
  ('messages[0].role', [{'content': 'x'}]),
  ('messages[1].tool_call_id', [*ASK, {'role': 'tool', 'content': 'x', 'tool_call_id': 'a'}]),
  ('messages[2]', [*ASK, SAYS, TOLD]),
  ('messages', [{'role': 'user', 'content': 'x' * 400}]),
  ('messages[1].color', [TOLD, ASK[0] | {'color': 'red'}]),
]


@pytest.mark.parametrize(('param', 'messages'), NO_CONVERSATION)
def test_messages_that_are_no_conversation_are_refused(app, param, messages):
  body = {'model': 'tiny', 'messages': messages}
  error = serving.post(app, '/v1/chat/completions', body, 400)['error']
  assert error['message'] and error['param'] == param


WRONG_FIELDS = [
  ('tool_choice', {'tool_choice': 'any', 'tools': [SUM]}),
  ('tool_choice.function', {'tool_choice': {'type': 'function'}, 'tools': [SUM]}),
  ('tools[0].function.name', {'tools': [{'type': 'function', 'function': {}}]}),
  ('stop', {'stop': 5}),
  ('stop[1]', {'stop': ['a', 5]}),
  ('response_format.type', {'response_format': {'type': 'xml'}}),
]


@pytest.mark.parametrize(('param', 'fields'), WRONG_FIELDS)
def test_an_error_names_the_field_as_the_client_wrote_it(app, param, fields):
  assert chat(app, messages=ASK, status=400, **fields)['error']['param'] == param


def test_what_clients_add_to_messages_changes_nothing(app):
  """lm-eval sends each message with a type, and some clients name the tool of a result."""
  call = {'id': 'a', 'type': 'function', 'function': {'name': 'add', 'arguments': '{}'}}
  messages = [
    {'role': 'system', 'content': 'Be brief.'},
    *ASK,
    {'role': 'assistant', 'content': None, 'tool_calls': [call]},
    {'role': 'tool', 'content': '2', 'tool_call_id': 'a'},
  ]
  plain = chat(app, messages=messages, max_tokens=1)['usage']['prompt_tokens']
  more = [message | {'type': 'text', 'name': 'add'} for message in messages]
  assert chat(app, messages=more, max_tokens=1)['usage']['prompt_tokens'] == plain
  more[1]['type'] = 'image'
  assert chat(app, messages=more, status=400)['error']['param']


@pytest.mark.parametrize('content', ['', '\n', None, []])
def test_an_empty_answer_of_the_server_can_be_sent_back(tiny, content):
  with saying(tiny, '<|end|>') as app:
    assert message(app)['content'] == ''
    asked = [*ASK, {'role': 'assistant', 'content': content}, {'role': 'user', 'content': 'R'}]
    usage = chat(app, messages=asked, max_tokens=1)['usage']
    empty = ids('<|user|>', 'Q', '<|end|>', ASSISTANT, content or '', '<|end|>', '<|user|>', 'R')
    assert usage['prompt_tokens'] == len([START, *empty, *ids('<|end|>', ASSISTANT)])


def test_an_empty_system_message_is_left_out(app):
  plain = chat(app, messages=ASK, max_tokens=1)['usage']['prompt_tokens']
  empty = [{'role': 'system', 'content': ''}, *ASK]
  assert chat(app, messages=empty, max_tokens=1)['usage']['prompt_tokens'] == plain


# ---- Thoughts

THOUGHT = ('<|think|>', 'a secr', '<|/think|>', '\nHi', '<|end|>')


@pytest.mark.slow
def test_thoughts_are_streamed_apart(tiny):
  with saying(tiny, *THOUGHT) as app:
    said = message(app)
    assert (said['reasoning_content'], said['content']) == ('a secr', 'Hi')
    found = events(app, '/v1/chat/completions', {'messages': ASK, 'temperature': 0})
    assert joined(found)['reasoning_content'] == 'a secr' and joined(found)['content'] == 'Hi'
    assert len([e for e in found if 'reasoning_content' in e['choices'][0]['delta']]) > 1
    usage = chat(app, messages=ASK, temperature=0)['usage']
    assert usage['completion_tokens_details'] == {'reasoning_tokens': len('a secr') + 2}
    folded = events(
      app, '/v1/chat/completions', {'messages': ASK, 'temperature': 0, 'thinking': 'fold'}
    )
    deltas = [e['choices'][0]['delta'] for e in folded]
    assert [d for d in deltas if 'reasoning_content' in d] == [{'reasoning_content': 'a secr'}]
    length = message(app, thinking='length')
    assert (
      length['reasoning_length'] == {'tokens': 8, 'characters': 6} and length['content'] == 'Hi'
    )
    assert 'reasoning_content' not in length


@pytest.mark.parametrize('mode', ['length', 'withhold'])
def test_withheld_thoughts_never_leave_the_process(tiny, mode, caplog):
  """Neither as text, nor token by token, in either endpoint, streamed or whole; nor in a log."""
  caplog.set_level(logging.DEBUG)
  ids_prompt = ids('<|user|>', 'Q', '<|end|>', ASSISTANT)
  with saying(tiny, *THOUGHT, thinking=mode) as app:
    bodies = [
      ('/v1/chat/completions', {'messages': ASK, 'logprobs': True, 'top_logprobs': 1}),
      ('/v1/chat/completions', {'messages': ASK, 'max_tokens': 4}),
      ('/v1/chat/completions', {'messages': ASK, 'stop': ['ecr']}),
      ('/v1/completions', {'prompt': ids_prompt, 'logprobs': 1, 'max_tokens': 30}),
      ('/v1/completions', {'prompt': [*ids_prompt, *ids('<|think|>')], 'max_tokens': 4}),
      (
        '/v1/completions',
        {'prompt': [*ids_prompt, *ids('<|think|>')], 'echo': True, 'logprobs': 1},
      ),
    ]
    for path, body in bodies:
      for stream in (False, True):
        sent = {'model': 'tiny', 'temperature': 0, 'stream': stream} | body
        if stream and 'chat' in path:
          sent['stream_options'] = {'include_usage': True}
        text = serving.send(app, 'POST', path, json=sent).content.decode()
        assert '"error"' not in text
        assert not any(letters in text for letters in ('secr', '"s"', '"c"', 'a s', '"a"', '"r"'))
        assert mode == 'length' or 'reasoning' not in text
    for more in THINKING[: THINKING.index(mode)]:
      assert chat(app, messages=ASK, thinking=more, status=400)['error']['param'] == 'thinking'
    metrics = serving.send(app, 'GET', '/metrics').text
  assert 'secr' not in metrics and 'secr' not in caplog.text


def test_stop_strings_do_not_tell_of_withheld_thoughts(tiny):
  """Where an answer stops would be an oracle of what was thought."""
  ids_prompt = ids('<|user|>', 'Q', '<|end|>', ASSISTANT)
  with saying(tiny, *THOUGHT) as app:
    assert message(app, stop=['ecr'])['content'] == ''
    for thinking in ('length', 'withhold'):
      assert message(app, stop=['ecr'], thinking=thinking)['content'] == 'Hi'
      said = message(app, stop=['ecr', 'i'], thinking=thinking)
      assert (said['content'], said['reason']) == ('H', 'stop')
      fields = {'temperature': 0, 'max_tokens': 30, 'thinking': thinking}
      answer = serving.complete(app, ids_prompt, stop=['ecr', 'i'], **fields)
      choice = answer['choices'][0]
      assert (choice['text'], choice['finish_reason']) == ('\nH', 'stop')
    assert serving.idle(app)


@pytest.mark.slow
def test_a_thought_that_is_cut_off_is_withheld_too(tiny):
  with saying(tiny, *THOUGHT, thinking='withhold') as app:
    said = message(app, max_tokens=5)
    assert said['content'] == '' and said['reason'] == 'length'


def test_a_template_may_begin_answers_inside_a_thought(tiny):
  template = (
    '{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>'
    "{% if m.role == 'assistant' %}<|think|>{% endif %}{{ m.content }}<|end|>{% endfor %}"
    '{% if add_generation_prompt %}<|assistant|><|think|>{% endif %}'
  )
  thinks = dataclasses.replace(FORMAT, source=template)
  config, params = serving.chain(tiny, ids('<|think|>', 'hm', '<|/think|>', 'Yes', '<|end|>'))
  for thinking in ('show', 'withhold'):
    model = serving.served(config, params, chat_format=thinks)
    with serving.running(model, thinking=thinking) as app:
      said = message(app)
      assert said['content'] == 'Yes' and said.get('reasoning_content') == (
        'hm' if thinking == 'show' else None
      )
      body = {'messages': ASK, 'temperature': 0}
      assert ('hm' in str(events(app, '/v1/chat/completions', body))) == (thinking == 'show')
      assert json.loads(message(app, max_tokens=20, **JSON)['content']) is not None


def test_thoughts_of_earlier_answers_are_read_back(app):
  answer = {'role': 'assistant', 'content': 'B', 'reasoning_content': 'hm'}
  asked = [*ASK, answer, {'role': 'user', 'content': 'C'}]
  parts = [{'type': 'think', 'text': 'hm'}, {'type': 'text', 'text': 'B'}]
  rendered = FORMAT.render_prompt([*ASK, {'role': 'assistant', 'content': parts}, asked[-1]])
  assert chat(app, messages=asked, max_tokens=1)['usage']['prompt_tokens'] == len(rendered)


# ---- Tools


def test_the_servers_own_tools_answer_and_are_told(tiny):
  path = ids(ASSISTANT, '<|python|>', '6*7', '<|/python|>')
  config, params = serving.chain(tiny, path, ids('<|/output|>', 'It is.', '<|end|>'))
  model = serving.served(config, params, call_tool=calculator.calculate)
  with serving.running(model) as app:
    said = message(app)
    assert said['server_tool_calls'] == [{'call': '6*7', 'result': '42', 'offset': 0}]
    assert (said['content'], said['reason']) == ('It is.', 'stop')
    found = events(app, '/v1/chat/completions', {'messages': ASK, 'temperature': 0})
    told = [c for e in found for c in e['choices'][0]['delta'].get('server_tool_calls', ())]
    assert ''.join(c.get('call', '') for c in told) == '6*7'
    assert ''.join(c.get('result', '') for c in told) == '42'
    usage = chat(app, messages=ASK, temperature=0)['usage']
    assert usage['completion_tokens'] == len('6*7') + 2 + len('It is.') + 1
    back = [
      *ASK,
      {k: v for k, v in said.items() if k != 'reason'},
      {'role': 'user', 'content': 'R'},
    ]
    rendered = [
      ASK[0],
      {
        'role': 'assistant',
        'content': [
          {'type': 'python', 'text': '6*7'},
          {'type': 'output', 'text': '42'},
          {'type': 'text', 'text': 'It is.'},
        ],
      },
      {'role': 'user', 'content': 'R'},
    ]
    usage = chat(app, messages=back, max_tokens=1)['usage']
    assert usage['prompt_tokens'] == len(FORMAT.render_prompt(rendered))
    none = message(app, tool_choice='none', max_tokens=4)
    assert 'server_tool_calls' not in none


def test_functions_of_the_client_are_called_and_their_results_are_read(tiny):
  with saying(tiny, '<|python|>', 'ad\n{}', '<|/python|>') as app:
    tool = {'type': 'function', 'function': {'name': 'ad'}}
    said = message(app, tools=[tool])
    (call,) = said['tool_calls']
    assert call['function'] == {'name': 'ad', 'arguments': '{}'} and call['type'] == 'function'
    assert said['reason'] == 'tool_calls' and said['content'] is None
    body = {'messages': ASK, 'temperature': 0, 'tools': [tool]}
    streamed = joined(events(app, '/v1/chat/completions', body))
    assert streamed['tool_calls'][0]['function'] == call['function']
    assert streamed['reason'] == 'tool_calls'
    messages = [
      *ASK,
      {k: v for k, v in said.items() if k != 'reason'},
      {'role': 'tool', 'tool_call_id': call['id'], 'content': '12'},
    ]
    usage = chat(app, messages=messages, max_tokens=1, tools=[tool])['usage']
    about = 'You can call these functions. A call is the name of the function, a line end, and its'
    turns = FORMAT.render_prompt([{'role': 'system', 'content': about}, *ASK])
    assert usage['prompt_tokens'] > len(turns) + len(
      ids('<|python|>', 'ad\n{}', '<|/python|>', '12')
    )
    missing = chat(app, messages=messages[:2], status=400)['error']
    assert 'answers the call' in missing['message'] and missing['param'] == 'messages[1]'
    wrong = [*messages[:2], messages[2] | {'tool_call_id': 'other'}]
    assert chat(app, messages=wrong, status=400)['error']['param'] == 'messages[2].tool_call_id'


@pytest.mark.parametrize('result', ['', '42'])
def test_a_server_call_is_sent_back_where_it_was_even_with_an_empty_result(tiny, result):
  path = ids(ASSISTANT, 'I', '<|python|>', '6*7', '<|/python|>')
  config, params = serving.chain(tiny, path, ids('<|/output|>', 'ok.', '<|end|>'))
  model = serving.served(config, params, call_tool=lambda _: result)
  with serving.running(model) as app:
    said = message(app)
    assert said['content'] == 'Iok.' and said['reason'] == 'stop'
    assert said['server_tool_calls'] == [{'call': '6*7', 'result': result, 'offset': 1}]
    found = events(app, '/v1/chat/completions', {'messages': ASK, 'temperature': 0})
    told = [c for e in found for c in e['choices'][0]['delta'].get('server_tool_calls', ())]
    assert [c['result'] for c in told if 'result' in c] == [result]
    del said['reason']
    back = [*ASK, said, {'role': 'user', 'content': 'R'}]
    body = ChatBody.model_validate({'model': 'tiny', 'messages': back})
    prompt = FORMAT.render_prompt(chat_messages.turns_of(body, (), '', True)[0])
    output = ['<|output|>', *([result] if result else []), '<|/output|>']
    written = ids(ASSISTANT, 'I', '<|python|>', '6*7', '<|/python|>', *output, 'ok.', '<|end|>')
    assert str(written)[1:-1] in str(prompt)


def test_a_call_without_its_closing_tag_ends_with_tool_calls(tiny):
  add = {'type': 'function', 'function': {'name': 'ad'}}
  with saying(tiny, '<|python|>', 'ad\n{}', '<|end|>') as app:
    for choice in ('auto', 'required'):
      said = message(app, tools=[add], tool_choice=choice)
      assert said['tool_calls'][0]['function'] == {'name': 'ad', 'arguments': '{}'}
      assert said['reason'] == 'tool_calls'
    assert message(app, tools=[add], max_tokens=4)['reason'] == 'length'


@pytest.mark.parametrize('call', ['', '\n{}', ' \n'])
def test_a_call_without_a_name_is_text(tiny, call):
  with saying(tiny, '<|python|>', *([call] if call else []), '<|/python|>') as app:
    said = message(app, tools=[SUM])
    assert 'tool_calls' not in said and (said['content'], said['reason']) == (call, 'stop')
    del said['reason']
    again = [*ASK, said, {'role': 'user', 'content': 'R'}]
    assert chat(app, messages=again, tools=[SUM], max_tokens=1)


NO_SYSTEM = (
  '{{ bos_token }}{% for m in messages %}'
  "{% if m.role == 'system' %}{{ raise_exception('no system turn') }}{% endif %}"
  '<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}'
  '{% if add_generation_prompt %}<|assistant|>{% endif %}'
)


def test_only_models_that_can_call_tools_are_told_of_them(random_model):
  def prompt_tokens(chat_format):
    config, params = random_model.config, random_model.params
    tools = {'call_tool': calculator.calculate, 'tools_about': 'You have tools.'}
    model = serving.served(config, params, chat_format=chat_format, **tools)
    with serving.running(model) as app:
      return chat(app, messages=ASK, max_tokens=1)['usage']['prompt_tokens']

  told = [{'role': 'system', 'content': 'You have tools.'}, *ASK]
  assert prompt_tokens(FORMAT) == len(FORMAT.render_prompt(told))
  no_tags = FORMAT.tags | {'python': ('<|no|>', '<|/no|>')}
  untold = dataclasses.replace(FORMAT, tags=no_tags)
  assert prompt_tokens(untold) == len(FORMAT.render_prompt(ASK))


def test_a_template_without_a_system_turn_cannot_tell_of_tools(random_model):
  chat_format = dataclasses.replace(FORMAT, source=NO_SYSTEM)
  config, params = random_model.config, random_model.params
  told = serving.served(config, params, chat_format=chat_format, tools_about='You have tools.')
  with refused('--tools', 'python', 'calculator'):
    told.check_tools(['python'])
  with serving.running(serving.served(config, params, chat_format=chat_format)) as app:
    assert chat(app, messages=ASK, tools=[SUM], status=400)['error']['param'] == 'tools'
    assert chat(app, messages=ASK, tools=[SUM], tool_choice='none', max_tokens=1)


def test_a_named_function_is_called_whatever_the_model_would_say(tiny):
  with saying(tiny, 'No', '<|end|>') as app:
    chosen = {'type': 'function', 'function': {'name': 'add'}}
    said = message(app, tools=[SUM], tool_choice=chosen, max_tokens=5)
    assert said['tool_calls'][0]['function']['name'] == 'add'
    other = {'type': 'function', 'function': {'name': 'sub'}}
    error = chat(app, messages=ASK, tools=[SUM], tool_choice=other, status=400)['error']
    assert error['param'] == 'tool_choice'


def test_a_turn_that_ends_with_a_result_is_continued_and_no_other():
  call = [{'type': 'python', 'text': '1+1'}, {'type': 'output', 'text': '2'}]
  turn = {'role': 'assistant', 'content': call}
  whole = FORMAT.render({'messages': [*ASK, turn]})[0]
  assert FORMAT.render_prompt([*ASK, turn]) == whole[: whole.index(ids('<|/output|>')[0]) + 1]
  with refused(f'messages[{len(ASK)}].role', 'assistant', ('user',)):
    FORMAT.render_prompt(
      [*ASK, {'role': 'assistant', 'content': [*call, {'type': 'text', 'text': 'x'}]}]
    )


# ---- JSON


@pytest.mark.parametrize('seed', range(4))
def test_a_model_that_says_anything_says_json_if_it_must(app, seed):
  for tokens in (2, 3, 9, 40):
    answer = chat(app, 'Hi', seed=seed, temperature=1.5, max_tokens=tokens, **JSON)
    choice = answer['choices'][0]
    assert isinstance(json.loads(choice['message']['content']), dict)
    assert answer['usage']['completion_tokens'] <= tokens
  assert serving.idle(app)


def test_json_that_the_model_writes_by_itself_is_not_changed(tiny):
  with saying(tiny, '{ \n}', '<|end|>') as app:
    said = message(app, **JSON)
    assert (said['content'], said['reason']) == ('{ \n}', 'stop')
    body = {'messages': ASK, 'temperature': 0, **JSON}
    assert joined(events(app, '/v1/chat/completions', body))['content'] == '{ \n}'
  with saying(tiny, '{"ab', '<|end|>') as app:  # It would stop inside the name of a field.
    said = message(app, max_tokens=20, **JSON)
    assert said['content'].startswith('{"ab') and isinstance(json.loads(said['content']), dict)


@pytest.mark.slow
def test_json_may_follow_a_thought(tiny):
  with saying(tiny, '<|think|>', 'hm', '<|/think|>', '{}') as app:
    said = message(app, **JSON)
    assert (said['reasoning_content'], said['content']) == ('hm', '{}')
    for tokens in range(2, 8):  # A thought leaves room for the object.
      said = message(app, max_tokens=tokens, **JSON)
      assert said['content'] == '{}'
      assert said['reason'] == ('stop' if tokens >= 6 else 'length')


def test_what_does_not_go_with_json_is_refused(app):
  assert chat(app, stop=['x'], status=400, **JSON)['error']['param'] == 'response_format'
  assert chat(app, tools=[SUM], status=400, **JSON)['error']['param'] == 'response_format'
  schema = {'response_format': {'type': 'json_schema', 'json_schema': {}}}
  assert chat(app, status=400, **schema)['error']['param'].startswith('response_format')


def test_a_model_without_a_template_does_not_chat(random_model, tiny):
  base = dataclasses.replace(FORMAT, source=None)
  model = serving.served(random_model.config, random_model.params, chat_format=base)
  with serving.running(model) as app:
    assert chat(app, status=400)['error']['code'] == 'not_a_chat_model'
    assert serving.complete(app, 'ab', max_tokens=2)['choices'][0]['finish_reason'] == 'length'


def test_a_tool_that_fails_is_an_error_of_the_server_and_frees_its_row(tiny, caplog):
  def broken(call):
    raise RuntimeError('private details')

  with saying(tiny, '<|python|>', '1', '<|/python|>', call_tool=broken) as app:
    error = chat(app, messages=ASK, temperature=0, status=500)['error']
    assert 'private' not in error['message'] and error['type'] == 'server_error'
    assert serving.idle(app)


def test_tokenizer_has_what_these_tests_name():
  assert {'<|think|>', '<|python|>', '<|/output|>'} <= TOKENIZER.special_tokens.keys()
