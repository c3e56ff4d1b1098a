"""The fields of a config, and the training runs of a recipe."""

from ml_collections import ConfigDict


def fields(config, prefix=''):
  """{dotted name: (names of the part, name)} of every leaf."""
  found = {}
  for name, value in config.items():
    if isinstance(value, ConfigDict):
      found |= fields(value, f'{prefix}{name}.')
    else:
      found[prefix + name] = (tuple(sorted(config.keys())), name)
  return found


def training_runs(recipe):
  """{name: config} of the parts of a recipe that are training runs."""
  return {n: part for n, part in recipe.items() if isinstance(part, ConfigDict) and 'stage' in part}
