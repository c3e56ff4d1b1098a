"""A program that is forked from the server is as one that an interpreter was started for."""

import os
import signal

import commands
import pytest

SCRIPT = """
import atexit, json, multiprocessing, os, signal, sys

def square(x):
  return x * x

if __name__ == '__main__':
  atexit.register(print, 'at exit')
  names = 'argv', 'orig_argv'
  print(json.dumps({name: getattr(sys, name) for name in names}), sys.path[0], os.getcwd())
  print(sorted(os.environ.items()))
  print(input(), sys.modules['__main__'].__dict__ is globals(), signal.getsignal(signal.SIGINT))
  print('said', file=sys.stderr)
  with multiprocessing.get_context('spawn').Pool(1) as pool:
    print(pool.map(square, [3]))
"""
# Where they are not given, modules that the server imports set them.
SET_BY_IMPORTS = (
  'CRC32C_SW_MODE',
  'EPATH_USE_TF',
  'GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT',
  'TF_CPP_MIN_LOG_LEVEL',
  'TPU_SKIP_MDS_QUERY',
)
ENDS = (
  'pass',
  'sys.exit(7)',
  "sys.exit('a word')",
  '1 / 0',
  'os.abort()',
  'os.kill(os.getpid(), 2)',
)


@pytest.mark.slow
def test_what_a_program_finds_and_leaves(tmp_path):
  script = tmp_path / 'script.py'
  script.write_text(SCRIPT)
  given = dict.fromkeys((*SET_BY_IMPORTS, 'EXTRA'), 'x\ny')
  both = [
    commands.run(script, 'a', '--b=c d', text='line é\n', anew=anew, **given)
    for anew in (True, False)
  ]
  assert both[0] == both[1] and both[0][0] == 0 and '[9]\nat exit' in both[0][1], both


@pytest.mark.slow
def test_a_program_ends_as_with_an_interpreter_of_its_own():
  for end in ENDS:
    (status, out, err), forked = (
      commands.run('-c', f'import os, sys\n{end}', anew=anew) for anew in (True, False)
    )
    assert (status, out, err.splitlines()[-1:]) == (*forked[:2], forked[2].splitlines()[-1:])


@pytest.mark.slow
def test_a_program_is_waited_for_and_killed(tmp_path):
  code = "import signal, time; print('ready', flush=True); time.sleep(600)"
  process = commands.start(tmp_path / 'log', '-c', code, anew=False)
  while 'ready' not in (tmp_path / 'log').read_text():
    assert process.poll() is None
  other = commands.start(tmp_path / 'other', '-m', 'lm.budget', '--help', anew=False)
  assert other.wait() == 0 and 'python -m lm.budget' in (tmp_path / 'other').read_text()
  os.kill(process.pid, signal.SIGTERM)
  assert process.wait() == process.poll() == -signal.SIGTERM
  process.kill()  # the number may be another's by now


@pytest.mark.slow
def test_jax_is_imported_and_has_no_devices_yet():
  code = "import sys; assert 'jax' in sys.modules; import jax; print(jax.device_count())"
  flags = f'{commands.ENVIRONMENT["XLA_FLAGS"]} --xla_force_host_platform_device_count=3'
  assert commands.run('-c', code, anew=False, XLA_FLAGS=flags) == (0, '3\n', '')
  # Where what is read early differs, an interpreter is started.
  status, _, err = commands.run('-c', code, anew=False, JAX_ENABLE_X64='1')
  assert status == 1 and 'AssertionError' in err


@pytest.mark.slow
def test_a_program_has_the_variables_that_imports_set():
  code = "import os, train, lm.base.buckets; print(os.environ['EPATH_USE_TF'])"
  for given, found in ({}, 'false'), ({'EPATH_USE_TF': 'true'}, 'true'):
    assert [commands.run('-c', code, anew=anew, **given)[1] for anew in (True, False)] == [
      f'{found}\n'
    ] * 2
