"""Evaluates a checkpoint: python eval.py --config=configs/eval.py --checkpoint=DIR
--out=report.json
"""

import math
import pathlib
import random
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
from absl import flags
from ml_collections import ConfigDict, FrozenConfigDict

from configs import base
from data import tasks as tasks_lib
from data.chat import chat_formats
from data.shards.loader import Loader
from data.shards.mixture import Mixture
from data.tokenizers import gguf_vocabulary as gguf_tokenizer
from data.tools import calculator
from lm.base import config as config_lib
from lm.base import files, metrics
from lm.base.errors import UserError, run
from lm.evals import perplexity, scoring
from lm.infer import engine
from lm.model import quantize
from lm.parallel import keys, sharding
from lm.stages import pretrain
from lm.weights import gguf, pretrained


def make_generate(
  config: FrozenConfigDict,
  chat_format: chat_formats.Format,
  *,
  temperature: float,
  max_new_tokens: int,
  max_len: int,
) -> Callable[[Any, Sequence[list[int]], jax.Array], list[engine.Completion]]:
  """Builds `generate(params, prompts, key)`: replies in the chat format, calls of the calculator
  answered.

  Args:
    config: the model's.
    max_new_tokens: longest reply, tool outputs not counted.
    max_len: longest prompt and reply together, tokens.
  """
  sampling = engine.Sampling(temperature, banned_ids=chat_format.banned_ids(config.vocab_size))

  def generate(params, prompts, key):
    return engine.generate(
      config,
      params,
      prompts,
      key=key,
      sampling=sampling,
      max_new_tokens=max_new_tokens,
      stop_ids=chat_format.stops,
      capacity=max_len,
      tool=lambda ids: chat_format.answer_call(ids, calculator.calculate),
      pause_ids=chat_format.call_ids,
    )

  return generate


def score_tasks(
  config: ConfigDict,
  generate: Callable,
  params: Any,
  chat_format: chat_formats.Format,
  tasks: Sequence[Any],
) -> tuple[dict[str, dict], list[dict]]:
  """Accuracy on the test problems of each task, and `format`: the share of all problems whose reply
  keeps the format.

  A prompt of `config.seq_len` tokens or more leaves no room for a reply: it counts as wrong, and
  `too_long` says how many did.

  Returns:
    (scores, samples): {task: {accuracy, low, high, n, too_long}}, and those of `score_turns`; a few
    {task, prompt, reply, grade}.
  """
  if config.eval.turns < 1:
    raise UserError(f'config.eval.turns is {config.eval.turns}; it must be at least 1')
  scores, samples, formats, asked = {}, [], [], []
  for t, task in enumerate(tasks):
    problems = [task.problem(i, 'test') for i in range(config.eval.examples)]
    prompts = [chat_format.render_prompt(p['messages']) for p in problems]

    def draw(rows, batch, t=t):
      return generate(params, rows, keys.derive(config.seed, 'evaluation', t, batch))

    def grade(problem, completion, task=task):
      if completion is None:
        formats.append(0.0)
        return 0.0
      reply = chat_format.parse(completion.tokens)
      formats.append(chat_formats.grade_format(reply))
      value = task.grade(problem, reply)
      if sum(s['task'] == task.name for s in samples) < 4:
        samples.append(
          {
            'task': task.name,
            'prompt': problem['messages'][-1]['content'],
            'reply': chat_format.tokenizer.decode(completion.tokens),
            'grade': value,
          }
        )
      return value

    grades = scoring.score(problems, prompts, draw, grade, config.eval.batch_size, config.seq_len)
    names = [(task.name, p['key']) for p in problems]
    too_long = sum(len(p) >= config.seq_len for p in prompts)
    scores[task.name] = scoring.summary(grades, names) | {'too_long': too_long}
    asked += names
  scores['format'] = scoring.summary(formats, asked)
  if config.eval.turns > 1:
    turns, more = score_turns(config, generate, params, chat_format, tasks)
    scores, samples = scores | turns, samples + more
  return scores, samples


