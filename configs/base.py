"""Defines every config field once, with its unit and meaning. Other configs only change values.

`get_config()` describes one training run of a stage, such as pretrain, sft or rl. `get_recipe()`
describes a whole recipe: a list of steps, with a config for each training stage. The fields of web
cleaning are in configs/data/fineweb.py. This module does not import JAX. configs/README.md says how
to add a field.
"""

from ml_collections import ConfigDict

from configs.data import fineweb
from lm.base.config import Tracked

# The model of the :smoke variants, for bytes, on a CPU.
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

# Fields, and groups of fields, that may change when a run resumes from its checkpoint. They say
# what is recorded and measured beside training, or where and in which order the same numbers are
# computed. Batches, parameters and the optimizer's state do not depend on them, except that sums of
# floating-point numbers may be rounded differently. All other fields must stay the same.
FREE_ON_RESUME = (
  # What is recorded and measured.
  'log_every',
  'checkpoint',
  'eval',
  'rl.gold',
  'rl.health',
  'rl.rollouts_every',
  # Copies of the same bytes.
  'data.cache',
  # Rows are summed over devices and microbatches before anything is divided.
  'mesh',
  'microbatches',
  # The same sums in parts.
  'loss.chunk',
  'loss.vocab_blocks',
  'model.mlp_blocks',
  # The same function, compiled differently.
  'model.attention',
  'model.scan_layers',
  'model.remat',
)


