"""Reads YAML files, such as the card of a persona or a rubric."""

from typing import Any

import yaml

from lm.base import files
from lm.base.errors import invalid


def read(path: files.Path) -> Any:
  """Returns the content of a YAML file.

  Raises:
    FileNotFoundError: there is no such file.
    UserError: the file is not YAML.
  """
  try:
    return yaml.safe_load(files.as_path(path).read_text(encoding='utf-8'))
  except (yaml.YAMLError, UnicodeDecodeError) as error:
    raise invalid(path, 'YAML', error) from error
