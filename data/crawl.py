"""Crawls one site over HTTP into gzip WARC: `python -m data.crawl URL --out=DIR`.

The WARC files are the only state. A crawl that was killed at any moment goes on where it stopped:
the stored pages are read back, a torn last record is cut off, and the same breadth-first walk is
made again with the stored pages in place of requests. `report.json` beside them says that the crawl
is complete, and names each page that could not be had, with the cause.
"""

import argparse
from collections.abc import Sequence

from data.crawling import run
from lm.base import errors


def main(argv: Sequence[str] | None = None) -> None:
  parser = argparse.ArgumentParser(
    description='Crawls one site into gzip WARC; goes on with a crawl that was cut off.'
  )
  parser.add_argument('url')
  parser.add_argument('--out', required=True, help='folder for crawl-*.warc.gz and report.json')
  parser.add_argument(
    '--max-pages', type=int, default=1000, help='most pages to ask for (%(default)s)'
  )
  parser.add_argument(
    '--max-depth', type=int, default=0, help='most links from the first page to another; 0: any'
  )
  parser.add_argument(
    '--delay', type=float, default=1.0, help='seconds between two requests (%(default)s)'
  )
  parser.add_argument(
    '--retries', type=int, default=3, help='further attempts after a failure (%(default)s)'
  )
  parser.add_argument(
    '--timeout', type=float, default=30.0, help='seconds for one response (%(default)s)'
  )
  parser.add_argument(
    '--max-bytes', type=int, default=10_000_000, help='longest body stored (%(default)s)'
  )
  parser.add_argument(
    '--include', help='regular expression: follow only links whose path?query it is found in'
  )
  parser.add_argument(
    '--exclude', help='regular expression: do not follow links whose path?query it is found in'
  )
  parser.add_argument(
    '--contact', default='', help='URL or address of whoever answers for this crawl'
  )
  report = run.crawl_with_progress(**vars(parser.parse_args(argv)))
  failed = len(report['errors'])
  print(
    f'{report["pages"]} pages, {report["bytes"]:,} bytes in {report["seconds"]:.0f} s, '
    f'{failed} failed'
  )


if __name__ == '__main__':
  errors.run(main)
