"""Questions about the model itself, graded by the facts that an answer must state."""

import dataclasses
import hashlib
import random
from typing import ClassVar

from data.chat import schema
from data.tasks.identity_topics import TOPICS, question
from data.tasks.persona import Persona, answer, states_facts
from data.tasks.protocol import Task, ask


@dataclasses.dataclass(frozen=True, eq=False)
class Identity(Task):
  """Questions about the model; the test split has wordings that are never trained on.

  One wording in four of each topic is in the test split, chosen by hash.
  """

  persona: Persona = dataclasses.field(default_factory=Persona)
  name: ClassVar[str] = 'identity'
  reads: ClassVar[str] = 'persona'

  def in_test(self, key: str) -> bool:
    topic, wording = key.split('/', 1)
    wordings = TOPICS[topic].wordings
    ordered = sorted(wordings, key=lambda text: hashlib.sha256(text.encode()).hexdigest())
    return ordered.index(wording) < len(ordered) // 4

  def draw(self, rng: random.Random) -> dict:
    topic = rng.choice(list(TOPICS))
    wording = rng.choice(TOPICS[topic].wordings)
    return {
      'messages': ask(question(rng, topic, wording)),
      'key': f'{topic}/{wording}',
      'topic': topic,
      'group': topic,
      'answer': answer(rng, topic, self.persona),
    }

  def grade(self, problem: dict, reply: dict) -> float:
    return float(states_facts(schema.text(reply['content']), problem['topic'], self.persona))
