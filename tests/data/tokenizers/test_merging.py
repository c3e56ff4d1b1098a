"""Merges shown one after the other: they end at the tokens, and begin with the bytes of the text."""

import pytest
import tokenizers
from hypothesis import example, given, settings
from texts import FORGING, SPECIALS, corpus, sentencepiece_model
from tokenizers import decoders, models, pre_tokenizers, trainers

from data.tokenizers import loading, training
from data.tokenizers.bpe import BPE, BYTES, PATTERNS
from data.tokenizers.huggingface import HuggingFace
from data.tokenizers.sentencepiece import SentencePiece
from lm.base.errors import UserError


def smollm(path):
  """A tokenizer.json as SmolLM2's: digits alone, then GPT-2's splits, which ranks do not express."""
  model = tokenizers.Tokenizer(models.BPE())
  digits, byte_level = pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(False)
  model.pre_tokenizer = pre_tokenizers.Sequence([digits, byte_level])
  model.decoder = decoders.ByteLevel()
  trainer = trainers.BpeTrainer(
    vocab_size=600,
    show_progress=False,
    initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    special_tokens=['<|endoftext|>'],
  )
  model.train_from_iterator(corpus(), trainer)
  model.save(str(path))
  tokenizer = loading.load(str(path))
  assert isinstance(tokenizer, HuggingFace)
  return tokenizer


@pytest.fixture(scope='module', params=['trained', 'gpt2', 'smollm', 'bytes', 'whole pieces'])
def tokenizer(request, tmp_path_factory):
  folder = tmp_path_factory.mktemp('tokenizer')
  if request.param == 'bytes':
    return loading.load('bytes', SPECIALS)
  if request.param == 'smollm':
    return smollm(folder / 'tokenizer.json')
  if request.param == 'whole pieces':  # ' the' is reached by no merge, only as a piece
    return BPE(PATTERNS['llama3'], BYTES | {b' the': 256, b'th': 257, b'aa': 258, b'aaa': 259}, ())
  training.train(corpus(), 600, SPECIALS, folder)
  pattern = {'trained': 'deepdive', 'gpt2': 'gpt2'}[request.param]
  return loading.load(f'{folder}/tokenizer.tiktoken:{pattern}', SPECIALS)


@pytest.mark.slow
@settings(max_examples=100)
@given(FORGING)
@example('the the 2026 aaaa\n\n')
@example('a\ud800b')
def test_merges_lead_from_bytes_to_the_tokens_of_encode(tokenizer, text):
  trace = tokenizer.trace(text)
  assert trace.tokens() == [tokenizer.token_bytes(i) for i in tokenizer.encode(text)]
  assert b''.join(trace.pieces).decode() == tokenizer.decode(tokenizer.encode(text))


def test_a_merge_joins_all_its_places_before_the_next():
  tokenizer = BPE(PATTERNS['gpt2'], BYTES | {b'ab': 256, b'abab': 257, b' ab': 258}, ())
  trace = tokenizer.trace('abab ab')
  assert trace.pieces == [b'abab', b' ab']
  assert [(m.left, m.right, m.places) for m in trace.merges] == [
    (b'a', b'b', [(0, 0), (0, 1), (1, 1)]),
    (b'ab', b'ab', [(0, 0)]),
    (b' ', b'ab', [(1, 0)]),
  ]


@pytest.mark.slow
def test_tokenizers_that_do_not_merge_bytes_say_so():
  tokenizer = SentencePiece(sentencepiece_model(add_dummy_prefix=False), ())
  with pytest.raises(UserError) as error:
    tokenizer.trace('text')
  assert error.value.value == 'SentencePiece'
