"""The one place where every setting has its default, unit and range.

Host side. Reads: config files. Writes: nothing.

`base()` holds every field; the methods' own are written down in `config_methods`. A file in `configs/` starts from it
and states differences only; the command line comes last: default < config file < `--config.loss.clip_high=0.28`.
No code reads a field with a default of its own.
"""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Sequence
from typing import Any

import ml_collections

from jaxrl_reason import config_methods, config_phases, config_rules, files

# Of the same home, for every caller.
fields, phases, in_phases = config_phases.fields, config_phases.phases, config_phases.in_phases


def base() -> ml_collections.ConfigDict:
    """Every field with its default; locked, so that a misspelt name is an error."""
    c = ml_collections.ConfigDict()
    c.seed = 0  # int >= 0; every random draw derives from (seed, update, stage)
    c.run_dir = "runs/default"  # str; everything that a run writes lies in this folder
    c.then = ""  # later phases, as `in_phases` writes them; empty: one phase
    c.task = _task()
    c.model = _model()
    c.lora = _lora()
    c.mesh = _mesh()
    c.rollout = _rollout()
    c.method = config_methods.method()
    c.advantage = config_methods.advantage()
    c.overlong = config_methods.overlong()
    c.locate = config_methods.locate()
    c.vppo = config_methods.vppo()
    c.srl = config_methods.srl()
    c.mixed = config_methods.mixed()
    c.rts = config_methods.rts()
    c.prime = config_methods.prime()
    c.ppo = config_methods.ppo()
    c.cliff = config_methods.cliff()
    c.iop = config_methods.iop()
    c.loss = _loss()
    c.optim = _optim()
    c.train = _train()
    c.eval = _eval()
    c.sft = _sft()
    c.prm = config_methods.prm()
    c.lock()
    return c


def _task() -> ml_collections.ConfigDict:
    """Problems."""
    c = ml_collections.ConfigDict()
    c.name = "arithmetic"  # arithmetic | code | countdown | game24 | gsm8k | knights | math
    c.length = 6  # numbers in an arithmetic problem, 2..16
    c.modulus = 10  # arithmetic is modulo this, 2..100
    c.operators = "+"  # any of "+-*", each at most once; "+" alone is left out of the text
    c.expert_order = "random"  # random | left: which merge an arithmetic demonstration takes next
    c.numbers = 4  # numbers in a countdown problem, 3..5
    c.largest = 25  # countdown numbers are in 1..largest, 2..999
    c.max_target = 100  # countdown targets are in 1..max_target, 1..9999
    c.use_all = True  # bool: countdown uses each number exactly once; False: at most once
    c.people = 3  # in a puzzle of knights and knaves, 2..8
    # Problems for gsm8k, math and code, as JSONL, JSON, CSV or Parquet, packed or not: a file, a pattern
    # (data/train-*.parquet), or files of a data set on the hub (owner/name[@revision]:data/train-*.parquet)
    c.path = ""
    c.eval_path = ""  # the same, of problems to evaluate on; empty: see hold_out
    # Without eval_path: one problem in so many, by a hash of its question, is asked in evaluation alone, once there
    # are twice as many; 0: none, evaluation asks what is trained on
    c.hold_out = 8
    # Names of fields that are not known: question=their_name,answer=meta.their_name; also solution, pass_rate, tests,
    # completion
    c.fields = ""
    c.data_dir = ""  # problems are prepared there once, as ArrayRecord; empty: held in memory
    # JSONL of {"id", "pass_rate"}, or what `evaluate --out` wrote of this task; empty: field pass_rate of the records
    c.pass_rates = ""
    c.min_pass_rate = 0.0  # in [0, 1]: problems that were solved less often are not trained on
    c.max_pass_rate = 1.0  # in [0, 1]: nor those that were solved more often
    c.verify_workers = 2  # processes that compare answers, for gsm8k and math; 0: in this process
    c.verify_timeout_s = 2.0  # seconds for one answer, > 0
    # strict | flexible, for gsm8k and math: where no answer is marked (a box, ####, "the answer is"), the number of the
    # final sentence is none, or is it
    c.extract = "strict"
    c.second_opinion = False  # bool: math-verify is asked too, and disagreements are counted
    # Where steps end: blank_line | newline | step_k | sentence | code_line | tokens:N, see verify/step_rules.py;
    # empty: as the task says
    c.step_rule = ""
    c.steps = False  # bool: each problem asks for one step of an expert solution (SRL)
    c.first_step = True  # bool, with `steps`: the first step may be asked for
    c.last_step = False  # bool, with `steps`: the last step may be asked for
    c.think = False  # bool, with `steps`: a completion is a <think> block, then the step
    c.step_end = "eos"  # with `steps`: eos | separator; where the written step ends
    c.sandbox = _sandbox()
    return c


