"""Shows a conversation as a model learns it: who wrote each token, and which tokens are learned."""

import itertools

from data.chat.chat_formats import Format

# Who wrote a token: the system or the user, with the headers of the template; the assistant, which
# the model learns; and within an answer, the results of tools, which it does not learn.
ASKED, LEARNED, RESULT = 'asked', 'learned', 'result'
COLOURS = {ASKED: '\x1b[34m', LEARNED: '\x1b[32m', RESULT: '\x1b[33m'}
PLAIN = '\x1b[0m'


def kinds(chat_format: Format, conversation: dict) -> tuple[list[int], list[str]]:
  """Returns the tokens of a conversation, and for each of them ASKED, LEARNED or RESULT.

  Raises:
    UserError: the conversation cannot be rendered (see `Format.render`).
  """
  ids, mask = chat_format.render(conversation)
  messages = conversation['messages']
  found = [LEARNED if learned else ASKED for learned in mask]
  answers = [i for i, message in enumerate(messages) if message['role'] == 'assistant']
  starts = [len(chat_format.render_prompt(messages[:i])) for i in answers]
  for start, stop in itertools.pairwise([*starts, len(ids)]):
    last = max(i for i in range(start, stop) if mask[i])
    for i in range(start, last):
      if not mask[i]:
        found[i] = RESULT
  return ids, found


def show(chat_format: Format, conversation: dict) -> str:
  """Returns a line of figures about a conversation, and below it its text in colours."""
  ids, found = kinds(chat_format, conversation)
  lines = [f'{len(conversation["messages"])} messages, {len(ids)} tokens: ']
  lines[0] += ', '.join(f'{COLOURS[kind]}{found.count(kind)} {kind}{PLAIN}' for kind in COLOURS)
  text, at = [], 0
  for kind, run in itertools.groupby(found):
    stop = at + len(list(run))
    text += [COLOURS[kind], chat_format.tokenizer.decode(ids[at:stop]), PLAIN]
    at = stop
  return '\n'.join([*lines, ''.join(text)])
