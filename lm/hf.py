"""Imports open weights as a run, and exports a run as a Hugging Face folder.

    python -m lm.hf import SRC DST         a Hugging Face folder; --config.init_from, eval.py and
                                           lm.chat take DST
    python -m lm.hf import gguf FILE DST   a GGUF file of llama.cpp
    python -m lm.hf export SRC DST         a step, a run or a recipe's folder, imported or trained

lm/weights/families has the names of each family's fields and tensors. Weights are read from
safetensors files alone, since a pickle can run code, and keep their dtype: exporting what was
imported gives the same bytes.
"""

import argparse
from collections.abc import Sequence

from lm.base import config as config_lib
from lm.base import errors


def main(argv: Sequence[str] | None = None) -> None:
  """Runs the command with these arguments, those of the process where they are None."""
  args = _parse(argv)
  if args.command == 'import':
    _import(args)
  else:
    _export(args)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    prog='python -m lm.hf', description='Imports and exports open weights.'
  )
  commands = parser.add_subparsers(dest='command', required=True)
  import_parser = commands.add_parser(
    'import',
    help="import a Hugging Face folder or a GGUF file as a run's folder",
    usage='%(prog)s [-h] [--ignore FIELD,...] SRC DST | gguf FILE DST',
  )
  import_parser.add_argument('src', nargs='+', metavar='SRC', help='a folder, or `gguf` and a file')
  import_parser.add_argument(
    '--ignore',
    default='',
    metavar='FIELD,...',
    help='fields of config.json, or metadata keys of GGUF, that are not known here and do not '
    'change what the model computes',
  )
  export_parser = commands.add_parser('export', help='export a checkpoint as a Hugging Face folder')
  export_parser.add_argument('src', metavar='SRC', help="a checkpoint, a run or a recipe's folder")
  export_parser.add_argument(
    '--max-shard-gb',
    type=float,
    default=5.0,
    metavar='GB',
    help='the size of the largest file of weights (default 5)',
  )
  for command in (import_parser, export_parser):
    command.add_argument('dst', metavar='DST', help='a folder that does not exist yet')
  args = parser.parse_args(argv)
  if (
    args.command == 'import' and len(args.src) != 1 and (args.src[0], len(args.src)) != ('gguf', 2)
  ):
    import_parser.error('the source must be one folder, or `gguf` and one file')
  return args


def _import(args: argparse.Namespace) -> None:
  from configs import base
  from data.chat import chat_formats
  from data.tokenizers import gguf_vocabulary
  from lm.weights import gguf, hub_folder, hub_format

  ignore = config_lib.names(args.ignore)
  if len(args.src) == 2:
    source, ignore = gguf.open_file(args.src[1], gguf_vocabulary.convert, ignore), ()
  else:
    source = hub_folder.open_folder(args.src[0])
  config = hub_format.import_model(
    source, args.dst, base.get_config().model, chat_formats.fingerprint, ignore
  )
  print(
    f'wrote {args.dst}: {config.num_layers} layers, {config.param_dtype}, a context of '
    f'{config.max_len} tokens'
  )


def _export(args: argparse.Namespace) -> None:
  from configs import base
  from data.chat import chat_formats
  from lm.weights import checkpoint_folders, hub_format

  folder = checkpoint_folders.locate(args.src).parent.parent / 'tokenizer'
  chat_format = chat_formats.load(str(folder))
  # The document separator ends the text of a base model, the stop token the answer of an assistant.
  stop = chat_format.stops[0] if chat_format.source else chat_format.document_start
  hub_format.export_model(
    args.src,
    args.dst,
    base.get_config().model,
    vocab_size=chat_format.tokenizer.vocab_size,
    tokens={'bos_token_id': chat_format.document_start, 'eos_token_id': stop},
    max_shard_bytes=int(args.max_shard_gb * 1e9),
  )
  print(f'wrote {args.dst}')


if __name__ == '__main__':
  errors.run(main)
