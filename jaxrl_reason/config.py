"""The one place where every setting has its default, unit and range.

Host side. Reads: config files. Writes: nothing.

`base()` holds every field. A file in `configs/` starts from it and states differences only; the command line comes
last: default < config file < `--config.loss.clip_high=0.28`. No code reads a field with a default of its own.
"""

from __future__ import annotations

import difflib
import importlib.util
import json
import os
from collections.abc import Iterable, Sequence
from typing import Any

import ml_collections


def base() -> ml_collections.ConfigDict:
    """Every field with its default; locked, so that a misspelt name is an error."""
    c = ml_collections.ConfigDict()
    c.seed = 0  # int >= 0; every random draw derives from (seed, update, stage)
    c.run_dir = "runs/default"  # str; everything that a run writes lies in this folder

    c.task = ml_collections.ConfigDict()
    c.task.name = "arithmetic"  # arithmetic | gsm8k
    c.task.length = 6  # numbers in an arithmetic problem, 2..16
    c.task.modulus = 10  # arithmetic is modulo this, 2..100
    c.task.operators = "+"  # any of "+-*", each at most once; "+" alone is left out of the text
    c.task.path = ""  # JSONL of problems, for tasks that read one

    c.model = ml_collections.ConfigDict()
    c.model.source = "tiny"  # preset (tiny | small) for random weights, or a folder to start from
    c.model.dtype = "float32"  # compute dtype: float32 | bfloat16
    c.model.remat = False  # bool: recompute activations in the backward pass

    c.mesh = ml_collections.ConfigDict()
    c.mesh.data = 1  # devices along pure data parallelism, >= 1
    c.mesh.fsdp = -1  # devices that share parameters and rows; -1: all that are left
    c.mesh.tensor = 1  # devices that share heads, MLP width and vocabulary, >= 1

    c.rollout = ml_collections.ConfigDict()
    c.rollout.num_prompts = 32  # N, prompts per update, >= 1
    c.rollout.group_size = 8  # G, samples per prompt, >= 1
    c.rollout.prompt_length = 0  # P, tokens; 0: the longest prompt that the task can ask
    c.rollout.max_new_tokens = 0  # C, tokens; 0: the longest completion that the task needs
    c.rollout.temperature = 1.0  # > 0 in training
    c.rollout.top_k = 0  # tokens; 0: off. Training refuses others: log-probs would not be the sampling ones
    c.rollout.top_p = 1.0  # in (0, 1]; 1: off. Training refuses others, likewise
    c.rollout.max_refills = 0  # further rounds of prompts while groups give no signal, >= 0
    c.rollout.chunk_rows = 256  # rows that the sampler and the scorer hold at once, >= group_size

    c.method = ml_collections.ConfigDict()
    c.method.name = "iop"  # iop | gspo | grpo | dr_grpo | dapo

    c.advantage = ml_collections.ConfigDict()
    c.advantage.kind = "zscore"  # zscore | centred | leave_one_out, within the group
    c.advantage.ddof = 0  # 0: population std (the papers), 1: sample std (verl, TRL)
    c.advantage.eps = 1e-6  # > 0, added to the std

    c.overlong = ml_collections.ConfigDict()  # DAPO, arXiv 2503.14476
    c.overlong.filter = False  # bool: truncated completions get no loss
    c.overlong.penalty_tokens = 0  # L_cache, tokens: soft penalty over the last so many tokens of the budget; 0: off

    c.iop = ml_collections.ConfigDict()  # arXiv 2605.05226; letters A-N: spec of its open choices
    c.iop.threshold = 0.5  # tau_r in (0, 1]: reward at or above it counts as correct
    c.iop.num_repairs = 2  # G_rep, repairs per failed completion, >= 1
    c.iop.anchor = "random"  # E: random | nearest correct sample of the group
    c.iop.reference_anchor = False  # C: take the data set's solution as anchor where the group has no correct sample
    c.iop.audit = "continuation"  # continuation | replay | judge | none
    c.iop.audit_continuations = 2  # k continuations of the `continuation` audit, >= 1
    c.iop.anchor_copy_similarity = 0.9  # a repair this close to its anchor is a copy, in [0, 1]
    c.iop.judge_url = ""  # base URL of an OpenAI-compatible server, for the `judge` audit
    c.iop.judge_model = ""  # model name sent to it
    c.iop.judge_timeout_s = 30.0  # seconds per request, > 0
    c.iop.edit_cost = 0.1  # lambda_edit in [0, 1): score = h (r - edit_cost * normalised distance)
    c.iop.audit_reject = "floor"  # L: literal | floor; score of a rejected repair in repair mode: 0 | -edit_cost
    c.iop.adv_group = "pair"  # A: pair (-1/+1) | original (z-score of the sampled group) | centred
    c.iop.unrepaired = "drop"  # B: drop | outcome (whole failed completion as a negative)
    c.iop.num_edits = 8  # K, edits kept at first; 0: all (no truncation)
    c.iop.graft = "continue"  # I: splice | continue
    c.iop.mark_insertion_point = False  # J: an insertion gates the failed token that stands in its place
    c.iop.gate = "edits"  # edits | all: all trains every token of the pair (ablation)
    c.iop.repair_weight = 0.5  # lambda_rep >= 0; 0: no repair-mode objective, no rows for it
    c.iop.repair_objective = "rl"  # K: rl (group-normalised scores) | sft (best accepted repair only)
    c.iop.repair_rows = 256  # most repair-mode rows trained per update, >= 1
    c.iop.clip_scale = "sqrt"  # none | sqrt: widen the clip by sqrt(length / gated tokens), at most 5 times

    c.loss = ml_collections.ConfigDict()
    c.loss.ratio = "sequence"  # token | sequence, both over loss_mask
    c.loss.aggregation = "seq_mean_token_mean"  # seq_mean_token_mean | token_mean | seq_sum_over_const
    c.loss.clip_low = 3e-4  # in [0, 1): ratio >= 1 - clip_low
    c.loss.clip_high = 4e-4  # >= 0: ratio <= 1 + clip_high
    c.loss.dual_clip = 0.0  # > 1, bound for negative advantages; 0: off
    c.loss.kl_coef = 0.0  # >= 0; 0: no reference policy is kept
    c.loss.kl_estimator = "k3"  # k1 | k2 | k3
    c.loss.entropy_coef = 0.0  # >= 0, bonus
    c.loss.old_logprobs = "recomputed"  # recomputed | behavior: what the ratio divides by
    c.loss.vocab_chunk = 4096  # vocabulary columns held at once in log-probs, >= 1

    c.optim = ml_collections.ConfigDict()
    c.optim.learning_rate = 3e-4  # > 0, peak
    c.optim.schedule = "constant"  # constant | cosine | linear, after the warm-up, to 0 at num_updates
    c.optim.warmup_updates = 0  # updates, >= 0
    c.optim.b1 = 0.9  # in [0, 1)
    c.optim.b2 = 0.95  # in [0, 1)
    c.optim.eps = 1e-8  # > 0
    c.optim.weight_decay = 0.0  # >= 0
    c.optim.grad_clip = 1.0  # global norm, > 0; 0: off
    c.optim.microbatch_rows = 64  # rows whose activations are alive at once, >= 1
    c.optim.minibatches = 1  # optimizer updates per rollout batch, >= 1

    c.train = ml_collections.ConfigDict()
    c.train.num_updates = 100  # rollout batches, >= 1
    c.train.max_generated_tokens = 0  # stop once so many tokens were generated (repairs, audits counted); 0: off
    c.train.checkpoint_every = 25  # updates, >= 1; the last update is always saved
    c.train.keep_checkpoints = 2  # newest ones kept, >= 1
    c.train.log_rollouts_every = 10  # updates, >= 1
    c.train.log_rollouts = 16  # records per logged update, >= 0
    c.train.tensorboard = True  # bool: event files beside metrics.jsonl

    c.eval = ml_collections.ConfigDict()
    c.eval.every = 10  # updates; 0: only at the end
    c.eval.num_problems = 512  # >= 1, the same in every evaluation
    c.eval.num_samples = 1  # per problem at temperature 1, >= 1
    c.eval.seed = 1_000_003  # int >= 0, of the evaluation problems

    c.sft = ml_collections.ConfigDict()  # cold start
    c.sft.path = ""  # JSONL of {"prompt", "completion"}; empty: the task's own cold start
    c.sft.policy_updates = 1500  # updates of policy mode on demonstrations, with synthetic repairs, >= 0
    c.sft.repair_updates = 750  # updates on the policy's own failures, repaired by the task, >= 0
    c.sft.batch_rows = 128  # rows per update, >= 2
    c.sft.learning_rate = 2e-3  # > 0, peak; cosine to a tenth
    c.sft.repair_learning_rate = 5e-4  # > 0, of the second phase
    c.sft.repair_fraction = 0.5  # rows in repair mode, in [0, 1]
    c.sft.failures_every = 50  # updates between fresh samples of the policy's own failures, >= 1
    c.lock()
    return c


