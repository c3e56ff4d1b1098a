"""Rules over the names of parameters and of their axes: which are trained, which are matrices.

A parameter's name is its path in the tree, with slashes: `layers/attention/q/kernel`. A rule is a
comma-separated list of regular expressions; it covers the names that one of them matches as a
whole.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Any

from lm.base import config as config_lib
from lm.base.errors import UserError


def matrix_sides(names: tuple[str, ...]) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
  """Returns the positions of a matrix's (input, output) axes, or None where there is no matrix.

  A parameter is a matrix, or one in each layer or expert, by the names of its axes. Vectors and the
  table of positions are none.
  """
  axes = tuple(i for i, name in enumerate(names) if name not in ('layers', 'expert'))
  if 'lora' in names:
    split = 1 if names[axes[0]] == 'lora' else len(axes) - 1
    return axes[:split], axes[split:]
  # The bias of a query has two axes, heads and head_dim, but is no matrix.
  if 'positions' in names or 'embed' not in names:
    return None
  # The axis embed is all of the input or all of the output.
  split = 1 if names[axes[0]] == 'embed' else len(axes) - 1
  return (axes[:split], axes[split:]) if len(axes) > 1 else None


def leaves(tree: dict[str, Any], prefix: str = '') -> Iterator[tuple[str, Any]]:
  """Yields (name, leaf) of nested dicts; a leaf is anything that is not a dict."""
  for key, value in tree.items():
    if isinstance(value, dict):
      yield from leaves(value, f'{prefix}{key}/')
    else:
      yield prefix + key, value


def leaf_names(tree: dict[str, Any]) -> list[str]:
  """Returns the name of every leaf of nested dicts."""
  return [name for name, _ in leaves(tree)]


def matches(field: str, pattern: str, names: Iterable[str]) -> set[str]:
  """Returns the names that a regular expression matches in full.

  Args:
    field: the config field that holds the expression, for errors.

  Raises:
    UserError: it is no regular expression, or it matches none of the names.
  """
  names = list(names)
  try:
    found = {name for name in names if re.fullmatch(pattern, name)}
  except re.error as error:
    raise UserError(
      field=field, value=pattern, allowed='regular expressions', message=f'Python says: {error}.'
    ) from error
  if not found:
    raise UserError(
      field=field,
      value=pattern,
      allowed=f'regular expressions that match one of {", ".join(names)}',
    )
  return found


def covered(field: str, rule: str, names: Iterable[str]) -> frozenset[str]:
  """Returns the names that a rule covers.

  Each of its expressions is checked as by `matches`, which raises UserError.
  """
  names = list(names)
  return frozenset().union(
    *(matches(field, pattern, names) for pattern in config_lib.names(rule)),
  )


def select(tree: dict[str, Any], names: frozenset[str], prefix: str = '') -> dict[str, Any]:
  """Returns the part of nested dicts whose leaves have these names, without empty dicts."""
  part = {}
  for key, value in tree.items():
    if isinstance(value, dict):
      if inner := select(value, names, f'{prefix}{key}/'):
        part[key] = inner
    elif prefix + key in names:
      part[key] = value
  return part


def split(tree: dict[str, Any], names: frozenset[str]) -> tuple[dict[str, Any], dict[str, Any]]:
  """Returns (the part with these names, the rest); `join` puts them together again."""
  return select(tree, names), select(tree, frozenset(leaf_names(tree)) - names)


def join(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
  """Returns one tree with the leaves of two trees that have no leaf in common."""
  joined = dict(first)
  for key, value in second.items():
    joined[key] = join(joined[key], value) if key in joined else value
  return joined
