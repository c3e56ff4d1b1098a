"""The loop of a training run: steps, bad steps, evaluations, checkpoints, requests to stop.

Step N is dispatched before the metrics of step N-1 are fetched, so that the devices do not wait for
the log. `_dispatch` starts a step, `_settle` waits for one and logs it.
"""

import contextlib
import dataclasses
import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from lm.base import files, progress
from lm.base.errors import UserError, unknown
from lm.base.metrics import Metrics
from lm.parallel import distributed
from lm.train import diagnose, faults, train_step
from lm.train.batches import Batch, Batches, Run
from lm.train.evaluators import Evaluator, Result, is_due
from lm.weights.checkpoint import Checkpointer


def check_faults(config: ConfigDict, loss_is_positive: bool) -> None:
  """Raises UserError where a field of `config.faults` has a value that is not allowed."""
  if config.faults.on_bad_step not in faults.ON_BAD_STEP:
    raise unknown('config.faults.on_bad_step', config.faults.on_bad_step, faults.ON_BAD_STEP)
  if config.faults.max_bad_steps < 0:
    raise UserError(
      field='config.faults.max_bad_steps', value=config.faults.max_bad_steps, allowed='at least 0'
    )
  spike = config.faults.spike
  if spike and (spike <= 1 or not loss_is_positive):
    allowed = '0, or above 1' if loss_is_positive else f'0 in stage {config.stage}'
    message = 'A spike is a loss of so many times the median of the last ones, which are positive.'
    raise UserError(field='config.faults.spike', value=spike, allowed=allowed, message=message)


@dataclasses.dataclass
class _Dispatched:
  """A step that the devices are computing."""

  number: int
  batch: Batch
  updates: list[dict[str, jax.Array]]  # The metrics of each update.


