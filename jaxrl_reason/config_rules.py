"""What the settings may be: recipes of the methods, allowed words and numbers, and the checks.

Host side. Reads: nothing. Writes: nothing. `config.base` holds the defaults; this is the other half of each field.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import ml_collections

from jaxrl_reason import config_names

# 2501.03262: advantages are normalised over the batch, not within the group; the KL term is k2 beside the loss.
_REINFORCE_PP = {
    "advantage.whiten": "tokens",
    "loss.ratio": "token",
    "loss.aggregation": "token_mean",
    "loss.clip_low": 0.2,
    "loss.clip_high": 0.2,
    "loss.kl_estimator": "k2",
}

_TOKEN_PPO = {"loss.ratio": "token", "loss.clip_low": 0.2, "loss.clip_high": 0.2}

# What each method's name means: the fields in which it differs from `base()`.
RECIPES: dict[str, dict[str, Any]] = {
    "iop": {},  # arXiv 2605.05226 over GSPO
    "gspo": {},  # arXiv 2507.18071
    "grpo": _TOKEN_PPO,  # 2402.03300
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
    "rloo": {  # 2402.14740: the whole completion is one action, so the sum over its tokens
        "advantage.kind": "leave_one_out",
        "loss.ratio": "token",
        "loss.aggregation": "seq_sum_over_const",
        "loss.clip_low": 0.2,
        "loss.clip_high": 0.2,
        "loss.kl_estimator": "k2",
    },
    "reinforce_pp": _REINFORCE_PP | {"advantage.kind": "raw"},
    "reinforce_pp_baseline": _REINFORCE_PP | {"advantage.kind": "centred"},
    "vppo": _TOKEN_PPO,  # 2601.18984
    "cliff": _TOKEN_PPO | {"loss.aggregation": "token_mean"},  # 2609.02817
    "grpo_process": _TOKEN_PPO,  # 2402.03300 section 4.1.3
    "mixed": _TOKEN_PPO,  # both baselines of 2601.18984
    "rts": _TOKEN_PPO,
    "prime": _TOKEN_PPO  # 2502.01456
    | {"loss.aggregation": "token_mean", "rollout.max_refills": 3},
    "ppo": _TOKEN_PPO  # 1707.06347, as in verl
    | {"loss.aggregation": "token_mean", "loss.dual_clip": 3.0, "advantage.whiten": "tokens"},
    "srl": _TOKEN_PPO  # 2510.25992
    | {"task.steps": True, "task.think": True, "rollout.max_refills": 4},
}

# Methods whose advantages are centred for one way of averaging, and are biased under another.
CENTRED_FOR_AGGREGATION = ("vppo", "cliff")
# Tasks that read a file, and tasks that cannot judge steps.
READING = ("gsm8k", "math", "code")
WITHOUT_ORACLE = ("gsm8k", "knights", "math", "code")
# Of `verify.step_rules`.
STEP_RULES = ("blank_line", "newline", "step_k", "sentence", "code_line")
STEP_TOKENS = r"tokens:([1-9][0-9]{0,5})"
# Methods that need the first error of a wrong completion.
LOCATING = ("vppo", "cliff", "grpo_process", "mixed", "rts")
# Methods whose advantages differ between the tokens of a completion before any whitening.
TOKEN_WISE = ("prime", "ppo")

# Allowed words of the fields that choose a function.
CHOICES = {
    "task.name": ("arithmetic", "code", "countdown", "game24", "gsm8k", "knights", "math"),
    "task.expert_order": ("random", "left"),
    "task.extract": ("strict", "flexible"),
    "task.step_end": ("eos", "separator"),
    "model.dtype": ("float32", "bfloat16"),
    "model.remat": ("none", "full", "dots"),
    "model.attention": ("auto", "dense", "xla", "cudnn", "splash"),
    "model.prompt_format": ("plain", "chat", "auto"),
    "method.name": tuple(RECIPES),
    "advantage.kind": ("zscore", "centred", "leave_one_out", "raw"),
    "advantage.whiten": ("none", "rows", "tokens"),
    "advantage.ddof": (0, 1),
    "locate.kind": ("oracle", "monte_carlo", "executable", "prm", "critic", "repair_diff"),
    "locate.no_error": ("last", "none"),
    "locate.critic_form": ("paragraphs", "count"),
    "vppo.shorten": ("prompt", "none"),
    "iop.anchor": ("random", "nearest"),
    "iop.audit": ("continuation", "replay", "judge", "none"),
    "iop.audit_cut": ("first_edit", "last_step"),
    "iop.audit_reject": ("literal", "floor"),
    "iop.adv_group": ("pair", "original", "centred"),
    "iop.unrepaired": ("drop", "outcome"),
    "iop.graft": ("splice", "continue"),
    "iop.gate": ("edits", "all"),
    "iop.repair_objective": ("rl", "sft"),
    "iop.repair_advantage": ("zscore", "centred"),
    "iop.clip_scale": ("none", "sqrt"),
    "loss.ratio": ("token", "sequence"),
    "loss.aggregation": ("seq_mean_token_mean", "token_mean", "seq_sum_over_const"),
    "loss.kl_estimator": ("k1", "k2", "k3"),
    "loss.old_logprobs": ("recomputed", "behavior"),
    "loss.mismatch": ("none", "tis", "icepop"),
    "loss.mismatch_level": ("token", "sequence"),
    "optim.schedule": ("constant", "cosine", "linear"),
    "sft.optimizer": ("adamw", "muon"),
    "prm.labels": ("oracle", "monte_carlo", "trl", "prm800k"),
    "prm.targets": ("hard", "soft"),
    "prm.after_error": ("drop", "keep"),
}

# (lowest, highest) of the numeric fields, both ends allowed; None: no end. Open ends are written as tiny offsets.
TINY = 1e-12
RANGES: dict[str, tuple[float | None, float | None]] = {
    "seed": (0, None),
    "task.length": (2, 16),
    "task.modulus": (2, 100),
    "lora.rank": (0, None),
    "lora.alpha": (TINY, None),
    "task.sandbox.timeout_s": (TINY, None),
    "task.sandbox.batch_timeout_s": (TINY, None),
    "task.sandbox.memory_mb": (64, None),
    "task.sandbox.output_kb": (1, None),
    "task.sandbox.disk_mb": (1, None),
    "task.sandbox.max_threads": (1, None),
    "task.sandbox.max_files": (8, None),
    "task.sandbox.workers": (1, None),
    "task.numbers": (3, 5),
    "task.largest": (2, 999),
    "task.max_target": (1, 9999),
    "task.people": (2, 8),
    "task.hold_out": (0, None),
    "task.min_pass_rate": (0, 1),
    "task.max_pass_rate": (0, 1),
    "task.verify_workers": (0, None),
    "task.verify_timeout_s": (TINY, None),
    "mesh.data": (1, None),
    "mesh.fsdp": (-1, None),
    "mesh.tensor": (1, None),
    "rollout.num_prompts": (1, None),
    "rollout.group_size": (1, None),
    "rollout.prompt_length": (0, None),
    "rollout.max_new_tokens": (0, None),
    "rollout.temperature": (TINY, None),
    "rollout.max_refills": (0, None),
    "rollout.chunk_rows": (1, None),
    "advantage.eps": (TINY, None),
    "overlong.penalty_tokens": (0, None),
    "locate.threshold": (TINY, 1),
    "locate.continuations": (1, None),
    "locate.retest": (0, None),
    "locate.max_generations": (1, None),
    "locate.repairs": (1, None),
    "locate.prm_threshold": (TINY, 1),
    "locate.prm_tokens": (0, None),
    "locate.prm_min_f1": (0, 1),
    "locate.critic_samples": (1, None),
    "locate.critic_prompt_tokens": (1, None),
    "locate.critic_new_tokens": (1, None),
    "vppo.alpha": (0, 1),
    "cliff.prefix_scale": (0, 1),
    "srl.min_std": (0, None),
    "mixed.process_share": (0, 1),
    "rts.slope": (TINY, None),
    "rts.offset": (0, 1),
    "prime.beta": (TINY, None),
    "prime.learning_rate": (TINY, None),
    "prime.gamma": (0, 1),
    "prime.implicit_coef": (0, None),
    "prime.outcome_coef": (0, None),
    "prime.min_accuracy": (0, 1),
    "prime.max_accuracy": (0, 1),
    "ppo.gamma": (0, 1),
    "ppo.lam": (0, 1),
    "ppo.critic_learning_rate": (TINY, None),
    "ppo.value_clip": (0, None),
    "iop.threshold": (TINY, 1),
    "iop.num_repairs": (1, None),
    "iop.audit_continuations": (1, None),
    "iop.anchor_copy_similarity": (0, 1),
    "iop.anchor_path_similarity": (0, 1),
    "iop.judge_timeout_s": (TINY, None),
    "iop.judge_retries": (0, None),
    "iop.judge_deadline_s": (TINY, None),
    "iop.judge_patience": (1, None),
    "iop.edit_cost": (0, 1 - TINY),
    "iop.num_edits": (0, None),
    "iop.repair_weight": (0, None),
    "iop.repair_rows": (1, None),
    "loss.clip_low": (0, 1 - TINY),
    "loss.clip_high": (0, None),
    "loss.dual_clip": (0, None),
    "loss.kl_coef": (0, None),
    "loss.entropy_coef": (0, None),
    "loss.vocab_chunk": (1, None),
    "loss.mismatch_low": (0, 1),
    "loss.mismatch_high": (1, None),
    "optim.learning_rate": (TINY, None),
    "optim.warmup_updates": (0, None),
    "optim.b1": (0, 1 - TINY),
    "optim.b2": (0, 1 - TINY),
    "optim.eps": (TINY, None),
    "optim.weight_decay": (0, None),
    "optim.grad_clip": (0, None),
    "optim.microbatch_rows": (1, None),
    "optim.minibatches": (1, None),
    "train.num_updates": (1, None),
    "train.max_generated_tokens": (0, None),
    "train.checkpoint_every": (1, None),
    "train.keep_checkpoints": (1, None),
    "train.preempt_grace_s": (0, None),
    "train.log_rollouts_every": (1, None),
    "train.log_rollouts": (0, None),
    "eval.every": (0, None),
    "eval.num_problems": (1, None),
    "eval.num_samples": (1, None),
    "eval.temperature": (TINY, None),
    "eval.top_k": (0, None),
    "eval.top_p": (TINY, 1),
    "eval.seed": (0, None),
    "sft.policy_updates": (0, None),
    "sft.repair_updates": (0, None),
    "sft.batch_rows": (2, None),
    "sft.learning_rate": (TINY, None),
    "sft.repair_learning_rate": (TINY, None),
    "sft.repair_start": (0, 1),
    "sft.repair_fraction": (0, 1),
    "sft.failures_every": (1, None),
    "prm.solutions": (1, None),
    "prm.hard_above": (0, 1 - TINY),
    "prm.updates": (0, None),
    "prm.batch_rows": (1, None),
    "prm.learning_rate": (TINY, None),
    "prm.eval_solutions": (1, None),
}


def unknown_field(name: str, known: Iterable[str]) -> str:
    """Error line for a name that no field has, with the nearest one that exists."""
    near = config_names.nearest_field(name, known)
    return f"{name}: no such field" + (f"; did you mean {near}?" if near else "")


_TYPES = {
    bool: "true or false",
    int: "an integer",
    float: "a number",
    str: "a text",
}


def type_problem(name: str, value: Any, default: Any) -> str:
    """Error line for a value of another type than the field's default."""
    return f"{name} = {value!r}: must be {_TYPES[type(default)]}"


