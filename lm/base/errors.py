"""Errors about the user's input: a command that meets one prints one line and exits with status 1.

This module imports nothing of ours and no jax, so that `data/` and every command can use it.
"""

import copy
import copyreg
import difflib
import os
import sys
from collections.abc import Callable, Iterable
from typing import Any

SHOWN = 200  # characters of a value that are printed
_MISSING = object()  # None is a value that a user can give


class UserError(ValueError):
  """A fault in the user's input (a field, a flag, a file), with what was given and what is allowed.

  `UserError(field='config.mesh.tensor', value=3, allowed='a divisor of num_kv_heads, 8',
  message='Tensor parallelism splits key/value heads evenly.')` prints: config.mesh.tensor is 3;
  allowed: a divisor of num_kv_heads, 8. Tensor parallelism splits key/value heads evenly.

  `unknown`, `invalid` and `missing_package` make the errors that are common. Code and tests read
  the attributes; the text is for people.

  Attributes:
    field: the name of what is wrong, as the user knows it: 'config.seq_len', '--topology', a path,
      'line 3 of FILE'.
    value: what was given. An error whose `value` was left out prints that the field is missing.
    allowed: what would have been right, in words or as a tuple of names.
    message: the sentences after these.
    place: where the field is, such as a file's path, if `at` told it; else ''.
  """

  def __init__(
    self,
    *,
    field: str,
    value: Any = _MISSING,
    allowed: str | Iterable[object] | None = None,
    message: str = '',
  ):
    if allowed is not None and not isinstance(allowed, str):
      allowed = tuple(str(name) for name in allowed)
    super().__init__(_text(field, value, allowed, message))
    self.field = field
    self.value = None if value is _MISSING else value
    self.allowed = allowed
    self.message = message
    self.place = ''

  def __reduce__(self):
    """Copies have this text, which need not be the one that the constructor composes."""
    return copyreg.__newobj__, (type(self), *self.args), vars(self)

  def at(self, place: object) -> 'UserError':
    """Returns this error with the place of the fault, such as a file's path, before its text."""
    placed = copy.copy(self)
    placed.args = (f'{place}: {self}',)
    placed.place = str(place)
    return placed


def _text(field: str, value: Any, allowed: str | tuple[str, ...] | None, message: str) -> str:
  """Returns the line that is printed for an error with these attributes."""
  # A string is quoted, so that an empty one and spaces are seen.
  given = repr(value) if isinstance(value, str) else str(value)
  given = given if len(given) <= SHOWN else f'{given[:SHOWN]}...'
  text = f'{field} is missing' if value is _MISSING else f'{field} is {given}'
  if allowed is not None:
    text += f'; allowed: {allowed if isinstance(allowed, str) else ", ".join(allowed)}'
  return f'{text}. {message}' if message else text


def unknown(field: str, value: object, allowed: Iterable[object]) -> UserError:
  """Returns an error for a name that is not one of `allowed`; its text suggests the nearest one.

  Args:
    field: what the name stands for, as the user knows it ('config field', 'task', 'optimizer').
    value: the name that was given.
    allowed: every name that would have been right.
  """
  names = [str(name) for name in allowed]
  nearest = difflib.get_close_matches(str(value), names, n=1, cutoff=0.5)
  hint = f' (did you mean {nearest[0]!r}?)' if nearest else ''
  error = UserError(field=field, value=value, allowed=names)
  error.args = (f'unknown {field} {str(value)!r}{hint}; allowed: {", ".join(names)}',)
  return error


def invalid(field: object, allowed: str, cause: object) -> UserError:
  """Returns an error for a thing, such as a file, that is not what it must be.

  `invalid('a.json', 'valid JSON', error)` prints: a.json is not valid JSON: Expecting value ...

  Args:
    field: the thing, such as a file's path.
    allowed: what it must be.
    cause: how it is known, such as the error of the library that reads it; its text becomes the
      error's value.
  """
  cause = ' '.join(str(cause).split())
  error = UserError(field=str(field), value=cause, allowed=allowed)
  error.args = (f'{field} is not {allowed}: {cause}',)
  return error


def missing_package(name: str, extra: str, need: str) -> UserError:
  """Returns an error for a package that is not installed.

  Args:
    name: the package.
    extra: the extra of pyproject.toml that installs it.
    need: what needs it, which begins the sentence: 'The tool search'.
  """
  return UserError(
    field=f'package {name}', message=f"{need} needs it: pip install -e '.[{extra}]'."
  )


# Libraries that reach buckets, whose errors of connections and refused requests are no OSErrors.
REMOTE = ('aiobotocore', 'aiohttp', 'botocore', 'gcsfs', 'google', 'requests', 's3fs')


def run(main: Callable[[], object]) -> None:
  """Calls the `main` of a command; ends an error of the user's as one line on stderr and status 1.

  Those are UserError, OSError, and errors of the libraries that reach buckets.

  `DEEPDIVE_TRACEBACK=1` in the environment shows the traceback instead.
  """
  try:
    main()
  except Exception as error:
    expected = isinstance(error, UserError | OSError)
    expected |= type(error).__module__.partition('.')[0] in REMOTE
    if not expected or os.environ.get('DEEPDIVE_TRACEBACK'):
      raise
    sys.exit('error: ' + ' '.join(str(error).split()))
  except KeyboardInterrupt:
    sys.exit(130)
