"""Trains the quality classifier of data/web/classifier.py on labelled pages.

  python -m data.web.train_classifier --input='labelled/*.jsonl' --out=FILE.bin

The input is {"text": ..., "score": ...} on each line of *.jsonl or *.jsonl.gz files, local or
remote. A score is a number from 0 to 5 (see classifier_training.py). Texts should be what the other
steps of the web pipeline leave of pages. They are held in memory, about 10 kB each.

The last line printed is JSON with what was measured on the rows that were held out. Rows are held
out by the hash of their text, so that copies stay on one side.
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
    help='glob patterns of JSONL files with "text" and "score", separated by commas',
  )
  parser.add_argument('--out', required=True, help='file to write')
  parser.add_argument('--dim', type=int, default=16, help='width of a word embedding (%(default)s)')
  parser.add_argument('--epochs', type=int, default=10, help='passes over the texts (%(default)s)')
  parser.add_argument(
    '--lr', type=float, default=0.5, help='learning rate at the start; it falls to 0 (%(default)s)'
  )
  parser.add_argument(
    '--ngrams', type=int, default=2, help='length of the longest n-grams of words (%(default)s)'
  )
  parser.add_argument(
    '--buckets',
    type=int,
    default=1 << 18,
    help='number of n-gram embeddings, each 4 x dim bytes in the file (%(default)s)',
  )
  parser.add_argument(
    '--seed', type=int, default=0, help='seed of the initial weights and of the order (%(default)s)'
  )
  parser.add_argument(
    '--held-out', type=float, default=0.1, help='fraction of the texts to measure on (%(default)s)'
  )
  parser.add_argument(
    '--threshold',
    type=float,
    default=2.5,
    help='score from which a page is kept, at which F1 is measured (%(default)s)',
  )
  options = vars(parser.parse_args(argv))
  globs, out = options.pop('input'), options.pop('out')
  held_out, threshold = options.pop('held_out'), options.pop('threshold')
  if not 0 <= held_out < 1:
    raise UserError(field='--held-out', value=held_out, allowed='at least 0 and below 1')
  rows = classifier_training.read([glob.strip() for glob in globs.split(',')])
  aside = [row for row in rows if classifier_training.is_held_out(row.text, held_out)]
  learned = [row for row in rows if not classifier_training.is_held_out(row.text, held_out)]
  if not learned or (held_out and not aside):
    raise UserError(
      field='--held-out',
      value=held_out,
      allowed='a fraction that leaves texts on both sides, or 0',
      message=f'It leaves {len(learned)} texts to learn from and {len(aside)} held out.',
    )
  classifier_training.train(learned, out, **options)
  report = {'learned_from': len(learned)}
  if aside:
    report |= classifier_training.measure(Classifier(out), aside, threshold)
  for name, value in report.items():
    if isinstance(value, float):
      report[name] = round(value, 4)
  print(json.dumps(report))


if __name__ == '__main__':
  errors.run(main)
