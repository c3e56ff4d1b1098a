"""Quality rules as pure functions: text in, None (kept) or (rule, detail) out. Defaults are the published thresholds.

Words are what whitespace separates, and lines are non-blank, as in Rae et al. 2021 (Gopher), appendix A.1.1.
"""

import re
from collections import Counter

Verdict = tuple[str, str] | None

STOP_WORDS = frozenset(('the', 'be', 'to', 'of', 'and', 'that', 'have', 'with'))
BULLETS = ('•', '-', '*', '‣')
ELLIPSES = ('...', '…')
TERMINAL = tuple('.!?‽⁇⁈⁉。\uff01\uff1f؟।॥')  # marks that end a sentence
TOP_NGRAMS = {2: 0.20, 3: 0.18, 4: 0.16}
DUPLICATE_NGRAMS = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}


def _over(rule: str, value: float, limit: float | None, what: str) -> Verdict:
  return (rule, f'{what} {value:.3g} > {limit:g}') if limit is not None and value > limit else None


def _under(rule: str, value: float, limit: float | None, what: str) -> Verdict:
  return (rule, f'{what} {value:.3g} < {limit:g}') if limit is not None and value < limit else None


def _repeats(parts: list[str]) -> tuple[float, int]:
  """Share of the parts that stood before, and the characters in them."""
  seen, count, chars = set(), 0, 0
  for part in parts:
    if part in seen:
      count += 1
      chars += len(part)
    seen.add(part)
  return count / max(len(parts), 1), chars


def top_ngram_share(words: list[str], n: int) -> float:
  """Characters in all occurrences of the most frequent word n-gram (of the longest, in a tie), of all in words."""
  counts = Counter(zip(*(words[i:] for i in range(n)), strict=False))
  if not counts:
    return 0.0
  most = max(counts.values())
  longest = max(sum(map(len, gram)) for gram, times in counts.items() if times == most)
  return longest * most / sum(map(len, words)) if most > 1 else 0.0


def duplicate_ngram_share(words: list[str], n: int) -> float:
  """Characters in words of an n-gram that occurs more than once, each word counted once, of all in words."""
  grams = list(zip(*(words[i:] for i in range(n)), strict=False))
  counts, covered, chars = Counter(grams), 0, 0
  for i, gram in enumerate(grams):
    if counts[gram] > 1:
      chars += sum(map(len, words[max(i, covered) : i + n]))
      covered = i + n
  return chars / max(sum(map(len, words)), 1)


def gopher_repetition(
  text: str,
  *,
  max_line_share: float | None = 0.30,
  max_paragraph_share: float | None = 0.30,
  max_line_char_share: float | None = 0.20,
  max_paragraph_char_share: float | None = 0.20,
  top_ngrams: float | None = 1.0,
  duplicate_ngrams: float | None = 1.0,
) -> Verdict:
  """Gopher's repetition rules (Rae et al. 2021, arXiv 2112.11446, table A1); None switches a rule off.

  Args:
    text: a document.
    max_line_share, max_paragraph_share: most lines/paragraphs that repeat an earlier one, of all.
    max_line_char_share, max_paragraph_char_share: most characters in those, of all.
    top_ngrams: factor on the published limits for the most frequent 2-, 3- and 4-gram (.20, .18, .16).
    duplicate_ngrams: factor on those for characters in repeated 5- to 10-grams (.15 down to .10).
  """
  for parts, kind, limit, char_limit in (
    ([p.strip() for p in re.split(r'\n\s*\n', text)], 'paragraph', max_paragraph_share, max_paragraph_char_share),
    ([line.strip() for line in text.split('\n')], 'line', max_line_share, max_line_char_share),
  ):
    parts = [part for part in parts if part]
    share, chars = _repeats(parts)
    verdict = _over(f'gopher_duplicate_{kind}s', share, limit, f'share of repeated {kind}s') or _over(
      f'gopher_duplicate_{kind}_chars', chars / max(len(text), 1), char_limit, f'characters in repeated {kind}s'
    )
    if verdict:
      return verdict
  words = text.split()
  for limits, factor, share_of, name in (
    (TOP_NGRAMS, top_ngrams, top_ngram_share, 'gopher_top_{}gram'),
    (DUPLICATE_NGRAMS, duplicate_ngrams, duplicate_ngram_share, 'gopher_duplicate_{}grams'),
  ):
    for n, limit in limits.items() if factor is not None else ():
      verdict = _over(name.format(n), share_of(words, n), limit * factor, f'character share of {n}-grams')
      if verdict:
        return verdict
  return None


