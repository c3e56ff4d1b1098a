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
MIN_COUNT = 2  # occurrences of a word with a row of its own


class Row(NamedTuple):
  text: str
  score: int


def read(globs: Sequence[str]) -> list[Row]:
  """The labelled rows of files. Raises UserError that names file and line."""
  rows = []
  for path, _ in inputs.find(globs, FORMATS, '--input'):
    for place, value in inputs.json_lines(path):
      text, score = (
        (value.get(name) for name in Row._fields) if isinstance(value, dict) else (None, None)
      )
      if not isinstance(text, str):
        raise UserError(f'{place}: no "text", a string; a row is {{"text": ..., "score": ...}}')
      if type(score) not in (int, float) or not 0 <= score <= 5:
        raise UserError(f'{place}: "score" must be a number from 0 to 5, not {score!r}')
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
  """Learns a softmax over the mean of the rows of a text's words and n-grams, by SGD as fastText's,
  and writes it.

  The rate falls to 0 in even steps. Raises UserError for an option that is not positive, or if all
  scores are the same.

  Args:
    rows: to learn from.
    out: the file.
    dim: width of a row; as many as there are labels lose nothing.
    epochs: passes over the rows, each in another order.
    lr: the rate at the start.
    ngrams: the longest n-grams of words.
    buckets: rows for all n-grams together.
    seed: of the first weights and of the order.
  """
  for name, value in {
    'dim': dim,
    'epochs': epochs,
    'lr': lr,
    'ngrams': ngrams,
    'buckets': buckets,
  }.items():
    if value <= 0:
      raise UserError(f'--{name}={value:g} must be positive')
  texts, scores = [classifier.words(row.text) for row in rows], [row.score for row in rows]
  labels = Counter(map(str, sorted(scores)))
  if len(labels) < 2:
    raise UserError(
      f'all of the {len(scores)} rows to learn from have the score {scores[0]}: nothing to tell '
      'apart'
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
  for step, i in enumerate(
    progress.bar(order, desc='train classifier', unit=' texts', leave=False)
  ):
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
  """How well a classifier scores rows: those of `threshold` and over are the ones to find."""
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
  """The same for all copies of a text, whatever their case and whitespace."""
  return int(minhash.digest(text)[:16], 16) < share * 2**64
