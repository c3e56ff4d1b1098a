"""Texts that are hard to tokenize, made up from a seed or by hypothesis, and a SentencePiece model
of them.
"""

import io
import random

import sentencepiece
from hypothesis import strategies as st

SPECIALS = ('<|endoftext|>', '<|end|>', '<|pad|>')
SAMPLE = (
  "the model can't read; it's 2024 and 3.14159 isn't 22/7\n\ndef encode(self, text):\n    return "
  '[ids[c] for c in'
  ' text]\n Größe naïve Ελληνικά русский текст हिन्दी पाठ עברית العربية 漢字かな 한국어 🙂👩\u200d👩\u200d👧 '
  '\t\r\n'
  " I'LL WE'VE <b>x</b> = "
)
# What split patterns treat differently, besides any text at all.
EDGES = st.text(
  'aZéßǅʰ字1٣Ⅷ\'\u2019"sStlvre!/_ \u00a0\u3000\t\n\r\v\u0301\u093f\u200d🙂\u017f\u212a', max_size=30
)
TEXTS = st.one_of(st.text(max_size=60), EDGES)
FORGING = st.lists(st.one_of(TEXTS, st.sampled_from(SPECIALS)), max_size=6).map(''.join)


def corpus(seed=0):
  """Texts of scraps of SAMPLE."""
  rng = random.Random(seed)
  starts = range(len(SAMPLE))
  return [
    ''.join(SAMPLE[(i := rng.choice(starts)) : i + rng.randrange(6)] for _ in range(100))
    for _ in range(200)
  ]


def sentencepiece_model(model_type='bpe', vocab_size=400, **options):
  """The bytes of a model trained on the same texts: by default one that can give any text back."""
  options = {
    'byte_fallback': True, 'normalization_rule_name': 'identity', 'remove_extra_whitespaces': False,
    'character_coverage': 1.0, 'minloglevel': 2, **options}  # fmt: skip
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(corpus()), model_writer=(out := io.BytesIO()), model_type=model_type, vocab_size=vocab_size,
    num_threads=1, hard_vocab_limit=False, **options)  # fmt: skip
  return out.getvalue()
