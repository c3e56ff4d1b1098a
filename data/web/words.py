"""Splits a text into words, as the rules of data/web/rules.py count them."""

import functools

from lm.base import errors

WORDS = ('spacy', 'whitespace')
_KEPT = 1 << 18  # strings between spaces whose words are cached: 100 MB
_words: dict[str, list[str]] = {}


@functools.lru_cache(2)  # several rules split the same text, one after the other
def split(text: str, words: str) -> list[str]:
  """Returns the words of a text in order.

  Args:
    text: a document.
    words: 'whitespace' splits at spaces, as in Rae et al. 2021 (Gopher), appendix A.1.1. 'spacy'
      splits further, by spaCy's English tokenizer, in which each punctuation mark is a word, as in
      FineWeb's run (datatrove).

  Raises UserError for another name.
  """
  if words not in WORDS:
    raise errors.unknown('words', words, WORDS)
  parts = text.split()
  if words == 'whitespace':
    return parts
  if new := set(parts).difference(_words):  # spaCy splits each string between spaces separately
    if len(_words) > _KEPT:
      _words.clear()
      new = set(parts)
    nlp = _spacy()
    with nlp.memory_zone():
      for part in new:
        # spaCy does not split a string of letters, except for its own rules, such as "cannot".
        whole = part.isalpha() and part not in nlp.tokenizer.rules
        _words[part] = [part] if whole else [token.text for token in nlp.tokenizer(part)]
  return [word for part in parts for word in _words[part]]


@functools.cache
def _spacy():
  import spacy  # takes a second to import, and not every run needs it

  return spacy.blank('en')
