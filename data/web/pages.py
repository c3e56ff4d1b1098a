"""Generates web pages around known text, for benchmarks.

Menus, teasers, comments and scripts surround paragraphs of prose.
"""

import html
import io
import pathlib
import random
import re
from collections.abc import Iterable

from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

LAYOUTS = (
  '<article class="post"><h1>{title}</h1>{text}</article><aside class="sidebar">{teasers}</aside>',
  '<div id="wrapper"><div class="related-links">{teasers}</div><div '
  'class="entry-content"><h2>{title}</h2>{text}</div></div>',
  '<table><tr><td class="left">{teasers}</td><td><div '
  'id="content"><h1>{title}</h1>{text}</div></td></tr></table>',
  '<main><section><header><h1>{title}</h1></header><div '
  'class="body">{text}</div></section>{teasers}</main>',
)
GERMAN = (
  'Der alte Müller trug jeden Morgen einen Brief zu seiner Tochter, die in der großen Stadt '
  'wohnte.',
  'Niemand im Dorf konnte sich erinnern, welche Farbe die Brücke vor dem Krieg gehabt hatte.',
  'Wenn die Kälte zu früh kommt, treiben die Hirten ihre Schafe von den Bergen herunter.',
)
_PARAGRAPH = re.compile(r'[A-Z][^{}<>|`=_]{120,}\.')


def prose() -> list[str]:
  """Returns the paragraphs of Python's language reference that consist of sentences.

  Quotation marks are removed: they surround one word in five.
  """
  from pydoc_data.topics import topics  # half a megabyte that only benchmarks need

  found = {}  # an ordered set
  for text in topics.values():
    for part in re.split(r'\n\s*\n', text):
      found[' '.join(part.replace('"', '').split())] = None
  return [part for part in found if _PARAGRAPH.fullmatch(part)]


def _link(number: int, words: list[str]) -> str:
  address = '-'.join(words[:4]).lower()
  return f'<li><a href="/{number}/{address}">{html.escape(" ".join(words[:4]))}</a></li>'


def _teaser(link: str, words: list[str]) -> str:
  return f'<div class="teaser">{link}<p>{html.escape(" ".join(words[4:16]))} ...</p></div>'


def _comment(user: int, words: list[str]) -> str:
  text = html.escape(' '.join(words[:14]))
  return f'<div class="comment"><b>user{user}</b><p>{text}</p></div>'


def page(paragraphs: list[str], number: int) -> tuple[str, str]:
  """Returns (HTML, text) of page `number`.

  One page in eight is German, and one in eight has a single paragraph among its links.
  """
  rng = random.Random(number)
  kind = number % 8
  if kind == 1:
    text = [' '.join(rng.choices(GERMAN, k=3)) for _ in range(8)]
  else:
    text = rng.sample(paragraphs, 1 if kind == 2 else rng.randint(4, 24))
  title, *words = (part.split() for part in rng.sample(paragraphs, 60))
  links = [_link(i, some) for i, some in enumerate(words)]
  teasers = ''.join(map(_teaser, links[:20], words))
  comments = ''.join(_comment(rng.randrange(999), some) for some in words[: rng.randrange(20)])
  script = ''.join(
    f'window._q.push(["event",{rng.randrange(10**9)},"{rng.randrange(10**9)}"]);\n'
    for _ in range(800)
  )
  style = ''.join(
    f'.c{rng.randrange(10**4)} > li a:hover {{ margin: {i}px; color: #aaa }}\n' for i in range(300)
  )
  body = LAYOUTS[number % len(LAYOUTS)].format(
    title=html.escape(' '.join(title[:8])),
    text=''.join(f'<p>{html.escape(part)}</p>\n' for part in text),
    teasers=teasers,
  )
  return (
    '<!doctype html><html><head><meta '
    f'charset="utf-8"><title>{html.escape(" ".join(title[:8]))}</title><style>{style}</style>'
    f'<script>{script}</script></head><body><nav><ul>{"".join(links)}</ul></nav>{body}'
    f'<div id="comments">{comments}</div><footer><ul>{"".join(links[:9])}</ul><p>All rights '
    'reserved.</p></footer>'
    f'<script>{script[:9000]}</script></body></html>'
  ), '\n'.join(text)


def write_warc(path: pathlib.Path, responses: Iterable[tuple[str, str]]) -> int:
  """Writes (URL, HTML) pairs as WARC responses in UTF-8, and returns their number.

  The records name their type, HTML, as Common Crawl's do.
  """
  count = 0
  with open(path, 'wb') as file:
    writer = WARCWriter(file, gzip=True)
    for url, text in responses:
      headers = StatusAndHeaders(
        '200 OK', [('Content-Type', 'text/html; charset=utf-8')], protocol='HTTP/1.1'
      )
      named = {'WARC-Identified-Payload-Type': 'text/html'}
      body = io.BytesIO(text.encode())
      writer.write_record(
        writer.create_warc_record(
          url, 'response', body, http_headers=headers, warc_headers_dict=named
        )
      )
      count += 1
  return count