def _sandbox() -> ml_collections.ConfigDict:
    """Where programs of the policy run, for the task `code`; limits are those of one test."""
    c = ml_collections.ConfigDict()
    c.timeout_s = 4.0  # seconds of processor time, > 0; up to ten times as many on the clock
    c.batch_timeout_s = 600.0  # seconds for all programs of one verification, > 0
    c.memory_mb = 512  # MiB of address space, >= 64
    c.output_kb = 1024  # KiB on each stream and in each file, >= 1
    c.disk_mb = 16  # MiB of files in the program's folder, >= 1
    c.max_threads = 16  # >= 1; processes: one
    c.max_files = 64  # open handles, >= 8
    c.workers = 2  # programs that run at once, >= 1
    c.require_isolation = True  # bool; False: run programs even where they can reach our files
    return c


def _model() -> ml_collections.ConfigDict:
    """The policy to start from."""
    c = ml_collections.ConfigDict()
    c.source = "tiny"  # preset (tiny | small), policy folder, Hugging Face folder or hub id owner/name[@revision]
    c.dtype = "float32"  # compute dtype: float32 | bfloat16
    # none | full | dots: what the backward pass computes anew. full: each layer (memory for one more forward pass; what
    # True meant when this was a bool); dots: all but products with weights (most of that memory, little time).
    c.remat = "none"
    c.attention = (
        "auto"  # auto | dense | xla | cudnn (GPU, bfloat16) | splash (TPU); see ops/attention.py
    )
    c.prompt_format = (
        "auto"  # plain | chat (the checkpoint's template) | auto: chat where it has a template
    )
    c.enable_thinking = (
        True  # bool, in a chat: False asks the template for answers without thoughts (Qwen3)
    )
    return c


def _lora() -> ml_collections.ConfigDict:
    """Low-rank adapters: they alone are trained, and the frozen base is the reference policy."""
    c = ml_collections.ConfigDict()
    c.rank = 0  # >= 0; 0: no adapters, all weights are trained
    c.alpha = 32.0  # > 0; adapters count alpha / rank
    c.targets = "attention.*,mlp.*"  # shell patterns over weights of a layer, with commas
    return c


def _mesh() -> ml_collections.ConfigDict:
    """Devices."""
    c = ml_collections.ConfigDict()
    c.data = 1  # devices along pure data parallelism, >= 1
    c.fsdp = -1  # devices that share parameters and rows; -1: all that are left
    c.tensor = 1  # devices that share heads, MLP width and vocabulary, >= 1
    return c


def _rollout() -> ml_collections.ConfigDict:
    """Sampling."""
    c = ml_collections.ConfigDict()
    c.num_prompts = 32  # N, prompts per update, >= 1
    c.group_size = 8  # G, samples per prompt, >= 1
    c.prompt_length = 0  # P, tokens; 0: the longest prompt that the task can ask
    c.max_new_tokens = 0  # C, tokens; 0: the longest completion that the task needs
    c.temperature = 1.0  # > 0 in training
    c.max_refills = 0  # further rounds of prompts while groups give no signal, >= 0
    c.chunk_rows = 256  # rows that the sampler and the scorer hold at once, >= group_size
    return c


def _loss() -> ml_collections.ConfigDict:
    """The one loss."""
    c = ml_collections.ConfigDict()
    c.ratio = "sequence"  # token | sequence, both over loss_mask
    c.aggregation = "seq_mean_token_mean"  # seq_mean_token_mean | token_mean | seq_sum_over_const
    c.clip_low = 3e-4  # in [0, 1): ratio >= 1 - clip_low
    c.clip_high = 4e-4  # >= 0: ratio <= 1 + clip_high
    c.dual_clip = 0.0  # > 1, bound for negative advantages; 0: off
    c.kl_coef = 0.0  # >= 0; 0: no reference policy is kept
    c.kl_estimator = "k3"  # k1 | k2 | k3
    c.entropy_coef = 0.0  # >= 0, bonus
    c.old_logprobs = "recomputed"  # recomputed | behavior: what the ratio divides by
    c.mismatch = "none"  # none | tis | icepop: weights trainer / sampler probability, cut | masked
    c.mismatch_level = "token"  # token | sequence: whose probability
    c.mismatch_low = 0.5  # alpha in [0, 1]: icepop masks ratios below it
    c.mismatch_high = 5.0  # >= 1: tis cuts ratios here, icepop masks those above it
    c.vocab_chunk = 4096  # vocabulary columns held at once in log-probs, >= 1
    return c


