"""Runs the phases of a pipeline with datatrove: on this machine, on a Ray cluster, or by Slurm.

A task that is complete is never run again: OUT/logs/PHASE/completions lists those.
"""

import concurrent.futures
import contextlib
import copy
import os
import socket
import sys
from typing import Any, NamedTuple

import loguru
from datatrove.executor import LocalPipelineExecutor, RayPipelineExecutor, SlurmPipelineExecutor
from datatrove.io import DataFolder
from datatrove.pipeline.base import PipelineStep
from ml_collections import ConfigDict

from lm.base import processes, progress
from lm.base.errors import UserError


class Phase(NamedTuple):
  """Steps that run as one datatrove pipeline, divided into `tasks` tasks.

  A phase begins after all tasks of the phase before it are complete.
  """

  name: str
  steps: list[PipelineStep]
  tasks: int


class LocalExecutor(LocalPipelineExecutor):
  """datatrove's local executor with our process pool and without its log messages.

  After a kill -9 datatrove's own pool leaves a process behind.
  """

  def run(self) -> None:
    """Runs the incomplete tasks, in worker processes if there is more than one worker."""
    ranks = self.get_incomplete_ranks()
    workers = min(self.workers, len(ranks))
    bar = progress.bar(desc='tasks', total=len(ranks), unit='task', disable=self.tasks == 1)
    with bar, contextlib.ExitStack() as stack:
      if workers > 1:
        pool = stack.enter_context(processes.pool(workers))
        futures = [pool.submit(self.run_task, rank) for rank in ranks]
        finished = (future.result() for future in concurrent.futures.as_completed(futures))
      else:
        finished = map(self.run_task, ranks)
      for _ in finished:
        bar.update()

  def run_task(self, rank: int) -> None:
    """Runs one task on a copy of the pipeline, so that its counters start at 0."""
    loguru.logger.disable('datatrove')
    copy.deepcopy(self)._run_for_rank(rank)


def run_local(phases: list[Phase], out: DataFolder, config: ConfigDict, workers: int) -> None:
  """Runs the phases on this machine, in separate processes if there is more than one worker."""
  for phase in phases:
    LocalExecutor(phase.steps, phase.tasks, workers, _logs(out, phase)).run()


def run_ray(phases: list[Phase], out: DataFolder, config: ConfigDict, workers: int) -> None:
  """Runs the phases on a Ray cluster that can access `out`.

  Raises UserError if the cluster does not answer, or a task fails.
  """
  import ray  # the extra `ray`

  host, _, port = config.ray_address.rpartition(':')
  try:
    if host and '/' not in host:  # Ray itself would wait for minutes before it fails
      socket.create_connection((host, int(port)), timeout=10).close()
    ray.init(config.ray_address, ignore_reinit_error=True, log_to_driver=False)
  except OSError as error:
    raise UserError(
      field='config.ray_address',
      value=config.ray_address,
      allowed='the address of a Ray cluster that answers',
      message=f'{error}.',
    ) from error
  for phase in phases:
    options = ray_options(config) | {'workers': workers, 'logging_dir': _logs(out, phase)}
    executor = RayPipelineExecutor(phase.steps, phase.tasks, **options)
    executor.run()
    # The executor only warns of tasks that failed.
    if missing := executor.get_incomplete_ranks(skip_completed=True):
      log = out.resolve_paths(f'logs/{phase.name}/logs/task_{missing[0]:05d}.log')
      raise UserError(
        field=f'number of tasks of phase {phase.name!r} that failed',
        value=len(missing),
        allowed='0',
        message=f'See {log}.',
      )


def run_slurm(phases: list[Phase], out: DataFolder, config: ConfigDict, workers: int) -> None:
  """Submits a job array for each incomplete phase, each to start after the one before.

  It does not wait for the jobs.
  """
  executor = None
  for phase in phases:
    options = slurm_options(config) | {
      'workers': workers,
      'job_name': phase.name,
      'logging_dir': _logs(out, phase),
    }
    executor = SlurmPipelineExecutor(phase.steps, phase.tasks, depends=executor, **options)
  executor.run()


def ray_options(config: ConfigDict) -> dict[str, Any]:
  """Returns the options of datatrove's Ray executor."""
  return {'mem_per_cpu_gb': config.memory_gb}


def slurm_options(config: ConfigDict) -> dict[str, Any]:
  """Returns the options of datatrove's Slurm executor."""
  return {
    'time': config.slurm.time,
    'partition': config.slurm.partition,
    'mem_per_cpu_gb': config.memory_gb,
    'env_command': config.slurm.setup or f'export PATH={os.path.dirname(sys.executable)}:$PATH',
    'qos': '',
  }


def _logs(out: DataFolder, phase: Phase) -> str:
  """Returns the folder of a phase's logs, statistics and completion marks."""
  return out.resolve_paths(f'logs/{phase.name}')


EXECUTORS = {'local': run_local, 'ray': run_ray, 'slurm': run_slurm}
