"""The playground in headless Chromium: every view, by pointer and by keyboard, wide and narrow.

It needs Debian's chromium and the Python package playwright; the checks of accessibility also need
the npm package axe-core in a folder node_modules, which DEEPDIVE_NODE_MODULES names or which is in
the working directory. What is missing is skipped.
"""

import contextlib
import json
import os
import pathlib
import re
import shutil
import threading
import time

import playgrounds
import pytest
import serving
from serving import listening_at

from data.tokenizers.bpe import BPE, BYTES, PATTERNS
from data.tools import calculator
from lm.serve.playground import mounting

sync_api = pytest.importorskip('playwright.sync_api')
expect = sync_api.expect
expect.set_options(timeout=120_000)  # The first answers wait for compilations.
CHROMIUM = shutil.which('chromium')
pytestmark = [
  pytest.mark.slow,
  pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium"),
]
AXE = pathlib.Path(os.environ.get('DEEPDIVE_NODE_MODULES', 'node_modules')) / 'axe-core/axe.min.js'
SIZES = {'desktop': {'width': 1280, 'height': 860}, 'phone': {'width': 390, 'height': 844}}
TABS = ('chat', 'base', 'tokens', 'inside', 'compare')
MERGED = (b'he', b'll', b'hell', b'hello', b' w', b'or')
HOSTILE = '<img src=x onerror="document.title=1"><script>document.title=1</script>&lt;'


@pytest.fixture(scope='module')
def server(tiny, tmp_path_factory):
  """(address, Service, path of the arena file) of a server of two models on bytes."""
  votes = tmp_path_factory.mktemp('arena') / 'votes.jsonl'
  words = BPE(PATTERNS['gpt2'], BYTES | {token: 256 + i for i, token in enumerate(MERGED)}, ())
  app = playgrounds.application(
    tiny, ['one', 'two'], arena_file=votes, context=1024, tokenizers={'words': words}
  )
  with listening_at(app) as address:
    yield address, app.state.service, votes


@pytest.fixture(scope='module')
def browser():
  with sync_api.sync_playwright() as playwright:
    browser = playwright.chromium.launch(executable_path=CHROMIUM, args=['--no-sandbox'])
    yield browser
    browser.close()


@pytest.fixture
def open_page(browser, server):
  """open_page(size, **options of the context) -> page; the test fails if it logs an error."""
  problems, contexts = [], []

  def open_page(size='desktop', **options):
    context = browser.new_context(base_url=server[0], viewport=SIZES[size], **options)
    context.set_default_timeout(60_000)
    contexts.append(context)
    page = context.new_page()
    page.on('console', lambda m: problems.append(m.text) if m.type in ('error', 'warning') else 0)
    page.on('pageerror', lambda error: problems.append(str(error)))
    page.on(
      'requestfailed', lambda r: problems.append(r.url) if 'ERR_ABORTED' not in r.failure else 0
    )
    page.goto('/')
    expect(page.get_by_role('tab', name='Chat')).to_have_attribute('aria-selected', 'true')
    return page

  yield open_page
  for context in contexts:
    context.close()
  assert problems == []


@pytest.fixture(params=SIZES)
def page(open_page, request):
  page = open_page(request.param)
  yield page
  width = page.evaluate('() => document.documentElement.scrollWidth')
  assert width <= SIZES[request.param]['width']


def go(page, tab):
  page.get_by_role('tab', name={'base': 'Base model'}.get(tab, tab.capitalize())).click()
  expect(page.locator(f'#{tab}')).to_be_visible()


def set_field(page, prefix, **values):
  """Sets fields of the settings of a view, whether or not they are unfolded."""
  for name, value in values.items():
    page.locator(f'#{prefix}-{name}').evaluate(
      '(node, value) => { node.value = value; }', str(value)
    )


def ended(page, start):
  expect(page.locator(f'#{start}')).to_be_visible()


def ask(page, text, **settings):
  set_field(page, 'chat', **({'max_tokens': 12} | settings))
  page.locator('#chat-input').fill(text)
  page.locator('#chat-input').press('Enter')
  expect(page.locator('.message.assistant').last).to_be_visible()


def said(page):
  return page.locator('.message .said').all_text_contents()


