"""Reads configs from files and the command line, and compares stored ones with present ones.

An unknown name is an error that suggests the nearest right one.
"""

import copy
import inspect
import json
import re
import runpy
import sys
import textwrap
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from absl import flags
from ml_collections import ConfigDict, FrozenConfigDict, config_flags

from lm.base.errors import UserError, invalid, unknown

# What a checkpoint records about where it came from.
PROVENANCE = ('config', 'code', 'data', 'tokenizer', 'init_from')


class Tracked(ConfigDict):
  """A part of a config that remembers which of its fields were set explicitly.

  A field counts as set even where it was set to the value that it had.

  Attributes:
    chosen: the names of the fields that a config file or the command line set, on top of
      configs/base.py.
  """

  def __init__(self, *args: Any, **options: Any):
    object.__setattr__(self, '_chosen', set())
    super().__init__(*args, **options)
    self._chosen.clear()

  def __setitem__(self, field: str, value: Any) -> None:
    super().__setitem__(field, value)
    self._chosen.add(field)

  def __setstate__(self, state: dict[str, Any]) -> None:  # called for copies and pickles
    super().__setstate__(state)
    object.__setattr__(self, '_chosen', set(state['_chosen']))

  @property
  def chosen(self) -> frozenset[str]:
    return frozenset(self._chosen)


def define_process_flags(options: flags.FlagValues) -> None:
  """Adds to `options` the flags of a command that may run as one of several processes."""
  flags.DEFINE_string(
    'coordinator',
    None,
    'HOST:PORT of process 0, where jax does not find the other processes by itself',
    flag_values=options,
  )
  flags.DEFINE_integer(
    'num-processes', None, 'the number of processes of the run', flag_values=options
  )
  flags.DEFINE_integer(
    'process-id', None, 'the number of this process, from 0', flag_values=options
  )
  flags.DEFINE_integer(
    'heartbeat-seconds',
    60,
    'after so long without a sign a process counts as lost, and the others end with an error',
    flag_values=options,
  )


def step_range(flag: str, text: str | None) -> tuple[int, int] | None:
  """Returns the steps of a flag's value 'FIRST:LAST', None where the flag is not given.

  Raises:
    UserError: the value has another form.
  """
  if not text:
    return None
  found = re.fullmatch(r'(\d+):(\d+)', text)
  if not found or not 0 < int(found[1]) <= int(found[2]):
    raise UserError(field=flag, value=text, allowed='FIRST:LAST, steps counted from 1')
  return int(found[1]), int(found[2])


def parse(options: flags.FlagValues, argv: Sequence[str] | None, about: str) -> ConfigDict:
  """Parses a command's arguments and returns its config, with --config.FIELD=VALUE applied.

  Args:
    options: the command's own flags, in a set that is made for this call; --config is added to
      them, and they have their values afterwards. A set of its own, instead of absl's global one,
      lets a process call several commands.
    argv: the arguments, without the program's name; None stands for those of the process.
    about: what the command does; --help prints it before the flags.

  Raises:
    SystemExit: --help was given.
    UserError: the config file is missing or cannot be read, a flag or a field is unknown, or a
      value has the wrong type.
  """
  arguments = sys.argv[1:] if argv is None else list(argv)
  command_line = ['', *arguments]  # absl expects the program's name first
  config_flags.DEFINE_config_file(
    'config',
    None,
    'FILE, or FILE:VARIANT of a file with variants, such as configs/pretrain.py:smoke',
    lock_config=True,
    flag_values=options,
    sys_argv=command_line,
  )
  if {'--help', '-help', '-h'} & set(arguments):
    print(_help(options, about))
    sys.exit()
  given = {}
  for argument in arguments:
    if re.match(r'--?config\b', argument):
      name, value = re.fullmatch(r'--?(config[\w.]*)=?(.*)', argument).groups()
      given[name] = value
  if not given.get('config'):
    raise UserError(field='--config', allowed='FILE, for example --config=configs/quickstart.py')
  plain = load(given.pop('config'))
  for name in given:
    check_field(plain, name.removeprefix('config.'))
  try:
    rest = options(command_line)
  except flags.UnrecognizedFlagError as error:
    raise unknown('flag', f'--{error.flagname}', [f'--{name}' for name in options]) from error
  except flags.IllegalFlagValueError as error:  # flag --config.steps=many: invalid literal for ...
    given, _, cause = str(error).removeprefix('flag ').partition(': ')
    flag, _, value = given.partition('=')
    raise UserError(field=flag, value=value, message=f'It cannot be read: {cause}.') from error
  except flags.Error as error:
    raise invalid('command line', 'what --help describes', error) from error
  if rest[1:]:
    raise UserError(field='argument', value=rest[1], allowed='options of the form --name=value')
  return options.config


