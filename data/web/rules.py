"""Quality rules as pure functions from a text to checks.

Default arguments are the published thresholds; None makes no check. Lines are non-blank, as in Rae
et al. 2021 (Gopher), appendix A.1.1. To add a rule, write a generator of checks, add its bounds to
`FIELDS` and to configs/data/fineweb.py, and add a `Quality` step to `clean.pipeline`.
"""

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from datatrove.utils.text import PUNCTUATION_SET

from data.web.words import split

Verdict = tuple[str, str] | None  # the rule that drops a page and its figure; None keeps the page

STOP_WORDS = frozenset(('the', 'be', 'to', 'of', 'and', 'that', 'have', 'with'))
BULLETS = ('•', '-', '*', '‣')
ELLIPSES = ('...', '…')
TERMINAL = tuple('.!?‽⁇⁈⁉。\uff01\uff1f؟।॥')  # punctuation that ends a sentence
_MARKS = ''.join(sorted(PUNCTUATION_SET))
_FACTOR = np.uint64(0x9E3779B97F4A7C15)  # the multiplier of a polynomial hash
_CITATION = re.compile(r'\[(?:\d*|edit|citation needed)\]')
_SENTENCE_END = re.compile(r'(?<=[.!?])["\')\]]*\s+(?=\S)')


class Check(NamedTuple):
  """A figure of a text, and the bounds within which `rule` keeps the text."""

  rule: str
  what: str
  value: float
  low: float = -math.inf
  high: float = math.inf


# The config fields (configs/data/fineweb.py) that set the lower and the upper bound of each rule.
FIELDS: dict[str, tuple[str, str]] = {
  'language': ('languages', ''),
  'repeated_passages': ('', 'max_passage_share'),
  'gopher_duplicate_lines': ('', 'gopher_repetition.max_line_share'),
  'gopher_duplicate_paragraphs': ('', 'gopher_repetition.max_paragraph_share'),
  'gopher_duplicate_line_chars': ('', 'gopher_repetition.max_line_char_share'),
  'gopher_duplicate_paragraph_chars': ('', 'gopher_repetition.max_paragraph_char_share'),
  **{
    f'gopher_top_{n}gram': ('', 'gopher_repetition.max_top_ngram_char_share') for n in range(2, 5)
  },
  **{
    f'gopher_duplicate_{n}grams': ('', 'gopher_repetition.max_duplicate_ngram_char_share')
    for n in range(5, 11)
  },
  'gopher_words': ('gopher_quality.min_words', 'gopher_quality.max_words'),
  'gopher_word_length': ('gopher_quality.min_word_length', 'gopher_quality.max_word_length'),
  'gopher_symbols': ('', 'gopher_quality.max_symbols_per_word'),
  'gopher_bullets': ('', 'gopher_quality.max_bullet_lines'),
  'gopher_ellipses': ('', 'gopher_quality.max_ellipsis_lines'),
  'gopher_alphabetic': ('gopher_quality.min_alphabetic_words', ''),
  'gopher_stop_words': ('gopher_quality.min_stop_words', ''),
  'c4_lorem_ipsum': ('', 'c4.max_lorem_ipsum'),
  'c4_curly_bracket': ('', 'c4.max_curly_brackets'),
  'c4_sentences': ('c4.min_sentences', ''),
  'fineweb_punctuation': ('fineweb.min_punctuated_lines', ''),
  'fineweb_short_lines': ('', 'fineweb.max_short_lines'),
  'fineweb_duplicate_lines': ('', 'fineweb.max_line_char_share'),
  'fineweb_list': ('', 'fineweb.max_lines_per_word'),
  'quality': ('quality.min_score', ''),
}


def config_fields(figure: str) -> tuple[str, str]:
  """Returns the config fields that set the lower and the upper bound of a figure; '' if none does.

  Args:
    figure: 'rule: what was measured', as in the record of pages.
  """
  if figure == 'fineweb_punctuation: lines':  # a page must have a line, whatever the config says
    return '', ''
  return FIELDS[figure.partition(': ')[0]]


