"""Opens token shards as batches: documents in windows, conversations packed into rows."""

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any

from data.batches import prepare
from data.chat import chat_formats
from data.shards import baselines
from data.shards.loader import Loader
from data.shards.mixture import Epochs, Mixture
from data.tokenizers.interface import Tokenizer
from lm.base import config as config_lib
from lm.base import files
from lm.base.errors import UserError


@dataclasses.dataclass(frozen=True)
class TokenSource:
  """Training batches of token shards, and held-out ones.

  Attributes:
    train: endless, shuffled batches.
    val: each held-out token once; None if nothing is held out.
    val_manifests: the manifests of `val`.
  """

  train: Loader | Mixture | Epochs
  val: Loader | Epochs | None
  val_manifests: tuple[str, ...]

  @property
  def fingerprint(self) -> str:
    """A digest of the training data."""
    return self.train.fingerprint

  def compare_baselines(
    self, tokenizer: Tokenizer, spans: Sequence[tuple[int, int]]
  ) -> dict[str, Any]:
    """Returns the bits per byte of n-grams and compressors, given the same training batches.

    Args:
      tokenizer: the model's tokenizer.
      spans: ranges of steps whose batches the model was trained on.
    """
    read = itertools.chain.from_iterable(self.train.iterate(*span) for span in spans)
    held_out = self.val.iterate(0, self.val.steps_per_epoch)
    return baselines.compare(read, held_out, self.val_manifests, tokenizer)


def open_windows(
  config: Any, chat_format: chat_formats.Format, folder: files.AnyPath
) -> TokenSource:
  """Returns the documents of `config.data` in windows of `config.seq_len` tokens."""
  return _open(config, chat_format, folder, layout='windows')


def open_packed(
  config: Any, chat_format: chat_formats.Format, folder: files.AnyPath
) -> TokenSource:
  """Returns the conversations of `config.data`, packed whole into rows."""
  return _open(config, chat_format, folder, layout='packed')


def _open(
  config: Any, chat_format: chat_formats.Format, folder: files.AnyPath, layout: str
) -> TokenSource:
  train, val = prepare.prepare_training_data(config, chat_format, folder, layout)
  return TokenSource(
    train=open_mixture(config, chat_format, train, layout),
    val=open_held_out(config, chat_format, val, layout) if val else None,
    val_manifests=config_lib.names(val or ''),
  )


def open_held_out_windows(
  config: Any, chat_format: chat_formats.Format, folder: files.AnyPath
) -> Loader | Epochs:
  """Returns the documents of `config.data.val` in windows, each token once."""
  return _open_held_out(config, chat_format, folder, layout='windows')


def open_held_out_packed(
  config: Any, chat_format: chat_formats.Format, folder: files.AnyPath
) -> Loader | Epochs:
  """Returns the conversations of `config.data.val`, packed whole into rows, each once."""
  return _open_held_out(config, chat_format, folder, layout='packed')


def _open_held_out(
  config: Any, chat_format: chat_formats.Format, folder: files.AnyPath, layout: str
) -> Loader | Epochs:
  manifests = prepare.prepare_held_out(config, chat_format, folder, layout)
  return open_held_out(config, chat_format, manifests, layout)


def open_held_out(
  config: Any, chat_format: chat_formats.Format, manifests: str, layout: str
) -> Loader | Epochs:
  """Returns batches with each token of manifests once. Raises as `open_loader` does."""
  loaders = [
    open_loader(
      config, chat_format, name, layout=layout, batch_size=config.eval.batch_size, train=False
    )
    for name in config_lib.names(manifests)
  ]
  if len(loaders) == 1:
    return loaders[0]
  once = [1] * len(loaders)
  return Epochs(loaders, once, batch_size=config.eval.batch_size, seed=config.seed)


def open_mixture(
  config: Any, chat_format: chat_formats.Format, manifests: str, layout: str
) -> Loader | Mixture | Epochs:
  """Returns training batches of manifests, mixed by `config.data.weights` or `config.data.epochs`.

  Raises:
    UserError: see `open_loader`; weights are given for one manifest, or neither weights nor epochs
      for several; or `config.steps` is not the number of updates that the epochs take.
  """
  names, data = config_lib.names(manifests), config.data
  if not data.epochs and (len(names) > 1) != bool(data.weights):
    raise UserError(
      field='config.data.weights',
      value=data.weights,
      allowed='a weight for each input' if len(names) > 1 else "''",
      message=f'config.data.train names {len(names)} of them.',
    )
  loaders = [
    open_loader(config, chat_format, name, layout=layout, batch_size=config.batch_size, train=True)
    for name in names
  ]
  order = {'batch_size': config.batch_size, 'seed': config.seed}
  if data.epochs:
    mixed = Epochs(loaders, _numbers_of_epochs(data, len(names)), **order)
    if config.steps != mixed.steps_per_epoch:
      raise UserError(
        field='config.steps',
        value=config.steps,
        allowed=f'{mixed.steps_per_epoch}, the updates that config.data.epochs take',
      )
    return mixed
  return loaders[0] if len(loaders) == 1 else Mixture(loaders, data.weights, **order)


def _numbers_of_epochs(data: Any, count: int) -> list[float]:
  """Returns the numbers in `config.data.epochs`, one for each of `count` inputs."""
  try:
    epochs = [float(number) for number in data.epochs.split(',')]
  except ValueError:
    epochs = []
  if data.weights or len(epochs) != count or not all(0 < number < math.inf for number in epochs):
    raise UserError(
      field='config.data.epochs',
      value=data.epochs,
      allowed=f"{count} numbers above 0, 'E,E,...', one for each input of config.data.train; or "
      "'' with config.data.weights",
    )
  return epochs


def open_loader(
  config: Any,
  chat_format: chat_formats.Format,
  manifest: str,
  *,
  layout: str,
  batch_size: int,
  train: bool,
) -> Loader:
  """Returns batches of a manifest: shuffled and endless for training, else each token once.

  Raises:
    UserError: the tokens were made with another tokenizer, the conversations with another format,
      or the layout is 'packed' and the manifest has no conversations.
  """
  loader = Loader(
    manifest,
    seq_len=config.seq_len,
    batch_size=batch_size,
    seed=config.seed,
    layout=layout,
    shuffle=train,
    pad_last=not train,
    cache=config.data.cache,
  )
  made_with, kind = loader.manifest['tokenizer']['fingerprint'], loader.manifest['kind']
  is_chat = kind == 'conversations'
  if layout == 'packed' and not is_chat:
    raise UserError(
      field=f'kind of {manifest}',
      value=kind,
      allowed="'conversations', of which fine-tuning learns what the assistant says",
    )
  allowed = {chat_format.tokenizer.fingerprint}
  if not is_chat:
    allowed.add(chat_format.plain_fingerprint)
  if made_with not in allowed:
    raise UserError(
      field=f'tokenizer of {manifest}',
      value=made_with,
      allowed=f"the model's, {chat_format.tokenizer.fingerprint}",
      message='The tokens were made with another tokenizer.',
    )
  if is_chat and loader.manifest['chat_format'] != chat_format.fingerprint:
    raise UserError(
      field=f'chat format of {manifest}',
      value=loader.manifest['chat_format'],
      allowed=f"the model's, {chat_format.fingerprint} (config.data.chat_format)",
    )
  return loader
