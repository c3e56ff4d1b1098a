"""What runs the stages of a pipeline: datatrove's executors on this machine, on a Ray cluster, or
by Slurm.

A task that is complete is never run again: OUT/logs/STAGE/completions tells which are.
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


class Stage(NamedTuple):
  """Steps that run as one pipeline of datatrove, in `tasks` tasks."""

  name: str
  steps: list[PipelineStep]
  tasks: int


class LocalExecutor(LocalPipelineExecutor):
  """datatrove's without its messages, and with a pool of our own: after a kill -9 theirs leaves a
  process behind.
  """

  def run(self) -> None:
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
    """Runs one task on a copy of the pipeline, so that its steps count from 0."""
    loguru.logger.disable('datatrove')
    copy.deepcopy(self)._run_for_rank(rank)


def run_local(stages: list[Stage], out: DataFolder, config: ConfigDict, workers: int) -> None:
  """Runs the stages here, in processes of their own if more than one may work."""
  for stage in stages:
    LocalExecutor(stage.steps, stage.tasks, workers, _logs(out, stage)).run()


def run_ray(stages: list[Stage], out: DataFolder, config: ConfigDict, workers: int) -> None:
  """Runs the stages on a Ray cluster that can reach `out`. Raises UserError if there is none, or a
  task fails.
  """
  import ray  # the extra `ray`

  host, _, port = config.ray_address.rpartition(':')
  try:
    if host and '/' not in host:  # Ray itself would wait for minutes
      socket.create_connection((host, int(port)), timeout=10).close()
    ray.init(config.ray_address, ignore_reinit_error=True, log_to_driver=False)
  except OSError as error:
    raise UserError(
      f'config.ray_address={config.ray_address!r} is no Ray cluster that answers: {error}'
    ) from error
  for stage in stages:
    options = ray_options(config) | {'workers': workers, 'logging_dir': _logs(out, stage)}
    executor = RayPipelineExecutor(stage.steps, stage.tasks, **options)
    executor.run()
    # it only warns of tasks that failed
    if missing := executor.get_incomplete_ranks(skip_completed=True):
      log = out.resolve_paths(f'logs/{stage.name}/logs/task_{missing[0]:05d}.log')
      raise UserError(
        f'{len(missing)} of {stage.tasks} tasks of stage {stage.name!r} failed: see {log}'
      )


def run_slurm(stages: list[Stage], out: DataFolder, config: ConfigDict, workers: int) -> None:
  """Submits a job array for each stage with tasks to do, each to start after the one before; does
  not wait for them.
  """
  executor = None
  for stage in stages:
    options = slurm_options(config) | {
      'workers': workers,
      'job_name': stage.name,
      'logging_dir': _logs(out, stage),
    }
    executor = SlurmPipelineExecutor(stage.steps, stage.tasks, depends=executor, **options)
  executor.run()


def ray_options(config: ConfigDict) -> dict[str, Any]:
  return {'mem_per_cpu_gb': config.memory_gb}


def slurm_options(config: ConfigDict) -> dict[str, Any]:
  return {
    'time': config.slurm.time,
    'partition': config.slurm.partition,
    'mem_per_cpu_gb': config.memory_gb,
    'env_command': config.slurm.setup or f'export PATH={os.path.dirname(sys.executable)}:$PATH',
    'qos': '',
  }


def _logs(out: DataFolder, stage: Stage) -> str:
  return out.resolve_paths(f'logs/{stage.name}')


EXECUTORS = {'local': run_local, 'ray': run_ray, 'slurm': run_slurm}
