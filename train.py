"""The one launcher: python train.py --config=configs/quickstart.py [--workdir=DIR] [--config.FIELD=VALUE ...]

A config of stage pretrain, sft or rl is one training run: `train` below, read from top to bottom. A recipe is a list of
such runs and of the data stages before them, each in a process of its own (`lm.stages`).
"""

import os
import pathlib
import sys
from collections.abc import Callable
from typing import Any

from absl import flags
from ml_collections import ConfigDict

from lm import config as config_lib
from lm import files, host, report, stages
from lm.errors import UserError, run, unknown

# A recipe's parent and its data stages import this file too and have no use for jax: `train` imports what it needs.


def train(config: ConfigDict, workdir: pathlib.Path) -> None:
  """One training run, from wherever `workdir` stands to its last step and its report."""
  host.keep_freed_memory()
  import jax
  import tqdm

  import eval as evaluation
  from configs import base
  from data import baselines, chat, prepare
  from lm import checkpoint, model, pretrained, program, rollout, sharding
  from lm import metrics as metrics_lib
  from lm.evals import perplexity
  from lm.steps import diagnose

  # ---- Config ----------------------------------------------------------------------------------------------------
  if config.batch_size % config.microbatches:
    raise UserError(f'config.microbatches is {config.microbatches}; it must divide batch_size, {config.batch_size}')
  rows = config.batch_size // config.microbatches
  allow = config_lib.names(config.checkpoint.allow_mismatch)

  if 'JAX_COMPILATION_CACHE_DIR' not in os.environ:  # the second start of a run compiles nothing
    jax.config.update('jax_compilation_cache_dir', str(pathlib.Path.home() / '.cache' / 'deepdive' / 'jax'))

  # ---- Devices and mesh ------------------------------------------------------------------------------------------
  mesh = sharding.make_mesh(config.mesh)
  jax.set_mesh(mesh)
  sharding.check_length(mesh, config.seq_len)
  sharding.check_rows(mesh, {'batch_size / microbatches': rows, 'eval.batch_size': config.eval.batch_size})

  # ---- Model and tokenizer: those of init_from, or new -----------------------------------------------------------
  start = None
  if config.init_from:
    start = pretrained.load(evaluation.find_model(config.init_from), config.model, base.get_config().model, mesh)
  chat_format = chat.load(start.tokenizer if start else config.data.tokenizer, config.data.chat_format,
                          extend=not start or config.stage != 'pretrain', tools=config.data.tools)
  tokenizer = chat_format.tokenizer
  if start:
    start.check_tokenizer(chat_format.plain_fingerprint, allow)
    start = pretrained.grow(start, tokenizer.vocab_size, mesh)
    model_config = start.config
  else:
    model_config = model.sized(config.model, tokenizer.vocab_size)
  if config.seq_len > model_config.max_len:
    raise UserError(f'config.seq_len is {config.seq_len}; the model reads at most max_len = {model_config.max_len} tokens')
  chat_format.save(workdir / 'tokenizer')

  # ---- Data: batch(step) is a pure function of (manifest, seed, step, batch size) --------------------------------
  test_tasks = evaluation.make_tasks(config, config.eval.tasks)
  if test_tasks or config.stage != 'pretrain':
    _ = chat_format.layout  # that there is none is said now, not when it is needed
  loader = val = None
  if config.stage == 'rl':
    data_fingerprint = files.digest([config.data.task_seed, config.data.tasks])
  else:
    train_manifest, val_manifest = prepare.manifests(config, chat_format, workdir / 'data')
    loader = evaluation.open_mixture(config, chat_format, train_manifest)
    val = val_manifest and evaluation.open_loader(config, chat_format, val_manifest, train=False)
    data_fingerprint = loader.fingerprint

  # ---- The program: the jitted step, shapes and shardings --------------------------------------------------------
  banned = chat_format.banned_ids if config.stage == 'rl' else ()
  prog = program.make(config, model_config, mesh, banned)

  # ---- Restore or init: own checkpoint > init_from > scratch -----------------------------------------------------
  saved = checkpoint.Checkpointer(workdir / 'checkpoints', keep_last=config.checkpoint.keep_last,
                                  keep_every=config.checkpoint.keep_every or None)
  provenance = {'config': config_lib.as_json(config) | {'model': config_lib.as_json(model_config)},
                'code': checkpoint.code_version(), 'data': data_fingerprint, 'tokenizer': tokenizer.fingerprint,
                'init_from': start.provenance if start else None}
  first = saved.latest() or 0
  if first:
    checkpoint.check_provenance(saved.provenance(first), provenance, allow)
    state = saved.restore(prog.state, first)
  elif start:
    state = prog.start(start.params)
  else:
    state = prog.fresh(jax.random.key(config.seed))
  files.write_json(workdir / 'config.json', provenance['config'])

  # ---- Where the batches come from -------------------------------------------------------------------------------
  if config.stage == 'rl':
    reference = start.params if start else prog.fresh(jax.random.key(config.seed))['params']
    next_batch = make_rollouts(config, model_config, chat_format, reference, mesh)
  else:
    stream = loader.iterate(first, config.steps)

    def next_batch(step, _):
      batch = {name: x.reshape(config.microbatches, rows, -1) for name, x in next(stream).items()}
      epoch = {'data/epoch': loader.epoch(step + 1)}
      return sharding.put_batch(batch, mesh), config.microbatches, epoch

  # ---- Evaluators ------------------------------------------------------------------------------------------------
  metrics = metrics_lib.Metrics(workdir, first or None)
  losses = perplexity.make_evaluate(prog.loss_fn)

  def evaluate(step, log=True):
    if not val:
      return {}
    nats, weight = losses(state['params'], (sharding.put_batch(b, mesh) for b in val.iterate(0, val.steps_per_epoch)))
    scores = {'eval/val/loss': nats / weight}
    if config.stage == 'pretrain':
      scores['eval/val/bpb'] = perplexity.bits_per_byte(nats, val.bytes)
    if log:
      metrics.write(step, scores)
    return scores

  def continuations(step):
    texts = evaluation.continue_texts(model_config, state['params'], chat_format, config.eval.prompts,
                                      config.eval.max_new_tokens, config.seed) if config.eval.prompts else []
    for text in texts:
      metrics.text(step, text['prompt'], text['text'])

  # ---- The loop: step N is dispatched before the metrics of step N-1 are fetched ---------------------------------
  clock = metrics_lib.Clock()

  def settle(number, batch, values, seen):
    """Waits for a dispatched step and logs it; a loss that is not finite ends the run."""
    values = {name: float(value) for name, value in jax.device_get(values).items()}
    if not values['train/finite']:
      where = diagnose.first_non_finite(model_config, prog.loss_fn, state['params'], {k: v[0] for k, v in batch.items()})
      saved.wait()
      raise UserError(f'step {number}: loss {values["train/loss"]}, gradient norm {values["opt/grad_norm"]}; first not '
                      f'finite: {where}. Nothing was updated; the last good checkpoint is {saved.latest()}')
    bar.set_postfix_str(f'loss {values["train/loss"]:.3f}')
    clock.update(batch['inputs'].size)
    if number % config.log_every == 0 or number == config.steps:
      metrics.write(number, values | seen | clock.read())

  with saved, metrics, tqdm.tqdm(total=config.steps, initial=first, desc=config.stage, unit='step') as bar:
    # A run that was killed after its last update has logged its scores, but not reported them.
    scores = evaluate(first, log=not first) if first in (0, config.steps) else {}
    if not first:
      continuations(0)
    pending = None
    clock.restart()
    for step in range(first + 1, config.steps + 1):
      with clock.waiting():
        batch, count, seen = next_batch(step - 1, state['params'])
      for _ in range(prog.updates):
        state, values = prog.step(state, batch, count)
      if pending:
        settle(*pending)
      pending = step, batch, values, seen
      bar.update()
      saving = step == config.steps or step % config.checkpoint.every == 0
      evaluating = step == config.steps or step % config.eval.every == 0
      if saving or evaluating:
        settle(*pending)  # what is saved is finite
        pending = None
      if evaluating:
        scores = evaluate(step)
      if step == config.steps:
        continuations(step)
      if saving:
        saved.save(step, state, provenance)
      if saving or evaluating:
        clock.restart()

    # ---- Finish: what the run came to ----------------------------------------------------------------------------
    result = {'provenance': provenance, 'steps': config.steps} | scores
    if config.stage == 'pretrain':
      result['samples'] = evaluation.first_and_last_samples(workdir)
      result['pretrain'] = {'tokens': config.steps * config.batch_size * config.seq_len}
      if val:
        result['pretrain']['val_bpb'] = scores['eval/val/bpb']
      if val and config.eval.baselines:
        consumed, held_out = loader.iterate(0, config.steps), val.iterate(0, val.steps_per_epoch)
        result['pretrain'] |= baselines.compare(consumed, held_out, val_manifest, tokenizer)
    if config.stage == 'rl':
      result['rl'] = rollout.first_and_last(metrics_lib.read(workdir))
    if test_tasks:
      generate = evaluation.make_generate(model_config, chat_format, temperature=0.0,
                                          max_len=config.seq_len, max_new_tokens=config.eval.max_new_tokens)
      scores, replies = evaluation.score_tasks(generate, state['params'], chat_format, test_tasks, config.eval.examples,
                                               config.eval.batch_size, config.seed)
      result['scores'] = scores
      result.setdefault('samples', replies)  # of a pretraining run they are the texts that it went on with
  files.write_json(workdir / 'report.json', result)


