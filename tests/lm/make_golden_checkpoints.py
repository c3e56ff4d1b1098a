"""Makes tests/lm/golden/checkpoints/: runs of train.py killed after their third update.

    python tests/lm/make_golden_checkpoints.py [VARIANT ...]

They were made at the git tag house-moved and are not to be made again: later versions have to read
them as they are (tests/lm/test_golden_checkpoints.py). A new format gets new variants beside them.

    text.txt                          what the runs are trained on
    VARIANT/checkpoints/3, tokenizer  what a run leaves behind that is killed after its third update
    VARIANT/expected.json
        arrays   sha256 of the bits of each array of step 3, read with Orbax alone
        losses   train/loss of updates 4 and 5, on one CPU device
"""

import hashlib
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

import jax
import numpy as np
import orbax.checkpoint as ocp

ROOT = pathlib.Path(__file__).parents[2]
FOLDER = ROOT / 'tests' / 'lm' / 'golden' / 'checkpoints'
VARIANTS = ('adamw', 'muon')


def command(variant: str, workdir: pathlib.Path) -> list[str]:
  """The arguments of Python that train a variant, in the root of the repository."""
  config = (FOLDER / 'config.py').relative_to(ROOT)
  return ['train.py', f'--config={config}:{variant}', f'--workdir={workdir}']


def losses(workdir: pathlib.Path) -> dict[str, float]:
  """The train/loss of each update that a run has logged."""
  lines = map(json.loads, (workdir / 'metrics.jsonl').read_text().splitlines())
  return {str(line['step']): line['train/loss'] for line in lines if 'train/loss' in line}


def digests(item: pathlib.Path) -> dict[str, str]:
  """The sha256 of the bits of each array of one part of a checkpoint, by its name."""
  handler = ocp.PyTreeCheckpointHandler()
  tree = handler.metadata(item).tree
  plain = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
  arrays = handler.restore(item, args=ocp.args.PyTreeRestore(tree, restore_args=plain))
  return {
    jax.tree_util.keystr(path, simple=True, separator='/'): hashlib.sha256(x.tobytes()).hexdigest()
    for path, x in jax.tree_util.tree_leaves_with_path(arrays)
  }


def main() -> None:
  text = 'the cat sat on the mat and the dog lay on the rug. ' * 20
  (FOLDER / 'text.txt').write_text(text)
  for variant in sys.argv[1:] or VARIANTS:
    folder = FOLDER / variant
    shutil.rmtree(folder, ignore_errors=True)
    with tempfile.TemporaryDirectory() as made:
      run = pathlib.Path(made)
      subprocess.run([sys.executable, *command(variant, run)], cwd=ROOT, check=True)
      shutil.copytree(run / 'checkpoints' / '3', folder / 'checkpoints' / '3')
      shutil.copytree(run / 'tokenizer', folder / 'tokenizer')
      later = {step: loss for step, loss in losses(run).items() if int(step) > 3}
    step = folder / 'checkpoints' / '3'
    arrays = {item: digests(step / item) for item in ('params', 'state')}
    expected = {'arrays': arrays, 'losses': later}
    (folder / 'expected.json').write_text(json.dumps(expected, indent=1, sort_keys=True) + '\n')
    size = sum(p.stat().st_size for p in folder.rglob('*') if p.is_file())
    print(f'{variant}: {size / 1000:.0f} kB, losses {later}')


if __name__ == '__main__':
  main()
