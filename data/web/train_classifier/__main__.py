"""Training of the quality classifier of data/web/classifier.py on labelled pages.

    python -m data.web.train_classifier --input='labelled/*.jsonl' --out=FILE.bin [--threshold=2.5
    --held-out=.1 ...]

Input: {"text": ..., "score": ...} a line, of *.jsonl or *.jsonl.gz; any path that fsspec knows. A
  score is a number from 0
to 5, taken as the nearest integer: FineWeb-Edu's scale of educational value (Penedo et al. 2024,
arXiv 2406.17557, section 4), or 0 and 1 for pages to be told from others, as DCLM does (Li et al.
2024, arXiv 2406.11794). Texts should be what the web pipeline's other steps leave of pages. They
are held in memory, about 10 kB each.

The last line printed is JSON with what was measured on the rows held out, by the hash of their
text: copies stay on one side. On one machine the same rows, options and seed give the same file.
"""

import argparse
import json
from collections.abc import Sequence

from data.web import classifier_training
from data.web.classifier import Classifier
from lm.base import errors
from lm.base.errors import UserError


def main(argv: Sequence[str] | None = None) -> None:
  parser = argparse.ArgumentParser(
    prog='python -m data.web.train_classifier', description='Trains a quality classifier.'
  )
  parser.add_argument(
    '--input',
    required=True,
    help='glob patterns of JSONL files with "text" and "score", between commas',
  )
  parser.add_argument('--out', required=True, help='file to write')
  parser.add_argument('--dim', type=int, default=16, help='numbers in the vector of a word (16)')
  parser.add_argument(
    '--epochs', type=int, default=10, help='times that the texts are gone through (10)'
  )
  parser.add_argument(
    '--lr', type=float, default=0.5, help='learning rate at the start; it falls to 0 (0.5)'
  )
  parser.add_argument('--ngrams', type=int, default=2, help='the longest n-grams of words')
  parser.add_argument(
    '--buckets', type=int, default=1 << 18, help='rows for n-grams, of 4 x dim bytes in the file'
  )
  parser.add_argument(
    '--seed', type=int, default=0, help='of the split, the first vectors and the order (0)'
  )
  parser.add_argument(
    '--held-out', type=float, default=0.1, help='share of the texts to measure on'
  )
  parser.add_argument(
    '--threshold',
    type=float,
    default=2.5,
    help='least score of a page to be kept, to measure F1 at',
  )
  options = vars(parser.parse_args(argv))
  globs, out, held_out, threshold = (
    options.pop(name) for name in ('input', 'out', 'held_out', 'threshold')
  )
  if not 0 <= held_out < 1:
    raise UserError(f'--held-out={held_out:g} must be at least 0 and less than 1')
  rows = classifier_training.read([glob.strip() for glob in globs.split(',')])
  aside = [row for row in rows if classifier_training.is_held_out(row.text, held_out)]
  learned = [row for row in rows if not classifier_training.is_held_out(row.text, held_out)]
  if not learned or (held_out and not aside):
    raise UserError(
      f'{len(learned)} texts to learn from and {len(aside)} held out: give more, or --held-out=0'
    )
  classifier_training.train(learned, out, **options)
  report = {'learned_from': len(learned)} | (
    classifier_training.measure(Classifier(out), aside, threshold) if aside else {}
  )
  print(
    json.dumps(
      {
        name: round(value, 4) if isinstance(value, float) else value
        for name, value in report.items()
      }
    )
  )


if __name__ == '__main__':
  errors.run(main)
