"""The cleaning stage: WARC files in, `documents.jsonl` and `report.json` out, every page accounted for."""

import contextlib
import functools
import inspect
import json
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import tqdm

from data.web import dedup, language, rules
from data.web.extract import extract
from data.web.read import RawPage, read_pages, warc_files
from lm import errors, files
from lm.errors import UserError

RULES = {'gopher_repetition': rules.gopher_repetition, 'gopher_quality': rules.gopher_quality, 'fineweb': rules.fineweb}
EXAMPLES = 3  # of each rule's drops, in the report


class _Ledger:
  """Counts what each rule dropped, and keeps the first examples."""

  def __init__(self):
    self.drops, self.examples, self.seconds = Counter(), defaultdict(list), {}

  @contextlib.contextmanager
  def step(self, name: str) -> Iterator[None]:
    start = time.monotonic()
    yield
    self.seconds[name] = round(time.monotonic() - start, 3)

  def drop(self, rule: str, url: str, text: str, detail: str) -> None:
    self.drops[rule] += 1
    if len(self.examples[rule]) < EXAMPLES:
      self.examples[rule].append({'url': url, 'text': text[:200], 'detail': detail})

  def keep(self, documents: Iterable[dict], verdict: Callable[[dict], rules.Verdict]) -> list[dict]:
    """The documents that `verdict` lets pass."""
    kept = []
    for document in documents:
      if found := verdict(document):
        self.drop(found[0], document['metadata']['url'], document['text'], found[1])
      else:
        kept.append(document)
    return kept


def unusable(page: RawPage) -> rules.Verdict:
  """Records that are damaged, not answered with 200, or not HTML."""
  if page.fault:
    return 'damaged', page.fault
  if page.status != 200:
    return 'status', str(page.status)
  if 'html' not in page.content_type.lower():
    return 'not_html', page.content_type or 'no content type'
  return None


def clean(
  source: files.Path,
  out: files.Path,
  *,
  extractor: str = 'resiliparse',
  languages: dict[str, float] | None = None,
  gopher_repetition: dict | None = None,
  gopher_quality: dict | None = None,
  fineweb: dict | None = None,
  passage_lines: int = 0,
  max_passage_share: float = 0.9,
  near_duplicates: bool = True,
  cluster_similarity: float = 0.5,
) -> dict:
  """Cleans the pages of WARC files into documents.

  Order: readable HTML -> text -> language -> exact duplicates -> repeated passages -> Gopher repetition -> Gopher
  quality -> FineWeb rules -> near-duplicates (Penedo et al. 2024, arXiv 2406.17557; the passages are ours).

  Args:
    source: a folder with WARC files, or a glob.
    out: folder for `documents.jsonl` ({id, text, metadata {url, title, language, language_score, cluster}} a line)
      and `report.json`, each written whole or not at all, the report last.
    extractor: 'resiliparse' or 'trafilatura'.
    languages: code -> least score of the languages to keep; English above .65, as in FineWeb, when None.
    gopher_repetition, gopher_quality, fineweb: thresholds that differ from the published ones, by the parameter names
      of `data.web.rules`.
    passage_lines: cut runs of this many lines that stood in another document before; 0 cuts none.
    max_passage_share: drop documents that lose more than this share of their characters so.
    near_duplicates: keep one document, the longest, of each group of MinHash near-duplicates.
    cluster_similarity: documents of this Jaccard similarity (word 5-grams) or more share metadata.cluster.

  Returns:
    The report: pages_in, pages_out, bytes_in (bodies), bytes_out (UTF-8 text), drops {rule: n}, examples {rule: [{url,
    text, detail}]}, languages {code: n}, seconds, step_seconds {step: s}, settings. pages_in = pages_out + sum(drops).

  Raises:
    UserError: no WARC file, an unknown threshold, or nothing left.
  """
  settings = {name: value for name, value in locals().items() if name not in ('source', 'out')}
  thresholds = {'gopher_repetition': gopher_repetition, 'gopher_quality': gopher_quality, 'fineweb': fineweb}
  _check(thresholds)
  ledger = _Ledger()
  with ledger.step('extract'):
    pages_in, bytes_in, documents = _extract_all(source, extractor, ledger)
  with ledger.step('language'):
    documents, spoken = _right_language(documents, {'en': 0.65} if languages is None else languages, ledger)
  with ledger.step('exact_duplicates'):
    documents = _first_of_each(documents, ledger)
  if passage_lines:
    with ledger.step('passages'):
      documents = _cut_passages(documents, passage_lines, max_passage_share, ledger)
  for name, given in thresholds.items():
    with ledger.step(name):
      rule = functools.partial(RULES[name], **given or {})
      documents = ledger.keep(tqdm.tqdm(documents, name, unit='page', mininterval=0.5), lambda d, r=rule: r(d['text']))
  with ledger.step('near_duplicates'):
    documents = _near(documents, near_duplicates, cluster_similarity, ledger)
  if not documents:
    worst = ', '.join(f'{rule} {n}' for rule, n in ledger.drops.most_common(4))
    raise UserError(f'{source}: no document left of {pages_in} pages; most were dropped by: {worst or "nothing"}')
  report = {
    'pages_in': pages_in,
    'pages_out': len(documents),
    'bytes_in': bytes_in,
    'bytes_out': sum(len(document['text'].encode()) for document in documents),
    'drops': dict(ledger.drops),
    'examples': dict(ledger.examples),
    'languages': dict(spoken.most_common()),
    'seconds': round(sum(ledger.seconds.values()), 3),
    'step_seconds': ledger.seconds,
    'settings': settings,
  }
  with files.atomic_path(f'{out}/documents.jsonl') as path, open(path, 'w', encoding='utf-8') as f:
    f.writelines(json.dumps(document, ensure_ascii=False) + '\n' for document in documents)
  files.write_json(f'{out}/report.json', report)
  return report


