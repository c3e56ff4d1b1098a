"""The OpenAPI description of the server, at /openapi.json."""

import functools
from typing import Any

from pydantic.json_schema import models_json_schema

from lm.serve.schemas import ChatBody, CompletionBody

REFERENCE = '#/components/schemas/{model}'
ERRORS = {
  '400': 'The request is wrong; `param` names the field.',
  '401': 'No valid API key.',
  '404': 'There is no such model.',
  '408': 'The body or the answer took too long.',
  '413': 'The body is too large.',
  '415': 'The body is not declared as JSON.',
  '429': 'Too many requests wait.',
  '503': 'The server is ending.',
}


@functools.cache
def description() -> dict[str, Any]:
  """Returns the description, a JSON object."""
  bodies = models_json_schema(
    [(CompletionBody, 'validation'), (ChatBody, 'validation')], ref_template=REFERENCE
  )[1]['$defs']
  schemas = bodies | {
    'Error': _object(error=_object(message='string', type='string', param=None, code=None)),
    'Model': _object(id='string', object='string', created='integer', owned_by='string'),
    'Models': _object(object='string', data=_list(_reference('Model'))),
    'Completion': _object(
      id='string', object='string', created='integer', model='string', choices=_list({})
    ),
    'Health': _object(status='string'),
  }
  name = {'name': 'name', 'in': 'path', 'required': True, 'schema': {'type': 'string'}}
  return {
    'openapi': '3.1.0',
    'info': {'title': 'deepdive', 'version': '1', 'description': "OpenAI's API, in part."},
    'paths': {
      '/health': {'get': _operation('health', 'Health', also={'503': _content('Health')})},
      '/metrics': {'get': _operation('metrics', None)},
      '/v1/models': {'get': _operation('list_models', 'Models')},
      '/v1/models/{name}': {'get': _operation('show_model', 'Model') | {'parameters': [name]}},
      '/v1/completions': {'post': _operation('complete', 'Completion', CompletionBody)},
      '/v1/chat/completions': {'post': _operation('chat', 'Completion', ChatBody)},
    },
    'components': {
      'schemas': schemas,
      'securitySchemes': {'key': {'type': 'http', 'scheme': 'bearer'}},
    },
    'security': [{}, {'key': []}],
  }


def _operation(
  name: str, answer: str | None, body: type | None = None, also: dict[str, Any] | None = None
) -> dict[str, Any]:
  """Returns an operation: its body, its answer and its errors."""
  content = {'text/plain': {'schema': {'type': 'string'}}}
  if answer:
    content = {'application/json': {'schema': _reference(answer)}}
  if body:
    content |= {'text/event-stream': {'schema': {'type': 'string'}}}
  operation = {
    'operationId': name,
    'responses': {
      '200': {'description': 'The answer.', 'content': content},
      **{status: _content('Error', text) for status, text in ERRORS.items()},
      **(also or {}),
    },
  }
  if body:
    required = {'application/json': {'schema': _reference(body.__name__)}}
    operation['requestBody'] = {'required': True, 'content': required}
  return operation


def _content(schema: str, text: str = '') -> dict[str, Any]:
  return {
    'description': text or schema,
    'content': {'application/json': {'schema': _reference(schema)}},
  }


def _reference(name: str) -> dict[str, str]:
  return {'$ref': REFERENCE.format(model=name)}


def _list(items: dict[str, Any]) -> dict[str, Any]:
  return {'type': 'array', 'items': items}


def _object(**fields: Any) -> dict[str, Any]:
  """Returns the schema of an object; a field is a schema, a type, or None for text or null."""
  properties = {
    name: field if isinstance(field, dict) else {'type': field or ['string', 'null']}
    for name, field in fields.items()
  }
  return {'type': 'object', 'properties': properties, 'required': list(properties)}