def score_turns(
  config: ConfigDict,
  generate: Callable,
  params: Any,
  chat_format: chat_formats.Format,
  tasks: Sequence[Any],
) -> tuple[dict[str, dict], list[dict]]:
  """Accuracy on the first, second, ... question of conversations, after the model's own replies.

  Every turn asks the same test problems, equally many of each task, in another order: the turns
  differ only in what was said before. The tokens are those of `lm.chat`.

  Returns:
    (scores, samples) as `score_tasks`: {'turn_1': {...}, ...}, and a few last questions, their
    prompt being the whole conversation.
  """
  each = math.ceil(config.eval.examples / len(tasks))
  problems = [(task, task.problem(i, 'test')) for task in tasks for i in range(each)]
  random.Random(config.seed).shuffle(problems)
  scores, talks = {}, [[] for _ in problems]  # the tokens of each conversation
  for turn in range(config.eval.turns):
    asked = [problems[(i + turn) % len(problems)] for i in range(len(problems))]
    for talk, (_, problem) in zip(talks, asked, strict=True):
      if talk:
        question, stopped = problem['messages'][-1]['content'], talk[-1] in chat_format.stops
        talk += chat_format.render_next(question, stopped)
      else:
        talk += chat_format.render_prompt(problem['messages'])
    replies = []

    def draw(rows, batch, turn=turn):
      key = keys.derive(config.seed, 'evaluation', len(tasks) + turn, batch)
      return generate(params, rows, key)

    def grade(asked, completion, replies=replies):
      task, problem = asked
      replies.append(completion.tokens if completion else [])
      return task.grade(problem, chat_format.parse(replies[-1]))

    name, decode = f'turn_{turn + 1}', chat_format.tokenizer.decode
    grades = scoring.score(asked, talks, draw, grade, config.eval.batch_size, config.seq_len)
    too_long = sum(len(talk) >= config.seq_len for talk in talks)
    names = [(task.name, problem['key']) for task, problem in asked]
    scores[name] = scoring.summary(grades, names) | {'too_long': too_long}
    samples = [
      {'task': name, 'prompt': decode(talk), 'reply': decode(reply), 'grade': value}
      for talk, reply, value in zip(talks[:4], replies, grades, strict=False)
    ]
    for talk, reply in zip(talks, replies, strict=True):
      talk += reply
  return scores, samples


def continue_texts(
  config: FrozenConfigDict,
  params: Any,
  chat_format: chat_formats.Format,
  prompts: Sequence[str],
  max_new_tokens: int,
  seed: int,
) -> list[dict]:
  """What a base model goes on with after each text, drawn at temperature 0.8: [{prompt, text}]."""
  start, tokenizer = chat_format.document_start, chat_format.tokenizer
  rows = [[start, *tokenizer.encode(p)] for p in prompts]
  longest = max(map(len, rows)) + max_new_tokens
  sampling = engine.Sampling(0.8, banned_ids=chat_format.banned_ids(config.vocab_size))
  out = engine.generate(
    config,
    params,
    rows,
    key=keys.derive(seed, 'continuations'),
    sampling=sampling,
    max_new_tokens=max_new_tokens,
    stop_ids=[start],
    capacity=longest,
  )
  return [
    {'prompt': p, 'text': tokenizer.decode(c.tokens)} for p, c in zip(prompts, out, strict=True)
  ]


def first_and_last_samples(workdir: files.Path) -> dict[str, list[dict]]:
  """The texts that a run's model wrote before its first step and after its last: {first, last:
  [{prompt, text}]}.
  """
  lines = metrics.samples(workdir)
  steps = sorted({line['step'] for line in lines}) or [0]
  return {
    end: [{'prompt': line['name'], 'text': line['text']} for line in lines if line['step'] == step]
    for end, step in (('first', steps[0]), ('last', steps[-1]))
  }


def make_tasks(config: ConfigDict, names: str) -> list[Any]:
  """The tasks of a comma-separated field of this config."""
  return tasks_lib.make(config_lib.names(names), **tasks_lib.options(config.data))


def find_model(path: str) -> str | pathlib.Path:
  """Where a checkpoint is; one that a Python package carries (`lm.weights.gguf.MODELS`) is imported when
  first named.
  """
  if path not in gguf.MODELS:
    return path
  return gguf.installed(
    path, base.get_config().model, gguf_tokenizer.convert, chat_formats.fingerprint
  )


def open_loader(
  config: ConfigDict, chat_format: chat_formats.Format, manifest: str, *, train: bool
) -> Loader:
  """Batches of a manifest for training (shuffled, endless) or for evaluation (each token once, in
  order).

  Raises:
    UserError: the tokens were made with another tokenizer, or conversations in another format.
  """
  loader = Loader(
    manifest,
    seq_len=config.seq_len,
    batch_size=config.batch_size if train else config.eval.batch_size,
    seed=config.seed,
    layout='packed' if config.stage == 'sft' else 'windows',
    shuffle=train,
    pad_last=not train,
    cache=config.data.cache,
  )
  made_with, talks = (
    loader.manifest['tokenizer']['fingerprint'],
    loader.manifest['kind'] == 'conversations',
  )
  same = {chat_format.tokenizer.fingerprint} | (
    {chat_format.plain_fingerprint} if not talks else set()
  )
  if made_with not in same:
    raise UserError(f"{manifest} was made with another tokenizer than the model's")
  if talks and loader.manifest['chat_format'] != chat_format.fingerprint:
    raise UserError(
      f"{manifest} holds conversations in another chat format than the model's "
      '(config.data.chat_format)'
    )
  return loader


