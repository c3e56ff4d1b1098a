"""Questions about the model itself, graded by the facts an answer must state."""

import dataclasses
import hashlib
import random
from typing import ClassVar

from data.chat import chat_formats
from data.tasks.persona import TOPICS, Persona, answer, question, states_facts
from data.tasks.protocol import Task, ask


@dataclasses.dataclass(frozen=True, eq=False)
class Identity(Task):
  """The test split is of wordings never trained on: of each topic one in four, chosen by hash."""

  persona_name: str = Persona.name
  persona_maker: str = Persona.maker
  name: ClassVar[str] = 'identity'

  @property
  def persona(self) -> Persona:
    return Persona(self.persona_name, self.persona_maker)

  def in_test(self, key: str) -> bool:
    topic, wording = key.split('/', 1)
    ordered = sorted(
      TOPICS[topic].questions, key=lambda text: hashlib.sha256(text.encode()).hexdigest()
    )
    return ordered.index(wording) < len(ordered) // 4

  def draw(self, rng: random.Random) -> dict:
    topic = rng.choice(list(TOPICS))
    wording = rng.choice(TOPICS[topic].questions)
    return {
      'messages': ask(question(rng, topic, wording)),
      'key': f'{topic}/{wording}',
      'topic': topic,
      'answer': answer(rng, topic, self.persona),
    }

  def grade(self, problem: dict, reply: dict) -> float:
    return float(states_facts(chat_formats.text(reply['content']), problem['topic'], self.persona))