def value_problems(name: str, value: Any, default: Any) -> list[str]:
    """Error lines for one field: type, allowed words, range."""
    if isinstance(default, bool) != isinstance(value, bool):
        return [type_problem(name, value, default)]
    if isinstance(default, float) and isinstance(value, int):
        value = float(value)
    if type(value) is not type(default):
        return [type_problem(name, value, default)]
    rule = allowed(name)
    if name in CHOICES and value not in CHOICES[name]:
        return [f"{name} = {value!r}: must be {rule}"]
    if name in RANGES:
        low, high = RANGES[name]
        if not ((low is None or value >= low) and (high is None or value <= high)):
            return [f"{name} = {value!r}: must be {rule}"]
    return []


def allowed(name: str) -> str:
    """What the rules allow for a field, as words; empty where they say nothing.

    Example:
      >>> allowed("loss.clip_low"), allowed("optim.schedule"), allowed("run_dir")
      ('in [0, 1)', 'one of constant, cosine, linear', '')
    """
    if name in CHOICES:
        return f"one of {', '.join(map(str, CHOICES[name]))}"
    return _range_text(*RANGES[name]) if name in RANGES else ""


def _range_text(low: float | int | None, high: float | int | None) -> str:
    if high is None:
        return "> 0" if low == TINY else f">= {low:g}"
    opening = "(0" if low == TINY else f"[{low:g}"
    closing = "1)" if high == 1 - TINY else f"{high:g}]"
    return f"in {opening}, {closing}"


