"""The context that evaluators are created from: the config, the model and the data."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jax.sharding import Mesh
from ml_collections import ConfigDict, FrozenConfigDict

from lm.train.batches import Batches, Run
from lm.train.train_step import LossFn


@dataclasses.dataclass(frozen=True)
class Context:
  """A config, a model, and the parts of data/ that are needed to evaluate it.

  Attributes:
    config, model_config: the run's or eval.py's, and the model's.
    loss_fn: the loss of held-out batches.
    batch_axes: the axes of their arrays.
    complete: adds to a held-out batch what the loss reads beside its rows.
    compare: predicts held-out comparisons (`lm.stages.stage.Stage.make_compare`), or None.
    judge: rewards of answers to test problems (`lm.train.batches.Batches`), or None.
    held_out: the loader of held-out batches; None if there are none.
    counts_bytes: whether the held-out text is plain, so that its loss is given in bits per byte.
    chat_format: how text and conversations become tokens.
    tasks: the tasks to score.
    probe_tasks: the tasks whose training problems show what the model knows.
    call_tool: answers the calls of tools: the text of a call to its result.
    grade_format: grades how a reply keeps the chat format.
  """

  config: ConfigDict
  model_config: FrozenConfigDict
  mesh: Mesh
  loss_fn: LossFn
  batch_axes: Mapping[str, tuple[str, ...]]
  complete: Callable[[dict], dict]
  compare: Callable | None
  judge: Callable | None
  held_out: Any
  counts_bytes: bool
  chat_format: Any
  tasks: Sequence[Any]
  probe_tasks: Sequence[Any]
  call_tool: Callable[[str], str]
  grade_format: Callable[[dict], float]

  @classmethod
  def of_run(
    cls,
    run: Run,
    batches: Batches,
    tasks: Sequence[Any],
    probe_tasks: Sequence[Any],
    grade_format: Callable[[dict], float],
  ) -> 'Context':
    """Returns the context in which the model of a training run is evaluated."""
    stage = run.program.stage
    return cls(
      config=run.config,
      model_config=run.model_config,
      mesh=run.mesh,
      loss_fn=run.program.loss_fn,
      batch_axes=stage.batch_axes,
      complete=batches.complete,
      compare=stage.make_compare(run.model_config),
      judge=batches.judge,
      held_out=run.source.val,
      counts_bytes=not stage.is_chat,
      chat_format=run.chat_format,
      tasks=tasks,
      probe_tasks=probe_tasks,
      call_tool=run.call_tool,
      grade_format=grade_format,
    )
