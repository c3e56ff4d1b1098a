"""Finds duplicates across the tasks of a run: signatures, pairs of each band, clusters, removal.

These are datatrove's four steps. Signatures and removal run together with the steps before and
after them. datatrove's own block finds the pairs in sorted signature files. The text's digest is
one more band, so that exact duplicates are found in the same way.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator

import numpy as np
from datatrove.data import Document
from datatrove.io import DataFolder
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupBuckets
from datatrove.utils.hashing import HashConfig

from data.web import minhash, rules
from data.web.filtering import Context, Documents, Filter
from data.web.line_files import open_lines, read_lines, shard, write_json

SPARE_BITS = np.uint64(4)  # datatrove's hashes are below 2^61 - 1
CLUSTER_HASHES = minhash.BANDS * minhash.ROWS
SIZES = 'sizes.json'


class Signatures(Filter):
  """Writes the task's sorted signatures, one file for each band; drops no page.

  It also writes an index of the pages, from which `Clusters` chooses the page to keep.
  """

  def __init__(
    self,
    name: str,
    context: Context,
    folder: DataFolder,
    bands: int,
    rows: int,
    ngram: int,
    clusters: bool,
  ):
    super().__init__(name, context)
    self.folder, self.bands, self.rows = folder, bands, rows
    self.ngram, self.clusters = ngram, clusters

  def run(self, data: Documents, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
    self.signatures, self.shingles = [], []
    with open_lines(self.folder, f'index/{shard(rank)}') as self.append:
      yield from super().run(data, rank, world_size)
    with self.track_time():
      self._write(rank)

  def judge(self, document: Document) -> rules.Verdict:
    digest = minhash.digest(document.text)
    hashes = minhash.shingles(document.text, self.ngram)
    exact = np.zeros(max(self.rows, 4), np.uint64)
    exact[:4] = np.frombuffer(bytes.fromhex(digest), np.uint64)
    near = minhash.signature(hashes, self.bands * self.rows)
    self.signatures.append(np.concatenate([near, exact[: self.rows]]) >> SPARE_BITS)
    if self.clusters:
      self.shingles.append(hashes)
    page = {'id': document.id, 'url': document.metadata['url'], 'chars': len(document.text)}
    self.append(page | {'digest': digest})
    return None

  def _write(self, rank: int) -> None:
    signatures = np.array(self.signatures, '<u8').reshape(
      len(self.signatures), self.bands + 1, self.rows
    )
    for band in range(self.bands + 1):
      own = signatures[:, band]
      order = np.lexsort(own.T[::-1])
      lines = np.empty(len(own), [('hashes', '<u8', (self.rows,)), ('index', '<u4')])
      lines['hashes'], lines['index'] = own[order], order
      with self.folder.open(f'bands/bucket_{band:03d}/{rank:05d}.minhash.sig', 'wb') as file:
        file.write(lines.tobytes())
    if self.clusters:
      with self.folder.open(f'shingles/{rank:05d}.npz', 'wb') as file:
        hashes = np.concatenate([np.empty(0, np.uint64), *self.shingles])
        np.savez(file, hashes=hashes, counts=[len(h) for h in self.shingles])


def pairs(folder: DataFolder, bands: int, rows: int) -> MinhashDedupBuckets:
  """Returns datatrove's search for equal signatures, with one task for each band."""
  config = MinhashConfig(
    num_buckets=bands + 1, hashes_per_bucket=rows, hash_config=HashConfig(64, 'sha1')
  )
  signatures = DataFolder(f'{folder.path}/bands', folder.fs)
  found = DataFolder(f'{folder.path}/pairs', folder.fs)
  return MinhashDedupBuckets(signatures, found, config=config, lines_to_buffer=1000)


