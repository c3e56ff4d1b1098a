"""Weights in and out: a Hugging Face folder into a checkpoint of ours, and back.

    python -m lm.hf import SRC DST         DST is then a run's folder, for --config.init_from, eval.py and lm.chat
    python -m lm.hf import gguf FILE DST   likewise of a GGUF file (lm/weights/gguf.py)
    python -m lm.hf export SRC DST         SRC: a step, run or recipe folder, whether imported or trained here

What each family's fields and tensors are called stands in lm/weights/families.py. Weights are read from
safetensors files alone (a pickle can run code), tensor by tensor, and keep their dtype: exporting
what was imported gives the same bytes.
"""

import argparse
from collections.abc import Sequence

from lm.base import config as config_lib
from lm.base import errors
from lm.weights import checkpoint, hub_format


def main(argv: Sequence[str] | None = None) -> None:
  from configs import base
  from data.chat import chat_formats
  from data.tokenizers import gguf_vocabulary as gguf_tokenizer
  from lm.weights import gguf

  parser = argparse.ArgumentParser(
    prog='python -m lm.hf', description='Imports and exports open weights.'
  )
  commands = parser.add_subparsers(dest='command', required=True)
  import_parser = commands.add_parser(
    'import',
    help="a Hugging Face folder or a GGUF file into a run's folder",
    usage='%(prog)s [-h] [--ignore FIELD,...] SRC DST | gguf FILE DST',
  )
  export_parser = commands.add_parser('export', help='a checkpoint into a Hugging Face folder')
  import_parser.add_argument('src', nargs='+', metavar='SRC', help='a folder, or `gguf` and a file')
  export_parser.add_argument('src', metavar='SRC')
  for command in (import_parser, export_parser):
    command.add_argument('dst', metavar='DST', help='a folder that does not exist')
  import_parser.add_argument(
    '--ignore',
    default='',
    metavar='FIELD,...',
    help='fields of config.json, or keys of metadata, that we do not know and that do not change '
    'what the model computes',
  )
  export_parser.add_argument(
    '--max-shard-gb',
    type=float,
    default=hub_format.MAX_SHARD / 1e9,
    metavar='GB',
    help='largest file of weights (default 5)',
  )
  args = parser.parse_args(argv)
  if args.command == 'import':
    ignore = config_lib.names(args.ignore)
    match args.src:
      case ['gguf', file]:
        source, ignore = gguf.open_file(file, gguf_tokenizer.convert, ignore), ()
      case [folder]:
        source = hub_format.open_folder(folder)
      case _:
        import_parser.error('what to import is one folder, or `gguf` and one file')
    config = hub_format.import_model(
      source, args.dst, base.get_config().model, chat_formats.fingerprint, ignore
    )
    print(
      f'wrote {args.dst}: {config.num_layers} layers, {config.param_dtype}, contexts of '
      f'{config.max_len} tokens'
    )
  else:
    folder = checkpoint.locate(args.src).parent.parent / 'tokenizer'
    chat_format = chat_formats.load(str(folder))
    stop = chat_format.stops[0] if chat_format.source else chat_format.document_start
    tokens = {'bos_token_id': chat_format.document_start, 'eos_token_id': stop}
    hub_format.export_model(
      args.src,
      args.dst,
      base.get_config().model,
      vocab_size=chat_format.tokenizer.vocab_size,
      tokens=tokens,
      max_shard_bytes=int(args.max_shard_gb * 1e9),
    )
    print(f'wrote {args.dst}')


if __name__ == '__main__':
  errors.run(main)
