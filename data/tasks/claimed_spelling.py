"""Finds the words that a reply spells letter by letter, by the rules of claims.py."""

import re

from data.tasks import claims

_LETTER = re.compile(r"(?<![A-Za-z0-9])(?<![A-Za-z]')[A-Za-z](?![A-Za-z0-9])")  # not the s of it's


def claimed_spellings(text: str) -> set[str]:
  """Returns the lower-case words that a reply spells as single letters with one separator."""
  text = claims.plain(text)
  runs = [run for run in _runs(text) if run.end - run.start > 3]
  return {mention.value for mention in claims.kept(text, runs)}


def _runs(text: str) -> list[claims.Mention]:
  """Returns runs of at least three letters that are not part of a longer piece ('i-m-port')."""
  letters = list(_LETTER.finditer(text))
  found, at = [], 0
  while at < len(letters):
    run, separator = [letters[at]], None
    for letter in letters[at + 1 :]:
      between = text[run[-1].end() : letter.start()]
      if not re.fullmatch(r'\W*\b(?:and|then)\b\W*', between):
        kind = re.sub(r'\n\s*[0-9]+[.)]', ' - ', between)  # the head of a line in a numbered list
        kind = re.sub(r'\s+', ' ', kind)
        if re.search(r'[^\W_]', kind) or len(kind) > 6 or kind != (separator or kind):
          break
        separator = kind
      run.append(letter)
    at += len(run) if len(run) != 2 else 1  # 'I: i-m-p-o-r-t': the second letter may begin the run
    start, end = run[0].start(), run[-1].end()
    if len(run) > 2 and not _goes_on(text, start, end, separator):
      found.append(claims.Mention(''.join(letter[0].lower() for letter in run), start, end))
  return found


def _goes_on(text: str, start: int, end: int, separator: str | None) -> bool:
  """Returns whether a run of letters is part of a longer piece. Spaces always end a run."""
  if not separator or re.search(r'[\s"\'`]', separator):
    return False
  before, after = text[max(start - 8, 0) : start], text[end : end + 8]
  return bool(
    re.search(rf'\w{re.escape(separator)}$', before)
    or re.match(rf'{re.escape(separator)}\w', after)
  )
