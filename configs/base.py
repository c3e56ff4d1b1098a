"""Every config field once, with its unit and meaning. Other files change fields of it and add none.

The fields of web cleaning stand in configs/data/fineweb.py.

`get_config()` describes one training run (`stage` = pretrain | sft | rl); `get_recipe()` describes
a whole road, a list of stages with a training config for each training stage. Nothing here imports
jax.
"""

from ml_collections import ConfigDict

from configs.data import fineweb
from lm.base.config import Tracked

# The model of the :smoke variants: for bytes, on a CPU.
TINY = {
  'vocab_size': 0,
  'num_layers': 2,
  'embed_dim': 64,
  'num_heads': 4,
  'num_kv_heads': 2,
  'head_dim': 16,
  'mlp_dim': 192,
  'max_len': 256,
  'dtype': 'float32',
  'remat': 'none',
  'attention': 'reference',
  'mlp_blocks': 1,
}

# Fields, and parts, that may differ when a run goes on from its checkpoint. They say what is
# recorded and measured beside training, or where and in which order the same numbers are computed:
# batches, parameters and the optimizer's state do not depend on them, except that sums of
# floating-point numbers may be rounded otherwise. All other fields are compared.
FREE_ON_RESUME = (
  'log_every', 'checkpoint', 'eval',  # recorded and measured
  'data.cache',  # copies of the same bytes
  # rows are summed over devices and microbatches before anything is divided
  'mesh', 'microbatches',
  'loss.chunk', 'loss.vocab_blocks', 'model.mlp_blocks',  # the same sums in parts
  'model.attention', 'model.scan_layers', 'model.remat',  # the same function, compiled otherwise
)  # fmt: skip


