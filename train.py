"""The one launcher: python train.py --config=configs/quickstart.py [--workdir=DIR]
[--config.FIELD=VALUE ...]

A config of stage pretrain, sft or rl is one training run: `train` below, read from top to bottom. A
recipe is a list of such runs and of the data stages before them, each in a process of its own
(`lm.launch.recipes`).
"""

import math
import os
import pathlib
import re
import signal
import sys
from collections.abc import Callable
from typing import Any

from absl import flags
from ml_collections import ConfigDict

from lm.base import allocator, files, progress
from lm.base import config as config_lib
from lm.base import metrics as metrics_lib
from lm.base.errors import UserError, run, unknown
from lm.launch import recipes
from lm.report import card

# A recipe's parent and its data stages import this file too and have no use for jax: `train`
# imports what it needs.


def train(
  config: ConfigDict,
  workdir: files.AnyPath,
  *,
  profile: tuple[int, int] | None = None,
  dry: bool = False,
) -> None:
  """One training run, from wherever `workdir` stands to its last step and its report.

  Args:
    profile: first and last step of which to write an XProf trace into `workdir/profile`.
    dry: ends before anything is allocated, having printed what would be.

  Raises SystemExit(0) when it was told to stop, by SIGTERM or SIGINT, and has saved its work.
  """
  allocator.keep_freed_memory()
  clock = metrics_lib.Clock()
  import contextlib
  import itertools

  import jax
  from jax.experimental import multihost_utils

  import eval as evaluation
  from configs import base
  from data import tasks
  from data.batches import prepare
  from data.chat import chat_formats
  from data.shards import baselines
  from lm.cost import estimate
  from lm.evals import perplexity
  from lm.model import transformer
  from lm.model.attention import kernels
  from lm.parallel import distributed, keys, sharding
  from lm.stages.rl import policy_gradient as rl_step
  from lm.stages.rl import rollout
  from lm.train import diagnose, faults, program, train_step
  from lm.weights import checkpoint, pretrained

  # ---- Config ------------------------------------------------------------------------------------
  if config.batch_size % config.microbatches:
    raise UserError(
      f'config.microbatches is {config.microbatches}; it must divide batch_size, '
      f'{config.batch_size}'
    )
  rows = config.batch_size // config.microbatches
  allow = config_lib.allowed_mismatches(config)
  on_bad_step, spike, max_bad_steps = (
    config.faults.on_bad_step,
    config.faults.spike,
    config.faults.max_bad_steps,
  )
  if on_bad_step not in faults.ON_BAD_STEP:
    raise unknown('config.faults.on_bad_step', on_bad_step, faults.ON_BAD_STEP)
  if spike and (spike <= 1 or config.stage == 'rl'):
    raise UserError(
      f'config.faults.spike is {spike}; allowed: 0, or above 1 where losses are positive (not in '
      'stage rl)'
    )

  if config.stage == 'rl':
    rl_step.check(config.loss, base.get_config().loss)

  if 'JAX_COMPILATION_CACHE_DIR' not in os.environ:  # the second start of a run compiles nothing
    jax.config.update(
      'jax_compilation_cache_dir', str(pathlib.Path.home() / '.cache' / 'deepdive' / 'jax')
    )
  if 'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS' not in os.environ:
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.1)

  # ---- Devices and mesh --------------------------------------------------------------------------
  mesh = sharding.make_mesh(config.mesh)
  jax.set_mesh(mesh)
  kernels.check_length(config.model.attention, mesh, config.seq_len)
  share = sharding.batch_share(mesh)  # which rows of every batch this process reads
  main = distributed.is_main()
  sharding.check_rows(
    mesh, {'batch_size / microbatches': rows, 'eval.batch_size': config.eval.batch_size}
  )

  # ---- Model and tokenizer: those of init_from, or new -------------------------------------------
  start = None
  if config.init_from:
    start = pretrained.load(
      evaluation.find_model(config.init_from), config.model, base.get_config().model, mesh
    )
  chat_format = chat_formats.load(
    start.tokenizer if start else config.data.tokenizer,
    config.data.chat_format,
    extend=not start or config.stage != 'pretrain',
    tools=config.data.tools,
  )
  tokenizer = chat_format.tokenizer
  if start:
    start.check_tokenizer(chat_format.plain_fingerprint, allow)
    start = pretrained.grow(start, tokenizer.vocab_size, mesh)
    model_config = start.config
  else:
    model_config = transformer.sized(config.model, tokenizer.vocab_size)
  if config.seq_len > model_config.max_len:
    raise UserError(
      f'config.seq_len is {config.seq_len}; the model reads at most max_len = '
      f'{model_config.max_len} tokens'
    )
  if main:
    chat_format.save(workdir / 'tokenizer')

  # ---- Data: batch(step) is a pure function of (manifest, seed, step, batch size) ----------------
  test_tasks = evaluation.make_tasks(config, config.eval.tasks)
  if test_tasks or config.stage != 'pretrain':
    _ = chat_format.layout  # that there is none is said now, not when it is needed
  loader = val = None
  if config.stage == 'rl':
    data_fingerprint = tasks.fingerprint(
      config_lib.names(config.data.tasks), **tasks.options(config.data)
    )
  else:
    with distributed.main_first('data'):
      train_manifest, val_manifest = prepare.manifests(config, chat_format, workdir / 'data')
    loader = evaluation.open_mixture(config, chat_format, train_manifest)
    val = val_manifest and evaluation.open_loader(config, chat_format, val_manifest, train=False)
    data_fingerprint = loader.fingerprint

  # ---- The program: the jitted step, shapes and shardings ----------------------------------------
  banned = chat_format.banned_ids(model_config.vocab_size) if config.stage == 'rl' else ()
  prog = program.make(config, model_config, mesh, banned)
  if sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(prog.state['params'])) > 2**28:
    allocator.give_back_large_blocks()

  # ---- Budget: what an update should take --------------------------------------------------------
  device = jax.local_devices()[0]
  predicted = estimate.predict(
    config, model_config, mesh, prog, estimate.chip_of(device.device_kind)
  )
  if dry:
    print(sharding.describe({'state': prog.state, 'batch': prog.batch}, mesh))
    return print(estimate.describe(predicted))
  if main:
    print(estimate.summary(predicted), file=sys.stderr)

  # ---- Restore or init: own checkpoint > init_from > scratch -------------------------------------
  saved = checkpoint.Checkpointer(
    workdir / 'checkpoints',
    keep_last=config.checkpoint.keep_last,
    keep_every=config.checkpoint.keep_every or None,
  )
  provenance = {
    'config': config_lib.as_json(config) | {'model': config_lib.as_json(model_config)},
    'code': checkpoint.code_version(),
    'data': data_fingerprint,
    'tokenizer': tokenizer.fingerprint,
    'init_from': start.provenance if start else None,
  }
  jumps = faults.Jumps(workdir / 'jumps.json')
  found = saved.sound()
  first = found or 0
  if found is not None:
    stored = saved.provenance(first)
    stored['config'] = config_lib.complete(stored['config'], base.get_config())
    checkpoint.check_provenance(stored, provenance, allow, base.FREE_ON_RESUME)
    state = saved.restore(prog.state, first)
  else:
    jumps.clear()
    state = (
      prog.start(start.params) if start else prog.fresh(keys.derive(config.seed, 'initialization'))
    )
  if main:
    files.write_json(workdir / 'config.json', provenance['config'])

  # ---- Where the batches come from ---------------------------------------------------------------
  reference = None
  if config.stage == 'rl' and config.rl.kl:
    # Copied: what the run starts from may share its memory with what the step is given to
    # overwrite.
    reference = (
      jax.tree.map(lambda x: x.copy(), start.params)
      if start
      else prog.fresh(keys.derive(config.seed, 'initialization'))['params']
    )
  start = None  # its parameters are held no longer than they are needed
  # A batch that is drawn from the parameters waits for the step before it, so that is logged first.
  waits = config.stage == 'rl'
  if config.stage == 'rl':
    rollouts = make_rollouts(config, model_config, chat_format, reference, mesh, prog)

    def next_batch(step):
      with clock.part('rollout'):
        batch, drawn, skipped = jax.block_until_ready(rollouts(jumps.batch(step), state['params']))
      for text in skipped:
        metrics.text(step + 1, 'rl/prompts_too_long', text)
      flops = estimate.rows_flops(model_config, predicted['parameters'], drawn.lengths) / mesh.size
      work = prog.updates * sum(drawn.lengths), prog.updates * flops
      return batch, drawn.count, work, drawn.metrics | {'rl/prompts_too_long': len(skipped)}
  else:
    whole = config.batch_size * config.seq_len, predicted['model_flops']

    def read(start, *whose):  # the batches of all updates from `start` on
      return itertools.chain.from_iterable(
        loader.iterate(*span, *whose) for span in jumps.ranges(start, config.steps)
      )

    stream = read(first, *share, config.microbatches)

    def next_batch(step):
      batch = {
        name: x.reshape(config.microbatches, -1, x.shape[-1]) for name, x in next(stream).items()
      }
      epoch = {'data/epoch': loader.epoch(jumps.batch(step) + 1)}
      return sharding.put_batch(batch, mesh), config.microbatches, whole, epoch

  # ---- Evaluators --------------------------------------------------------------------------------
  metrics = metrics_lib.Metrics(workdir, found, active=main)
  losses = perplexity.make_evaluate(prog.loss_fn)

  @clock.part('eval')
  def evaluate(step, log=True):
    if not val:
      return {}
    nats, weight = losses(
      state['params'],
      (sharding.put_batch(b, mesh) for b in val.iterate(0, val.steps_per_epoch, *share)),
    )
    scores = {'eval/val/loss': nats / weight}
    if config.stage == 'pretrain':
      scores['eval/val/bpb'] = perplexity.bits_per_byte(nats, val.bytes)
    if log:
      metrics.write(step, scores)
    return scores

  @clock.part('eval')
  def continuations(step):
    texts = (
      evaluation.continue_texts(
        model_config,
        state['params'],
        chat_format,
        config.eval.prompts,
        config.eval.max_new_tokens,
        config.seed,
      )
      if config.eval.prompts
      else []
    )
    for text in texts:
      metrics.text(step, text['prompt'], text['text'])

  def say(text):
    if main:
      progress.write(text)

  # ---- Bad steps: stop, skip or rewind -----------------------------------------------------------
  def describe_bad(number, values):
    if values['train/finite']:
      return (
        f'step {number}: loss {values["train/loss"]:.4g} is {values["train/spike"]:.3g} '
        'times '
        'the median of the last ones'
      )
    return f'step {number}: loss {values["train/loss"]}, gradient norm {values["opt/grad_norm"]}'

  def stop_for(number, batch, count, values, reason):
    where = ''
    if not values['train/finite']:
      place = diagnose.first_non_finite(model_config, prog.loss_fn, state['params'], batch, count)
      where = f'; first not finite: {place}'
    saved.wait()
    raise UserError(
      f'{describe_bad(number, values)}{where}. {reason}Nothing was updated; the last good '
      'checkpoint is '
      f'{saved.latest()}'
    )

  def rewind(number):
    """Goes back to the last checkpoint and leaves out the batches that were read since; returns its
    step.
    """
    nonlocal state, stream
    saved.wait()
    back, state = saved.sound(), None
    jumps.add(back, number - back)
    state = saved.restore(prog.state, back)
    stream = config.stage != 'rl' and read(back, *share, config.microbatches)
    metrics.rewind(back)
    metrics.write(
      back,
      {
        'faults/rewinds': len(jumps.all),
        'faults/batches_left_out': jumps.batch(config.steps) - config.steps,
      },
    )
    bar.update(back - bar.n)
    return back

  # ---- The loop: step N is dispatched before the metrics of step N-1 are fetched -----------------
  def settle(number, batch, count, updates, work, seen):
    """Waits for a dispatched step and logs it; False: it was bad, and the run is to go back."""
    with clock.part('step'):
      values = train_step.of_updates(
        [{name: float(x) for name, x in update.items()} for update in jax.device_get(updates)]
      )
    clock.first_step()
    bad = bool(updates) and values['train/bad'] > 0
    if bad:
      bad_steps = len(jumps.all) + 1 if on_bad_step == 'rewind' else values['train/bad_steps']
      if on_bad_step == 'stop' or bad_steps > max_bad_steps:
        limit = f'config.faults.max_bad_steps = {max_bad_steps} is reached. '
        stop_for(number, batch, count, values, '' if on_bad_step == 'stop' else limit)
      say(f'{describe_bad(number, values)}: {on_bad_step} ({bad_steps:.0f} of {max_bad_steps})')
      if on_bad_step == 'rewind':
        return False
    if updates:
      bar.set_postfix_str(f'loss {values["train/loss"]:.3f}', refresh=False)
    clock.step(*work)
    if number % config.log_every == 0 or number == config.steps:
      timing = clock.read()
      held = device.memory_stats()  # None where the backend does not count
      metrics.write(
        number,
        values
        | seen
        | timing
        | estimate.measured(
          predicted,
          timing['perf/model_flops_per_s'],
          prog.updates,
          held and held.get('peak_bytes_in_use'),
        ),
      )
    elif bad:
      metrics.write(number, values | seen)
    return True

  trace = list(profile or ())
  if trace and not first < trace[0] <= trace[1] <= config.steps:
    raise UserError(
      f'--profile is {trace[0]}:{trace[1]}; this start of the run does steps {first + 1} to '
      f'{config.steps}'
    )
  tracing = contextlib.ExitStack()
  bar = progress.bar(
    total=config.steps, initial=first, desc=config.stage, unit='step', disable=not main
  )
  with saved, metrics, bar, faults.Stop() as stop:
    # A run that was killed after its last update has logged its scores, but not reported them.
    scores = evaluate(first, log=found is None) if found is None or first == config.steps else {}
    if found is None:
      continuations(0)
      if on_bad_step == 'rewind':
        metrics.flush()
        saved.save(0, state, provenance)  # there is always something to go back to
    step, pending = first, None
    stop.polled(True)
    clock.started()
    while step < config.steps:
      step += 1
      if len(trace) == 2 and step == trace[0]:
        traced = tracing.enter_context(files.local_dir(workdir / 'profile'))
        jax.profiler.start_trace(traced)
        trace.pop(0)
      with clock.part('input'):
        batch, count, work, seen = next_batch(step - 1)
      updates = []
      if count:  # else there is nothing to learn from this batch, and nothing is computed
        with (
          clock.part('step' if clock.compiled else 'compile'),
          jax.profiler.StepTraceAnnotation('train', step_num=step),
        ):
          for _ in range(prog.updates):
            state, values = prog.step(state, batch, count)
            updates.append(values)
      bar.update()
      stopping, profiled = stop.asked(), trace == [step]
      saving = stopping or step == config.steps or step % config.checkpoint.every == 0
      evaluating = step == config.steps or step % config.eval.every == 0
      due, pending = [pending] if pending else [], (step, batch, count, updates, work, seen)
      if saving or evaluating or profiled or waits:
        due, pending = [*due, pending], None  # what is saved is good
      bad = next((dispatched[0] for dispatched in due if not settle(*dispatched)), None)
      if profiled:
        jax.profiler.stop_trace()
        tracing.close()
        trace.clear()
      if bad is not None:
        step, pending, saving, evaluating = rewind(bad), None, False, False
      if evaluating:
        scores = evaluate(step)
      if step == config.steps:
        continuations(step)
      with clock.part('save'):
        if saving:
          metrics.flush()  # no line that precedes a checkpoint is lost
          saved.save(step, state, provenance)
        if stopping:
          saved.wait()
      if stopping:
        say(f'stopped at step {step}, which is saved; the same command goes on')
        sys.exit(0)
    stop.polled(False)

    # ---- Finish: what the run came to ------------------------------------------------------------
    result = {'provenance': provenance, 'steps': config.steps, 'left_out': jumps.all} | scores
    result['parameters'] = sum(x.size for x in jax.tree.leaves(state['params']))
    result['tokens'] = config.steps * config.batch_size * config.seq_len
    if test_tasks:
      generate = evaluation.make_generate(
        model_config,
        chat_format,
        temperature=0.0,
        max_len=config.seq_len,
        max_new_tokens=config.eval.max_new_tokens,
      )
      with clock.part('eval'):
        result['scores'], result['samples'] = evaluation.score_tasks(
          config, generate, state['params'], chat_format, test_tasks
        )
    if main and config.stage == 'pretrain':
      # the texts that it went on with, rather than replies
      result['samples'] = evaluation.first_and_last_samples(workdir)
      result['pretrain'] = {'tokens': result['tokens']}
      if val:
        result['pretrain']['val_bpb'] = scores['eval/val/bpb']
      if val and config.eval.baselines:
        held_out = val.iterate(0, val.steps_per_epoch)
        with clock.part('eval'):
          result['pretrain'] |= baselines.compare(read(0), held_out, val_manifest, tokenizer)
    if main and config.stage == 'rl':
      result['rl'] = rollout.first_and_last(metrics_lib.read(workdir))
  if main:
    files.write_json(workdir / 'report.json', result | clock.goodput())
  if jax.process_count() > 1:
    # what others may take for the loss of process 0 is its writing
    multihost_utils.sync_global_devices('report')


