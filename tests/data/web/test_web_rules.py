"""Quality rules against their published definitions, computed another way."""

import inspect
import math
import random

import pytest
from datatrove.pipeline.filters.gopher_repetition_filter import (
  find_all_duplicate,
  find_top_duplicate,
  get_n_grams,
)

from configs.data import fineweb as fineweb_config
from data.web import rules
from data.web.rules import first_failure

SENTENCES = [
  'The old keeper of the harbour wrote a long letter to his daughter in the city.',
  'Every morning she walked past the mill and counted the barges that came down the river.',
  'Nobody in the village could remember when the bridge had last been painted green.',
  'A careful reader will notice that the second chapter contradicts the first.',
  'When winter arrives early, farmers bring their sheep down from the high meadows.',
  'He learned to repair clocks from an uncle who rarely spoke but always smiled.',
]
GOOD = '\n'.join(SENTENCES)
UNMARKED = 'This line has no mark at its end'


def random_words(seed, letters, length):
  rng = random.Random(seed)
  # no two joined are another two
  return [rng.choice(letters) + 'xyz'[: rng.randint(0, 3)] for _ in range(length)]


@pytest.mark.parametrize('n', [2, 3, 4, 5, 7, 10])
@pytest.mark.parametrize('letters', ['a', 'abcdefgh'])
def test_ngrams_are_measured_as_by_datatrove(n, letters):
  for seed in range(20):
    words = random_words(seed, letters, 10 * seed)
    counted, grams = rules.Words(words), get_n_grams(words, n)
    assert counted.top_ngram(n) == (find_top_duplicate(grams) if grams else 0)
    assert counted.repeated_ngrams(n) == find_all_duplicate(words, n)


def test_a_good_page_passes_every_rule():
  for rule in (rules.gopher_repetition, rules.gopher_quality, rules.c4, rules.fineweb):
    assert first_failure(rule(GOOD)) is None


# Each pair stands on the two sides of one threshold: the first text is kept by the rule, the second
# dropped.
FILLER = 'the of ' + 'word ' * 47
PLAIN = 'the of three seven eight eleven\n'
PAIRS = [
  ('gopher_words', FILLER + 'last', FILLER),
  ('gopher_words', FILLER * 2040, FILLER * 2041),
  ('gopher_word_length', 'of the ' * 20 + 'four ' * 20, 'of the ' * 20 + 'two ' * 20),
  ('gopher_word_length', 'the of ' + 'abcdefghij ' * 60, 'the of ' + 'abcdefghijk ' * 60),
  ('gopher_symbols', FILLER * 2 + '# ' * 10, FILLER * 2 + '# ' * 12),
  ('gopher_symbols', FILLER * 2 + '... ' * 10 + 'end', FILLER * 2 + '… ' * 12),
  ('gopher_bullets', '- the of one two three four\n' * 9 + 'word ' * 10, '• the of one two three '
                                                                         'four\n' * 10),
  ('gopher_ellipses', 'the of seven...\n' * 3 + PLAIN * 7, 'the of seven...\n' * 4 + PLAIN * 8),
  ('gopher_alphabetic', FILLER * 2 + '123 ' * 24, FILLER * 2 + '123 ' * 26),
  ('gopher_stop_words', 'the and ' + 'word ' * 60, 'the the ' + 'word ' * 60),
]  # fmt: skip


@pytest.mark.parametrize(('rule', 'kept', 'dropped'), PAIRS)
def test_gopher_quality_thresholds(rule, kept, dropped):
  assert first_failure(rules.gopher_quality(kept)) is None
  assert first_failure(rules.gopher_quality(dropped))[0] == rule
  assert first_failure(rules.gopher_quality(dropped, **dict.fromkeys(THRESHOLD[rule]))) is None


THRESHOLD = {
  'gopher_words': ('min_words', 'max_words'),
  'gopher_word_length': ('min_word_length', 'max_word_length'),
  'gopher_symbols': ('max_symbols_per_word', 'max_ellipsis_lines', 'min_alphabetic_words'),
  'gopher_bullets': ('max_bullet_lines',),
  'gopher_ellipses': ('max_ellipsis_lines', 'max_symbols_per_word'),
  'gopher_alphabetic': ('min_alphabetic_words',),
  'gopher_stop_words': ('min_stop_words',),
}


