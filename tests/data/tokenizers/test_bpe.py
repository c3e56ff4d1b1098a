"""Byte-level BPE beside tiktoken and `tokenizers`: cuts, large vocabularies, and what ranks cannot
express.
"""

import base64
import json
import random

import numpy as np
import pytest
import tiktoken
import tiktoken_ext.openai_public as openai_public
import tokenizers
from hypothesis import given, settings
from texts import TEXTS, corpus

from data.tokenizers import loading as ours
from data.tokenizers.bpe import BPE, PATTERNS


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


@pytest.mark.slow
@pytest.mark.parametrize('name', ['gpt2', 'cl100k', 'o200k'])
def test_published_patterns_cut_as_published(name):
  # With this many scraps as tokens, most ways of cutting differ in their ids.
  ranks = {bytes([b]): b for b in range(256)}
  for piece in {t[i : i + n] for t in corpus() for n in (2, 3, 5) for i in range(0, len(t) - n, 7)}:
    raw = piece.encode()
    for n in range(2, len(raw) + 1):
      ranks.setdefault(raw[:n], len(ranks))
  reference = tiktoken.Encoding(
    name, pat_str=published_patterns()[name], mergeable_ranks=ranks, special_tokens={}
  )
  mine = BPE(PATTERNS[name], ranks, ())
  hugging_face = tokenizers.Tokenizer.from_str(mine._json())

  @settings(max_examples=300)
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


@pytest.mark.slow
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
  assert (
    tokenizer.special_tokens == specials | {'<|new|>': size} and tokenizer.vocab_size == size + 1
  )
  tokenizer = ours.load(f'{path}:{name}:{tmp_path}/specials.json')
  assert tokenizer.special_tokens == specials and tokenizer.vocab_size == size
  reference = tiktoken.Encoding(
    name, pat_str=PATTERNS[name], mergeable_ranks=tokens, special_tokens=specials
  )
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


def test_json_whose_merges_ranks_cannot_express(tmp_path):
  # "abc" is made of a + bc, but a + b merges first: by ranks the text abc is one token, by the
  # merge list two.
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
  assert isinstance(ours.load(tmp_path), BPE)
  assert ours.load(tmp_path).encode('abc') == [258]
