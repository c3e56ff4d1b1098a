"""Trains and measures the quality classifier of data/web/classifier.py on labelled texts.

The score of a text is a number from 0 to 5, rounded to the nearest integer: FineWeb-Edu's scale of
educational value (Penedo et al. 2024, arXiv 2406.17557, section 4), or 0 and 1 for two kinds of
pages, as in DCLM (Li et al. 2024, arXiv 2406.11794). On one machine the same rows, options and seed
produce the same file.
"""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from data.web import classifier, inputs, minhash
from data.web.classifier import Classifier
from lm.base import files, progress
from lm.base.errors import UserError
from lm.base.intervals import wilson

FORMATS = ('.jsonl', '.jsonl.gz')
MIN_COUNT = 2  # occurrences that a word needs to have an embedding of its own


class Row(NamedTuple):
  """A labelled text."""

  text: str
  score: int


def read(globs: Sequence[str]) -> list[Row]:
  """Returns the labelled rows of JSONL files. Raises UserError that names file and line."""
  rows = []
  for path, _ in inputs.find(globs, FORMATS, '--input'):
    for place, value in inputs.json_lines(path):
      row = value if isinstance(value, dict) else {}
      text, score = row.get('text'), row.get('score')
      if not isinstance(text, str):
        raise UserError(field='text', value=text, allowed='a string').at(place)
      if type(score) not in (int, float) or not 0 <= score <= 5:
        raise UserError(field='score', value=score, allowed='a number from 0 to 5').at(place)
      rows.append(Row(text, round(score)))
  return rows


def train(
  rows: Sequence[Row],
  out: files.Path,
  *,
  dim: int = 16,
  epochs: int = 10,
  lr: float = 0.5,
  ngrams: int = 2,
  buckets: int = 1 << 18,
  seed: int = 0,
) -> None:
  """Trains a softmax over the mean embedding of a text's words and n-grams, and writes it.

  The optimizer is fastText's SGD; the learning rate falls linearly to 0. Raises UserError for an
  option that is not positive, or if all scores are equal.

  Args:
    rows: the labelled texts to learn from.
    out: the file to write.
    dim: width of an embedding; the number of labels suffices.
    epochs: passes over the rows, each in another order.
    lr: learning rate at the start.
    ngrams: length of the longest n-grams of words.
    buckets: number of embeddings that all n-grams share.
    seed: seed of the initial weights and of the order.
  """
  positive = {'dim': dim, 'epochs': epochs, 'lr': lr, 'ngrams': ngrams, 'buckets': buckets}
  for name, value in positive.items():
    if value <= 0:
      raise UserError(field=f'--{name}', value=value, allowed='above 0')
  texts, scores = [classifier.words(row.text) for row in rows], [row.score for row in rows]
  labels = Counter(map(str, sorted(scores)))
  if len(labels) < 2:
    raise UserError(
      field='number of different scores',
      value=len(labels),
      allowed='at least 2',
      message=f'There are {len(scores)} training rows.',
    )
  seen = Counter(word for words in texts for word in words)
  counts = {classifier.END: len(texts)} | {
    word: n for word, n in seen.most_common() if n >= MIN_COUNT
  }
  vocabulary = {word: i for i, word in enumerate(counts)}
  examples = [
    np.unique(classifier.features(words, vocabulary, ngrams, buckets), return_counts=True)
    for words in texts
  ]
  targets = np.equal.outer(scores, sorted(set(scores))).astype(np.float32)

  rng = np.random.default_rng(seed)
  features = len(counts) + (buckets if ngrams > 1 else 0)
  embeddings = rng.uniform(-1 / dim, 1 / dim, (features, dim)).astype(np.float32)
  heads = np.zeros((len(labels), dim), np.float32)
  order = np.concatenate([rng.permutation(len(texts)) for _ in range(epochs)])
  bar = progress.bar(order, desc='train classifier', unit=' texts', leave=False)
  for step, i in enumerate(bar):
    (ids, times), rate = examples[i], lr * (1 - step / len(order))
    weights = (times / times.sum()).astype(np.float32)
    hidden = weights @ embeddings[ids]
    logits = heads @ hidden
    shares = np.exp(logits - logits.max())
    error = rate * (targets[i] - shares / shares.sum())
    gradient = error @ heads
    heads += np.outer(error, hidden)
    embeddings[ids] += np.outer(weights, gradient)
  with files.atomic_path(out) as temporary, open(temporary, 'wb') as file:
    classifier.write(file, counts, labels, ngrams, embeddings, heads)


def measure(
  model: Classifier, rows: Sequence[Row], threshold: float
) -> dict[str, float | list[float]]:
  """Returns how well a classifier scores rows; rows of at least `threshold` are the positives."""
  truth = np.array([row.score for row in rows])
  likeliest = np.array([int(model.likeliest(row.text)) for row in rows])
  found = np.array([model.score(row.text) for row in rows])
  right, positive, kept = int((likeliest == truth).sum()), truth >= threshold, found >= threshold
  most, majority = Counter(truth.tolist()).most_common(1)[0]
  both = int((positive & kept).sum())
  return {
    'held_out': len(rows),
    'accuracy': right / len(rows),
    'accuracy_95': [round(bound, 4) for bound in wilson(right, len(rows))],
    'majority_accuracy': majority / len(rows),
    'mean_absolute_error': float(abs(found - truth).mean()),
    'majority_mean_absolute_error': float(abs(most - truth).mean()),
    'threshold': threshold,
    'positive': float(positive.mean()),
    'kept': float(kept.mean()),
    'f1': 2 * both / max(int(positive.sum() + kept.sum()), 1),
  }


def is_held_out(text: str, share: float) -> bool:
  """Returns whether a text is held out, equally for copies that differ in case and whitespace."""
  return int(minhash.digest(text)[:16], 16) < share * 2**64
