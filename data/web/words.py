"""Words of a text, as the rules of data/web/rules.py count them."""

import functools

from lm.base import errors

WORDS = ('spacy', 'whitespace')
_KEPT = 1 << 18  # strings between spaces whose words are remembered: 100 MB
_words: dict[str, list[str]] = {}


@functools.lru_cache(2)  # rules ask for the same text one after the other
def split(text: str, words: str) -> list[str]:
  """The words of a text, in order.

  Args:
    text: a document.
    words: whitespace: what stands between spaces, as in Rae et al. 2021 (Gopher), appendix A.1.1;
      spacy: its parts by spaCy's tokenizer for English, where each mark of punctuation is a word,
      as in FineWeb's run (datatrove).

  Raises UserError for another name.
  """
  if words not in WORDS:
    raise errors.unknown('words', words, WORDS)
  parts = text.split()
  if words == 'whitespace':
    return parts
  if new := set(parts).difference(_words):  # the tokenizer sees no further than a space
    if len(_words) > _KEPT:
      _words.clear()
      new = set(parts)
    nlp = _spacy()
    with nlp.memory_zone():
      for part in new:
        # letters alone are not taken apart, but "cannot" is
        whole = part.isalpha() and part not in nlp.tokenizer.rules
        _words[part] = [part] if whole else [token.text for token in nlp.tokenizer(part)]
  return [word for part in parts for word in _words[part]]


@functools.cache
def _spacy():
  import spacy  # a second to import, and not every run does

  return spacy.blank('en')
