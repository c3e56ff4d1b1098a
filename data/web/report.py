"""What happened to the pages: `report.json` and `report.html` from the tasks' statistics and the
record of pages.
"""

import contextlib
import json
import urllib.parse
from collections import Counter, defaultdict

from datatrove.io import DataFolder
from datatrove.pipeline.base import PipelineStep

from data.web import measures
from data.web.blocks import documents_name, read_lines, write_json, write_text
from data.web.duplicates import SIZES
from lm.base.document import Block, Fold, Heading, Paragraph, Picture, Quote, Table, to_html

EXAMPLES = 3  # of each rule's drops
DOMAINS = 20


class WriteReport(PipelineStep):
  """The last step of a run, in one task; then removes what only the steps before needed."""

  type, name = 'report', 'report'

  def __init__(
    self, folder: DataFolder, stages: list[str], tasks: int, settings: dict, decontamination: dict
  ):
    super().__init__()
    self.folder, self.stages, self.tasks = folder, stages, tasks
    self.settings, self.decontamination = settings, decontamination

  def run(self, data=None, rank: int = 0, world_size: int = 1) -> None:
    steps, languages = _steps(self.folder, self.stages)
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


def _steps(folder: DataFolder, stages: list[str]) -> tuple[list[dict], Counter]:
  """Pages, bytes, drops and seconds of each step in order, and the pages of each language."""
  steps, languages = [], Counter()
  pages = size = 0
  for stage in stages:
    counts: dict[str, Counter] = defaultdict(Counter)  # of each step, over the tasks
    for name in folder.list_files(f'logs/{stage}/stats'):
      for stats in json.loads(folder.cat_file(name)):
        figures = stats['stats'] | {'seconds': stats['time_stats']}
        # datatrove writes a plain number where all that was added up was alike.
        counts[stats['name']].update(
          {k: v['total'] if isinstance(v, dict) else v for k, v in figures.items()}
        )
    for full_name, count in counts.items():
      languages.update(
        {label[9:]: n for label, n in count.items() if label.startswith('language_')}
      )
      kind, _, name = full_name.partition(': ')
      moves = kind == 'filter' or name in ('read', 'documents')
      out = (count['forwarded'], count['bytes']) if moves else (pages, size)
      drops, dropped_bytes = (
        {label.removeprefix(start): n for label, n in count.items() if label.startswith(start)}
        for start in ('dropped_', 'lost_')
      )
      steps.append({
        'step': name, 'pages_in': pages, 'pages_out': out[0], 'bytes_in': size, 'bytes_out': out[1], 'drops': drops,
        'dropped_bytes': dropped_bytes, 'seconds': round(count['seconds'], 3),
      })  # fmt: skip
      pages, size = out
  return steps, languages


class _Pages:
  """What the record of pages tells, in one pass over it: statistics, the first drops of each rule,
  domains of the kept.
  """

  def __init__(self, folder: DataFolder):
    self.statistics, self.domains, self.examples = (
      measures.Statistics(),
      Counter(),
      defaultdict(list),
    )
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
  """The host that a URL names; of what is no URL, the whole, shortened."""
  with contextlib.suppress(ValueError):
    return urllib.parse.urlsplit(url).hostname or url[:50]
  return url[:50]


def _blocks(report: dict) -> list[Block]:
  """The document that report.html shows."""
  bounded = {
    name: h for name, h in report['statistics'].items() if (h['low'], h['high']) != (None, None)
  }
  clusters = report['duplicate_clusters']
  return [
    Heading('Pages kept and dropped', 1),
    Paragraph(f'{report["pages_out"]:,} of {report["pages_in"]:,} pages were kept. Bytes are those '
              'of the bodies up to the '
              'extraction, then of the text. `python -m data.why URL_OR_ID --run=DIR` tells about '
              'a single page.'),
    Heading('Steps'),
    Table(('step', 'pages in', 'pages out', 'bytes in', 'bytes out', 'seconds'), [
      (step['step'], *(f'{step[name]:,}' for name in ('pages_in', 'pages_out', 'bytes_in', 'bytes_out', 'seconds')))
      for step in report['steps']
    ]),
    Heading('Drops by rule'),
    Table(('rule', 'step', 'pages', 'of all', 'bytes'), [
      (rule, step['step'], f'{n:,}', f'{n / report["pages_in"]:.2%}', f'{step["dropped_bytes"][rule]:,}')
      for rule, n in report['drops'].items()
      for step in report['steps'] if rule in step['drops']
    ], left=2),
    *(Fold(f'{rule}: {len(found)} of {report["drops"][rule]:,}', [
      Quote(f'{page["url"]}: {page["detail"]}', page['text']) for page in found
    ]) for rule, found in report['examples'].items()),
    Heading('What the rules measured'),
    Picture('Pages by the value of each statistic; dashed: its threshold. A page that was dropped '
            'is not in what was measured '
            'after. Heights go by the square root of the count, and each bin is as wide as the '
            'next, whatever its range.',
            measures.picture(bounded), ''),
    Heading('Languages'),
    _counts('language', report['languages'], 'pages'),
    Heading('Domains with the most pages kept'),
    _counts('domain', report['domains'], 'pages'),
    Heading('Duplicates'),
    Paragraph(f'{sum(clusters.values()):,} clusters of pages that are the same or nearly so, of '
              'which one is kept.'),
    _counts('pages in the cluster', clusters, 'clusters'),
    *(_decontamination(report) if report['decontamination'] else []),
  ]  # fmt: skip


def _decontamination(report: dict) -> list[Block]:
  found, settings = report['decontamination'], report['settings']
  n, least = settings['decontaminate_ngram'], settings['decontaminate_min_words']
  return [
    Heading('Evaluation items'),
    Table(('texts of the items', 'number'), [
      (f'{n} words or more, of which {n} in a row drop a page', f'{found["by_ngrams"]:,}'),
      (f'{least} to {n - 1} words, looked for as a whole', f'{found["whole"]:,}'),
      (f'fewer than {least} words, looked for in no page', f'{found["too_short"]:,}'),
    ]),
    Paragraph(f'{found["items_not_sought"]:,} of {found["items"]:,} items have only texts of the '
              'last kind: pages that hold '
              'them are kept.'),
    *([Fold('The first of them', [Quote('', '\n'.join(found['not_sought']))])] if found['not_sought'] else []),
  ]  # fmt: skip


def _counts(name: str, counts: dict[str, int], of: str) -> Table:
  return Table(
    (name, of, 'of all'),
    [(str(k), f'{n:,}', f'{n / sum(counts.values()):.2%}') for k, n in counts.items()],
  )


def table(report: dict) -> str:
  """The report's steps and drops as a table of text."""
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