def first_failure(checks: Iterable[Check], figures: dict[str, list] | None = None) -> Verdict:
  """Returns the rule and figure of the first check that fails, or None if all pass.

  If `figures` is given, the measurements up to that check are added to it: {'rule: what': [value,
  low, high]}.
  """
  for rule, what, value, low, high in checks:
    if figures is not None:
      # A figure may have two checks, one for each bound.
      _, least, most = figures.get(f'{rule}: {what}', (None, None, None))
      least = least if low == -math.inf else low
      most = most if high == math.inf else high
      figures[f'{rule}: {what}'] = [round(value, 4), least, most]
    if value > high:
      return rule, f'{what} {value:.3g} > {high:g}'
    if value < low:
      return rule, f'{what} {value:.3g} < {low:g}'
  return None


def _at_most(rule: str, what: str, value: float, limit: float | None) -> Iterator[Check]:
  """Yields a check with an upper bound, or nothing if there is no limit."""
  if limit is not None:
    yield Check(rule, what, value, high=limit)


def _at_least(rule: str, what: str, value: float, limit: float | None) -> Iterator[Check]:
  """Yields a check with a lower bound, or nothing if there is no limit."""
  if limit is not None:
    yield Check(rule, what, value, low=limit)


def _repeats(parts: list[str]) -> tuple[float, int]:
  """Returns the fraction of parts that repeat an earlier one, and the characters in them."""
  seen, count, chars = set(), 0, 0
  for part in parts:
    if part in seen:
      count += 1
      chars += len(part)
    seen.add(part)
  return count / max(len(parts), 1), chars


class Words:
  """The words of a text as numbers, equal where the words are, and the places where words end.

  Places are counted in characters without spaces.
  """

  def __init__(self, words: Sequence[str]):
    ids: dict[str, int] = {}
    self.ids = np.array([ids.setdefault(word, len(ids) + 1) for word in words], np.uint64)
    self.ends = np.cumsum([0, *map(len, words)])

  def _ngrams(self, n: int) -> np.ndarray:
    """Returns hashes of the n-grams in order, uint64 [count]."""
    count = max(len(self.ids) - n + 1, 0)
    hashes = np.zeros(count, np.uint64)
    for i in range(n):
      hashes = hashes * _FACTOR + self.ids[i : i + count]
    return hashes

  def top_ngram(self, n: int) -> int:
    """Returns the number of characters in all occurrences of the most frequent n-gram.

    The spaces inside it count. In a tie the first n-gram is used.
    """
    _, first, counts = np.unique(self._ngrams(n), return_index=True, return_counts=True)
    if not len(counts):
      return 0
    place = first[counts == counts.max()].min()
    return int((self.ends[place + n] - self.ends[place] + n - 1) * counts.max())

  def repeated_ngrams(self, n: int) -> int:
    """Returns the number of characters, without spaces, in n-grams that occurred before.

    An n-gram that overlaps one that was counted is not counted.
    """
    hashes = self._ngrams(n)
    if not (np.diff(np.sort(hashes)) == 0).any():
      return 0
    seen, chars, free = set(), 0, 0
    for i, value in enumerate(hashes.tolist()):
      if i >= free and value in seen:
        chars += int(self.ends[i + n] - self.ends[i])
        free = i + n
      elif i >= free:
        seen.add(value)
    return chars


