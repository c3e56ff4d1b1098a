"""Stop strings, whatever the tokens that they are cut into."""

import hypothesis
import pytest
from hypothesis import strategies

from lm.infer.stop_strings import StopStrings


def read(pieces, stops):
  """(the bytes shown, whether a stop string was found, the number of pieces read)."""
  reader, shown = StopStrings(stops, lambda i: pieces[i]), b''
  for i in range(len(pieces)):
    text, ended = reader.read(i)
    shown += text
    if ended:
      return shown, True, i + 1
  return shown + reader.rest(), False, len(pieces)


@hypothesis.given(
  strategies.lists(strategies.text('ab', max_size=3), max_size=12),
  strategies.lists(strategies.text('ab', min_size=1, max_size=4), max_size=3),
)
def test_the_text_before_the_first_stop_string_is_shown(pieces, stops):
  encoded = [piece.encode() for piece in pieces]
  shown, found, count = read(encoded, stops)
  # the shortest beginning of whole tokens that holds a stop string, and the text before it
  texts = [''.join(pieces[: n + 1]) for n in range(len(pieces))]
  ends = [n for n, text in enumerate(texts) if any(stop in text for stop in stops)]
  if not ends:
    assert not found and shown.decode() == ''.join(pieces)
    return
  text = texts[ends[0]]
  assert found and count == ends[0] + 1
  assert shown.decode() == text[: min(text.find(stop) for stop in stops if stop in text)]


def test_nothing_is_shown_that_a_stop_string_may_begin_with():
  reader = StopStrings(
    ['</s>', '\n\n'], lambda i: [b'Yes', b'.\n', b'<', b'/', b'b>', b'</s', b'>!'][i]
  )
  assert [reader.read(i) for i in range(7)] == [
    (b'Yes', False),
    (b'.', False),
    (b'\n', False),
    (b'', False),
    (b'</b>', False),
    (b'', False),
    (b'', True),
  ]


@pytest.mark.parametrize('cut', range(1, 6))
def test_a_character_may_be_cut_anywhere(cut):
  data = 'né€'.encode()
  shown, found, _ = read([data[:cut], data[cut:]], ['€'])
  assert found and shown == 'né'.encode()


def test_nothing_is_looked_for_in_calls_and_in_what_is_skipped():
  pieces = [b'a', b'<call>', b'\n', b'</call>', b'2', b'.', b'\n']
  reader = StopStrings(['\n', '2.'], lambda i: pieces[i], call_tags=(1, 3))
  assert [reader.read(i) for i in range(4)] == [(piece, False) for piece in pieces[:4]]
  assert reader.read(4) == (b'', False)
  assert reader.skip(4) == b'22'  # What was held back, too: no stop string goes on in a result.
  assert reader.read(5) == (b'.', False) and reader.read(6) == (b'', True)
