"""Converts the tokenizer in a GGUF file's metadata to the files of a Hugging Face folder."""

import json
from collections.abc import Mapping
from typing import Any

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from data.tokenizers.bpe import PATTERNS
from lm.base.errors import UserError, unknown

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)  # tokenizer.ggml.token_type
ROLES = {
  'bos_token': 'bos_token_id',
  'eos_token': 'eos_token_id',
  'unk_token': 'unknown_token_id',
  'pad_token': 'padding_token_id',
}


def _split(pattern: str) -> list[Any]:
  return [
    pre_tokenizers.Split(tokenizers.Regex(pattern), 'isolated'),
    pre_tokenizers.ByteLevel(False, use_regex=False),
  ]


_QWEN2 = PATTERNS['llama3'].replace(r'\p{N}{1,3}', r'\p{N}')
# How text is split before merging, by tokenizer.ggml.pre: the pre-tokenizers in the tokenizer.json
# of the models of that name.
SPLITS = {
  'gpt-2': [pre_tokenizers.ByteLevel(False)],
  'smollm': [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)],
  'llama-bpe': _split(PATTERNS['llama3']),
  'qwen2': _split(_QWEN2),
  'deepseek-r1-qwen': _split(_QWEN2),
}


def convert(metadata: Mapping[str, Any]) -> dict[str, bytes]:
  """Returns tokenizer.json, tokenizer_config.json and, if there is one, chat_template.jinja.

  Args:
    metadata: values by key; those whose key begins with 'tokenizer.' are read.

  Raises:
    UserError: a key is missing, or its value is not supported; the error names the key.
  """
  ggml = {key.removeprefix('tokenizer.ggml.'): value for key, value in metadata.items()}
  for key in ('model', 'tokens', 'token_type'):
    if key not in ggml:
      raise UserError(field=f'metadata key tokenizer.ggml.{key}')
  if ggml['model'] not in _KINDS:
    raise unknown('tokenizer.ggml.model', ggml['model'], _KINDS)
  tokens, types = ggml['tokens'], ggml['token_type']
  if len(types) != len(tokens) or len(set(tokens)) != len(tokens):
    raise UserError(
      field='number of tokens in tokenizer.ggml.tokens',
      value=len(tokens),
      allowed=f'as many as are different, {len(set(tokens))}, and as tokenizer.ggml.token_type '
      f'has types, {len(types)}',
    )
  vocab = {token: i for i, token in enumerate(tokens) if types[i] != UNUSED}
  roles = {role: _token(ggml, key) for role, key in ROLES.items() if key in ggml}
  tokenizer, begins = _KINDS[ggml['model']](ggml, vocab, roles)
  for kind, special in ((CONTROL, True), (USER_DEFINED, False)):
    added = []
    for token, own_kind in zip(tokens, types, strict=True):
      if own_kind == kind:
        added.append(tokenizers.AddedToken(token, normalized=False, special=special))
    tokenizer.add_tokens(added)
  if ggml.get('add_bos_token', begins) and 'bos_token' in roles:
    bos = roles['bos_token']
    tokenizer.post_processor = processors.TemplateProcessing(
      f'{bos} $A', f'{bos} $A {bos} $B', [(bos, vocab[bos])]
    )
  config = {
    'tokenizer_class': 'PreTrainedTokenizerFast',
    'clean_up_tokenization_spaces': False,
  } | roles
  files = {
    'tokenizer.json': tokenizer.to_str(pretty=True),
    'tokenizer_config.json': json.dumps(config, indent=2) + '\n',
  }
  if 'tokenizer.chat_template' in metadata:
    files['chat_template.jinja'] = metadata['tokenizer.chat_template']
  return {name: text.encode() for name, text in files.items()}


def _token(ggml: Mapping[str, Any], key: str) -> str:
  """Returns the token whose id the metadata holds under a key."""
  if ggml[key] >= len(ggml['tokens']):
    raise UserError(
      field=f'tokenizer.ggml.{key}',
      value=ggml[key],
      allowed=f'the id of a token, below {len(ggml["tokens"])}',
    )
  return ggml['tokens'][ggml[key]]


def _byte_level(
  ggml: Mapping[str, Any], vocab: dict[str, int], roles: Mapping[str, str]
) -> tuple[tokenizers.Tokenizer, bool]:
  """Returns a tokenizer of GPT-2's kind, and whether documents begin with bos_token by default."""
  name = ggml.get('pre', 'default')
  if name not in SPLITS:
    raise unknown('tokenizer.ggml.pre', name, SPLITS)
  if 'merges' not in ggml:
    raise UserError(field='metadata key tokenizer.ggml.merges')
  merges = [tuple(merge.split(' ')) for merge in ggml['merges']]
  for merge in merges:
    if len(merge) != 2 or not {*merge, ''.join(merge)} <= vocab.keys():
      raise UserError(
        field='item of tokenizer.ggml.merges',
        value=' '.join(merge),
        allowed='two tokens that together are a third',
      )
  llama3 = name == 'llama-bpe'
  tokenizer = tokenizers.Tokenizer(models.BPE(vocab, merges, ignore_merges=llama3))
  if SPLITS[name] is SPLITS['qwen2']:
    tokenizer.normalizer = normalizers.NFC()
  tokenizer.pre_tokenizer = pre_tokenizers.Sequence(SPLITS[name])
  tokenizer.decoder = decoders.ByteLevel()
  return tokenizer, llama3


def _sentencepiece(
  ggml: Mapping[str, Any], vocab: dict[str, int], roles: Mapping[str, str]
) -> tuple[tokenizers.Tokenizer, bool]:
  """Returns a tokenizer of SentencePiece's BPE, and whether documents begin with bos_token.

  This BPE merges the pair that makes the piece with the best score.
  """
  scores, types = ggml.get('scores', ()), ggml['token_type']
  if len(scores) != len(types):
    raise UserError(
      field='number of scores in tokenizer.ggml.scores',
      value=len(scores),
      allowed=f'that of tokens, {len(types)}',
    )
  unknown_tokens = [token for token, i in vocab.items() if types[i] == UNKNOWN]
  unknown_token = unknown_tokens[0] if unknown_tokens else roles.get('unk_token')
  pieces = {token: i for token, i in vocab.items() if types[i] in (NORMAL, USER_DEFINED)}
  ranked = []  # (order, (left, right)) of each merge
  for token, i in pieces.items():
    if types[i] == NORMAL:
      for at in range(1, len(token)):
        left, right = token[:at], token[at:]
        if left in pieces and right in pieces:
          ranked.append(((-scores[i], pieces[left], pieces[right]), (left, right)))
  model = models.BPE(
    vocab,
    [merge for _, merge in sorted(ranked)],
    unk_token=unknown_token,
    fuse_unk=True,
    byte_fallback=BYTE in types,
  )
  tokenizer = tokenizers.Tokenizer(model)
  prefix = ggml.get('add_space_prefix', True)
  tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(
    '▁', 'first' if prefix else 'never', split=False
  )
  steps = [decoders.Replace('▁', ' '), decoders.ByteFallback(), decoders.Fuse()]
  tokenizer.decoder = decoders.Sequence(steps + [decoders.Strip(' ', 1, 0)] * prefix)
  return tokenizer, True


_KINDS = {'gpt2': _byte_level, 'llama': _sentencepiece}
