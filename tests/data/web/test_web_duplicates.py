"""Duplicates over several tasks: the same as in one process, and the same as datatrove's own four
steps find.
"""

import json
from collections import Counter

import numpy as np
import pytest
from datatrove.data import Document
from datatrove.io import DataFolder
from datatrove.pipeline.dedup.minhash import (
  MinhashConfig,
  MinhashDedupBuckets,
  MinhashDedupCluster,
  MinhashDedupFilter,
  MinhashDedupSignature,
)
from datatrove.utils.hashing import HashConfig
from web import article

from data.web import minhash
from data.web.duplicates import SIZES, Clusters, Signatures, pairs
from data.web.filtering import Context

TASKS = 3


@pytest.fixture(scope='module')
def pages():
  """Families of a text and copies with more and more of its sentences changed, some of them exact;
  shuffled.
  """
  found = []
  for family in range(25):
    base = article(family, 40)
    for changed in (0, 0, 1, 2, 4, 8, 16, 30):
      copy = list(base)
      copy[:changed] = article(1000 * family + changed + 100, changed)
      found.append('\n'.join([*copy, 'One more line.'] if changed == 2 else copy))
  np.random.default_rng(0).shuffle(found)
  return found


def documents(pages, task):
  return [
    Document(text, f'{task}-{i}', metadata={'url': f'http://h/{task}/{i}'})
    for i, text in enumerate(pages[task::TASKS])
  ]


def choices(pages, folder, similarity=0.0):
  """{text: what `Clusters` says of it, None if it stays}, clusters by text; of pages spread over
  three tasks.
  """
  context, folder = Context(DataFolder(f'{folder}/pages'), True, 0), DataFolder(str(folder))
  for task in range(TASKS):
    step = Signatures('signatures', context, folder, 14, 8, 5, bool(similarity))
    passed = list(step.run(documents(pages, task), task, TASKS))
    assert [document.text for document in passed] == pages[task::TASKS]
  for band in range(15):
    pairs(folder, 14, 8).run(None, band, 15)
  Clusters(folder, TASKS, similarity).run()
  drop, cluster = [None] * len(pages), [None] * len(pages)
  for task in range(TASKS):
    choice = json.loads(folder.cat_file(f'choice/{task:05d}.json'))
    for place, rule in choice['drop'].items():
      drop[task + TASKS * int(place)] = rule
    for place, name in choice['cluster'].items():
      cluster[task + TASKS * int(place)] = name
  return drop, cluster


def groups(names):
  """The partition that equal names make."""
  found = {}
  for i, name in enumerate(names):
    found.setdefault(name, set()).add(i)
  return {frozenset(members) for members in found.values()}


def test_tasks_find_what_one_process_finds(pages, tmp_path):
  drop, cluster = choices(pages, tmp_path, 0.5)
  hashes = [minhash.shingles(text) for text in pages]
  signatures = np.array([minhash.signature(h) for h in hashes])
  exact = [[i, pages.index(text)] for i, text in enumerate(pages)]
  component = minhash.components(
    len(pages), [*minhash.candidates(signatures, minhash.ROWS), *exact]
  )
  sizes = Counter(n for n in Counter(component).values() if n > 1)
  assert (
    json.loads((tmp_path / SIZES).read_text()) == {str(size): n for size, n in sizes.items()}
    and len(sizes) > 1
  )
  kept = [i for i, rule in enumerate(drop) if rule is None]
  assert (
    len(kept) == len(set(component)) == len({component[i] for i in kept}) and 60 < len(kept) < 120
  )
  for i in kept:
    assert len(pages[i]) == max(
      len(pages[j]) for j in range(len(pages)) if component[j] == component[i]
    )
  for i, rule in enumerate(drop):
    if rule:
      task, place = map(int, rule[1].removeprefix('of http://h/').split('/'))
      original = task + TASKS * place
      assert component[original] == component[i] and original != i
      assert (rule[0] == 'exact_duplicate') == (pages[original] == pages[i])
  assert sum(rule is not None and rule[0] == 'exact_duplicate' for rule in drop) == len(
    pages
  ) - len(set(pages))
  assert groups(cluster) == groups(minhash.clusters(hashes, signatures, 0.5))


@pytest.mark.slow
def test_datatroves_own_steps_agree_but_for_chance(pages, tmp_path):
  """Both draw 112 random hashes: sure pairs fall to both, far ones to neither, and about as many in
  between.
  """
  config = MinhashConfig(num_buckets=14, hashes_per_bucket=8, hash_config=HashConfig(64, 'sha1'))
  names = [str(tmp_path / name) for name in ('signatures', 'buckets', 'remove')]
  for task in range(TASKS):
    MinhashDedupSignature(names[0], config).run(documents(pages, task), task, TASKS)
  for band in range(14):
    MinhashDedupBuckets(names[0], names[1], config=config).run(None, band, 14)
  MinhashDedupCluster(names[1], names[2], config).run(None, 0, 1)
  theirs = {
    d.id
    for task in range(TASKS)
    for d in MinhashDedupFilter(names[2]).run(documents(pages, task), task, TASKS)
  }
  drop, _ = choices(pages, tmp_path / 'ours')
  ours = {f'{i % TASKS}-{i // TASKS}' for i, rule in enumerate(drop) if rule is None}
  assert abs(len(theirs) - len(ours)) < 0.05 * len(pages)
  hashes = [minhash.shingles(text) for text in pages]
  for i, own in enumerate(hashes):
    nearest = max(minhash.jaccard(own, other) for j, other in enumerate(hashes) if j != i)
    if nearest < 0.3:
      assert f'{i % TASKS}-{i // TASKS}' in ours & theirs
  assert len({pages[int(name[0]) + TASKS * int(name[2:])] for name in theirs}) == len(theirs)
