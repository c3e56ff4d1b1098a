"""The playground without a browser: its files, its routes, and the arena file."""

import concurrent.futures
import datetime
import fnmatch
import html.parser
import json
import pathlib
import re
import tomllib

import playgrounds
import pytest
from commands import ROOT
from starlette.testclient import TestClient

from lm.base.errors import UserError
from lm.serve.playground import mounting
from lm.serve.playground.votes import Vote, VoteFile

STATIC = ROOT / 'lm' / 'serve' / 'playground' / 'static'
ASSETS = mounting.read_assets()
SCRIPTS = {path: text.decode() for path, text in ASSETS.items() if path.endswith('.js')}
PAGE = ASSETS['/'].decode()
VOTE = {
  'kind': 'chat',
  'prompt': 'Hello?',
  'models': ['one', 'two'],
  'answers': ['Hi.', 'Good day.\n'],
  'left': 1,
  'vote': 'left',
}


class Elements(html.parser.HTMLParser):
  """The elements of a page: (tag, attributes)."""

  def __init__(self, page: str):
    super().__init__()
    self.found = []
    self.texts = {'script': '', 'style': ''}
    self.feed(page)

  def handle_starttag(self, tag, attrs):
    self.found.append((tag, dict(attrs)))

  def handle_data(self, data):
    if self.lasttag in self.texts:
      self.texts[self.lasttag] += data.strip() if self.rawdata else ''


@pytest.fixture(scope='module')
def votes(tmp_path_factory):
  """The path of the arena file."""
  return tmp_path_factory.mktemp('arena') / 'votes.jsonl'


@pytest.fixture(scope='module')
def client(tiny, votes):
  with TestClient(playgrounds.application(tiny, ['one', 'two'], arena_file=votes)) as client:
    yield client


def refusal(response):
  return response.status_code, response.json()['error']['param']


# ---- Files of the page


def test_every_file_is_served_with_its_type_and_a_strict_policy(client):
  types = {'.html': 'text/html', '.js': 'text/javascript', '.css': 'text/css', '.svg': 'image/svg'}
  for file in STATIC.iterdir():
    path = '/' if file.name == 'index.html' else f'/playground/{file.name}'
    response = client.get(path)
    assert response.content == file.read_bytes(), path
    assert response.headers['content-type'].startswith(types[file.suffix]), path
    assert response.headers['x-content-type-options'] == 'nosniff'
    policy = dict(
      rule.strip().split(' ', 1) for rule in response.headers['content-security-policy'].split(';')
    )
    assert policy['default-src'] == "'none'" and policy['script-src'] == "'self'"
    assert policy['style-src'] == policy['connect-src'] == "'self'"
    assert 'unsafe' not in str(policy) and policy['require-trusted-types-for'] == "'script'"


def test_nothing_comes_from_elsewhere():
  for path, content in ASSETS.items():
    text = content.decode().replace('xmlns="http://www.w3.org/2000/svg"', '')
    assert not re.search(r'[a-z]+://|["\'(]//|@import|url\(|data:[a-z]+/', text), path


def test_all_that_is_linked_or_imported_is_served():
  linked = {
    attributes[name]
    for _, attributes in Elements(PAGE).found
    for name in ('src', 'href')
    if name in attributes
  }
  assert linked <= ASSETS.keys() and {'/playground/app.js', '/playground/style.css'} <= linked
  for path, text in SCRIPTS.items():
    for module in re.findall(r"^import [^;]*?from '([^']+)';$", text, re.MULTILINE):
      assert module.replace('./', '/playground/') in ASSETS, f'{path} imports {module}'


def test_the_page_holds_no_script_style_or_listener():
  elements = Elements(PAGE)
  assert elements.texts == {'script': '', 'style': ''}
  for tag, attributes in elements.found:
    assert not [name for name in attributes if name.startswith('on') or name == 'style'], tag


def test_scripts_make_no_html_of_text():
  for path, text in SCRIPTS.items():
    found = re.findall(
      r'innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|\beval\(|new Function'
      r'|createContextualFragment|setHTML|srcdoc',
      text,
    )
    assert not found, path