def make_rollouts(
  config: ConfigDict, model_config: Any, chat_format: Any, reference: Any, mesh: Any, prog: Any
) -> Callable:
  """Builds `rollouts(step, params)` for stage rl: questions, sampled answers, grades, advantages.

  The questions of a step depend on the step alone, its draws on (config.seed, step): a resumed run
  asks the same.

  Args:
    reference: the parameters that the policy is to stay near; None where `config.rl.kl` is 0.
    prog: the run's `lm.train.program.Program`.

  `rollouts` returns (batch on the mesh, `lm.stages.rl.rollout.Rollouts`, a line for each problem that was
  passed over because its prompt leaves no room for an answer). Another problem of the same task is
  asked instead.
  """
  import jax

  import eval as evaluation
  from data.chat import chat_formats
  from lm.model.attention import kernels
  from lm.parallel import keys, sharding
  from lm.stages.rl import policy_gradient as rl_step
  from lm.stages.rl import rollout

  rl, tasks = config.rl, evaluation.make_tasks(config, config.data.tasks)
  if not tasks:
    raise UserError("config.data.tasks is ''; stage rl needs tasks to practise")
  if config.batch_size % rl.group_size:
    raise UserError(
      f'config.rl.group_size is {rl.group_size}; it must divide batch_size, {config.batch_size}'
    )
  generate = evaluation.make_generate(
    model_config,
    chat_format,
    temperature=rl.temperature,
    max_new_tokens=rl.max_new_tokens,
    max_len=config.seq_len,
  )
  if rl.kl:
    score = rl_step.make_reference(
      rl_step.make_score(
        model_config,
        config.loss,
        rl.temperature,
        chat_format.banned_ids(model_config.vocab_size),
      )
    )
    score = jax.jit(score, out_shardings=prog.batch['reference_log_probs'].sharding)
  questions = config.batch_size // rl.group_size
  rounds = -(-config.steps * questions // len(tasks))  # problems of each task in the whole run
  multiple = math.lcm(
    rollout.MULTIPLE, kernels.length_multiple(model_config.attention, mesh.shape['context'])
  )

  def question(i):
    """(task, problem, prompt, what was passed over) of question i of the run."""
    task = tasks[i % len(tasks)]

    def draw(n):
      problem = task.problem(n, 'train')
      return problem, chat_format.render_prompt(problem['messages'])

    problem, prompt, skipped = rollout.ask(draw, i // len(tasks), rounds, config.seq_len)
    return (
      task,
      problem,
      prompt,
      [
        f'task {task.name}, training problem {n}: a prompt of {length} tokens'
        for n, length in skipped
      ],
    )

  def rollouts(step, params):
    asked, problems, prompts, skipped = zip(
      *map(question, range(step * questions, (step + 1) * questions)), strict=True
    )
    key = keys.derive(config.seed, 'rollouts', step)

    def grade(q, completion):
      reply = chat_format.parse(completion.tokens)
      right = asked[q].grade(problems[q], reply)
      return rollout.Grade(
        right + rl.format_reward * chat_formats.grade_format(reply), right >= 0.5
      )

    drawn = rollout.collect(
      lambda rows, repeats: generate(params, rows, key, repeats),
      list(prompts),
      grade,
      rl,
      config.batch_size // config.microbatches,
      multiple,
      config.seq_len,
    )
    batch = sharding.put_batch(sharding.own_rows(drawn.batch, mesh), mesh)
    if rl.kl:
      batch['reference_log_probs'] = score(reference, batch['inputs'], batch['targets'])
    return batch, drawn, [line for lines in skipped for line in lines]

  return rollouts


def train_stage(config: ConfigDict, workdir: pathlib.Path) -> None:
  """`train` as a stage of a recipe: one that was told to stop is not complete."""
  try:
    train(config, workdir)
  except SystemExit:
    sys.exit(128 + signal.SIGTERM)


def recipe(config: ConfigDict, workdir: pathlib.Path) -> None:
  """Runs the stages of a recipe, each in a process of its own; those that are complete are
  skipped.
  """
  from data.pipeline import steps as data_stages

  # name -> (function, its part of the config, what it leaves behind)
  known = {
    'crawl': (data_stages.crawl, config.crawl, 'crawl/report.json'),
    'clean': (data_stages.clean, config.clean, 'clean/report.json'),
    'tokenizer': (data_stages.tokenizer, config.tokenizer, 'tokenizer/tokenizer.json'),
    'tokenize': (data_stages.tokenize, config.tokenizer, 'tokens/train/manifest.json'),
    'pretrain': (train_stage, config.pretrain, 'pretrain/report.json'),
    'sft': (train_stage, config.sft, 'sft/report.json'),
    'rl': (train_stage, config.rl, 'rl/report.json'),
    'report': (card.write_report, None, 'report.json'),
  }
  todo, fingerprint = [], ''
  for name in config.stages:
    if name not in known:
      raise unknown('config.stages', name, known)
    function, part, output = known[name]
    settings = config_lib.as_json(part) if part else {}
    fingerprint = files.digest([name, settings, fingerprint])
    if function is train_stage:
      files.write_json(workdir / 'final.json', {'run': name})
      args = (config_lib.place(part, workdir), workdir / name)
    else:
      args = (part, workdir) if part else (workdir,)
    todo.append(recipes.Stage(name, function, args, fingerprint, (output,), settings))
  recipes.run_stages(workdir, todo)
  print(
    f'report: {workdir}/report.html (also .md, .json)\nchat:   python -m lm.chat '
    f'--checkpoint={workdir}'
  )


def run_sweep(config: ConfigDict, options: flags.FlagValues) -> None:
  """The trials of a config file, each as a run of this file."""
  from lm.launch import sweep

  if not options.workdir:
    raise UserError('--workdir is missing; for example --workdir=runs/sweep')
  spec = next(
    re.fullmatch(r'--?config=(.*)', a)[1] for a in sys.argv[1:] if re.match(r'--?config=', a)
  )
  overrides = [a for a in sys.argv[1:] if re.match(r'--?config\.', a)]
  workdir = files.local_path(options.workdir, '--workdir of a sweep')
  if options['print-commands'].value:
    return sweep.print_commands(spec, overrides, workdir)
  sweep.run(spec, config, overrides, workdir, parallel=options.parallel, fit=options.fit)


def main() -> None:
  config_lib.define_flags()
  flags.DEFINE_string(
    'workdir', None, 'where everything goes; a recipe has a place of its own when this is not given'
  )
  flags.DEFINE_string(
    'coordinator',
    None,
    'HOST:PORT of process 0, where a run of several processes is not found by itself',
  )
  flags.DEFINE_integer('num-processes', None, 'of the whole run')
  flags.DEFINE_integer('process-id', None, 'of this one, from 0')
  flags.DEFINE_integer(
    'heartbeat-seconds',
    60,
    'a process silent for so long is lost, and ends the others with an error',
  )
  flags.DEFINE_bool('sweep', False, "run the trials of the config file's sweep()")
  flags.DEFINE_integer('parallel', 1, 'of --sweep: trials at one time', lower_bound=1)
  flags.DEFINE_bool(
    'print-commands', False, 'of --sweep: print a command for each trial, and run none'
  )
  flags.DEFINE_bool(
    'fit', False, 'of --sweep: fit a scaling law to the trials, and foretell the largest by it'
  )
  flags.DEFINE_string(
    'profile', None, 'FIRST:LAST step of which an XProf trace goes to WORKDIR/profile'
  )
  flags.DEFINE_bool('dry', False, 'print shapes, shardings and budget and end')
  flags.DEFINE_bool('nojit', False, 'run operation by operation, for a debugger')
  flags.DEFINE_bool(
    'debug-nans', False, 'end with a traceback at the operation that first yields a NaN'
  )
  config, options = config_lib.parse(sys.argv, __doc__), flags.FLAGS
  os.environ |= {
    name: '1'
    for name, on in (
      ('JAX_DISABLE_JIT', options.nojit),
      ('JAX_DEBUG_NANS', options['debug-nans'].value),
    )
    if on
  }  # read when jax is imported, by the stages of a recipe too
  if options.sweep:
    return run_sweep(config, options)
  if config.stage == 'recipe':
    return recipe(
      config, files.local_path(options.workdir or config.workdir, '--workdir of a recipe')
    )
  if not options.workdir:
    raise UserError('--workdir is missing; for example --workdir=runs/pretrain')
  if config.stage not in ('pretrain', 'sft', 'rl'):
    raise unknown('config.stage', config.stage, ('pretrain', 'sft', 'rl', 'recipe'))
  profile = options.profile and re.fullmatch(r'(\d+):(\d+)', options.profile)
  if options.profile and not (profile and 0 < int(profile[1]) <= int(profile[2])):
    raise UserError(f'--profile is {options.profile!r}; FIRST:LAST is wanted, steps from 1')
  allocator.keep_freed_memory()
  from lm.parallel import distributed

  distributed.initialize(
    options.coordinator,
    options['num-processes'].value,
    options['process-id'].value,
    options['heartbeat-seconds'].value,
  )
  train(
    config,
    files.as_path(options.workdir),
    profile=profile and (int(profile[1]), int(profile[2])),
    dry=options.dry,
  )


if __name__ == '__main__':
  run(main)
