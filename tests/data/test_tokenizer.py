import base64
import io
import json
import pickle
import random
import re
import sys

import commands
import numpy as np
import pytest
import sentencepiece
import tiktoken
import tiktoken_ext.openai_public as openai_public
import tokenizers
import transformers
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tiktoken.load import load_tiktoken_bpe

from data import tokenizer as ours
from data import train_tokenizer
from lm import pretrained
from lm.errors import UserError

SPECIALS = ('<|endoftext|>', '<|end|>', '<|pad|>')
SAMPLE = (
  "the model can't read; it's 2024 and 3.14159 isn't 22/7\n\ndef encode(self, text):\n    return [ids[c] for c in"
  ' text]\n Größe naïve Ελληνικά русский текст हिन्दी पाठ עברית العربية 漢字かな 한국어 🙂👩\u200d👩\u200d👧 \t\r\n'
  " I'LL WE'VE <b>x</b> = "
)
# What split patterns treat differently, besides any text at all.
EDGES = st.text('aZéßǅʰ字1٣Ⅷ\'\u2019"sStlvre!/_ \u00a0\u3000\t\n\r\v\u0301\u093f\u200d🙂\u017f\u212a', max_size=30)
TEXTS = st.one_of(st.text(max_size=60), EDGES)
FORGING = st.lists(st.one_of(TEXTS, st.sampled_from(SPECIALS)), max_size=6).map(''.join)


def corpus(seed=0):
  """Texts of scraps of SAMPLE."""
  rng = random.Random(seed)
  starts = range(len(SAMPLE))
  return [''.join(SAMPLE[(i := rng.choice(starts)) : i + rng.randrange(6)] for _ in range(100)) for _ in range(200)]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """A tokenizer trained on made-up text in several scripts."""
  path = tmp_path_factory.mktemp('tokenizer') / 'new'
  report = train_tokenizer.train(corpus(), 600, SPECIALS, path, held_out=corpus(1)[:20])
  texts = corpus(1)[:20]
  assert report['vocab_size'] == 603
  tokens = sum(len(ours.load(path).encode(text)) for text in texts)
  assert report['bytes_per_token'] == pytest.approx(sum(len(t.encode()) for t in texts) / tokens)
  return path


@pytest.fixture(scope='module')
def exported(folder):
  """What other libraries read from the two files, and ours."""
  ranks = load_tiktoken_bpe(str(folder / 'tokenizer.tiktoken'))
  reference = tiktoken.Encoding('x', pat_str=ours.PATTERNS['deepdive'], mergeable_ranks=ranks, special_tokens={})
  hugging_face = tokenizers.Tokenizer.from_file(str(folder / 'tokenizer.json'))
  hugging_face.encode_special_tokens = True
  fast = transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / 'tokenizer.json'), split_special_tokens=True)
  others = {
    'tiktoken': reference.encode_ordinary,
    'tokenizers': lambda text: hugging_face.encode(text, add_special_tokens=False).ids,
    'transformers': lambda text: fast.encode(text, add_special_tokens=False),
  }
  assert hugging_face.get_vocab_size() == len(fast) == 603
  assert [hugging_face.token_to_id(name) for name in SPECIALS] == fast.convert_tokens_to_ids(list(SPECIALS))
  return others, ours.load(folder), ours.load(f'{folder}/tokenizer.tiktoken:deepdive', SPECIALS)


def test_both_files_are_one_tokenizer(exported):
  _, from_json, from_ranks = exported
  assert from_json.fingerprint == from_ranks.fingerprint
  assert from_json.special_tokens == from_ranks.special_tokens == dict(zip(SPECIALS, range(600, 603), strict=True))
  assert [from_json.token_bytes(b) for b in range(256)] == [bytes([b]) for b in range(256)]
  assert from_json.vocab_size == 603


@settings(max_examples=300, deadline=None)
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
  """A tokenizer.json in SentencePiece's manner: not byte-level, with normalisation and a metaspace."""
  model = tokenizers.Tokenizer(tokenizers.models.Unigram())
  model.normalizer = tokenizers.normalizers.NFC()
  model.pre_tokenizer, model.decoder = tokenizers.pre_tokenizers.Metaspace(), tokenizers.decoders.Metaspace()
  options = {'vocab_size': 300, 'special_tokens': ['<unk>'], 'unk_token': '<unk>', 'show_progress': False}
  model.train_from_iterator(corpus(), tokenizers.trainers.UnigramTrainer(**options))
  model.add_special_tokens(['<|end|>'])
  model.save(str(path))
  return str(path)


