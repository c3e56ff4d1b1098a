"""Sweeps: runs the trials that a config file's `sweep(add)` lists, and ranks them in a table.

A trial is a run of train.py in `trials/NAME` of the sweep's folder. Trials run one after the other
or several at a time. The same command again runs those that are not complete, and resumes those
that were started. This module imports no jax, since trials have processes and devices of their own.
"""

import copy
import dataclasses
import inspect
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

POLL_SECONDS = 0.2  # between two looks at the running trials


@dataclasses.dataclass(frozen=True)
class Trial:
  """One run of a sweep.

  Attributes:
    name: the name of its folder.
    fields: the values of the config's fields that it changes.
  """

  name: str
  fields: dict[str, Any]


def trials(spec: str) -> list[Trial]:
  """Returns the trials that a config file's `sweep(add)` or `sweep(add, variant)` adds.

  The function calls `add({'optim.lr': 1e-3, ...}, name)` for each trial. Without a name, the trial
  is named after its fields.

  Args:
    spec: 'FILE' or 'FILE:VARIANT'.

  Raises:
    UserError: the file has no such function, or it adds nothing, an unknown field, a name twice, or
      a name that cannot be that of a folder.
  """
  config, listed = config_lib.load(spec), []

  def add(fields: dict[str, Any], name: str = '') -> None:
    for field in fields:
      config_lib.check_field(config, field)
    if not name:
      name = '_'.join(f'{field.split(".")[-1]}={value}' for field, value in fields.items())
    if not re.fullmatch(r'[\w.=+-]+', name):
      raise UserError(
        field=f'name of a trial of {spec}',
        value=name,
        allowed='letters, digits and _.=+-',
        message='The name is the second argument of add().',
      )
    if any(trial.name == name for trial in listed):
      raise UserError(
        field=f'name of a trial of {spec}', value=name, allowed='a name that no other trial has'
      )
    listed.append(Trial(name, dict(fields)))

  list_trials = config_lib.function(spec, 'sweep')
  variant = spec.partition(':')[2] or None
  takes_variant = len(inspect.signature(list_trials).parameters) > 1
  list_trials(*((add, variant) if takes_variant else (add,)))
  if not listed:
    raise UserError(
      field=f'number of trials that sweep() of {spec} adds', value=0, allowed='at least 1'
    )
  return listed


def commands(
  spec: str, overrides: Sequence[str], workdir: pathlib.Path, listed: Sequence[Trial]
) -> list[list[str]]:
  """Returns the command of each trial.

  Args:
    spec: the config file of the sweep.
    overrides: options '--config.FIELD=VALUE' of all trials; a trial's own fields come after them.
    workdir: the folder of the sweep.
    listed: the trials.
  """
  result = []
  for trial in listed:
    command = [sys.executable, 'train.py', f'--config={spec}', f'--workdir={_run(workdir, trial)}']
    own = [f'--config.{field}={value}' for field, value in trial.fields.items()]
    result.append([*command, *overrides, *own])
  return result


def _run(workdir: pathlib.Path, trial: Trial) -> pathlib.Path:
  """Returns the run folder of a trial."""
  return workdir / 'trials' / trial.name


