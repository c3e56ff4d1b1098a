"""The whole recipe on two CPU cores, from crawling the web to a chat model and its report.

The steps are crawl, clean, tokenizer, tokenize, pretrain, sft, rl and report.

Command:   python train.py --config=configs/quickstart.py [--workdir=runs/quickstart]
Hardware:  two CPU cores, 6 GB of memory.
Result:    runs/quickstart/report.html. Measured on 2026-11-30, after RL: the calculator right in
           1.0 (n=300; 49 of 50 in a fifth turn), identity .95 (.96, .94, .94 in three turns),
           made-up names refused .89 and existing ones .03, spelling .66, arithmetic .97.
           Functions' modules from memory: .04. In an earlier run, sums at temperature 1, pass@1, 4
           and 16 of 16 samples (n=100): pretrained .00, .01, .02; fine-tuned .18, .51, .90; after
           RL .95, 1.0, 1.0 (eval.py, --config.eval.pass_at=1,4,16).
Time:      20 minutes on two cores alone, 36 of one core.
:smoke     every step, on fewer pages and with fewer updates: under two minutes.
"""

from configs import base
from data.crawling.pydoc_server import PYDOC_EXCLUDE
from lm.base.config import variant


def get_config(arg=None):
  c = base.get_recipe()
  c.workdir = 'runs/quickstart'
  c.crawl.exclude = PYDOC_EXCLUDE
  # The published thresholds are for prose, but reference pages are lists of short entries, and they
  # repeat what they inherit.
  c.clean.url_lists = False  # the lists take 800 MB, and no page of this site can match them
  c.clean.extractor = 'resiliparse'
  c.clean.languages.en = 0.3
  c.clean.passage_lines = 3
  c.clean.words = 'whitespace'  # a third of reference pages is punctuation
  c.clean.gopher_repetition.update(
    max_line_share=None,
    max_paragraph_share=None,
    max_line_char_share=0.3,
    max_paragraph_char_share=0.3,
    max_top_ngram_char_share=(0.4, 0.36, 0.32),
    max_duplicate_ngram_char_share=(),
  )
  c.clean.gopher_quality.update(min_words=40, max_word_length=14.0, min_alphabetic_words=0.65)
  c.clean.c4_lines.update(min_line_words=0, max_word_chars=0, lines_with=(), strip_citations=False)
  c.clean.c4.update(min_sentences=None, max_curly_brackets=None, max_lorem_ipsum=None)
  c.clean.fineweb.update(
    min_punctuated_lines=0.05, max_short_lines=0.8, max_lines_per_word=0.5, max_line_char_share=0.3
  )
  c.clean.cluster_similarity = 0.5  # no held-out page resembles a training page

  # With few merges each token is in many words, from which a model learns how to spell it: 8,000
  # demonstrations show all tokens of a held-out word ten times or more for 77 % of 470 such words,
  # and for 57 % with a vocabulary of 4,096.
  c.tokenizer.vocab_size = 2048

  for stage in (c.pretrain, c.sft, c.rl):
    stage.seq_len = 256
    stage.model.update(
      num_layers=4,
      embed_dim=256,
      num_heads=4,
      num_kv_heads=2,
      head_dim=64,
      mlp_dim=512,
      qk_norm='head',
      max_len=512,
      scan_layers=False,
    )
    stage.loss.chunk = 1024
    stage.eval.update(
      tasks='arithmetic,calculator,identity,refusal,spelling,docs',
      examples=300,
      batch_size=50,
      turns=5,
      max_new_tokens=40,
    )
    stage.optim.update(name='muon', lr=3e-3, muon_lr=0.02, warmup=10, schedule='wsd', decay=0.5)
    stage.checkpoint.every = 50

  c.pretrain.steps, c.pretrain.batch_size = 130, 16
  c.pretrain.eval.update(every=65, turns=1, prompts=('This module', 'Return the'), baselines=True)
  c.pretrain.eval.examples = 50  # it answers nothing yet

  # A model learns to copy from the calculator first, digit by digit, and then names and letters.
  c.sft.data.tasks = 'calculator:4,spelling:7,arithmetic:2,docs:1,refusal:4,identity:5'
  c.sft.data.examples, c.sft.data.turns = 32_000, 5
  c.sft.steps, c.sft.batch_size = 480, 8
  c.sft.eval.update(every=240, examples=150)

  c.rl.data.tasks = 'arithmetic'
  c.rl.steps, c.rl.batch_size, c.rl.microbatches = 12, 128, 4
  c.rl.rl.max_new_tokens = 24
  c.rl.rl.kl = 0.2  # keeps the model from unlearning what it does not practise
  c.rl.log_every = 1
  c.rl.checkpoint.every = 6
  c.rl.optim.update(name='adamw', lr=7e-5, warmup=2, schedule='constant', weight_decay=0.0)
  if variant(arg) == 'smoke':
    c.workdir = 'runs/quickstart-smoke'
    c.crawl.max_pages = 80
    c.tokenizer.vocab_size, c.pretrain.batch_size = 1024, 8
    for stage in (c.pretrain, c.sft, c.rl):
      stage.seq_len = 192
      stage.model.update(num_layers=2, embed_dim=64, num_heads=2, mlp_dim=192)
      stage.steps, stage.optim.warmup, stage.checkpoint.every = 12, 2, 4
      stage.eval.update(examples=10, batch_size=10, every=12, max_new_tokens=24)
    c.sft.data.examples = 500
    c.rl.steps, c.rl.batch_size, c.rl.optim.warmup, c.rl.checkpoint.every = 3, 32, 1, 1
    c.rl.rl.max_new_tokens = 16
  return c
