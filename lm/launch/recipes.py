"""Runs the jobs of a recipe in order, each in a process of its own.

A job makes data, trains a model or writes the report. One that is complete is skipped, and one that
was killed goes on. One whose settings differ only where they may (`Job.free`) runs again; a
training run then just evaluates. `stages/NAME.json` in the work folder records a job:

  name                    its name in `config.stages`
  fingerprint             what its output depends on; outputs of two of them are never mixed
  settings                what it was run with
  started                 when it was first started, in seconds since 1970
  complete                whether it has finished, so that it is skipped from now on
  seconds                 the wall time of all its attempts
  peak_rss_bytes          the largest resident memory of its process and of all that it started,
                          summed; shared pages count in each, so that this is an upper bound

This process imports no jax, so that it takes no longer than the start of Python to find that all is
complete.
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
from lm.base.recipe_steps import Step
from lm.report import card, distillation, knowledge, overoptimization, rounds, thinking

# How the process of a job starts: it has no state of this one. Tests fork, which spares imports.
START_METHOD = 'spawn'
SAMPLE_SECONDS = 0.5  # between two records of a running job; a kill -9 may lose so much
GRACE_SECONDS = 60.0  # in which a job must save its work when told to stop
LOCK_SECONDS = 5.0  # in which the job of a killed recipe notices that, and ends


@dataclasses.dataclass(frozen=True)
class Job:
  """One job of a recipe.

  Attributes:
    name: unique in the recipe; the record and the lines that the user sees have it.
    function: does the work, in a process of its own, so that it must be importable by its name. It
      must be able to go on after a kill, and returns only when the job is complete: told to stop by
      SIGINT or SIGTERM it raises, or exits with a status other than 0.
    args: its arguments, which must be picklable.
    fingerprint: a digest of all that decides its output: its settings and the fingerprints of the
      jobs before it.
    outputs: paths relative to the work folder that exist once it is complete; where one is missing
      the job runs again.
    settings: JSON; the job runs again when they differ from those that it was run with.
    free: dotted names of the settings that the fingerprint leaves out.
    trained: the run folder, relative to the work folder, of the model that the job trains. That of
      the last such job is the recipe's model (`final.json`). '' if it trains none.
  """

  name: str
  function: Callable[..., object]
  args: tuple = ()
  fingerprint: str = ''
  outputs: tuple[str, ...] = ()
  settings: Any = None
  free: tuple[str, ...] = ()
  trained: str = ''


@dataclasses.dataclass(frozen=True)
class TrainingRun:
  """Trains a model as a job, which is not complete where the run was told to stop."""

  train: Callable[..., None]

  def __call__(self, config: ConfigDict, workdir: pathlib.Path) -> None:
    try:
      self.train(config, workdir)
    except SystemExit:  # with status 0, which would count as complete
      sys.exit(128 + signal.SIGTERM)


def run(
  config: ConfigDict,
  workdir: pathlib.Path,
  data_steps: Mapping[str, Step],
  train: Callable[..., None],
  free: tuple[str, ...],
  commands: Mapping[str, Callable[[ConfigDict, pathlib.Path], None]],
) -> None:
  """Runs the jobs that a recipe lists in `config.stages`; those that are complete are skipped.

  A job is the name of a data step, a report, or a part of the config that is a training run; or
  COMMAND:PART, a command that is run with a part of the config in a folder of that name.

  Args:
    config: the recipe (`configs.base.get_recipe`).
    workdir: its work folder.
    data_steps: the jobs that make data (`data.pipeline.steps.STEPS`).
    train: trains a model, given a config and a run folder.
    free: fields of a training run that change no number (`FREE_ON_RESUME` of configs/base.py).
    commands: other functions of a config and a folder, where they write report.json, by name.

  Raises:
    UserError: `config.stages` names an unknown job, or as `run_jobs`.
  """
  known = _known(config, data_steps, train)
  jobs, fingerprint, all_settings = [], '', {}
  for entry in config.stages:
    command, _, name = entry.rpartition(':')
    if command in commands and name in config:
      step = Step(commands[command], name, f'{name}/report.json')
    elif entry in known:
      step = known[entry]
    else:
      raise unknown('config.stages', entry, [*known, *(f'{each}:PART' for each in commands)])
    part, folder = config[step.part] if step.part else None, workdir
    settings, may_differ = config_lib.as_json(part) if part else dict(all_settings), ()
    is_training = isinstance(step.function, TrainingRun)
    if command or is_training:
      part, folder = config_lib.place(part, workdir), workdir / name
    if is_training and not _is_read(config, name):
      may_differ = free
    if not part:  # A report: it is written again when the settings of a job before it differ.
      may_differ = tuple(all_settings)
    all_settings[name] = settings
    fingerprint = files.digest([name, config_lib.without(settings, may_differ), fingerprint])
    jobs.append(
      Job(
        name=name,
        function=step.function,
        args=(part, folder) if part else (folder,),
        fingerprint=fingerprint,
        outputs=(step.output,),
        settings=settings,
        free=may_differ,
        trained=name if is_training else '',
      )
    )
  run_jobs(workdir, jobs)
  print(f'report: {workdir}/report.html (also .md, .json)')
  print(f'chat:   python -m lm.chat --checkpoint={workdir}')


def _known(
  config: ConfigDict, data_steps: Mapping[str, Step], train: Callable[..., None]
) -> dict[str, Step]:
  """Returns what a recipe may list by one name: data steps, reports and its training runs."""
  reports = {
    'report': card,
    'distillation': distillation,
    'knowledge': knowledge,
    'overoptimization': overoptimization,
    'rounds': rounds,
    'thinking': thinking,
  }
  known = dict(data_steps)
  known |= {name: Step(module.write_report, '', 'report.json') for name, module in reports.items()}
  training_run = TrainingRun(train)
  for name, part in config.items():
    if isinstance(part, ConfigDict) and 'stage' in part:  # the config of a training run
      known[name] = Step(training_run, name, f'{name}/report.json')
  return known


def _is_read(config: ConfigDict, name: str) -> bool:
  """Returns whether a part of the recipe reads a file of the run `name` beside its model.

  Such a file, a report or rollouts, depends on how the run is evaluated and logged.
  """
  return f'{{workdir}}/{name}/' in config.to_json()


def run_jobs(
  workdir: files.Path, jobs: Sequence[Job], *, clock: Callable[[], float] = time.monotonic
) -> None:
  """Runs the jobs that are not complete, in order, and passes SIGINT and SIGTERM on to them.

  A job whose record has another fingerprint is neither run nor skipped, since outputs of two
  configs would mix.

  Args:
    workdir: the work folder.
    jobs: what to run.
    clock: returns the time in seconds, from which the wall time of a job is taken.

  Raises:
    UserError: another process uses `workdir`, a record is of another config, or a job failed. Of a
      job that raised a UserError, it is that error; of others, the traceback is on stderr.
    OSError: a job raised one; the text is its own.
  """
  workdir = pathlib.Path(workdir)
  with files.locked(workdir, LOCK_SECONDS) as fd, ended_by_sigterm():
    for job in jobs:
      _check(workdir, job)
    for i, job in enumerate(jobs, 1):
      header, record = f'[{i}/{len(jobs)}] {job.name}', _record(workdir, job)
      is_same = not files.difference(record['settings'], job.settings)
      has_outputs = all((workdir / output).exists() for output in job.outputs)
      if record['complete'] and is_same and has_outputs:
        print(f'{header}: complete, skipped ({record["seconds"]:.0f} s)', flush=True)
      else:
        print(f'{header}: {"going on" if record["seconds"] else "starting"} ...', flush=True)
        _run(workdir, job, record, _Lock(fd), clock)
        memory = record['peak_rss_bytes'] / 2**20
        print(f'{header}: done ({record["seconds"]:.0f} s, {memory:,.0f} MiB)', flush=True)
      if job.trained:
        files.write_json(workdir / 'final.json', {'run': job.trained})


def _path(workdir: pathlib.Path, job: Job) -> pathlib.Path:
  """Returns the path of a job's record."""
  return workdir / 'stages' / f'{job.name}.json'