@contextlib.contextmanager
def paused_after(engine, steps):
  """Lets an engine make so many steps; yields a function that lets it go on."""
  original, left, released = engine.step, [steps], threading.Event()

  def step():
    left[0] -= 1
    if left[0] < 0:
      released.wait()
    original()

  engine.step = step
  try:
    yield released.set
  finally:
    released.set()
    del engine.step


def wait_until_idle(page, engine):
  deadline = time.monotonic() + 60
  while not engine.is_idle and time.monotonic() < deadline:
    page.wait_for_timeout(20)
  assert engine.is_idle, 'a row of the engine is not free'


# ---- Chat


def test_chat_streams_answers_that_can_be_tried_again(page):
  ask(page, 'Hello?', temperature=0)
  ended(page, 'chat-send')
  first = said(page)
  assert first[0] == 'Hello?' and len(first) == 2 and first[1]
  page.get_by_role('button', name='Retry').click()
  ended(page, 'chat-send')
  assert said(page) == first
  ask(page, 'And then?', temperature=0)
  ended(page, 'chat-send')
  assert said(page)[:3] == [*first, 'And then?'] and len(said(page)) == 4
  page.get_by_role('button', name='New conversation').click()
  expect(page.get_by_role('heading', name='Talk with the model')).to_be_visible()


def test_chat_stops_at_once_and_keeps_what_was_said(page, server):
  engine = server[1].models['one'].engine.engine
  with paused_after(engine, steps=8) as go_on:
    ask(page, 'Hello?', max_tokens=900, temperature=0)
    expect(page.locator('.message.assistant .said')).to_have_text(re.compile('.'))
    page.get_by_role('button', name='Stop').click()
    expect(page.locator('#chat-status')).to_have_text('Stopped.')
    expect(page.locator('#chat-send')).to_be_visible()
    go_on()
    wait_until_idle(page, engine)
  assert said(page)[1]


def test_an_edited_question_is_asked_again_and_an_edited_answer_is_kept(page):
  for question in ('First', 'Second'):
    ask(page, question)
    ended(page, 'chat-send')
  page.get_by_role('button', name='Edit message 2').click()
  page.get_by_label('Edited message').fill('My answer')
  page.get_by_role('button', name='Save').click()
  assert said(page)[1] == 'My answer' and len(said(page)) == 4
  sent = []
  page.on('request', lambda r: sent.append(r.post_data_json) if 'completions' in r.url else 0)
  page.get_by_role('button', name='Edit message 3').click()
  page.get_by_label('Edited message').fill('Third')
  page.get_by_label('Edited message').press('Enter')
  ended(page, 'chat-send')
  assert said(page)[:3] == ['First', 'My answer', 'Third'] and len(said(page)) == 4
  assert [m['content'] for m in sent[0]['messages']] == ['First', 'My answer', 'Third']


def test_settings_and_the_system_prompt_are_sent(page):
  sent = []
  page.on('request', lambda r: sent.append(r.post_data_json) if 'completions' in r.url else 0)
  page.locator('#chat').get_by_text('Settings').click()
  page.get_by_label('System prompt').fill('Be brief.')
  page.locator('#chat').get_by_label('Top-k').fill('5')
  page.locator('#chat').get_by_label('Seed').fill('7')
  ask(page, 'Hello?')
  ended(page, 'chat-send')
  assert sent[0]['messages'][0] == {'role': 'system', 'content': 'Be brief.'}
  chosen = {'top_k': 5, 'seed': 7, 'max_tokens': 12, 'temperature': 0.8, 'stream': True}
  assert {name: sent[0].get(name) for name in chosen} == chosen


def test_text_of_models_stays_text_and_asides_are_folded(page):
  deltas = [
    {'role': 'assistant', 'content': ''},
    {'reasoning_content': f'I think {HOSTILE}'},
    {'server_tool_calls': [{'index': 0, 'call': f'1+1 {HOSTILE}'}]},
    {'server_tool_calls': [{'index': 0, 'result': '2'}]},
    {'content': f'It is {HOSTILE}'},
  ]
  events = [{'choices': [{'index': 0, 'delta': delta, 'finish_reason': None}]} for delta in deltas]
  body = ''.join(f'data: {json.dumps(event)}\n\n' for event in events) + 'data: [DONE]\n\n'
  page.route(
    '**/v1/chat/completions', lambda r: r.fulfill(body=body, content_type='text/event-stream')
  )
  ask(page, HOSTILE)
  ended(page, 'chat-send')
  assert said(page) == [HOSTILE, f'It is {HOSTILE}']
  assert page.locator('main img, main script').count() == 0
  assert page.title() == 'deepdive playground'
  thought, call = page.locator('.message details').all()
  expect(thought.locator('pre').first).to_be_hidden()
  thought.locator('summary').click()
  expect(thought.locator('pre').first).to_have_text(f'I think {HOSTILE}')
  call.locator('summary').click()
  assert call.locator('pre').all_text_contents() == [f'1+1 {HOSTILE}', '2']


