"""The cleaning stage: WARC files in, `documents.jsonl` and `report.json` out, every page accounted
for.
"""

import contextlib
import functools
import json

from datatrove.io import DataFolder
from ml_collections import ConfigDict

from data.web import blocks, classifier, duplicates, inputs, personal, report, rules
from data.web.classifier import Classifier
from data.web.decontaminate import Items, item_files
from data.web.executors import EXECUTORS, Stage
from data.web.extract import EXTRACTORS
from data.web.read import warc_files
from data.web.words import WORDS
from lm.base import config as config_lib
from lm.base import errors, files
from lm.base.errors import UserError

PLACES = ('memory_gb', 'ray_address', 'slurm')  # fields that do not change the outcome


def pipeline(
  config: ConfigDict, paths: list[str], out: DataFolder, tasks: int, settings: dict
) -> list[Stage]:
  """The whole of the cleaning, by `config` (configs/data/fineweb.py), of the WARC files at `paths`
  into `out`.

  Order: readable HTML -> URL lists -> text -> language -> repeated passages -> Gopher repetition ->
    Gopher quality ->
  C4 -> FineWeb rules -> quality classifier -> evaluation items -> personal data -> exact and
  near-duplicates (Penedo et al. 2024, arXiv 2406.17557; the passages and the evaluation items are
  ours). The classifier scores texts as the rules leave them, and before the duplicates, so that no
  page that it drops is the one kept of several. Personal data is hidden before the first file with
  texts is written; FineWeb does so last.
  """
  pages, work, filtered = (
    DataFolder(f'{out.path}/{name}', out.fs) for name in ('pages', 'work', 'work/filtered')
  )
  c, minhash, item_globs = config, config.minhash, config_lib.names(config.decontaminate)
  context = blocks.Context(pages, c.pii, c.step_seconds)
  items = (
    Items(item_globs, c.decontaminate_ngram, c.decontaminate_min_words) if item_globs else None
  )
  quality = Classifier(c.quality.model, c.quality.label) if c.quality.model else None
  cut = functools.partial(rules.c4_lines, **c.c4_lines)
  steps = [
    blocks.ReadWarc(paths, c.max_page_bytes),
    blocks.Usable('usable', context, c.max_page_bytes),
    *([blocks.UrlLists('url_lists', context, c.url_soft_words)] if c.url_lists else []),
    blocks.Extract('extract', context, c.extractor),
    blocks.Language('language', context, dict(c.languages)),
    *(
      [blocks.CutPassages('passages', context, c.passage_lines, c.max_passage_share)]
      if c.passage_lines
      else []
    ),
    blocks.Quality(
      'gopher_repetition',
      context,
      rules.gopher_repetition,
      dict(c.gopher_repetition, words=c.words),
    ),
    blocks.Quality(
      'gopher_quality', context, rules.gopher_quality, dict(c.gopher_quality, words=c.words)
    ),
    blocks.Quality('c4', context, rules.c4, dict(c.c4), cut),
    blocks.Quality('fineweb', context, rules.fineweb, dict(c.fineweb, words=c.words)),
    *(
      [blocks.Quality('quality', context, quality.check, {'min_score': c.quality.min_score})]
      if quality
      else []
    ),
    *([blocks.Decontaminate('decontaminate', context, items)] if items else []),
    *([blocks.Pii('pii', context)] if c.pii else []),
    duplicates.Signatures(
      'signatures',
      context,
      work,
      minhash.bands,
      minhash.rows,
      minhash.ngram,
      bool(c.cluster_similarity),
    ),
    blocks.WriteLines(filtered),
  ]
  finish = [
    blocks.ReadLines(filtered),
    duplicates.Unique('duplicates', context, work),
    blocks.WriteDocuments(out, context),
  ]
  return [
    Stage('filter', steps, tasks),
    Stage('pairs', [duplicates.pairs(work, minhash.bands, minhash.rows)], minhash.bands + 1),
    Stage('clusters', [duplicates.Clusters(work, tasks, c.cluster_similarity)], 1),
    Stage('finish', finish, tasks),
    Stage(
      'report',
      [report.WriteReport(out, ['filter', 'finish'], tasks, settings, _coverage(items, c.pii))],
      1,
    ),
  ]