def test_elements_that_scripts_and_labels_name_are_in_the_page():
  elements = Elements(PAGE).found
  ids = [attributes['id'] for _, attributes in elements if 'id' in attributes]
  assert len(ids) == len(set(ids))
  for path, text in SCRIPTS.items():
    assert set(re.findall(r"byId\('([^']+)'\)", text)) <= set(ids), path
  for _, attributes in elements:
    for name in ('for', 'aria-controls', 'aria-labelledby'):
      assert set(attributes.get(name, '').split()) <= set(ids)


def test_the_files_of_the_page_are_part_of_the_package():
  project = tomllib.loads((ROOT / 'pyproject.toml').read_text())
  patterns = project['tool']['setuptools']['package-data']['lm.serve.playground']
  for file in STATIC.iterdir():
    name = file.relative_to(STATIC.parent).as_posix()
    assert any(fnmatch.fnmatch(name, pattern) for pattern in patterns), name


def test_the_page_needs_no_key_and_its_questions_do(tiny):
  with TestClient(playgrounds.application(tiny, ['one'], api_keys=('secret',))) as client:
    assert all(client.get(path).status_code == 200 for path in ASSETS)
    assert client.get('/playground/about').status_code == 401
    for path in ('tokens', 'inside', 'vote'):
      assert client.post(f'/playground/{path}', json={}).status_code == 401
    key = {'authorization': 'Bearer secret'}
    assert client.get('/playground/about', headers=key).status_code == 200


# ---- Questions of the page


def test_about_lists_the_models(client):
  about = client.get('/playground/about').json()
  assert about['takes_votes'] is True
  assert [model['name'] for model in about['models']] == ['one', 'two']
  assert about['models'][0]['can_chat'] is True
  assert (about['models'][0]['num_layers'], about['models'][0]['num_heads']) == (2, 4)


def test_tokens_of_a_text_by_each_tokenizer(client):
  body = client.post('/playground/tokens', json={'text': 'é <|end|>\n'}).json()
  [split] = body['tokenizers']  # both models have the same
  assert split['names'] == ['one', 'two'] and split['num_bytes'] == 11
  assert [token['bytes'] for token in split['tokens']][:3] == ['c3', 'a9', '20']
  assert [token['id'] for token in split['tokens']] == list('é <|end|>\n'.encode())
  assert split['merges'] == {'pieces': ['é <|end|>\n'.encode().hex()], 'steps': []}
  long = client.post('/playground/tokens', json={'text': 'x' * 2000}).json()['tokenizers'][0]
  assert long['merges'] is None and '1,000' in long['no_merges'] and len(long['tokens']) == 2000


def test_a_lone_surrogate_is_a_fault_of_the_body(client):
  body = b'{"text": "a\\ud800b"}'
  headers = {'content-type': 'application/json'}
  response = client.post('/playground/tokens', content=body, headers=headers)
  assert response.status_code == 400


def test_inside_of_a_text(client):
  question = {'model': 'one', 'text': 'abc', 'layer': 1}
  seen = client.post('/playground/inside', json=question).json()
  start = b'<|endoftext|>'.hex()
  assert [token['bytes'] for token in seen['tokens']] == [start, '61', '62', '63']
  assert len(seen['attention']) == 4 and len(seen['layers']) == 2
  for head in seen['attention']:
    assert [sum(row) for row in head] == pytest.approx([1, 1, 1, 1], abs=1e-3)
    assert head[0][1:] == [0, 0, 0]
  for layer in seen['layers']:
    assert len(layer['entropy']) == len(layer['guesses']) == 4
    for guesses in layer['guesses']:
      probabilities = [guess['probability'] for guess in guesses]
      assert probabilities == sorted(probabilities, reverse=True) and sum(probabilities) <= 1
      assert all(bytes.fromhex(guess['bytes']) for guess in guesses)


