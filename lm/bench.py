"""Times what this code does on this machine: python -m lm.bench train|decode|... --json

train: the step that train.py compiles (`lm.train.train_step.make_train_step` with the loss of
lm/stages/pretrain.py) on random tokens, one update at a time, waiting for each.
decode, prefill, serve: the engine (lm/infer/engine.py) on random prompts: answers of a batch, the
time to the first token, and requests of mixed lengths. They print one line for each batch size.
rl: a whole step of GRPO: answers, their scores and the update, with the share of each.
load: the loader of training batches. start: commands, until they print help, name an error, or
have made a step.
peers: all of these beside other systems, as lm/cost/peers.py lists them.

--beside=NAME also times another system, in the interpreter of --beside-python, on the same cores.
The two take turns, so that a load from elsewhere affects both. `train` has a plain GPT in PyTorch
and transformers' GPT-2 and Llama (lm/cost/torch_steps.py); for the engine, transformers' `generate`
runs the same weights, and for rl trl's GRPOTrainer. The extra `bench` installs them.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from lm.base import errors
from lm.cost import decode_time, load_time, peers, rl_time, start_time, step_time
from lm.cost.workers import FromData

# A module has add_flags(parser), results(args, argv, from_data) and work(args, from_data), which
# its workers call.
COMMANDS = {
  'train': (step_time, 'the training step'),
  'decode': (decode_time, 'answers of a batch of prompts'),
  'prefill': (decode_time, 'the first token after long prompts'),
  'serve': (decode_time, 'requests of mixed lengths'),
  'rl': (rl_time, 'a whole step of GRPO'),
  'load': (load_time, 'the loader of training batches'),
  'start': (start_time, 'the start of commands'),
  'peers': (peers, 'these beside other systems'),
}


def main(argv: Sequence[str] | None = None) -> None:
  """Runs the command with these arguments, those of the process where they are None."""
  argv = list(sys.argv[1:] if argv is None else argv)
  parser = argparse.ArgumentParser(
    prog='python -m lm.bench', description='Times what this code does on this machine.'
  )
  commands = parser.add_subparsers(dest='command', required=True, metavar='COMMAND')
  for name, (module, what) in COMMANDS.items():
    command = commands.add_parser(name, help=what, description=f'Times {what}.')
    command.add_argument('--json', action='store_true', help='print lines of JSON')
    command.add_argument(
      '--beside-python',
      default=sys.executable,
      help='the interpreter in which the packages of other systems are installed',
    )
    # A worker is this command with --system.
    command.add_argument('--system', help=argparse.SUPPRESS)
    module.add_flags(command)
  args = parser.parse_args(argv)
  module, _ = COMMANDS[args.command]
  from_data = FromData(locate, export, load)
  if args.system:
    return module.work(args, from_data)
  return show(module.results(args, argv, from_data), args.json)


def locate(model: str) -> Any:
  """Returns the folder of a model: a checkpoint, or one that a Python package carries."""
  from configs import base
  from data.chat import chat_formats
  from data.tokenizers import gguf_vocabulary
  from lm.weights import gguf

  defaults = base.get_config().model
  return gguf.find(model, defaults, gguf_vocabulary.convert, chat_formats.fingerprint)


def export(model: str, out: Any) -> None:
  """Writes a model as a folder that transformers reads."""
  from configs import base
  from data.chat import chat_formats
  from lm.base import files
  from lm.weights import hub_format

  path = files.as_path(locate(model))
  size = chat_formats.load(str(path / 'tokenizer')).tokenizer.vocab_size
  hub_format.export_model(path, out, base.get_config().model, vocab_size=size, tokens={})


def load(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
  """Yields the figures of the loader, as `python -m data.bench loader` does."""
  from data.benchmarks import benchmarks

  return benchmarks.loader(args)


def show(results: Iterable[dict[str, Any]], as_json: bool) -> None:
  """Prints results as they come."""
  for result in results:
    if as_json:
      print(json.dumps(result), flush=True)
    else:
      for name, value in result.items():
        print(f'{name:18} {value}', flush=True)


if __name__ == '__main__':
  errors.run(main)