def make_rollouts(config: ConfigDict, model_config: Any, chat_format: Any, reference_params: Any, mesh: Any) -> Callable:
  """Builds `next_batch(step, params)` for stage rl: questions, sampled answers, grades, advantages.

  The questions of a step depend on the step alone, its draws on (config.seed, step): a resumed run asks the same.
  """
  import jax
  import numpy as np

  import eval as evaluation
  from data import chat
  from lm import rollout, sharding
  from lm.steps import rl as rl_step

  rl, tasks = config.rl, evaluation.make_tasks(config, config.data.tasks)
  if not tasks:
    raise UserError("config.data.tasks is ''; stage rl needs tasks to practise")
  if config.batch_size % rl.group_size:
    raise UserError(f'config.rl.group_size is {rl.group_size}; it must divide batch_size, {config.batch_size}')
  generate = evaluation.make_generate(model_config, chat_format, temperature=rl.temperature,
                                      max_new_tokens=rl.max_new_tokens, max_len=config.seq_len)
  score = jax.jit(rl_step.make_score(model_config, config.loss, rl.temperature, chat_format.banned_ids))
  questions = config.batch_size // rl.group_size
  # Copied: what the run started from may share its memory with what the step is given to overwrite.
  reference_params = jax.tree.map(lambda x: x.copy(), reference_params) if rl.kl else None

  def next_batch(step, params):
    asked = [(tasks[i % len(tasks)], i // len(tasks)) for i in range(step * questions, (step + 1) * questions)]
    problems = [task.problem(i, 'train') for task, i in asked]
    prompts = [chat_format.render_prompt(p['messages']) for p in problems]
    key = jax.random.fold_in(jax.random.key(config.seed), step)

    def grade(q, completion):
      reply = chat_format.parse(completion.tokens)
      right = asked[q][0].grade(problems[q], reply)
      return rollout.Grade(right + rl.format_reward * chat.grade_format(reply), right >= 0.5)

    batch, seen = rollout.collect(lambda rows: generate(params, rows, key), prompts, grade, rl)
    if rl.kl:
      batch['reference_log_probs'] = np.asarray(score(reference_params, batch['inputs'], batch['targets'])[0])
    batch, count = rollout.split(batch, config.batch_size // config.microbatches)
    return sharding.put_batch(batch, mesh), count, seen

  return next_batch


def recipe(config: ConfigDict, workdir: pathlib.Path) -> None:
  """Runs the stages of a recipe, each in a process of its own; those that are complete are skipped."""
  from data import stages as data_stages

  # name -> (function, its part of the config, what it leaves behind)
  known = {
    'crawl': (data_stages.crawl, config.crawl, 'crawl/report.json'),
    'clean': (data_stages.clean, config.clean, 'clean/report.json'),
    'tokenizer': (data_stages.tokenizer, config.tokenizer, 'tokenizer/tokenizer.json'),
    'tokenize': (data_stages.tokenize, config.tokenizer, 'tokens/train/manifest.json'),
    'pretrain': (train, config.pretrain, 'pretrain/report.json'),
    'sft': (train, config.sft, 'sft/report.json'),
    'rl': (train, config.rl, 'rl/report.json'),
    'report': (report.write_report, None, 'report.json'),
  }
  todo, fingerprint = [], ''
  for name in config.stages:
    if name not in known:
      raise unknown('config.stages', name, known)
    function, part, output = known[name]
    settings = config_lib.as_json(part) if part else {}
    fingerprint = files.digest([name, settings, fingerprint])
    if function is train:
      files.write_json(workdir / 'final.json', {'run': name})
      args = (config_lib.place(part, workdir), workdir / name)
    else:
      args = (part, workdir) if part else (workdir,)
    todo.append(stages.Stage(name, function, args, fingerprint, (output,), settings))
  stages.run_stages(workdir, todo)
  print(f'report: {workdir}/report.html (also .md, .json)\nchat:   python -m lm.chat --checkpoint={workdir}')


def main() -> None:
  config_lib.define_flags()
  flags.DEFINE_string('workdir', None, 'where everything goes; a recipe has a place of its own when this is not given')
  config = config_lib.parse(sys.argv)
  workdir = flags.FLAGS.workdir
  if config.stage == 'recipe':
    recipe(config, pathlib.Path(workdir or config.workdir))
  elif not workdir:
    raise UserError('--workdir is missing; for example --workdir=runs/pretrain')
  elif config.stage not in ('pretrain', 'sft', 'rl'):
    raise unknown('config.stage', config.stage, ('pretrain', 'sft', 'rl', 'recipe'))
  else:
    train(config, pathlib.Path(workdir))


if __name__ == '__main__':
  run(main)
