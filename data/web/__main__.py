"""Cleans web pages into documents, and records why each page was kept or dropped.

python -m data.web --config=configs/data/fineweb.py --input='*.warc.gz' --out=DIR
"""

import sys

from absl import flags

from data.web.clean import clean
from data.web.executors import EXECUTORS
from data.web.report import table
from lm.base import config as config_lib
from lm.base import errors
from lm.base.errors import UserError


def main() -> None:
  config_lib.define_flags()
  flags.DEFINE_string('input', None, 'folder with WARC files, or a glob; local or remote')
  flags.DEFINE_string(
    'out', None, 'folder for the documents, report.json, report.html and the record of pages'
  )
  flags.DEFINE_string('executor', 'local', 'what runs the tasks: ' + ' | '.join(EXECUTORS))
  flags.DEFINE_integer(
    'tasks', 1, 'number of parts to divide the WARC files into; each writes one documents file'
  )
  flags.DEFINE_integer('workers', 1, 'number of tasks that run at the same time')
  config, given = config_lib.parse(sys.argv, __doc__), flags.FLAGS
  for name in ('input', 'out'):
    if not given[name].value:
      raise UserError(f'--{name} is missing')
  options = {'executor': given.executor, 'tasks': given.tasks, 'workers': given.workers}
  report = clean(given.input, given.out, config, **options)
  print(table(report) if report else f'submitted: the last job will write {given.out}/report.json')


if __name__ == '__main__':
  errors.run(main)