@pytest.mark.parametrize(
  ('path', 'body', 'expected'),
  [
    ('tokens', {}, (400, 'text')),
    ('tokens', {'text': 1}, (400, 'text')),
    ('tokens', {'text': 'x' * 20_001}, (400, 'text')),
    ('inside', {'model': 'one', 'text': 'x' * 128}, (400, 'text')),
    ('inside', {'model': 'one', 'text': 'x', 'layer': 2}, (400, 'layer')),
    ('inside', {'model': 'one', 'text': 'x', 'layer': '1'}, (400, 'layer')),
    ('inside', {'model': 'three', 'text': 'x'}, (404, 'model')),
    ('inside', {'model': 'one', 'text': 'x', 'more': 1}, (400, 'more')),
    ('vote', VOTE | {'vote': 'best'}, (400, 'vote')),
    ('vote', VOTE | {'models': ['one', 'three']}, (404, 'model')),
    ('vote', VOTE | {'models': ['one', 'one']}, (400, 'models')),
    ('vote', VOTE | {'models': ['one']}, (400, 'models')),
    ('vote', VOTE | {'answers': ['x', 'x' * 200_001]}, (400, 'answers[1]')),
    ('vote', VOTE | {'left': 2}, (400, 'left')),
    ('vote', VOTE | {'time': '2026'}, (400, 'time')),
  ],
)
def test_bodies_that_are_wrong_are_refused_by_field(client, votes, path, body, expected):
  before = votes.read_bytes()
  assert refusal(client.post(f'/playground/{path}', json=body)) == expected
  assert votes.read_bytes() == before


def test_completions_name_the_tokens_that_a_branch_continues(client):
  body = {'model': 'one', 'prompt': 'ab', 'max_tokens': 6, 'echo': True, 'logprobs': 3, 'seed': 1}
  [choice] = client.post('/v1/completions', json=body).json()['choices']
  found = choice['logprobs']
  assert found['token_ids'][:2] == list(b'ab') and len(found['token_ids']) == len(found['tokens'])
  seen = []
  for log_probs, ids in zip(found['top_logprobs'], found['top_token_ids'], strict=True):
    assert log_probs.keys() == ids.keys() and len(ids) in (3, 4)
    seen += [(name, index) for name, index in ids.items() if len(name) == 1 and name.isascii()]
  assert seen and all(index == ord(name) for name, index in seen)
  start = client.get('/playground/about').json()['models'][0]['document_start']
  again = body | {'prompt': [start, *found['token_ids'][:-1]], 'max_tokens': 0}
  [choice] = client.post('/v1/completions', json=again).json()['choices']
  scored = choice['logprobs']
  assert scored['token_ids'][1:] == found['token_ids'][:-1]
  assert scored['token_logprobs'][1:] == pytest.approx(found['token_logprobs'][:-1], abs=1e-3)
  assert scored['top_token_ids'][1:] == found['top_token_ids'][:-1]


# ---- Votes


def test_a_vote_is_a_row_of_the_arena_file(client, votes):
  before = votes.read_text()
  assert client.post('/playground/vote', json=VOTE).json() == {'written': True}
  [line] = votes.read_text().removeprefix(before).splitlines()
  row = json.loads(line)
  assert datetime.datetime.fromisoformat(row.pop('time')).tzinfo is not None
  assert row == VOTE | {'left': 'two'}


def test_without_a_file_no_vote_is_taken(tiny):
  with TestClient(playgrounds.application(tiny, ['one', 'two'])) as client:
    assert client.get('/playground/about').json()['takes_votes'] is False
    assert client.post('/playground/vote', json=VOTE).status_code == 404


def test_votes_of_many_writers_are_whole_lines(tmp_path):
  path = tmp_path / 'new' / 'votes.jsonl'
  writers = [VoteFile(path) for _ in range(4)]
  votes = [Vote(**VOTE | {'prompt': f'{n} \u2028\n' + 'x' * 5000}) for n in range(40)]
  with concurrent.futures.ThreadPoolExecutor(8) as pool:
    list(pool.map(lambda n: writers[n % 4].append(votes[n]), range(40)))
  rows = [json.loads(line) for line in path.read_bytes().split(b'\n')[:-1]]
  assert {row['prompt'] for row in rows} == {vote.prompt for vote in votes} and len(rows) == 40


def test_a_line_that_was_cut_off_spoils_no_other(tmp_path):
  path = tmp_path / 'votes.jsonl'
  file = VoteFile(path)
  file.append(Vote(**VOTE))
  path.write_bytes(path.read_bytes()[:-20])
  VoteFile(path).append(Vote(**VOTE))
  lines = path.read_text().splitlines()
  assert len(lines) == 2 and json.loads(lines[1])['prompt'] == 'Hello?'


def test_a_file_in_a_bucket_or_a_folder_is_refused(tmp_path):
  with pytest.raises(UserError) as error:
    VoteFile('gs://bucket/votes.jsonl')
  assert error.value.field == '--arena-file'
  with pytest.raises(OSError):
    VoteFile(pathlib.Path(tmp_path))
