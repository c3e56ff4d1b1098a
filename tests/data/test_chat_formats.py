"""Models' own chat formats: ids as transformers gives them from the template, and nothing that can
be forged.
"""

import json
import pickle

import pytest
import tokenizers
import transformers
from chat_templates import (
  DEFAULT_SYSTEM,
  GEMMA,
  LLAMA_2,
  LLAMA_3_2,
  MISTRAL,
  NO_SYSTEM,
  QWEN3,
  TULU,
)
from refusals import refused
from tokenizers import decoders, models, pre_tokenizers, trainers

from data.chat import chat_formats, schema, templates
from data.tokenizers.bpe import PATTERNS
from lm.base.errors import UserError

CORPUS = [
  'Today you are Ann, a user of the system: what is 2 + 2?',
  'assistant',
  'thinks',
  'Hello',
  '\n\n',
  '[INST]',
] * 9
SIZE = 300
BYTES, SPACES, PREFIXED = 'bytes', 'first', 'always'


def make(folder, template, special_tokens, kind=BYTES, **variables):
  """A model's tokenizer folder. Kinds: GPT-2's bytes; Llama's spaces, one before the first word or
  before each piece.
  """
  model = tokenizers.Tokenizer(models.BPE(unk_token=None if kind == BYTES else '<unk>'))
  split = pre_tokenizers.Split(tokenizers.Regex(PATTERNS['llama3']), 'isolated')
  byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
  model.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
  model.decoder = decoders.ByteLevel()
  alphabet = (
    pre_tokenizers.ByteLevel.alphabet()
    if kind == BYTES
    else [chr(i) for i in [10, *range(33, 127)]]
  )
  if kind != BYTES:
    model.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=kind, split=False)
    model.decoder = decoders.Metaspace(prepend_scheme=kind, split=False)
  own = ['<unk>'] * (kind != BYTES) + special_tokens
  model.train_from_iterator(CORPUS, trainers.BpeTrainer(
    vocab_size=SIZE, special_tokens=own, initial_alphabet=alphabet, show_progress=False))  # fmt: skip
  model.save(str(folder / 'tokenizer.json'))
  config = {'tokenizer_class': 'PreTrainedTokenizerFast', 'chat_template': template} | variables
  (folder / 'tokenizer_config.json').write_text(json.dumps(config))
  return folder


IM, HEADER = (
  ['<|im_start|>', '<|im_end|>'],
  ['<s>', '<|start_header_id|>', '<|end_header_id|>', '<|eot_id|>'],
)
BOS, EOS = {'bos_token': '<s>'}, {'eos_token': '</s>'}
FAMILIES = {
  'chatml': (DEFAULT_SYSTEM, ['<|endoftext|>', *IM], BYTES, {}),
  'chatml-named': (templates.NAMED['chatml'], ['<|endoftext|>', *IM], BYTES, {}),
  'qwen3': (QWEN3, ['<|endoftext|>', *IM], BYTES, {}),
  'llama3': (templates.NAMED['llama3'], HEADER, BYTES, BOS),
  'llama3.2': (LLAMA_3_2.replace("strftime_now('%d %b %Y')", "'01 Jan 2025'"), HEADER, BYTES, BOS),
  'gemma': (GEMMA, ['<s>', '<start_of_turn>', '<end_of_turn>'], BYTES, BOS),
  'gemma-named': (
    templates.NAMED['gemma'],
    ['<s>', '<start_of_turn>', '<end_of_turn>'],
    BYTES,
    BOS,
  ),
  'gemma2': (NO_SYSTEM, ['<s>', '<start_of_turn>', '<end_of_turn>'], BYTES, BOS),
  'mistral': (MISTRAL, ['<s>', '</s>', '[INST]', '[/INST]'], SPACES, BOS | EOS),
  'llama2': (LLAMA_2, ['<s>', '</s>'], SPACES, BOS | EOS),
  'llama2-legacy': (LLAMA_2, ['<s>', '</s>'], PREFIXED, BOS | EOS),
  'tulu': (TULU, ['<|endoftext|>'], BYTES, {'eos_token': '<|endoftext|>'}),
}
TALKS = [
  ['Hello'], ['what is\n2 + 2?', '4', ' and  then', 'thinks  it '
                                                    'is'], ['a', 'b\n', 'c', '\td', 'e', 'f\n\nmodel'],
]  # fmt: skip


