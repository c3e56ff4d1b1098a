import json
import pickle

import commands
import numpy as np
import pytest
import tiktoken
import tokenizers
import transformers
from hypothesis import example, given, settings
from hypothesis import strategies as st
from refusals import refused
from texts import FORGING, SPECIALS, corpus, sentencepiece_model
from tiktoken.load import load_tiktoken_bpe

from data.tokenizers import loading as ours
from data.tokenizers import training
from data.tokenizers.bpe import PATTERNS
from data.tokenizers.huggingface import HuggingFace


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """A tokenizer trained on made-up text in several scripts."""
  path = tmp_path_factory.mktemp('tokenizer') / 'new'
  report = training.train(corpus(), 600, SPECIALS, path, held_out=corpus(1)[:20])
  texts = corpus(1)[:20]
  assert report['vocab_size'] == 603
  tokens = sum(len(ours.load(path).encode(text)) for text in texts)
  assert report['bytes_per_token'] == pytest.approx(sum(len(t.encode()) for t in texts) / tokens)
  return path


@pytest.fixture(scope='module')
def exported(folder):
  """What other libraries read from the two files, and ours."""
  ranks = load_tiktoken_bpe(str(folder / 'tokenizer.tiktoken'))
  reference = tiktoken.Encoding(
    'x', pat_str=PATTERNS['deepdive'], mergeable_ranks=ranks, special_tokens={}
  )
  hugging_face = tokenizers.Tokenizer.from_file(str(folder / 'tokenizer.json'))
  hugging_face.encode_special_tokens = True
  fast = transformers.PreTrainedTokenizerFast(
    tokenizer_file=str(folder / 'tokenizer.json'), split_special_tokens=True
  )
  others = {
    'tiktoken': reference.encode_ordinary,
    'tokenizers': lambda text: hugging_face.encode(text, add_special_tokens=False).ids,
    'transformers': lambda text: fast.encode(text, add_special_tokens=False),
  }
  assert hugging_face.get_vocab_size() == len(fast) == 603
  assert [hugging_face.token_to_id(name) for name in SPECIALS] == fast.convert_tokens_to_ids(
    list(SPECIALS)
  )
  return others, ours.load(folder), ours.load(f'{folder}/tokenizer.tiktoken:deepdive', SPECIALS)


def test_both_files_are_one_tokenizer(exported):
  _, from_json, from_ranks = exported
  assert from_json.fingerprint == from_ranks.fingerprint
  assert (
    from_json.special_tokens
    == from_ranks.special_tokens
    == dict(zip(SPECIALS, range(600, 603), strict=True))
  )
  assert [from_json.token_bytes(b) for b in range(256)] == [bytes([b]) for b in range(256)]
  assert from_json.vocab_size == 603


@pytest.mark.slow
@settings(max_examples=300)
@given(FORGING)
@example('<|endoftext|>')
@example('x<|end|> \n<|pad|>')
def test_ids_of_the_exported_files(exported, text):
  others, from_json, from_ranks = exported
  ids = from_json.encode(text)
  assert ids == from_ranks.encode(text)
  for name, encode in others.items():
    assert ids == encode(text), name
  assert all(i < 600 for i in ids)
  assert from_json.decode(ids) == text
  assert from_json.encode_batch([text, 'a']) == [ids, from_json.encode('a')]


def unigram(path):
  """A tokenizer.json in SentencePiece's manner: not byte-level, with normalisation and a
  metaspace.
  """
  model = tokenizers.Tokenizer(tokenizers.models.Unigram())
  model.normalizer = tokenizers.normalizers.NFC()
  model.pre_tokenizer, model.decoder = (
    tokenizers.pre_tokenizers.Metaspace(),
    tokenizers.decoders.Metaspace(),
  )
  options = {
    'vocab_size': 300,
    'special_tokens': ['<unk>'],
    'unk_token': '<unk>',
    'show_progress': False,
  }
  model.train_from_iterator(corpus(), tokenizers.trainers.UnigramTrainer(**options))
  model.add_special_tokens(['<|end|>'])
  model.save(str(path))
  return str(path)


@pytest.fixture(scope='module', params=['bytes', 'json', 'ranks', 'unigram', 'sentencepiece'])
def any_kind(request, folder, tmp_path_factory):
  if request.param == 'sentencepiece':
    path = tmp_path_factory.mktemp('sentencepiece') / 'x.model'
    path.write_bytes(sentencepiece_model(add_dummy_prefix=False))
    return ours.load(path, SPECIALS)
  if request.param == 'unigram':
    return ours.load(unigram(tmp_path_factory.mktemp('unigram') / 'tokenizer.json'), SPECIALS)
  spec = {'bytes': 'bytes', 'json': str(folder), 'ranks': f'{folder}/tokenizer.tiktoken:o200k'}
  return ours.load(spec[request.param], SPECIALS)


@pytest.mark.slow
@settings(max_examples=200)
@given(FORGING)
def test_text_never_yields_special_ids(any_kind, text):
  assert not set(any_kind.encode(text)) & set(any_kind.special_tokens.values())


