"""Tasks about the letters of words, which a model of tokens does not see: spelling and counting."""

import dataclasses
import random
import re
from typing import ClassVar

from data import chat
from data.tasks.base import Task, ask
from data.tasks.documents import Documents

_SPELLED = re.compile(r'\b[a-z](?:[-\s,]+[a-z])*\b')


@dataclasses.dataclass(frozen=True, eq=False)
class Spelling(Task):
  """Words of the documents letter by letter: 'import' is i-m-p-o-r-t."""

  documents: Documents
  name: ClassVar[str] = 'spelling'
  reads_documents: ClassVar[bool] = True
  questions: ClassVar[tuple[str, ...]] = (
    "Spell the word '{word}'.", "How do you spell '{word}'?", "Spell '{word}' letter by letter.",
    "Can you spell '{word}' for me?",
  )

  def draw(self, rng: random.Random) -> dict:
    word = rng.choice(self.documents.words)
    return {'messages': ask(rng.choice(self.questions).format(word=word)), 'key': word, 'answer': '-'.join(word)}

  def grade(self, problem: dict, reply: dict) -> float:
    spelled = _SPELLED.findall(chat.text(reply['content']).lower())
    return float(bool(spelled) and re.sub(r'[^a-z]+', '-', spelled[-1]) == problem['answer'])


@dataclasses.dataclass(frozen=True, eq=False)
class Counting(Task):
  """How often a letter is in a word; demonstrations spell the word out before they count."""

  documents: Documents
  name: ClassVar[str] = 'counting'
  reads_documents: ClassVar[bool] = True
  questions: ClassVar[tuple[str, ...]] = (
    "How many times is the letter '{letter}' in the word '{word}'?", "How many '{letter}' are there in '{word}'?",
    "Count the letter '{letter}' in '{word}'.",
  )

  def draw(self, rng: random.Random) -> dict:
    word = rng.choice(self.documents.words)
    letter = rng.choice(word if rng.random() < 0.8 else 'abcdefghijklmnopqrstuvwxyz')
    question = rng.choice(self.questions).format(word=word, letter=letter)
    return {'messages': ask(question), 'key': word, 'word': word, 'answer': word.count(letter)}

  def reply(self, problem: dict, rng: random.Random) -> str:
    return f'{"-".join(problem["word"])}: {problem["answer"]}'
