"""The report of a synthetic run, whose numbers are known here, read back from the three files."""

import html.parser
import json
import re
import xml.etree.ElementTree

import numpy as np
import pytest
from refusals import refused

from lm.base import files
from lm.report import assistant, card

EVIL = '<script>alert("x")</script> & `code` | **bold** ``` é'
TASKS = {
  'arithmetic': (0.02, 0.31, 0.78),
  'identity': (0.0, 0.96, 0.97),
  'spelling.v2': (0.05, 0.66, 0.64),
}
STAGES = ('crawl', 'clean', 'tokenizer', 'tokenize', 'pretrain', 'sft', 'rl', 'report')


def score(accuracy, n=200):
  return {
    'accuracy': accuracy,
    'low': max(0, accuracy - 0.05),
    'high': min(1, accuracy + 0.05),
    'n': n,
    'extra': 1,
  }


def write_lines(path, lines):
  files.write_text(path, ''.join(json.dumps(line) + '\n' for line in lines))


def make_run(workdir):
  rng = np.random.default_rng(0)
  for i, name in enumerate(STAGES):
    record = {
      'name': name,
      'started': 1e9 + i,
      'complete': name != 'report',
      'settings': None,
      'fingerprint': 'f',
    }
    files.write_json(
      workdir / 'stages' / f'{name}.json',
      record | {'seconds': 10.5 * (i + 1), 'peak_rss_bytes': (i + 1) << 28},
    )
  page = {'url': 'http://127.0.0.1/a?<b>', 'text': EVIL * 30, 'detail': 'score 0.1 | bad'}
  drops = {'language': 7, 'near duplicate': 30, 'lorem ipsum': 0}
  examples = {rule: [page] * min(3, n) for rule, n in drops.items()}
  clean = {'pages_in': 100, 'pages_out': 63, 'drops': drops, 'examples': examples}
  files.write_json(workdir / 'clean/report.json', clean)
  files.write_json(
    workdir / 'tokenizer/report.json', {'vocab_size': 4106, 'bytes_per_token': 3.41, 'more': 1}
  )
  scores = [{task: score(values[i]) for task, values in TASKS.items()} for i in range(3)]
  bpb = {'val_bpb': 1.83, 'unigram_bpb': 3.02, 'bigram_bpb': 2.01, 'gzip_bpb': 2.24, 'xz_bpb': 2.05}
  texts = {
    'first': [{'prompt': 'The', 'text': EVIL}],
    'last': [{'prompt': 'The', 'text': 'list of names.\n  x = 1'}],
  }
  files.write_json(
    workdir / 'pretrain/report.json',
    {'pretrain': {'tokens': 800_000, **bpb}, 'scores': scores[0], 'samples': texts},
  )
  replies = [{'prompt': f'Who are you? {EVIL}', 'reply': f'I am deepdive. {EVIL}'}]
  files.write_json(workdir / 'sft/report.json', {'scores': scores[1], 'samples': replies})
  change = {
    'reward_first': 0.3,
    'reward_last': 0.8,
    'answer_length_first': 12.5,
    'answer_length_last': 9.25,
  }
  origin = {'code': 'abc-dirty', 'config': {'lr': 1}, 'data': 'd' * 64, 'tokenizer': 't' * 64}
  files.write_json(
    workdir / 'rl/report.json',
    {'scores': scores[2], 'samples': replies, 'rl': change, 'provenance': origin},
  )
  fall = lambda i: 2 + 6 * np.exp(-i / 60) + rng.normal() / 20  # noqa: E731
  pretrain = [{'step': i, 'train/loss': fall(i)} for i in range(400)]
  write_lines(
    workdir / 'pretrain/metrics.jsonl',
    pretrain + [{'step': i, 'eval/val/bpb': 1.8 + 2 * np.exp(-i / 80)} for i in range(0, 401, 40)],
  )
  write_lines(
    workdir / 'sft/metrics.jsonl', [{'step': i, 'train/loss': fall(i) / 3} for i in range(200)]
  )
  write_lines(
    workdir / 'rl/metrics.jsonl',
    [
      {
        'step': i, 'rl/reward': 0.3 + 0.5 * i / 60 + rng.normal() / 20, 'rl/length': 12 - i / 20 + rng.normal(),
        'rl/length_right': None if i < 3 else 10 + rng.normal(), 'rl/length_wrong': 15 + rng.normal(),
      }
      for i in range(60)
    ],
  )  # fmt: skip
  return workdir


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  workdir = make_run(tmp_path_factory.mktemp('run'))
  card.write_report(workdir)
  return workdir