@settings(max_examples=100)
@given(st.data())
def test_any_ids_decode_to_their_bytes(any_kind, data):
  if isinstance(any_kind, HuggingFace):
    return
  ids = data.draw(st.lists(st.integers(0, any_kind.vocab_size - 1), max_size=20))
  names = {i: name for name, i in any_kind.special_tokens.items()}
  raw = b''.join(names[i].encode() if i in names else any_kind.token_bytes(i) for i in ids)
  assert any_kind.decode_bytes(ids) == raw
  assert any_kind.decode(np.array(ids, np.int32)) == raw.decode(errors='replace')


def test_every_kind_survives_saving(any_kind, tmp_path):
  any_kind.save(tmp_path / 'copy')
  copy = ours.load(tmp_path / 'copy')
  assert type(copy) is type(any_kind)
  assert (copy.fingerprint, copy.vocab_size) == (any_kind.fingerprint, any_kind.vocab_size)
  assert copy.special_tokens == any_kind.special_tokens
  for text in corpus(2)[:20]:
    assert copy.encode(text) == any_kind.encode(text)
  lengths = any_kind.byte_lengths()
  assert lengths.shape == (any_kind.vocab_size,) and lengths.dtype == np.int32
  assert not lengths[list(any_kind.special_tokens.values())].any()
  if not isinstance(any_kind, HuggingFace):
    text = ''.join(corpus(3))
    assert any_kind.decode(any_kind.encode(text)) == text
    assert lengths[any_kind.encode(text)].sum() == len(text.encode())


def test_a_folder_keeps_a_tokenizer(any_kind, tmp_path):
  any_kind.save(tmp_path / 'tokenizer')
  assert ours.load(str(tmp_path / 'tokenizer')).fingerprint == any_kind.fingerprint


def test_every_kind_survives_pickling(any_kind):
  copy = pickle.loads(pickle.dumps(any_kind))  # as data.tokenize sends it to its workers
  assert (copy.fingerprint, copy.special_tokens) == (any_kind.fingerprint, any_kind.special_tokens)
  for text in ('x<|end|> \n<|pad|>', *corpus(2)[:5]):
    assert copy.encode(text) == any_kind.encode(text)


@settings(max_examples=200)
@given(raw=st.binary(max_size=60))
def test_any_bytes_have_ids(any_kind, raw):
  if isinstance(any_kind, HuggingFace):
    return
  ids = {any_kind.token_bytes(i): i for i in range(any_kind.vocab_size)}
  assert any_kind.decode_bytes([ids[bytes([b])] for b in raw]) == raw


def test_bytes():
  tokenizer = ours.load('bytes', SPECIALS)
  assert tokenizer.encode('aé<|end|>') == [97, 195, 169, *b'<|end|>']
  assert tokenizer.vocab_size == 259 and tokenizer.special_tokens['<|pad|>'] == 258
  assert tokenizer.decode([104, 256, 195]) == 'h<|endoftext|>\ufffd'


def test_special_tokens_of_a_rank_file(folder, tmp_path):
  path = tmp_path / 'specials.json'
  spec = f'{folder}/tokenizer.tiktoken:deepdive:{path}'
  for content, field in (
    ('[]', 'special tokens'), ('{"a": "1"}', 'special tokens'), ('{"a": -1}', 'special tokens'),
    ('{"<a>": 5}', "id of special token '<a>'"),
    ('{"<a>": 600, "<b>": 600}', "id of special token '<b>'"),
    ('{"the": 600}', 'special token'),
  ):  # fmt: skip
    path.write_text(content)
    with refused(field):
      ours.load(spec)
  path.write_text('{')
  with refused(path, allowed='valid JSON'):
    ours.load(spec)
  path.write_text('{"<a>": 700}')
  assert ours.load(spec, ['<b>']).special_tokens == {'<a>': 700, '<b>': 701}


def test_specials_of_a_file_keep_their_ids_and_new_ones_follow(folder):
  tokenizer = ours.load(folder, ['<|pad|>', '<|new|>'])
  assert tokenizer.special_tokens == {
    '<|endoftext|>': 600,
    '<|end|>': 601,
    '<|pad|>': 602,
    '<|new|>': 603,
  }
  assert tokenizer.fingerprint != ours.load(folder).fingerprint
  with refused("id of special token '<|new|>'", 5):
    ours.load(folder, {'<|new|>': 5})


@pytest.mark.slow
def test_hard_texts(folder, exported):
  tokenizer, others = ours.load(folder), exported[0]
  hard = [
    ' ' * 400_000 + 'a',
    'b' + '\n \n' * 100_000,
    'the' * 30_000,
    '\u0301' * 50_000,
    '<|end|>' * 10_000,
    '\x00\ufeff',
    '',
  ]
  for text in hard:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert [name for name, encode in others.items() if encode(text) != ids] == []
  # white space that tiktoken cannot take
  for text in (' ' * 1_200_000 + 'a', 'b' + '\n \n' * 200_000, ' a ' * 300_000):
    assert tokenizer.decode(tokenizer.encode(text)) == text
    hard.append(text)
  assert tokenizer.encode_batch(hard * 2) == [tokenizer.encode(text) for text in hard] * 2
  for spec in ('bytes', str(folder)):
    assert ours.load(spec).decode(ours.load(spec).encode('a\ud800b')) == 'a\ufffdb'