def _check(thresholds: dict[str, dict | None]) -> None:
  """Raises UserError for a threshold that its rule does not have."""
  for rule, given in thresholds.items():
    allowed = [name for name in inspect.signature(RULES[rule]).parameters if name != 'text']
    for name in given or {}:
      if name not in allowed:
        raise errors.unknown(f'{rule} threshold', name, allowed)


def _extract_all(source: files.Path, extractor: str, ledger: _Ledger) -> tuple[int, int, list[dict]]:
  pages_in = bytes_in = 0
  documents = []
  bar = tqdm.tqdm((page for path in warc_files(source) for page in read_pages(path)), desc='extract', unit='page')
  for page in bar:
    pages_in += 1
    bytes_in += len(page.body)
    if found := unusable(page):
      ledger.drop(found[0], page.url, page.body[:200].decode('utf-8', 'replace'), found[1])
      continue
    title, text = extract(page.body, page.content_type, extractor)
    if text:
      documents.append({'id': '', 'text': text, 'metadata': {'url': page.url, 'title': title}})
    else:
      ledger.drop('empty', page.url, title, 'no text')
  return pages_in, bytes_in, documents


def _right_language(documents: list[dict], wanted: dict[str, float], ledger: _Ledger) -> tuple[list[dict], Counter]:
  spoken = Counter()

  def foreign(document: dict) -> rules.Verdict:
    code, score = language.detect(document['text'])
    spoken[code] += 1
    document['metadata'] |= {'language': code, 'language_score': round(score, 4)}
    return None if code in wanted and score > wanted[code] else ('language', f'{code} {score:.2f}')

  return ledger.keep(documents, foreign), spoken


def _first_of_each(documents: list[dict], ledger: _Ledger) -> list[dict]:
  first: dict[str, dict] = {}

  def repeated(document: dict) -> rules.Verdict:
    original = first.setdefault(dedup.digest(document['text']), document)
    return None if original is document else ('exact_duplicate', f'of {original["metadata"]["url"]}')

  return ledger.keep(documents, repeated)


def _cut_passages(documents: list[dict], lines: int, max_share: float, ledger: _Ledger) -> list[dict]:
  texts = dedup.remove_repeated_passages([document['text'] for document in documents], lines)
  kept = []
  for document, text in zip(documents, texts, strict=True):
    share = 1 - len(text) / len(document['text'])
    if share > max_share:
      ledger.drop('repeated_passages', document['metadata']['url'], document['text'], f'{share:.0%} stands elsewhere')
    else:
      kept.append(document | {'text': text})
  return kept


def _near(documents: list[dict], remove: bool, similarity: float, ledger: _Ledger) -> list[dict]:
  """Removes near-duplicates, and names each document and its cluster after their texts."""
  # The longest of a group comes first, so it is the one that its component is named after.
  documents = sorted(documents, key=lambda document: (-len(document['text']), document['text']))
  hashes = [dedup.shingles(d['text']) for d in tqdm.tqdm(documents, desc='shingles', unit='page', mininterval=0.5)]
  signatures = np.array([dedup.signature(h) for h in tqdm.tqdm(hashes, desc='minhash', unit='page', mininterval=0.5)])
  signatures = signatures.reshape(-1, dedup.BANDS * dedup.ROWS)
  urls = [document['metadata']['url'] for document in documents]
  first = dedup.near_duplicates(signatures) if remove else range(len(documents))
  cluster = dedup.clusters(hashes, signatures, similarity)
  kept = []
  for i, document in enumerate(documents):
    if first[i] != i:
      ledger.drop('near_duplicate', urls[i], document['text'], f'of {urls[first[i]]}')
      continue
    document['id'] = dedup.digest(document['text'])[:16]
    document['metadata']['cluster'] = dedup.digest(documents[cluster[i]]['text'])[:16]
    kept.append(document)
  return kept
