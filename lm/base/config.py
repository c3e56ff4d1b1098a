"""Reading configs from the command line. Unknown names are errors that give the nearest right
one.
"""

import copy
import inspect
import json
import re
import runpy
import sys
import textwrap
from collections.abc import Callable, Collection, Mapping
from typing import Any

from absl import flags
from ml_collections import ConfigDict, FrozenConfigDict, config_flags

from lm.base.errors import UserError, unknown

# What a checkpoint records of where it came from.
PROVENANCE = ('config', 'code', 'data', 'tokenizer', 'init_from')


class Tracked(ConfigDict):
  """A part of a config that remembers which of its fields were set, if only to the values they had.

  Attributes:
    chosen: the names of those that a config file or the command line set, after configs/base.py.
  """

  def __init__(self, *args: Any, **options: Any):
    object.__setattr__(self, '_chosen', set())
    super().__init__(*args, **options)
    self._chosen.clear()

  def __setitem__(self, field: str, value: Any) -> None:
    super().__setitem__(field, value)
    self._chosen.add(field)

  def __setstate__(self, state: dict[str, Any]) -> None:  # of a copy or a pickle
    super().__setstate__(state)
    object.__setattr__(self, '_chosen', set(state['_chosen']))

  @property
  def chosen(self) -> frozenset[str]:
    return frozenset(self._chosen)


def define_flags() -> None:
  """Defines --config, to be called once by each front end that takes one."""
  help_text = 'FILE, or FILE:VARIANT where it has variants, such as configs/pretrain.py:smoke'
  config_flags.DEFINE_config_file('config', None, help_text, lock_config=True)


def define_process_flags() -> None:
  """Declares the flags of a command that may run as one of several processes."""
  flags.DEFINE_string(
    'coordinator',
    None,
    'HOST:PORT of process 0, where a run of several processes is not found by itself',
  )
  flags.DEFINE_integer('num-processes', None, 'of the whole run')
  flags.DEFINE_integer('process-id', None, 'of this one, from 0')
  flags.DEFINE_integer(
    'heartbeat-seconds',
    60,
    'a process silent for so long is lost, and ends the others with an error',
  )


def step_range(flag: str, text: str | None) -> tuple[int, int] | None:
  """Returns the steps of a flag's value, 'FIRST:LAST'; None where it is not given.

  Raises UserError where the value is not of this form.
  """
  if not text:
    return None
  found = re.fullmatch(r'(\d+):(\d+)', text)
  if not found or not 0 < int(found[1]) <= int(found[2]):
    raise UserError(f'{flag} is {text!r}; FIRST:LAST is wanted, steps from 1')
  return int(found[1]), int(found[2])


def parse(argv: list[str], about: str) -> ConfigDict:
  """Parses all absl flags; returns the config of --config with the --config.FIELD=VALUE overrides
  applied.

  Args:
    about: what the command does, printed by --help in front of its flags.

  Raises:
    SystemExit: --help was given.
    UserError: no or unreadable config file, unknown flag or field (with the nearest name), a value
      of the wrong type.
  """
  if {'--help', '-help', '-h'} & set(argv[1:]):
    print(_help(about))
    sys.exit()
  given = dict(
    re.fullmatch(r'--?(config[\w.]*)=?(.*)', a).groups()
    for a in argv[1:]
    if re.match(r'--?config\b', a)
  )
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


def _help(about: str) -> str:
  """The flags of this command; those that absl has for itself are left out."""
  own = [
    flag
    for module, all_flags in flags.FLAGS.flags_by_module_dict().items()
    if not module.startswith('absl.')
    for flag in all_flags
  ]
  fields = (
    '--config.FIELD=VALUE sets a field; those of training are in configs/base.py, of '
    'cleaning in configs/data'
  )
  lines = [about.strip(), '', f'Flags ({fields}):']
  for flag in own:
    name = f'--[no]{flag.name}' if flag.boolean else f'--{flag.name}=...'
    default = f' (default: {flag.default})' if flag.default not in (None, False) else ''
    lines.append(
      textwrap.fill(
        f'{flag.help}{default}', 100, initial_indent=f'  {name:24} ', subsequent_indent=' ' * 27
      )
    )
  return '\n'.join(lines)


def load(spec: str) -> ConfigDict:
  """The config of 'FILE' or 'FILE:VARIANT'. Raises FileNotFoundError, or UserError if it is no
  config file.
  """
  path, _, arg = spec.partition(':')
  get_config = function(spec, 'get_config')
  try:
    if arg and not inspect.signature(get_config).parameters:
      raise UserError(f'{path} has no variants; {arg!r} was asked for')
    return get_config(*([arg] if arg else []))
  except (KeyError, ImportError) as error:
    raise UserError(f'{path} is not a readable config: {type(error).__name__}: {error}') from error


def function(spec: str, name: str) -> Callable:
  """A function of the config file of 'FILE' or 'FILE:VARIANT'. Raises FileNotFoundError, or
  UserError if it has none.
  """
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
  """The part of --config=FILE:ARG after the colon, '' if none. Raises UserError when the file has
  no such variant.
  """
  if arg and arg not in allowed:
    raise unknown('config variant', arg, allowed)
  return arg or ''


def names(text: str) -> tuple[str, ...]:
  """The names of a comma-separated field."""
  return tuple(name.strip() for name in text.split(',') if name.strip())


def allowed_mismatches(config: ConfigDict) -> tuple[str, ...]:
  """The names in config.checkpoint.allow_mismatch: of PROVENANCE, fields, or parts of the config.

  Raises UserError, with the nearest name, where one is none of these.
  """
  allow = names(config.checkpoint.allow_mismatch)
  for name in allow:
    if name.partition('.')[0] not in (*PROVENANCE, *config):
      raise unknown('name in config.checkpoint.allow_mismatch', name, [*PROVENANCE, *config])
    if name not in PROVENANCE:
      check_field(config, name)
  return allow


def covers(names: Collection[str], field: str) -> bool:
  """Whether one of these names is that of a field, or of a part that it is in."""
  return any(field == name or field.startswith(f'{name}.') for name in names)


def complete(stored: Mapping[str, Any], defaults: ConfigDict) -> dict[str, Any]:
  """Returns a stored config with the fields that it lacks; defaults of later fields mean "as
  before".
  """
  whole = as_json(defaults) | stored
  for name, part in defaults.items():
    if isinstance(part, ConfigDict):
      whole[name] = complete(stored.get(name, {}), part)
  return whole


def place(config: ConfigDict, workdir: Any) -> ConfigDict:
  """A copy with '{workdir}' in its text fields replaced."""
  placed = copy.deepcopy(config)
  for field, value in config.items():
    if isinstance(value, ConfigDict):
      placed[field] = place(value, workdir)
    elif isinstance(value, str) and '{workdir}' in value:
      placed[field] = value.replace('{workdir}', str(workdir))
  return placed


def layer_types(model: Mapping[str, Any]) -> list[str]:
  """The type of every layer of a config.model, whose `layer_types` are repeated."""
  types = model['layer_types']
  return [types[i % len(types)] for i in range(model['num_layers'])]


def as_json(config: ConfigDict | FrozenConfigDict) -> dict[str, Any]:
  """The config as plain JSON values."""
  return json.loads(config.to_json())
