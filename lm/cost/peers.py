"""Runs the benchmarks that have a peer, and tells how ours compares: python -m lm.bench peers

Every comparison is a command of lm.bench or data.bench that times ours and a peer by turns, each in
processes of its own. It runs a few rounds, and the result has the median of their ratios with the
range. The extra `bench` installs the peers.
"""

import argparse
import dataclasses
import importlib.metadata
import os
import pathlib
import platform
import re
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

from lm.base.config import names
from lm.base.errors import UserError, unknown
from lm.cost.workers import FromData, json_lines, require


@dataclasses.dataclass(frozen=True)
class Comparison:
  """A benchmark with a peer.

  Attributes:
    peer: the peer, for people.
    packages: what the peer needs installed.
    command: the arguments of python; those of lm.bench and data.bench print lines of JSON.
    ratio: the key of such a line that says how many times as fast ours is.
    by: the keys that tell lines of one command apart.
  """

  peer: str
  packages: tuple[str, ...]
  command: tuple[str, ...]
  ratio: str = 'ratio'
  by: tuple[str, ...] = ()

  @property
  def beside_other_python(self) -> bool:
    """Returns whether --beside-python may name the interpreter of the peer."""
    return 'lm.bench' in self.command


TORCH, HUGGING_FACE = ('torch',), ('torch', 'transformers')


def _step(peer: str, packages: tuple[str, ...], *flags: str) -> Comparison:
  return Comparison(peer, packages, ('lm.bench', 'train', *flags))


def _engine(command: str, *flags: str) -> Comparison:
  flags = ('--beside=transformers', '--turns=1', *flags)
  return Comparison(
    'transformers generate', HUGGING_FACE, ('lm.bench', command, *flags), by=('batch',)
  )


COMPARISONS = {
  'train': (
    _step('plain GPT, torch.compile', TORCH, '--beside=plain'),
    _step('plain GPT, torch.compile', TORCH, '--beside=plain', '--vocab=50304'),
    _step('transformers GPT-2, torch.compile', HUGGING_FACE, '--beside=transformers'),
    _step('transformers GPT-2, eager', HUGGING_FACE, '--beside=transformers-eager'),
    _step(
      'transformers Llama, torch.compile', HUGGING_FACE, '--beside=transformers', '--family=llama'
    ),
  ),
  'decode': (_engine('decode'),),
  'prefill': (_engine('prefill'),),
  'rl': (
    Comparison(
      'trl GRPOTrainer',
      ('datasets', 'torch', 'transformers', 'trl'),
      ('lm.bench', 'rl', '--beside=trl', '--turns=1'),
    ),
  ),
  'clean': (
    Comparison(
      'datatrove', ('datatrove',), ('data.bench', 'clean', '--rounds=1'), 'speed_over_datatrove'
    ),
  ),
  'duplicates': (
    Comparison(
      'datatrove',
      ('datatrove',),
      ('data.bench', 'duplicates', '--rounds=1', '--sizes=1000'),
      'speed_over_datatrove',
    ),
  ),
  'tokenizer': (
    Comparison(
      'tiktoken', ('tiktoken',), ('data.bench', 'tokenizer', '--rounds=1'), 'speed_over_tiktoken'
    ),
  ),
}


def add_flags(parser: argparse.ArgumentParser) -> None:
  """Adds the flags of the command."""
  choices = ', '.join(COMPARISONS)
  parser.add_argument('--what', default='train', help=f'one or several of {choices} (train)')
  parser.add_argument('--rounds', type=int, default=3, help='runs of each (default 3)')
  parser.add_argument('--table', help='a file for a table in Markdown of all results')