# What each method's name means: the fields in which it differs from `base()`.
RECIPES: dict[str, dict[str, Any]] = {
    "iop": {},  # arXiv 2605.05226 over GSPO
    "gspo": {},  # arXiv 2507.18071
    "grpo": {"loss.ratio": "token", "loss.clip_low": 0.2, "loss.clip_high": 0.2},  # 2402.03300
    "dr_grpo": {  # 2503.20783
        "advantage.kind": "centred",
        "loss.ratio": "token",
        "loss.aggregation": "seq_sum_over_const",
        "loss.clip_low": 0.2,
        "loss.clip_high": 0.2,
    },
    "dapo": {  # 2503.14476
        "loss.ratio": "token",
        "loss.aggregation": "token_mean",
        "loss.clip_low": 0.2,
        "loss.clip_high": 0.28,
        "overlong.filter": True,
        "rollout.max_refills": 4,
    },
}


def recipe(method: str) -> ml_collections.ConfigDict:
    """`base()` with the settings that the method's paper states.

    Args:
      method: iop | gspo | grpo | dr_grpo | dapo.
    Returns:
      Locked ConfigDict.
    Raises:
      ValueError: no such method.
    Example:
      >>> recipe("dapo").loss.clip_high
      0.28
    """
    if method not in RECIPES:
        raise ValueError(f"method {method!r}: must be one of {', '.join(RECIPES)}")
    config = base()
    config.update_from_flattened_dict({"method.name": method} | RECIPES[method])
    return config


