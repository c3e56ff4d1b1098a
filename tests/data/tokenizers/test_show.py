import re

import pytest
from texts import sentencepiece_model

from data.tokenizers import loading as ours
from data.tokenizers.bpe import BPE, PATTERNS
from data.tokenizers.show import show
from lm.base.errors import UserError


def test_show():
  tokens = [*(bytes([b]) for b in range(256)), b'th', b'the', b' t', b'ex', b' tex', b' text']
  tokenizer = BPE(PATTERNS['gpt2'], {token: i for i, token in enumerate(tokens)}, ())
  shown = show(tokenizer, 'the text', merges=True)
  assert re.sub(r'\x1b\[[0-9;]*m', '', shown).split('\n') == [
    'the text',
    "     257 'the'",
    "     261 ' text'",
    '     257 t h e -> th e -> the',
    '     261 Ġ t e x t -> Ġt e x t -> Ġt ex t -> Ġtex t -> Ġtext',
    '2 tokens, 8 bytes, 4.00 bytes per token',
  ]
  assert "     195 b'\\xc3'" in show(ours.load('bytes'), 'aÃ') and "      97 'a'" in show(
    ours.load('bytes'), 'aÃ'
  )


@pytest.mark.slow
def test_show_other_kinds(tmp_path):
  lossy = {
    'byte_fallback': False,
    'normalization_rule_name': 'nmt_nfkc',
    'remove_extra_whitespaces': True,
  }
  (tmp_path / 'x.model').write_bytes(sentencepiece_model(**lossy))
  tokenizer = ours.load(tmp_path / 'x.model')
  assert "decodes to 'a b'" in show(tokenizer, 'a  b') and 'decodes' not in show(tokenizer, 'a b')
  with pytest.raises(UserError) as raised:
    show(tokenizer, 'a b', merges=True)
  assert raised.value.field == '--merges'