def _record(workdir: pathlib.Path, job: Job) -> dict[str, Any]:
  """Returns the record of a job, a new one where it was never started."""
  if _path(workdir, job).exists():
    return files.read_json(_path(workdir, job))
  return {
    'name': job.name,
    'fingerprint': job.fingerprint,
    'settings': job.settings,
    'started': time.time(),
    'complete': False,
    'seconds': 0.0,
    'peak_rss_bytes': 0,
  }


def _check(workdir: pathlib.Path, job: Job) -> None:
  """Raises UserError where a job was run with another config."""
  record = _record(workdir, job)
  if record['fingerprint'] == job.fingerprint:
    return
  remedy = f'Give another --workdir, or remove {workdir} to start anew.'
  differences = files.differences(record['settings'], job.settings)
  found = next((each for each in differences if not config_lib.covers(job.free, each[0])), None)
  if not found:
    raise UserError(
      field=f'fingerprint of job {job.name!r}',
      value=job.fingerprint,
      allowed=f'{record["fingerprint"]}, with which it was run in {workdir}',
      message=f'A job before it has another config. {remedy}',
    )
  path, was, now = found
  raise UserError(
    field=f'{path or "settings"} of job {job.name!r}',
    value=now,
    allowed=f'{was!r}, with which it was run in {workdir}',
    message=remedy,
  )


