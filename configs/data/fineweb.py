"""Cleans web pages by FineWeb's recipe (Penedo et al. 2024, arXiv 2406.17557), with all thresholds.

Command:   python -m data.web --config=configs/data/fineweb.py --input='*.warc.gz' --out=DIR
             [--executor=local|ray|slurm --tasks=N --workers=N]
           The same command continues a killed run.
Hardware:  any: two cores or a thousand machines, with one gigabyte of memory per worker for the
           URL lists.
Result:    DIR/documents*.jsonl*, DIR/report.html, DIR/report.json and DIR/pages
(data/web/README.md).
Time:      28 s for 806 reference pages, 27 MB, on one core, of which extraction takes 22; 10 s with
           --config.extractor=resiliparse, 45 s with trafilatura. `python -m data.bench clean`
           measures it beside datatrove's own blocks.
:smoke     without the URL lists, and with lower limits for short texts, for a small WARC file.
"""

from ml_collections import ConfigDict

from lm.base.config import variant


def get_config(arg=None):
  c = ConfigDict()
  c.url_lists = True  # drop pages by datatrove's lists of domains, URLs and words
  # Words of the soft list in a URL that drop the page; one word of the hard list suffices.
  c.url_soft_words = 2
  # How text is extracted: trafilatura | trafilatura_fast | resiliparse. trafilatura_fast is
  # trafilatura's fast mode, and resiliparse where that misses the article.
  # `python -m data.bench extract` measured them on 86 real pages of known text, beside trafilatura
  # 1.11 (datatrove's pin; F1 of word 4-grams 0.921): trafilatura has 1.8 times its speed and F1
  # 0.931; trafilatura_fast 2.3 times and 0.935; resiliparse 12 times and 0.893 (precision 0.87,
  # recall 0.92).
  c.extractor = 'trafilatura_fast'
  c.max_page_bytes = 10_000_000  # largest page, compressed and decompressed; larger are dropped
  # Processor time that a step may spend on a page before the page is dropped, s; 0: no limit.
  c.step_seconds = 60.0
  c.languages = ConfigDict({'en': 0.65})  # languages to keep, by code, with their minimum scores
  # Remove runs of this many lines that another page of the task has, too; 0: off.
  c.passage_lines = 0
  c.max_passage_share = 0.9  # drop pages that lose more than this fraction of their characters so

  # What the rules count as words: spacy (also punctuation marks, as in FineWeb's run) | whitespace
  # (as in Gopher's paper).
  c.words = 'spacy'

  # Thresholds of the rules in data/web/rules.py, named as the rules' parameters; None: off.
  # Gopher's repetition rules (Rae et al. 2021, arXiv 2112.11446, table A1).
  c.gopher_repetition = ConfigDict()
  c.gopher_repetition.max_line_share = 0.30  # fraction of lines that repeat an earlier one
  c.gopher_repetition.max_paragraph_share = 0.30
  c.gopher_repetition.max_line_char_share = 0.20  # fraction of characters in those lines
  c.gopher_repetition.max_paragraph_char_share = 0.20
  # Fraction of characters in the most frequent 2-, 3- and 4-gram; (): off.
  c.gopher_repetition.max_top_ngram_char_share = (0.20, 0.18, 0.16)
  # Fraction of characters in repeated 5- to 10-grams; (): off.
  c.gopher_repetition.max_duplicate_ngram_char_share = (0.15, 0.14, 0.13, 0.12, 0.11, 0.10)

  # Gopher's quality rules (the same paper, appendix A.1.1).
  c.gopher_quality = ConfigDict()
  c.gopher_quality.min_words = 50
  c.gopher_quality.max_words = 100_000
  c.gopher_quality.min_word_length = 3.0  # mean, in characters
  c.gopher_quality.max_word_length = 10.0
  c.gopher_quality.max_symbols_per_word = 0.1  # '#' per word, and ellipses per word
  c.gopher_quality.max_bullet_lines = 0.9  # fraction of lines that begin with a bullet
  c.gopher_quality.max_ellipsis_lines = 0.3  # fraction of lines that end in an ellipsis
  c.gopher_quality.min_alphabetic_words = 0.8  # fraction of words that contain a letter
  c.gopher_quality.min_stop_words = 2  # how many of {the, be, to, of, and, that, have, with}

  # Lines that C4 removes (Raffel et al. 2020, arXiv 1910.10683), except for its rule on the
  # punctuation that ends a line.
  c.c4_lines = ConfigDict()
  c.c4_lines.min_line_words = 3  # remove lines with fewer words; 0: off
  c.c4_lines.max_word_chars = 1000  # remove lines with a longer word; 0: off
  # Remove lines that contain one of these lower-case phrases in any case.
  c.c4_lines.lines_with = (
    'javascript',
    'terms of use',
    'privacy policy',
    'cookie policy',
    'uses cookies',
    'use of cookies',
    'use cookies',
  )
  c.c4_lines.strip_citations = True  # remove [1], [edit] and [citation needed]
  # Pages that C4 drops.
  c.c4 = ConfigDict()
  c.c4.min_sentences = 5
  c.c4.max_curly_brackets = 0  # occurrences of '{'
  c.c4.max_lorem_ipsum = 0  # occurrences of 'lorem ipsum'

  # FineWeb's own rules (section 3.6).
  c.fineweb = ConfigDict()
  c.fineweb.min_punctuated_lines = 0.12  # fraction of lines that end in punctuation
  c.fineweb.max_short_lines = 0.67  # fraction of lines of at most short_line characters
  c.fineweb.short_line = 30  # characters
  # Fraction of characters in repeated lines: 0.1 in the paper; datatrove's block has 0.01.
  c.fineweb.max_line_char_share = 0.1
  c.fineweb.max_lines_per_word = 0.3  # line breaks per word

  # A classifier in fastText's format: one of data.web.train_classifier, or a published one.
  c.quality = ConfigDict()
  c.quality.model = ''  # file; '': off
  # Label whose probability is the score (hq for DCLM's). '': labels are numbers, and the score is
  # their mean.
  c.quality.label = ''
  # FineWeb-Edu keeps scores that round to 3 of 5 or more. DCLM keeps the best tenth; the histogram
  # of a run with 0.0 shows where that begins.
  c.quality.min_score = 2.5

  # Files of evaluation items (.jsonl or .txt, also with .gz): globs separated by commas; '': off.
  c.decontaminate = ''
  # A page that shares this many consecutive words with an item is dropped, whatever the case and
  # punctuation.
  c.decontaminate_ngram = 13
  # A shorter text of at least this many words drops a page that contains all of it.
  c.decontaminate_min_words = 8

  # Near-duplicates: pages of Jaccard similarity s are candidates with probability
  # 1 - (1 - s^rows)^bands.
  c.minhash = ConfigDict()
  c.minhash.bands = 14  # 0: exact duplicates only
  c.minhash.rows = 8  # hashes in a band
  c.minhash.ngram = 5  # words in a shingle
  # Documents of at least this Jaccard similarity have the same metadata.cluster, computed in one
  # process; 0: off.
  c.cluster_similarity = 0.0

  # Replace e-mail and public IPv4 addresses by reserved ones in texts, titles, URLs and the record.
  c.pii = True

  c.memory_gb = 4  # memory of a worker, requested of Ray and Slurm
  c.ray_address = 'auto'  # address of the Ray cluster; auto: one that runs on this machine
  c.slurm = ConfigDict()
  c.slurm.partition = ''  # name of the partition
  c.slurm.time = '24:00:00'  # time limit of a task
  # Shell command before each task; '': put the folder of this Python first in PATH.
  c.slurm.setup = ''

  if variant(arg) == 'smoke':
    c.url_lists = False
    c.gopher_quality.min_words = 20
    c.c4.min_sentences = 1
  return c