def combination_problems(c: ml_collections.ConfigDict) -> list[str]:
    """Error lines for fields that do not go together."""
    problems = []
    operators = c.task.operators
    if not operators or set(operators) - set("+-*") or len(set(operators)) < len(operators):
        problems.append(f'task.operators = {operators!r}: must be one or more of "+-*", each once')
    if c.rollout.chunk_rows < c.rollout.group_size:
        problems.append(
            f"rollout.chunk_rows = {c.rollout.chunk_rows}: must be at least rollout.group_size"
            f" = {c.rollout.group_size}, since a group shares its prompt's cache"
        )
    if c.task.think and c.task.step_end == "separator":
        problems.append(
            "task.step_end = 'separator': thoughts may hold separators; set task.think to False, or step_end to eos"
        )
    if c.model.attention == "cudnn" and c.model.dtype != "bfloat16":
        problems.append(
            f"model.dtype = {c.model.dtype!r}: model.attention = 'cudnn' needs bfloat16; set it, or choose xla"
        )
    problems += _token_weight_problems(c)
    if c.loss.dual_clip != 0 and c.loss.dual_clip <= 1:
        problems.append(f"loss.dual_clip = {c.loss.dual_clip}: must be 0 (off) or > 1")
    if c.lora.rank and c.sft.optimizer == "muon":
        problems.append(
            f"sft.optimizer = 'muon': is for whole matrices; with lora.rank = {c.lora.rank} set it to adamw"
        )
    if c.mesh.fsdp == 0:
        problems.append("mesh.fsdp = 0: must be >= 1, or -1 for all devices that are left")
    return problems + _method_problems(c) + _data_problems(c.task)


