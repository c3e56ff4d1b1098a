"""The benchmark, at a shape that takes seconds."""

import json

import commands
import pytest

SHAPE = (
  '--layers=1',
  '--width=16',
  '--heads=2',
  '--vocab=32',
  '--seq-len=8',
  '--batch=2',
  '--chunk=8',
  '--steps=3',
)


@pytest.mark.parametrize(
  'options',
  [
    (),
    pytest.param(
      ('--optimizer=muon', '--scan-layers', '--remat=full', '--dtype=bfloat16'),
      marks=pytest.mark.slow,
    ),
  ],
)
def test_prints_one_line_of_json_that_adds_up(options):
  status, out, err = commands.run('-m', 'lm.bench', 'train', '--json', *SHAPE, *options)
  assert status == 0, err
  (result,) = map(json.loads, out.splitlines())
  assert result['step_s']['min'] <= result['step_s']['median'] <= result['step_s']['max']
  assert result['first_step_s'] > 0
  assert result['tokens_per_s'] == pytest.approx(16 / result['step_s']['median'])
  # One layer of width D: 12 D^2 matrices, 13 D vectors, 2 D of the final norm; tables of V and T
  # rows.
  assert result['params'] == 12 * 256 + 13 * 16 + 2 * 16 + (32 + 8) * 16
  flops = 6 * (12 * 256 + 15 * 16 + 32 * 16) + 12 * 8 * 16
  assert result['model_flops_per_s'] == pytest.approx(result['tokens_per_s'] * flops)
  assert result['peak_rss_bytes'] > 50e6
  assert result['last_loss'] < result['first_loss'] == pytest.approx(3.47, abs=0.1)  # log 32


@pytest.mark.slow
def test_a_missing_peer_is_named():
  status, _, err = commands.run(
    '-m',
    'lm.bench',
    'train',
    *SHAPE,
    '--beside=transformers',
    f'--beside-python={commands.sys.executable}',
  )
  assert status == 1 and 'transformers ended early' in err


def test_heads_must_divide_the_width():
  status, _, err = commands.run('-m', 'lm.bench', 'train', '--width=10', '--heads=3')
  assert status == 1 and '--heads is 3' in err and '10' in err
