"""Errors carry the field, the value and what is allowed, and print all three."""

import pickle

import pytest

from lm.base.errors import UserError, invalid, missing_package, unknown


def test_an_error_of_a_field_prints_field_value_allowed_and_message():
  error = UserError(
    field='config.mesh.tensor',
    value=3,
    allowed='a divisor of num_kv_heads, 8',
    message='Tensor parallelism splits key/value heads evenly.',
  )
  assert str(error) == (
    'config.mesh.tensor is 3; allowed: a divisor of num_kv_heads, 8. '
    'Tensor parallelism splits key/value heads evenly.'
  )
  assert (error.field, error.value, error.allowed) == (
    'config.mesh.tensor',
    3,
    'a divisor of num_kv_heads, 8',
  )
  assert error.message == 'Tensor parallelism splits key/value heads evenly.'


def test_names_that_are_allowed_are_listed_and_strings_are_quoted():
  error = UserError(field='config.remat', value='', allowed=('none', 'full'))
  assert str(error) == "config.remat is ''; allowed: none, full"
  assert error.allowed == ('none', 'full')


def test_a_field_without_value_is_missing_and_one_that_is_none_is_none():
  assert str(UserError(field='--config', allowed='FILE')) == '--config is missing; allowed: FILE'
  assert str(UserError(field='--step', value=None)) == '--step is None'


@pytest.mark.parametrize(
  'error',
  [UserError(field='rows', value=3, allowed='an even number'), unknown('task', 'x', ['y']).at('a')],
)
def test_an_error_survives_the_way_back_from_a_worker_process(error):
  copy = pickle.loads(pickle.dumps(error))
  assert type(copy) is UserError
  assert (str(copy), vars(copy)) == (str(error), vars(error))


def test_unknown_fills_the_three_and_names_the_nearest():
  error = unknown('task', 'spelin', ['arithmetic', 'spelling'])
  assert (error.field, error.value, error.allowed) == ('task', 'spelin', ('arithmetic', 'spelling'))
  assert str(error) == (
    "unknown task 'spelin' (did you mean 'spelling'?); allowed: arithmetic, spelling"
  )
  assert 'did you mean' not in str(unknown('task', 'qqq', ['arithmetic']))


def test_what_is_not_what_it_must_be_is_told_with_the_cause_in_one_line():
  error = invalid('a.json', 'valid JSON', ValueError('Expecting\nvalue'))
  assert (error.field, error.value, error.allowed) == ('a.json', 'Expecting value', 'valid JSON')
  assert str(error) == 'a.json is not valid JSON: Expecting value'


def test_a_missing_package_is_told_with_what_installs_it():
  error = missing_package('tantivy', 'tools', 'The tool search')
  assert error.field == 'package tantivy' and error.value is None
  assert str(error) == (
    "package tantivy is missing. The tool search needs it: pip install -e '.[tools]'."
  )


def test_a_place_comes_before_the_text_and_the_attributes_stay():
  assert UserError(field='rows', value=3).place == ''
  error = UserError(field='rows', value=3).at('a.json')
  assert (error.place, error.field, error.value) == ('a.json', 'rows', 3)
  assert str(error) == 'a.json: rows is 3'
  placed = unknown('task', 'x', ['y']).at('a.json')
  assert (str(placed), placed.field) == ("a.json: unknown task 'x'; allowed: y", 'task')


def test_a_long_value_is_cut_off_in_the_text():
  error = UserError(field='rows', value='a' * 1000)
  assert len(str(error)) < 300 and error.value == 'a' * 1000
