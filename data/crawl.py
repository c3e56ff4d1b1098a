"""Crawls one site over HTTP into gzip WARC files: `python -m data.crawl URL --out=DIR`.

The WARC files are the only state. The same command continues a crawl that was killed at any moment:
it removes a torn last record, then repeats the same breadth-first walk, answering from the stored
pages instead of the network. `report.json` is written last; it says that the crawl is complete, and
names each page that could not be fetched, with the cause.
"""

import argparse
from collections.abc import Sequence

from data.crawling import run
from lm.base import errors


def main(argv: Sequence[str] | None = None) -> None:
  """Runs the command with these arguments, those of the process where they are None."""
  parser = argparse.ArgumentParser(
    description='Crawls one site into gzip WARC files, or continues an interrupted crawl.'
  )
  parser.add_argument('url', help='first page; only its host and port are crawled')
  parser.add_argument('--out', required=True, help='folder for crawl-*.warc.gz and report.json')
  parser.add_argument(
    '--max-pages', type=int, default=1000, help='largest number of pages to request (%(default)s)'
  )
  parser.add_argument(
    '--max-depth',
    type=int,
    default=0,
    help='largest distance in links from the first page; 0: no limit',
  )
  parser.add_argument(
    '--delay', type=float, default=1.0, help='seconds between requests (%(default)s)'
  )
  parser.add_argument(
    '--retries', type=int, default=3, help='attempts after the first one fails (%(default)s)'
  )
  parser.add_argument(
    '--timeout', type=float, default=30.0, help='seconds for one whole response (%(default)s)'
  )
  parser.add_argument(
    '--max-bytes', type=int, default=10_000_000, help='largest body to store (%(default)s)'
  )
  parser.add_argument(
    '--include', help='follow only links whose path?query matches this regular expression'
  )
  parser.add_argument(
    '--exclude', help='follow no links whose path?query matches this regular expression'
  )
  parser.add_argument(
    '--contact', default='', help='URL or e-mail address of the person responsible for this crawl'
  )
  report = run.crawl_with_progress(**vars(parser.parse_args(argv)))
  failed = len(report['errors'])
  print(
    f'{report["pages"]} pages, {report["bytes"]:,} bytes in {report["seconds"]:.0f} s, '
    f'{failed} failed'
  )


if __name__ == '__main__':
  errors.run(main)
