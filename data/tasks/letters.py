"""Tasks about the letters of words, which a model does not see in tokens: spelling and counting."""

import dataclasses
import random
from typing import ClassVar

from data.chat import schema
from data.tasks.claimed_number import claimed_count
from data.tasks.claimed_spelling import claimed_spellings
from data.tasks.documents import Documents
from data.tasks.protocol import Task, ask, question


@dataclasses.dataclass(frozen=True, eq=False)
class Spelling(Task):
  """Words of the documents letter by letter: 'import' is i-m-p-o-r-t."""

  documents: Documents
  name: ClassVar[str] = 'spelling'
  reads: ClassVar[str] = 'documents'
  questions: ClassVar[tuple[str, ...]] = (
    "Spell the word '{word}'.",
    "How do you spell '{word}'?",
    "Spell '{word}' letter by letter.",
    "Can you spell '{word}' for me?",
  )

  def draw(self, rng: random.Random) -> dict:
    word = rng.choice(self.documents.words)
    return {
      'messages': ask(rng.choice(self.questions).format(word=word)),
      'key': word,
      'answer': '-'.join(word),
    }

  def grade(self, problem: dict, reply: dict) -> float:
    """Returns 1.0 if the reply spells the word and no other, else 0.0."""
    said = claimed_spellings(schema.text(reply['content']))
    return float(said == {problem['answer'].replace('-', '')})


@dataclasses.dataclass(frozen=True, eq=False)
class Counting(Task):
  """How often a letter is in a word; demonstrations spell the word before they count."""

  documents: Documents
  name: ClassVar[str] = 'counting'
  reads: ClassVar[str] = 'documents'
  questions: ClassVar[tuple[str, ...]] = (
    "How many times is the letter '{letter}' in the word '{word}'?",
    "How many '{letter}' are there in '{word}'?",
    "Count the letter '{letter}' in '{word}'.",
  )

  def draw(self, rng: random.Random) -> dict:
    word = rng.choice(self.documents.words)
    letter = rng.choice(word if rng.random() < 0.8 else 'abcdefghijklmnopqrstuvwxyz')
    asked = rng.choice(self.questions).format(word=word, letter=letter)
    return {'messages': ask(asked), 'key': word, 'word': word, 'answer': word.count(letter)}

  def reply(self, problem: dict, rng: random.Random) -> str:
    return f'{"-".join(problem["word"])}: {problem["answer"]}'

  def grade(self, problem: dict, reply: dict) -> float:
    said = claimed_count(schema.text(reply['content']), question(problem))
    return float(said == problem['answer'])