def get_config() -> ConfigDict:
  """Returns the config of one training run, with the default of every field.

  It is used as python train.py --config=configs/pretrain.py --workdir=DIR --config.optim.lr=1e-3.
  """
  c = ConfigDict()
  c.stage = 'pretrain'  # the training stage: pretrain | sft | preference | reward | rl
  c.seed = 0  # seed of initialisation, data order and sampling
  # Where parameters come from: a run, a step, a recipe or a Hugging Face folder; smollm2; '' starts
  # from scratch.
  c.init_from = ''
  c.steps = 1000  # number of updates
  c.batch_size = 32  # rows in one update over all devices (rl, reward: prompts x group_size)
  c.microbatches = 1  # parts of an update's rows; one is processed at a time, gradients are summed
  c.seq_len = 1024  # tokens in a row

  c.data = ConfigDict()
  # bytes | a rank file | tokenizer.json | a SentencePiece .model; see data/tokenizers/loading.py.
  c.data.tokenizer = 'bytes'
  # auto (the tokenizer folder's template, else deepdive) | deepdive | chatml | llama3 | gemma |
  # X.jinja
  c.data.chat_format = 'auto'
  # sft, rl: add tags of tool calls and thoughts to a tokenizer that lacks them. The format deepdive
  # always has them.
  c.data.tools = True
  # Training data: token shards (a manifest.json, or several separated by commas), or text, JSONL or
  # Parquet files (globs) to tokenize; for sft conversations in any form that data.conversations
  # reads. All paths may be in a bucket: gs://... or s3://...
  c.data.train = ''
  # Weights of several inputs of data.train (manifests or globs) in order: 'W,W', or from given
  # steps on '0:W,W;1000:W,W'.
  c.data.weights = ''
  # Epochs of each input of data.train in the whole run, in order: 'E,E'. With 1.5, half of an
  # input's rows are read twice. c.steps must be what that takes; an error names the number.
  c.data.epochs = ''
  # Held-out data in the same form; '' with text input: data.held_out of the training documents.
  c.data.val = ''
  # Fraction of the documents that is held out when text is tokenized at start. For data.documents:
  # the fraction that was held out.
  c.data.held_out = 0.05
  # Folder for local copies of remote token shards; '': ~/.cache/deepdive/shards.
  c.data.cache = ''
  # Clean documents (JSONL) for tasks that need them, such as docs, refusal and spelling.
  c.data.documents = ''
  # Word problems of the task gsm8k: files or globs of JSONL with question and answer, as GSM8K's.
  c.data.gsm8k = ''
  c.data.gsm8k_test = ''  # the same for its test problems; '': one in eight of data.gsm8k
  # Problems of the task math: files or globs of JSONL with problem and solution, as MATH's, whose
  # answer is in \boxed{}.
  c.data.math = ''
  c.data.math_test = ''  # the same for its test problems; '': one in eight of data.math
  # Problems of the task programs: files or globs of JSONL in the forms of MBPP or HumanEval, or
  # with prompt, solution and tests.
  c.data.programs = ''
  c.data.programs_test = ''  # the same for its test problems; '': one in eight of data.programs
  # Folder of an index of documents (python -m data.tools index), for the task facts_search.
  c.data.index = ''
  # Questions with short answers for the task written: files or globs of question and answer.
  c.data.questions = ''
  # Card (YAML: name, maker, knowledge_end) of what the model says of itself, for the task identity;
  # '': Deepdive's.
  c.data.persona = ''
  # Report (JSON) of a model that was probed (config.eval.probe), for the task probed.
  c.data.probe = ''
  # rl: NAME,..., the tasks to practise, in turn. sft: NAME[:WEIGHT],..., the tasks to demonstrate
  # if data.train is ''.
  c.data.tasks = ''
  # Seed of the tasks' problems. Test problems stay unseen if sft, rl and evaluation use the same.
  c.data.task_seed = 0
  c.data.examples = 10_000  # sft: number of demonstrations if data.train is ''
  c.data.turns = 3  # sft: largest number of questions in a demonstration; 1, 2, ... equally likely

  c.tools = ConfigDict()
  # NAME,..., the tools that the model's calls may name, in evaluation and rl: calculator, python,
  # search (data/tools/toolbox.py); '' for none.
  c.tools.names = 'calculator'
  c.tools.index = ''  # folder of the documents' index for search (python -m data.tools index)

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
  # The same for window layers, whose positions are then never scaled; 0: rope_theta.
  c.model.rope_theta_window = 0.0
  # none | linear | llama3: how positions are scaled for longer contexts than in earlier training.
  c.model.rope_scaling = 'none'
  c.model.rope_factor = 1.0  # factor of the scaling
  # llama3: dimensions that rotate less often than this in rope_original_len tokens are scaled.
  c.model.rope_low_freq_factor = 1.0
  c.model.rope_high_freq_factor = 4.0  # llama3: those that rotate more often than this are not
  c.model.rope_original_len = 0  # llama3: context of the earlier training, tokens
  # Longest context, tokens: rows of the learned position table, and capacity of a chat.
  c.model.max_len = 1024
  # Attention of the layers, repeated: full | window | nope (full, without positions).
  c.model.layer_types = ('full',)
  c.model.window = 0  # tokens that a window layer attends to, including the query's
  c.model.attention_scale = 0.0  # factor of the attention scores; 0: head_dim ** -0.5
  c.model.attention_softcap = 0.0  # scores are limited to this by tanh; 0: no limit
  c.model.attention_bias = 'none'  # biases of the projections: none | qkv | all (output too)
  # RMSNorm of queries and keys: none | head (each head separately) | projection (all heads).
  c.model.qk_norm = 'none'
  # pre (norm of what a block reads) | post (norm of what a block adds) | both
  c.model.norm_position = 'pre'
  c.model.norm_offset = False  # norms multiply by 1 + scale
  c.model.mlp_bias = False
  # Parts of the feed-forward block that are computed one after the other: less memory, more time.
  c.model.mlp_blocks = 1
  # Routed feed-forward blocks of width mlp_dim in each layer; 0: one dense block.
  c.model.num_experts = 0
  c.model.experts_per_token = 2
  c.model.normalize_experts = True  # the weights of a token's experts sum to 1
  c.model.scale_embeddings = False  # token embeddings are multiplied by sqrt(embed_dim)
  c.model.logit_softcap = 0.0  # logits are limited to this by tanh; 0: no limit
  c.model.tie_embeddings = True  # the output head is the embedding table
  # Heads on the last hidden states: vocabulary (always), and scalar (a value or a reward). Heads
  # that the checkpoint of init_from lacks are initialised.
  c.model.heads = ('vocabulary',)
  # Rank of the matrices' adapters (LoRA, arXiv 2106.09685); 0: none. With init_from, adapters that
  # differ from the checkpoint's in these three fields are initialised, and its own are merged.
  c.model.lora_rank = 0
  c.model.lora_alpha = 16.0  # an adapter's output is multiplied by lora_alpha / lora_rank
  # Matrices with adapters: regular expressions over parameter names, separated by commas.
  c.model.lora_params = 'layers/.*/(q|k|v|o|gate|up|down)/kernel'
  # Init std of embeddings and matrices. Output projections have init_std / sqrt(2 num_layers), so
  # that depth does not grow the residual variance (GPT-2).
  c.model.init_std = 0.02
  c.model.param_dtype = 'float32'
  # Type of activations and matrix products; softmax, norms and logits stay float32.
  c.model.dtype = 'float32'
  # Loop over one compiled layer (fast to compile), or unroll all (fast on CPUs). Parameters are the
  # same.
  c.model.scan_layers = True
  # Attention of whole rows: reference | ring (over mesh.context) | splash (TPU) | cudnn (GPU).
  c.model.attention = 'reference'
  # What the backward pass recomputes: none | full | dots (all but matrix products).
  c.model.remat = 'none'

  c.loss = ConfigDict()
  c.loss.chunk = 4096  # the most tokens whose logits exist at the same time
  # > 0: compute the logits of all tokens in this many parts of the vocabulary (for a sharded head).
  c.loss.vocab_blocks = 0
  # Weight of the experts' load balance in pretraining and SFT (Switch, arXiv 2101.03961).
  c.loss.balance = 0.01
  # Weight of log(Z)^2, which keeps logits from drifting (PaLM, arXiv 2204.02311, section 5).
  c.loss.z_loss = 0.0

  c.train = ConfigDict()
  # Trained parameters: regular expressions over parameter names, separated by commas, such as
  # layers/attention/.*,head (--dry prints the names); all; '': all, or with lora_rank the adapters
  # and the scalar head. The others have no gradient and no optimizer state.
  c.train.params = ''

  c.optim = ConfigDict()
  c.optim.name = 'adamw'  # adamw | muon (matrices of the layers by Muon, all else by AdamW)
  c.optim.lr = 6e-4  # peak learning rate of AdamW
  c.optim.muon_lr = 0.02  # peak learning rate of Muon
  # REGEX:FACTOR,...: factors of these two learning rates, by parameter name. The first expression
  # that matches a name counts; without a match the factor is 1.
  c.optim.rates = ''
  c.optim.b1 = 0.9
  c.optim.b2 = 0.95
  c.optim.eps = 1e-8
  c.optim.weight_decay = 0.1  # on matrices only: never on norms, biases or the position table
  c.optim.clip = 1.0  # largest global gradient norm; 0: no limit
  c.optim.schedule = 'cosine'  # cosine | wsd (warm-up, stable, linear decay) | constant
  # Updates of linear warm-up, the first of which has peak / (warmup + 1); at most steps - 1.
  c.optim.warmup = 100
  c.optim.decay = 0.2  # wsd: fraction of all updates in the final decay
  c.optim.final_lr = 0.0  # learning rate at the end, as a fraction of the peak

  # Number of devices along each axis of the mesh; -1 (for one axis): all that are left.
  c.mesh = ConfigDict()
  # TPU slices, or groups of hosts, that a slow network connects; each has a replica of the
  # parameters.
  c.mesh.dcn = 1
  c.mesh.data = -1  # replicas of the parameters
  c.mesh.fsdp = 1  # shards of the parameters along embed; also divides the batch
  c.mesh.expert = 1  # shards of the experts; also divides the batch
  c.mesh.context = 1  # shards of each row along its length
  c.mesh.tensor = 1  # shards of heads, feed-forward and vocabulary

  c.checkpoint = ConfigDict()
  c.checkpoint.every = 500  # updates between checkpoints; the last update always has one
  c.checkpoint.keep_last = 2  # number of the newest checkpoints to keep
  c.checkpoint.keep_every = 0  # also keep those at multiples of this step; 0: none
  # min:METRIC or max:METRIC, such as min:eval/val/loss: an evaluation with a better value than all
  # before it saves a checkpoint, which is kept and is used where the run's folder is given. '': the
  # last checkpoint is used.
  c.checkpoint.best = ''
  # NAME,...: what may differ from the checkpoint when a run resumes. A name is a field or a group
  # of the config (optim.lr, optim; data and init_from with what they name), config, code or
  # tokenizer.
  c.checkpoint.allow_mismatch = ''

  c.faults = ConfigDict()
  # What to do if the loss or gradient is not finite, or the loss spikes: stop | skip (no update) |
  # rewind (return to the last checkpoint, and leave out the batches read since).
  c.faults.on_bad_step = 'stop'
  # A loss above this many times the median of the last 64 is a spike; 0: no loss is.
  c.faults.spike = 0.0
  c.faults.max_bad_steps = 20  # steps skipped or rewound in the whole run; one more stops it

  c.log_every = 10  # updates between lines of metrics
  c.eval = ConfigDict()
  # Updates between evaluations of bits per byte, which also happen at the start and the end.
  c.eval.every = 250
  c.eval.batch_size = 32  # rows
  c.eval.tasks = ''  # NAME,...: tasks whose test problems are scored at the end
  # Updates between scorings of these tasks during training, logged as eval/TASK/accuracy; 0: they
  # are scored only at the end.
  c.eval.tasks_every = 0
  c.eval.examples = 200  # problems per task
  c.eval.turns = 1  # questions in a conversation; if 2 or more, each turn is also scored
  c.eval.max_new_tokens = 64  # longest reply
  # Smaller numbers of tokens, the stop token not counted: the scores that each as a limit would
  # give are reported too. A reply that is cut off counts as wrong.
  c.eval.limits = ()
  # NAME,...: tasks whose training problems are asked at the end, to find what the model knows (the
  # task probed trains on the result).
  c.eval.probe = ''
  c.eval.probe_examples = 200  # training problems of a task that are asked
  c.eval.probe_samples = 5  # answers to each of them
  # K,K,...: the report has pass@K, the probability that one of K sampled answers to a test problem
  # of eval.tasks is right, estimated from eval.pass_samples answers; (): none.
  c.eval.pass_at = ()
  c.eval.pass_samples = 16  # pass_at: answers to each problem, at least the largest K
  c.eval.prompts = ()  # texts to continue at the start and the end of pretraining, for people
  # At the end, compute bits per byte of unigrams, bigrams, gzip and xz on the training data.
  c.eval.baselines = False

  c.sft = ConfigDict()
  # token | conversation: what has the same weight in the loss of fine-tuning.
  c.sft.loss_by = 'token'
  # > 0: noise of this strength is added to embeddings in training (NEFTune, arXiv 2310.05914).
  c.sft.neftune = 0.0

  c.preference = ConfigDict()
  c.preference.loss = 'dpo'  # dpo | ipo | kto | orpo (lm/stages/preference.py)
  # dpo, ipo, kto: strength of the pull towards the starting model, 1 / nats. orpo: weight of the
  # odds ratio beside the cross entropy of the chosen answers.
  c.preference.beta = 0.1
  # preference, reward: how data.tasks compare answers to data.examples problems if data.train is
  # '': grade (right or wrong) | style | manners (data/preferences/gold.py).
  c.preference.gold = 'grade'
  c.preference.noise = 0.0  # the probability that such a label is wrong

  c.reward = ConfigDict()
  # Rows of a batch for the answers to one prompt, all comparisons of which are learned together.
  # Prompts with fewer answers leave rows empty; those with more are split.
  c.reward.group_size = 2
  # > 0: rewards must differ by this times the margin of a comparison (arXiv 2307.09288).
  c.reward.margin = 0.0
  # Weight of the squared sum of two rewards, which centers them at 0 (arXiv 2312.09244).
  c.reward.center = 0.0

  # configs/README.md says which of these fields make which published algorithm. The defaults are
  # GRPO's advantage with DAPO's mean over tokens and bounds of the ratio.
  c.rl = ConfigDict()
  c.rl.group_size = 16  # answers sampled for each question
  c.rl.max_new_tokens = 64  # longest answer
  c.rl.temperature = 1.0  # of sampling; the trainer scores at the same temperature
  # RUN,...: reward models (configs/reward.py) whose mean reward of an answer is part of its reward;
  # '': none.
  c.rl.reward_model = ''
  c.rl.grade_weight = 1.0  # weight in the reward of the grade that the answer's task gives
  # With reward_model: the true reward that is logged beside the model's, grade | style | manners
  # (data/preferences/gold.py).
  c.rl.gold = 'grade'
  # Updates on one batch of samples. Metrics are their means; rl/sampler_gap is the first's.
  c.rl.inner_updates = 1
  # What an answer weighs, from its reward: reinforce (the reward) | reinforce_baseline (minus the
  # batch's mean) | dr_grpo (minus its group's mean) | grpo (that over the group's standard
  # deviation) | rloo (minus the mean of the others of its group) | gae (of each token, from the
  # values of the scalar head: PPO).
  c.rl.advantage = 'grpo'
  # The ratio of new to old probability: token | sequence (an answer's geometric mean, GSPO).
  c.rl.ratio = 'token'
  # What the loss is a mean over: token (all tokens, DAPO) | sequence (answers' means over their
  # tokens, GRPO) | constant (answers' sums over max_new_tokens, Dr. GRPO).
  c.rl.aggregation = 'token'
  # Whether groups whose advantages are all 0 are left out of the mean of the policy loss, as in
  # DAPO, or count as zeros. Without a divergence they are not computed in either case.
  c.rl.filter_groups = True
  # Times that questions whose answers have advantages of 0 are replaced by others in a step (DAPO's
  # dynamic sampling); those that remain then are part of the batch.
  c.rl.resamples = 0
  # LOW,HIGH, such as 0.1,0.9: problems are asked less if the share of right answers to those that
  # are as hard is not between the two; (): all alike. Tasks say how hard a problem is.
  c.rl.curriculum = ()
  c.rl.curriculum_rest = 0.1  # curriculum: the probability that such a problem is not passed over
  # The ratio is clipped to [1 - clip_low, 1 + clip_high].
  c.rl.clip_low = 0.2
  c.rl.clip_high = 0.28
  # > 1: the gain of a token with a negative advantage is at least dual_clip x advantage (arXiv
  # 1912.09729); 0: it has no lower bound.
  c.rl.dual_clip = 0.0
  # > 0: the trainer scores the answers before the first update, and the ratio is to those
  # probabilities. The loss of a token is multiplied by p_trainer / p_sampler, at most by this
  # (truncated importance sampling). 0: the ratio is to the sampler's probabilities.
  c.rl.importance_cap = 0.0
  # Weight of the KL divergence to the starting model; 0: groups of equal rewards are not computed.
  c.rl.kl = 0.0
  # Its estimate (Schulman, Approximating KL divergence): k1 | k2 | k3. In the loss k2 has the
  # gradient of the divergence and k1 has none; in the reward k1 is unbiased.
  c.rl.kl_estimator = 'k2'
  # loss | reward (of each token, summed over an answer unless advantage is gae).
  c.rl.kl_in = 'loss'
  # Whether rl/kl is logged with kl = 0 too: the starting model is held and scores the answers.
  c.rl.log_kl = False
  c.rl.gamma = 1.0  # gae: discount of a token
  c.rl.gae_lambda = 0.95  # gae: 0 trusts the values alone, 1 the rewards alone
  c.rl.value_weight = 0.1  # gae: weight of the squared error of the values in the loss
  # gae: how far a value may move from the one before the update, or the larger of the two errors
  # counts; 0: anywhere.
  c.rl.value_clip = 0.2
  c.rl.value_warmup = 0  # gae: steps at the beginning that train the values, with advantages of 0
  # Added to the reward if the reply is well formed and ends with its stop token.
  c.rl.format_reward = 0.0
  # Whether answers that were cut off by the limit have no weight in the loss (DAPO); their rewards
  # still count for their groups.
  c.rl.mask_truncated = False
  # > 0: the reward falls evenly by up to 1 over this many last tokens below the limit (DAPO's soft
  # punishment of long answers).
  c.rl.overlong_buffer = 0
  # Steps between those whose answers are kept in rollouts.jsonl, for python -m lm.rollouts; 0:
  # none are.
  c.rl.rollouts_every = 1
  # A step with a metric beyond one of these bounds stops the run, which keeps its checkpoints.
  c.rl.health = ConfigDict()
  c.rl.health.min_entropy = 0.0  # rl/entropy, nats
  c.rl.health.max_repeats = 0.9  # rl/repeats: share of 4-token stretches that repeat in an answer
  c.rl.health.min_length = 0.0  # rl/length, tokens
  c.rl.health.max_truncated = 1.0  # rl/truncated: share of answers that were cut off
  # rl/sampler_gap, nats: a step above it is reported, but does not stop the run.
  c.rl.health.max_sampler_gap = 0.1
  # From here on, fields that are set are recorded: those of a checkpoint's model must agree.
  c.model = Tracked(c.model)
  return c


