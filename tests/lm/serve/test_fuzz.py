"""Bodies made from the server's own OpenAPI description, valid and not, by schemathesis."""

import json

import hypothesis
import pytest
import serving
from hypothesis import HealthCheck, Phase

# Failures of the server, statuses and types of content and bodies that the description lacks.
CHECKS = (
  'not_a_server_error',
  'status_code_conformance',
  'content_type_conformance',
  'response_schema_conformance',
)


@pytest.fixture(scope='module')
def api(random_model):
  """The description of a server that gives short answers, so that many of them can be asked for."""
  import schemathesis  # here, since every round would take seconds to import it

  model = serving.served(random_model.config, random_model.params)
  limits = {'new_tokens': 4, 'choices': 2, 'prompts': 2}
  with serving.listening_at(serving.application(model, limits=limits)) as address:
    yield schemathesis.openapi.from_url(f'{address}/openapi.json')


@pytest.mark.slow
@pytest.mark.parametrize(
  ('path', 'mode'),
  [
    ('/v1/completions', 'positive'),
    ('/v1/completions', 'negative'),
    ('/v1/chat/completions', 'positive'),
    ('/v1/chat/completions', 'negative'),
    ('/v1/models/{name}', 'positive'),
  ],
)
def test_whatever_is_sent_gets_an_answer_of_the_description(api, path, mode):
  """With bodies that fit the schemas, and with bodies that do not."""
  from schemathesis import GenerationMode, checks

  each = [getattr(checks, name) for name in CHECKS]
  operation = next(iter(api[path].values()))

  @hypothesis.settings(
    max_examples=30,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate],
  )
  @hypothesis.seed(0)
  @hypothesis.given(operation.as_strategy(generation_mode=GenerationMode(mode)))
  def send(case):
    if isinstance(case.body, dict) and isinstance(case.body.get('model'), str):
      case.body['model'] = 'tiny'  # Nobody guesses it.
    response = case.call()
    case.validate_response(response, checks=each)
    assert 'Traceback' not in response.text
    statuses.append(response.status_code)

  statuses = []
  send()
  assert len(statuses) >= 10 and 500 not in statuses


def test_the_description_names_what_the_schemas_have(app):
  told = serving.send(app, 'GET', '/openapi.json').json()
  assert {'ChatBody', 'CompletionBody', 'Error'} <= told['components']['schemas'].keys()
  assert json.dumps(told).count('#/$defs/') == 0