def test_calls_of_the_servers_tools_are_shown_and_sent_back(browser, tiny):
  asked = serving.ids('<|assistant|>', '<|python|>', '6*7', '<|/python|>')
  config, params = serving.chain(tiny, asked, serving.ids('<|/output|>', 'It is.', '<|end|>'))
  model = serving.served(config, params, call_tool=calculator.calculate)
  app = serving.application(model, routes=mounting.routes())
  with listening_at(app) as address:
    page = browser.new_page(base_url=address)
    page.goto('/')
    ask(page, 'R', temperature=0, max_tokens=40)
    ended(page, 'chat-send')
    assert said(page) == ['R', 'It is.']
    page.locator('.message summary').click()
    assert page.locator('.message pre').all_text_contents() == ['6*7', '42']
    sent = []
    page.on('request', lambda r: sent.append(r.post_data_json) if 'completions' in r.url else 0)
    ask(page, 'R', temperature=0, max_tokens=40)
    ended(page, 'chat-send')
    answer = {'role': 'assistant', 'content': 'It is.'}
    answer['server_tool_calls'] = [{'call': '6*7', 'result': '42', 'offset': 0}]
    assert sent[0]['messages'][1] == answer and said(page)[2:] == ['R', 'It is.']
    page.close()


def test_errors_of_the_server_are_shown(browser, server):
  page = browser.new_page(base_url=server[0])
  page.goto('/')
  page.locator('#chat-input').fill('x' * 3000)
  page.locator('#chat-input').press('Enter')
  expect(page.locator('#chat-status')).to_contain_text('context')
  expect(page.locator('#chat-send')).to_be_visible()
  page.close()


# ---- Base model


def tokens_of(page):
  return page.locator('#base-tokens [data-item]').all_text_contents()


def continue_document(page, text, **settings):
  go(page, 'base')
  set_field(page, 'base', **({'max_tokens': 8} | settings))
  page.locator('#base-text').fill(text)
  page.get_by_role('button', name='Continue').click()
  ended(page, 'base-continue')


def test_a_document_is_continued_and_branched(page):
  continue_document(page, 'Once upon', seed=1)
  tokens = tokens_of(page)
  assert ''.join(tokens[:9]) == 'Once upon' and len(tokens) == 17
  page.locator('#base-tokens [data-item]').nth(12).click()
  panel = page.get_by_role('region', name='Alternatives')
  expect(panel).to_be_visible()
  rows = panel.get_by_role('button')
  assert rows.count() in (10, 11)  # one more if the token is not among the most probable
  sent = []
  page.on('request', lambda r: sent.append(r.post_data_json) if 'completions' in r.url else 0)
  other = panel.get_by_role('button', name=re.compile('^Branch')).first
  name = other.locator('.name').text_content()
  other.click()
  ended(page, 'base-continue')
  branched = tokens_of(page)
  assert branched[:12] == tokens[:12] and branched[12] == name != tokens[12]
  assert len(branched) == 21
  assert sent[0]['prompt'][1:10] == list(b'Once upon') and len(sent[0]['prompt']) == 1 + 13
  page.get_by_role('button', name='Undo').click()
  assert tokens_of(page) == tokens
  page.get_by_role('button', name='Edit text').click()
  assert page.locator('#base-text').input_value().startswith('Once upon')


def test_probabilities_of_a_token_are_those_of_its_alternatives(page):
  continue_document(page, 'abc', temperature=0)
  item = page.locator('#base-tokens [data-item]').nth(5)
  item.click()
  label = item.get_attribute('aria-label')
  taken = page.locator('#base-alternatives .taken .number').text_content()
  assert label.endswith(taken)
  numbers = page.locator('#base-alternatives .number').all_text_contents()
  assert numbers[0] == taken  # at temperature 0 the most probable token is drawn


