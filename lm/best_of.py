"""Best-of-n: python -m lm.best_of --config=configs/best_of.py --workdir=DIR --config.init_from=RUN

It samples config.rl.group_size answers to each problem and ranks them by config.rl.reward_model, or
else by the gold reward, config.rl.gold, which is by default the grade of the problem's task.

  test problems       config.eval.examples of config.eval.tasks in turn. DIR/report.json has what
                      the best of n answers is worth to the reward that ranks them and in truth, for
                      all n, and its divergence from the policy; DIR/answers.jsonl has all answers.
  training problems   config.data.examples of config.data.tasks in turn. DIR/best.jsonl has the best
                      answer to each as a conversation (--config.data.train of configs/sft.py), by
                      the first reward model; by the gold reward, only where it is above 0.
"""

import pathlib
from collections.abc import Sequence

from absl import flags
from ml_collections import ConfigDict

from lm.base import config as config_lib
from lm.base import errors, files


def run(config: ConfigDict, workdir: pathlib.Path) -> None:
  """Samples and ranks, and writes the files of `workdir`; report.json is the last."""
  import jax

  from configs import base
  from data import tasks as tasks_lib
  from data.batches.questions import Questions
  from data.chat import chat_formats
  from data.records import jsonl
  from data.tools import toolbox
  from lm.evals import best_of_n
  from lm.infer import replies
  from lm.parallel import keys, sharding
  from lm.stages import reward
  from lm.weights import pretrained

  best_of_n.check(config, base.get_config())
  defaults, rl = base.get_config().model, config.rl
  mesh = sharding.make_mesh(config.mesh)
  with jax.set_mesh(mesh):
    policy = pretrained.load(config.init_from, config.model, defaults, mesh)
    chat_format = chat_formats.load(policy.tokenizer, config.data.chat_format)
    policy.check_tokenizer(chat_format.tokenizer.fingerprint)
    scorers = reward.open_scorers(
      config_lib.names(rl.reward_model),
      config.model,
      defaults,
      mesh,
      tokenizer=chat_format.tokenizer.fingerprint,
      batch_size=config.batch_size,
      max_len=config.seq_len,
    )
    generate = replies.make_generate(
      policy.config,
      chat_format,
      toolbox.from_config(config.tools),
      temperature=rl.temperature,
      max_new_tokens=rl.max_new_tokens,
      max_len=config.seq_len,
    )

    too_long = []  # numbers of prompts that leave no room for an answer

    def ask(names: str, count: int, split: str) -> list[tuple[dict, best_of_n.Sampled]]:
      """Returns `count` problems of tasks in turn, those with room for an answer, with theirs."""
      made = tasks_lib.from_config(config.data, names)
      questions = Questions(made, chat_format, '', rl.gold)
      drawn = [questions.draw(i, i // len(made), split) for i in range(count if made else 0)]

      def answer(prompts, repeats, start):
        key = keys.derive(config.seed, 'best_of_n', int(split == 'test'), start)
        return generate(policy.params, prompts, key, repeats)

      found = best_of_n.sample(
        answer,
        [prompt for _, prompt in drawn],
        lambda i, answer: questions.gold(i, drawn[i][0], answer.tokens),
        scorers,
        samples=rl.group_size,
        at_once=max(1, config.batch_size // rl.group_size),
        max_len=config.seq_len,
      )
      too_long.append(len(drawn) - len(found))
      return [(drawn[one.number][0], one) for one in found]

    trained = ask(config.data.tasks, config.data.examples, 'train')
    tested = ask(config.eval.tasks, config.eval.examples, 'test')
  parse, decode = chat_format.parse, chat_format.tokenizer.decode
  kept = list(filter(None, [best_of_n.conversation(*asked, parse) for asked in trained]))
  jsonl.write(workdir / 'best.jsonl', kept)
  jsonl.write(workdir / 'answers.jsonl', [best_of_n.record(*asked, decode) for asked in tested])
  report = {'asked': len(trained), 'kept': len(kept), 'prompts_too_long': sum(too_long)}
  report |= best_of_n.summaries(train=trained, test=tested)
  files.write_json(workdir / 'report.json', report)


# Of a recipe's job 'best_of:PART': the function, which is given the config PART and its folder.
JOBS = {'best_of': run}


def main(argv: Sequence[str] | None = None) -> None:
  """Runs the command with these arguments, those of the process where they are None."""
  options = flags.FlagValues()
  flags.DEFINE_string('workdir', 'runs/best_of', 'where the files go', flag_values=options)
  config = config_lib.parse(options, argv, __doc__)
  run(config, workdir := files.local_path(options.workdir, '--workdir'))
  report = files.read_json(workdir / 'report.json')
  for name, ranking in report.get('test', {}).get('rankings', {}).items():
    print(f'ranked by {name}:')
    for point in ranking['curve']:
      if point['n'] & (point['n'] - 1) == 0:  # powers of 2
        print(f'  best of {point["n"]:4}  reward {point["proxy"]:.3f}  gold {point["gold"]:.3f}')
  print(f'{report["kept"]} of {report["asked"]} best answers kept in {workdir}/best.jsonl')


if __name__ == '__main__':
  errors.run(main)