class Page(html.parser.HTMLParser):
  """Collects tags, links to elsewhere, and the visible text; checks that what is opened is
  closed.
  """

  def __init__(self, text):
    super().__init__()
    self.tags, self.links, self.text, self.open = [], [], '', []
    self.feed(text)
    assert self.open == []

  def handle_starttag(self, tag, attrs):
    self.tags.append(tag)
    self.links += [
      v for k, v in attrs if k in ('src', 'href', 'xlink:href') and not v.startswith('#')
    ]
    if tag not in ('meta', 'br', 'hr', 'img'):
      self.open.append(tag)

  def handle_startendtag(self, tag, attrs):
    self.tags.append(tag)

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    self.text += data


def test_json_holds_the_numbers_of_the_sources(run):
  found = files.read_json(run / 'report.json')
  assert list(found['stages']) == list(STAGES)
  assert found['stages']['clean'] == {'seconds': 21.0, 'peak_rss_bytes': 2 << 28}
  drops = {'language': 7, 'near duplicate': 30, 'lorem ipsum': 0}
  assert found['web'] == {'pages_in': 100, 'pages_out': 63, 'drops': drops}
  assert found['tokenizer'] == {'vocab_size': 4106, 'bytes_per_token': 3.41}
  assert found['pretrain'] == {
    'tokens': 800_000, 'val_bpb': 1.83, 'unigram_bpb': 3.02, 'bigram_bpb': 2.01, 'gzip_bpb': 2.24, 'xz_bpb': 2.05
  }  # fmt: skip
  assert found['scores']['sft']['arithmetic'] == {
    'accuracy': 0.31,
    'low': 0.26,
    'high': 0.36,
    'n': 200,
  }
  assert {model: row['arithmetic']['accuracy'] for model, row in found['scores'].items()} == dict(
    zip(('base', 'sft', 'rl'), TASKS['arithmetic'], strict=True)
  )
  assert found['rl'] == {
    'reward_first': 0.3, 'reward_last': 0.8, 'answer_length_first': 12.5, 'answer_length_last': 9.25
  }  # fmt: skip
  assert found['provenance'] == {
    'code': 'abc-dirty', 'config': files.digest({'lr': 1}), 'data': 'd' * 64, 'tokenizer': 't' * 64
  }  # fmt: skip


@pytest.mark.slow
def test_scores_of_turns_are_shown_and_leave_the_mean_of_the_tasks_as_it_is(run, tmp_path):
  make_run(tmp_path)
  for name in ('pretrain', 'sft', 'rl'):
    content = files.read_json(tmp_path / name / 'report.json')
    content['scores']['turn_2'] = score(0.123)
    files.write_json(tmp_path / name / 'report.json', content)
  card.write_report(tmp_path)
  [before], [after] = (
    [line for line in (folder / 'report.md').read_text().splitlines() if 'mean accuracy' in line]
    for folder in (run, tmp_path)
  )
  assert before == after
  assert '| turn\\_2 | 12.3%' in (tmp_path / 'report.md').read_text()


def test_the_mean_of_the_tasks_is_without_the_format():
  scores = {'arithmetic': score(0.2), 'spelling': score(0.4), 'format': score(1.0)}
  assert card._mean_accuracy(scores) == pytest.approx(0.3)


def record(task, turn, group, verdict):
  return {'task': task, 'turn': turn, 'key': verdict, 'group': group, 'verdict': verdict}


RECORDS = [
  *(record('refusal', 0, 'made up', verdict) for verdict in ['right'] * 9 + ['wrong']),
  *(record('refusal', 0, 'exists', verdict) for verdict in ['right'] * 6 + ['refused', 'wrong']),
  *(record('spelling', 0, '3 letters', verdict) for verdict in ['right', 'wrong', 'right']),
  *(
    record(task, turn, '', 'right' if turn < 5 or task == 'identity' else 'wrong')
    for turn in range(1, 6)
    for task in ('identity', 'calculator')
  ),
]


