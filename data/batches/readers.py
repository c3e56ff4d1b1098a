"""Opens token shards as batches: documents in windows, conversations packed into rows."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

from data.batches import prepare
from data.chat import chat_formats
from data.shards import baselines
from data.shards.loader import Loader
from data.shards.mixture import Mixture
from data.tokenizers.interface import Tokenizer
from lm.base import config as config_lib
from lm.base import files
from lm.base.errors import UserError


@dataclasses.dataclass(frozen=True)
class TokenSource:
  """Training batches of token shards, and held-out ones.

  Attributes:
    train: endless, shuffled batches.
    val: each held-out token once, in order; None if nothing is held out.
    val_manifest: the manifest of `val`.
  """

  train: Loader | Mixture
  val: Loader | None
  val_manifest: str | None

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
    return baselines.compare(read, held_out, self.val_manifest, tokenizer)


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
    val_manifest=val,
  )


def open_held_out(
  config: Any, chat_format: chat_formats.Format, manifest: str, layout: str = 'windows'
) -> Loader:
  """Returns batches with each token of a manifest once, in order. Raises as `open_loader` does."""
  return open_loader(
    config, chat_format, manifest, layout=layout, batch_size=config.eval.batch_size, train=False
  )


def open_mixture(
  config: Any, chat_format: chat_formats.Format, manifests: str, layout: str
) -> Loader | Mixture:
  """Returns training batches of one manifest, or of several, mixed by `config.data.weights`.

  Raises:
    UserError: see `open_loader`; or weights are given for one manifest, or none for several.
  """
  names = config_lib.names(manifests)
  if (len(names) > 1) != bool(config.data.weights):
    raise UserError(
      field='config.data.weights',
      value=config.data.weights,
      allowed='a weight for each manifest' if len(names) > 1 else "''",
      message=f'config.data.train names {len(names)} of them.',
    )
  loaders = [
    open_loader(config, chat_format, name, layout=layout, batch_size=config.batch_size, train=True)
    for name in names
  ]
  if len(loaders) == 1:
    return loaders[0]
  return Mixture(loaders, config.data.weights, batch_size=config.batch_size, seed=config.seed)


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
    UserError: the tokens were made with another tokenizer, or the conversations with another
      format.
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
  made_with = loader.manifest['tokenizer']['fingerprint']
  is_chat = loader.manifest['kind'] == 'conversations'
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