# Allowed words of the fields that choose a function.
CHOICES = {
    "task.name": ("arithmetic", "gsm8k"),
    "model.dtype": ("float32", "bfloat16"),
    "method.name": ("iop", "gspo", "grpo", "dr_grpo", "dapo"),
    "advantage.kind": ("zscore", "centred", "leave_one_out"),
    "advantage.ddof": (0, 1),
    "iop.anchor": ("random", "nearest"),
    "iop.audit": ("continuation", "replay", "judge", "none"),
    "iop.audit_reject": ("literal", "floor"),
    "iop.adv_group": ("pair", "original", "centred"),
    "iop.unrepaired": ("drop", "outcome"),
    "iop.graft": ("splice", "continue"),
    "iop.gate": ("edits", "all"),
    "iop.repair_objective": ("rl", "sft"),
    "iop.clip_scale": ("none", "sqrt"),
    "loss.ratio": ("token", "sequence"),
    "loss.aggregation": ("seq_mean_token_mean", "token_mean", "seq_sum_over_const"),
    "loss.kl_estimator": ("k1", "k2", "k3"),
    "loss.old_logprobs": ("recomputed", "behavior"),
    "optim.schedule": ("constant", "cosine", "linear"),
}

# (lowest, highest) of the numeric fields, both ends allowed; None: no end. Open ends are written as tiny offsets.
_TINY = 1e-12
RANGES: dict[str, tuple[float | None, float | None]] = {
    "seed": (0, None),
    "task.length": (2, 16),
    "task.modulus": (2, 100),
    "mesh.data": (1, None),
    "mesh.fsdp": (-1, None),
    "mesh.tensor": (1, None),
    "rollout.num_prompts": (1, None),
    "rollout.group_size": (1, None),
    "rollout.prompt_length": (0, None),
    "rollout.max_new_tokens": (0, None),
    "rollout.temperature": (_TINY, None),
    "rollout.top_k": (0, None),
    "rollout.top_p": (_TINY, 1),
    "rollout.max_refills": (0, None),
    "rollout.chunk_rows": (1, None),
    "advantage.eps": (_TINY, None),
    "overlong.penalty_tokens": (0, None),
    "iop.threshold": (_TINY, 1),
    "iop.num_repairs": (1, None),
    "iop.audit_continuations": (1, None),
    "iop.anchor_copy_similarity": (0, 1),
    "iop.judge_timeout_s": (_TINY, None),
    "iop.edit_cost": (0, 1 - _TINY),
    "iop.num_edits": (0, None),
    "iop.repair_weight": (0, None),
    "iop.repair_rows": (1, None),
    "loss.clip_low": (0, 1 - _TINY),
    "loss.clip_high": (0, None),
    "loss.dual_clip": (0, None),
    "loss.kl_coef": (0, None),
    "loss.entropy_coef": (0, None),
    "loss.vocab_chunk": (1, None),
    "optim.learning_rate": (_TINY, None),
    "optim.warmup_updates": (0, None),
    "optim.b1": (0, 1 - _TINY),
    "optim.b2": (0, 1 - _TINY),
    "optim.eps": (_TINY, None),
    "optim.weight_decay": (0, None),
    "optim.grad_clip": (0, None),
    "optim.microbatch_rows": (1, None),
    "optim.minibatches": (1, None),
    "train.num_updates": (1, None),
    "train.max_generated_tokens": (0, None),
    "train.checkpoint_every": (1, None),
    "train.keep_checkpoints": (1, None),
    "train.log_rollouts_every": (1, None),
    "train.log_rollouts": (0, None),
    "eval.every": (0, None),
    "eval.num_problems": (1, None),
    "eval.num_samples": (1, None),
    "eval.seed": (0, None),
    "sft.policy_updates": (0, None),
    "sft.repair_updates": (0, None),
    "sft.batch_rows": (2, None),
    "sft.learning_rate": (_TINY, None),
    "sft.repair_learning_rate": (_TINY, None),
    "sft.repair_fraction": (0, 1),
    "sft.failures_every": (1, None),
}