def get_config() -> ConfigDict:
  """One training run: python train.py --config=configs/pretrain.py --workdir=DIR
  [--config.optim.lr=1e-3 ...]
  """
  c = ConfigDict()
  c.stage = 'pretrain'  # which step trains: pretrain | sft | rl
  c.seed = 0  # of initialisation, data order and sampling
  # to take parameters from: a run, step, recipe or Hugging Face folder; smollm2; '' starts from
  # scratch
  c.init_from = ''
  c.steps = 1000  # updates
  c.batch_size = 32  # rows in one update over all devices (rl: prompts x rl.group_size)
  c.microbatches = 1  # one update's rows are processed in this many parts, their gradients added
  c.seq_len = 1024  # tokens in a row

  c.data = ConfigDict()
  # see data/tokenizers/loading.py: bytes | a rank file | tokenizer.json | a SentencePiece .model
  c.data.tokenizer = 'bytes'
  # auto (the tokenizer folder's template, else deepdive) | deepdive | chatml | llama3 | X.jinja
  c.data.chat_format = 'auto'
  # sft, rl: add the tags of tool calls and thoughts to a tokenizer that lacks them (deepdive:
  # always)
  c.data.tools = True
  # token shards (manifest.json, or several between commas), or text or JSONL files (globs) to
  # tokenize
  c.data.train = ''
  # of several manifests, in their order: 'W,W', or from given steps on '0:W,W;1000:W,W'
  c.data.weights = ''
  c.data.val = ''  # likewise, held out; '' with text input: data.held_out of the training documents
  # share of documents held out when text is tokenized at start; for data.documents: as it was
  c.data.held_out = 0.05
  # folder into which token shards of a bucket are copied when first read; '':
  # ~/.cache/deepdive/shards
  c.data.cache = ''
  # cleaned documents (JSONL) that tasks like docs, refusal and spelling are made from
  c.data.documents = ''
  # word problems (files or globs of JSONL with question and answer, as GSM8K's) of the task gsm8k
  c.data.gsm8k = ''
  c.data.gsm8k_test = ''  # likewise, for its test problems; '': one in eight of data.gsm8k
  # NAME,...: what rl practises, in turn; NAME[:WEIGHT],...: what sft shows, where data.train is ''
  c.data.tasks = ''
  # of the problems' generators; one number for sft, rl and evaluation keeps test problems unseen
  c.data.task_seed = 0
  c.data.examples = 10_000  # sft: demonstrations to make at start when data.train is ''
  c.data.turns = 3  # sft: most questions in one conversation of these; 1, 2, ... are equally likely

  c.model = ConfigDict()
  c.model.vocab_size = 0  # 0: the tokenizer's
  c.model.num_layers = 12
  c.model.embed_dim = 768  # width of the residual stream
  c.model.num_heads = 12  # query heads
  c.model.num_kv_heads = 12  # key/value heads; a divisor of num_heads (grouped-query attention)
  c.model.head_dim = 64
  c.model.mlp_dim = 3072
  c.model.activation = 'swiglu'  # swiglu | geglu | gelu | relu2
  c.model.norm = 'rmsnorm'  # rmsnorm | layernorm
  c.model.norm_eps = 1e-5
  c.model.position = 'rope'  # rope | learned
  c.model.rope_theta = 10_000.0
  c.model.rope_theta_window = 0.0  # of window layers, which are then never scaled; 0: as the others
  # none | linear | llama3: stretches positions to contexts longer than first trained on
  c.model.rope_scaling = 'none'
  c.model.rope_factor = 1.0  # by how much
  # llama3: pairs that turn less often than this in rope_original_len are stretched
  c.model.rope_low_freq_factor = 1.0
  c.model.rope_high_freq_factor = 4.0  # those that turn more often than this are not
  c.model.rope_original_len = 0  # tokens
  # longest context, tokens: rows of the learned position table, capacity of a chat
  c.model.max_len = 1024
  # attention, repeated over the layers: full | window | nope (full, without positions)
  c.model.layer_types = ('full',)
  c.model.window = 0  # tokens that a window layer sees, its own included
  c.model.attention_scale = 0.0  # scores are multiplied by it; 0: head_dim ** -0.5
  c.model.attention_softcap = 0.0  # scores are squeezed below this; 0: not
  c.model.attention_bias = 'none'  # biases on the projections: none | qkv | all (output too)
  # RMSNorm of queries and keys: none | head (each by itself) | projection (all heads together)
  c.model.qk_norm = 'none'
  # pre | post (what a block adds is normed, not what it reads) | both
  c.model.norm_position = 'pre'
  c.model.norm_offset = False  # norms multiply by 1 + scale
  c.model.mlp_bias = False
  # parts of the feed-forward block that are computed one after the other: less memory for more
  c.model.mlp_blocks = 1
  # routed feed-forward blocks of width mlp_dim in each layer; 0: one, dense
  c.model.num_experts = 0
  c.model.experts_per_token = 2
  c.model.normalize_experts = True  # the weights of a token's experts add up to 1
  c.model.scale_embeddings = False  # token embeddings are multiplied by sqrt(embed_dim)
  c.model.logit_softcap = 0.0  # logits are squeezed below this; 0: not
  c.model.tie_embeddings = True  # the output head is the embedding table
  # of embeddings and matrices; residual outputs get init_std / sqrt(2 num_layers)
  c.model.init_std = 0.02
  c.model.param_dtype = 'float32'
  # of activations and matrix products; softmax, norms and logits stay float32
  c.model.dtype = 'float32'
  # loop over one compiled layer (fast compile) or unroll all (fast on CPU); same parameters
  c.model.scan_layers = True
  # of whole rows: reference | ring (over mesh.context) | splash (TPU) | cudnn (GPU)
  c.model.attention = 'reference'
  # what the backward pass recomputes: none | full | dots (matrix products are kept)
  c.model.remat = 'none'

  c.loss = ConfigDict()
  c.loss.chunk = 4096  # tokens whose logits exist at one time
  # > 0: logits of all tokens but of one such part of the vocabulary (for a head that is sharded)
  c.loss.vocab_blocks = 0
  # weight of the experts' load balance in pretraining and SFT (Switch, arXiv 2101.03961)
  c.loss.balance = 0.01
  # weight of log(Z)^2, keeps logits from drifting (PaLM, arXiv 2204.02311, section 5)
  c.loss.z_loss = 0.0

  c.optim = ConfigDict()
  c.optim.name = 'adamw'  # adamw | muon (matrices of the layers by Muon, all else by AdamW)
  c.optim.lr = 6e-4  # peak, AdamW
  c.optim.muon_lr = 0.02  # peak, Muon's matrices
  c.optim.b1 = 0.9
  c.optim.b2 = 0.95
  c.optim.eps = 1e-8
  c.optim.weight_decay = 0.1  # on matrices only: never on norms, biases or the position table
  c.optim.clip = 1.0  # largest global gradient norm; 0 is no limit
  c.optim.schedule = 'cosine'  # cosine | wsd (warm-up, stable, linear decay) | constant
  # updates of linear warm-up, the first at peak / (warmup + 1); cut to steps - 1
  c.optim.warmup = 100
  c.optim.decay = 0.2  # wsd: share of all updates in the final decay
  c.optim.final_lr = 0.0  # end of the schedule, as a share of the peak

  c.mesh = ConfigDict()  # devices along each axis; -1 once: all that are left
  # slices of a TPU, or groups of hosts, joined by a slow network; replicas of the parameters
  c.mesh.dcn = 1
  c.mesh.data = -1  # replicas of the parameters
  c.mesh.fsdp = 1  # shards of the parameters along embed; also splits the batch
  c.mesh.expert = 1  # shards of the experts; also splits the batch
  c.mesh.context = 1  # shards of each row along its length
  c.mesh.tensor = 1  # shards of heads, feed-forward and vocabulary

  c.checkpoint = ConfigDict()
  c.checkpoint.every = 500  # updates; one is always written after the last update
  c.checkpoint.keep_last = 2
  c.checkpoint.keep_every = 0  # also keep those at multiples of this step; 0: none
  # NAME,...: what may differ from the checkpoint on resume: fields or
  c.checkpoint.allow_mismatch = ''
  # parts of the config (optim.lr, optim; data and init_from with what they name), config, code,
  # tokenizer

  c.faults = ConfigDict()
  # loss or gradient not finite, or a spike: stop | skip (no update) | rewind (to the last
  c.faults.on_bad_step = 'stop'
  # checkpoint, and leave out the batches read since)
  # a loss above this many times the median of the last 64 is a spike; 0: none is
  c.faults.spike = 0.0
  c.faults.max_bad_steps = 20  # skipped or rewound in the whole run; one more stops it

  c.log_every = 10  # updates
  c.eval = ConfigDict()
  # updates between evaluations of bits per byte; always done at the start and the end
  c.eval.every = 250
  c.eval.batch_size = 32  # rows
  c.eval.tasks = ''  # NAME,... from data/tasks, scored at the end on their test problems
  # updates between scorings of these tasks in training, logged as eval/TASK/accuracy; 0: at the end
  # alone
  c.eval.tasks_every = 0
  c.eval.examples = 200  # problems per task
  c.eval.turns = 1  # questions in a conversation; each turn is scored too if there are 2 or more
  c.eval.max_new_tokens = 64  # longest reply
  c.eval.prompts = ()  # texts continued at the start and at the end of pretraining, for the eye
  # at the end, estimate unigram, bigram, gzip and xz on what the network was trained on
  c.eval.baselines = False

  c.preference = ConfigDict()
  c.preference.beta = 0.1  # strength of the pull towards the starting model, 1 / nats

  c.rl = ConfigDict()
  c.rl.group_size = 16  # samples of one prompt
  c.rl.max_new_tokens = 64  # longest answer
  c.rl.temperature = 1.0  # the trainer scores at the same temperature
  # updates on one batch of samples; metrics are their means, rl/sampler_gap the first's
  c.rl.inner_updates = 1
  # advantage divided by its group's standard deviation (GRPO) or not (Dr. GRPO)
  c.rl.normalize_std = True
  # the ratio of new to old probability is clipped to [1 - clip_low, 1 + clip_high]
  c.rl.clip_low = 0.2
  c.rl.clip_high = 0.28
  # weight of the KL divergence to the starting model; 0: groups of equal rewards are not computed
  c.rl.kl = 0.0
  # added to the grade when the reply is well-formed and ended by its stop token
  c.rl.format_reward = 0.0
  # remembers what is set from here on: a checkpoint's model has to agree
  c.model = Tracked(c.model)
  return c