def open_mixture(
  config: ConfigDict, chat_format: chat_formats.Format, manifests: str
) -> Loader | Mixture:
  """Training batches of one manifest, or of several, between commas, in the shares of
  `config.data.weights`.

  Raises:
    UserError: as `open_loader`; weights for one manifest, or none for several.
  """
  names = config_lib.names(manifests)
  if (len(names) > 1) != bool(config.data.weights):
    raise UserError(
      f'config.data.weights is {config.data.weights!r} and config.data.train names {len(names)} '
      'manifests; '
      'several need weights, one has none'
    )
  loaders = [open_loader(config, chat_format, name, train=True) for name in names]
  if len(loaders) == 1:
    return loaders[0]
  return Mixture(loaders, config.data.weights, batch_size=config.batch_size, seed=config.seed)


def evaluate(config: ConfigDict, path: str, quantization: str) -> dict:
  """The report of `configs/eval.py` on one checkpoint, its weights in the form `quantization`
  (lm/model/quantize.py).

  With `config.data.val` it holds val_bpb, bits per byte, and where weights are quantized
  `perplexity_change`, the share by which that raises the perplexity per token.
  """
  mesh = sharding.make_mesh(config.mesh)
  with jax.set_mesh(mesh):
    model = pretrained.load(find_model(path), config.model, base.get_config().model, mesh)
    chat_format = chat_formats.load(model.tokenizer)
    report = {'checkpoint': str(model.run), 'step': model.step, 'provenance': model.provenance}
    allow = config_lib.allowed_mismatches(config)
    model.check_tokenizer(chat_format.tokenizer.fingerprint, allow)
    params = quantize.quantize(quantization, model.params, model.axes)
    if config.data.val:
      loader = open_loader(config, chat_format, config.data.val, train=False)
      losses = perplexity.make_evaluate(pretrain.make_loss(model.config, config.loss))

      def total(params):
        return losses(
          params, (sharding.put_batch(b, mesh) for b in loader.iterate(0, loader.steps_per_epoch))
        )

      nats, weight = total(params)
      report['val_bpb'] = perplexity.bits_per_byte(nats, loader.bytes)
      if quantization != 'none':
        report['perplexity_change'] = math.expm1((nats - total(model.params)[0]) / weight)
    if config.eval.prompts:
      report['continuations'] = continue_texts(
        model.config,
        params,
        chat_format,
        config.eval.prompts,
        config.eval.max_new_tokens,
        config.seed,
      )
    if config.eval.tasks:
      tasks = make_tasks(config, config.eval.tasks)
      generate = make_generate(
        model.config,
        chat_format,
        temperature=0.0,
        max_new_tokens=config.eval.max_new_tokens,
        max_len=config.seq_len,
      )
      report['scores'], report['samples'] = score_tasks(
        config, generate, params, chat_format, tasks
      )
  return report


def main() -> None:
  config_lib.define_flags()
  flags.DEFINE_string('checkpoint', None, 'step, run, recipe or Hugging Face folder, or smollm2')
  flags.DEFINE_enum('quantize', 'none', quantize.QUANTIZATIONS, 'form of the weights')
  flags.DEFINE_string('out', 'report.json', 'where the report goes')
  config = config_lib.parse(sys.argv, __doc__)
  if not flags.FLAGS.checkpoint:
    raise UserError('--checkpoint is missing; for example --checkpoint=runs/quickstart')
  files.as_path(flags.FLAGS.out)  # that it cannot be written to is said before hours of evaluation
  report = evaluate(config, flags.FLAGS.checkpoint, flags.FLAGS.quantize)
  files.write_json(flags.FLAGS.out, report)
  for name, s in report.get('scores', {}).items():
    print(f'{name:12} {s["accuracy"]:6.1%}  [{s["low"]:.1%}, {s["high"]:.1%}]  n={s["n"]}')
  if 'val_bpb' in report:
    print(f'bits per byte {report["val_bpb"]:.4f}')
  if 'perplexity_change' in report:
    print(f'perplexity {report["perplexity_change"]:+.3%} by --quantize={flags.FLAGS.quantize}')
  print(f'wrote {flags.FLAGS.out}')


if __name__ == '__main__':
  run(main)
