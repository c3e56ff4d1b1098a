"""Web pages made up around known text, for benchmarks: menus, teasers, comments and scripts around
paragraphs of prose.
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
  """The paragraphs of Python's language reference that are sentences, without their quotation marks
  (one word in five).
  """
  from pydoc_data.topics import topics  # half a megabyte

  found = (
    ' '.join(part.replace('"', '').split())
    for text in topics.values()
    for part in re.split(r'\n\s*\n', text)
  )
  return [part for part in dict.fromkeys(found) if _PARAGRAPH.fullmatch(part)]


def page(paragraphs: list[str], number: int) -> tuple[str, str]:
  """(HTML, text) of page `number`: one in eight is German, and one in eight has a single paragraph
  among its links.
  """
  rng = random.Random(number)
  kind = number % 8
  if kind == 1:
    text = [' '.join(rng.choices(GERMAN, k=3)) for _ in range(8)]
  else:
    text = rng.sample(paragraphs, 1 if kind == 2 else rng.randint(4, 24))
  title, *words = (part.split() for part in rng.sample(paragraphs, 60))
  links = [f'<li><a href="/{i}/{"-".join(some[:4]).lower()}">{html.escape(" ".join(some[:4]))}</a></li>'
           for i, some in enumerate(words)]  # fmt: skip
  teasers = ''.join(f'<div class="teaser">{link}<p>{html.escape(" ".join(some[4:16]))} '
                    '...</p></div>'
                    for link, some in zip(links[:20], words, strict=False))  # fmt: skip
  comments = ''.join(f'<div class="comment"><b>user{rng.randrange(999)}</b><p>{html.escape(" ".join(some[:14]))}</p></div>'
                     for some in words[: rng.randrange(20)])  # fmt: skip
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
  """Writes (URL, HTML) as responses in UTF-8, named as HTML in the record as in Common Crawl's;
  returns their number.
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