def _method_problems(c: ml_collections.ConfigDict) -> list[str]:
    """Of a method with its loss, its task and its judges."""
    problems = []
    ratio = RECIPES[c.method.name].get("loss.ratio", "sequence")
    if c.loss.ratio != ratio:
        problems.append(
            f"loss.ratio = {c.loss.ratio!r}: {c.method.name} means {ratio!r};"
            f" start from config.recipe({c.method.name!r}), or name another method"
        )
    wanted = RECIPES[c.method.name].get("loss.aggregation", "seq_mean_token_mean")
    if c.method.name in CENTRED_FOR_AGGREGATION and c.loss.aggregation != wanted:
        problems.append(
            f"loss.aggregation = {c.loss.aggregation!r}: {c.method.name} centres its advantages for {wanted!r};"
            " vppo is for seq_mean_token_mean, cliff is its twin for token_mean"
        )
    if c.method.name in LOCATING and c.locate.kind == "oracle" and c.task.name in WITHOUT_ORACLE:
        problems.append(
            f"locate.kind = 'oracle': {c.task.name} cannot judge steps; choose monte_carlo"
        )
    if c.method.name in LOCATING and c.locate.kind == "prm" and not c.locate.prm_path:
        problems.append("locate.prm_path = '': set it to the folder of a process reward model")
    if c.prm.labels in ("trl", "prm800k") and not c.prm.path:
        problems.append(f"prm.path = '': labels {c.prm.labels!r} are read from a JSONL file")
    if c.method.name == "srl" and not c.task.steps:
        problems.append(
            "task.steps = False: srl trains on steps of expert solutions; set it to True"
        )
    if (
        c.method.name == "iop"
        and c.iop.audit == "judge"
        and not (c.iop.judge_url and c.iop.judge_model)
    ):
        problems.append("iop.audit = 'judge': set iop.judge_url and iop.judge_model")
    return problems