def _optim() -> ml_collections.ConfigDict:
    """The optimizer."""
    c = ml_collections.ConfigDict()
    c.learning_rate = 3e-4  # > 0, peak
    c.schedule = "constant"  # constant | cosine | linear, after the warm-up, to 0 at num_updates
    c.warmup_updates = 0  # updates, >= 0
    c.b1 = 0.9  # in [0, 1)
    c.b2 = 0.95  # in [0, 1)
    c.eps = 1e-8  # > 0
    c.weight_decay = 0.0  # >= 0
    c.grad_clip = 1.0  # global norm, > 0; 0: off
    c.microbatch_rows = 64  # rows whose activations are alive at once, >= 1
    c.minibatches = 1  # optimizer updates per rollout batch, >= 1
    return c


def _train() -> ml_collections.ConfigDict:
    """Length of a run and what it writes."""
    c = ml_collections.ConfigDict()
    c.num_updates = 100  # rollout batches, >= 1
    c.max_generated_tokens = (
        0  # stop once so many tokens were generated (repairs, audits counted); 0: off
    )
    c.checkpoint_every = 25  # updates, >= 1; the last update is always saved
    c.keep_checkpoints = 2  # newest ones kept, >= 1
    # seconds that the running update has after SIGTERM, >= 0: then it is dropped, and the state before it saved; 0: it
    # is waited for. Many schedulers kill after 30.
    c.preempt_grace_s = 20.0
    c.log_rollouts_every = 10  # updates, >= 1
    c.log_rollouts = 16  # records per logged update, >= 0
    c.tensorboard = True  # bool: event files beside metrics.jsonl
    return c


def _eval() -> ml_collections.ConfigDict:
    """Evaluation, during training and by the command `evaluate`."""
    c = ml_collections.ConfigDict()
    c.every = 10  # updates; 0: only at the end
    c.num_problems = 512  # >= 1, the same in every evaluation
    c.num_samples = 1  # per problem, >= 1; a greedy one is measured beside them
    # How those are drawn. Training has no top_k and no top_p: log-probs would not be those of the draws.
    c.temperature = 1.0  # > 0
    c.top_k = 0  # most likely tokens that are left to draw from; 0: all
    c.top_p = 1.0  # in (0, 1]: likeliest tokens that together have it are left; 1: all
    c.seed = 1_000_003  # int >= 0, of the evaluation problems
    return c


def _sft() -> ml_collections.ConfigDict:
    """Cold start."""
    c = ml_collections.ConfigDict()
    # Records of {"prompt", "completion"}, {"question", "solution"} or {"messages"}, as task.path; empty: the task's own
    # cold start, or the reference solutions of its data set
    c.path = ""
    c.policy_updates = (
        1500  # updates of policy mode on demonstrations, with synthetic repairs, >= 0
    )
    c.repair_updates = 1000  # updates on the policy's own failures, repaired by the task, >= 0
    c.batch_rows = 64  # rows per update, >= 2
    c.optimizer = "adamw"  # adamw | muon (matrices by Muon, all else by AdamW)
    c.learning_rate = 2e-3  # > 0, peak; cosine to a tenth
    c.repair_learning_rate = 1e-3  # > 0, of the second phase
    c.repair_start = 0.4  # share of policy_updates before repair mode joins, in [0, 1]
    c.repair_fraction = 0.5  # updates in repair mode from then on, in [0, 1]
    c.failures_every = 50  # updates between fresh samples of the policy's own failures, >= 1
    return c