def test_samples_side_by_side_differ_and_can_be_kept(page):
  go(page, 'base')
  set_field(page, 'base', max_tokens=10, seed=3)
  page.get_by_label('Samples', exact=True).fill('3')
  page.get_by_role('button', name='Sample', exact=True).click()
  ended(page, 'base-sample')
  samples = page.locator('#base-samples .run').all_text_contents()
  assert len(set(samples)) == 3 and all(samples)
  page.get_by_role('button', name='Keep sample 2').click()
  assert ''.join(tokens_of(page)) == 'Once upon a time' + samples[1]


def test_writing_a_document_stops(page, server):
  engine = server[1].models['one'].engine.engine
  go(page, 'base')
  set_field(page, 'base', max_tokens=900, temperature=0)
  with paused_after(engine, steps=8) as go_on:
    page.get_by_role('button', name='Continue').click()
    expect(page.locator('#base-tokens [data-item]').nth(18)).to_be_visible()
    page.locator('#base-stop').press('Escape')
    expect(page.locator('#base-status')).to_have_text('Stopped.')
    go_on()
    wait_until_idle(page, engine)
  assert 18 < len(tokens_of(page)) < 900


# ---- Tokens


def test_tokens_show_ids_bytes_and_merges(page):
  go(page, 'tokens')
  page.get_by_label('Text', exact=True).fill('hello wor\né')
  words = page.get_by_role('region', name='words', exact=True)
  pieces = words.locator('.run').first.locator('.token')
  expect(pieces).to_have_text(['hello', '·w', 'or', '↵', 'C3', 'A9'])
  pieces.nth(1).click()
  expect(words.locator('.detail')).to_have_text(
    '· w has id 260 and the bytes 20 77.'.replace('· ', ' ')
  )
  models = page.get_by_role('region', name='one, two', exact=True)
  expect(models.locator('.run').first.locator('.token')).to_have_count(12)
  slider = words.get_by_label('Merges, step by step')
  parts = words.locator('.parts .token')
  expect(parts).to_have_count(12)
  for count in (11, 10, 9, 8, 7, 6):
    slider.press('ArrowRight')
    expect(parts).to_have_count(count)
  expect(words.locator('.merges output')).to_contain_text('Merge 6 of 6')
  expect(words.get_by_role('button', name='One merge on')).to_be_disabled()
  words.get_by_role('button', name='One merge back').click()
  expect(parts).to_have_count(7)
  words.get_by_text('All ids and bytes').click()
  expect(words.get_by_role('row')).to_have_count(7)


# ---- Inside


def test_inside_shows_attention_and_the_guess_of_each_layer(page):
  go(page, 'inside')
  page.get_by_label('A short text').fill('abcd')
  page.get_by_role('button', name='Look inside').click()
  rows = page.locator('#inside-lens tbody tr')
  expect(rows).to_have_count(2)
  expect(page.locator('#inside-reads .row')).to_have_count(5)
  before = page.locator('#inside-map canvas').evaluate('(c) => c.toDataURL()')
  page.get_by_role('button', name='Head 3').click()
  expect(page.get_by_role('button', name='Head 3')).to_have_attribute('aria-pressed', 'true')
  assert page.locator('#inside-map canvas').evaluate('(c) => c.toDataURL()') != before
  page.locator('#inside-tokens [data-item]').nth(1).click()
  expect(page.locator('#inside-reads .row')).to_have_count(2)
  entropies = page.locator('#inside-lens td.number').all_text_contents()
  assert all(0 < float(text) < 6 for text in entropies)
  slider = page.get_by_role('slider', name='Layer')
  assert slider.input_value() == '1'
  slider.press('ArrowRight')
  expect(page.locator('#inside-reads-heading')).to_contain_text('layer 2')


# ---- Compare


