"""Our words and rules beside datatrove's, decision by decision, on the same texts: what differs has
a stated cause.
"""

import functools
import importlib
import inspect

import pytest
from datatrove.data import Document
from datatrove.pipeline.filters import (
  C4QualityFilter,
  FineWebQualityFilter,
  GopherQualityFilter,
  GopherRepetitionFilter,
)
from datatrove.pipeline.formatters.pii import PIIFormatter
from datatrove.utils.text import split_into_sentences, split_into_words
from refusals import refused

from configs.data import fineweb
from data.web import rules, words
from data.web.personal import EMAIL, IP_ADDRESS, hide

MODULES = """argparse ast asyncio base64 bisect calendar cmd collections concurrent.futures contextlib csv ctypes dataclasses
datetime decimal difflib dis doctest email enum fractions functools gettext gzip heapq html http.client imaplib inspect io
ipaddress itertools json locale logging math mimetypes multiprocessing optparse os pathlib pickle pprint queue random re
sched shelve shlex shutil smtplib socket sqlite3 statistics string struct subprocess symtable tarfile tempfile textwrap
threading timeit tokenize trace traceback typing unicodedata unittest urllib.request uuid weakref xml.dom zipfile"""


@pytest.fixture(scope='module')
def texts():
  """Docstrings of the standard library, of 300 characters or more."""
  found = {}
  for name in MODULES.split():
    module = importlib.import_module(name)
    for thing in (module, *vars(module).values()):
      text = (
        inspect.getdoc(thing)
        if inspect.ismodule(thing) or inspect.isclass(thing) or inspect.isfunction(thing)
        else ''
      )
      if text and len(text) >= 300:
        found[text] = None
  assert len(found) > 300
  return list(found)[:500]


def differences(texts, theirs, ours):
  """(text, their reason or None, our verdict or None) where one drops what the other keeps; both
  must do each often.
  """
  found, dropped = [], 0
  for text in texts:
    verdict, answer = rules.first_failure(ours(text)), theirs.filter(Document(text, ''))
    dropped += verdict is not None
    if (answer is True) != (verdict is None):
      found.append((text, None if answer is True else answer[1], verdict))
  assert 20 < dropped < len(texts) - 20
  return found


@pytest.mark.slow
def test_words_are_the_same(texts):
  odd = [
    "I can't, won't; it's e.g. 3km/h (U.S.)... “Dr. O'Neil's” a-b—c x=y 10-20 http://a.b/c?d=e.",
    'cannot 東京\u3000了',
  ]
  for text in (*texts[:200], *odd, *odd):
    assert words.split(text, 'spacy') == split_into_words(text)
  assert words.split("I can't,\n really.", 'whitespace') == ['I', "can't,", 'really.']
  with refused('words', 'space', tuple(words.WORDS)):
    words.split('a', 'space')


def test_words_are_the_same_after_they_were_forgotten(texts, monkeypatch):
  monkeypatch.setattr(words, '_KEPT', 50)
  monkeypatch.setattr(words, '_words', {})
  for text in texts[200:210]:
    assert words.split(text, 'spacy') == split_into_words(text)
  assert len(words._words) < 50 + max(len(text.split()) for text in texts[200:210])


@pytest.mark.slow
def test_rules_of_words_are_the_same(texts):
  assert differences(texts, FineWebQualityFilter(char_duplicates_ratio=0.1), rules.fineweb) == []
  assert differences(texts, GopherQualityFilter(), rules.gopher_quality) == []
  assert differences(texts, GopherRepetitionFilter(), rules.gopher_repetition) == []
  ours = fineweb.get_config().fineweb
  theirs = inspect.signature(FineWebQualityFilter).parameters
  names = {'line_punct_thr': 'min_punctuated_lines', 'short_line_thr': 'max_short_lines', 'short_line_length': 'short_line',
           'new_line_ratio': 'max_lines_per_word'}  # fmt: skip
  assert {theirs[name].default: ours[own] for name, own in names.items()} == {
    0.12: 0.12,
    0.67: 0.67,
    30: 30,
    0.3: 0.3,
  }


@pytest.mark.slow
def test_words_of_whitespace_make_the_rules_milder_on_reference_text(texts):
  """Marks count as words without a letter for spaCy, so min_alphabetic_words drops what whitespace
  keeps.
  """
  found = differences(
    texts, GopherQualityFilter(), functools.partial(rules.gopher_quality, words='whitespace')
  )
  assert {theirs for _, theirs, ours in found if not ours} <= {
    'gopher_below_alpha_threshold',
    'gopher_short_doc',
  }
  assert sum(theirs == 'gopher_below_alpha_threshold' for _, theirs, _ in found) > 0.3 * len(texts)


@pytest.mark.slow
def test_c4_cuts_the_same_lines_and_differs_where_sentences_end(texts):
  """Theirs split sentences by spaCy, ours after . ! ? and a space; and theirs strip each line, ours
  keep indentation.
  """
  config = fineweb.get_config()
  theirs, agreed = C4QualityFilter(filter_no_terminal_punct=False), 0
  for text in texts:
    document = Document(text, '')
    answer, left = theirs.filter(document), rules.c4_lines(text, **config.c4_lines)
    verdict = rules.first_failure(rules.c4(left, **config.c4))
    if answer is True and not verdict:
      assert [line.strip() for line in left.split('\n')] == document.text.split('\n')
    if (answer is True) == (verdict is None):
      agreed += 1
      continue
    assert verdict[0] == 'c4_sentences' if verdict else answer[1] == 'too_few_sentences'
    counts = [sum(len(split_into_sentences(line)) for line in left.split('\n'))]
    assert rules.first_failure(rules.c4(left, min_sentences=max(1, counts[0] - 2))) is None
  assert agreed > 0.99 * len(texts)


@pytest.mark.parametrize(
  ('text', 'left'),
  [
    ('Ask jane@some.org or <j.doe+x@a-b.co.uk>.', f'Ask {EMAIL} or <{EMAIL}>.'),
    (
      'From 8.8.8.8, 93.184.216.34:80 and 1.1.1.1.',
      f'From {IP_ADDRESS}, {IP_ADDRESS}:80 and {IP_ADDRESS}.',
    ),
    ('At 192.168.0.1 or 127.0.0.1', 'At 192.168.0.1 or 127.0.0.1'),
  ],
)
def test_personal_data_goes_where_theirs_goes(text, left):
  assert (
    hide(text)
    == left
    == PIIFormatter(email_replacement=EMAIL, ip_replacement=IP_ADDRESS).format(text)
  )


@pytest.mark.parametrize(
  'text', ['object 1.3.6.1.5.5.7.3.2', 'release-v8.8.8.80', '8.8.8.8765', '999.1.1.1']
)
def test_longer_numbers_are_no_addresses(text):
  assert hide(text) == text != PIIFormatter().format(text)