def scores_of(records):
  """What a run reports as scores of these records."""
  scores = {}
  for task in ('refusal', 'spelling'):
    mine = [each for each in records if each['task'] == task]
    groups = {each['group']: {'right': 0, 'wrong': 0, 'refused': 0} for each in mine}
    for each in mine:
      groups[each['group']][each['verdict']] += 1
    scores[task] = score(0.5, len(mine)) | {'groups': groups}
  for turn in range(1, 6):
    right = {each['task']: each['verdict'] == 'right' for each in records if each['turn'] == turn}
    scores[f'turn_{turn}'] = score(0.5) | {
      'tasks': {k: score(float(v), 1) for k, v in right.items()}
    }
  return scores


def test_the_assistants_table_is_that_of_its_records():
  rows = assistant.measured({'base': {}, 'rl': scores_of(RECORDS)})
  found = {row['name']: row['models']['rl']['accuracy'] for row in rows}
  assert found == {
    'says who it is, as question 1': 1,
    'says who it is, as question 2': 1,
    'says who it is, as question 3': 1,
    'refuses what does not exist': 0.9,
    'refuses what exists': 0.125,
    'arithmetic, by the calculator, as question 5': 0,
    'spells words never trained on': 0.5,
  }
  assert {row['models'].get('base') for row in rows} == {None}
  assert {row['bar'] for row in rows} == {'≥ 95%', '≥ 85%', '≤ 10%', '≥ 60%'}


@pytest.mark.slow
def test_the_assistants_plots_are_drawn_of_what_was_measured(tmp_path):
  make_run(tmp_path)
  content = files.read_json(tmp_path / 'rl/report.json')
  content['scores'] |= scores_of(RECORDS)
  files.write_json(tmp_path / 'rl/report.json', content)
  assert [row['models'].keys() for row in card.write_report(tmp_path)['assistant']]
  for name in ('turns', 'refusals', 'spelling'):
    assert (tmp_path / 'report_plots' / f'{name}.png').exists()


def test_html_needs_nothing_else_and_escapes_all_text(run):
  text = (run / 'report.html').read_text()
  page = Page(text)
  assert page.links == [] and 'script' not in page.tags and 'url(http' not in text
  assert page.tags.count('svg') == 4
  assert page.text.count(EVIL) > 5  # as text
  for svg in re.findall(r'<svg.*?</svg>', text, re.DOTALL):
    xml.etree.ElementTree.fromstring(svg)
    assert 'currentColor' in svg
  for shown in (
    'bigram 2.01',
    'xz -9 2.05',
    'right',
    'wrong',
    '78.0% [73.0, 83.0] n=200 ▲',
    '1.830 (2.010)',
  ):
    assert shown in page.text, shown


def test_markdown_shows_the_same_and_escapes_it(run):
  text = (run / 'report.md').read_text()
  for path in re.findall(r'!\[.*?\]\((.*?)\)', text):
    assert (run / path).read_bytes().startswith(b'\x89PNG')
  assert '| near duplicate | 30 | 30.0% |' in text
  assert '| arithmetic | 2.0% \\[0.0, 7.0\\] n=200 | 31.0% \\[26.0, 36.0\\] n=200 ▲ | 78.0%' in text
  # within noise: no mark
  assert '96.0% \\[91.0, 100.0\\] n=200 ▲ | 97.0% \\[92.0, 100.0\\] n=200 |' in text
  outside = re.sub(r'^(````+)text\n.*?^\1$', '', text, flags=re.DOTALL | re.MULTILINE)
  assert '<script>' in text and '<script>' not in outside


@pytest.mark.slow
def test_a_missing_source_a_field_or_a_metric_is_named(tmp_path):
  make_run(tmp_path)
  content = files.read_json(tmp_path / 'rl/report.json')
  files.write_json(tmp_path / 'rl/report.json', {**content, 'rl': {'reward_first': 1}})
  with refused(f'field rl.reward_last of {tmp_path / "rl/report.json"}'):
    card.write_report(tmp_path)
  files.write_json(tmp_path / 'rl/report.json', content)
  write_lines(tmp_path / 'sft/metrics.jsonl', [{'step': 1, 'train/los': 1}])
  with refused(f'metric train/loss of {tmp_path / "sft/metrics.jsonl"}'):
    card.write_report(tmp_path)
  (tmp_path / 'clean/report.json').unlink()
  with pytest.raises(FileNotFoundError, match=r'clean/report\.json'):
    card.write_report(tmp_path)
  assert not (tmp_path / 'report.json').exists()