def _help(options: flags.FlagValues, about: str) -> str:
  """Returns the text of --help: `about`, and the flags, --config first."""
  names = sorted(options, key=lambda name: name != 'config')
  fields = (
    '--config.FIELD=VALUE sets a field of the config; configs/base.py describes those of training, '
    'the files in configs/data those of cleaning'
  )
  lines = [about.strip(), '', f'Flags ({fields}):']
  for flag in (options[name] for name in names):
    name = f'--[no]{flag.name}' if flag.boolean else f'--{flag.name}=...'
    default = f' (default: {flag.default})' if flag.default not in (None, False) else ''
    text = f'{flag.help}{default}'
    first, later = f'  {name:24} ', ' ' * 27
    lines.append(textwrap.fill(text, 100, initial_indent=first, subsequent_indent=later))
  return '\n'.join(lines)


def load(spec: str) -> ConfigDict:
  """Returns the config of 'FILE' or 'FILE:VARIANT'.

  Raises:
    FileNotFoundError: there is no such file.
    UserError: it is not a config file, or has no such variant.
  """
  path, _, arg = spec.partition(':')
  get_config = function(spec, 'get_config')
  if arg and not inspect.signature(get_config).parameters:
    raise UserError(
      field=f'variant of {path}', value=arg, allowed='none', message='The file has no variants.'
    )
  try:
    return get_config(arg) if arg else get_config()
  except (KeyError, ImportError) as error:
    raise invalid(path, 'a readable config', f'{type(error).__name__}: {error}') from error


def function(spec: str, name: str) -> Callable:
  """Returns a function of the config file of 'FILE' or 'FILE:VARIANT'.

  Raises:
    FileNotFoundError: there is no such file.
    UserError: it cannot be run, or does not define the function.
  """
  path = spec.partition(':')[0]
  try:
    defined = runpy.run_path(path)
  except (SyntaxError, KeyError, ImportError) as error:
    raise invalid(path, 'a readable config', f'{type(error).__name__}: {error}') from error
  if name not in defined:
    raise UserError(field=f'function {name}() of {path}')
  return defined[name]


def check_field(config: ConfigDict, path: str) -> None:
  """Raises UserError, which suggests the nearest name, for a dotted name that is not a field."""
  parent = 'config'
  for name in path.split('.'):
    if not isinstance(config, ConfigDict):
      raise unknown('config field', f'{parent}.{name}', [parent])
    if name not in config:
      raise unknown('config field', f'{parent}.{name}', [f'{parent}.{field}' for field in config])
    config, parent = config[name], f'{parent}.{name}'


def variant(arg: str | None, allowed: tuple[str, ...] = ('smoke',)) -> str:
  """Returns the part of --config=FILE:ARG after the colon, '' if there is none.

  Raises:
    UserError: the file has no such variant.
  """
  if arg and arg not in allowed:
    raise unknown('config variant', arg, allowed)
  return arg or ''


def names(text: str) -> tuple[str, ...]:
  """Returns the names in a comma-separated field."""
  return tuple(name.strip() for name in text.split(',') if name.strip())


def allowed_mismatches(config: ConfigDict) -> tuple[str, ...]:
  """Returns the names in config.checkpoint.allow_mismatch.

  Raises:
    UserError: a name is not one of PROVENANCE, a field, or a part of the config.
  """
  allow = names(config.checkpoint.allow_mismatch)
  for name in allow:
    if name.partition('.')[0] not in (*PROVENANCE, *config):
      raise unknown('name in config.checkpoint.allow_mismatch', name, [*PROVENANCE, *config])
    if name not in PROVENANCE:
      check_field(config, name)
  return allow


def covers(names: Collection[str], field: str) -> bool:
  """Returns whether one of the names is that of the field, or of a part of the config with it."""
  return any(field == name or field.startswith(f'{name}.') for name in names)


def without(settings: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
  """Returns plain settings without the fields and parts that the dotted names cover."""
  kept = {}
  for name, value in settings.items():
    if name not in names:
      inside = [other.partition('.')[2] for other in names if other.startswith(f'{name}.')]
      kept[name] = without(value, inside) if isinstance(value, dict) else value
  return kept


def complete(stored: Mapping[str, Any], defaults: ConfigDict) -> dict[str, Any]:
  """Returns a stored config with the fields that were added since it was stored.

  They get their defaults, which by convention mean "as before".
  """
  whole = as_json(defaults) | stored
  for name, part in defaults.items():
    if isinstance(part, ConfigDict):
      whole[name] = complete(stored.get(name, {}), part)
  return whole


def place(config: ConfigDict, workdir: Any) -> ConfigDict:
  """Returns a copy whose text fields have `workdir` in the place of '{workdir}'."""
  placed = copy.deepcopy(config)
  for field, value in config.items():
    if isinstance(value, ConfigDict):
      placed[field] = place(value, workdir)
    elif isinstance(value, str) and '{workdir}' in value:
      placed[field] = value.replace('{workdir}', str(workdir))
  return placed


def layer_types(model: Mapping[str, Any]) -> list[str]:
  """Returns the type of every layer of a config.model, whose `layer_types` repeat in order."""
  types = model['layer_types']
  return [types[i % len(types)] for i in range(model['num_layers'])]


def as_json(config: ConfigDict | FrozenConfigDict) -> dict[str, Any]:
  """Returns the config as plain JSON values."""
  return json.loads(config.to_json())