def _run(
  workdir: pathlib.Path,
  job: Job,
  record: dict[str, Any],
  lock: '_Lock',
  clock: Callable[[], float],
) -> None:
  """Runs a job in a child process, keeping its record up to date. Raises UserError if it fails."""
  path, context = _path(workdir, job), multiprocessing.get_context(START_METHOD)
  receiver, sender = context.Pipe(duplex=False)
  child = context.Process(target=_child, args=(sender, lock, job.function, job.args), name=job.name)
  before, start = record['seconds'], clock()

  def update(peak: int, complete: bool = False) -> None:
    seconds = before + clock() - start
    record.update(
      settings=job.settings,
      complete=complete,
      seconds=seconds,
      peak_rss_bytes=max(record['peak_rss_bytes'], peak),
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
      # Ends what the child left running. Its number cannot belong to another process before join().
      os.killpg(child.pid, signal.SIGKILL)
    child.join()
  raised, peak = None, 0
  with contextlib.suppress(EOFError):  # it was killed before it could tell
    raised, peak = receiver.recv()
  update(peak, complete=child.exitcode == 0)
  if raised:
    raise raised
  if child.exitcode:
    message = 'What it printed is above.'
    if child.exitcode < 0:
      name = signal.Signals(-child.exitcode).name
      hint = ' (out of memory?)' if name == 'SIGKILL' else ''
      message = f'It was killed by {name}{hint}; the same command resumes it.'
    raise UserError(
      field=f'exit status of job {job.name!r}', value=child.exitcode, allowed='0', message=message
    )


def _watch(child: multiprocessing.process.BaseProcess, update: Callable[[int], None]) -> None:
  """Returns when the child has ended; until then it records the time and memory."""
  # The sentinel alone is not enough: a process that the job forked and left running holds it open.
  while (
    not multiprocessing.connection.wait([child.sentinel], timeout=SAMPLE_SECONDS)
    and child.is_alive()
  ):
    update(_session_rss_bytes(child.pid))


def _session_rss_bytes(session: int) -> int:
  """Returns the resident memory of all processes of a session, summed, in bytes.

  Without /proc it returns 0; the child then reports its own peak at its end.
  """
  pages = 0
  for path in pathlib.Path('/proc').glob('[0-9]*/stat'):
    with contextlib.suppress(OSError):  # the process has ended since
      # The fields of proc(5) from `state`, the third one, on: the second may contain spaces.
      fields = path.read_text().rpartition(')')[2].split()
      session_id, resident_pages = int(fields[3]), int(fields[21])
      pages += resident_pages if session_id == session else 0
  return pages * os.sysconf('SC_PAGE_SIZE')


def _child(
  sender: multiprocessing.connection.Connection,
  lock: '_Lock',
  function: Callable[..., object],
  args: tuple,
):
  """Runs a job in the child process, and sends (the user's error or None, peak memory) at its end.

  `lock` is held open here too, so that the work folder is in use until both processes have ended.
  """
  os.setsid()  # a group of its own, so that all that it starts can be ended with it
  threading.Thread(target=_die_with_parent, daemon=True).start()
  raised = None
  try:
    function(*args)
  except (UserError, OSError) as error:
    if os.environ.get('DEEPDIVE_TRACEBACK'):
      traceback.print_exc()
    # Errors of libraries, which are OSErrors, may not survive pickling.
    raised = error if isinstance(error, UserError) else OSError(str(error))
  finally:
    sender.send((raised, peak_rss_bytes()))
  if raised:
    sys.exit(1)


def _die_with_parent() -> None:
  """Kills this process and all that it started when the parent ends."""
  multiprocessing.connection.wait([multiprocessing.parent_process().sentinel])
  os.killpg(0, signal.SIGKILL)


class _Lock:
  """An open file descriptor that a spawned child inherits, and with it the lock on the file."""

  def __init__(self, fd: int):
    self._fd = fd

  def __reduce__(self):
    return _inherit, (multiprocessing.reduction.DupFd(self._fd),)


def _inherit(duplicate: Any) -> _Lock:
  """Returns the lock in the child, from the duplicated file descriptor."""
  fd = duplicate.detach()
  os.set_inheritable(fd, False)  # programs that the child starts must not hold the lock
  return _Lock(fd)


@contextlib.contextmanager
def ended_by_sigterm() -> Iterator[None]:
  """Makes SIGTERM raise SystemExit inside the block, so that the process ends in order."""
  previous = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
  try:
    yield
  finally:
    signal.signal(signal.SIGTERM, previous)
