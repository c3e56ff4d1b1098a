"""The grammar of one JSON object, beside Python's own reader."""

import json

import hypothesis
import pytest
from hypothesis import strategies as st

from lm.serve.json_grammar import MAX_DEPTH, MAX_SPACES, State, TokenMasks

VALUES = st.recursive(
  st.none()
  | st.booleans()
  | st.integers(-(10**20), 10**20)
  | st.floats(-1e9, 1e9, allow_nan=False).map(lambda x: round(x, 6))
  | st.text(max_size=8),
  lambda inner: (
    st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
  ),
  max_leaves=12,
)
OBJECTS = st.dictionaries(st.text(max_size=4), VALUES, max_size=4)


@hypothesis.given(OBJECTS, st.booleans(), st.sampled_from([None, 1]))
def test_what_python_writes_is_read_and_every_beginning_can_be_completed(value, ascii_only, indent):
  text = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode('utf-8', 'replace')
  state = State()
  for place, byte in enumerate(text):
    assert not state.is_done
    completed = text[:place] + state.closing()
    assert isinstance(json.loads(completed.decode('utf-8', 'replace')), dict)
    state = state.read(bytes([byte]))
    assert state is not None, text[: place + 1]
  assert state.is_done and state.closing() == b''


ALPHABET = st.sampled_from([*list(b'{}[]",:\\ \n019-+.eEtrufalsn x'), 195, 169])


@hypothesis.given(st.lists(ALPHABET, max_size=20), st.sampled_from([b'', b'{"a":', b'{"a":[1,']))
def test_what_is_read_is_always_the_beginning_of_an_object(data, before):
  state = State().read(before)
  read = before
  for byte in data:
    following = state.read(bytes([byte]))
    if following is not None:
      state, read = following, read + bytes([byte])
    if state.is_done:
      break
  assert isinstance(json.loads((read + state.closing()).decode('utf-8', 'replace')), dict)


@pytest.mark.parametrize(
  'text',
  [
    '[',
    '{,',
    '{"a" 1',
    '{"a":01',
    '{"a":1.}',
    '{"a":+1',
    '{"a":tru}',
    '{"a":"\n',
    '{"a":1,}',
    '{}x',
    '{"a":"\\x',
    '{"a":"\\u12g',
    '{"a":-}',
    '{"a":1e}',
    '{1:',
    "{'a'",
    '{"a":nan',
    '{"a":[}',
    '{"a":[1}',
  ],
)
def test_what_is_no_json_is_refused(text):
  assert State().read(text.encode()) is None


def test_what_would_never_end_is_refused():
  assert State().read(b'{"a":' + b'[' * MAX_DEPTH) is None
  assert State().read(b'{' + b' ' * 17) is None
  assert State().read(b'{"a":' + b'1' * 33) is None and State().read(b'{"a":1e999') is None
  long = State().read(b'{"a":' + b'1' * 32)
  assert long.read(b'.') is None and long.read(b'e9,') is not None


def test_masks_allow_exactly_the_tokens_that_can_follow():
  tokens = [
    b'',
    b'{',
    b'{"',
    b'a',
    b'"',
    b'":',
    b'1',
    b'}',
    b'}}',
    b' ',
    b'\n',
    b'\xc3',
    b'ab"',
    b'{}',
    b' ' * (MAX_SPACES + 1),
    b'": [1.5',
    b'": [1.5]]',
    b'\\u00e9x',
  ]
  masks = TokenMasks(tokens)
  for text in (b'', b'{', b'{"', b'{"a":', b'{"a":1', b'{"a":{"b":1', b'{"a":"'):
    state = State().read(text)
    expected = [bool(token) and state.read(token) is not None for token in tokens]
    assert masks.allowed(state).tolist() == expected, text
  assert masks.without_bytes == {0}