def lines(unique, repeated, text='{} is a line of its own number'):
  return [text.format(chr(97 + i) * 12) for i in range(unique)] + ['again the same'] * repeated


@pytest.mark.parametrize(
  ('rule', 'kept', 'dropped'),
  [
    # Of r + 1 lines alike r repeat: 3 of 10 are kept, 3 of 9 are not.
    ('gopher_duplicate_lines', '\n'.join(lines(6, 4)), '\n'.join(lines(5, 4))),
    ('gopher_duplicate_paragraphs', '\n\n'.join(lines(6, 4)), '\n\n'.join(lines(5, 4))),
    ('gopher_duplicate_line_chars', 'a' * 61 + ('\n' + 'b' * 19) * 2, 'a' * 55 + ('\n' + 'b' * 20) * 2),
    ('gopher_duplicate_paragraph_chars', 'a' * 60 + ('\n\n' + 'b' * 19) * 2, 'a' * 54 + ('\n\n' + 'b' * 20) * 2),
    ('gopher_top_2gram', 'ab cd ' + 'x' * 20 + ' ab cd ' + 'y' * 20, 'ab cd ' + 'x' * 15 + ' ab cd ' + 'y' * 15),
  ],
)  # fmt: skip
def test_gopher_repetition_thresholds(rule, kept, dropped):
  only = set(inspect.signature(rules.gopher_repetition).parameters) - {'text', 'words'}
  own = {
    'gopher_duplicate_lines': 'max_line_share',
    'gopher_duplicate_paragraphs': 'max_paragraph_share',
    'gopher_duplicate_line_chars': 'max_line_char_share',
    'gopher_duplicate_paragraph_chars': 'max_paragraph_char_share',
    'gopher_top_2gram': 'max_top_ngram_char_share',
  }[rule]
  off = {name: () if 'ngram' in name else None for name in only - {own}}
  off |= {own: (0.20,)} if 'ngram' in own else {}
  assert first_failure(rules.gopher_repetition(kept, **off)) is None
  assert first_failure(rules.gopher_repetition(dropped, **off))[0] == rule
  assert (
    first_failure(rules.gopher_repetition(dropped, **off | {own: () if 'ngram' in own else None}))
    is None
  )


@pytest.mark.parametrize('n', range(5, 11))
def test_repeated_5_to_10_grams_have_a_limit_each(n):
  passage = ['one', 'and', 'two', 'yet', 'three', 'or', 'four', 'nor', 'five', 'but'][:n]
  text = ' '.join([*(f'{chr(97 + i)}{i}' for i in range(12)), *passage, 'mid', *passage])
  share = sum(map(len, passage)) / len(text)
  for limit, rule in ((share - 0.001, f'gopher_duplicate_{n}grams'), (share + 0.001, None)):
    limits = [limit if k == n else 1 for k in range(5, 11)]
    found = first_failure(
      rules.gopher_repetition(
        text, max_top_ngram_char_share=(), max_duplicate_ngram_char_share=limits
      )
    )
    assert (found[0] if found else None) == rule


@pytest.mark.parametrize(
  ('rule', 'kept', 'dropped'),
  [
    ('fineweb_punctuation', SENTENCES[:1] + [UNMARKED] * 7, SENTENCES[:1] + [UNMARKED] * 8),
    ('fineweb_short_lines', ['x y z.'] * 6 + SENTENCES[:4], ['x y z w v u t.'] * 7 + SENTENCES[:3]),
    ('fineweb_duplicate_lines', ['a' * 82, 'b' * 9, 'b' * 9], ['a' * 78, 'b' * 11, 'b' * 11]),
    ('fineweb_list', ['a b c.'] * 9 + ['a b c d.'], ['a b c.'] * 8 + ['a b.'] * 2),
  ],
)  # fmt: skip
def test_fineweb_thresholds(rule, kept, dropped):
  own = {
    'fineweb_punctuation': 'min_punctuated_lines',
    'fineweb_short_lines': 'max_short_lines',
    'fineweb_duplicate_lines': 'max_line_char_share',
    'fineweb_list': 'max_lines_per_word',
  }
  off = dict.fromkeys(name for other, name in own.items() if other != rule)
  assert first_failure(rules.fineweb('\n'.join(kept), **off)) is None
  assert first_failure(rules.fineweb('\n'.join(dropped), **off))[0] == rule
  assert first_failure(rules.fineweb('\n'.join(dropped), **off, **{own[rule]: None})) is None


