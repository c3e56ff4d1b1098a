"""Writes `report.json` and `report.html` from the tasks' statistics and the record of pages."""

import contextlib
import json
import urllib.parse
from collections import Counter, defaultdict

from datatrove.io import DataFolder
from datatrove.pipeline.base import PipelineStep

from data.web import measures
from data.web.duplicates import SIZES
from data.web.line_files import documents_name, read_lines, write_json, write_text
from lm.base import plots
from lm.base.document import Block, Fold, Heading, Paragraph, Picture, Quote, Table, to_html

EXAMPLES = 3  # dropped pages shown for each rule
DOMAINS = 20  # domains shown


class WriteReport(PipelineStep):
  """Writes the report as the last step of a run, in one task, then removes intermediate files."""

  type, name = 'report', 'report'

  def __init__(
    self, folder: DataFolder, phases: list[str], tasks: int, settings: dict, decontamination: dict
  ):
    super().__init__()
    self.folder, self.phases, self.tasks = folder, phases, tasks
    self.settings, self.decontamination = settings, decontamination

  def run(self, data=None, rank: int = 0, world_size: int = 1) -> None:
    steps, languages = _steps(self.folder, self.phases)
    drops = Counter()
    for step in steps:
      drops.update(step['drops'])
    pages = _Pages(self.folder)
    report = {
      'pages_in': steps[0]['pages_out'],
      'pages_out': steps[-1]['pages_out'],
      'bytes_in': steps[0]['bytes_out'],
      'bytes_out': steps[-1]['bytes_out'],
      'drops': dict(drops.most_common()),
      'examples': {rule: pages.examples[rule] for step in steps for rule in step['drops']},
      'languages': dict(languages.most_common()),
      'domains': dict(pages.domains.most_common(DOMAINS)),
      'duplicate_clusters': json.loads(self.folder.cat_file(f'work/{SIZES}')),
      'statistics': pages.statistics.histograms(),
      'steps': steps,
      'seconds': round(sum(step['seconds'] for step in steps), 3),
      'decontamination': self.decontamination,
      'settings': self.settings,
      'documents': [documents_name(task, self.tasks) for task in range(self.tasks)],
    }
    write_text(
      self.folder, 'report.html', to_html('deepdive: pages kept and dropped', _blocks(report))
    )
    write_json(self.folder, 'report.json', report)
    self.folder.rm('work', recursive=True)


def _steps(folder: DataFolder, phases: list[str]) -> tuple[list[dict], Counter]:
  """Returns the pages, bytes, drops and seconds of each step, and the pages by language."""
  steps, languages = [], Counter()
  pages = size = 0
  for phase in phases:
    counts: dict[str, Counter] = defaultdict(Counter)  # {step: counts summed over the tasks}
    for name in folder.list_files(f'logs/{phase}/stats'):
      for stats in json.loads(folder.cat_file(name)):
        figures = stats['stats'] | {'seconds': stats['time_stats']}
        # datatrove writes a plain number where all summands were equal.
        counts[stats['name']].update(
          {k: v['total'] if isinstance(v, dict) else v for k, v in figures.items()}
        )
    for full_name, count in counts.items():
      languages.update(_with_prefix(count, 'language_'))
      kind, _, name = full_name.partition(': ')
      step = {'step': name, 'pages_in': pages, 'bytes_in': size}
      if kind == 'filter' or name in ('read', 'documents'):  # the other blocks pass all pages on
        pages, size = count['forwarded'], count['bytes']
      step |= {
        'pages_out': pages,
        'bytes_out': size,
        'drops': _with_prefix(count, 'dropped_'),
        'dropped_bytes': _with_prefix(count, 'lost_'),
        'seconds': round(count['seconds'], 3),
      }
      steps.append(step)
  return steps, languages


def _with_prefix(count: Counter, prefix: str) -> dict[str, int]:
  """Returns the counts whose label begins with a prefix, by the rest of the label."""
  found = {label: n for label, n in count.items() if label.startswith(prefix)}
  return {label.removeprefix(prefix): n for label, n in found.items()}


class _Pages:
  """Statistics, the first drops of each rule and the domains of kept pages, from one reading."""

  def __init__(self, folder: DataFolder):
    self.statistics = measures.Statistics()
    self.domains = Counter()
    self.examples = defaultdict(list)
    for name in folder.list_files('pages'):
      for line in read_lines(folder, name):
        self.statistics.add(line['figures'])
        if not line['rule']:
          self.domains[_host(line['url'])] += 1
        elif len(self.examples[line['rule']]) < EXAMPLES:
          self.examples[line['rule']].append(
            {'url': line['url'], 'text': line['text'], 'detail': line['detail']}
          )


