"""The stages of a recipe, in order, each in a process of its own: skipped when complete, resumable
after any kill.

`stages/NAME.json` in the work folder says what a stage is and how far it got:
    name, fingerprint, settings   what it was run as; never mixed with another
    started                       when it first was, in seconds since 1970
    complete                      it has ended well, so it is skipped from now on
    seconds                       wall-clock time of all its attempts
    peak_rss_bytes                most memory resident at once in its process and all that it started, summed; pages
                                  that they share are counted in each, so it is an upper bound
This process imports no jax: what it costs to find that all is complete is the start of Python.
"""

import contextlib
import dataclasses
import multiprocessing
import multiprocessing.connection
import multiprocessing.process
import multiprocessing.reduction
import os
import pathlib
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from lm.base import config as config_lib
from lm.base import files
from lm.base.errors import UserError, unknown
from lm.base.metrics import peak_rss_bytes
from lm.report import card

# between two looks at a running stage, each of them recorded: what a kill -9 may leave uncounted
SAMPLE_SECONDS = 0.5
GRACE_SECONDS = 60.0  # for a stage to save its work when asked to stop
LOCK_SECONDS = 5.0  # for the stage of a run that was killed to notice that, and end


@dataclasses.dataclass(frozen=True)
class Stage:
  """One stage.

  Attributes:
    name: unique among the stages; names its record and what the user sees.
    function: importable by its name (it runs in a spawned process); able to go on after a kill.
      Returns only when the stage is complete: if told to stop by SIGINT or SIGTERM it raises, or
      exits with a status other than 0.
    args: its arguments; picklable.
    fingerprint: digest of all that decides its output: its settings and the fingerprints of the
      stages before it.
    outputs: paths, relative to the work folder, that exist once it is complete; if one is gone it
      is run again.
    settings: JSON; only to name, in an error, the field that differs when the fingerprint does.
  """

  name: str
  function: Callable[..., object]
  args: tuple = ()
  fingerprint: str = ''
  outputs: tuple[str, ...] = ()
  settings: Any = None


@dataclasses.dataclass(frozen=True)
class TrainingRun:
  """Trains as a stage of a recipe: a run that was told to stop is not complete."""

  train: Callable[..., None]

  def __call__(self, config: ConfigDict, workdir: pathlib.Path) -> None:
    try:
      self.train(config, workdir)
    except SystemExit:
      sys.exit(128 + signal.SIGTERM)


def run(
  config: ConfigDict,
  workdir: pathlib.Path,
  data_steps: Mapping[str, tuple[Callable[..., None], str, str]],
  train: Callable[..., None],
) -> None:
  """Runs the stages of a recipe, each in a process of its own; those that are complete are skipped.

  Args:
    config: a recipe (`configs.base.get_recipe`).
    workdir: its folder.
    data_steps: for each stage that makes data, its function, its part of the config, and what it
      leaves behind (`data.pipeline.steps.STEPS`).
    train: runs a training stage, given its config and its folder.
  """
  training_run = TrainingRun(train)
  known = {
    **data_steps,
    **{name: (training_run, name, f'{name}/report.json') for name in ('pretrain', 'sft', 'rl')},
    'report': (card.write_report, None, 'report.json'),
  }
  todo, fingerprint = [], ''
  for name in config.stages:
    if name not in known:
      raise unknown('config.stages', name, known)
    function, part_name, output = known[name]
    part = config[part_name] if part_name else None
    settings = config_lib.as_json(part) if part else {}
    fingerprint = files.digest([name, settings, fingerprint])
    if function is training_run:
      files.write_json(workdir / 'final.json', {'run': name})
      args = (config_lib.place(part, workdir), workdir / name)
    else:
      args = (part, workdir) if part else (workdir,)
    todo.append(Stage(name, function, args, fingerprint, (output,), settings))
  run_stages(workdir, todo)
  print(
    f'report: {workdir}/report.html (also .md, .json)\nchat:   python -m lm.chat '
    f'--checkpoint={workdir}'
  )


def run_stages(workdir: files.Path, stages: Sequence[Stage]) -> None:
  """Runs the stages that are not complete, in order. SIGINT and SIGTERM are passed on to the
  running stage.

  A stage whose record has another fingerprint is never run over nor skipped: outputs of two configs
  would mix.

  Raises:
    UserError: another process uses `workdir`; a stage's record is of another config; a stage failed
      (its own one-line message if it raised a UserError or an OSError; else its traceback is on
      stderr).
  """
  workdir = pathlib.Path(workdir)
  with files.locked(workdir, LOCK_SECONDS) as fd, ended_by_sigterm():
    for stage in stages:
      _check(workdir, stage)
    for i, stage in enumerate(stages, 1):
      header, record = f'[{i}/{len(stages)}] {stage.name}', _record(workdir, stage)
      if record['complete'] and all((workdir / output).exists() for output in stage.outputs):
        print(f'{header}: complete, skipped ({record["seconds"]:.0f} s)', flush=True)
        continue
      print(f'{header}: {"going on" if record["seconds"] else "starting"} ...', flush=True)
      _run(workdir, stage, record, _Lock(fd))
      print(
        f'{header}: done ({record["seconds"]:.0f} s, {record["peak_rss_bytes"] / 2**20:,.0f} MiB)',
        flush=True,
      )


def _path(workdir: pathlib.Path, stage: Stage) -> pathlib.Path:
  return workdir / 'stages' / f'{stage.name}.json'