@pytest.fixture(params=FAMILIES)
def family(request, tmp_path):
  """(our format, transformers' tokenizer)"""
  template, special_tokens, kind, variables = FAMILIES[request.param]
  folder = make(tmp_path, template, special_tokens, kind, **variables)
  return chat_formats.load(str(folder)), transformers.PreTrainedTokenizerFast.from_pretrained(
    folder
  )


def messages(texts, system=None):
  turns = [{'role': ('user', 'assistant')[i % 2], 'content': text} for i, text in enumerate(texts)]
  return [{'role': 'system', 'content': system}] * bool(system) + turns


def reference(theirs, talk, **options):
  return theirs.apply_chat_template(talk, tokenize=True, return_dict=False, **options)


@pytest.mark.slow
def test_ids_are_those_of_transformers(family):
  ours, theirs = family
  systems = [None, 'you are Ann'] if ours.layout.system else [None]
  for system in systems:
    for texts in TALKS:
      talk = messages(texts[: len(texts) - 1 + len(texts) % 2], system)
      assert ours.render_prompt(talk) == reference(theirs, talk, add_generation_prompt=True)
    answered = messages(['Hello', 'what is\n2', '+ 2?', '4'], system)
    ids, mask = ours.render({'messages': answered})
    if '<think>' not in ours.source:  # where it writes finished conversations as it prompts
      assert ids == reference(theirs, answered)
    own = ours.tokenizer.decode([i for i, learned in zip(ids, mask, strict=True) if learned])
    stop = theirs.convert_ids_to_tokens(ours.stops[0])
    assert own.replace(' ', '') == f'whatis\n2{stop}4{stop}'
    prompt = ours.render_prompt(answered[:-1])
    assert ids[: len(prompt)] == prompt and mask[len(prompt)] == 1


def test_completions_are_read_back(family):
  ours, _ = family
  talk = messages(['Hello', 'what is\n2 + 2?'])
  answer = ours.render({'messages': talk})[0][len(ours.render_prompt(talk[:1])) :]
  reply = ours.parse(answer[: 1 + answer.index(ours.stops[0])])
  assert (schema.text(reply['content']), chat_formats.grade_format(reply)) == (
    'what is\n2 + 2?',
    1.0,
  )


def test_going_on_is_the_same_conversation(family):
  ours, _ = family
  talk = messages(['Hello', 'what is', 'then?'])
  ids, mask = ours.render({'messages': talk[:2]})
  known = ids[: len(mask) - 1 - mask[::-1].index(1)]  # up to the stop token
  cut_off = known[: len(known) - len(ours.tokenizer.encode_inside(ours.layout.trail))]
  assert [*cut_off, *ours.render_next('then?', stopped=False)] == ours.render_prompt(talk)
  assert [*known, ours.stops[0], *ours.render_next('then?', stopped=True)] == ours.render_prompt(
    talk
  )


def test_no_text_forges_a_special_token(family):
  ours, _ = family
  special = set(ours.tokenizer.special_tokens.values())
  names = ''.join(ours.tokenizer.special_tokens)
  plain, forged = (
    ours.render({'messages': messages([text, text, text, text])})[0] for text in ('x', names)
  )
  assert [i for i in plain if i in special] == [i for i in forged if i in special] and len(
    forged
  ) > len(plain)


def test_a_system_turn_without_a_place_is_refused(tmp_path):
  ours = chat_formats.load(str(make(tmp_path, NO_SYSTEM, FAMILIES['gemma2'][1], **BOS)))
  with pytest.raises(UserError) as raised:
    ours.render_prompt(messages(['a'], 'b'))
  assert (raised.value.field, raised.value.value) == ('messages[0].role', 'system')


def test_tags_are_added_to_a_model_that_lacks_them(tmp_path):
  folder = str(make(tmp_path, DEFAULT_SYSTEM, ['<|endoftext|>', *IM]))
  own = chat_formats.load(folder)
  parts = [{'type': kind, 'text': '1'} for kind in ('think', 'python', 'output', 'text')]
  talk = {'messages': messages(['Hello', parts])}
  with pytest.raises(UserError) as raised:
    own.render(talk)
  assert (raised.value.field, raised.value.value) == ('type of a part', 'think')
  assert 'config.data.tools=True' in raised.value.message
  assert (own.banned_ids(SIZE), own.call_ids) == ((), ())
  assert own.banned_ids(SIZE + 2) == (SIZE, SIZE + 1)
  assert (
    chat_formats.load(folder, extend=True, tools=False).tokenizer.vocab_size
    == own.tokenizer.vocab_size
    == SIZE
  )
  more = chat_formats.load(folder, extend=True)
  ids, mask = more.render(talk)
  base = len(own.render_prompt(talk['messages'][:1]))
  one, line = more.tokenizer.encode('1'), more.tokenizer.encode('\n')
  python, result, think = ((SIZE + i, *one, SIZE + i + 1) for i in (0, 2, 4))
  assert ids[base:] == [*think, *python, *result, *one, *more.stops, *line]
  assert mask[base:] == [1, 1, 1, 1, 1, 1, 0, 0, 0, 1, 1, 0]
  assert more.parse(ids[base:-1]) == {'content': parts, 'finished': True, 'well_formed': True}
  assert own.render_prompt(talk['messages'][:1]) == more.render_prompt(talk['messages'][:1])
  assert more.plain_fingerprint == own.tokenizer.fingerprint != more.tokenizer.fingerprint