def smoke(c: ConfigDict) -> None:
  """Changes a pretraining config to a smoke variant, which runs on a CPU in under a minute.

  The model is a tiny one of the same kind, and the data is this repository's own source, as bytes.
  """
  c.data.train, c.data.tokenizer = 'lm/*/*.py', 'bytes'
  c.steps, c.batch_size, c.microbatches, c.seq_len = 20, 8, 2, 128
  c.model.update(TINY)
  c.loss.vocab_blocks = 0
  c.mesh.update(data=-1, fsdp=1)
  c.optim.update(lr=1e-2, warmup=5)
  c.eval.update(every=10, batch_size=8, prompts=('def main',), max_new_tokens=32)
  c.checkpoint.every, c.log_every = 10, 5


def share_seed(c: ConfigDict) -> None:
  """Adds the field `seed` to a recipe, which all its steps share that have a seed."""
  c.seed = 0
  for part in c.values():
    if isinstance(part, ConfigDict) and 'seed' in part:
      part.seed = c.get_ref('seed')


def get_recipe() -> ConfigDict:
  """Returns the config of a whole recipe, from crawling to the report.

  It is used as python train.py --config=configs/quickstart.py [--workdir=runs/quickstart].
  """
  c = ConfigDict()
  c.stage = 'recipe'
  c.stages = ('crawl', 'clean', 'tokenizer', 'tokenize', 'pretrain', 'sft', 'rl', 'report')
  c.workdir = 'runs/recipe'  # used if --workdir is not given

  c.crawl = ConfigDict()
  # First page; '': the standard library's documentation server, which runs during the crawl.
  c.crawl.url = ''
  # Largest number of pages to request; redirects, error pages and pages that fail count.
  c.crawl.max_pages = 1000
  c.crawl.max_depth = 0  # largest distance in links from the first page; 0: no limit
  # Seconds between requests, which the host can only raise; not used for the documentation server.
  c.crawl.delay = 1.0
  c.crawl.retries = 3  # attempts after the first one fails
  c.crawl.timeout = 30.0  # seconds for one whole response
  # Longer pages (bytes, as sent or decoded) are recorded as faults.
  c.crawl.max_bytes = 10_000_000
  c.crawl.exclude = ''  # regular expression; links whose path?query it matches are not followed
  # URL or e-mail address of the person responsible for the crawl, sent with each request.
  c.crawl.contact = ''

  c.clean = fineweb.get_config()  # configs/data/fineweb.py has its fields and thresholds

  c.tokenizer = ConfigDict()
  # Number of tokens to learn; the special tokens of data/chat/chat_formats.py follow them.
  c.tokenizer.vocab_size = 4096
  # Fraction of near-duplicate clusters held out from training of the tokenizer and of the model.
  c.tokenizer.held_out = 0.05

  c.answers = ConfigDict()
  c.answers.tasks = ''  # NAME,...: tasks whose training problems are answered, in turn
  c.answers.gold = 'style'  # what draws the answers (data/preferences/gold.py)
  c.answers.examples = 5000  # number of answers
  c.answers.seed = 0  # seed of the problems

  c.pretrain = get_config()
  c.sft = get_config()
  c.rl = get_config()
  c.sft.stage, c.rl.stage = 'sft', 'rl'
  # '{workdir}' in a string field stands for the folder of the whole recipe.
  c.pretrain.data.tokenizer = '{workdir}/tokenizer/tokenizer.json'
  c.pretrain.data.train = '{workdir}/tokens/train/manifest.json'
  c.pretrain.data.val = '{workdir}/tokens/val/manifest.json'
  for stage in (c.pretrain, c.sft, c.rl):
    stage.data.documents = '{workdir}/clean/documents.jsonl'
    stage.data.held_out = c.tokenizer.get_ref('held_out')  # the same for the whole recipe
  c.sft.init_from, c.rl.init_from = '{workdir}/pretrain', '{workdir}/sft'
  share_seed(c)
  return c
