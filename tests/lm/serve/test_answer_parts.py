"""The tokens of an answer as text, kept apart by kind, whatever the pieces they come in."""

import dataclasses

import pytest
import serving
from serving import FORMAT, ids

from lm.infer.requests import Piece, Top
from lm.serve.answer_parts import AnswerParts, ends_in_thought, opens_thought, tag_ids


def read(tokens, size=1, sampled=True, **options):
  """(kind, text) of what is read from pieces of `size` tokens, and the tokens reported with it."""
  reader = AnswerParts(FORMAT, **options)
  parts = []
  for first in range(0, len(tokens), size):
    piece = tokens[first : first + size]
    tops = [Top(-1.0, [], []) for _ in piece]
    parts.append(reader.read(Piece(piece, [0.0] * len(piece), sampled, tops)))
  parts.append(reader.end())
  texts = {}
  for part in (part for group in parts for part in group):
    texts.setdefault(part.kind, ['', []])
    texts[part.kind][0] += part.text
    texts[part.kind][1] += [report.token for report in part.reports]
  return texts, parts


@pytest.mark.parametrize('size', [1, 2, 3, 50])
def test_kinds_are_kept_apart(size):
  said = ids('Hm ', '<|think|>', 'wait', '<|/think|>', '€', '<|python|>', '1', '<|/python|>')
  texts, parts = read(said, size)
  assert {kind: text for kind, (text, _) in texts.items()} == {
    'text': 'Hm €',
    'think': 'wait',
    'python': '1',
  }
  assert texts['text'][1] == ids('Hm €') and texts['think'][1] == ids(
    '<|think|>', 'wait', '<|/think|>'
  )
  thoughts = [p for group in parts for p in group if p.kind == 'think']
  assert sum(p.tokens for p in thoughts) == 6 and thoughts[0].opens and thoughts[-1].closes


def test_no_text_ends_inside_a_character():
  _, parts = read(list('né €𝄞'.encode()))
  shown = [''.join(p.text for p in group) for group in parts]
  assert shown == ['n', '', 'é', ' ', '', '', '€', '', '', '', '𝄞', '']
  texts, _ = read(list('€'.encode())[:2])
  assert texts['text'][0] == '\ufffd'
  texts, _ = read([*list('€'.encode())[:1], *ids('<|think|>', 'x')])
  assert texts['text'][0] == '\ufffd' and texts['think'][0] == 'x'


@pytest.mark.parametrize('size', [1, 2, 50])
def test_stop_strings_end_the_text_and_are_held_back(size):
  texts, parts = read(ids('one STOP two'), size, stop_strings=['STOP'])
  assert texts['text'] == ['one ', ids('one ')]
  assert all('S' not in p.text for group in parts for p in group)
  texts, _ = read(ids('one STO'), size, stop_strings=['STOP'])
  assert texts['text'] == ['one STO', ids('one STO')]
  texts, _ = read(
    ids('a', '<|think|>', 'bS', '<|/think|>', 'Tc'), size, stop_strings=['STOP', 'ST']
  )
  assert (texts['think'][0], texts['text'][0]) == ('b', 'a')


def test_results_of_tools_are_not_looked_through_and_are_not_reported():
  texts, _ = read(ids('<|output|>', 'STOP', '<|/output|>'), 9, sampled=False, stop_strings=['STOP'])
  assert texts['output'] == ['STOP', []]


def test_a_call_in_a_thought_is_part_of_the_thought():
  said = ids('<|think|>', 'a', '<|python|>', '1', '<|/python|>', 'b', '<|/think|>', 'c')
  texts, _ = read(said)
  assert {kind: text for kind, (text, _) in texts.items()} == {
    'think': 'a<|python|>1<|/python|>b',
    'text': 'c',
  }


def test_stop_strings_are_looked_for_in_some_kinds_only():
  said = ids(
    '<|python|>', 'f STOP', '<|/python|>', 'ST', '<|python|>', 'OP', '<|/python|>', 'x STOP'
  )
  texts, _ = read(said, stop_strings=['STOP'], stops_in=('text',))
  assert (texts['python'][0], texts['text'][0]) == ('f STOPOP', 'STx ')


def test_a_prompt_may_open_a_thought():
  texts, _ = read(ids('hm', '<|/think|>', 'Yes'), in_thought=True)
  assert (texts['think'][0], texts['text'][0]) == ('hm', 'Yes')
  assert ends_in_thought(FORMAT, ids('a', '<|think|>', 'b')) and not ends_in_thought(
    FORMAT, ids('a')
  )
  assert not ends_in_thought(FORMAT, ids('<|think|>', 'a', '<|/think|>', 'b'))
  assert not opens_thought(FORMAT)
  layout = dataclasses.replace(FORMAT.layout, reply='<|assistant|><|think|>')
  opened = dataclasses.replace(FORMAT)
  opened.__dict__['layout'] = layout
  assert opens_thought(opened)


def test_tags_of_thoughts_may_be_ordinary_tokens():
  """As in Qwen3, whose added tokens <think> and </think> are not special."""
  tokenizer = serving.TOKENIZER

  class Ordinary:
    def __init__(self):
      self.special_tokens = {}

    def encode_inside(self, text):
      return {'<a>': [7], '</a>': [8]}.get(text, tokenizer.encode_inside(text))

  plain = dataclasses.replace(
    FORMAT, tokenizer=Ordinary(), tags=FORMAT.tags | {'think': ('<a>', '</a>')}
  )
  assert tag_ids(plain, 'think') == (7, 8) and tag_ids(plain, 'python') == ()