class Clusters(PipelineStep):
  """Chooses the longest page of each group of duplicates and names the clusters, in one task.

  It writes {drop: {place: [rule, detail]}, cluster: {place: name}} for each task of the phase
  before, and {pages in a group: number of groups} once.
  """

  type, name = 'duplicates', 'clusters'

  def __init__(self, folder: DataFolder, tasks: int, similarity: float):
    super().__init__()
    self.folder, self.tasks, self.similarity = folder, tasks, similarity

  def run(self, data=None, rank: int = 0, world_size: int = 1) -> None:
    with self.track_time():
      found = [
        np.frombuffer(self.folder.cat_file(name), '<u4') for name in self.folder.list_files('pairs')
      ]
      found = np.concatenate([np.empty(0, np.uint32), *found]).reshape(-1, 2).astype(np.uint64)
      nodes, edges = np.unique(found[:, 0] << np.uint64(32) | found[:, 1], return_inverse=True)
      group = minhash.components(len(nodes), edges.reshape(-1, 2))
      tasks, places = nodes >> np.uint64(32), nodes & np.uint64(0xFFFFFFFF)
      index = self._index(set(zip(tasks.tolist(), places.tolist(), strict=True)))
      drop, cluster = defaultdict(dict), defaultdict(dict)
      members = defaultdict(list)
      for place, first in zip(sorted(index), group, strict=True):
        members[first].append(place)
      sizes = Counter(map(len, members.values()))
      write_json(self.folder, SIZES, dict(sorted(sizes.items())))
      for places in members.values():
        self._choose({place: index[place] for place in places}, drop)
      if self.similarity:
        self._name(cluster)
      for task in range(self.tasks):
        with self.folder.open(f'choice/{task:05d}.json', 'w') as file:
          json.dump({'drop': drop[task], 'cluster': cluster[task]}, file)

  def _index(self, places: set[tuple[int, int]] | None = None) -> dict[tuple[int, int], dict]:
    """Returns {(task, place): {id, url, chars, digest}} of the given places, or of all."""
    tasks = range(self.tasks) if places is None else sorted({task for task, _ in places})
    index = {}
    for task in tasks:
      for i, line in enumerate(read_lines(self.folder, f'index/{shard(task)}')):
        if places is None or (task, i) in places:
          index[task, i] = line
    return index

  def _choose(self, pages: dict[tuple[int, int], dict], drop: dict[int, dict]) -> None:
    """Adds to `drop` all pages of a group but the one to keep."""
    places = sorted(pages, key=lambda place: _rank(pages[place]))
    first = {}
    for task, place in places:
      page = (task, place)
      original = first.setdefault(pages[page]['digest'], page)
      if page == places[0]:
        continue
      if original == page:
        drop[task][place] = ('near_duplicate', f'of {pages[places[0]]["url"]}')
      else:
        drop[task][place] = ('exact_duplicate', f'of {pages[original]["url"]}')

  def _name(self, cluster: dict[int, dict]) -> None:
    """Names each page's cluster after its longest page; texts of a cluster are similar."""
    pages, hashes = self._index(), []
    for task in range(self.tasks):
      with self.folder.open(f'shingles/{task:05d}.npz', 'rb') as file, np.load(file) as saved:
        if len(saved['counts']):
          hashes += np.split(saved['hashes'], np.cumsum(saved['counts'])[:-1])
    places = list(pages)
    order = sorted(range(len(places)), key=lambda i: _rank(pages[places[i]]))
    hashes = [hashes[i] for i in order]
    signatures = np.array([minhash.signature(h, CLUSTER_HASHES) for h in hashes])
    signatures = signatures.reshape(-1, CLUSTER_HASHES)
    for i, first in enumerate(minhash.clusters(hashes, signatures, self.similarity)):
      task, place = places[order[i]]
      cluster[task][place] = pages[places[order[first]]]['digest'][:16]


def _rank(page: dict) -> tuple:
  """Returns a sort key that puts the longest page first.

  The rest of the key makes the order independent of how the pages are divided into tasks.
  """
  return -page['chars'], page['digest'], page['url'], page['id']


class Unique(Filter):
  """Drops the duplicates that `Clusters` did not choose; sets metadata.cluster of the others."""

  def __init__(self, name: str, context: Context, folder: DataFolder):
    super().__init__(name, context)
    self.folder = folder

  def run(self, data: Documents, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
    with self.folder.open(f'choice/{rank:05d}.json', 'r') as file:
      self.choice = json.load(file)
    self.place = 0
    yield from super().run(data, rank, world_size)

  def judge(self, document: Document) -> rules.Verdict:
    place, self.place = str(self.place), self.place + 1
    cluster = self.choice['cluster'].get(place) or minhash.digest(document.text)[:16]
    document.metadata['cluster'] = cluster
    found = self.choice['drop'].get(place)
    return tuple(found) if found else None
