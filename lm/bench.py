"""Times what this code does on this machine: python -m lm.bench train|decode|... --json

train: the step that train.py compiles (`lm.train.train_step.make_train_step` with the loss of
lm/stages/pretrain.py) on random tokens, one update at a time, waiting for each.
decode, prefill, serve: the engine (lm/infer/engine.py) on random prompts: answers of a batch, the
time to the first token, and requests of mixed lengths. They print one line for each batch size.
rl: a whole step of GRPO: answers, their scores and the update, with the share of each.

--beside=transformers also times transformers, in the interpreter of --beside-python, on the same
cores. The two take turns, so that a load from elsewhere affects both. Its GPT-2 runs as it ships
(dropout 0.1, torch's AdamW) under torch.compile; --beside=transformers-tuned removes the dropout
and fuses AdamW. For the other commands its `generate` runs the same weights, and for rl
--beside=trl runs its GRPOTrainer.
"""

import argparse
import json
import sys
import types
from collections.abc import Iterable, Sequence
from typing import Any

from lm.base import errors
from lm.cost import decode_time, rl_time, step_time

COMMANDS = {
  'train': (step_time, 'the training step'),
  'decode': (decode_time, 'answers of a batch of prompts'),
  'prefill': (decode_time, 'the first token after long prompts'),
  'serve': (decode_time, 'requests of mixed lengths'),
  'rl': (rl_time, 'a whole step of GRPO'),
}


def main(argv: Sequence[str] | None = None) -> None:
  """Runs the command with these arguments, those of the process where they are None."""
  argv = sys.argv[1:] if argv is None else argv
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
      help='the interpreter in which transformers is installed',
    )
    module.add_flags(command)
    if module is rl_time:
      command.add_argument('--system', help=argparse.SUPPRESS)
  args = parser.parse_args(argv)
  if args.command == 'rl':
    from_data = types.SimpleNamespace(locate=locate, export=export)
    if args.system:
      return rl_time.work(args, from_data)
    return show(rl_time.results(args, list(argv), from_data), args.json)
  if args.command == 'train':
    if args.system:
      return step_time.work(args)
    return show([step_time.compare(args, list(argv[1:]))], args.json)
  if args.system:
    return decode_time.work(args, locate)
  return show(decode_time.compare(args, list(argv), export), args.json)


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