def test_votes_are_blind_and_written(page, server):
  votes = server[2]
  before = votes.read_text().splitlines()
  go(page, 'compare')
  page.get_by_label('Prompt', exact=True).fill('Who are you?')
  set_field(page, 'compare', max_tokens=12)
  page.get_by_role('button', name='Ask both').click()
  better = page.get_by_role('button', name='A is better')
  expect(better).to_be_enabled()
  headings = page.locator('#compare-answers h3')
  assert headings.all_text_contents() == ['Answer A', 'Answer B']
  answers = page.locator('#compare-answers .answer').all_text_contents()
  better.click()
  expect(headings.first).to_contain_text(re.compile('one|two'))
  [row] = [json.loads(line) for line in votes.read_text().splitlines()[len(before) :]]
  assert headings.first.text_content() == f'A: {row["left"]}'
  left = row['models'].index(row['left'])
  assert [row['answers'][left], row['answers'][1 - left]] == answers
  assert (row['vote'], row['prompt'], row['kind']) == ('left', 'Who are you?', 'chat')
  expect(better).to_be_disabled()


def test_which_model_is_left_is_left_to_chance(open_page):
  page = open_page()
  go(page, 'compare')
  set_field(page, 'compare', max_tokens=1)
  page.get_by_label('Prompt', exact=True).fill('?')
  for value, left in ((0, 'one'), (1, 'two')):
    page.evaluate('(v) => { crypto.getRandomValues = (array) => array.fill(v); }', value)
    page.get_by_role('button', name='Ask both').click()
    page.get_by_role('button', name='Both bad').click()
    expect(page.locator('#compare-a-heading')).to_have_text(f'A: {left}')


# ---- Keyboard, colours, accessibility


def focused(page):
  return page.evaluate('() => document.activeElement.id || document.activeElement.textContent')


def tab_to(page, name):
  """Presses Tab until the element with this id has the focus."""
  for _ in range(60):
    if page.evaluate('() => document.activeElement.id') == name:
      return
    page.keyboard.press('Tab')
  raise AssertionError(f'the Tab key does not reach {name}')


def test_every_view_works_by_keyboard_alone(page, server):
  keys = page.keyboard
  set_field(page, 'chat', max_tokens=5)
  set_field(page, 'base', max_tokens=5, temperature=0)
  set_field(page, 'compare', max_tokens=5)
  tab_to(page, 'tab-chat')
  tab_to(page, 'chat-input')
  keys.type('Hello?')
  keys.press('Enter')
  expect(page.locator('.message.assistant .said')).to_have_text(re.compile('.'))
  ended(page, 'chat-send')
  tab_to(page, 'chat-retry')
  keys.press('Enter')
  ended(page, 'chat-send')

  page.goto('/#/base')
  set_field(page, 'base', max_tokens=5, temperature=0)
  tab_to(page, 'tab-base')
  tab_to(page, 'base-text')
  tab_to(page, 'base-continue')
  keys.press('Enter')
  ended(page, 'base-continue')
  assert focused(page) == 'base-continue'
  keys.press('Shift+Tab')
  keys.press('End')
  keys.press('ArrowLeft')
  keys.press('Enter')
  expect(page.locator('#base-alternatives')).to_be_visible()
  before = tokens_of(page)
  keys.press('Tab')
  keys.press('Tab')
  keys.press('Enter')
  ended(page, 'base-continue')
  assert len(tokens_of(page)) == len(before) - 1 + 5
  assert tokens_of(page)[: len(before) - 2] == before[:-2]

  tab_to(page, 'tab-base')
  keys.press('ArrowRight')
  assert focused(page) == 'tab-tokens'
  tab_to(page, 'tokens-text')
  keys.press('Control+A')
  keys.type('hello')
  expect(page.get_by_role('region', name='words', exact=True).locator('.run').first).to_have_text(
    'hello'
  )
  tab_to(page, 'merges-0')
  keys.press('End')
  expect(
    page.get_by_role('region', name='words', exact=True).locator('.merges output')
  ).to_contain_text('4 of 4')

  tab_to(page, 'tab-tokens')
  keys.press('ArrowRight')
  tab_to(page, 'inside-text')
  keys.press('Tab')
  keys.press('Enter')
  expect(page.locator('#inside-lens tbody tr')).to_have_count(2)
  tab_to(page, 'inside-layer')
  keys.press('End')
  expect(page.locator('#inside-reads-heading')).to_contain_text('layer 2')
  keys.press('Tab')
  keys.press('ArrowRight')
  keys.press('Enter')
  expect(page.locator('#inside-reads-heading')).to_contain_text('Head 2')

  tab_to(page, 'tab-inside')
  keys.press('End')
  assert focused(page) == 'tab-compare'
  set_field(page, 'compare', max_tokens=5)
  tab_to(page, 'compare-prompt')
  keys.type('Hello?')
  tab_to(page, 'compare-ask')
  keys.press('Enter')
  expect(page.get_by_role('button', name='A is better')).to_be_enabled()
  rows = len(server[2].read_text().splitlines())
  keys.press('Tab')
  keys.press('Tab')
  assert focused(page) == 'B is better'
  keys.press('Enter')
  expect(page.locator('#compare-status')).to_contain_text('Thank you')
  assert len(server[2].read_text().splitlines()) == rows + 1


