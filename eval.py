"""Evaluates a checkpoint and writes a report of its scores.

python eval.py --config=configs/eval.py --checkpoint=DIR --out=report.json

With the config of another stage, such as configs/reward.py, `config.data.val` is what that stage
reads: comparisons, for the accuracy and the calibration of a reward model.
"""

import math
import tempfile
from collections.abc import Sequence
from typing import Any

from absl import flags
from ml_collections import ConfigDict

from lm.base import choices, files
from lm.base import config as config_lib
from lm.base.errors import UserError, run

# Functions import what they need: --help has no use for jax.


def evaluate(config: ConfigDict, path: str, quantization: str) -> dict[str, Any]:
  """Returns the report on one checkpoint, with its weights in the form `quantization`.

  It holds the metrics and the report of each evaluator. With `config.data.val` it also holds
  val_bpb, bits per byte, and where weights are quantized `perplexity_change`, the fraction by which
  that raises the perplexity per token.

  Raises:
    FileNotFoundError, UserError: no such checkpoint, or one that the config does not fit.
  """
  import jax

  from configs import base
  from data.chat import chat_formats
  from data.tokenizers import gguf_vocabulary
  from lm import evals, stages
  from lm.evals.held_out import HeldOutLoss
  from lm.model import quantize
  from lm.parallel import sharding
  from lm.weights import gguf, pretrained

  defaults = base.get_config().model
  mesh = sharding.make_mesh(config.mesh)
  with jax.set_mesh(mesh), tempfile.TemporaryDirectory() as folder:
    path = gguf.find(path, defaults, gguf_vocabulary.convert, chat_formats.fingerprint)
    model = pretrained.load(path, config.model, defaults, mesh)
    chat_format = chat_formats.load(model.tokenizer)
    model.check_tokenizer(chat_format.tokenizer.fingerprint, config_lib.allowed_mismatches(config))
    params = quantize.quantize(quantization, model.params, model.axes)
    report = {'checkpoint': str(model.run), 'step': model.step, 'provenance': model.provenance}

    stage = stages.make(config)
    context = make_context(config, stage, model, chat_format, mesh, folder)
    metrics = {}
    for evaluator in evals.make(context):
      result = evaluator.run(params)
      metrics |= result.metrics
      report |= result.report
      if result.texts:
        report[evaluator.name] = result.texts
    report['metrics'] = metrics
    if 'eval/val/bpb' in metrics:
      report['val_bpb'] = metrics['eval/val/bpb']
    if 'eval/val/loss' in metrics and 'targets' in stage.batch_fields and quantization != 'none':
      plain = HeldOutLoss.open(context).run(model.params).metrics['eval/val/loss']
      report['perplexity_change'] = math.expm1(metrics['eval/val/loss'] - plain)
  return report


def make_context(
  config: ConfigDict, stage: Any, model: Any, chat_format: Any, mesh: Any, folder: str
) -> Any:
  """Returns what the evaluators of a checkpoint may need.

  Args:
    config: the config.
    stage: its stage, from `lm.stages.make`.
    model: the checkpoint, from `lm.weights.pretrained.load`.
    chat_format: the chat format of its tokenizer.
    mesh: the devices that it is on.
    folder: a folder for held-out text, which is tokenized.

  Raises:
    UserError: the config asks for what a checkpoint alone cannot be evaluated on.
  """
  from data import batches
  from data import tasks as tasks_lib
  from data.chat import chat_formats
  from data.tools import toolbox
  from lm import evals

  if config.rl.reward_model:
    raise UserError(
      field='config.rl.reward_model',
      value=config.rl.reward_model,
      allowed="''; python -m lm.best_of ranks answers by reward models",
    )
  if config.data.val and stage.reads_start:
    raise UserError(
      field='config.data.val',
      value=config.data.val,
      allowed="'', since a checkpoint does not have the model that it is compared with",
    )
  held_out = None
  if config.data.val:
    held_out = batches.open_held_out(stage.reads, config, chat_format, folder)
  test_tasks, probe_tasks = tasks_lib.of_evaluation(config)
  return evals.Context(
    config=config,
    model_config=model.config,
    mesh=mesh,
    loss_fn=stage.make_loss(model.config),
    batch_axes=stage.batch_axes,
    complete=lambda arrays: arrays,
    compare=stage.make_compare(model.config),
    judge=None,
    held_out=held_out,
    counts_bytes=not stage.is_chat,
    chat_format=chat_format,
    tasks=test_tasks,
    probe_tasks=probe_tasks,
    call_tool=toolbox.from_config(config.tools),
    grade_format=chat_formats.grade_format,
  )


def main(argv: Sequence[str] | None = None) -> None:
  """Runs the command with these arguments, those of the process where they are None."""
  options = flags.FlagValues()
  config_lib.define_process_flags(options)
  flags.DEFINE_string(
    'checkpoint',
    None,
    'step, run, recipe or Hugging Face folder, or smollm2',
    flag_values=options,
  )
  flags.DEFINE_enum(
    'quantize', 'none', choices.QUANTIZATIONS, 'form of the weights', flag_values=options
  )
  flags.DEFINE_string('out', 'report.json', 'where the report goes', flag_values=options)
  config = config_lib.parse(options, argv, __doc__)
  if not options.checkpoint:
    raise UserError(
      field='--checkpoint', allowed='a checkpoint, for example --checkpoint=runs/quickstart'
    )
  # A path that cannot be written to is an error before hours of evaluation.
  files.as_path(options.out)
  from lm.parallel import distributed

  distributed.initialize_from(options)
  report = evaluate(config, options.checkpoint, options.quantize)
  if distributed.is_main():
    files.write_json(options.out, report)
    describe(report, options)
  distributed.wait_for_all('report')


def describe(report: dict[str, Any], options: flags.FlagValues) -> None:
  """Prints the scores of a report."""
  for name, s in report.get('scores', {}).items():
    print(f'{name:12} {s["accuracy"]:6.1%}  [{s["low"]:.1%}, {s["high"]:.1%}]  n={s["n"]}')
  for name, of_task in report.get('pass_at', {}).items():
    for k, s in of_task.items():
      share, interval = f'{s["pass_at"]:6.1%}', f'[{s["low"]:.1%}, {s["high"]:.1%}]'
      print(f'{name:12} {share}  {interval}  n={s["n"]}  pass@{k}')
  for name, value in report['metrics'].items():
    print(f'{name} {value:.4f}')
  if 'perplexity_change' in report:
    print(f'perplexity {report["perplexity_change"]:+.3%} by --quantize={options.quantize}')
  print(f'wrote {options.out}')


if __name__ == '__main__':
  run(main)
