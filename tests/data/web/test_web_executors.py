"""The same pipeline by Ray and by Slurm: a real Ray head on loopback, and a stand-in for sbatch
that runs the scripts.
"""

import json
import os
import re
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import time

import pytest
from commands import run
from web import COMMAND, documents_of, settings

from data.web.clean import clean

SBATCH = r"""#!{python}
import os, pathlib, re, subprocess, sys
folder = pathlib.Path({folder!r})
script = pathlib.Path(sys.argv[-1]).read_text()
number = len(list(folder.glob('*.job'))) + 1
(folder / f'{{number}}.job').write_text(' '.join(sys.argv[1:-1]) + '\n' + script)
if 'launch_pickled_pipeline' in script:
  for index in range(int(re.search(r'--array=0-(\d+)', script)[1]) + 1):
    environment = os.environ | {{'SLURM_ARRAY_TASK_ID': str(index), 'SLURM_NODELIST': 'localhost', 'RUN_OFFSET': '0'}}
    subprocess.run(['bash', '-c', script], env=environment, check=True, stdout=sys.stderr)
print('Submitted batch job', number)
"""


def program(path, text):
  path.write_text(text)
  path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.mark.slow
def test_slurm(corpus, tmp_path_factory):
  folder = tmp_path_factory.mktemp('slurm')
  program(folder / 'sbatch', SBATCH.format(python=sys.executable, folder=str(folder)))
  program(folder / 'srun', '#!/bin/bash\nwhile [[ $1 != launch* ]]; do shift; done\nexec "$@"\n')
  program(folder / 'scontrol', '#!/bin/bash\necho localhost\n')
  options = [*COMMAND, f'--input={corpus}', f'--out={corpus}/out', '--executor=slurm', '--tasks=2', '--workers=7',
             '--config.minhash.bands=2', '--config.slurm.partition=cpu', '--config.memory_gb=3']  # fmt: skip
  status, out, err = run(*options, PATH=f'{folder}:{os.environ["PATH"]}')
  assert status == 0 and out.startswith('submitted'), err
  jobs = {}
  for path in sorted(folder.glob('*.job'), key=lambda path: int(path.stem)):
    arguments, script = path.read_text().split('\n', 1)
    if 'launch_pickled_pipeline' in script:
      jobs[re.search('--job-name=(.*)', script)[1]] = (int(path.stem), arguments, script)
  assert list(jobs) == ['filter', 'pairs', 'clusters', 'finish', 'report']
  assert (
    '#SBATCH --array=0-1%7\n' in jobs['filter'][2] and '#SBATCH --array=0-2%7\n' in jobs['pairs'][2]
  )
  assert (
    '#SBATCH --partition=cpu\n' in jobs['filter'][2]
    and '#SBATCH --mem-per-cpu=3G\n' in jobs['filter'][2]
  )
  for before, after in zip(list(jobs), list(jobs)[1:], strict=False):
    assert f'--dependency=afterok:{jobs[before][0]}' in jobs[after][1]
  whole = clean(corpus, corpus / 'whole', smoke(bands=2), tasks=2)
  assert sorted(map(json.dumps, documents_of(corpus / 'out'))) == sorted(
    map(json.dumps, documents_of(corpus / 'whole'))
  )
  assert json.loads((corpus / 'out/report.json').read_text())['drops'] == whole['drops']
  count = len(list(folder.glob('*.job')))
  status, out, err = run(*options, PATH=f'{folder}:{os.environ["PATH"]}')
  assert status == 0 and 'pages out' in out and len(list(folder.glob('*.job'))) == count, err


def smoke(bands):
  """The settings of COMMAND."""
  config = settings(minhash={'bands': bands})
  config.update(gopher_quality={'min_words': 20}, c4={'min_sentences': 1})
  return config


@pytest.mark.slow
def test_ray(corpus, tmp_path):
  pytest.importorskip('ray')
  short = tempfile.mkdtemp(prefix='ray')  # for paths of sockets, of 107 characters at most
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    port = free.getsockname()[1]
  head = [os.path.join(os.path.dirname(sys.executable), 'ray'), 'start', '--head', '--block', f'--port={port}', '--num-cpus=2',
          '--node-ip-address=127.0.0.1', '--include-dashboard=false', '--disable-usage-stats',
          f'--temp-dir={short}', f'--memory={8 << 30}', f'--object-store-memory={100 << 20}']  # fmt: skip
  options = [*COMMAND, f'--input={corpus}', f'--out={corpus}/out', '--executor=ray', '--tasks=2', '--workers=2',
             '--config.minhash.bands=2', f'--config.ray_address=127.0.0.1:{port}', '--config.memory_gb=1']  # fmt: skip
  with (
    open(tmp_path / 'log', 'w') as log,
    subprocess.Popen(head, stdout=log, stderr=log) as process,
  ):
    try:
      wait_for(port, process)
      status, out, err = run(*options)
      assert status == 0 and 'pages out' in out, err
    finally:
      process.terminate()  # the head ends what it started
      process.wait()
      shutil.rmtree(short, ignore_errors=True)
  clean(corpus, corpus / 'whole', smoke(bands=2), tasks=2)
  assert sorted(map(json.dumps, documents_of(corpus / 'out'))) == sorted(
    map(json.dumps, documents_of(corpus / 'whole'))
  )
  status, _, err = run(*options[:-1], f'--out={corpus}/new')
  assert status == 1 and f"config.ray_address is '127.0.0.1:{port}'" in err


def wait_for(port, process):
  """Returns when something answers at the port. Fails if the Ray head ends before."""
  while True:
    assert process.poll() is None, 'the Ray head has ended'
    with socket.socket() as probe:
      if probe.connect_ex(('127.0.0.1', port)) == 0:
        return
    time.sleep(0.1)