def sentencepiece_model(model_type='bpe', vocab_size=400, **options):
  """The bytes of a model trained on the same texts: by default one that can give any text back."""
  options = {
    'byte_fallback': True, 'normalization_rule_name': 'identity', 'remove_extra_whitespaces': False,
    'character_coverage': 1.0, 'minloglevel': 2, **options}  # fmt: skip
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(corpus()), model_writer=(out := io.BytesIO()), model_type=model_type, vocab_size=vocab_size,
    num_threads=1, hard_vocab_limit=False, **options)  # fmt: skip
  return out.getvalue()


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


@settings(max_examples=200, deadline=None)
@given(FORGING)
def test_text_never_yields_special_ids(any_kind, text):
  assert not set(any_kind.encode(text)) & set(any_kind.special_tokens.values())


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_any_ids_decode_to_their_bytes(any_kind, data):
  if isinstance(any_kind, ours.HuggingFace):
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
  if not isinstance(any_kind, ours.HuggingFace):
    text = ''.join(corpus(3))
    assert any_kind.decode(any_kind.encode(text)) == text
    assert lengths[any_kind.encode(text)].sum() == len(text.encode())


def test_a_run_brings_its_tokenizer(any_kind, tmp_path):
  any_kind.save(tmp_path / 'tokenizer')
  run = pretrained.Pretrained(config=None, params=None, provenance={}, run=tmp_path, step=0)
  assert ours.load(run.tokenizer).fingerprint == any_kind.fingerprint


def test_every_kind_survives_pickling(any_kind):
  copy = pickle.loads(pickle.dumps(any_kind))  # as data.tokenize sends it to its workers
  assert (copy.fingerprint, copy.special_tokens) == (any_kind.fingerprint, any_kind.special_tokens)
  for text in ('x<|end|> \n<|pad|>', *corpus(2)[:5]):
    assert copy.encode(text) == any_kind.encode(text)


@settings(max_examples=200, deadline=None)
@given(raw=st.binary(max_size=60))
def test_any_bytes_have_ids(any_kind, raw):
  if isinstance(any_kind, ours.HuggingFace):
    return
  ids = {any_kind.token_bytes(i): i for i in range(any_kind.vocab_size)}
  assert any_kind.decode_bytes([ids[bytes([b])] for b in raw]) == raw


def test_bytes():
  tokenizer = ours.load('bytes', SPECIALS)
  assert tokenizer.encode('aé<|end|>') == [97, 195, 169, *b'<|end|>']
  assert tokenizer.vocab_size == 259 and tokenizer.special_tokens['<|pad|>'] == 258
  assert tokenizer.decode([104, 256, 195]) == 'h<|endoftext|>\ufffd'


