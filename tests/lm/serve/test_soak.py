"""A short run of tests/lm/soak.py, which runs for ten minutes by hand."""

import asyncio

import pytest
import serving
import soak


@pytest.mark.slow
def test_mixed_load_loses_no_row_and_changes_no_answer(random_model):
  app = serving.application(serving.served(random_model.config, random_model.params))
  with serving.listening_at(app) as address:
    done = asyncio.run(soak.load(address, app, count=60))
  assert serving.idle(app)
  assert done['equal'] > 20 and done['cancelled'] > 4 and done['refused'] and done['left']
