"""Times whole steps of GRPO on random prompts, and trl's GRPOTrainer by turns with them.

A step samples answers, scores them and updates the model. Each system runs in a worker of its own
(lm/cost/workers.py). Both have the same weights, in float32, and the same prompts and rewards (the
share of even tokens in an answer, which differs in every group), draw as many tokens, and keep as
many rows in memory.
"""

import argparse
import json
import pathlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from lm.base import allocator
from lm.base.errors import UserError
from lm.cost.workers import FromData, of_model, require

# No jax at the top: a worker that runs torch may run where jax is not installed.

PARTS = ('sampling', 'scoring', 'update')


def add_flags(parser: argparse.ArgumentParser) -> None:
  """Adds the flags of the command."""

  def number(name: str, default: int, what: str) -> None:
    parser.add_argument(
      f'--{name}', type=int, default=default, help=f'{what} (default %(default)s)'
    )

  parser.add_argument('--model', default='smollm2', help='a checkpoint, or smollm2 (default)')
  number('prompts', 8, 'prompts of a step')
  number('answers', 8, 'answers to each of them')
  number('prompt', 32, 'tokens of a prompt')
  number('new', 64, 'new tokens of each answer')
  number('rows', 8, 'answers that are in memory at once in an update')
  number('turns', 3, 'steps that are measured, after one that compiles; the median counts')
  parser.add_argument(
    '--kl', type=float, default=0.0, help='weight of the divergence from the start (default 0)'
  )
  parser.add_argument('--beside', choices=['trl'], help='a second system to time')


def prompts(args: argparse.Namespace, step: int, vocab_size: int) -> list[list[int]]:
  """Returns the prompts of a step, random and the same in every process."""
  import numpy as np

  rng = np.random.default_rng(step)
  return rng.integers(3, vocab_size, size=(args.prompts, args.prompt)).tolist()


def reward(tokens: Sequence[int]) -> float:
  """Returns the share of even tokens in an answer."""
  return sum(token % 2 == 0 for token in tokens) / max(len(tokens), 1)


# ---- What workers do


class RandomQuestions:
  """Random prompts, as `data.batches.questions.Questions` has those of tasks."""

  num_tasks = 1

  def __init__(self, args: argparse.Namespace, vocab_size: int):
    self._args, self._vocab_size = args, vocab_size

  def place(self, index: int) -> tuple[str, int]:
    return 'random', index

  def draw(self, index: int, number: int) -> tuple[dict[str, Any], list[int]]:
    step, place = divmod(number, self._args.prompts)
    return {}, prompts(self._args, step, self._vocab_size)[place]

  def difficulty(self, index: int, problem: dict[str, Any]) -> str:
    return ''

  def grade(self, index: int, problem: dict[str, Any], tokens: list[int]) -> tuple[float, float]:
    return reward(tokens), 1.0


class Endless:
  """A chat format in which nothing ends an answer, and no tool is called."""

  stops: tuple[int, ...] = ()
  call_ids: tuple[int, ...] = ()

  def banned_ids(self, vocab_size: int) -> tuple[int, ...]:
    return ()

  def answer_call(self, ids: list[int], tool: Callable[[str], str]) -> list[int]:
    return []


