"""Tasks about the letters of words, which a model does not see in tokens: spelling and counting."""

import dataclasses
import random
from typing import ClassVar

from data.chat import schema
from data.tasks import world
from data.tasks.claimed_number import claimed_count
from data.tasks.claimed_spelling import claimed_spellings
from data.tasks.documents import Documents
from data.tasks.protocol import Task, Worked, ask, question


@dataclasses.dataclass(frozen=True, eq=False)
class Spelling(Task):
  """Words of the documents letter by letter: 'import' is i m p o r t.

  A model reads tokens, and learns the letters of each from words that contain it. So the fraction
  `coined` of the demonstrations is about words that are put together from two of the documents,
  'import' and 'able' to 'imable', which show a token beside others than its words do. Test
  problems are about words of the documents alone.
  """

  documents: Documents
  coined: float = 0.5  # fraction of demonstrations about words that are put together
  name: ClassVar[str] = 'spelling'
  reads: ClassVar[str] = 'documents'
  questions: ClassVar[tuple[str, ...]] = (
    "Spell the word '{word}'.",
    "How do you spell '{word}'?",
    "Spell '{word}' letter by letter.",
    "Can you spell '{word}' for me?",
    "Spell '{word}'.",
    "What are the letters of '{word}'?",
  )

  def __post_init__(self) -> None:
    object.__setattr__(self, '_words', frozenset(self.documents.words))
    learned = [word for word in self.documents.words if not self.in_test(word)]
    object.__setattr__(self, '_learned', learned)

  def in_test(self, key: str) -> bool:
    return key in self._words and super().in_test(key)

  def draw(self, rng: random.Random) -> dict:
    coins = self._learned and rng.random() < self.coined
    word = self.coin(rng) if coins else rng.choice(self.documents.words)
    return {
      'messages': ask(rng.choice(self.questions).format(word=word)),
      'key': word,
      'answer': '-'.join(word),
      'group': f'{len(word)} letters',
    }

  def coin(self, rng: random.Random) -> str:
    """Returns a word and the end of another, or the beginning of one and another, together.

    It has 3 to 9 letters. Neither is a word of the test split.
    """
    while True:
      one, other = rng.choice(self._learned), rng.choice(self._learned)
      if rng.random() < 0.5:
        word = one + other[rng.randint(0, len(other) - 1) :]
      else:
        word = one[: rng.randint(1, len(one))] + other
      if 3 <= len(word) <= 9:
        return word

  def reply(self, problem: dict, rng: random.Random) -> str:
    # A letter after a space is one token, but one after a hyphen is two.
    return problem['answer'].replace('-', ' ')

  def grade(self, problem: dict, reply: dict) -> float:
    """Returns 1.0 if the reply spells the word and no other, else 0.0."""
    said = claimed_spellings(schema.text(reply['content']))
    return float(said == {problem['answer'].replace('-', '')})


@dataclasses.dataclass(frozen=True, eq=False)
class Letters(Worked):
  """How often a letter is in an invented word of two or three syllables."""

  name: ClassVar[str] = 'letters'
  questions: ClassVar[tuple[str, ...]] = (
    "How many '{letter}' are in '{word}'?",
    "Count the letter '{letter}' in '{word}'.",
  )

  def word(self, rng: random.Random) -> str:
    """Returns a word to ask about."""
    return world.invented_word(rng, rng.randint(2, 3))

  def draw(self, rng: random.Random) -> dict:
    word = self.word(rng)
    letter = rng.choice('abcdefghijklmnopqrstuvwxyz')
    if rng.random() < 0.8:  # one of the word, rather one that it repeats
      (letter,) = rng.choices(word, [word.count(each) ** 2 for each in word])
    return {
      'messages': ask(rng.choice(self.questions).format(word=word, letter=letter)),
      'key': word,
      'word': word,
      'letter': letter,
      'answer': word.count(letter),
    }

  def steps(self, problem: dict) -> str:
    word, letter = problem['word'], problem['letter']
    counted = [f'{word[i]}{word[: i + 1].count(letter)}' for i in range(len(word))]
    return f'{" ".join(counted)}. Answer: {problem["answer"]}'

  def program(self, problem: dict) -> tuple[str, str]:
    return f"'{problem['word']}'.count('{problem['letter']}')", str(problem['answer'])

  def grade(self, problem: dict, reply: dict) -> float:
    said = claimed_count(schema.text(reply['content']), question(problem))
    return float(said == problem['answer'])


@dataclasses.dataclass(frozen=True, eq=False)
class Counting(Letters):
  """How often a letter is in a word of the documents, which demonstrations spell first."""

  documents: Documents
  name: ClassVar[str] = 'counting'
  reads: ClassVar[str] = 'documents'
  questions: ClassVar[tuple[str, ...]] = (
    "How many times is the letter '{letter}' in the word '{word}'?",
    "How many '{letter}' are there in '{word}'?",
    "Count the letter '{letter}' in '{word}'.",
  )

  def word(self, rng: random.Random) -> str:
    return rng.choice(self.documents.words)

  def reply(self, problem: dict, rng: random.Random) -> str:
    return f'{"-".join(problem["word"])}: {problem["answer"]}'