def run(
  spec: str,
  config: ConfigDict,
  overrides: Sequence[str],
  workdir: pathlib.Path,
  *,
  free: tuple[str, ...],
  parallel: int,
  fit: bool,
) -> None:
  """Runs the trials that are not complete, and writes sweep.json, sweep.md and sweep.png.

  Args:
    spec: the config file of the sweep.
    config: its config, with the overrides.
    overrides: as in `commands`.
    workdir: the folder of the sweep.
    free: fields that change no number. A complete trial that differs in them alone runs again, and
      only evaluates.
    parallel: the number of trials that run at a time.
    fit: whether the trials are a ladder of sizes, to which a scaling law is fitted
      (lm/report/scaling.py); it is written to ladder.json, ladder.md and ladder.png.

  Raises:
    UserError: a trial failed, after all others were run, or a complete one was run with another
      config.
  """
  listed = trials(spec)
  all_commands = zip(listed, commands(spec, overrides, workdir, listed), strict=True)
  waiting = [(t, command) for t, command in all_commands if not _complete(workdir, t, config, free)]
  print(f'{len(listed)} trials, {len(listed) - len(waiting)} complete', flush=True)
  failed = _run_all(workdir, waiting, parallel)
  rows = [_row(workdir, trial) for trial in listed if trial.name not in failed]
  if rows:
    _write(workdir, rows)
  if failed:
    causes = '; '.join(f'{name}: {cause}' for name, cause in failed.items())
    raise UserError(
      field='number of trials that failed',
      value=len(failed),
      allowed='0',
      message=causes,
    )
  if fit:
    if not all('compute' in row for row in rows):
      raise UserError(
        field='--fit', value=True, allowed='a sweep of trials with a held-out loss of tokens'
      )
    scaling.write(workdir, [(row['compute'], row['value']) for row in rows])
  ladder = f' and {workdir}/ladder.md' if fit else ''
  print(f'wrote {workdir}/sweep.md (also .json, .png){ladder}')


def run_command(
  config: ConfigDict, argv: Sequence[str], options: Any, free: tuple[str, ...]
) -> None:
  """Runs `train.py --sweep`: runs the trials, or prints their commands.

  Args:
    config: the config of the sweep, with what the command line sets.
    argv: the arguments of train.py.
    options: its flags (`lm.launch.options`).
    free: as in `run`.
  """
  if not options.workdir:
    raise UserError(field='--workdir', allowed='a folder, for example --workdir=runs/sweep')
  given = (re.fullmatch(r'--?config=(.*)', a) for a in argv)
  spec = next(found[1] for found in given if found)
  overrides = [a for a in argv if re.match(r'--?config\.', a)]
  workdir = files.local_path(options.workdir, '--workdir of a sweep')
  if options['print-commands'].value:
    return print_commands(spec, overrides, workdir)
  run(
    spec,
    config,
    overrides,
    workdir,
    free=free,
    parallel=options.parallel,
    fit=options.fit,
  )


def print_commands(spec: str, overrides: Sequence[str], workdir: pathlib.Path) -> None:
  """Prints the shell command of each trial on a line, for a scheduler."""
  for command in commands(spec, overrides, workdir, trials(spec)):
    print(shlex.join(['python', *command[1:]]))


def _complete(
  workdir: pathlib.Path, trial: Trial, config: ConfigDict, free: tuple[str, ...]
) -> bool:
  """Returns whether a trial is complete. Raises UserError if it was run with another config."""
  path = _run(workdir, trial) / 'report.json'
  if not path.exists():
    return False
  wanted = copy.deepcopy(config)
  wanted.update_from_flattened_dict(trial.fields)
  stored, expected = files.read_json(path)['provenance']['config'], config_lib.as_json(wanted)
  # A run records what the config leaves open: the model of its checkpoint, or the vocabulary size
  # of its tokenizer.
  for side in (stored, expected):
    if config.init_from:
      side.pop('model')
    elif not wanted.model.vocab_size:
      side['model'].pop('vocab_size')
  is_same = True
  for field, was, now in files.differences(stored, expected):
    if not config_lib.covers(free, field):
      raise UserError(
        field=f'config.{field}',
        value=now,
        allowed=f'{was!r}, with which the trial of {path} was run',
        message='Give another --workdir.',
      )
    is_same = False
  return is_same


