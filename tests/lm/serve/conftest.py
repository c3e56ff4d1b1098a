"""One server of a tiny random model for all tests of this folder."""

import pytest
import serving


@pytest.fixture(scope='session')
def random_model(tiny):
  """A served model that says anything."""
  config, params = tiny(vocab_size=serving.TOKENIZER.vocab_size, max_len=serving.CAPACITY)
  return serving.served(config, params)


@pytest.fixture(scope='session')
def app(random_model):
  """The application, with its engine running."""
  with serving.running(random_model) as app:
    yield app
