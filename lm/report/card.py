"""Writes the report card of a recipe: `report.json`, `report.md` and `report.html`.

It reads what the jobs of the recipe left in its work folder: the records stages/*.json,
clean/report.json, tokenizer/report.json, and report.json and metrics.jsonl of each of the training
runs pretrain, sft and rl.
"""

import pathlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from lm.base import files, metrics, plots
from lm.base.document import (
  Block,
  Fold,
  Heading,
  Paragraph,
  Picture,
  Quote,
  Table,
)
from lm.base.errors import UserError
from lm.report import assistant, report_files

if TYPE_CHECKING:
  from matplotlib.figure import Figure

# The runs, by the name of their model in the table of scores.
MODELS = {'base': 'pretrain', 'sft': 'sft', 'rl': 'rl'}
# The fields of pretrain/report.json with results of simple models, by their names in the report.
BASELINES = {
  'unigram': 'unigram_bpb',
  'bigram': 'bigram_bpb',
  'gzip -9': 'gzip_bpb',
  'xz -9': 'xz_bpb',
}


def write_report(workdir: files.Path) -> dict[str, Any]:
  """Writes report.json, report.md (with report_plots/) and report.html, and returns the first.

  The job that calls this is still running, so that its own time and memory in the report are those
  of its last record.

  Raises:
    FileNotFoundError: a file that the report is made from is missing.
    UserError: such a file lacks a field or a metric.
  """
  workdir = pathlib.Path(workdir)
  sources = {
    name: _Source(workdir / name / 'report.json')
    for name in ('clean', 'tokenizer', *MODELS.values())
  }
  pictures = report_files.pictures(workdir, _draw(workdir, sources))
  report = _summary(workdir, sources)
  blocks = _blocks(report, sources, pictures)
  report_files.write(workdir, 'deepdive: report of a run', blocks, report)
  return report


class _Source:
  """A report.json in which a missing field is an error that names the file and the field."""

  def __init__(self, path: pathlib.Path):
    self._path, self._value = path, files.read_json(path)

  def __getitem__(self, field: str | tuple[str, ...]) -> Any:
    """Returns the value of a field; source['a', 'b'] is that of b in a."""
    value, field = self._value, (field,) if isinstance(field, str) else field
    for name in field:
      if name not in value:
        raise UserError(field=f'field {".".join(field)} of {self._path}')
      value = value[name]
    return value

  def take(self, *above: str, names: Iterable[str]) -> dict[str, Any]:
    """Returns the fields with these names, below the field `above`."""
    return {name: self[*above, name] for name in names}


def _summary(workdir: pathlib.Path, sources: dict[str, _Source]) -> dict[str, Any]:
  """Returns the content of report.json."""
  records = [files.read_json(path) for path in (workdir / 'stages').glob('*.json')]
  if not records:
    raise FileNotFoundError(f'there are no records of jobs in {workdir / "stages"}')
  jobs, scores, provenance = {}, {}, {}
  for record in sorted(records, key=lambda record: record['started']):
    jobs[record['name']] = {key: record[key] for key in ('seconds', 'peak_rss_bytes')}
  for model, run in MODELS.items():
    scores[model] = {}
    for task in sources[run]['scores']:
      names = ('accuracy', 'low', 'high', 'n')
      scores[model][task] = sources[run].take('scores', task, names=names)
  made_from = ('code', 'config', 'data', 'tokenizer')
  for name, value in sources['rl'].take('provenance', names=made_from).items():
    provenance[name] = value if isinstance(value, str) else files.digest(value)
  return {
    'stages': jobs,
    'web': sources['clean'].take(names=('pages_in', 'pages_out', 'drops')),
    'tokenizer': sources['tokenizer'].take(names=('vocab_size', 'bytes_per_token')),
    'pretrain': sources['pretrain'].take(
      'pretrain', names=('tokens', 'val_bpb', *BASELINES.values())
    ),
    'scores': scores,
    'assistant': assistant.measured(_scores(sources)),
    'rl': sources['rl'].take(
      'rl', names=('reward_first', 'reward_last', 'answer_length_first', 'answer_length_last')
    ),
    'provenance': provenance,
  }


def _scores(sources: dict[str, _Source]) -> dict[str, Any]:
  """Returns the scores of each model, by its name."""
  return {model: sources[run]['scores'] for model, run in MODELS.items()}