def smoke(c: ConfigDict) -> None:
  """Makes a pretraining config one for a first look: a tiny model of its kind, on this repository's
  own source, as bytes.
  """
  c.data.train, c.data.tokenizer = 'lm/*/*.py,data/*/*.py', 'bytes'
  c.steps, c.batch_size, c.microbatches, c.seq_len = 20, 8, 2, 128
  c.model.update(TINY)
  c.loss.vocab_blocks = 0
  c.mesh.update(data=-1, fsdp=1)
  c.optim.update(lr=1e-2, warmup=5)
  c.eval.update(every=10, batch_size=8, prompts=('def main',), max_new_tokens=32)
  c.checkpoint.every, c.log_every = 10, 5


def get_recipe() -> ConfigDict:
  """A whole road: python train.py --config=configs/quickstart.py [--workdir=runs/quickstart]"""
  c = ConfigDict()
  c.stage = 'recipe'
  c.stages = ('crawl', 'clean', 'tokenizer', 'tokenize', 'pretrain', 'sft', 'rl', 'report')
  c.workdir = 'runs/recipe'  # used when --workdir is not given

  c.crawl = ConfigDict()
  # where to start; '': the standard library's documentation server, started for the crawl
  c.crawl.url = ''
  # most pages to ask for; redirects, error pages and pages that fail count
  c.crawl.max_pages = 1000
  c.crawl.max_depth = 0  # most links to follow from the first page to another; 0: no limit
  # seconds between two requests; the host can only raise it. The server of our own needs none
  c.crawl.delay = 1.0
  c.crawl.retries = 3  # further attempts after a failure
  c.crawl.timeout = 30.0  # seconds for one whole response
  # pages that are longer, as sent or decoded, are recorded as faults
  c.crawl.max_bytes = 10_000_000
  c.crawl.exclude = ''  # regular expression; URLs that it finds a match in are not fetched
  c.crawl.contact = ''  # URL or address of whoever answers for the crawl; sent with each request

  c.clean = fineweb.get_config()  # its fields and thresholds are in configs/data/fineweb.py

  c.tokenizer = ConfigDict()
  c.tokenizer.vocab_size = (
    4096  # ids learned; the special tokens of data/chat/chat_formats.py come after them
  )
  # share of near-duplicate clusters kept from training, of the tokenizer and of the model
  c.tokenizer.held_out = 0.05

  c.pretrain = get_config()
  c.sft = get_config()
  c.rl = get_config()
  c.sft.stage, c.rl.stage = 'sft', 'rl'
  # '{workdir}' in a text field stands for the folder of the whole recipe.
  c.pretrain.data.tokenizer = '{workdir}/tokenizer/tokenizer.json'
  c.pretrain.data.train, c.pretrain.data.val = (
    '{workdir}/tokens/train/manifest.json',
    '{workdir}/tokens/val/manifest.json',
  )
  for stage in (c.pretrain, c.sft, c.rl):
    stage.data.documents = '{workdir}/clean/documents.jsonl'
    stage.data.held_out = c.tokenizer.get_ref('held_out')  # one number for the whole recipe
  c.sft.init_from, c.rl.init_from = '{workdir}/pretrain', '{workdir}/sft'
  return c