def ours(
  args: argparse.Namespace, locate: Callable[[str], Any]
) -> tuple[dict[str, Any], Callable[[], dict]]:
  """Returns facts about our system, and what makes a step of the stage rl, timed."""
  import jax

  from configs import base
  from lm import stages
  from lm.base.metrics import Clock
  from lm.parallel import sharding
  from lm.train import faults, program
  from lm.train.batches import Run
  from lm.weights import pretrained

  defaults = base.get_config()
  config = base.get_config()
  rows = args.prompts * args.answers
  config.update(stage='rl', batch_size=rows, microbatches=rows // args.rows)
  config.update(seq_len=args.prompt + args.new, steps=args.turns + 1)
  config.optim.update(lr=1e-6, warmup=0, schedule='constant', weight_decay=0.0)
  config.rl.update(group_size=args.answers, max_new_tokens=args.new, kl=args.kl, rollouts_every=0)
  config.model.update(scan_layers=False)
  stage = stages.make(config)
  stage.check(defaults)
  mesh = sharding.make_mesh(config.mesh)
  jax.set_mesh(mesh)
  program.check_shapes(config, mesh)
  start = pretrained.load(locate(args.model), config.model, defaults.model, mesh)
  prog = program.make(config, stage, start.config, mesh)
  params = start.params
  state = prog.start(params)
  clock = Clock()
  with tempfile.TemporaryDirectory() as folder:
    run = Run(
      config=config,
      defaults=defaults,
      model_config=start.config,
      mesh=mesh,
      program=prog,
      source=RandomQuestions(args, start.config.vocab_size),
      chat_format=Endless(),
      jumps=faults.Jumps(pathlib.Path(folder) / 'jumps.json'),
      clock=clock,
      call_tool=str,
      workdir=pathlib.Path(folder),
    )
  batches = stage.make_batches(run, lambda: prog.copy_params(params, None))
  clock.started()
  step = 0

  def answer() -> dict:
    nonlocal state, step
    began = time.perf_counter()
    batch = batches.next(step, state['params'])
    for _ in range(prog.updates):
      state, metrics = prog.step(state, batch.arrays, batch.count)
    gap = float(metrics['rl/sampler_gap'])
    seconds = time.perf_counter() - began
    clock.step(sum(batch.lengths), 0.0)
    spent = clock.read()
    sampling, scoring = spent['perf/rollout_s'], spent.get('perf/score_s', 0.0)
    step += 1
    return {
      'seconds': seconds,
      'sampling': sampling,
      'scoring': scoring,
      'update': seconds - sampling - scoring,
      'drawn': sum(batch.lengths) - rows * args.prompt,
      'reward': batch.metrics['rl/reward'],
      'sampler_gap': gap,
    }

  return {'system': f'deepdive on jax {jax.__version__}, {jax.devices()[0].platform}'}, answer


def trls(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
  """Yields facts about trl, and then a timed step for each line of stdin.

  Its trainer has no step to call: it waits for the lines where it begins one. The text of a prompt
  is its token ids as decimal numbers, which the tokenizer reads as they are.
  """
  import datasets
  import tokenizers
  import torch
  import transformers
  import trl

  model = transformers.AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32)
  vocabulary = {str(i): i for i in range(model.config.vocab_size)}
  words = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token='0'))
  words.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
  tokenizer = transformers.PreTrainedTokenizerFast(
    tokenizer_object=words, pad_token='0', eos_token='1'
  )
  texts = [
    {'prompt': ' '.join(map(str, prompt))}
    for step in range(args.turns + 1)
    for prompt in prompts(args, step, model.config.vocab_size)
  ]
  told: list[dict[str, Any]] = []

  def rewards(completion_ids: list[list[int]], **_: Any) -> list[float]:
    graded = [reward(tokens) for tokens in completion_ids]
    told.append({'drawn': sum(map(len, completion_ids)), 'reward': sum(graded) / len(graded)})
    return graded

  class Turns(transformers.TrainerCallback):
    def on_step_begin(self, *_: Any, **__: Any) -> None:
      sys.stdin.readline()
      self.began = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
      seconds = time.perf_counter() - self.began
      print(json.dumps({'seconds': seconds, **told[-1]}), file=sys.stdout, flush=True)

  rows = args.prompts * args.answers
  with tempfile.TemporaryDirectory() as folder:
    options = trl.GRPOConfig(
      output_dir=folder,
      per_device_train_batch_size=args.rows,
      gradient_accumulation_steps=rows // args.rows,
      num_generations=args.answers,
      max_completion_length=args.new,
      generation_kwargs={'min_new_tokens': args.new},
      beta=args.kl,
      temperature=1.0,
      learning_rate=1e-6,
      lr_scheduler_type='constant',
      max_steps=args.turns + 1,
      gradient_checkpointing=False,
      bf16=False,
      use_cpu=True,
      save_strategy='no',
      report_to='none',
      disable_tqdm=True,
      logging_steps=args.turns + 1,
      shuffle_dataset=False,
    )
    trainer = trl.GRPOTrainer(
      model=model,
      reward_funcs=rewards,
      args=options,
      train_dataset=datasets.Dataset.from_list(texts),
      processing_class=tokenizer,
      callbacks=[Turns()],
    )
    yield {'system': f'trl {trl.__version__} on torch {torch.__version__}'}
    trainer.train()


def work(args: argparse.Namespace, from_data: FromData) -> None:
  """Prints facts, then a timed step for each line of stdin, as JSON."""
  if args.system == 'trl':
    for facts in trls(args):
      print(json.dumps(facts), flush=True)
    return
  facts, answer = ours(args, from_data.locate)
  print(json.dumps(facts), flush=True)
  for _ in sys.stdin:
    print(json.dumps(answer()), flush=True)


# ---- What the parent does


def results(
  args: argparse.Namespace, argv: Sequence[str], from_data: FromData
) -> Iterator[dict[str, Any]]:
  """Yields the one result.

  Args:
    args: the arguments of the command.
    argv: the same as text, for the workers.
    from_data: locates and exports models.

  Raises:
    UserError: an argument is not allowed.
  """
  for name in ('prompts', 'answers', 'prompt', 'new', 'rows', 'turns'):
    if getattr(args, name) < 1:
      raise UserError(field=f'--{name}', value=getattr(args, name), allowed='at least 1')
  in_all = args.prompts * args.answers
  if in_all % args.rows:
    raise UserError(field='--rows', value=args.rows, allowed=f'a divisor of {in_all}, all answers')
  if args.beside:
    require(args.beside_python, ('datasets', 'torch', 'transformers', 'trl'), '--beside=trl')
  with of_model(args, argv, from_data, 'trl', allocator.huge_pages()) as workers:
    for worker in workers:
      worker.ask()  # It compiles.
    turns = [[worker.ask() for worker in workers] for _ in range(args.turns)]
    yield _result(args, [worker.seen[0]['system'] for worker in workers], turns)


def _result(
  args: argparse.Namespace, systems: Sequence[str], turns: Sequence[Sequence[dict[str, Any]]]
) -> dict[str, Any]:
  """Returns the line of the output from the steps of all systems at each turn."""
  shape = {name: getattr(args, name) for name in ('prompts', 'answers', 'prompt', 'new', 'rows')}
  found = [
    {
      'system': system,
      'step_s': statistics.median(step['seconds'] for step in steps),
      'seconds': [step['seconds'] for step in steps],
      'tokens_drawn': [step['drawn'] for step in steps],
      'reward': [step['reward'] for step in steps],
    }
    for system, steps in zip(systems, zip(*turns, strict=True), strict=True)
  ]
  mine = [turn[0] for turn in turns]
  in_all = sum(step[part] for step in mine for part in PARTS)
  result = {
    'command': args.command,
    **found[0],
    **shape,
    'kl': args.kl,
    'shares': {part: sum(step[part] for step in mine) / in_all for part in PARTS},
    'sampler_gap': max(step['sampler_gap'] for step in mine),
  }
  if args.beside:
    result['beside'] = found[1]
    result['ratio'] = statistics.median(b['seconds'] / a['seconds'] for a, b in turns)
  return result
