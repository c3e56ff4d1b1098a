"""Shows why the web cleaning kept or dropped a page: `python -m data.why URL_OR_ID --run=DIR`.

It prints the rule that dropped the page and, for each figure that was measured, its value, its
bounds and the config fields (configs/data/fineweb.py) that set them.
"""

import argparse
import os
from collections.abc import Iterator, Sequence

from data.web import inputs, personal, rules
from data.web.line_files import read_lines
from lm.base import errors, files
from lm.base.errors import UserError


def find(run: files.Path, page: str) -> Iterator[dict]:
  """Yields the record's lines about a page, found by its URL or id, each with its `step`.

  A line is {id, url, rule, detail, figures, text}. The record holds URLs with personal data
  replaced, so such a URL also finds the pages whose URLs differ only in that data.

  Raises UserError if `run` is not a complete run.
  """
  folder = inputs.folder(run)
  if not folder.isfile('report.json') or not folder.isfile('run.json'):
    raise UserError(
      field='--run',
      value=os.fspath(run),
      allowed='the output folder of a complete run of `python -m data.web`',
    )
  urls = page, personal.hide_in_url(page)
  for name in folder.list_files('pages'):
    for line in read_lines(folder, name):
      if line['id'] == page or line['url'] in urls:
        yield line | {'step': name.split('/')[1]}


def explain(line: dict) -> str:
  """Returns a line of the record as text: the verdict, then each figure beside its bounds."""
  verdict = (
    f'dropped by {line["rule"]} (step {line["step"]}): {line["detail"]}' if line['rule'] else 'kept'
  )
  rows = [f'{line["url"]}  id {line["id"]}', f'  {verdict}']
  for figure, (value, low, high) in line['figures'].items():
    low_field, high_field = rules.config_fields(figure)
    bounds = [*_bound('>=', low, low_field), *_bound('<=', high, high_field)]
    rows.append(f'    {figure:70}{value:>12g}   {" and ".join(bounds)}'.rstrip())
  return '\n'.join([*rows, f'  {" ".join(line["text"].split())[:100]}'])


def _bound(sign: str, bound: float | None, field: str) -> list[str]:
  if bound is None:
    return []
  return [f'{sign} {bound:g} (config.{field})' if field else f'{sign} {bound:g}']


def main(argv: Sequence[str] | None = None) -> None:
  """Runs the command with these arguments, those of the process where they are None."""
  parser = argparse.ArgumentParser(
    prog='python -m data.why',
    description='Shows why the web cleaning kept or dropped a page, with the figures.',
  )
  parser.add_argument('page', help='URL of a page, or id of a document')
  parser.add_argument('--run', required=True, help='output folder of `python -m data.web`')
  flags = parser.parse_args(argv)
  found = [explain(line) for line in find(flags.run, flags.page)]
  if not found:
    raise UserError(
      field='page',
      value=flags.page,
      allowed=f'the URL or the id of a page in the WARC files of which {flags.run} was made',
    )
  print('\n\n'.join(found))


if __name__ == '__main__':
  errors.run(main)
