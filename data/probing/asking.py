"""Asks a model the training problems of tasks several times, and grades what it says."""

from collections.abc import Sequence
from typing import Any

from data.chat import schema
from data.probing.endpoint import Endpoint, RefusedRequest, ask_all
from data.records import jsonl
from data.tasks.protocol import Task


def probe(
  endpoint: Endpoint,
  tasks: Sequence[Task],
  *,
  examples: int,
  samples: int,
  temperature: float,
  max_tokens: int,
  skipped: jsonl.Skipped,
) -> list[dict[str, Any]]:
  """Returns the questions with the sampled answers and what these are: right, wrong, refused.

  The task `probed` reads the rows (`Task.probe_row`).

  Args:
    endpoint: where the model is.
    tasks: whose training problems are asked.
    examples: number of problems of each task.
    samples, temperature, max_tokens: of the answers to each problem.
    skipped: receives the problems whose request was refused.

  Raises:
    UserError: the endpoint does not answer, or every request was refused.
  """
  problems = [(task, index) for task in tasks for index in range(examples)]

  def ask(item: tuple[Task, int]) -> dict[str, Any]:
    task, index = item
    problem, row = task.probe_row(index)
    said = endpoint.complete(
      problem['messages'], samples=samples, temperature=temperature, max_tokens=max_tokens
    )
    return row | {
      'replies': said,
      'verdicts': [_verdict(task, problem, text) for text in said],
    }

  rows = []
  for number, row in enumerate(ask_all(ask, problems, desc='probe', unit='question')):
    if isinstance(row, RefusedRequest):
      skipped.add(f'question {number}', row)
    else:
      rows.append(row)
  if not rows:
    raise skipped.nothing_left('answer to a question')
  return rows


def _verdict(task: Task, problem: dict, text: str) -> str:
  reply = schema.reply(text)
  return task.verdict(reply, task.grade(problem, reply))