def gopher_repetition(
  text: str,
  *,
  words: str = 'spacy',
  max_line_share: float | None = 0.30,
  max_paragraph_share: float | None = 0.30,
  max_line_char_share: float | None = 0.20,
  max_paragraph_char_share: float | None = 0.20,
  max_top_ngram_char_share: Sequence[float] = (0.20, 0.18, 0.16),
  max_duplicate_ngram_char_share: Sequence[float] = (0.15, 0.14, 0.13, 0.12, 0.11, 0.10),
) -> Iterator[Check]:
  """Yields Gopher's repetition checks (Rae et al. 2021, arXiv 2112.11446, table A1).

  N-grams are measured as in datatrove, because FineWeb's thresholds were applied to its figures
  (see `Words`).

  Args:
    text: a document.
    words: how the text is split into words (see words.split).
    max_line_share, max_paragraph_share: largest fraction of lines or paragraphs that repeat an
      earlier one.
    max_line_char_share, max_paragraph_char_share: largest fraction of characters in those.
    max_top_ngram_char_share: largest fractions of characters in the most frequent 2-, 3- and 4-gram
      of words; () makes no check.
    max_duplicate_ngram_char_share: largest fractions of characters in repeated 5- to 10-grams; ()
      makes no check.
  """
  paragraphs, lines = re.split(r'\n\s*\n', text), text.split('\n')
  for kind, parts, limit, char_limit in (
    ('paragraph', paragraphs, max_paragraph_share, max_paragraph_char_share),
    ('line', lines, max_line_share, max_line_char_share),
  ):
    share, chars = _repeats([part.strip() for part in parts if part.strip()])
    yield from _at_most(f'gopher_duplicate_{kind}s', f'share of repeated {kind}s', share, limit)
    chars /= max(len(text), 1)
    yield from _at_most(
      f'gopher_duplicate_{kind}_chars', f'characters in repeated {kind}s', chars, char_limit
    )
  counted = Words(split(text, words))
  for n, limit in enumerate(max_top_ngram_char_share, 2):
    share = counted.top_ngram(n) / max(len(text), 1)
    yield Check(f'gopher_top_{n}gram', f'characters in the top {n}-gram', share, high=limit)
  for n, limit in enumerate(max_duplicate_ngram_char_share, 5):
    share = counted.repeated_ngrams(n) / max(len(text), 1)
    yield Check(
      f'gopher_duplicate_{n}grams', f'characters in repeated {n}-grams', share, high=limit
    )


def gopher_quality(
  text: str,
  *,
  words: str = 'spacy',
  min_words: int | None = 50,
  max_words: int | None = 100_000,
  min_word_length: float | None = 3,
  max_word_length: float | None = 10,
  max_symbols_per_word: float | None = 0.1,
  max_bullet_lines: float | None = 0.9,
  max_ellipsis_lines: float | None = 0.3,
  min_alphabetic_words: float | None = 0.8,
  min_stop_words: int | None = 2,
) -> Iterator[Check]:
  """Yields Gopher's quality checks (Rae et al. 2021, arXiv 2112.11446, appendix A.1.1).

  Args:
    text: a document.
    words: how the text is split into words (see words.split). Punctuation alone does not count in
      the number of words and their mean length.
    min_words, max_words: bounds on the number of words.
    min_word_length, max_word_length: bounds on the mean word length in characters.
    max_symbols_per_word: largest number of '#', and of ellipses, per word.
    max_bullet_lines, max_ellipsis_lines: largest fraction of lines that begin with a bullet, or end
      in an ellipsis.
    min_alphabetic_words: smallest fraction of words that contain a letter.
    min_stop_words: how many of {the, be, to, of, and, that, have, with} must occur.
  """
  words = split(text, words)
  solid = [len(word) for word in words if word.isalnum() or word.strip(_MARKS)]
  yield from _at_least('gopher_words', 'words', len(solid), max(min_words or 0, 1))
  yield from _at_most('gopher_words', 'words', len(solid), max_words)
  mean = sum(solid) / len(solid)
  yield from _at_least('gopher_word_length', 'mean word length', mean, min_word_length)
  yield from _at_most('gopher_word_length', 'mean word length', mean, max_word_length)
  yield from _at_most(
    'gopher_symbols', "'#' per word", text.count('#') / len(words), max_symbols_per_word
  )
  ellipses = sum(text.count(mark) for mark in ELLIPSES)
  yield from _at_most(
    'gopher_symbols', 'ellipses per word', ellipses / len(words), max_symbols_per_word
  )
  lines = [line.strip() for line in text.split('\n') if line.strip()]
  bullets = sum(line.startswith(BULLETS) for line in lines) / len(lines)
  yield from _at_most('gopher_bullets', 'lines that begin with a bullet', bullets, max_bullet_lines)
  ends = sum(line.endswith(ELLIPSES) for line in lines) / len(lines)
  yield from _at_most('gopher_ellipses', 'lines that end in an ellipsis', ends, max_ellipsis_lines)
  alphabetic = sum(word.isalpha() or any(map(str.isalpha, word)) for word in words) / len(words)
  yield from _at_least('gopher_alphabetic', 'words with a letter', alphabetic, min_alphabetic_words)
  stops = STOP_WORDS & {word.strip('.,;:!?()[]"\'').lower() for word in words}
  yield from _at_least('gopher_stop_words', 'different stop words', len(stops), min_stop_words)


