"""A document of headings, tables, pictures and quoted text, as Markdown and as one HTML page.

All text is plain text and is escaped, since pages of the web and replies of a model are quoted.
"""

import dataclasses
import html
import re
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class Heading:
  """A heading; level 1 is the title of the document."""

  text: str
  level: int = 2


@dataclasses.dataclass(frozen=True)
class Paragraph:
  """Plain text that is set as a paragraph."""

  text: str


@dataclasses.dataclass(frozen=True)
class Table:
  """A table of text cells; the first `left` columns are aligned left, the others right."""

  header: Sequence[str]
  rows: Sequence[Sequence[str]]
  left: int = 1


@dataclasses.dataclass(frozen=True)
class Picture:
  """A picture: an <svg> element for the HTML page, and the path of a file for Markdown.

  `currentColor` in the <svg> becomes the colour of the page's text.
  """

  caption: str
  svg: str
  path: str


@dataclasses.dataclass(frozen=True)
class Quote:
  """Text shown exactly as it is, under a label."""

  label: str
  text: str


@dataclasses.dataclass(frozen=True)
class Fold:
  """Blocks that are hidden below their title until the reader opens them."""

  title: str
  blocks: Sequence['Block']


Block = Heading | Paragraph | Table | Picture | Quote | Fold

STYLE = """
:root { color-scheme: light dark; --text: #1c2024; --muted: #60646c; --line: #d9dce1;
  --back: #fff; --soft: #f4f5f7; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e6e8eb; --muted: #9ba1a9; --line: #343a42; --back: #14171b; --soft: #1e2329; }
}
body { margin: 0 auto; padding: 2rem 1.25rem 5rem; max-width: 60rem; background: var(--back);
  color: var(--text);
  font: 16px/1.55 system-ui, sans-serif; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .25rem; }
h2 { font-size: 1.25rem; margin: 2.75rem 0 .75rem; padding-bottom: .3rem;
  border-bottom: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.5rem 0 .5rem; }
p { color: var(--muted); margin: .4rem 0 .8rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .7rem; border-bottom: 1px solid var(--line); text-align: right;
  vertical-align: top; }
th { font-weight: 600; color: var(--muted); font-size: .85rem; }
.left { text-align: left; overflow-wrap: anywhere; }
figure { margin: 1rem 0; }
figure svg { width: 100%; height: auto; }
figcaption, .label { color: var(--muted); font-size: .85rem; }
pre { margin: .2rem 0 1rem; padding: .7rem .9rem; background: var(--soft); border-radius: 6px;
  white-space: pre-wrap; overflow-wrap: anywhere; font: 13.5px/1.5 ui-monospace, monospace; }
details { margin: .5rem 0; }
summary { cursor: pointer; }
details > :not(summary) { margin-left: 1rem; }
"""


def to_html(title: str, blocks: Sequence[Block]) -> str:
  """Returns one HTML page that contains its style and pictures, and has no scripts."""
  body = '\n'.join(map(_html, blocks))
  return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title>
<style>{STYLE}</style>
</head>
<body>
{body}
</body>
</html>
"""


def to_markdown(blocks: Sequence[Block]) -> str:
  """Returns Markdown for GitHub, with tables, fenced code and <details>."""
  return '\n\n'.join(map(_markdown, blocks)) + '\n'


def _html(block: Block) -> str:
  match block:
    case Heading(text, level):
      return f'<h{level}>{html.escape(text)}</h{level}>'
    case Paragraph(text):
      return f'<p>{html.escape(text)}</p>'
    case Table(header, rows, left):

      def row(tag: str, cells: Sequence[str]) -> str:
        written = []
        for i, cell in enumerate(cells):
          style = ' class="left"' if i < left else ''
          written.append(f'<{tag}{style}>{html.escape(cell)}</{tag}>')
        return ''.join(written)

      body = '\n'.join(f'<tr>{row("td", cells)}</tr>' for cells in rows)
      return f'<div class="wide"><table>\n<tr>{row("th", header)}</tr>\n{body}\n</table></div>'
    case Picture(caption, svg, _):
      return f'<figure>{svg}<figcaption>{html.escape(caption)}</figcaption></figure>'
    case Quote(label, text):
      return f'<div class="label">{html.escape(label)}</div><pre>{html.escape(text)}</pre>'
    case Fold(title, blocks):
      inside = '\n'.join(map(_html, blocks))
      return f'<details><summary>{html.escape(title)}</summary>\n{inside}\n</details>'


def _markdown(block: Block) -> str:
  match block:
    case Heading(text, level):
      return '#' * level + ' ' + _escape(text)
    case Paragraph(text):
      return _escape(text)
    case Table(header, rows, left):
      rule = [':--' if i < left else '--:' for i in range(len(header))]
      first, *others = [[_escape(cell) for cell in row] for row in (header, *rows)]
      return '\n'.join('| ' + ' | '.join(line) + ' |' for line in (first, rule, *others))
    case Picture(caption, _, path):
      return f'![{_escape(caption)}]({path})'
    case Quote(label, text):
      longest = max(map(len, re.findall('`+', text)), default=0)
      fence = '`' * max(3, longest + 1)  # longer than any in the text, which it would end
      return f'{_escape(label)}\n\n{fence}text\n{text}\n{fence}'
    case Fold(title, blocks):
      return (
        f'<details><summary>{html.escape(title)}</summary>\n\n{to_markdown(blocks)}\n</details>'
      )


def _escape(text: str) -> str:
  """Returns one line of Markdown that shows this text literally."""
  return re.sub(r'([\\`*_\[\]|~])', r'\\\1', html.escape(' '.join(text.split()), quote=False))