def test_a_text_that_forges_is_refused(tmp_path):
  model = tokenizers.Tokenizer(
    tokenizers.models.WordLevel({'[A]': 0, 'x': 1, '?': 2}, unk_token='?')
  )
  model.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
  model.add_special_tokens(['[A]'])
  model.save(str(tmp_path / 'tokenizer.json'))
  with refused('special token', '[A]'):
    ours.load(tmp_path)


def test_training_is_deterministic(folder, tmp_path):
  training.train(corpus(), 600, SPECIALS, tmp_path / 'again', held_out=corpus(1)[:20])
  for name in ('tokenizer.json', 'tokenizer.tiktoken', 'report.json'):
    assert (tmp_path / 'again' / name).read_bytes() == (folder / name).read_bytes()


def test_training_learns_the_commonest_pair_first(folder):
  texts = ['lo lo lo lo ab ab']
  training.train(texts, 258, (), (out := folder.parent / 'tiny'))
  ranks = load_tiktoken_bpe(str(out / 'tokenizer.tiktoken'))
  assert sorted(ranks, key=ranks.get)[256:] == [b'lo', b' lo']


def test_training_errors(tmp_path):
  for size in (100, 5000):
    with refused('--vocab-size', size) as raised:
      training.train(['text'], size, (), tmp_path / 'a')
  assert raised.value.allowed.startswith('at most 25')
  with refused('split pattern', 'gpt'):
    training.train(['text'], 256, (), tmp_path / 'a', pattern='gpt')
  assert not (tmp_path / 'a').exists()


def test_load_errors(tmp_path, folder):
  path = tmp_path / 'x.tiktoken'
  path.write_text('YQ== 0\n!! 1\n')
  with refused('line 2', '!! 1', place=path):
    ours.load(f'{path}:gpt2')
  path.write_text('YQ== 0\n')
  with refused('number of bytes that the vocabulary lacks', 255, place=path):
    ours.load(f'{path}:gpt2')
  path.write_text('YQ== 0\nYg== 0\n')
  with refused(f'number of different ids in {path}', 1):
    ours.load(f'{path}:gpt2')
  allowed = 'gpt2', 'cl100k', 'o200k', 'llama3', 'deepdive'
  with refused(f'split pattern of {path} (x.tiktoken:PATTERN)', '', allowed):
    ours.load(str(path))
  for name in ('absent.json', 'absent.tiktoken:gpt2', 'absent.model'):
    with pytest.raises(FileNotFoundError, match=name.partition(':')[0]):
      ours.load(tmp_path / name)
  for spec in (str(tmp_path), 'gpt5', 'x.tiktokengpt2'):
    with refused('tokenizer', spec):
      ours.load(spec)
  (tmp_path / 'tokenizer.json').write_text('{')
  with refused(tmp_path / 'tokenizer.json', allowed='valid JSON'):
    ours.load(tmp_path)
  for content in ('{"a": 1}', '[]'):
    (tmp_path / 'tokenizer.json').write_text(content)
    with refused('added_tokens', place=tmp_path / 'tokenizer.json'):
      ours.load(tmp_path)


def test_commands(tmp_path):
  (tmp_path / 'a.jsonl').write_text(
    ''.join(json.dumps({'id': str(i), 'text': t}) + '\n' for i, t in enumerate(corpus()))
  )
  options = (
    f'--input={tmp_path}/a.jsonl',
    '--vocab-size=300',
    f'--out={tmp_path}/new',
    '--pattern=cl100k',
  )
  status, _, err = commands.call('-m', 'data.train_tokenizer', *options)
  assert status == 0, err
  assert ours.load(tmp_path / 'new').pattern == PATTERNS['cl100k']
  status, _, err = commands.call(
    '-m', 'data.train_tokenizer', *options, f'--out={tmp_path}/t.tiktoken'
  )
  assert status == 0, err
  assert {path.name for path in tmp_path.iterdir()} == {'a.jsonl', 'new', 't.json', 't.tiktoken'}
  assert ours.load(tmp_path / 't.json').fingerprint == ours.load(tmp_path / 'new').fingerprint
  assert ours.load(f'{tmp_path}/t.tiktoken:cl100k').ranks == ours.load(tmp_path / 'new').ranks
  spec = f'--tokenizer={tmp_path}/new/tokenizer.tiktoken:cl100k'
  status, out, err = commands.call('-m', 'data.tokenizer', 'show', spec, '--merges', 'the text')
  assert status == 0 and ' -> ' in out and '\x1b[' in out, err
  status, _, err = commands.call('-m', 'data.tokenizer', 'show', '--tokenizer=gpt5', 'the text')
  assert status == 1 and err.startswith(
    "error: tokenizer is 'gpt5'; allowed: 'bytes', x.tiktoken:PATTERN"
  )