def _host(url: str) -> str:
  """Returns the host of a URL, or the start of a string that is not a URL."""
  with contextlib.suppress(ValueError):
    return urllib.parse.urlsplit(url).hostname or url[:50]
  return url[:50]


def _blocks(report: dict) -> list[Block]:
  """Returns the document that report.html shows."""
  bounded = {}
  for name, histogram in report['statistics'].items():
    if (histogram['low'], histogram['high']) != (None, None):
      bounded[name] = histogram
  clusters = report['duplicate_clusters']
  return [
    Heading('Pages kept and dropped', 1),
    Paragraph(
      f'{report["pages_out"]:,} of {report["pages_in"]:,} pages were kept. Bytes are those of the '
      'bodies before the extraction, and of the text after it. '
      '`python -m data.why URL_OR_ID --run=DIR` explains what happened to a single page.'
    ),
    Heading('Steps'),
    _step_table(report),
    Heading('Drops by rule'),
    _drop_table(report),
    *[_examples(report, rule) for rule in report['examples']],
    Heading('What the rules measured'),
    Picture(
      'Pages by the value of each statistic. Dashed lines are thresholds. A page that was dropped '
      'is missing from later measurements. The height of a bar is the square root of the count. '
      'All bins are drawn equally wide, whatever their range.',
      plots.svg(measures.picture(bounded)),
      '',
    ),
    Heading('Languages'),
    _counts('language', report['languages'], 'pages'),
    Heading('Domains with the most pages kept'),
    _counts('domain', report['domains'], 'pages'),
    Heading('Duplicates'),
    Paragraph(
      f'{sum(clusters.values()):,} clusters of identical or nearly identical pages were found, and '
      'one page of each was kept.'
    ),
    _counts('pages in the cluster', clusters, 'clusters'),
    *(_decontamination(report) if report['decontamination'] else []),
  ]


def _step_table(report: dict) -> Table:
  columns = ('pages_in', 'pages_out', 'bytes_in', 'bytes_out', 'seconds')
  rows = []
  for step in report['steps']:
    rows.append((step['step'], *(f'{step[name]:,}' for name in columns)))
  return Table(('step', *(name.replace('_', ' ') for name in columns)), rows)


def _drop_table(report: dict) -> Table:
  rows = []
  for rule, n in report['drops'].items():
    for step in report['steps']:
      if rule in step['drops']:
        fraction, size = n / report['pages_in'], step['dropped_bytes'][rule]
        rows.append((rule, step['step'], f'{n:,}', f'{fraction:.2%}', f'{size:,}'))
  return Table(('rule', 'step', 'pages', 'of all', 'bytes'), rows, left=2)


def _examples(report: dict, rule: str) -> Fold:
  """Returns a folded list of pages that a rule dropped."""
  found = report['examples'][rule]
  quotes = [Quote(f'{page["url"]}: {page["detail"]}', page['text']) for page in found]
  return Fold(f'{rule}: {len(found)} of {report["drops"][rule]:,}', quotes)


def _decontamination(report: dict) -> list[Block]:
  """Returns the part of the document about evaluation items."""
  found, settings = report['decontamination'], report['settings']
  n, least = settings['decontaminate_ngram'], settings['decontaminate_min_words']
  rows = [
    (f'{n} words or more, of which {n} in a row drop a page', f'{found["by_ngrams"]:,}'),
    (f'{least} to {n - 1} words, looked for as a whole', f'{found["whole"]:,}'),
    (f'fewer than {least} words, not looked for', f'{found["too_short"]:,}'),
  ]
  result = [
    Heading('Evaluation items'),
    Table(('texts of the items', 'number'), rows),
    Paragraph(
      f'{found["items_not_sought"]:,} of {found["items"]:,} items have only texts of the last '
      'kind: pages that contain them are kept.'
    ),
  ]
  if found['not_sought']:
    result.append(Fold('The first of them', [Quote('', '\n'.join(found['not_sought']))]))
  return result


def _counts(name: str, counts: dict[str, int], of: str) -> Table:
  return Table(
    (name, of, 'of all'),
    [(str(k), f'{n:,}', f'{n / sum(counts.values()):.2%}') for k, n in counts.items()],
  )


def table(report: dict) -> str:
  """Returns the report's steps and drops as a text table."""
  rows = [('pages in', report['pages_in'])]
  rows += [(f'  dropped by {rule}', n) for rule, n in report['drops'].items()]
  rows += [
    ('pages out', report['pages_out']),
    ('bytes in', report['bytes_in']),
    ('bytes out', report['bytes_out']),
  ]
  if found := report['decontamination']:
    rows += [
      (f'evaluation items too short to look for, of {found["items"]:,}', found['items_not_sought'])
    ]
  return '\n'.join(f'{name:50}{n:>14,}' for name, n in rows)
