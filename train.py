"""Trains a model: python train.py --config=configs/sft.py --workdir=runs/sft [--config.FIELD=VALUE]

One training run is `train`, read from top to bottom. lm/stages has what differs between stages,
lm/train/loop.py what happens around a step, and lm/launch/recipes.py what runs whole recipes.
`train` imports what it needs itself: the parent of a recipe has no use for jax.
"""

import functools
import sys
from collections.abc import Sequence

from ml_collections import ConfigDict

from configs import base
from lm.base import allocator, files
from lm.base import config as config_lib
from lm.base import metrics as metrics_lib
from lm.base.errors import UserError, run
from lm.launch import options as options_lib


def train(
  config: ConfigDict,
  workdir: files.AnyPath,
  *,
  profile: tuple[int, int] | None = None,
  dry: bool = False,
) -> None:
  """Runs one stage from wherever `workdir` stands to its last step, and writes its report.

  Args:
    config: of the run, as configs/base.py has it.
    workdir: the run's folder.
    profile: first and last step of which an XProf trace is written into `workdir/profile`.
    dry: prints shapes, shardings and the predicted cost, and ends before anything is allocated.

  Raises SystemExit(0) when it was told to stop, by SIGTERM or SIGINT, and has saved its work.
  """
  clock = metrics_lib.Clock()
  import jax

  from data import batches as batches_lib
  from data import tasks as tasks_lib
  from data.chat import chat_formats
  from data.tokenizers import gguf_vocabulary as vocabulary
  from data.tools import toolbox
  from lm import evals, stages
  from lm.cost import cost_text
  from lm.cost.meter import Meter
  from lm.parallel import compilation, distributed, keys, sharding
  from lm.train import faults, loop, program
  from lm.train.batches import Run
  from lm.weights import checkpoint, gguf, origin, pretrained

  # ---- Config ------------------------------------------------------------------------------------
  defaults = base.get_config()
  stage = stages.make(config)
  stage.check(defaults)
  loop.check_faults(config, stage.loss_is_positive)
  allow = config_lib.allowed_mismatches(config)
  compilation.use_cache()
  compilation.trim_after_compiling()

  # ---- Devices and mesh --------------------------------------------------------------------------
  mesh = sharding.make_mesh(config.mesh)
  jax.set_mesh(mesh)
  program.check_shapes(config, mesh)

  # ---- Model and tokenizer: those of init_from, or new -------------------------------------------
  start = None
  if config.init_from:
    path = gguf.find(config.init_from, defaults.model, vocabulary.convert, chat_formats.fingerprint)
    start = pretrained.load(path, config.model, defaults.model, mesh, config.seed)
  chat_format = chat_formats.load(
    start.tokenizer if start else config.data.tokenizer,
    config.data.chat_format,
    extend=not start or stage.is_chat,
    tools=config.data.tools,
  )
  if start:
    start.check_tokenizer(chat_format.plain_fingerprint, allow)
    start = pretrained.grow(start, chat_format.tokenizer.vocab_size, mesh)
  model_config = pretrained.model_config(config, start, chat_format.tokenizer.vocab_size)
  if distributed.is_main():
    chat_format.save(workdir / 'tokenizer')

  # ---- Data: batch(step) is a pure function of (data, seed, step, batch size) --------------------
  test_tasks, probe_tasks = tasks_lib.of_evaluation(config)
  if test_tasks or probe_tasks or stage.is_chat:
    chat_format.check_layout()
  call_tool = toolbox.from_config(config.tools)
  with distributed.main_first('data'):
    source = batches_lib.open_source(stage.reads, config, chat_format, workdir / 'data')

  # ---- The program: the jitted step, shapes and shardings; and what a step should cost -----------
  banned_ids = chat_format.banned_ids(model_config.vocab_size)
  prog = program.make(config, stage, model_config, mesh, banned_ids)
  meter = Meter(config, model_config, mesh, prog)
  if dry:
    print(sharding.describe({'state': prog.state, 'batch': prog.batch}, mesh))
    return print(cost_text.describe(meter.predicted))
  if distributed.is_main():
    print(cost_text.summary(meter.predicted), file=sys.stderr)

  # ---- Restore or init: own checkpoint > init_from > scratch -------------------------------------
  saved = checkpoint.open_run(workdir, config.checkpoint)
  provenance = origin.provenance(
    config,
    model_config,
    data=source.fingerprint,
    tokenizer=chat_format.tokenizer.fingerprint,
    inputs=stage.inputs(),
    init_from=start.provenance if start else None,
  )
  key = keys.derive(config.seed, 'initialization')
  jumps = faults.Jumps(workdir / 'jumps.json')
  free = (*base.FREE_ON_RESUME, *stage.free_on_resume())
  restored_step, state = saved.resume(
    prog.state, provenance, defaults=defaults, allow=allow, free=free
  )
  if restored_step is None:
    jumps.clear()
    state = prog.start(start.params) if start else prog.fresh(key)
  if distributed.is_main():
    files.write_json(workdir / 'config.json', provenance['config'])

  # ---- Where batches come from, and what is measured ---------------------------------------------
  this_run = Run(
    config=config,
    defaults=defaults,
    model_config=model_config,
    mesh=mesh,
    program=prog,
    source=source,
    chat_format=chat_format,
    jumps=jumps,
    clock=clock,
    call_tool=call_tool,
    workdir=workdir,
  )
  copy_start = functools.partial(prog.copy_params, start.params if start else None, key)
  batches = stage.make_batches(this_run, copy_start)
  del start, copy_start  # its parameters are held no longer than they are needed
  evaluators = evals.make(
    evals.Context.of_run(this_run, batches, test_tasks, probe_tasks, chat_formats.grade_format)
  )

  # ---- The loop ----------------------------------------------------------------------------------
  training = loop.Loop(
    this_run,
    batches,
    evaluators,
    saved,
    metrics_lib.Metrics(workdir, restored_step, active=distributed.is_main()),
    meter,
    provenance=provenance,
    restored_step=restored_step,
    profile=profile,
  )
  training.run(state)

  # ---- What it came to ---------------------------------------------------------------------------
  if distributed.is_main():
    report = {'provenance': provenance, 'steps': config.steps, 'left_out': jumps.all}
    report |= {'parameters': meter.predicted['parameters'], 'tokens': meter.tokens_of_run}
    report |= training.report | stage.summarize(this_run, metrics_lib.read(workdir))
    files.write_json(workdir / 'report.json', report | clock.goodput())
  distributed.wait_for_all('report')


def main(argv: Sequence[str] | None = None) -> None:
  """Runs the command with these arguments, those of the process where they are None."""
  options = options_lib.train_flags()
  config = config_lib.parse(options, argv, __doc__)
  options_lib.set_environment(options)
  if options.sweep:
    from lm.launch import sweep

    return sweep.run_command(config, argv or sys.argv[1:], options, base.FREE_ON_RESUME)
  if 'stages' in config:  # a recipe
    from data.pipeline import steps
    from lm import best_of
    from lm.launch import recipes

    workdir = files.local_path(options.workdir or config.workdir, '--workdir of a recipe')
    return recipes.run(config, workdir, steps.STEPS, train, base.FREE_ON_RESUME, best_of.JOBS)
  if not options.workdir:
    raise UserError(field='--workdir', allowed='a folder, for example --workdir=runs/pretrain')
  from lm.parallel import distributed

  distributed.initialize_from(options)
  profile = config_lib.step_range('--profile', options.profile)
  train(config, files.as_path(options.workdir), profile=profile, dry=options.dry)


if __name__ == '__main__':
  allocator.restart_with_huge_pages()
  run(main)
