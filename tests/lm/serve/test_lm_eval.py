"""EleutherAI's lm-eval against /v1/completions, beside the model's own forward pass.

It needs the package lm_eval with its extra `api`, which is no extra of ours.
"""

import json
import math

import jax
import numpy as np
import pytest
import serving
from serving import FORMAT, TOKENIZER

pytest.importorskip('lm_eval')

TEXTS = ['the cat sat on the mat', 'ab', 'a longer line, with Ünïcode €']
QUESTIONS = [
  {'question': 'one and one is', 'choices': ['two', 'seven', 'x'], 'answer': 0},
  {'question': 'the sky is', 'choices': ['blue', 'a big fish'], 'answer': 1},
]
BITS = """
task: tiny_bits
dataset_path: json
dataset_kwargs: {{data_files: {{test: {texts}}}}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{{{text}}}}"
metric_list: [{{metric: bits_per_byte}}]
"""
CHOICE = """
task: tiny_choice
dataset_path: json
dataset_kwargs: {{data_files: {{test: {questions}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{answer}}}}"
metric_list: [{{metric: acc}}]
"""


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore')
def test_lm_eval_gives_the_scores_of_the_models_own_forward_pass(
  random_model, forward, tmp_path, monkeypatch
):
  from lm_eval import evaluator, tasks

  monkeypatch.setenv('HF_DATASETS_OFFLINE', '1')
  monkeypatch.setenv('HF_HOME', str(tmp_path / 'home'))
  FORMAT.save(tmp_path / 'tokenizer')
  rows = {'texts': [{'text': text} for text in TEXTS], 'questions': QUESTIONS}
  files = {name: tmp_path / f'{name}.jsonl' for name in rows}
  for name, file in files.items():
    file.write_text(''.join(f'{json.dumps(row)}\n' for row in rows[name]))
  (tmp_path / 'tasks').mkdir()
  (tmp_path / 'tasks' / 'bits.yaml').write_text(BITS.format(**files))
  (tmp_path / 'tasks' / 'choice.yaml').write_text(CHOICE.format(**files))

  def score(prompt, answer):
    """The log-probability of an answer behind a prompt, in one pass without a cache."""
    ids = [*prompt, *answer]
    logits = forward(random_model.config, random_model.params, np.array([ids], np.int32))[0]
    table = np.asarray(jax.nn.log_softmax(logits))
    return sum(float(table[i - 1, ids[i]]) for i in range(len(prompt), len(ids)))

  model = serving.served(random_model.config, random_model.params)
  with serving.listening_at(serving.application(model)) as address:
    arguments = {
      'model': 'tiny',
      'base_url': f'{address}/v1/completions',
      'tokenizer': str(tmp_path / 'tokenizer'),
      'max_length': serving.CAPACITY - 1,
      'num_concurrent': 2,
      'max_retries': 1,
    }
    result = evaluator.simple_evaluate(
      model='local-completions',
      model_args=','.join(f'{name}={value}' for name, value in arguments.items()),
      tasks=['tiny_bits', 'tiny_choice'],
      task_manager=tasks.TaskManager(include_path=str(tmp_path / 'tasks')),
      bootstrap_iters=0,
      log_samples=True,
    )
  start = [FORMAT.document_start]
  nats = -sum(score(start, TOKENIZER.encode(text)) for text in TEXTS)
  size = sum(len(text.encode()) for text in TEXTS)
  bits = result['results']['tiny_bits']['bits_per_byte,none']
  assert math.isclose(bits, nats / math.log(2) / size, rel_tol=1e-4)
  scores = [
    [score(TOKENIZER.encode(q['question']), TOKENIZER.encode(f' {c}')) for c in q['choices']]
    for q in QUESTIONS
  ]
  samples = sorted(result['samples']['tiny_choice'], key=lambda sample: sample['doc_id'])
  for sample, expected in zip(samples, scores, strict=True):
    told = [response[0][0] for response in sample['resps']]
    np.testing.assert_allclose(told, expected, rtol=1e-4)
  right = [int(np.argmax(s) == q['answer']) for s, q in zip(scores, QUESTIONS, strict=True)]
  assert result['results']['tiny_choice']['acc,none'] == np.mean(right)