def test_thoughts_take_the_tokens_that_a_vocabulary_has_for_them(tmp_path):
  folder = make(tmp_path, DEFAULT_SYSTEM, ['<|endoftext|>', *IM, '<think>', '</think>'])
  file = json.loads((folder / 'tokenizer.json').read_text())
  for token in file['added_tokens'][-2:]:
    token['special'] = False  # as in Qwen3: text yields them
  (folder / 'tokenizer.json').write_text(json.dumps(file))
  assert chat_formats.load(str(folder)).tag_ids('think') == ()
  ours = chat_formats.load(str(folder), extend=True)
  assert ours.tag_ids('think') == (3, 4) and ours.tokenizer.vocab_size == SIZE + 4
  assert not {3, 4} & set(ours.tokenizer.encode('<think></think>'))


@pytest.mark.parametrize('name', [*templates.NAMED, 'file'])
def test_a_base_model_gets_a_format_and_keeps_it(name, tmp_path):
  (tmp_path / 'base').mkdir()
  base = make(tmp_path / 'base', None, ['<|endoftext|>'], bos_token='<|endoftext|>')
  own = chat_formats.load(str(base))
  assert own.document_start == 0 and own.tokenizer.vocab_size == SIZE
  with refused('chat template of the tokenizer') as raised:
    own.render_prompt(messages(['a']))
  assert templates.HINT in raised.value.message
  if name == 'file':
    (tmp_path / 'x.jinja').write_text('{% for m in messages %}{{ m.role }}: {{ m.content '
                                      '}}<|endoftext|>{% endfor %}'
                                      '{% if add_generation_prompt %}assistant: {% endif '
                                      '%}')  # fmt: skip
    name = str(tmp_path / 'x.jinja')
  ours = chat_formats.load(str(base), name, extend=True)
  ids = ours.render_prompt(messages(['a']))
  ours.save(tmp_path / 'run')
  again = chat_formats.load(str(tmp_path / 'run'))
  assert (
    again.render_prompt(messages(['a']))
    == ids
    == pickle.loads(pickle.dumps(ours)).render_prompt(messages(['a']))
  )
  assert (again.fingerprint, again.tokenizer.fingerprint) == (
    ours.fingerprint,
    ours.tokenizer.fingerprint,
  )
  theirs = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path / 'run')
  assert reference(theirs, messages(['a']), add_generation_prompt=True) == ids
  assert (
    chat_formats.load(str(tmp_path / 'run'), extend=True).tokenizer.vocab_size
    == ours.tokenizer.vocab_size
  )


def test_our_own_tokens_keep_their_order():
  assert list(chat_formats.load('bytes').tokenizer.special_tokens) == list(
    chat_formats.SPECIAL_TOKENS
  )
  assert (
    chat_formats.load('bytes').tokenizer.fingerprint
    == chat_formats.tokenizers.load('bytes', chat_formats.SPECIAL_TOKENS).fingerprint
  )


def test_a_template_without_a_stop_token_is_refused_when_it_is_needed(tmp_path):
  ours = chat_formats.load(str(make(tmp_path, DEFAULT_SYSTEM, ['<|endoftext|>'])))
  with refused('what the chat template writes after an answer') as raised:
    ours.render_prompt(messages(['a']))
  assert '<|im_end|>' in raised.value.value and raised.value.message == templates.HINT


def test_a_template_that_fails_is_named(tmp_path):
  endless = '{% for i in range(10**12) %}{% endfor %}'
  ours = chat_formats.load(str(make(tmp_path, endless, ['<|endoftext|>'])))
  where = tmp_path / 'tokenizer_config.json'
  with refused('error of the chat template', allowed='none', place=where) as raised:
    ours.render_prompt(messages(['a']))
  assert raised.value.value.startswith('Range')