def recipe(method: str) -> ml_collections.ConfigDict:
    """`base()` with the settings that the method's paper states.

    Args:
      method: a name that `method.name` may have.
    Returns:
      Locked ConfigDict.
    Raises:
      ValueError: no such method.
    Example:
      >>> recipe("dapo").loss.clip_high
      0.28
    """
    if method not in config_rules.RECIPES:
        raise ValueError(f"method {method!r}: must be one of {', '.join(config_rules.RECIPES)}")
    config = base()
    config.update_from_flattened_dict({"method.name": method} | config_rules.RECIPES[method])
    return config


def validate(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Check names, types, ranges and combinations; all problems in one error.

    Args:
      config: what `base()` returned, with changes.
    Returns:
      The same config.
    Raises:
      ValueError: with one line per problem: the field, its value, the limit, the fix.
    Example:
      >>> c = base()
      >>> c.loss.clip_low = 2.0
      >>> validate(c)
      Traceback (most recent call last):
      ...
      ValueError: 1 problem in the config:
        loss.clip_low = 2.0: must be in [0, 1)
    """
    _raise(_problems(config), "config")
    return config


def _problems(config: ml_collections.ConfigDict) -> list[str]:
    flat, known = fields(config), fields(base())
    problems = [config_rules.unknown_field(name, known) for name in flat if name not in known]
    problems += [f"{name}: missing; start from config.base()" for name in known if name not in flat]
    for name, default in known.items():
        if name in flat:
            problems += config_rules.value_problems(name, flat[name], default)
    if problems:
        return problems
    if reason := files.remote_problem(config.run_dir):
        problems = [f"run_dir = {config.run_dir!r}: {reason}"]
    return problems + config_rules.combination_problems(config) + config_phases.problems(config)


def _raise(problems: Sequence[str], where: str) -> None:
    if problems:
        count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
        raise ValueError(f"{count} in the {where}:\n" + "\n".join(f"  {p}" for p in problems))


def override(
    config: ml_collections.ConfigDict, assignments: Sequence[str]
) -> ml_collections.ConfigDict:
    """Apply `name=value` strings, parsed by the type of the field; all problems in one error.

    Example:
      >>> override(base(), ["loss.clip_high=0.28"]).loss.clip_high
      0.28
    """
    _raise(_assign(config, assignments), "overrides")
    return config


def _assign(config: ml_collections.ConfigDict, assignments: Sequence[str]) -> list[str]:
    """Set what can be set; the problems of the rest."""
    known, problems = fields(config), []
    for assignment in assignments:
        name, separator, text = assignment.partition("=")
        name = name.strip().removeprefix("--").removeprefix("config.")
        if not separator:
            problems.append(f"{assignment!r}: write name=value")
        elif name not in known:
            problems.append(config_rules.unknown_field(name, known))
        else:
            try:
                value = _parse(text, known[name])
            except ValueError:
                problems.append(config_rules.type_problem(name, text, known[name]))
                continue
            with config.unlocked():
                config.update_from_flattened_dict({name: value})
    return problems


def _parse(text: str, default: Any) -> Any:
    if isinstance(default, bool):
        if text.lower() not in ("true", "false", "1", "0"):
            raise ValueError(text)
        return text.lower() in ("true", "1")
    return type(default)(text)


def load(path: str | os.PathLike, overrides: Sequence[str] = ()) -> ml_collections.ConfigDict:
    """Config of a `configs/*.py` file, overridden and validated.

    Args:
      path: a Python file with `get_config() -> ConfigDict`.
      overrides: `name=value` strings.
    Returns:
      A locked, valid ConfigDict.
    Raises:
      FileNotFoundError: no such file.
      ValueError: every unknown name and bad value in one error.
    """
    path = os.fspath(path)
    if not os.path.isfile(path):
        raise FileNotFoundError(
            f"{path}: no such config file; configs/ holds the ones that come with the project"
        )
    spec = importlib.util.spec_from_file_location("jaxrl_reason_config", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "get_config"):
        raise ValueError(f"{path}: has no get_config(); see configs/ for examples")
    config = module.get_config()
    _raise(_assign(config, overrides) + _problems(config), "config")
    return config


def to_json(config: ml_collections.ConfigDict) -> str:
    """The resolved config as indented JSON, for the run folder."""
    return json.dumps(config.to_dict(), indent=2, sort_keys=True) + "\n"


def from_json(text: str) -> ml_collections.ConfigDict:
    """Read back what `to_json` wrote; validated."""
    config = ml_collections.ConfigDict(json.loads(text))
    config.lock()
    return validate(config)