def _data_problems(task: ml_collections.ConfigDict) -> list[str]:
    """Error lines for the fields of tasks that read a file."""
    problems = []
    if task.name in READING and not task.path:
        problems.append(f"task.path = '': {task.name} reads a file of problems; set it to its path")
    if task.min_pass_rate > task.max_pass_rate:
        problems.append(
            f"task.min_pass_rate = {task.min_pass_rate}: must be at most task.max_pass_rate = {task.max_pass_rate}"
        )
    if task.pass_rates and task.min_pass_rate == 0 and task.max_pass_rate == 1:
        problems.append(
            f"task.pass_rates = {task.pass_rates!r}: filters nothing; set task.min_pass_rate or task.max_pass_rate"
        )
    return problems + _step_rule_problems(task)


def _step_rule_problems(task: ml_collections.ConfigDict) -> list[str]:
    if not (rule := task.step_rule):
        return []
    if rule not in STEP_RULES and not re.fullmatch(STEP_TOKENS, rule):
        return [f"task.step_rule = {rule!r}: must be one of {', '.join(STEP_RULES)}, tokens:N"]
    if task.name not in WITHOUT_ORACLE:
        return [f"task.step_rule = {rule!r}: {task.name} counts its own steps; set it to ''"]
    if task.steps and rule not in STEP_RULES:
        return [f"task.step_rule = {rule!r}: an expert's text has no tokens; choose another rule"]
    if task.steps and task.step_end == "separator":
        return ["task.step_end = 'separator': task.step_rule has none; set step_end to eos"]
    return []


def _token_weight_problems(c: ml_collections.ConfigDict) -> list[str]:
    """Of methods with an advantage per token, and of weights per token."""
    problems = []
    if c.method.name in TOKEN_WISE and c.advantage.whiten == "rows":
        problems.append(
            f"advantage.whiten = 'rows': {c.method.name} has an advantage per token; choose tokens or none"
        )
    if c.prime.min_accuracy > c.prime.max_accuracy:
        problems.append(
            f"prime.min_accuracy = {c.prime.min_accuracy}: must be <= prime.max_accuracy = {c.prime.max_accuracy}"
        )
    if c.loss.mismatch != "none" and c.loss.old_logprobs == "behavior":
        problems.append(
            f"loss.mismatch = {c.loss.mismatch!r}: needs loss.old_logprobs = 'recomputed', since it weighs by the ratio"
            " of recomputed to sampled probabilities"
        )
    if c.loss.mismatch != "none" and c.method.name == "iop":
        problems.append(
            f"loss.mismatch = {c.loss.mismatch!r}: iop trains repairs under another prompt than they were sampled"
            " under; set it to none"
        )
    return problems
