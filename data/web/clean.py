"""Cleans WARC files into documents and a report that accounts for every page."""

import contextlib
import functools
import json

from datatrove.io import DataFolder
from ml_collections import ConfigDict

from data.web import blocks, classifier, duplicates, inputs, personal, report, rules
from data.web.classifier import Classifier
from data.web.decontaminate import Items, item_files
from data.web.executors import EXECUTORS, Phase
from data.web.extract import EXTRACTORS
from data.web.filtering import Context
from data.web.line_files import write_json
from data.web.read import warc_files
from data.web.words import WORDS
from lm.base import config as config_lib
from lm.base import errors, files
from lm.base.errors import UserError

PLACES = ('memory_gb', 'ray_address', 'slurm')  # fields that do not change the output


def pipeline(
  config: ConfigDict, paths: list[str], out: DataFolder, tasks: int, settings: dict
) -> list[Phase]:
  """Returns the phases that clean the WARC files at `paths` into `out`, by `config`.

  The order is: readable HTML -> URL lists -> text -> language -> repeated passages -> Gopher
  repetition -> Gopher quality -> C4 -> FineWeb rules -> quality classifier -> evaluation items ->
  personal data -> exact and near-duplicates (Penedo et al. 2024, arXiv 2406.17557). The steps for
  passages and evaluation items are not FineWeb's. The classifier scores texts as the rules leave
  them. It comes before the duplicates, so that the page that is kept of several is never one that
  it drops. Personal data is hidden before the first file with texts is written; FineWeb does so
  last.
  """
  pages = DataFolder(f'{out.path}/pages', out.fs)
  work = DataFolder(f'{out.path}/work', out.fs)
  filtered = DataFolder(f'{out.path}/work/filtered', out.fs)
  c, minhash, item_globs = config, config.minhash, config_lib.names(config.decontaminate)
  context = Context(pages, c.pii, c.step_seconds)

  steps = [
    blocks.ReadWarc(paths, c.max_page_bytes),
    blocks.Usable('usable', context, c.max_page_bytes),
  ]
  if c.url_lists:
    steps.append(blocks.UrlLists('url_lists', context, c.url_soft_words))
  steps += [
    blocks.Extract('extract', context, c.extractor),
    blocks.Language('language', context, dict(c.languages)),
  ]
  if c.passage_lines:
    steps.append(blocks.CutPassages('passages', context, c.passage_lines, c.max_passage_share))

  repetition = dict(c.gopher_repetition, words=c.words)
  steps.append(blocks.Quality('gopher_repetition', context, rules.gopher_repetition, repetition))
  quality = dict(c.gopher_quality, words=c.words)
  steps.append(blocks.Quality('gopher_quality', context, rules.gopher_quality, quality))
  cut = functools.partial(rules.c4_lines, **c.c4_lines)
  steps.append(blocks.Quality('c4', context, rules.c4, dict(c.c4), cut))
  steps.append(blocks.Quality('fineweb', context, rules.fineweb, dict(c.fineweb, words=c.words)))
  if c.quality.model:
    scorer = Classifier(c.quality.model, c.quality.label)
    bounds = {'min_score': c.quality.min_score}
    steps.append(blocks.Quality('quality', context, scorer.check, bounds))

  coverage = {}
  if item_globs:
    items = Items(item_globs, c.decontaminate_ngram, c.decontaminate_min_words)
    coverage = _coverage(items, c.pii)
    steps.append(blocks.Decontaminate('decontaminate', context, items))
  if c.pii:
    steps.append(blocks.Pii('pii', context))
  signatures = duplicates.Signatures(
    'signatures',
    context,
    work,
    bands=minhash.bands,
    rows=minhash.rows,
    ngram=minhash.ngram,
    clusters=bool(c.cluster_similarity),
  )
  steps += [signatures, blocks.WriteLines(filtered)]

  finish = [
    blocks.ReadLines(filtered),
    duplicates.Unique('duplicates', context, work),
    blocks.WriteDocuments(out, context),
  ]
  summary = report.WriteReport(
    out,
    phases=['filter', 'finish'],
    tasks=tasks,
    settings=settings,
    decontamination=coverage,
  )
  return [
    Phase('filter', steps, tasks),
    Phase('pairs', [duplicates.pairs(work, minhash.bands, minhash.rows)], minhash.bands + 1),
    Phase('clusters', [duplicates.Clusters(work, tasks, c.cluster_similarity)], 1),
    Phase('finish', finish, tasks),
    Phase('report', [summary], 1),
  ]