class Loop:
  """Trains from a state to the last step of a run.

  Attributes:
    state: the train state; it is replaced at each step.
    report: the last results of the evaluators, for report.json.
  """

  def __init__(
    self,
    run: Run,
    batches: Batches,
    evaluators: Sequence[Evaluator],
    checkpoints: Checkpointer,
    metrics: Metrics,
    meter: Any,
    *,
    provenance: dict[str, Any],
    restored_step: int | None,
    profile: tuple[int, int] | None = None,
  ):
    """Prepares the loop; nothing is run yet.

    Args:
      run: what is trained.
      batches: where its batches come from.
      evaluators: what is measured, and how often.
      checkpoints, metrics: where the run is saved and logged.
      meter: turns time into FLOPs a second (`lm.cost.meter.Meter`).
      provenance: what is saved with each checkpoint.
      restored_step: the step of the checkpoint that the run continues from; None for a new run.
      profile: the first and the last step of an XProf trace, which is written into workdir/profile.

    Raises:
      UserError: the profiled steps are not among those that this start of the run does.
    """
    first, steps = restored_step or 0, run.config.steps
    if profile and not first < profile[0] <= profile[1] <= steps:
      raise UserError(
        field='--profile',
        value=f'{profile[0]}:{profile[1]}',
        allowed=f'steps of this start of the run, from {first + 1} to {steps}',
      )
    self._run, self._config, self._clock = run, run.config, run.clock
    self._batches, self._evaluators = batches, evaluators
    self._checkpoints, self._metrics, self._meter = checkpoints, metrics, meter
    self._provenance, self._restored_step, self._profile = provenance, restored_step, profile
    self._first = first
    self._tracing = contextlib.ExitStack()
    self._bar = progress.bar(
      total=steps,
      initial=first,
      desc=run.config.stage,
      unit='step',
      disable=not distributed.is_main(),
    )
    self.state: Any = None
    self.report: dict[str, Any] = {}

  def run(self, state: Any) -> None:
    """Trains to the last step, and evaluates.

    When it is asked to stop, it saves a checkpoint and exits with status 0.
    """
    self.state = state
    self._seek(self._first)
    with self._checkpoints, self._metrics, self._bar, faults.Stop() as stop:
      self._begin()
      stop.polled(True)
      self._clock.started()
      self._train(stop)
      stop.polled(False)
      for evaluator in self._evaluators:
        if not evaluator.every:
          self._evaluate(evaluator)

  def _begin(self) -> None:
    """Evaluates the parameters that training starts from."""
    step, steps = self._first, self._config.steps
    is_new = self._restored_step is None
    for evaluator in self._evaluators:
      if is_new and evaluator.at_start:
        self._log(0, self._evaluate(evaluator))
      elif step == steps and evaluator.every:
        # A run that was killed after its last update may have logged its scores without reporting
        # them.
        self._evaluate(evaluator)
    if is_new and self._config.faults.on_bad_step == 'rewind':
      self._metrics.flush()
      self._save(0)  # The first step to go back to.

  def _train(self, stop: faults.Stop) -> None:
    """Runs all steps, and logs each one after the next was dispatched."""
    step, steps, config = self._first, self._config.steps, self._config
    pending: _Dispatched | None = None
    while step < steps:
      step += 1
      self._start_trace(step)
      dispatched = self._dispatch(step)
      self._bar.update()
      stopping = stop.asked()
      saving = stopping or step == steps or step % config.checkpoint.every == 0
      due = [e for e in self._evaluators if is_due(e, step, steps)]
      settled = [pending] if pending else []
      pending = dispatched
      if saving or due or self._ends_trace(step) or self._batches.waits:
        # A state must be known to be good before it is saved or evaluated, and a batch that is
        # drawn from the parameters waits for them anyway.
        settled, pending = [*settled, dispatched], None
      bad = next((each for each in settled if not self._settle(each)), None)
      if self._ends_trace(step):
        self._stop_trace()
      if bad is not None:
        step, pending = self._rewind(bad.number), None
        saving, due = False, []
      measured = {}
      for evaluator in due:
        result = self._evaluate(evaluator)
        self._log(step, result)
        measured |= result.metrics
      with self._clock.part('save'):
        if saving or self._checkpoints.is_best(measured):
          self._metrics.flush()  # No line that precedes a checkpoint may be lost.
          self._save(step, measured)
      if due and len(due) == sum(bool(evaluator.every) for evaluator in self._evaluators):
        self._checkpoints.check(measured)
        if stopping:
          self._checkpoints.wait()
      if stopping:
        self._say(f'stopped at step {step}, which is saved; the same command goes on')
        sys.exit(0)

  def _dispatch(self, step: int) -> _Dispatched:
    """Starts the updates of a step."""
    with self._clock.part('input'):
      batch = self._batches.next(step - 1, self.state['params'])
    for name, text in batch.texts:
      self._metrics.text(step, name, text)
    self._metrics.rollouts(step, batch.rollouts)
    updates = []
    if batch.count:  # Otherwise there is nothing to learn from this batch, or to compute.
      part = 'step' if self._clock.compiled else 'compile'
      with self._clock.part(part), jax.profiler.StepTraceAnnotation('train', step_num=step):
        for _ in range(self._run.program.updates):
          self.state, values = self._run.program.step(self.state, batch.arrays, batch.count)
          updates.append(values)
    return _Dispatched(step, batch, updates)

  def _settle(self, dispatched: _Dispatched) -> bool:
    """Waits for a step and logs it.

    Returns:
      False if the step was bad and the run is to go back.
    """
    config, number, batch = self._config, dispatched.number, dispatched.batch
    with self._clock.part('step'):
      values = train_step.of_updates(
        [
          {name: float(x) for name, x in update.items()}
          for update in jax.device_get(dispatched.updates)
        ]
      )
    self._clock.first_step()
    is_bad = bool(values) and values['train/bad'] > 0
    if is_bad and not self._tolerate(dispatched, values):
      return False
    if values:
      self._bar.set_postfix_str(f'loss {values["train/loss"]:.3f}', refresh=False)
    self._clock.step(*self._meter.work(batch.lengths))
    symptoms = self._run.program.stage.symptoms(values | batch.metrics)
    if number % config.log_every == 0 or number == config.steps:
      timing = self._clock.read()
      measured = self._meter.metrics(timing['perf/model_flops_per_s'])
      self._metrics.write(number, values | batch.metrics | timing | measured)
    elif is_bad or symptoms:
      self._metrics.write(number, values | batch.metrics)
    self._heed(number, symptoms)
    return True

  def _heed(self, number: int, symptoms: Sequence[faults.Symptom]) -> None:
    """Says what the stage finds wrong with a step.

    Raises:
      UserError: the run is to stop because of it.
    """
    for symptom in symptoms:
      message = symptom.meaning
      if symptom.stops:
        self._checkpoints.wait()
        message += f' The last checkpoint before it is {self._checkpoints.latest()}.'
      error = UserError(
        field=f'{symptom.metric} of step {number}',
        value=float(f'{symptom.value:.4g}'),
        allowed=symptom.allowed,
        message=message,
      )
      if symptom.stops:
        raise error
      self._say(str(error))

  def _tolerate(self, dispatched: _Dispatched, values: dict[str, float]) -> bool:
    """Handles a bad step as `config.faults` says; returns whether the run continues from it.

    Raises:
      UserError: the run is to stop because of it.
    """
    rule, most = self._config.faults.on_bad_step, self._config.faults.max_bad_steps
    in_all = len(self._run.jumps.all) + 1 if rule == 'rewind' else values['train/bad_steps']
    if rule == 'stop' or in_all > most:
      where = '' if values['train/finite'] else f'First not finite: {self._diagnose(dispatched)}. '
      limit = '' if rule == 'stop' else f'config.faults.max_bad_steps = {most} is reached. '
      self._checkpoints.wait()
      latest = f'the last good checkpoint is {self._checkpoints.latest()}.'
      raise self._bad_step(dispatched, values, f'{where}{limit}Nothing was updated; {latest}')
    self._say(f'{self._bad_step(dispatched, values)}: {rule} ({in_all:.0f} of {most})')
    return rule != 'rewind'

  def _bad_step(
    self, dispatched: _Dispatched, values: dict[str, float], message: str = ''
  ) -> UserError:
    """Returns the error about a step whose loss spikes, or whose numbers are not finite."""
    name, value, allowed = 'loss', values['train/loss'], 'a finite number'
    if values['train/finite']:
      median = value / values['train/spike']
      spike = f'{self._config.faults.spike:g} times the median of the last ones, {median:.4g}'
      allowed = f'at most {spike}'
    elif math.isfinite(value):
      name, value = 'gradient norm', values['opt/grad_norm']
    return UserError(
      field=f'{name} of step {dispatched.number}',
      value=float(f'{value:.4g}'),
      allowed=allowed,
      message=message,
    )

  def _diagnose(self, dispatched: _Dispatched) -> str:
    run, batch = self._run, dispatched.batch
    return diagnose.first_non_finite(
      run.model_config, run.program.loss_fn, self.state['params'], batch.arrays, batch.count
    )

  def _rewind(self, number: int) -> int:
    """Goes back to the last checkpoint and leaves out the batches read since; returns its step."""
    self._tracing.close()  # Steps that are done again are traced again.
    self._checkpoints.wait()
    back, self.state = self._checkpoints.sound(), None
    self._run.jumps.add(back, number - back)
    self.state = self._checkpoints.restore(self._run.program.state, back)
    self._seek(back)
    self._metrics.rewind(back)
    steps = self._config.steps
    self._metrics.write(
      back,
      {
        'faults/rewinds': len(self._run.jumps.all),
        'faults/batches_left_out': self._run.jumps.batch(steps) - steps,
      },
    )
    self._bar.update(back - self._bar.n)
    return back

  def _save(self, step: int, measured: Mapping[str, float] | None = None) -> None:
    """Saves a checkpoint, with what the next batch depends on."""
    batches = self._batches.state()
    provenance = self._provenance | ({'batches': batches} if batches else {})
    self._checkpoints.save(step, self.state, provenance, measured)

  def _seek(self, step: int) -> None:
    """Makes the batches continue after the checkpoint of this step, or from the beginning."""
    saved = self._checkpoints.provenance(step) if step in self._checkpoints.steps() else {}
    self._batches.seek(step, saved.get('batches', {}))

  def _evaluate(self, evaluator: Evaluator) -> Result:
    with self._clock.part('eval'):
      result = evaluator.run(self.state['params'])
    self.report |= result.metrics | result.report
    return result

  def _log(self, step: int, result: Result) -> None:
    if result.sums:
      self._metrics.write(step, result.metrics)
    for text in result.texts:
      self._metrics.text(step, text['prompt'], text['text'])

  def _start_trace(self, step: int) -> None:
    if self._profile and step == self._profile[0]:
      folder = self._tracing.enter_context(files.local_dir(self._run.workdir / 'profile'))
      jax.profiler.start_trace(folder)
      self._tracing.callback(jax.profiler.stop_trace)

  def _ends_trace(self, step: int) -> bool:
    return self._profile is not None and step == self._profile[1]

  def _stop_trace(self) -> None:
    self._tracing.close()
    self._profile = None

  def _say(self, text: str) -> None:
    if distributed.is_main():
      progress.write(text)
