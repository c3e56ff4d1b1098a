"""Tokenizers in GGUF metadata: the same ids as the tokenizers that they were written from."""

import functools
import io
import json

import pytest
import sentencepiece
import tokenizers
from tokenizers import models, pre_tokenizers, trainers

from data.chat import chat_formats
from data.tokenizers import gguf_vocabulary, loading
from lm.base.errors import UserError

TEXT = [
  "It's 1,234.50 dollars, SHE'LL say; isn't it?",
  ' ' * 7 + 'x\r\n\r\ny',
  'for i in range(10):\n\n  print(i)\t# \u00e9 e\u0301 \u4f60\u597d \U0001f642',
  'the quick brown fox jumps over the lazy dog again and again',
] * 3
SPECIAL = ['<|endoftext|>', '<|im_start|>', '<|im_end|>']
TEMPLATE = (
  "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% "
  'endfor %}'
  "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# As the tokenizer.json of published models cuts text.
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r'| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+'
REGEX = {'llama-bpe': _WORDS + r'\p{N}{1,3}' + _REST, 'qwen2': _WORDS + r'\p{N}' + _REST}


def trained(cut):
  """A byte-level BPE that cuts text as models with this name do."""
  made = tokenizers.Tokenizer(models.BPE())
  plain = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=cut not in REGEX)
  first = {'gpt-2': [], 'smollm': [pre_tokenizers.Digits(individual_digits=True)]}
  steps = (
    first[cut] if cut in first else [pre_tokenizers.Split(tokenizers.Regex(REGEX[cut]), 'isolated')]
  )
  made.pre_tokenizer = pre_tokenizers.Sequence([*steps, plain])
  if cut == 'qwen2':
    made.normalizer = tokenizers.normalizers.NFC()
  made.decoder = tokenizers.decoders.ByteLevel()
  trainer = trainers.BpeTrainer(
    vocab_size=420,
    special_tokens=SPECIAL,
    show_progress=False,
    initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
  )
  made.train_from_iterator(TEXT, trainer)
  return made


@functools.cache
def metadata(cut):
  value = json.loads(trained(cut).to_str())
  names = sorted(value['model']['vocab'], key=value['model']['vocab'].get)
  merges = [' '.join(pair) if isinstance(pair, list) else pair for pair in value['model']['merges']]
  ggml = {
    'model': 'gpt2',
    'pre': cut,
    'tokens': names,
    'token_type': [3 if name in SPECIAL else 1 for name in names],
    'merges': merges,
    'bos_token_id': 1,
    'eos_token_id': 2,
    'padding_token_id': 0,
  }
  return {f'tokenizer.ggml.{key}': item for key, item in ggml.items()} | {
    'tokenizer.chat_template': TEMPLATE
  }


def load(folder, written):
  for name, content in written.items():
    (folder / name).write_bytes(content)
  return loading.load(folder)


@pytest.mark.parametrize('cut', ['gpt-2', 'smollm', 'llama-bpe', 'qwen2'])
def test_byte_level_tokens_are_those_of_the_original(cut, tmp_path):
  original, made = trained(cut), load(tmp_path, gguf_vocabulary.convert(metadata(cut)))
  assert original.get_vocab_size() > 300
  for text in [*TEXT, '12345 \u00bd 0', 'unseen W\u00f6rter\u2028here', '']:
    ids = made.encode(text)
    assert ids == original.encode(text, add_special_tokens=False).ids
    assert made.decode(ids) == original.decode(ids, skip_special_tokens=False)
  assert made.special_tokens == {name: i for i, name in enumerate(SPECIAL)}
  assert not set(made.encode('<|im_start|>')) & {0, 1, 2}


def test_the_folder_is_like_any_models(tmp_path):
  load(tmp_path, gguf_vocabulary.convert(metadata('smollm')))
  chat_format = chat_formats.load(str(tmp_path))
  assert chat_format.tokenizer.decode(
    chat_format.render_prompt([{'role': 'user', 'content': 'Hi'}])
  ) == ('<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n')
  assert chat_format.stops == (2,) and chat_format.variables == {
    'bos_token': '<|im_start|>',
    'eos_token': '<|im_end|>',
    'pad_token': '<|endoftext|>',
  }