def _draw(workdir: pathlib.Path, sources: dict[str, _Source]) -> dict[str, tuple[str, 'Figure']]:
  """Returns the caption and the figure of each picture, by name."""
  lines = {run: metrics.read(workdir / run) for run in MODELS.values()}

  def series(run: str, name: str) -> plots.Series:
    points = [(line['step'], line[name]) for line in lines[run] if name in line]
    if not points:
      raise UserError(field=f'metric {name} of {workdir / run / "metrics.jsonl"}')
    # A null, which stands for a value that was not finite, is drawn as a gap.
    return tuple(zip(*points, strict=True))

  baselines = {name: sources['pretrain']['pretrain', field] for name, field in BASELINES.items()}
  lengths = {name: series('rl', f'rl/length_{name}') for name in ('right', 'wrong')}
  tasks = list(dict.fromkeys(task for run in MODELS.values() for task in sources[run]['scores']))
  bars = {}
  for model, run in MODELS.items():
    scores = [sources[run]['scores'].get(task) for task in tasks]
    bars[model] = [s and (s['accuracy'], s['low'], s['high']) for s in scores]
  return {
    'pretrain': (
      'Pretraining. Right: held-out bits per byte, with models and compressors of the same bytes '
      'as dashed lines.',
      plots.curves(
        [
          plots.Panel('training loss, nats per token', {'loss': series('pretrain', 'train/loss')}),
          plots.Panel(
            'held-out bits per byte', {'network': series('pretrain', 'eval/val/bpb')}, baselines
          ),
        ]
      ),
    ),
    'sft': (
      "Supervised fine-tuning: loss on the assistant's tokens alone.",
      plots.curves(
        [plots.Panel('training loss, nats per token', {'loss': series('sft', 'train/loss')})]
      ),
    ),
    'rl': (
      'Reinforcement learning. The lengths of right and wrong answers are drawn apart, since '
      'longer answers alone prove nothing.',
      plots.curves(
        [
          plots.Panel('reward of sampled answers', {'reward': series('rl', 'rl/reward')}),
          plots.Panel('answer length, tokens', {'all': series('rl', 'rl/length'), **lengths}),
        ]
      ),
    ),
    'scores': (
      'Held-out accuracy of each model; the whiskers are 95 % intervals.',
      plots.bars(tasks, bars, 'held-out accuracy'),
    ),
    **assistant.figures(_scores(sources)),
  }


def _blocks(
  report: dict[str, Any], sources: dict[str, _Source], pictures: dict[str, Picture]
) -> list[Block]:
  """Returns the document that both the Markdown and the HTML show."""
  return [
    Heading('deepdive: report of a run', 1),
    Paragraph(
      'From crawled pages to a tuned assistant. All scores and bits per byte are on held-out data.'
    ),
    _headline(report),
    Heading('Pretraining'),
    pictures['pretrain'],
    Table(
      ('bits per byte, held out', ''),
      [
        ('this network', f'{report["pretrain"]["val_bpb"]:.3f}'),
        *((name, f'{report["pretrain"][field]:.3f}') for name, field in BASELINES.items()),
      ],
    ),
    Heading('Scores before and after'),
    pictures['scores'],
    _score_table(report['scores']),
    Paragraph(
      '▲ ▼: the 95 % interval lies wholly above or below that of the model to its left. '
      'turn_1, turn_2, ... are problems of all tasks, asked as the first, second, ... question '
      "of a conversation, after the model's own replies."
    ),
    Heading('From base model to assistant'),
    assistant.table(report['assistant'], list(MODELS)),
    *(pictures[name] for name in ('turns', 'refusals', 'spelling') if name in pictures),
    Heading('Fine-tuning and reinforcement learning'),
    pictures['sft'],
    pictures['rl'],
    Heading('Web pages kept and dropped'),
    *_web(report['web'], sources['clean']['examples']),
    Heading('Samples'),
    *_samples(sources),
    Heading('Time and memory'),
    _job_table(report['stages']),
    Paragraph('Peak memory is the largest resident memory of all processes of a job, summed.'),
    Heading('Provenance'),
    Table(('', ''), list(report['provenance'].items()), left=2),
  ]


