"""The open-weight families that we read and write, a file each, and the registry of them.

To add a family, write a file like llama.py from the rules of field_rules.py and the names of
tensor_names.py, and list it in `FAMILIES`. family.py says what a family is.
"""

from collections.abc import Mapping
from typing import Any

from lm.base.errors import UserError, unknown
from lm.weights.families.family import ARCHITECTURE, Family, Fields, Tensor, canonical
from lm.weights.families.gemma import GEMMA2, GEMMA3
from lm.weights.families.gpt2 import GPT2
from lm.weights.families.llama import LLAMA
from lm.weights.families.mistral import MISTRAL, MIXTRAL
from lm.weights.families.olmo import OLMO2
from lm.weights.families.qwen import QWEN2, QWEN3, QWEN3_MOE
from lm.weights.families.smollm3 import SMOLLM3

__all__ = [
  'ARCHITECTURE',
  'FAMILIES',
  'Family',
  'Fields',
  'Tensor',
  'canonical',
  'express',
  'of',
]

# A model that several families have is exported as the first of them.
FAMILIES = (
  LLAMA,
  MISTRAL,
  QWEN2,
  QWEN3,
  SMOLLM3,
  GEMMA2,
  GEMMA3,
  OLMO2,
  MIXTRAL,
  QWEN3_MOE,
  GPT2,
)


def of(hf: Fields) -> Family:
  """Returns the family of a config.json. Raises UserError for one that we cannot run."""
  architectures = hf.get('architectures') or []
  for family in FAMILIES:
    if architectures and family.architecture == architectures[0]:
      return family
    if not architectures and family.model_type == hf.get('model_type'):
      return family
  name = architectures[0] if architectures else hf.get('model_type')
  allowed = [family.architecture for family in FAMILIES]
  raise unknown('architecture in config.json', name, allowed)


def express(config: Mapping[str, Any], origin: Fields | None = None) -> tuple[Family, Fields]:
  """Returns a family that has this model, and its config.json.

  Args:
    config: a config.model.
    origin: the config.json that the model was imported with. It is returned, with the present size
      of the vocabulary, where it still describes the model.

  Raises:
    UserError: names a field whose value no family has together with the others.
  """
  wanted = canonical(config)
  first = of(origin) if origin else None
  if first:
    hf = dict(origin) | {'vocab_size': wanted['vocab_size']}  # fine-tuning may have added tokens
    if first.read(hf, ignore=hf) == wanted:
      return first, hf
  nearest = None
  for family in sorted(FAMILIES, key=lambda family: family is not first):
    hf = family.write(wanted)
    back = family.read(hf)
    differing = [field for field in ARCHITECTURE if back[field] != wanted[field]]
    if not differing:
      return family, hf
    if nearest is None or len(differing) < len(nearest[1]):
      nearest = family, differing, back
  family, (field, *_), back = nearest
  raise UserError(
    field=f'config.model.{field}',
    value=wanted[field],
    message='No architecture that we export has this value together with the other fields; the '
    f'nearest, {family.architecture}, has {back[field]!r}.',
  )
