"""Reading configs from the command line. Unknown names are errors that give the nearest right one."""

import json
import re
from typing import Any

from absl import flags
from ml_collections import ConfigDict, FrozenConfigDict, config_flags

from lm.errors import UserError, unknown


def define_flags() -> None:
  """Defines --config, to be called once by each front end that takes one."""
  config_flags.DEFINE_config_file('config', None, 'config file, with :VARIANT if it has variants', lock_config=True)


def parse(argv: list[str]) -> ConfigDict:
  """Parses all absl flags; returns the config of --config with the --config.FIELD=VALUE overrides applied.

  Raises:
    UserError: no or unreadable config file, unknown flag or field (with the nearest name), a value of the wrong type.
  """
  try:
    flags.FLAGS([argv[0], *(a for a in argv[1:] if re.match(r'--?config=', a))])  # the file alone, to know its fields
    if flags.FLAGS.config is None:
      raise UserError('--config is missing; for example --config=configs/quickstart.py')
    for argument in argv[1:]:
      if match := re.match(r'--?(?:no)?config\.([\w.]+)', argument):
        _check_field(flags.FLAGS.config, match.group(1))
    rest = flags.FLAGS(argv)
  except (flags.Error, OSError) as error:
    raise UserError(str(error).replace('FATAL Flags parsing error:', '')) from error
  if rest[1:]:
    raise UserError(f'unexpected argument {rest[1]!r}; options have the form --name=value')
  return flags.FLAGS.config


def _check_field(config: ConfigDict, path: str) -> None:
  *parents, leaf = path.split('.')
  done = 'config'
  for name in [*parents, leaf]:
    if not isinstance(config, ConfigDict) or name not in config:
      raise unknown('config field', f'{done}.{name}', [f'{done}.{k}' for k in config] if isinstance(config, ConfigDict) else [done])
    config, done = config[name], f'{done}.{name}'


def variant(arg: str | None, allowed: tuple[str, ...] = ('smoke',)) -> str:
  """The part of --config=FILE:ARG after the colon, '' if none. Raises UserError when the file has no such variant."""
  if arg and arg not in allowed:
    raise unknown('config variant', arg, allowed)
  return arg or ''


def names(text: str) -> tuple[str, ...]:
  """The names of a comma-separated field."""
  return tuple(name.strip() for name in text.split(',') if name.strip())


def place(config: ConfigDict, workdir: Any) -> ConfigDict:
  """A copy with '{workdir}' in its text fields replaced."""
  placed = ConfigDict(config)
  for field, value in config.items():
    if isinstance(value, ConfigDict):
      placed[field] = place(value, workdir)
    elif isinstance(value, str):
      placed[field] = value.replace('{workdir}', str(workdir))
  return placed


def as_json(config: ConfigDict | FrozenConfigDict) -> dict[str, Any]:
  """The config as plain JSON values."""
  return json.loads(config.to_json())
