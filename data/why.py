"""Why a page was kept or dropped by the web cleaning, with the figures: `python -m data.why
URL_OR_ID --run=DIR`.
"""

import argparse
from collections.abc import Iterator, Sequence

from data.web import inputs, personal
from data.web.blocks import read_lines
from lm.base import errors, files
from lm.base.errors import UserError


def find(run: files.Path, page: str) -> Iterator[dict]:
  """The record's lines {id, url, rule, detail, figures, text} about a page, by its URL or id, with
  the `step` added.

  A URL with personal data in it is found by what stands for it on record, and so may others be that
  differ only in that.

  Raises UserError when `run` holds no complete run.
  """
  folder = inputs.folder(run)
  if not folder.isfile('report.json') or not folder.isfile('run.json'):
    raise UserError(
      f'{run} holds no complete run: give as --run the folder that `python -m data.web` wrote'
    )
  urls = page, personal.hide_in_url(page)
  for name in folder.list_files('pages'):
    for line in read_lines(folder, name):
      if line['id'] == page or line['url'] in urls:
        yield line | {'step': name.split('/')[1]}


def explain(line: dict) -> str:
  """A line of the record as text: the verdict, then each figure beside its bounds."""
  verdict = (
    f'dropped by {line["rule"]} (step {line["step"]}): {line["detail"]}' if line['rule'] else 'kept'
  )
  rows = [f'{line["url"]}  id {line["id"]}', f'  {verdict}']
  for what, (value, low, high) in line['figures'].items():
    bounds = [
      f'{sign} {bound:g}' for sign, bound in (('>=', low), ('<=', high)) if bound is not None
    ]
    rows.append(f'    {what:70}{value:>12g}   {" and ".join(bounds)}'.rstrip())
  return '\n'.join([*rows, f'  {" ".join(line["text"].split())[:100]}'])


def main(argv: Sequence[str] | None = None) -> None:
  parser = argparse.ArgumentParser(
    prog='python -m data.why', description='Why a page was kept or dropped.'
  )
  parser.add_argument('page', help='URL, or id of a document')
  parser.add_argument('--run', required=True, help='folder that `python -m data.web` wrote')
  flags = parser.parse_args(argv)
  found = [explain(line) for line in find(flags.run, flags.page)]
  if not found:
    raise UserError(f'no page {flags.page!r} in {flags.run}: it was not in the WARC files')
  print('\n\n'.join(found))


if __name__ == '__main__':
  errors.run(main)