def published_patterns():
  """The patterns that tiktoken ships, without the vocabularies (which it would download)."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(openai_public, 'load_tiktoken_bpe', lambda *args, **kwargs: {})
    patch.setattr(openai_public, 'data_gym_to_mergeable_bpe_ranks', lambda *args, **kwargs: {})
    return {
      'gpt2': openai_public.gpt2()['pat_str'],
      'cl100k': openai_public.cl100k_base()['pat_str'],
      'o200k': openai_public.o200k_base()['pat_str'],
    }


@pytest.mark.parametrize('name', ['gpt2', 'cl100k', 'o200k'])
def test_published_patterns_cut_as_published(name):
  # With this many scraps as tokens, most ways of cutting differ in their ids.
  ranks = {bytes([b]): b for b in range(256)}
  for piece in {t[i : i + n] for t in corpus() for n in (2, 3, 5) for i in range(0, len(t) - n, 7)}:
    raw = piece.encode()
    for n in range(2, len(raw) + 1):
      ranks.setdefault(raw[:n], len(ranks))
  reference = tiktoken.Encoding(name, pat_str=published_patterns()[name], mergeable_ranks=ranks, special_tokens={})
  mine = ours.BPE(ours.PATTERNS[name], ranks, ())
  hugging_face = tokenizers.Tokenizer.from_str(mine._json())

  @settings(max_examples=300, deadline=None)
  @given(TEXTS)
  def check(text):
    ids = reference.encode_ordinary(text)
    assert mine.encode(text) == ids
    assert hugging_face.encode(text).ids == ids

  check()
  text = ''.join(corpus(1))
  assert mine.encode(text) == reference.encode_ordinary(text)


LARGE = {  # ids of plain tokens, those of the special ones
  'cl100k': (100_256, dict(zip(['<|endoftext|>', '<|fim|>', '<|fim_middle|>', '<|fim_suffix|>', '<|endofprompt|>'],
                               [100257, 100258, 100259, 100260, 100276], strict=True))),
  'llama3': (128_000, {f'<|reserved_{i}|>': 128_000 + i for i in range(256)}),
}  # fmt: skip


@pytest.mark.parametrize(('name', 'size'), [('cl100k', 100_277), ('llama3', 128_256)])
def test_large_vocabularies(tmp_path, name, size):
  plain, specials = LARGE[name]
  rng = random.Random(0)
  tokens = {bytes([b]): b for b in range(256)}
  frequent = [*tokens, *(a + b for a in map(bytes, zip(range(97, 123))) for b in tokens)]
  while len(tokens) < plain:
    tokens.setdefault(rng.choice(frequent) + rng.choice(frequent), len(tokens))
  path = tmp_path / 'big.tiktoken'
  path.write_bytes(b''.join(base64.b64encode(t) + b' %d\n' % i for t, i in tokens.items()))
  (tmp_path / 'specials.json').write_text(json.dumps(specials))
  tokenizer = ours.load(f'{path}:{name}:{tmp_path}/specials.json', [min(specials), '<|new|>'])
  assert tokenizer.special_tokens == specials | {'<|new|>': size} and tokenizer.vocab_size == size + 1
  tokenizer = ours.load(f'{path}:{name}:{tmp_path}/specials.json')
  assert tokenizer.special_tokens == specials and tokenizer.vocab_size == size
  reference = tiktoken.Encoding(name, pat_str=ours.PATTERNS[name], mergeable_ranks=tokens, special_tokens=specials)
  assert reference.n_vocab == size
  text = ''.join(map(chr, np.random.default_rng(0).integers(32, 0x500, 20000))) + ''.join(specials)
  ids = tokenizer.encode(text)
  assert ids == reference.encode_ordinary(text)
  assert tokenizer.decode(ids) == text
  last = [0, *specials.values()]
  assert tokenizer.decode(last) == reference.decode(last)
  assert not tokenizer.byte_lengths()[plain:].any() and tokenizer.byte_lengths()[:plain].all()

  tokenizer.save(tmp_path)
  assert ours.load(tmp_path).fingerprint == tokenizer.fingerprint
  hugging_face = tokenizers.Tokenizer.from_file(str(tmp_path / 'tokenizer.json'))
  assert {n: hugging_face.token_to_id(n) for n in specials} == specials
  hugging_face.encode_special_tokens = True
  assert hugging_face.encode(text).ids == ids


def test_special_tokens_of_a_rank_file(folder, tmp_path):
  path = tmp_path / 'specials.json'
  spec = f'{folder}/tokenizer.tiktoken:deepdive:{path}'
  for content, message in (
    ('[]', 'a JSON object of names and ids'), ('{"a": "1"}', 'a JSON object'), ('{"a": -1}', 'a JSON object'),
    ('{"<a>": 5}', "'<a>' cannot have id 5"), ('{"<a>": 600, "<b>": 600}', "'<b>' cannot have id 600"), ('{', 'not valid'),
    ('{"the": 600}', "special token 'the' is an ordinary token"),
  ):  # fmt: skip
    path.write_text(content)
    with pytest.raises(UserError, match=message):
      ours.load(spec)
  path.write_text('{"<a>": 700}')
  assert ours.load(spec, ['<b>']).special_tokens == {'<a>': 700, '<b>': 701}


SENTENCEPIECE = {
  'bpe': {},
  'unigram': {'model_type': 'unigram'},
  'no prefix': {'add_dummy_prefix': False, 'user_defined_symbols': ['<turn>', '\n\n', '<b>']},
  'char': {'model_type': 'char'},
  'default': {
    'byte_fallback': False, 'normalization_rule_name': 'nmt_nfkc', 'remove_extra_whitespaces': True,
    'character_coverage': 0.98, 'model_type': 'unigram', 'vocab_size': 150},
}  # fmt: skip


@pytest.mark.parametrize('name', SENTENCEPIECE)
def test_sentencepiece_ids_are_those_of_the_library(tmp_path, name):
  model = sentencepiece_model(**SENTENCEPIECE[name])
  (tmp_path / 'x.model').write_bytes(model)
  reference = sentencepiece.SentencePieceProcessor(model_proto=model)
  tokenizer = ours.load(tmp_path / 'x.model', SPECIALS)
  assert tokenizer.special_tokens == {'<s>': 1, '</s>': 2} | {n: len(reference) + i for i, n in enumerate(SPECIALS)}

  @settings(max_examples=300, deadline=None)
  @given(st.one_of(FORGING, st.lists(st.sampled_from(['<s>', '</s>', '<unk>', '<0x41>', ' ', '<b>', 'the\n\n'])).map(''.join)))
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
      assert tokenizer.byte_lengths()[ids].sum() == prefix + len(text.replace('\u2581', ' ').encode())

  check()
  texts = [*corpus(1)[:10], '', 'a\ud800']
  assert tokenizer.encode_batch(texts) == [tokenizer.encode(text) for text in texts]
  assert tokenizer.encode_batch([]) == []


def test_sentencepiece_special_tokens(tmp_path):
  model = sentencepiece_model(user_defined_symbols=['<turn>', '<other>'], control_symbols=['<pad>'])
  path = tmp_path / 'x.model'
  path.write_bytes(model)
  plain, turn = ours.load(path), sentencepiece.SentencePieceProcessor(model_proto=model).piece_to_id('<turn>')
  assert turn in plain.encode('a<turn>') and '<turn>' not in plain.special_tokens
  tokenizer = ours.load(path, ['<turn>', '<pad>', '<|end|>'])
  assert tokenizer.special_tokens['<turn>'] == turn
  assert tokenizer.special_tokens['<|end|>'] == plain.vocab_size
  assert turn not in tokenizer.encode('a<turn>') and tokenizer.decode(tokenizer.encode('a<turn>')) == 'a<turn>'
  assert tokenizer.encode('b<other>') == plain.encode('b<other>')
  assert tokenizer.fingerprint != plain.fingerprint
  ids = [turn, *tokenizer.encode(' a'), tokenizer.special_tokens['<|end|>'], *tokenizer.encode('b c')]
  assert tokenizer.decode(ids) == '<turn> a<|end|>b c'
  for special_tokens, message in (({'<new>': 5000}, "'<new>' cannot have id 5000"), (['e'], "'e' cannot have id")):
    with pytest.raises(UserError, match=rf'x\.model: special token {message}'):
      ours.load(path, special_tokens)


def test_sentencepiece_errors(tmp_path, monkeypatch):
  path = tmp_path / 'x.model'
  for content in (b'', b'no model', sentencepiece_model()[:3000]):
    path.write_bytes(content)
    with pytest.raises(UserError, match=r'x\.model: not a SentencePiece model'):
      ours.load(path)
  path.write_bytes(sentencepiece_model(treat_whitespace_as_suffix=True))
  with pytest.raises(UserError, match=r'x\.model: treat_whitespace_as_suffix .* not supported'):
    ours.load(path)
  # A control symbol of one character is made from that character, which the library takes for a fault of its own.
  path.write_bytes(sentencepiece_model(control_symbols=['\u2603']))
  with pytest.raises(UserError, match=r'x\.model: tensorflow-text cannot run this model: .*not consumed'):
    ours.load(path)
  monkeypatch.setitem(sys.modules, 'tensorflow_text', None)
  with pytest.raises(UserError, match=r"x\.model: .* needs the package tensorflow_text: pip install 'deepdive-lm\[sentencep"):
    ours.load(path)


def test_tensorflow_is_imported_for_sentencepiece_only(tmp_path):
  (tmp_path / 'x.model').write_bytes(sentencepiece_model())
  code = 'import sys; from data import tokenizer; tokenizer.load({!r}).encode("a"); print("tensorflow" in sys.modules)'
  for spec, loaded in (('bytes', 'False'), (str(tmp_path / 'x.model'), 'True')):
    status, out, err = commands.run('-c', code.format(spec))
    assert (status, out.strip()) == (0, loaded), err


def test_json_whose_merges_ranks_cannot_express(tmp_path):
  # "abc" is made of a + bc, but a + b merges first: by ranks the text abc is one token, by the merge list two.
  plain = json.loads(ours.load('bytes')._json())
  plain['pre_tokenizer']['use_regex'] = True
  plain['model']['ignore_merges'] = False
  plain['model']['vocab'] |= {'ab': 256, 'bc': 257, 'abc': 258}
  plain['model']['merges'] = [['a', 'b'], ['b', 'c'], ['a', 'bc']]
  (tmp_path / 'tokenizer.json').write_text(json.dumps(plain))
  tokenizer = ours.load(tmp_path)
  assert tokenizer.encode('abc') == [256, ord('c')]
  plain['model']['merges'][2] = ['ab', 'c']
  (tmp_path / 'tokenizer.json').write_text(json.dumps(plain))
  assert isinstance(ours.load(tmp_path), ours.BPE)
  assert ours.load(tmp_path).encode('abc') == [258]


def test_specials_of_a_file_keep_their_ids_and_new_ones_follow(folder):
  tokenizer = ours.load(folder, ['<|pad|>', '<|new|>'])
  assert tokenizer.special_tokens == {'<|endoftext|>': 600, '<|end|>': 601, '<|pad|>': 602, '<|new|>': 603}
  assert tokenizer.fingerprint != ours.load(folder).fingerprint
  with pytest.raises(UserError, match=r"'<\|new\|>' cannot have id 5"):
    ours.load(folder, {'<|new|>': 5})


def test_hard_texts(folder, exported):
  tokenizer, others = ours.load(folder), exported[0]
  hard = [' ' * 400_000 + 'a', 'b' + '\n \n' * 100_000, 'the' * 30_000, '\u0301' * 50_000, '<|end|>' * 10_000, '\x00\ufeff', '']
  for text in hard:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert [name for name, encode in others.items() if encode(text) != ids] == []
  for text in (' ' * 1_200_000 + 'a', 'b' + '\n \n' * 200_000, ' a ' * 300_000):  # white space that tiktoken cannot take
    assert tokenizer.decode(tokenizer.encode(text)) == text
    hard.append(text)
  assert tokenizer.encode_batch(hard * 2) == [tokenizer.encode(text) for text in hard] * 2
  for spec in ('bytes', str(folder)):
    assert ours.load(spec).decode(ours.load(spec).encode('a\ud800b')) == 'a\ufffdb'


def test_a_text_that_forges_is_refused(tmp_path):
  model = tokenizers.Tokenizer(tokenizers.models.WordLevel({'[A]': 0, 'x': 1, '?': 2}, unk_token='?'))
  model.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
  model.add_special_tokens(['[A]'])
  model.save(str(tmp_path / 'tokenizer.json'))
  with pytest.raises(UserError, match=r"text can forge special token '\[A\]'"):
    ours.load(tmp_path)


def test_training_is_deterministic(folder, tmp_path):
  train_tokenizer.train(corpus(), 600, SPECIALS, tmp_path / 'again', held_out=corpus(1)[:20])
  for name in ('tokenizer.json', 'tokenizer.tiktoken', 'report.json'):
    assert (tmp_path / 'again' / name).read_bytes() == (folder / name).read_bytes()


def test_training_learns_the_commonest_pair_first(folder):
  texts = ['lo lo lo lo ab ab']
  train_tokenizer.train(texts, 258, (), (out := folder.parent / 'tiny'))
  ranks = load_tiktoken_bpe(str(out / 'tokenizer.tiktoken'))
  assert sorted(ranks, key=ranks.get)[256:] == [b'lo', b' lo']


def test_training_errors(tmp_path):
  with pytest.raises(UserError, match='vocab_size is 100'):
    train_tokenizer.train(['text'], 100, (), tmp_path / 'a')
  with pytest.raises(UserError, match=r'vocabulary of 25[0-9], not 5000'):
    train_tokenizer.train(['text'], 5000, (), tmp_path / 'a')
  with pytest.raises(UserError, match="did you mean 'gpt2'"):
    train_tokenizer.train(['text'], 256, (), tmp_path / 'a', pattern='gpt')
  assert not (tmp_path / 'a').exists()


def test_load_errors(tmp_path, folder):
  path = tmp_path / 'x.tiktoken'
  path.write_text('YQ== 0\n!! 1\n')
  with pytest.raises(UserError, match=r'x\.tiktoken:2: not a line'):
    ours.load(f'{path}:gpt2')
  path.write_text('YQ== 0\n')
  with pytest.raises(UserError, match='255 of the 256 bytes'):
    ours.load(f'{path}:gpt2')
  with pytest.raises(UserError, match=r'unknown split pattern .* allowed: gpt2, cl100k, o200k, llama3, deepdive'):
    ours.load(str(path))
  for name in ('absent.json', 'absent.tiktoken:gpt2', 'absent.model'):
    with pytest.raises(FileNotFoundError, match=name.partition(':')[0]):
      ours.load(tmp_path / name)
  with pytest.raises(UserError, match=r'holds neither tokenizer\.json nor tokenizer\.model'):
    ours.load(tmp_path)
  for spec in ('gpt5', 'x.tiktokengpt2'):
    with pytest.raises(UserError, match=f'unknown tokenizer {spec!r}'):
      ours.load(spec)
  for content, message in (('{', 'not valid JSON'), ('{"a": 1}', 'no field'), ('[]', 'no field')):
    (tmp_path / 'tokenizer.json').write_text(content)
    with pytest.raises(UserError, match=message):
      ours.load(tmp_path)


def test_show(folder):
  tokenizer = ours.load(folder)
  shown = ours.show(tokenizer, 'the text', merges=True)
  assert re.sub(r'\x1b\[[0-9;]*m', '', shown).startswith('the text\n')
  for i in tokenizer.encode('the text'):
    assert f'{i:>8} ' in shown
  assert "     195 b'\\xc3'" in ours.show(ours.load('bytes'), 'aÃ') and "      97 'a'" in ours.show(ours.load('bytes'), 'aÃ')
  assert 't h e -> ' in shown and shown.endswith('8 bytes, 4.00 bytes per token')


def test_show_other_kinds(tmp_path):
  (tmp_path / 'x.model').write_bytes(sentencepiece_model(**SENTENCEPIECE['default']))
  tokenizer = ours.load(tmp_path / 'x.model')
  assert "decodes to 'a b'" in ours.show(tokenizer, 'a  b') and 'decodes' not in ours.show(tokenizer, 'a b')
  with pytest.raises(UserError, match='merge steps are shown of byte-level BPE only'):
    ours.show(tokenizer, 'a b', merges=True)


def test_commands(tmp_path):
  (tmp_path / 'a.jsonl').write_text(''.join(json.dumps({'id': str(i), 'text': t}) + '\n' for i, t in enumerate(corpus())))
  options = (f'--input={tmp_path}/a.jsonl', '--vocab-size=300', f'--out={tmp_path}/new', '--pattern=cl100k')
  status, _, err = commands.run('-m', 'data.train_tokenizer', *options)
  assert status == 0, err
  assert ours.load(tmp_path / 'new').pattern == ours.PATTERNS['cl100k']
  status, _, err = commands.run('-m', 'data.train_tokenizer', *options, f'--out={tmp_path}/t.tiktoken')
  assert status == 0, err
  assert {path.name for path in tmp_path.iterdir()} == {'a.jsonl', 'new', 't.json', 't.tiktoken'}
  assert ours.load(tmp_path / 't.json').fingerprint == ours.load(tmp_path / 'new').fingerprint
  assert ours.load(f'{tmp_path}/t.tiktoken:cl100k').ranks == ours.load(tmp_path / 'new').ranks
  spec = f'--tokenizer={tmp_path}/new/tokenizer.tiktoken:cl100k'
  status, out, err = commands.run('-m', 'data.tokenizer', 'show', spec, '--merges', 'the text')
  assert status == 0 and ' -> ' in out and '\x1b[' in out, err
  status, _, err = commands.run('-m', 'data.tokenizer', 'show', '--tokenizer=gpt5', 'the text')
  assert status == 1 and err.startswith("error: unknown tokenizer 'gpt5'; allowed: 'bytes', x.tiktoken:PATTERN")