def _record(workdir: pathlib.Path, stage: Stage) -> dict[str, Any]:
  if _path(workdir, stage).exists():
    return files.read_json(_path(workdir, stage))
  own = {
    'name': stage.name,
    'fingerprint': stage.fingerprint,
    'settings': stage.settings,
    'started': time.time(),
  }
  return own | {'complete': False, 'seconds': 0.0, 'peak_rss_bytes': 0}


def _check(workdir: pathlib.Path, stage: Stage) -> None:
  record = _record(workdir, stage)
  if record['fingerprint'] != stage.fingerprint:
    found = files.difference(record['settings'], stage.settings)
    what = (
      f'{found[0] or "settings"} was {found[1]!r}, now it is {found[2]!r}'
      if found
      else 'its fingerprint differs'
    )
    raise UserError(
      f'stage {stage.name!r} in {workdir} was run with another config ({what}); give another '
      '--workdir, '
      f'or remove {workdir} to start anew'
    )


def _run(workdir: pathlib.Path, stage: Stage, record: dict[str, Any], lock: '_Lock') -> None:
  """Runs one stage in a child, keeping its record up to date; raises UserError if it fails."""
  path, spawn = _path(workdir, stage), multiprocessing.get_context('spawn')
  receiver, sender = spawn.Pipe(duplex=False)
  child = spawn.Process(
    target=_child, args=(sender, lock, stage.function, stage.args), name=stage.name
  )
  before, start = record['seconds'], time.monotonic()

  def update(peak: int, complete: bool = False) -> None:
    seconds = before + time.monotonic() - start
    record.update(
      complete=complete, seconds=seconds, peak_rss_bytes=max(record['peak_rss_bytes'], peak)
    )
    files.write_json(path, record)

  update(0)
  child.start()
  try:
    sender.close()
    _watch(child, update)
  except (KeyboardInterrupt, SystemExit) as stop:
    os.kill(child.pid, signal.SIGINT if isinstance(stop, KeyboardInterrupt) else signal.SIGTERM)
    multiprocessing.connection.wait([child.sentinel], timeout=GRACE_SECONDS)
    update(0)
    raise
  finally:
    child.kill()
    with contextlib.suppress(ProcessLookupError):
      # what it left running; its number is not free before it is joined
      os.killpg(child.pid, signal.SIGKILL)
    child.join()
  error, peak = None, 0
  with contextlib.suppress(EOFError):  # it was killed before it could tell
    error, peak = receiver.recv()
  update(peak, complete=child.exitcode == 0)
  if error:
    raise UserError(error)
  if child.exitcode < 0:
    name = signal.Signals(-child.exitcode).name
    hint = ' (out of memory?)' if name == 'SIGKILL' else ''
    raise UserError(
      f'stage {stage.name!r} was killed by {name}{hint}; the same command goes on with it'
    )
  if child.exitcode:
    raise UserError(
      f'stage {stage.name!r} failed with exit status {child.exitcode}; what it printed is above'
    )


def _watch(child: multiprocessing.process.BaseProcess, update: Callable[[int], None]) -> None:
  """Returns when the child has ended; until then records its time and memory."""
  # The sentinel alone would not do: a process that the stage forked and left running holds it open.
  while (
    not multiprocessing.connection.wait([child.sentinel], timeout=SAMPLE_SECONDS)
    and child.is_alive()
  ):
    update(_session_rss_bytes(child.pid))


def _session_rss_bytes(session: int) -> int:
  """Bytes now resident in all processes of a session, summed; 0 without /proc (the child then tells
  its own peak).
  """
  pages = 0
  for path in pathlib.Path('/proc').glob('[0-9]*/stat'):
    with contextlib.suppress(OSError):  # it has ended since
      # from the third on, `state`: see proc(5)
      fields = path.read_text().rpartition(')')[2].split()
      pages += int(fields[21]) if int(fields[3]) == session else 0
  return pages * os.sysconf('SC_PAGE_SIZE')


def _child(
  sender: multiprocessing.connection.Connection,
  lock: '_Lock',
  function: Callable[..., object],
  args: tuple,
):
  """In the child: runs the stage and sends (one-line error or None, own peak memory).

  `lock` is held open here too, so that the work folder is in use until both processes have ended.
  """
  os.setsid()  # a group of its own, so that all it starts can be ended with it
  threading.Thread(target=_die_with_parent, daemon=True).start()
  error = None
  try:
    function(*args)
  except (UserError, OSError) as raised:
    if os.environ.get('DEEPDIVE_TRACEBACK'):
      traceback.print_exc()
    error = ' '.join(str(raised).split())
  finally:
    sender.send((error, peak_rss_bytes()))
  if error is not None:
    sys.exit(1)


def _die_with_parent() -> None:
  multiprocessing.connection.wait([multiprocessing.parent_process().sentinel])
  os.killpg(0, signal.SIGKILL)


class _Lock:
  """An open file descriptor that a spawned child inherits, and with it the lock on the file."""

  def __init__(self, fd: int):
    self._fd = fd

  def __reduce__(self):
    return _inherit, (multiprocessing.reduction.DupFd(self._fd),)


def _inherit(duplicate) -> _Lock:
  fd = duplicate.detach()
  os.set_inheritable(fd, False)  # not by the programs that the child starts
  return _Lock(fd)


@contextlib.contextmanager
def ended_by_sigterm() -> Iterator[None]:
  """Inside, SIGTERM ends this process in order."""
  previous = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
  try:
    yield
  finally:
    signal.signal(signal.SIGTERM, previous)
