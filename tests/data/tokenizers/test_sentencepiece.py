"""SentencePiece models: ids are the library's, special tokens are kept apart, faults are named."""

import sys

import commands
import pytest
import sentencepiece
from hypothesis import example, given, settings
from hypothesis import strategies as st
from refusals import refused
from texts import FORGING, SPECIALS, corpus, sentencepiece_model

from data.tokenizers import loading as ours

SENTENCEPIECE = {
  'bpe': {},
  'unigram': {'model_type': 'unigram'},
  'no prefix': {'add_dummy_prefix': False, 'user_defined_symbols': ['<turn>', '\n\n', '<b>']},
  'char': {'model_type': 'char'},
  'default': {
    'byte_fallback': False, 'normalization_rule_name': 'nmt_nfkc', 'remove_extra_whitespaces': True,
    'character_coverage': 0.98, 'model_type': 'unigram', 'vocab_size': 150},
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize('name', SENTENCEPIECE)
def test_sentencepiece_ids_are_those_of_the_library(tmp_path, name):
  model = sentencepiece_model(**SENTENCEPIECE[name])
  (tmp_path / 'x.model').write_bytes(model)
  reference = sentencepiece.SentencePieceProcessor(model_proto=model)
  tokenizer = ours.load(tmp_path / 'x.model', SPECIALS)
  assert tokenizer.special_tokens == {'<s>': 1, '</s>': 2} | {
    n: len(reference) + i for i, n in enumerate(SPECIALS)
  }

  @settings(max_examples=300)
  @given(
    st.one_of(
      FORGING,
      st.lists(st.sampled_from(['<s>', '</s>', '<unk>', '<0x41>', ' ', '<b>', 'the\n\n'])).map(
        ''.join
      ),
    )
  )
  @example('\u2581a \u2581')
  @example('<turn>a\n\n<turn>')
  @example('')
  def check(text):
    ids = tokenizer.encode(text)
    assert ids == reference.encode(text)
    assert not set(ids) & set(tokenizer.special_tokens.values())
    assert tokenizer.decode(ids) == reference.decode(ids)
    if name != 'default':
      assert tokenizer.decode(ids) == text.replace('\u2581', ' ')
      prefix = bool(text) and name != 'no prefix'
      assert tokenizer.byte_lengths()[ids].sum() == prefix + len(
        text.replace('\u2581', ' ').encode()
      )

  check()
  texts = [*corpus(1)[:10], '', 'a\ud800']
  assert tokenizer.encode_batch(texts) == [tokenizer.encode(text) for text in texts]
  assert tokenizer.encode_batch([]) == []


@pytest.mark.slow
def test_sentencepiece_special_tokens(tmp_path):
  model = sentencepiece_model(user_defined_symbols=['<turn>', '<other>'], control_symbols=['<pad>'])
  path = tmp_path / 'x.model'
  path.write_bytes(model)
  plain, turn = (
    ours.load(path),
    sentencepiece.SentencePieceProcessor(model_proto=model).piece_to_id('<turn>'),
  )
  assert turn in plain.encode('a<turn>') and '<turn>' not in plain.special_tokens
  tokenizer = ours.load(path, ['<turn>', '<pad>', '<|end|>'])
  assert tokenizer.special_tokens['<turn>'] == turn
  assert tokenizer.special_tokens['<|end|>'] == plain.vocab_size
  assert (
    turn not in tokenizer.encode('a<turn>')
    and tokenizer.decode(tokenizer.encode('a<turn>')) == 'a<turn>'
  )
  assert tokenizer.encode('b<other>') == plain.encode('b<other>')
  assert tokenizer.fingerprint != plain.fingerprint
  ids = [
    turn,
    *tokenizer.encode(' a'),
    tokenizer.special_tokens['<|end|>'],
    *tokenizer.encode('b c'),
  ]
  assert tokenizer.decode(ids) == '<turn> a<|end|>b c'
  for special_tokens, name in (({'<new>': 5000}, '<new>'), (['e'], 'e')):
    with refused(f'id of special token {name!r}', place=path):
      ours.load(path, special_tokens)


@pytest.mark.slow
def test_sentencepiece_errors(tmp_path, monkeypatch):
  path = tmp_path / 'x.model'
  for content in (b'', b'no model', sentencepiece_model()[:3000]):
    path.write_bytes(content)
    with refused('model', allowed='a SentencePiece model', place=path):
      ours.load(path)
  path.write_bytes(sentencepiece_model(treat_whitespace_as_suffix=True))
  with refused('trainer_spec.treat_whitespace_as_suffix', True, place=path):
    ours.load(path)
  # A control symbol of one character is made from that character, which the library takes for a
  # fault of its own.
  path.write_bytes(sentencepiece_model(control_symbols=['\u2603']))
  with refused('model', allowed='one that tensorflow-text runs', place=path) as raised:
    ours.load(path)
  assert 'not consumed' in raised.value.value
  monkeypatch.setitem(sys.modules, 'tensorflow_text', None)
  with refused('package tensorflow_text', place=path) as raised:
    ours.load(path)
  assert "'.[sentencepiece]'" in raised.value.message


@pytest.mark.slow
def test_tensorflow_is_imported_for_sentencepiece_only(tmp_path):
  (tmp_path / 'x.model').write_bytes(sentencepiece_model())
  code = (
    'import sys; from data.tokenizers import loading; loading.load({!r}).encode("a"); '
    'print("tensorflow" in sys.modules)'
  )
  for spec, loaded in (('bytes', 'False'), (str(tmp_path / 'x.model'), 'True')):
    status, out, err = commands.run('-c', code.format(spec))
    assert (status, out.strip()) == (0, loaded), err