C4_LINES = {'lines_with': ('javascript', 'use cookies')}


@pytest.mark.parametrize(
  ('line', 'left'),
  [
    ('One two', ''),
    ('One two three', 'One two three'),
    ('One two three[1] four[edit][citation needed]', 'One two three four'),
    ('Please enable JavaScript now', ''),
    ('We use  cookies here', 'We use  cookies here'),
    ('We Use Cookies here', ''),
    (f'One two {"x" * 1000}', f'One two {"x" * 1000}'),
    (f'One two {"x" * 1001}', ''),
  ],
)
def test_c4_cuts_lines(line, left):
  assert rules.c4_lines(line, **C4_LINES) == left
  assert (
    rules.c4_lines(f'{SENTENCES[0]}\n\n{line}', **C4_LINES) == f'{SENTENCES[0]}\n{left}'.strip()
  )
  off = {'min_line_words': 0, 'max_word_chars': 0, 'strip_citations': False}
  assert rules.c4_lines(f'{line}\n\nx', **off) == f'{line}\n\nx'


@pytest.mark.parametrize(
  ('rule', 'kept', 'dropped'),
  [
    (
      'c4_sentences',
      'One. "Two?" Three! Four... five.\nSix',
      'One. Two? Three! Version 1.2 is the last',
    ),
    ('c4_curly_bracket', GOOD, GOOD + '\n{ a }'),
    ('c4_lorem_ipsum', GOOD, GOOD + '\nLorem Ipsum dolor sit'),
  ],
)
def test_c4_thresholds(rule, kept, dropped):
  assert first_failure(rules.c4(kept)) is None
  assert first_failure(rules.c4(dropped))[0] == rule
  assert (
    first_failure(
      rules.c4(dropped, min_sentences=None, max_curly_brackets=None, max_lorem_ipsum=None)
    )
    is None
  )


def test_figures_are_noted_with_their_bounds_up_to_the_failing_one():
  figures = {}
  assert first_failure(rules.gopher_quality(GOOD, min_words=10), figures) is None
  assert figures['gopher_words: words'] == [len(GOOD.split()), 10, 100_000] and len(figures) == 8
  figures = {}
  assert first_failure(rules.gopher_quality('a ' * 50), figures) == (
    'gopher_word_length',
    'mean word length 1 < 3',
  )
  assert figures == {
    'gopher_words: words': [50, 50, 100_000],
    'gopher_word_length: mean word length': [1, 3, None],
  }


def test_empty_text_is_dropped_not_a_crash():
  assert first_failure(rules.gopher_repetition('')) is None
  assert first_failure(rules.gopher_quality(' \n '))[0] == 'gopher_words'
  assert first_failure(rules.c4(''))[0] == 'c4_sentences' and rules.c4_lines('') == ''
  assert first_failure(rules.fineweb('\n'))[0] == 'fineweb_punctuation'


def test_each_bound_names_the_config_field_that_sets_it():
  """The value at that field of configs/data/fineweb.py is the bound that is checked."""
  config = fineweb_config.get_config()
  words = ' '.join(f'word{i} the of and' for i in range(30)) + '.'
  text = '\n'.join([words] * 6)
  checks = [
    *rules.gopher_repetition(text, **config.gopher_repetition),
    *rules.gopher_quality(text, **config.gopher_quality),
    *rules.c4(text, **config.c4),
    *rules.fineweb(text, **config.fineweb),
  ]
  assert {check.rule for check in checks} == rules.FIELDS.keys() - {
    'language',
    'repeated_passages',
    'quality',
  }
  for check in checks:
    for bound, field in zip(
      (check.low, check.high), rules.config_fields(f'{check.rule}: {check.what}'), strict=True
    ):
      if field:
        section, name = field.split('.')
        allowed = config[section][name]
        sides = allowed if isinstance(allowed, tuple) else (allowed,)
        assert math.isinf(bound) or bound in sides, field
      else:
        assert math.isinf(bound) or check.what == 'lines', check