def fields(config: ml_collections.ConfigDict, prefix: str = "") -> dict[str, Any]:
    """Flat {dotted name: value} of every field."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, ml_collections.ConfigDict):
            flat |= fields(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


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
    flat, known = fields(config), fields(base())
    problems = [unknown_field(name, known) for name in flat if name not in known]
    problems += [f"{name}: missing; start from config.base()" for name in known if name not in flat]
    for name, default in known.items():
        if name not in flat:
            continue
        problems += _value_problems(name, flat[name], default)
    if not problems:
        problems += _combination_problems(config)
    if problems:
        count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
        raise ValueError(f"{count} in the config:\n" + "\n".join(f"  {p}" for p in problems))
    return config


def unknown_field(name: str, known: Iterable[str]) -> str:
    """Error line for a name that no field has, with the nearest one that exists."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"{name}: no such field" + (f"; did you mean {near[0]}?" if near else "")


def _value_problems(name: str, value: Any, default: Any) -> list[str]:
    if isinstance(default, bool) != isinstance(value, bool):
        return [f"{name} = {value!r}: must be a {type(default).__name__}"]
    if isinstance(default, float) and isinstance(value, int):
        value = float(value)
    if type(value) is not type(default):
        return [f"{name} = {value!r}: must be a {type(default).__name__}"]
    if name in CHOICES and value not in CHOICES[name]:
        return [f"{name} = {value!r}: must be one of {', '.join(map(str, CHOICES[name]))}"]
    if name in RANGES:
        low, high = RANGES[name]
        if not ((low is None or value >= low) and (high is None or value <= high)):
            return [f"{name} = {value!r}: must be {_range_text(low, high)}"]
    return []


