"""Sweeps: the trials that a config file's `sweep(add, arg)` lists, run in turn or several at a
time, and their table.

A trial is a run of train.py in `trials/NAME` of the sweep's folder. The same command runs those
that are not complete, and goes on with those that were begun. No jax here: trials have processes,
and devices, of their own.
"""

import dataclasses
import os
import pathlib
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from lm.base import config as config_lib
from lm.base import files, plots
from lm.base.errors import UserError
from lm.launch import recipes
from lm.report import scaling

POLL_SECONDS = 0.2


@dataclasses.dataclass(frozen=True)
class Trial:
  """One run of a sweep: its name, which is that of its folder, and what it changes in the sweep's
  config.
  """

  name: str
  fields: dict[str, Any]


def trials(spec: str) -> list[Trial]:
  """What the `sweep(add, arg)` of a config file 'FILE' or 'FILE:ARG' adds, by add({'optim.lr':
  1e-3, ...}, name).

  A trial without a name has one made of its fields.

  Raises:
    UserError: the file has no sweep, or it adds an unknown field (the nearest is named), a name
      twice or one that is not fit for a folder, or nothing.
  """
  config, listed = config_lib.load(spec), []

  def add(fields: dict[str, Any], name: str = '') -> None:
    for field in fields:
      config_lib.check_field(config, field)
    name = name or '_'.join(
      f'{field.rpartition(".")[2]}={value}' for field, value in fields.items()
    )
    if not re.fullmatch(r'[\w.=+-]+', name):
      raise UserError(
        f'{spec}: the trial {name!r} needs a name of letters, digits and _.=+-, the second '
        'argument of add()'
      )
    listed.append(Trial(name, dict(fields)))

  config_lib.function(spec, 'sweep')(add, spec.partition(':')[2] or None)
  names = [trial.name for trial in listed]
  if not names or len(set(names)) < len(names):
    raise UserError(
      f'{spec}: sweep() adds {len(names)} trials, {len(names) - len(set(names))} of them twice'
    )
  return listed


def commands(
  spec: str, overrides: Sequence[str], workdir: pathlib.Path, listed: Sequence[Trial]
) -> list[list[str]]:
  """The command of each trial. `overrides` ('--config.FIELD=VALUE') apply to all; a trial's own
  fields come after them.
  """
  return [
    [
      sys.executable,
      'train.py',
      f'--config={spec}',
      f'--workdir={workdir / "trials" / trial.name}',
      *overrides,
      *(f'--config.{field}={value}' for field, value in trial.fields.items()),
    ]
    for trial in listed
  ]


def run(
  spec: str,
  config: ConfigDict,
  overrides: Sequence[str],
  workdir: pathlib.Path,
  *,
  parallel: int,
  fit: bool,
) -> None:
  """Runs what is missing of a sweep; writes sweep.json, sweep.md and sweep.png, with `fit` also the
  scaling law.

  Args:
    config: of the sweep, with the overrides.
    parallel: trials at one time.
    fit: whether the trials are a ladder of sizes, see `lm.report.card.scaling`; adds ladder.json, ladder.md and
      ladder.png.

  Raises:
    UserError: a trial failed (the others are run all the same), or one that is there was run with
      another config.
  """
  listed = trials(spec)
  waiting = [
    (trial, command)
    for trial, command in zip(listed, commands(spec, overrides, workdir, listed), strict=True)
    if not _complete(workdir, trial, config)
  ]
  print(f'{len(listed)} trials, {len(listed) - len(waiting)} complete', flush=True)
  failed = _run_all(workdir, waiting, parallel)
  rows = [_row(workdir, trial) for trial in listed if trial.name not in failed]
  if rows:
    _write(workdir, rows)
  if failed:
    raise UserError(
      f'{len(failed)} of {len(listed)} trials failed: '
      + '; '.join(f'{n}: {why}' for n, why in failed.items())
    )
  if fit:
    scaling.write(workdir, [(row['compute'], row['value']) for row in rows])
  print(
    f'wrote {workdir}/sweep.md (also .json, .png)' + (f' and {workdir}/ladder.md' if fit else '')
  )


def run_command(config: ConfigDict, argv: Sequence[str], options: Any) -> None:
  """Does what `train.py --sweep` is asked for: runs the trials, or prints their commands.

  Args:
    config: of the sweep, with what the command line sets.
    argv: the command line.
    options: its flags (`lm.launch.options`).
  """
  if not options.workdir:
    raise UserError('--workdir is missing; for example --workdir=runs/sweep')
  spec = next(re.fullmatch(r'--?config=(.*)', a)[1] for a in argv[1:] if re.match(r'--?config=', a))
  overrides = [a for a in argv[1:] if re.match(r'--?config\.', a)]
  workdir = files.local_path(options.workdir, '--workdir of a sweep')
  if options['print-commands'].value:
    return print_commands(spec, overrides, workdir)
  run(spec, config, overrides, workdir, parallel=options.parallel, fit=options.fit)


