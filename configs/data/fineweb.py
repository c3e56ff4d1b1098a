"""Web pages to clean documents by the recipe of FineWeb (Penedo et al. 2024, arXiv 2406.17557),
every threshold by name.

Command:   python -m data.web --config=configs/data/fineweb.py --input='*.warc.gz' --out=DIR
           [--executor=local|ray|slurm --tasks=N --workers=N]; the same command goes on after a
           kill.
Hardware:  any; a gigabyte of memory a worker (the block lists), two cores or a thousand machines.
Time:      806 reference pages, 27 MB, on one core: 28 s, 22 of them extraction; 10 s with --config.extractor=resiliparse,
           45 s with trafilatura. `python -m data.bench clean` measures it beside datatrove's own
           blocks.
:smoke     without the block lists, and small texts may pass: for a first look at a small WARC file.
"""

from ml_collections import ConfigDict

from lm.base.config import variant


def get_config(arg=None):
  c = ConfigDict()
  c.url_lists = True  # drop pages by the lists of domains, URLs and words that datatrove carries
  # so many words of the soft list in a URL drop the page; one of the hard list does
  c.url_soft_words = 2
  # Measured on 86 real pages of known text beside trafilatura 1.11 (datatrove's pin; F1 of word
  # 4-grams .921), by `python -m data.bench extract`. trafilatura: 1.8 times its speed, F1 .931.
  # trafilatura_fast, that is its fast mode and resiliparse where that misses the article: 2.3
  # times, .935. resiliparse: 12 times, .893 (precision .87, recall .92).
  c.extractor = 'trafilatura_fast'  # trafilatura | trafilatura_fast | resiliparse
  c.max_page_bytes = 10_000_000  # of a page's HTML, packed and unpacked; a larger page is dropped
  # of processor time that a step may spend on a page; over it the page is dropped; 0: no limit
  c.step_seconds = 60.0
  c.languages = ConfigDict({'en': 0.65})  # languages to keep, by code, each with the least score
  # runs of this many lines that stood in another page of the task before are cut; 0: none
  c.passage_lines = 0
  c.max_passage_share = 0.9  # drop pages that lose more than this share of their characters so

  # what the rules count: spacy (marks of punctuation too, as in FineWeb's run) | whitespace
  # (Gopher's paper)
  c.words = 'spacy'

  # The thresholds of the rules in data/web/rules.py, by its parameters; None switches one off.
  c.gopher_repetition = ConfigDict()  # Gopher (Rae et al. 2021, arXiv 2112.11446, table A1)
  c.gopher_repetition.max_line_share = 0.30  # lines that repeat an earlier one, of all
  c.gopher_repetition.max_paragraph_share = 0.30
  c.gopher_repetition.max_line_char_share = 0.20  # characters in those lines, of all
  c.gopher_repetition.max_paragraph_char_share = 0.20
  # the most frequent 2-, 3-, 4-gram; (): off
  c.gopher_repetition.max_top_ngram_char_share = (0.20, 0.18, 0.16)
  # repeated 5- to 10-grams
  c.gopher_repetition.max_duplicate_ngram_char_share = (0.15, 0.14, 0.13, 0.12, 0.11, 0.10)

  c.gopher_quality = ConfigDict()  # the same, appendix A.1.1
  c.gopher_quality.min_words = 50
  c.gopher_quality.max_words = 100_000
  c.gopher_quality.min_word_length = 3.0  # characters, mean
  c.gopher_quality.max_word_length = 10.0
  c.gopher_quality.max_symbols_per_word = 0.1  # '#', and ellipses
  c.gopher_quality.max_bullet_lines = 0.9
  c.gopher_quality.max_ellipsis_lines = 0.3
  c.gopher_quality.min_alphabetic_words = 0.8
  c.gopher_quality.min_stop_words = 2  # different ones of {the, be, to, of, and, that, have, with}

  # lines that C4 cuts (Raffel et al. 2020, arXiv 1910.10683), terminal punctuation aside
  c.c4_lines = ConfigDict()
  c.c4_lines.min_line_words = 3  # 0: off
  c.c4_lines.max_word_chars = 1000  # 0: off
  c.c4_lines.lines_with = (
    'javascript',
    'terms of use',
    'privacy policy',
    'cookie policy',
    'uses cookies',
    'use of cookies',
    'use cookies',
  )  # lower case
  c.c4_lines.strip_citations = True  # [1], [edit], [citation needed]
  c.c4 = ConfigDict()  # pages that C4 drops
  c.c4.min_sentences = 5
  c.c4.max_curly_brackets = 0  # '{'
  c.c4.max_lorem_ipsum = 0

  c.fineweb = ConfigDict()  # FineWeb, section 3.6
  c.fineweb.min_punctuated_lines = 0.12  # lines that end in punctuation
  c.fineweb.max_short_lines = 0.67
  c.fineweb.short_line = 30  # characters
  # characters in repeated lines: .1 in the paper; datatrove's block ships .01
  c.fineweb.max_line_char_share = 0.1
  c.fineweb.max_lines_per_word = 0.3

  # a classifier in fastText's format: python -m data.web.train_classifier, or a published one
  c.quality = ConfigDict()
  c.quality.model = ''  # file; '': off
  # whose probability is the score (DCLM's: hq); '': labels are numbers, and their mean is the score
  c.quality.label = ''
  # FineWeb-Edu keeps what rounds to 3 of 5; DCLM the best tenth: see the histogram of a run with
  # 0.0
  c.quality.min_score = 2.5

  # files of evaluation items (.jsonl, .txt, also with .gz), globs between commas; '': off
  c.decontaminate = ''
  # words in a row, in any case and punctuation, that a dropped page shares with an item
  c.decontaminate_ngram = 13
  # a text of so many to 12 words drops a page that has all of it; shorter ones drop none
  c.decontaminate_min_words = 8

  # near-duplicates: candidates at Jaccard s with probability 1 - (1 - s^rows)^bands
  c.minhash = ConfigDict()
  c.minhash.bands = 14  # 0: exact duplicates only
  c.minhash.rows = 8  # hashes in a band
  c.minhash.ngram = 5  # words in a shingle
  # documents of this Jaccard similarity or more share metadata.cluster; in one process; 0: off
  c.cluster_similarity = 0.0

  # e-mail and public IPv4 addresses give way to reserved ones: in texts, titles, URLs and the
  # record
  c.pii = True

  c.memory_gb = 4  # of a worker; asked of Ray and of Slurm
  c.ray_address = 'auto'  # of the cluster; auto: the one that `ray start` started on this machine
  c.slurm = ConfigDict()
  c.slurm.partition = ''
  c.slurm.time = '24:00:00'  # limit of a task
  # shell command before each task; '': the folder of this Python comes first in PATH
  c.slurm.setup = ''

  if variant(arg) == 'smoke':
    c.url_lists = False
    c.gopher_quality.min_words = 20
    c.c4.min_sentences = 1
  return c