def _range_text(low: float | None, high: float | None) -> str:
    if high is None:
        return "> 0" if low == _TINY else f">= {low:g}"
    opening = "(0" if low == _TINY else f"[{low:g}"
    closing = "1)" if high == 1 - _TINY else f"{high:g}]"
    return f"in {opening}, {closing}"


def _combination_problems(c: ml_collections.ConfigDict) -> list[str]:
    problems = []
    operators = c.task.operators
    if not operators or set(operators) - set("+-*") or len(set(operators)) < len(operators):
        problems.append(f'task.operators = {operators!r}: must be one or more of "+-*", each once')
    if c.rollout.top_k != 0 or c.rollout.top_p != 1.0:
        problems.append(
            f"rollout.top_k = {c.rollout.top_k}, rollout.top_p = {c.rollout.top_p}: training needs 0 and 1.0, since"
            " a cut distribution is not the one whose log-probs enter the ratio; cut at evaluation instead"
        )
    if c.rollout.chunk_rows < c.rollout.group_size:
        problems.append(
            f"rollout.chunk_rows = {c.rollout.chunk_rows}: must be at least rollout.group_size"
            f" = {c.rollout.group_size}, since a group shares its prompt's cache"
        )
    ratio = RECIPES[c.method.name].get("loss.ratio", "sequence")
    if c.loss.ratio != ratio:
        problems.append(
            f"loss.ratio = {c.loss.ratio!r}: {c.method.name} means {ratio!r};"
            f" start from config.recipe({c.method.name!r}), or name another method"
        )
    if c.loss.dual_clip != 0 and c.loss.dual_clip <= 1:
        problems.append(f"loss.dual_clip = {c.loss.dual_clip}: must be 0 (off) or > 1")
    if c.mesh.fsdp == 0:
        problems.append("mesh.fsdp = 0: must be >= 1, or -1 for all devices that are left")
    if c.method.name == "iop" and c.iop.audit == "judge" and not (c.iop.judge_url and c.iop.judge_model):
        problems.append("iop.audit = 'judge': set iop.judge_url and iop.judge_model")
    if c.task.name == "gsm8k" and not c.task.path:
        problems.append("task.path = '': gsm8k reads a JSONL file; set it to the path of train.jsonl")
    return problems


def override(config: ml_collections.ConfigDict, assignments: Sequence[str]) -> ml_collections.ConfigDict:
    """Apply `name=value` strings, parsed by the type of the field; all problems in one error.

    Example:
      >>> override(base(), ["loss.clip_high=0.28"]).loss.clip_high
      0.28
    """
    known, problems = fields(config), []
    for assignment in assignments:
        name, separator, text = assignment.partition("=")
        name = name.strip().removeprefix("--").removeprefix("config.")
        if not separator:
            problems.append(f"{assignment!r}: write name=value")
        elif name not in known:
            problems.append(unknown_field(name, known))
        else:
            try:
                value = _parse(text, known[name])
            except ValueError:
                problems.append(f"{name} = {text!r}: must be a {type(known[name]).__name__}")
                continue
            with config.unlocked():
                config.update_from_flattened_dict({name: value})
    if problems:
        count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
        raise ValueError(f"{count} in the overrides:\n" + "\n".join(f"  {p}" for p in problems))
    return config


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
        raise FileNotFoundError(f"{path}: no such config file; configs/ holds the ones that come with the project")
    spec = importlib.util.spec_from_file_location("jaxrl_reason_config", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "get_config"):
        raise ValueError(f"{path}: has no get_config(); see configs/ for examples")
    return validate(override(module.get_config(), overrides))


def to_json(config: ml_collections.ConfigDict) -> str:
    """The resolved config as indented JSON, for the run folder."""
    return json.dumps(config.to_dict(), indent=2, sort_keys=True) + "\n"


def from_json(text: str) -> ml_collections.ConfigDict:
    """Read back what `to_json` wrote; validated."""
    config = ml_collections.ConfigDict(json.loads(text))
    config.lock()
    return validate(config)
