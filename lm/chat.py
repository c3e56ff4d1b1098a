"""Chat in the terminal: python -m lm.chat --checkpoint=runs/quickstart, or --model=smollm2"""

import argparse
import datetime
import sys
from collections.abc import Sequence

from data.tools import toolbox
from lm.base import choices, errors
from lm.base import config as config_lib


def main(argv: Sequence[str] | None = None) -> None:
  """Runs the command with these arguments, those of the process where they are None."""
  args = _parse(argv)
  tools = toolbox.open_tools(config_lib.names(args.tools), index=args.index)
  for stream in (sys.stdin, sys.stdout):
    # a byte that is no text, or a character the terminal lacks, ends no chat
    stream.reconfigure(errors='replace')
  _chat(args, tools)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
  parser = argparse.ArgumentParser(prog='python -m lm.chat', description=__doc__)
  which = parser.add_mutually_exclusive_group(required=True)
  which.add_argument('--checkpoint', help='a step, run or recipe folder, or a Hugging Face folder')
  which.add_argument('--model', choices=choices.MODELS, help='one that a Python package carries')
  parser.add_argument(
    '--temperature', type=float, default=0.0, help='0 takes the likeliest token (default)'
  )
  parser.add_argument(
    '--top-k', type=int, default=0, help='draw from the k likeliest tokens; 0: from all'
  )
  parser.add_argument(
    '--top-p', type=float, default=1.0, help='draw from the likeliest tokens that sum to p'
  )
  parser.add_argument(
    '--min-p',
    type=float,
    default=0.0,
    help='draw from tokens at least p times as likely as the top',
  )
  parser.add_argument('--seed', type=int, default=0, help='of the random numbers')
  parser.add_argument('--system', default='', metavar='TEXT', help='a system turn to begin with')
  parser.add_argument('--max-new-tokens', type=int, default=512, help='longest reply (default 512)')
  parser.add_argument(
    '--quantize',
    default='none',
    choices=choices.QUANTIZATIONS,
    help='of the weights (default none)',
  )
  parser.add_argument(
    '--tools', default=toolbox.DEFAULT, help='what the model may call: ' + ', '.join(toolbox.TOOLS)
  )
  parser.add_argument('--index', default='', help='folder that the tool search reads')
  parser.add_argument(
    '--thinking',
    default='show',
    choices=choices.THINKING,
    help='how thoughts are shown (default show)',
  )
  return parser.parse_args(argv)


def _chat(args: argparse.Namespace, tools: toolbox.Toolbox) -> None:
  """Loads the model and talks until the input ends. It imports what --help has no use for."""
  import jax

  from configs import base
  from data.chat import chat_formats
  from data.tokenizers import gguf_vocabulary
  from lm.infer.sampling import Sampling
  from lm.model import apart, quantize
  from lm.parallel import sharding
  from lm.serve import chat_session, terminal
  from lm.weights import gguf, pretrained

  config = base.get_config()
  mesh = sharding.make_mesh(config.mesh)
  with jax.set_mesh(mesh):
    path = args.checkpoint or gguf.installed(
      args.model, config.model, gguf_vocabulary.convert, chat_formats.fingerprint
    )
    model = pretrained.load(path, config.model, config.model, mesh)
    chat_format = chat_formats.load(model.tokenizer, today=datetime.date.today())
    model.check_tokenizer(chat_format.tokenizer.fingerprint)
    params = apart.for_inference(quantize.quantize(args.quantize, model.params, model.axes))
    session = chat_session.Session(
      model.config,
      params,
      chat_format,
      Sampling(args.temperature, args.top_k, args.top_p, args.min_p),
      call_tool=tools,
      max_new_tokens=args.max_new_tokens,
      seed=args.seed,
      system='\n\n'.join(filter(None, [args.system, tools.about])),
      thinking=args.thinking,
    )
    if sys.stdin.isatty():
      import readline  # noqa: F401  input() gets line editing and history from it

      terminal.note(
        f'{model.run}, step {model.step}; context {model.config.max_len} tokens; /help lists '
        'commands'
      )
    terminal.loop(session)


if __name__ == '__main__':
  errors.run(main)