def _coverage(items: Items | None, pii: bool) -> dict:
  """What the report tells of the evaluation items."""
  if not items:
    return {}
  hidden = [personal.hide(place) if pii else place for place in items.coverage['not_sought']]
  return items.coverage | {'not_sought': hidden}


def clean(
  source: files.Path,
  out: files.Path,
  config: ConfigDict,
  *,
  executor: str = 'local',
  tasks: int = 1,
  workers: int = 1,
) -> dict | None:
  """Cleans the pages of WARC files into documents; goes on with a run that was interrupted.

  Args:
    source: a folder with WARC files, or a glob; any path that fsspec knows.
    out: folder for the outcome; any path that fsspec knows.
      documents.jsonl   {id, text, metadata {url, title, language, language_score, cluster}} a line, or with several
                        tasks documents-*-of-*.jsonl.gz: `documents*.jsonl*` in either case
      pages/            a line for each page: the rule and the figure that dropped it, or the figures that kept it
      report.html       what happened to the pages, to read
      report.json       the same, written last
    config: as of configs/data/fineweb.py.
    executor: what runs the tasks: local, ray or slurm.
    tasks: parts that the WARC files are spread over.
    workers: tasks at one time.

  Returns:
    The report: pages_in, pages_out, bytes_in (bodies), bytes_out (UTF-8 text), drops {rule: n},
    examples {rule: [{url, text, detail}]}, languages, domains {name: n}, duplicate_clusters {size:
    n}, statistics {name: {edges, counts, low, high}}, steps [{step, pages_in, pages_out, bytes_in,
    bytes_out, drops, dropped_bytes, seconds}], seconds, settings, documents, decontamination
    {items, by_ngrams, whole, too_short (texts), items_not_sought, not_sought [places]}, {} if it is
    off. pages_in = pages_out + sum(drops). None of Slurm, which goes on by itself.

  Raises:
    UserError: no WARC file, evaluation items or a classifier that cannot be read, a value that is
      not allowed, nothing left, or `out` holds a run of other settings or is being written by
      another process.
  """
  if executor not in EXECUTORS:
    raise errors.unknown('executor', executor, EXECUTORS)
  if config.extractor not in EXTRACTORS:
    raise errors.unknown('config.extractor', config.extractor, EXTRACTORS)
  if config.words not in WORDS:
    raise errors.unknown('config.words', config.words, WORDS)
  if config.step_seconds < 0:
    raise UserError(
      f'config.step_seconds={config.step_seconds:g} must be positive, or 0 for no limit'
    )
  if config.max_page_bytes < 1:
    raise UserError(f'config.max_page_bytes={config.max_page_bytes} must be positive')
  if tasks < 1 or workers < 1:
    raise UserError(f'tasks={tasks} and workers={workers} must be positive')
  folder, warcs = inputs.folder(out), warc_files(source)
  settings = {
    name: value for name, value in config_lib.as_json(config).items() if name not in PLACES
  }
  run = {
    'settings': settings, 'tasks': tasks, 'inputs': warcs, 'items': item_files(config_lib.names(config.decontaminate)),
    'classifier': classifier.digest(config.quality.model) if config.quality.model else '',
  }  # fmt: skip
  stages = pipeline(config, [path for path, _ in warcs], folder, tasks, settings)
  with files.locked(folder.path) if folder.is_local() else contextlib.nullcontext():
    _claim(folder, run)
    if not folder.isfile('report.json'):
      EXECUTORS[executor](stages, folder, config, workers)
      if executor == 'slurm':
        return None
  found = json.loads(folder.cat_file('report.json'))
  if not found['pages_out']:
    worst = ', '.join(f'{rule} {n}' for rule, n in list(found['drops'].items())[:4])
    raise UserError(
      f'{source}: no document left of {found["pages_in"]} pages; most were dropped by: '
      f'{worst or "nothing"}'
    )
  return found


def _claim(folder: DataFolder, run: dict) -> None:
  """Notes in run.json what the folder holds. Raises UserError if that is another run: outputs would
  mix.
  """
  if not folder.isfile('run.json'):
    blocks.write_json(folder, 'run.json', run)
    return
  stored = json.loads(folder.cat_file('run.json'))
  if found := files.difference(stored, run):
    where = folder.resolve_paths('')
    raise UserError(
      f'{where} holds a run whose {found[0]} is {found[1]!r}, not {found[2]!r}: give another --out'
    )