def print_commands(spec: str, overrides: Sequence[str], workdir: pathlib.Path) -> None:
  """One shell command a line, for a scheduler."""
  for command in commands(spec, overrides, workdir, trials(spec)):
    print(shlex.join(['python', *command[1:]]))


def _complete(workdir: pathlib.Path, trial: Trial, config: ConfigDict) -> bool:
  path = workdir / 'trials' / trial.name / 'report.json'
  if not path.exists():
    return False
  wanted = ConfigDict(config)
  wanted.update_from_flattened_dict(trial.fields)
  stored, expected = files.read_json(path)['provenance']['config'], config_lib.as_json(wanted)
  # then the run says what its model is, in part or whole
  if config.init_from or not expected['model']['vocab_size']:
    for side in (stored, expected):
      side.pop('model') if config.init_from else side['model'].pop('vocab_size')
  if found := files.difference(stored, expected):
    raise UserError(
      f'{path} is of a trial whose config.{found[0]} is {found[1]!r}, here it is {found[2]!r}; '
      'give another --workdir'
    )
  return True


@recipes.ended_by_sigterm()
def _run_all(
  workdir: pathlib.Path, waiting: list[tuple[Trial, list[str]]], parallel: int
) -> dict[str, str]:
  """Runs all, so many at a time; returns the last line of those that failed, by name. Told to stop,
  it has them stop.
  """
  running: list[tuple[Trial, subprocess.Popen]] = []
  failed, waiting = {}, list(waiting)
  try:
    while waiting or running:
      while waiting and len(running) < parallel:
        trial, command = waiting.pop(0)
        print(f'{trial.name}: started', flush=True)
        running.append((trial, _start(workdir / 'trials' / trial.name, command)))
      time.sleep(POLL_SECONDS)
      for trial, process in [(t, p) for t, p in running if p.poll() is not None]:
        running.remove((trial, process))
        # A trial that was told to stop ends with 0 too, and has no report.
        if process.returncode or not (workdir / 'trials' / trial.name / 'report.json').exists():
          said = (
            (workdir / 'trials' / trial.name / 'log.txt').read_text(errors='replace').split('\n')
          )
          failed[trial.name] = next(
            (line for line in reversed(said) if line.strip()), f'status {process.returncode}'
          )
        print(f'{trial.name}: {"failed" if trial.name in failed else "done"}', flush=True)
  finally:
    for _, process in running:
      process.terminate()
    for _, process in running:
      process.wait()
  return failed


def _start(folder: pathlib.Path, command: list[str]) -> subprocess.Popen:
  folder.mkdir(parents=True, exist_ok=True)
  with open(folder / 'log.txt', 'w', encoding='utf-8') as log:
    # A session of its own, so that Ctrl-C comes to it once, from here.
    return subprocess.Popen(
      command,
      stdout=log,
      stderr=log,
      stdin=subprocess.DEVNULL,
      env=os.environ,
      start_new_session=True,
    )


def _row(workdir: pathlib.Path, trial: Trial) -> dict[str, Any]:
  """A trial's line of the table; `compute` is 6 x parameters x tokens, in FLOPs (Kaplan et al.,
  arXiv 2001.08361).
  """
  report = files.read_json(workdir / 'trials' / trial.name / 'report.json')
  row = {'name': trial.name, 'fields': trial.fields}
  if 'rl' in report:
    return row | {'value': report['rl']['reward_last']}
  if 'eval/val/loss' not in report:
    raise UserError(
      f'trial {trial.name} has no held-out data to be judged by: set config.data.val or '
      'data.held_out'
    )
  row |= {
    'value': report['eval/val/loss'],
    'parameters': report['parameters'],
    'tokens': report['tokens'],
  }
  return row | {'compute': 6 * row['parameters'] * row['tokens']}


def _write(workdir: pathlib.Path, rows: list[dict[str, Any]]) -> None:
  what = 'last reward' if 'tokens' not in rows[0] else 'held-out loss, nats a token'
  best = (max if 'tokens' not in rows[0] else min)(rows, key=lambda row: row['value'])
  files.write_json(workdir / 'sweep.json', {'value': what, 'best': best['name'], 'trials': rows})
  names = list(dict.fromkeys(field for row in rows for field in row['fields']))
  lines = ['| ' + ' | '.join([*names, what]) + ' |', '|---' * (len(names) + 1) + '|']
  for row in sorted(
    rows,
    key=lambda row: (
      row['value'] if best is not max(rows, key=lambda r: r['value']) else -row['value']
    ),
  ):
    cells = [str(row['fields'].get(name, '')) for name in names]
    lines.append('| ' + ' | '.join([*cells, f'{row["value"]:.4f}']) + ' |')
  files.write_text(workdir / 'sweep.md', '\n'.join(lines) + '\n')
  numbers = (
    names
    if len(names) == 1 and all(isinstance(row['fields'].get(names[0]), int | float) for row in rows)
    else []
  )
  x = [row['fields'][names[0]] for row in rows] if numbers else [row['name'] for row in rows]
  files.write_bytes(
    workdir / 'sweep.png',
    plots.png(plots.points(x, [row['value'] for row in rows], what, *numbers)),
  )
