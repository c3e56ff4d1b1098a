"""The data steps of a recipe; each reads and writes folders of `workdir` and can be resumed.

A step imports the crawler or the cleaning itself: every process of a recipe reads this file, and
they take seconds to import.
"""

import pathlib
from collections.abc import Callable
from typing import NamedTuple

from ml_collections import ConfigDict

from data import tasks as tasks_lib
from data.chat import chat_formats, schema
from data.preferences import gold
from data.records import jsonl
from data.shards import tokenization as tokenize_lib
from data.tasks import world as world_lib
from data.tokenizers import training
from data.tools import corpus_search
from lm.base import config as config_lib


def crawl(config: ConfigDict, workdir: pathlib.Path) -> None:
  """Crawls a site, or the standard library's documentation server, into crawl/*.warc.gz."""
  from data.crawling import pydoc_server
  from data.crawling import run as crawling

  options = config.to_dict()
  url, delay = options.pop('url'), options.pop('delay')
  if url:
    crawling.crawl_with_progress(url, workdir / 'crawl', delay=delay, **options)
  else:
    with pydoc_server.serve_pydoc() as url:
      crawling.crawl_with_progress(url, workdir / 'crawl', delay=0.0, **options)


def world(config: ConfigDict, workdir: pathlib.Path) -> None:
  """Writes the documents and pages of an invented world into clean/, and an index of the pages."""
  world_lib.write(workdir / 'clean', config.seed)
  corpus_search.build(workdir / 'clean' / 'pages.jsonl', workdir / 'index')


def answers(config: ConfigDict, workdir: pathlib.Path) -> None:
  """Writes answers.jsonl, conversations of varied answers, and their texts into clean/."""
  made_by = tasks_lib.make(config_lib.names(config.tasks), seed=config.seed)
  found = list(gold.answers(config.gold, made_by, config.examples))
  jsonl.write(workdir / 'answers.jsonl', found)
  texts = (
    {'id': str(i), 'text': '\n'.join(schema.text(m['content']) for m in conversation['messages'])}
    for i, conversation in enumerate(found)
  )
  jsonl.write(workdir / 'clean' / 'documents.jsonl', texts)


def clean(config: ConfigDict, workdir: pathlib.Path) -> None:
  """Cleans crawl/*.warc.gz into clean/documents.jsonl."""
  from data.web import clean as clean_lib

  clean_lib.clean(workdir / 'crawl', workdir / 'clean', config)


def tokenizer(config: ConfigDict, workdir: pathlib.Path) -> None:
  """Trains a byte-level BPE on the documents that are not held out, into tokenizer/."""
  training.train_files(
    workdir / 'clean' / 'documents.jsonl',
    config.vocab_size,
    workdir / 'tokenizer',
    held_out=config.held_out,
    special_tokens=chat_formats.SPECIAL_TOKENS,
  )


def tokenize(config: ConfigDict, workdir: pathlib.Path) -> None:
  """Converts clean/documents.jsonl to token shards, tokens/train and tokens/val."""
  trained = chat_formats.load(str(workdir / 'tokenizer' / 'tokenizer.json'))
  tokenize_lib.tokenize(
    workdir / 'clean' / 'documents.jsonl', workdir / 'tokens', trained, held_out=config.held_out
  )


class Step(NamedTuple):
  """A data step of a recipe.

  Attributes:
    function: runs it, given its part of the config and the work folder.
    part: the name of that part.
    output: a path in the work folder that exists once the step is complete.
  """

  function: Callable[[ConfigDict, pathlib.Path], None]
  part: str
  output: str


STEPS = {
  'crawl': Step(crawl, 'crawl', 'crawl/report.json'),
  'answers': Step(answers, 'answers', 'clean/documents.jsonl'),
  'world': Step(world, 'world', 'index'),
  'clean': Step(clean, 'clean', 'clean/report.json'),
  'tokenizer': Step(tokenizer, 'tokenizer', 'tokenizer/tokenizer.json'),
  'tokenize': Step(tokenize, 'tokenizer', 'tokens/train/manifest.json'),
}
