"""What happened to the pages: `report.json` from the tasks' statistics and the record of pages."""

import json
import urllib.parse
from collections import Counter, defaultdict
from collections.abc import Iterator

from datatrove.io import DataFolder
from datatrove.pipeline.base import PipelineStep

from data.web.blocks import documents_name, read_lines, write_json

EXAMPLES = 3  # of each rule's drops
DOMAINS = 20


class WriteReport(PipelineStep):
  """The last step of a run, in one task; then removes what only the steps before needed."""

  type, name = 'report', 'report'

  def __init__(self, folder: DataFolder, stages: list[str], tasks: int, settings: dict):
    super().__init__()
    self.folder, self.stages, self.tasks, self.settings = folder, stages, tasks, settings

  def run(self, data=None, rank: int = 0, world_size: int = 1) -> None:
    steps, languages = _steps(self.folder, self.stages)
    drops = Counter()
    for step in steps:
      drops.update(step['drops'])
    kept = [name for name in self.folder.list_files('pages/kept')]
    domains = Counter(urllib.parse.urlsplit(line['url']).hostname for name in kept for line in read_lines(self.folder, name))
    report = {
      'pages_in': steps[0]['pages_out'],
      'pages_out': steps[-1]['pages_out'],
      'bytes_in': steps[0]['bytes_out'],
      'bytes_out': steps[-1]['bytes_out'],
      'drops': dict(drops.most_common()),
      'examples': {rule: examples for step in steps for rule, examples in _examples(self.folder, step)},
      'languages': dict(languages.most_common()),
      'domains': dict(domains.most_common(DOMAINS)),
      'steps': steps,
      'seconds': round(sum(step['seconds'] for step in steps), 3),
      'settings': self.settings,
      'documents': [documents_name(task, self.tasks) for task in range(self.tasks)],
    }
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
        counts[stats['name']].update({k: v['total'] if isinstance(v, dict) else v for k, v in figures.items()})
    for full_name, count in counts.items():
      languages.update({label[9:]: n for label, n in count.items() if label.startswith('language_')})
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


def _examples(folder: DataFolder, step: dict) -> Iterator[tuple[str, list[dict]]]:
  """The first drops of each rule of a step."""
  found = {rule: [] for rule in step['drops']}
  missing = {rule: min(n, EXAMPLES) for rule, n in step['drops'].items()}
  for name in folder.list_files(f'pages/{step["step"]}') if missing else ():
    for line in read_lines(folder, name):
      if missing.get(line['rule']):
        missing[line['rule']] -= 1
        found[line['rule']].append({'url': line['url'], 'text': line['text'], 'detail': line['detail']})
      if not any(missing.values()):
        break
  yield from found.items()


def table(report: dict) -> str:
  """The report's steps and drops as a table of text."""
  rows = [('pages in', report['pages_in'])]
  rows += [(f'  dropped by {rule}', n) for rule, n in report['drops'].items()]
  rows += [('pages out', report['pages_out']), ('bytes in', report['bytes_in']), ('bytes out', report['bytes_out'])]
  return '\n'.join(f'{name:40}{n:>14,}' for name, n in rows)