def _headline(report: dict[str, Any]) -> Table:
  """Returns the table of the most important numbers."""
  pretrain, web, rl = report['pretrain'], report['web'], report['rl']
  means = [_mean_accuracy(scores) for scores in report['scores'].values()]
  jobs = report['stages'].values()
  rows = [
    ('pages crawled → kept', f'{web["pages_in"]:,} → {web["pages_out"]:,}'),
    ('tokens trained on', f'{pretrain["tokens"]:,}'),
    (
      'bits per byte, held out (bigram)',
      f'{pretrain["val_bpb"]:.3f} ({pretrain["bigram_bpb"]:.3f})',
    ),
    (
      'mean accuracy of the tasks, ' + ' → '.join(report['scores']),
      ' → '.join(f'{mean:.1%}' for mean in means),
    ),
    ('reward, first → last', f'{rl["reward_first"]:.3f} → {rl["reward_last"]:.3f}'),
    (
      'answer length in tokens, first → last',
      f'{rl["answer_length_first"]:.1f} → {rl["answer_length_last"]:.1f}',
    ),
    ('time in all', _duration(sum(job['seconds'] for job in jobs))),
    ('peak memory', _gib(max(job['peak_rss_bytes'] for job in jobs))),
  ]
  return Table(('', 'measured'), rows)


def _mean_accuracy(scores: dict[str, Any]) -> float:
  """Returns the mean over tasks.

  It is without `format`, which is no task, and without the turns of conversations, which repeat
  problems.
  """
  values = [
    score['accuracy']
    for name, score in scores.items()
    if name != 'format' and not name.startswith('turn_')
  ]
  return sum(values) / len(values)


def _score_table(scores: dict[str, dict[str, Any]]) -> Table:
  """Returns the scores of each model, marked where they clearly differ from the model before."""
  tasks = list(dict.fromkeys(task for row in scores.values() for task in row))

  def cell(task: str, model: str, before: str | None) -> str:
    if task not in scores[model]:
      return 'none'
    score, old = scores[model][task], scores[before].get(task) if before else None
    mark = ''
    if old and score['low'] > old['high']:
      mark = ' ▲'
    elif old and score['high'] < old['low']:
      mark = ' ▼'
    interval = f'[{100 * score["low"]:.1f}, {100 * score["high"]:.1f}]'
    return f'{score["accuracy"]:.1%} {interval} n={score["n"]}{mark}'

  pairs = list(zip(scores, (None, *scores), strict=False))  # each model and the one before it
  rows = [(task, *(cell(task, model, before) for model, before in pairs)) for task in tasks]
  return Table(('task', *scores), rows)


def _web(web: dict[str, Any], examples: dict[str, list[dict[str, str]]]) -> list[Block]:
  """Returns the table of pages dropped by each rule, and some examples of each."""
  drops = sorted(web['drops'].items(), key=lambda item: -item[1])
  rows = [(rule, f'{n:,}', f'{n / max(1, web["pages_in"]):.1%}') for rule, n in drops]
  total = ('kept', f'{web["pages_out"]:,}', f'{web["pages_out"] / max(1, web["pages_in"]):.1%}')
  blocks: list[Block] = [Table(('dropped by', 'pages', 'of all'), [*rows, total])]
  for rule, n in drops:
    if n:
      shown = examples[rule][:3]
      quotes = [Quote(f'{x["url"]}: {x["detail"]}', _clip(x['text'], 400)) for x in shown]
      blocks.append(Fold(f'{rule}: {len(quotes)} of {n:,}', quotes))
  return blocks


def _samples(sources: dict[str, _Source]) -> list[Block]:
  """Returns texts and replies of the models."""
  blocks: list[Block] = []
  for when, title in (
    ('first', 'Continued text, before training'),
    ('last', 'Continued text, after pretraining'),
  ):
    blocks.append(Heading(title, 3))
    samples = sources['pretrain']['samples', when]
    blocks += [Quote(f'{x["prompt"]} …', _clip(x['text'])) for x in samples]
  for run, title in (
    ('sft', 'Replies after fine-tuning'),
    ('rl', 'Replies after reinforcement learning'),
  ):
    blocks.append(Heading(title, 3))
    blocks += [Quote(x['prompt'], _clip(x['reply'])) for x in sources[run]['samples']]
  return blocks


def _job_table(jobs: dict[str, dict[str, float]]) -> Table:
  """Returns the time and the memory of each job."""
  rows = [(name, _duration(s['seconds']), _gib(s['peak_rss_bytes'])) for name, s in jobs.items()]
  total = ('all', _duration(sum(s['seconds'] for s in jobs.values())), '')
  return Table(('job', 'time', 'peak memory'), [*rows, total])


def _duration(seconds: float) -> str:
  if seconds < 60:
    return f'{seconds:.1f} s'
  return f'{int(seconds) // 60} min {int(seconds) % 60:02} s'


def _gib(n: float) -> str:
  return f'{n / 2**30:.2f} GiB'


def _clip(text: str, limit: int = 1200) -> str:
  return text if len(text) <= limit else text[:limit] + ' […]'