def fill_all(page):
  """Gives every view something to show."""
  ask(page, 'Hello?')
  ended(page, 'chat-send')
  continue_document(page, 'Once upon')
  page.locator('#base-tokens [data-item]').nth(11).click()
  set_field(page, 'base', max_tokens=8)
  page.get_by_role('button', name='Sample', exact=True).click()
  ended(page, 'base-sample')
  go(page, 'tokens')
  expect(page.locator('#tokens-list .card')).to_have_count(2)
  go(page, 'inside')
  page.get_by_role('button', name='Look inside').click()
  expect(page.locator('#inside-lens tbody tr')).to_have_count(2)
  go(page, 'compare')
  set_field(page, 'compare', max_tokens=8)
  page.get_by_label('Prompt', exact=True).fill('Hello?')
  page.get_by_role('button', name='Ask both').click()
  page.get_by_role('button', name='Equally good').click()
  expect(page.locator('#compare-status')).to_contain_text('Thank you')


@pytest.mark.skipif(not AXE.exists(), reason='needs the npm package axe-core')
@pytest.mark.parametrize('scheme', ['light', 'dark'])
@pytest.mark.parametrize('size', SIZES)
def test_axe_finds_nothing(open_page, size, scheme):
  page = open_page(size, color_scheme=scheme, bypass_csp=True)
  fill_all(page)
  page.evaluate(AXE.read_text())
  for tab in TABS:
    go(page, tab)
    page.locator(f'#{tab} details').evaluate_all('all => all.forEach((d) => { d.open = true; })')
    rules = "{rules: {'target-size': {enabled: true}}}"
    found = page.evaluate(f'async () => (await axe.run(document, {rules})).violations')
    told = [(v['id'], [(n['html'][:200], n['failureSummary']) for n in v['nodes']]) for v in found]
    assert told == [], tab


@pytest.mark.parametrize('size', SIZES)
def test_no_view_scrolls_sideways(open_page, size):
  page = open_page(size)
  fill_all(page)
  for tab in TABS:
    go(page, tab)
    width = page.evaluate('() => document.documentElement.scrollWidth')
    assert width <= SIZES[size]['width'], tab


def test_colours_follow_the_system_and_the_switch(open_page):
  def background(page):
    color = page.evaluate('() => getComputedStyle(document.body).backgroundColor')
    return 'dark' if max(map(int, re.findall(r'\d+', color)[:3])) < 128 else 'light'

  page = open_page(color_scheme='dark')
  assert background(page) == 'dark'
  page.get_by_role('button', name='Use light colours').click()
  assert background(page) == 'light'
  page.reload()
  assert background(page) == 'light'
  expect(page.get_by_role('button', name='Use dark colours')).to_be_visible()
  assert background(open_page(color_scheme='light')) == 'light'


def test_a_key_is_asked_for(browser, tiny):
  app = playgrounds.application(tiny, ['one'], api_keys=('secret',))
  with listening_at(app) as address:
    page = browser.new_page()
    page.goto(address)
    page.get_by_label('This server asks for an API key.').fill('wrong')
    page.get_by_role('button', name='Use key').click()
    expect(page.get_by_role('button', name='Use key')).to_be_visible()
    page.get_by_label('This server asks for an API key.').fill('secret')
    page.get_by_role('button', name='Use key').click()
    expect(page.locator('#chat')).to_be_visible()
    ask(page, 'Hello?')
    ended(page, 'chat-send')
    go(page, 'compare')
    expect(page.locator('#compare-lead')).to_contain_text('two models')
    expect(page.locator('#compare-form')).to_be_hidden()
    page.close()
