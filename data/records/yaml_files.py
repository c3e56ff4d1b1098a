"""Reads YAML files, such as the card of a persona or a rubric."""

from typing import Any

import yaml

from lm.base import files
from lm.base.errors import UserError


def read(path: files.Path) -> Any:
  """Returns the content of a YAML file.

  Raises:
    FileNotFoundError: there is no such file.
    UserError: the file is not YAML.
  """
  try:
    return yaml.safe_load(files.as_path(path).read_text(encoding='utf-8'))
  except (yaml.YAMLError, UnicodeDecodeError) as error:
    raise UserError(f'{path} is not YAML: {" ".join(str(error).split())}') from error
