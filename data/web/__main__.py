"""Cleans web pages into documents, and records why each page was kept or dropped.

python -m data.web --config=configs/data/fineweb.py --input='*.warc.gz' --out=DIR
"""

from collections.abc import Sequence

from absl import flags

from data.web.clean import clean
from data.web.executors import EXECUTORS
from data.web.report import table
from lm.base import config as config_lib
from lm.base import errors
from lm.base.errors import UserError


def main(argv: Sequence[str] | None = None) -> None:
  """Runs the command with these arguments, those of the process where they are None."""
  options = flags.FlagValues()
  flags.DEFINE_string(
    'input', None, 'folder with WARC files, or a glob; local or remote', flag_values=options
  )
  flags.DEFINE_string(
    'out',
    None,
    'folder for the documents, report.json, report.html and the record of pages',
    flag_values=options,
  )
  flags.DEFINE_string(
    'executor', 'local', 'what runs the tasks: ' + ' | '.join(EXECUTORS), flag_values=options
  )
  flags.DEFINE_integer(
    'tasks',
    1,
    'number of parts to divide the WARC files into; each writes one documents file',
    flag_values=options,
  )
  flags.DEFINE_integer(
    'workers', 1, 'number of tasks that run at the same time', flag_values=options
  )
  config = config_lib.parse(options, argv, __doc__)
  if not options.input:
    raise UserError(field='--input', allowed='a folder with WARC files, or a glob')
  if not options.out:
    raise UserError(field='--out', allowed='a folder')
  report = clean(
    options.input,
    options.out,
    config,
    executor=options.executor,
    tasks=options.tasks,
    workers=options.workers,
  )
  submitted = f'submitted: the last job will write {options.out}/report.json'
  print(table(report) if report else submitted)


if __name__ == '__main__':
  errors.run(main)