@recipes.ended_by_sigterm()
def _run_all(
  workdir: pathlib.Path, waiting: list[tuple[Trial, list[str]]], parallel: int
) -> dict[str, str]:
  """Runs trials, `parallel` at a time, and returns why those that failed did, by name.

  When this process is told to stop, it ends them too.
  """
  running: list[tuple[Trial, subprocess.Popen]] = []
  failed, waiting = {}, list(waiting)
  try:
    while waiting or running:
      while waiting and len(running) < parallel:
        trial, command = waiting.pop(0)
        print(f'{trial.name}: started', flush=True)
        running.append((trial, _start(_run(workdir, trial), command)))
      time.sleep(POLL_SECONDS)
      ended = [(trial, process) for trial, process in running if process.poll() is not None]
      for trial, process in ended:
        running.remove((trial, process))
        folder = _run(workdir, trial)
        # A trial that was told to stop ends with status 0 too, but has no report.
        if process.returncode or not (folder / 'report.json').exists():
          failed[trial.name] = _last_line(folder / 'log.txt') or f'status {process.returncode}'
        print(f'{trial.name}: {"failed" if trial.name in failed else "done"}', flush=True)
  finally:
    for _, process in running:
      process.terminate()
    for _, process in running:
      process.wait()
  return failed


def _last_line(path: pathlib.Path) -> str:
  """Returns the last line of a text file that is not blank, '' if there is none."""
  lines = path.read_text(errors='replace').split('\n')
  return next((line for line in reversed(lines) if line.strip()), '')


def _start(folder: pathlib.Path, command: list[str]) -> subprocess.Popen:
  """Starts a trial, whose output goes to log.txt in its folder."""
  folder.mkdir(parents=True, exist_ok=True)
  with open(folder / 'log.txt', 'w', encoding='utf-8') as log:
    # In a session of its own, Ctrl-C does not reach it twice, from the terminal and from here.
    return subprocess.Popen(
      command,
      stdout=log,
      stderr=log,
      stdin=subprocess.DEVNULL,
      env=os.environ,
      start_new_session=True,
    )


def _row(workdir: pathlib.Path, trial: Trial) -> dict[str, Any]:
  """Returns what the table says of a trial.

  `compute` is 6 x parameters x tokens, in FLOPs (Kaplan et al., arXiv 2001.08361).
  """
  report = files.read_json(_run(workdir, trial) / 'report.json')
  row = {'name': trial.name, 'fields': trial.fields}
  if 'rl' in report:
    return row | {'value': report['rl']['reward_last']}
  if 'eval/val/loss' not in report:
    raise UserError(
      field=f'held-out loss of trial {trial.name}',
      message='Trials are ranked by it: set config.data.val or config.data.held_out.',
    )
  row |= {
    'value': report['eval/val/loss'],
    'parameters': report['parameters'],
    'tokens': report['tokens'],
  }
  return row | {'compute': 6 * row['parameters'] * row['tokens']}


def _write(workdir: pathlib.Path, rows: list[dict[str, Any]]) -> None:
  """Writes sweep.json, sweep.md and sweep.png; the best trial is the first of the table."""
  is_reward = 'tokens' not in rows[0]
  what = 'last reward' if is_reward else 'held-out loss, nats a token'
  ranked = sorted(rows, key=lambda row: row['value'], reverse=is_reward)
  best = ranked[0]['name']
  files.write_json(workdir / 'sweep.json', {'value': what, 'best': best, 'trials': rows})
  names = list(dict.fromkeys(field for row in rows for field in row['fields']))
  lines = ['| ' + ' | '.join([*names, what]) + ' |', '|---' * (len(names) + 1) + '|']
  for row in ranked:
    cells = [str(row['fields'].get(name, '')) for name in names]
    lines.append('| ' + ' | '.join([*cells, f'{row["value"]:.4f}']) + ' |')
  files.write_text(workdir / 'sweep.md', '\n'.join(lines) + '\n')
  values = [row['value'] for row in rows]
  x = [row['fields'].get(names[0]) for row in rows] if len(names) == 1 else []
  if x and all(isinstance(number, int | float) for number in x):
    figure = plots.points(x, values, ylabel=what, xlabel=names[0])
  else:
    figure = plots.points([row['name'] for row in rows], values, ylabel=what)
  files.write_bytes(workdir / 'sweep.png', plots.png(figure))
