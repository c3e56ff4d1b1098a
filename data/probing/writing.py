"""Has a model write questions about snippets of documents, with the answers that these give."""

import json
import re
from collections.abc import Iterator
from typing import Any

from data.probing.endpoint import Endpoint, RefusedRequest
from data.records import jsonl, sources, spans

SNIPPET_CHARS = 1500  # of a document's beginning, to which questions are written
MAX_TOKENS = 400  # of what the model writes about a snippet
INSTRUCTIONS = (
  'Write {count} questions about facts that the text below states, which can be understood without '
  'the text. Answer each in a few words of the text. Write only a JSON list of objects with '
  '"question" and "answer".\n\nText:\n{text}'
)


def write(
  endpoint: Endpoint, inputs: sources.Inputs, *, snippets: int, count: int
) -> Iterator[dict[str, Any]]:
  """Yields {question, answer, snippet, source} of questions that a model writes.

  A question whose answer is not in its snippet is left out: nothing could be graded by it.

  Args:
    endpoint: where the model is.
    inputs: files of documents.
    snippets: number of documents to write about.
    count: number of questions about each.

  Raises:
    UserError: the endpoint does not answer, or there are no documents.
  """
  found, skipped, seen = sources.find(inputs), jsonl.Skipped(), 0
  for document in spans.documents(spans.spans(found, 1 << 30), skipped):
    text = document.get('text', '')[:SNIPPET_CHARS].strip()
    if not text:
      continue
    if seen == snippets:
      break
    seen += 1
    prompt = INSTRUCTIONS.format(count=count, text=text)
    try:
      (said,) = endpoint.complete(
        [{'role': 'user', 'content': prompt}], samples=1, temperature=0.0, max_tokens=MAX_TOKENS
      )
    except RefusedRequest as error:
      skipped.add(f'document {seen}', error)
      continue
    for row in questions(said, text):
      yield row | {'snippet': text, 'source': str(document.get('id', ''))}
  if not seen:
    raise skipped.nothing_left(f'document in {sources.names(found)}')
  skipped.report()


def questions(said: str, snippet: str) -> list[dict[str, str]]:
  """Returns the {question, answer} in what a model wrote whose answers the snippet contains."""
  listed = re.search(r'\[.*\]', said, re.DOTALL)
  try:
    rows = json.loads(listed[0]) if listed else []
  except ValueError:
    return []
  kept = []
  for row in rows if isinstance(rows, list) else []:
    fields = row if isinstance(row, dict) else {}
    question, answer = fields.get('question'), fields.get('answer')
    if not isinstance(question, str) or not isinstance(answer, str) or not question.strip():
      continue
    if answer.strip() and _words(answer) in _words(snippet):
      kept.append({'question': question.strip(), 'answer': answer.strip()})
  return kept


def _words(text: str) -> str:
  """Returns a text in lower case, with one space between its words and at both ends."""
  words = re.findall(r'[^\W_]+', text.lower())
  return f' {" ".join(words)} '
