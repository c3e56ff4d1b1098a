"""Chat templates of the shapes of the known model families, in words of our own."""

TURNS = (
  "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>{{ '\n' }}{% endfor %}"
)
PROMPT = "{% if add_generation_prompt %}<|im_start|>assistant{{ '\n' }}{% endif %}"
DEFAULT_SYSTEM = (
  "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are Ann.<|im_end|>{{ '\n' }}{% "
  'endif %}' + TURNS + PROMPT
)
GEMMA = """
{{- bos_token }}
{%- set ns = namespace(system='') %}
{%- if messages[0].role == 'system' %}
  {%- set ns.system = messages[0].content | trim + '\n\n' %}
  {%- set messages = messages[1:] %}
{%- endif %}
{%- for m in messages %}
  {%- if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('user and assistant alternate') }}{% endif %}
  {{- '<start_of_turn>' + m.role.replace('assistant', 'model') + '\n' }}
  {{- (ns.system if loop.first else '') + m.content | trim + '<end_of_turn>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
  {{- '<start_of_turn>model\n' }}
{%- endif %}"""
NO_SYSTEM = (
  "{% if messages[0].role == 'system' %}{{ raise_exception('no system turn') }}{% endif %}" + GEMMA
)
MISTRAL = """
{{- bos_token }}
{%- for m in messages %}
  {%- if m.role == 'user' %}
    {%- if loop.last and messages[0].role == 'system' %}
      {{- '[INST] ' + messages[0].content + '\n\n' + m.content + ' [/INST]' }}
    {%- else %}
      {{- '[INST] ' + m.content + ' [/INST]' }}
    {%- endif %}
  {%- elif m.role == 'assistant' %}
    {{- ' ' + m.content | trim + eos_token }}
  {%- endif %}
{%- endfor %}"""
LLAMA_2 = """
{%- for m in messages if m.role != 'system' %}
  {%- set system = '' %}
  {%- if loop.first and messages[0].role == 'system' %}
    {%- set system = '<<SYS>>\n' + messages[0].content + '\n<</SYS>>\n\n' %}
  {%- endif %}
  {%- if m.role == 'user' %}{{ bos_token + '[INST] ' + (system + m.content) | trim + ' [/INST]' }}
  {%- else %}{{ ' ' + m.content | trim + ' ' + eos_token }}
  {%- endif %}
{%- endfor %}"""
TULU = """
{%- for m in messages %}
  {{- '<|' + m.role + '|>\n' + m.content }}
  {%- if m.role == 'assistant' %}{{ eos_token }}{% endif %}
  {%- if not loop.last or m.role != 'assistant' %}{{ '\n' }}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"""
LLAMA_3_2 = """
{{- bos_token }}
{%- set system = '' %}
{%- if messages[0].role == 'system' %}{% set system = messages[0].content | trim %}{% set messages = messages[1:] %}{% endif %}
{{- '<|start_header_id|>system<|end_header_id|>\n\nToday: ' + strftime_now('%d %b %Y') + '\n\n' + system + '<|eot_id|>' }}
{%- for m in messages %}
  {%- generation %}
  {{- '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' + m.content | trim + '<|eot_id|>' }}
  {%- endgeneration %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"""
# An empty thought before the last answer of a finished conversation alone.
QWEN3 = (
  """
{%- for m in messages %}
  {{- '<|im_start|>' + m.role + '\n' + ('<think>\n\n</think>\n\n' if loop.last and m.role == 'assistant' else '') }}
  {{- m.content + '<|im_end|>\n' }}
{%- endfor %}"""
  + PROMPT
)