def results(
  args: argparse.Namespace, argv: list[str], from_data: FromData
) -> Iterator[dict[str, Any]]:
  """Yields one result for each comparison, and for each batch size where it has several.

  Raises:
    UserError: --what names no benchmark, --rounds is below 1, or a peer is not installed.
  """
  del argv, from_data  # The commands that it runs have their own.
  chosen = []
  for name in names(args.what):
    if name not in COMPARISONS:
      raise unknown('--what', name, COMPARISONS)
    chosen += [(name, comparison) for comparison in COMPARISONS[name]]
  if args.rounds < 1:
    raise UserError(field='--rounds', value=args.rounds, allowed='at least 1')
  for _, comparison in chosen:
    python = args.beside_python if comparison.beside_other_python else sys.executable
    require(python, comparison.packages, f'the peer {comparison.peer}')
  rows = []
  for name, comparison in chosen:
    python = [f'--beside-python={args.beside_python}'] if comparison.beside_other_python else []
    rounds = [_lines([*comparison.command, *python]) for _ in range(args.rounds)]
    for lines in zip(*rounds, strict=True):
      if comparison.ratio in lines[0]:
        rows.append({'what': name} | _row(comparison, lines))
        yield rows[-1]
  if args.table:
    pathlib.Path(args.table).write_text(table(rows, described()), encoding='utf-8')


def _lines(command: Sequence[str]) -> list[dict[str, Any]]:
  """Returns what a benchmark prints."""
  return json_lines([*command, *(['--json'] if command[0] == 'lm.bench' else [])])


def _row(comparison: Comparison, lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
  """Returns the result of a comparison from the same line of every round."""

  def spread(values: Sequence[float]) -> dict[str, float]:
    return {'median': statistics.median(values), 'min': min(values), 'max': max(values)}

  flags = [x for x in comparison.command[2:] if not re.match('--(beside|rounds|turns|sizes)', x)]
  row = {
    'peer': comparison.peer,
    'flags': ' '.join([*flags, *(f'--{key}={lines[0][key]}' for key in comparison.by)]),
    'rounds': len(lines),
    'ratio': spread([line[comparison.ratio] for line in lines]),
  }
  beside = [line.get('beside', {}) for line in lines]
  if 'tokens_per_s' in beside[0]:
    row['tokens_per_s'] = spread([line['tokens_per_s'] for line in lines])
    row['beside_tokens_per_s'] = spread([line['tokens_per_s'] for line in beside])
  if 'memory_ratio' in lines[0]:
    pairs = list(zip(lines, beside, strict=True))
    row |= {
      'memory_ratio': spread([line['memory_ratio'] for line in lines]),
      'peak_rss_bytes': max(line['peak_rss_bytes'] for line in lines),
      'first_step_ratio': spread([a['first_step_s'] / b['first_step_s'] for a, b in pairs]),
      'first_step_s': spread([line['first_step_s'] for line in lines]),
      'share_of_ceiling': spread([line['share_of_ceiling'] for line in lines]),
      'beside_share_of_ceiling': spread([line['share_of_ceiling'] for line in beside]),
    }
  return row


def described() -> str:
  """Returns the date, the processor and the versions, for the table."""
  processor = platform.processor() or platform.machine()
  try:
    with open('/proc/cpuinfo', encoding='utf-8') as file:
      found = re.search(r'model name\s*: (.*)', file.read())
    processor = found[1] if found else processor
  except FileNotFoundError:  # There is none outside Linux.
    pass
  versions = []
  for package in ('jax', 'torch', 'transformers', 'datatrove', 'tiktoken'):
    try:
      versions.append(f'{package} {importlib.metadata.version(package)}')
    except importlib.metadata.PackageNotFoundError:
      continue
  cores = len(os.sched_getaffinity(0))
  date = time.strftime('%Y-%m-%d')
  return f'{date}, {processor.strip()}, {cores} cores; {", ".join(versions)}'


def table(rows: Sequence[dict[str, Any]], where: str) -> str:
  """Returns results as a table in Markdown, with a line that says where they were measured."""

  def shown(x: dict[str, float] | None) -> str:
    return f'{x["median"]:.2f} ({x["min"]:.2f} to {x["max"]:.2f})' if x else ''

  lines = [
    '| what | peer | speed | peak memory | first step |',
    '|---|---|---|---|---|',
  ]
  for row in rows:
    what = f'{row["what"]} {row["flags"]}'.strip()
    cells = [shown(row.get(key)) for key in ('ratio', 'memory_ratio', 'first_step_ratio')]
    lines.append(f'| `{what}` | {row["peer"]} | {" | ".join(cells)} |')
  return '\n'.join([*lines, '', f'{where}.', ''])