def gopher_quality(
  text: str,
  *,
  min_words: int | None = 50,
  max_words: int | None = 100_000,
  min_word_length: float | None = 3,
  max_word_length: float | None = 10,
  max_symbols_per_word: float | None = 0.1,
  max_bullet_lines: float | None = 0.9,
  max_ellipsis_lines: float | None = 0.3,
  min_alphabetic_words: float | None = 0.8,
  min_stop_words: int | None = 2,
) -> Verdict:
  """Gopher's quality rules (Rae et al. 2021, arXiv 2112.11446, appendix A.1.1); None switches a rule off.

  Args:
    text: a document.
    min_words, max_words: bounds on the number of words.
    min_word_length, max_word_length: bounds on their mean length in characters.
    max_symbols_per_word: most '#', and most ellipses, for each word.
    max_bullet_lines, max_ellipsis_lines: largest shares of lines that begin with a bullet, or end in an ellipsis.
    min_alphabetic_words: smallest share of words with a letter in them.
    min_stop_words: how many of {the, be, to, of, and, that, have, with} must occur.
  """
  words = text.split()
  lines = [line.strip() for line in text.split('\n') if line.strip()]
  if not words:
    return ('gopher_words', 'no word')
  ellipses = sum(text.count(mark) for mark in ELLIPSES)
  stops = STOP_WORDS & {word.strip('.,;:!?()[]"\'').lower() for word in words}
  mean = sum(map(len, words)) / len(words)
  alphabetic = sum(any(map(str.isalpha, word)) for word in words) / len(words)
  bullets = sum(line.startswith(BULLETS) for line in lines) / len(lines)
  ends = sum(line.endswith(ELLIPSES) for line in lines) / len(lines)
  return (
    _under('gopher_words', len(words), min_words, 'words')
    or _over('gopher_words', len(words), max_words, 'words')
    or _under('gopher_word_length', mean, min_word_length, 'mean word length')
    or _over('gopher_word_length', mean, max_word_length, 'mean word length')
    or _over('gopher_symbols', text.count('#') / len(words), max_symbols_per_word, "'#' per word")
    or _over('gopher_symbols', ellipses / len(words), max_symbols_per_word, 'ellipses per word')
    or _over('gopher_bullets', bullets, max_bullet_lines, 'lines that begin with a bullet')
    or _over('gopher_ellipses', ends, max_ellipsis_lines, 'lines that end in an ellipsis')
    or _under('gopher_alphabetic', alphabetic, min_alphabetic_words, 'words with a letter')
    or _under('gopher_stop_words', len(stops), min_stop_words, 'different stop words')
  )


def fineweb(
  text: str,
  *,
  min_punctuated_lines: float | None = 0.12,
  max_short_lines: float | None = 0.67,
  short_line: int = 30,
  max_line_char_share: float | None = 0.1,
  max_lines_per_word: float | None = 0.3,
) -> Verdict:
  """FineWeb's own rules (Penedo et al. 2024, arXiv 2406.17557, section 3.6); None switches a rule off.

  Args:
    text: a document.
    min_punctuated_lines: smallest share of lines that end in punctuation.
    max_short_lines: largest share of lines of at most `short_line` characters.
    short_line: characters.
    max_line_char_share: most characters in lines that repeat an earlier one (.1 in the paper; datatrove ships .01).
    max_lines_per_word: most line breaks for each word.
  """
  lines = [line for line in text.split('\n') if line.strip()]
  if not lines:
    return ('fineweb_punctuation', 'no line')
  punctuated = sum(line.rstrip().endswith(TERMINAL) for line in lines) / len(lines)
  short = sum(len(line) <= short_line for line in lines) / len(lines)
  repeated = _repeats(lines)[1] / sum(map(len, lines))
  breaks = text.count('\n') / max(len(text.split()), 1)
  return (
    _under('fineweb_punctuation', punctuated, min_punctuated_lines, 'lines that end in punctuation')
    or _over('fineweb_short_lines', short, max_short_lines, f'lines of at most {short_line} characters')
    or _over('fineweb_duplicate_lines', repeated, max_line_char_share, 'characters in repeated lines')
    or _over('fineweb_list', breaks, max_lines_per_word, 'line breaks per word')
  )