def _coverage(items: Items, pii: bool) -> dict:
  """Returns what the report says about the evaluation items, with personal data hidden."""
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
  """Cleans the pages of WARC files into documents, or continues an interrupted run.

  Args:
    source: a folder with WARC files, or a glob, local or remote.
    out: output folder, local or remote. It will contain:
      documents.jsonl: {id, text, metadata {url, title, language, language_score, cluster}} on each
      line. With several tasks the files are documents-*-of-*.jsonl.gz; `documents*.jsonl*` matches
      both.
      pages/: one line for each page, with the rule and the figure that dropped it, or the figures
        that kept it.
      report.html: what happened to the pages, for people.
      report.json: the same for programs, written last.
    config: settings as in configs/data/fineweb.py.
    executor: what runs the tasks: local, ray or slurm.
    tasks: number of parts that the WARC files are divided into.
    workers: number of tasks that run at the same time.

  Returns:
    The report: pages_in, pages_out, bytes_in (bodies), bytes_out (UTF-8 text), drops {rule: n},
      examples {rule: [{url, text, detail}]}, languages, domains {name: n}, duplicate_clusters
      {size: n}, statistics {name: {edges, counts, low, high}}, steps [{step, pages_in, pages_out,
      bytes_in, bytes_out, drops, dropped_bytes, seconds}], seconds, settings, documents,
      decontamination {items, by_ngrams, whole, too_short (texts), items_not_sought, not_sought
      [places]} or {} if it is off. pages_in = pages_out + sum(drops). The result is None with
      Slurm, whose jobs are only submitted.

  Raises:
    UserError: there is no WARC file, evaluation items or a classifier cannot be read, a value is
      not allowed, no page is left, or `out` holds a run with other settings or is being written by
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
      field='config.step_seconds',
      value=config.step_seconds,
      allowed='above 0, or 0 for no limit',
    )
  numbers = {'config.max_page_bytes': config.max_page_bytes, 'tasks': tasks, 'workers': workers}
  for field, number in numbers.items():
    if number < 1:
      raise UserError(field=field, value=number, allowed='at least 1')
  folder, warcs = inputs.folder(out), warc_files(source)
  fields = config_lib.as_json(config)
  settings = {name: value for name, value in fields.items() if name not in PLACES}
  run = {
    'settings': settings,
    'tasks': tasks,
    'inputs': warcs,
    'items': item_files(config_lib.names(config.decontaminate)),
    'classifier': classifier.digest(config.quality.model) if config.quality.model else '',
  }
  phases = pipeline(config, [path for path, _ in warcs], folder, tasks, settings)
  with files.locked(folder.path) if folder.is_local() else contextlib.nullcontext():
    _claim(folder, run)
    if not folder.isfile('report.json'):
      EXECUTORS[executor](phases, folder, config, workers)
      if executor == 'slurm':
        return None
  found = json.loads(folder.cat_file('report.json'))
  if not found['pages_out']:
    worst = ', '.join(f'{rule} {n}' for rule, n in list(found['drops'].items())[:4])
    raise UserError(
      field=f'document left of the {found["pages_in"]} pages of {source}',
      message=f'The rules that dropped most: {worst or "none"}.',
    )
  return found


def _claim(folder: DataFolder, run: dict) -> None:
  """Writes run.json, or checks that the folder's run.json describes the same run.

  Raises UserError for another run, whose outputs would mix with this one's.
  """
  if not folder.isfile('run.json'):
    write_json(folder, 'run.json', run)
    return
  stored = json.loads(folder.cat_file('run.json'))
  if found := files.difference(stored, run):
    name, old, new = found
    raise UserError(
      field=name,
      value=new,
      allowed=f'{old!r}, with which {folder.resolve_paths("")} was made',
      message='Give another --out.',
    )