@pytest.mark.parametrize('prefix', [True, False])
def test_pieces_are_those_of_sentencepiece(prefix, tmp_path):
  out = io.BytesIO()
  sentencepiece.SentencePieceTrainer.Train(
    sentence_iterator=iter(TEXT),
    model_writer=out,
    model_type='bpe',
    vocab_size=400,
    byte_fallback=True,
    add_dummy_prefix=prefix,
    remove_extra_whitespaces=False,
    normalization_rule_name='identity',
    minloglevel=2,
    hard_vocab_limit=False,
    character_coverage=0.98,
  )
  original = sentencepiece.SentencePieceProcessor(model_proto=out.getvalue())
  size = original.get_piece_size()
  kinds = [
    6
    if original.is_byte(i)
    else 3
    if original.is_control(i)
    else 2
    if original.is_unknown(i)
    else 1
    for i in range(size)
  ]
  ggml = {
    'model': 'llama',
    'tokens': [original.id_to_piece(i) for i in range(size)],
    'scores': [original.get_score(i) for i in range(size)],
    'token_type': kinds,
    'bos_token_id': 1,
    'eos_token_id': 2,
    'unknown_token_id': 0,
    'add_space_prefix': prefix,
  }
  written = gguf_vocabulary.convert({f'tokenizer.ggml.{key}': item for key, item in ggml.items()})
  made = load(tmp_path, written)
  for text in [*TEXT, '12345 \u00bd 0', 'unseen W\u00f6rter here', 'a  b']:
    if prefix and text[0] == ' ':
      continue  # the library, and so transformers, puts no second space before it
    assert made.encode(text) == original.encode(text)
    assert made.decode(made.encode(text)) == text
  assert made.special_tokens == {'<s>': 1, '</s>': 2}
  reader = tokenizers.Tokenizer.from_str(written['tokenizer.json'].decode())
  assert reader.encode('a').ids == [1, *original.encode('a')]  # a document begins with <s>


def test_user_defined_tokens_are_found_in_text_and_unused_ones_are_not(tmp_path):
  plain = metadata('gpt-2')
  names = plain['tokenizer.ggml.tokens']
  kinds = [*plain['tokenizer.ggml.token_type'], 4, 5]
  changed = plain | {
    'tokenizer.ggml.tokens': [*names, '<think>', 'UNUSED'],
    'tokenizer.ggml.token_type': kinds,
  }
  made = load(tmp_path, gguf_vocabulary.convert(changed))
  assert made.encode('<think>') == [len(names)] and made.token_bytes(len(names)) == b'<think>'
  assert made.vocab_size == len(names) + 1


@pytest.mark.parametrize(
  ('key', 'value', 'field', 'refused'),
  [
    ('model', 't5', 'tokenizer.ggml.model', 't5'),
    ('pre', 'default', 'tokenizer.ggml.pre', 'default'),
    ('tokens', None, 'metadata key tokenizer.ggml.tokens', None),
    ('merges', None, 'metadata key tokenizer.ggml.merges', None),
    ('merges', ['a b c'], 'item of tokenizer.ggml.merges', 'a b c'),
    ('merges', ['a \u4f60'], 'item of tokenizer.ggml.merges', 'a \u4f60'),
    ('tokens', ['a', 'a'], 'number of tokens in tokenizer.ggml.tokens', 2),
    ('eos_token_id', 5000, 'tokenizer.ggml.eos_token_id', 5000),
  ],
)
def test_what_cannot_be_followed_is_named(key, value, field, refused):
  changed = {
    name: item for name, item in metadata('gpt-2').items() if name != f'tokenizer.ggml.{key}'
  }
  if value is not None:
    changed[f'tokenizer.ggml.{key}'] = value
  with pytest.raises(UserError) as raised:
    gguf_vocabulary.convert(changed)
  assert (raised.value.field, raised.value.value) == (field, refused)


def test_each_token_needs_a_type():
  with pytest.raises(UserError) as raised:
    gguf_vocabulary.convert(metadata('gpt-2') | {'tokenizer.ggml.token_type': [1]})
  assert raised.value.field == 'number of tokens in tokenizer.ggml.tokens'
  assert raised.value.allowed.endswith('has types, 1')


def test_pieces_need_scores():
  ggml = {'model': 'llama', 'tokens': ['a'], 'token_type': [1]}
  with pytest.raises(UserError) as raised:
    gguf_vocabulary.convert({f'tokenizer.ggml.{name}': item for name, item in ggml.items()})
  assert raised.value.value == 0 and 'tokenizer.ggml.scores' in raised.value.field