def c4_lines(
  text: str,
  *,
  min_line_words: int = 3,
  max_word_chars: int = 1000,
  lines_with: Sequence[str] = (),
  strip_citations: bool = True,
) -> str:
  """Returns the text without the lines that C4 removes (Raffel et al. 2020, section 2.2).

  The paper is arXiv 1910.10683.

  Args:
    text: a document.
    min_line_words: lines of fewer words are removed; 0 removes none, and keeps blank lines.
    max_word_chars: lines with a longer word are removed; 0 removes none.
    lines_with: lines that contain one of these phrases (lower case) are removed.
    strip_citations: remove marks such as [1], [edit] and [citation needed].
  """
  kept = []
  for line in text.split('\n'):
    words, lower = line.split(), line.lower()
    if len(words) < min_line_words or (
      max_word_chars and any(len(word) > max_word_chars for word in words)
    ):
      continue
    if not any(phrase in lower for phrase in lines_with):
      kept.append(_CITATION.sub('', line) if strip_citations else line)
  return '\n'.join(kept).strip('\n')


def c4(
  text: str,
  *,
  min_sentences: int | None = 5,
  max_curly_brackets: int | None = 0,
  max_lorem_ipsum: int | None = 0,
) -> Iterator[Check]:
  """Yields C4's checks of whole pages, for use after `c4_lines` (Raffel et al. 2020, section 2.2).

  The paper is arXiv 1910.10683.

  Args:
    text: a document.
    min_sentences: smallest number of sentences; each line ends one.
    max_curly_brackets, max_lorem_ipsum: largest number of '{', and of 'lorem ipsum'.
  """
  yield from _at_most(
    'c4_lorem_ipsum', "times 'lorem ipsum'", text.lower().count('lorem ipsum'), max_lorem_ipsum
  )
  yield from _at_most('c4_curly_bracket', "times '{'", text.count('{'), max_curly_brackets)
  sentences = sum(
    len(_SENTENCE_END.split(line.strip())) for line in text.split('\n') if line.strip()
  )
  yield from _at_least('c4_sentences', 'sentences', sentences, min_sentences)


def fineweb(
  text: str,
  *,
  words: str = 'spacy',
  min_punctuated_lines: float | None = 0.12,
  max_short_lines: float | None = 0.67,
  short_line: int = 30,
  max_line_char_share: float | None = 0.1,
  max_lines_per_word: float | None = 0.3,
) -> Iterator[Check]:
  """Yields FineWeb's own checks (Penedo et al. 2024, arXiv 2406.17557, section 3.6).

  Args:
    text: a document.
    words: how the text is split into words (see words.split).
    min_punctuated_lines: smallest fraction of lines that end in punctuation.
    max_short_lines: largest fraction of lines of at most `short_line` characters.
    short_line: number of characters.
    max_line_char_share: largest fraction of characters in lines that repeat an earlier one (0.1 in
      the paper; datatrove ships 0.01).
    max_lines_per_word: largest number of line breaks per word.
  """
  lines = [line for line in text.split('\n') if line.strip()]
  yield Check('fineweb_punctuation', 'lines', len(lines), low=1)
  punctuated = sum(line.rstrip().endswith(TERMINAL) for line in lines) / len(lines)
  yield from _at_least(
    'fineweb_punctuation', 'lines that end in punctuation', punctuated, min_punctuated_lines
  )
  short = sum(len(line) <= short_line for line in lines) / len(lines)
  yield from _at_most(
    'fineweb_short_lines', f'lines of at most {short_line} characters', short, max_short_lines
  )
  repeated = _repeats(lines)[1] / sum(map(len, lines))
  yield from _at_most(
    'fineweb_duplicate_lines', 'characters in repeated lines', repeated, max_line_char_share
  )
  breaks = text.count('\n') / max(len(split(text, words)), 1)
  yield from _at_most('fineweb_list', 'line breaks per word', breaks, max_lines_per_word)
