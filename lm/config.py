"""Reading configs from the command line. Unknown names are errors that give the nearest right one."""

import inspect
import json
import re
import runpy
from collections.abc import Callable, Mapping
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
  given = dict(re.fullmatch(r'--?(config[\w.]*)=?(.*)', a).groups() for a in argv[1:] if re.match(r'--?config\b', a))
  if not given.get('config'):
    raise UserError('--config=FILE is missing; for example --config=configs/quickstart.py')
  plain = load(given.pop('config'))
  for name in given:
    check_field(plain, name.removeprefix('config.'))
  try:
    rest = flags.FLAGS(argv)
  except flags.Error as error:
    raise UserError(str(error)) from error
  if rest[1:]:
    raise UserError(f'unexpected argument {rest[1]!r}; options have the form --name=value')
  return flags.FLAGS.config


def load(spec: str) -> ConfigDict:
  """The config of 'FILE' or 'FILE:VARIANT'. Raises FileNotFoundError, or UserError if it is no config file."""
  path, _, arg = spec.partition(':')
  get_config = function(spec, 'get_config')
  try:
    if arg and not inspect.signature(get_config).parameters:
      raise UserError(f'{path} has no variants; {arg!r} was asked for')
    return get_config(*([arg] if arg else []))
  except (KeyError, ImportError) as error:
    raise UserError(f'{path} is not a readable config: {type(error).__name__}: {error}') from error


def function(spec: str, name: str) -> Callable:
  """A function of the config file of 'FILE' or 'FILE:VARIANT'. Raises FileNotFoundError, or UserError if it has none."""
  path = spec.partition(':')[0]
  try:
    return runpy.run_path(path)[name]
  except (SyntaxError, KeyError, ImportError) as error:
    raise UserError(f'{path} is not a readable config: {type(error).__name__}: {error}') from error


def check_field(config: ConfigDict, path: str) -> None:
  """Raises UserError, with the nearest name, when the config has no field of this dotted name."""
  *parents, leaf = path.split('.')
  done = 'config'
  for name in [*parents, leaf]:
    if not isinstance(config, ConfigDict) or name not in config:
      fields = [f'{done}.{field}' for field in config] if isinstance(config, ConfigDict) else [done]
      raise unknown('config field', f'{done}.{name}', fields)
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


def layer_types(model: Mapping[str, Any]) -> list[str]:
  """The type of every layer of a config.model, whose `layer_types` are repeated."""
  types = model['layer_types']
  return [types[i % len(types)] for i in range(model['num_layers'])]


def as_json(config: ConfigDict | FrozenConfigDict) -> dict[str, Any]:
  """The config as plain JSON values."""
  return json.loads(config.to_json())
