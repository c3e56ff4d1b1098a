"""What the page asks that the API of OpenAI does not give: models, tokens, insides, votes."""

import asyncio
from typing import Any

import jax
import pydantic
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from lm.base.errors import UserError
from lm.infer import inside
from lm.serve.api_errors import ApiError
from lm.serve.handling import read_body
from lm.serve.playground.votes import Vote, VoteFile
from lm.serve.schemas import Schema
from lm.serve.service import ServedModel, Service

MERGE_CHARS = 1000  # The longest text whose merges are shown.
DIGITS = 4  # of probabilities and weights


class TokensBody(Schema):
  """A text to split into tokens."""

  text: str = pydantic.Field(max_length=20_000)


class InsideBody(Schema):
  """A text to look at inside a model, and the layer whose attention is shown."""

  model: str
  text: str = pydantic.Field(max_length=20_000)
  layer: int = 0


class Views:
  """The handlers of the routes, and what they share.

  Bytes of tokens are sent as hexadecimal digits, because a token may be a part of a character.
  """

  def __init__(self, vote_file: VoteFile | None):
    self._vote_file = vote_file
    self._looking = asyncio.Semaphore(1)  # One reading takes all cores, and much memory.

  async def about(self, request: Request) -> Response:
    """Lists the models with what the page needs to know of them."""
    service = request.app.state.service
    models = [_model_card(model) for model in service.models.values()]
    return JSONResponse({'models': models, 'takes_votes': self._vote_file is not None})

  async def tokens(self, request: Request) -> Response:
    """Splits a text by each of the loaded tokenizers; those that are equal are shown once."""
    body = await read_body(request, TokensBody)
    found = await asyncio.to_thread(_split, request.app.state.service, body.text)
    return JSONResponse({'tokenizers': found})

  async def inside(self, request: Request) -> Response:
    """Shows attention in one layer, and the next token after each layer."""
    body, service = await read_body(request, InsideBody), request.app.state.service
    model = service.model(body.model)
    async with self._looking:
      seen = await asyncio.to_thread(_look, service, model, body)
    return JSONResponse(seen)

  async def vote(self, request: Request) -> Response:
    """Appends a vote to the arena file."""
    vote, service = await read_body(request, Vote), request.app.state.service
    if self._vote_file is None:
      raise ApiError(404, 'this server takes no votes: it was started without --arena-file')
    for name in vote.models:
      service.model(name)
    if vote.models[0] == vote.models[1]:
      raise ApiError(400, 'models: a model is not compared with itself', param='models')
    await asyncio.to_thread(self._vote_file.append, vote)
    return JSONResponse({'written': True})


def _model_card(model: ServedModel) -> dict[str, Any]:
  """Returns what the page needs to know of a model."""
  config = model.config
  return {
    'name': model.name,
    'can_chat': model.can_chat,
    'document_start': model.chat_format.document_start,
    'stop_ids': list(model.stop_ids),
    'context': model.context,
    'num_layers': config.num_layers,
    'num_heads': config.num_heads,
  }


def _token(tokenizer: Any, index: int) -> dict[str, Any]:
  """Returns a token's id and bytes; a special token has those of its name."""
  return {'id': index, 'bytes': tokenizer.decode_bytes([index]).hex()}


def _split(service: Service, text: str) -> list[dict[str, Any]]:
  """Returns how each of the tokenizers splits a text."""
  names: dict[str, list[str]] = {}
  for name, tokenizer in service.tokenizers.items():
    names.setdefault(tokenizer.fingerprint, []).append(name)
  return [_split_by(service.tokenizers[same[0]], same, text) for same in names.values()]


def _split_by(tokenizer: Any, names: list[str], text: str) -> dict[str, Any]:
  """Returns how a tokenizer splits a text, and the merges that lead there."""
  merges, no_merges = None, None
  if len(text) > MERGE_CHARS:
    no_merges = f'Merges are shown for texts of up to {MERGE_CHARS:,} characters.'
  else:
    try:
      trace = tokenizer.trace(text)
      steps = [
        {'left': m.left.hex(), 'right': m.right.hex(), 'places': m.places} for m in trace.merges
      ]
      merges = {'pieces': [piece.hex() for piece in trace.pieces], 'steps': steps}
    except UserError as error:
      no_merges = f'There are no merges to show: {error}.'
  tokens = [{'id': i, 'bytes': tokenizer.token_bytes(i).hex()} for i in tokenizer.encode(text)]
  return {
    'names': names,
    'vocab_size': tokenizer.vocab_size,
    'num_bytes': len(text.encode('utf-8', 'replace')),
    'tokens': tokens,
    'merges': merges,
    'no_merges': no_merges,
  }


def _look(service: Service, model: ServedModel, body: InsideBody) -> dict[str, Any]:
  """Returns the tokens of a document that begins with a text, with what the model makes of them."""
  tokenizer = model.chat_format.tokenizer
  tokens = [model.chat_format.document_start, *tokenizer.encode(body.text)]
  with jax.set_mesh(service.mesh):
    seen = inside.look_inside(model.config, model.params, tokens, body.layer)
  names = {int(i): _token(tokenizer, int(i))['bytes'] for i in set(seen.guess_ids_LTA.flat)}
  layers = []
  for ids_TA, probs_TA, entropy_T in zip(
    seen.guess_ids_LTA, seen.guess_probs_LTA, seen.entropy_LT, strict=True
  ):
    guesses = [
      [
        {'id': i, 'bytes': names[i], 'probability': round(p, DIGITS)}
        for i, p in zip(ids_A, probs_A, strict=True)
      ]
      for ids_A, probs_A in zip(ids_TA.tolist(), probs_TA.tolist(), strict=True)
    ]
    layers.append({'guesses': guesses, 'entropy': entropy_T.astype(float).round(DIGITS).tolist()})
  return {
    'tokens': [_token(tokenizer, i) for i in tokens],
    'attention': seen.weights_NTS.astype(float).round(DIGITS).tolist(),
    'layers': layers,
  }
