"""Settings of the methods: each with its default, unit and range, for `config.base`.

Host side. Reads: nothing. Writes: nothing.
"""

from __future__ import annotations

import ml_collections


def method() -> ml_collections.ConfigDict:
    """The system that makes training rows."""
    c = ml_collections.ConfigDict()
    # iop | gspo | grpo | dr_grpo | dapo | rloo | reinforce_pp | reinforce_pp_baseline |
    # vppo | cliff | grpo_process | mixed | rts | prime | ppo | srl
    c.name = "iop"
    return c


def advantage() -> ml_collections.ConfigDict:
    """Advantages of the outcome methods."""
    c = ml_collections.ConfigDict()
    c.kind = "zscore"  # zscore | centred | leave_one_out within the group; raw: the reward itself
    c.whiten = (
        "none"  # none | rows | tokens: then z-score over the whole batch, by completion or token
    )
    c.ddof = 0  # 0: population std (the papers), 1: sample std (verl, TRL)
    c.eps = 1e-6  # > 0, added to the std
    return c


def overlong() -> ml_collections.ConfigDict:
    """Completions near or over their budget: DAPO, arXiv 2503.14476."""
    c = ml_collections.ConfigDict()
    c.filter = False  # bool: truncated completions get no loss
    c.penalty_tokens = (
        0  # L_cache, tokens: soft penalty over the last so many tokens of the budget; 0: off
    )
    return c


def locate() -> ml_collections.ConfigDict:
    """First errors of wrong completions, for the methods that use them (`config_rules.LOCATING`)."""
    c = ml_collections.ConfigDict()
    # oracle (the task's own) | monte_carlo (binary search, arXiv 2406.06592) | executable (equations are computed) |
    # prm | critic | repair_diff (first edit of the policy's own repair)
    c.kind = "oracle"
    c.threshold = 0.5  # tau_r in (0, 1]: reward at or above it counts as correct
    c.no_error = (
        "last"  # last | none: a wrong completion without a wrong step: its last step | no credit
    )
    c.continuations = 8  # k per probed prefix of the search, >= 1
    c.retest = 32  # continuations of the second test of a boundary, >= 0; 0: none
    c.max_generations = 128  # most continuations for one completion, >= 1; beyond: unknown
    c.repairs = 2  # repairs per completion, >= 1, of repair_diff
    c.prm_path = ""  # folder of the process reward model: of train-prm, or a Qwen2.5-Math-PRM
    c.prm_threshold = 0.8  # tau in (0, 1]: the first step with P(right) below it is the first error
    c.prm_tokens = 0  # longest row that it reads, tokens, >= 0; 0: the run's budgets and an eighth
    c.prm_min_f1 = 0.5  # in [0, 1]: warn where its recorded F1 is lower
    c.prm_unevaluated = False  # bool: accept one whose folder records no F1
    c.critic_source = "policy"  # policy: the one in training; else a policy or Hugging Face folder
    c.critic_form = "paragraphs"  # paragraphs (ProcessBench) | count; see credit/critic.py
    c.critic_samples = 1  # k >= 1; 1: greedy; more: majority at temperature 0.7
    c.critic_prompt_tokens = 2048  # >= 1; longer prompts: unknown
    c.critic_new_tokens = 512  # >= 1
    return c


def prm() -> ml_collections.ConfigDict:
    """Training of a process reward model, `train-prm`."""
    c = ml_collections.ConfigDict()
    c.start = ""  # folder of a process reward model to go on from; empty: the trunk of model.source
    # oracle: the task's own, on solutions sampled from the policy | monte_carlo: the search of `locate`, on the same |
    # trl | prm800k: a JSONL file
    c.labels = "oracle"
    c.path = ""  # that file
    c.solutions = 4096  # sampled for oracle and monte_carlo labels, >= 1
    c.targets = "hard"  # hard: 0 or 1 | soft: the labels as they are
    c.hard_above = 0.0  # in [0, 1): labels above it are right; 2501.07301: 0 for Monte-Carlo shares
    c.after_error = "drop"  # drop | keep: steps behind the first wrong one (2501.07301: drop)
    c.step_end = ""  # one token that ends a step; empty: <extra_0>, or the task's separator
    c.updates = 600  # >= 0; 0: only the evaluation
    c.batch_rows = 64  # solutions per update, >= 1
    c.learning_rate = 1e-3  # > 0, peak; cosine to a tenth
    c.eval_path = (
        ""  # ProcessBench JSON; empty: solutions of the policy to other problems, by oracle
    )
    c.eval_solutions = 512  # of them, >= 1
    return c


def vppo() -> ml_collections.ConfigDict:
    """VPPO, arXiv 2601.18984."""
    c = ml_collections.ConfigDict()
    c.alpha = 0.5  # advantage of a good prefix before the centring, in [0, 1]
    c.shorten = "prompt"  # prompt | none: take the number of prompt tokens off the good prefix
    c.relu = False  # bool: no negative advantage on a good prefix (the paper: for instruct models)
    return c


def cliff() -> ml_collections.ConfigDict:
    """Cliff, arXiv 2609.02817."""
    c = ml_collections.ConfigDict()
    c.prefix_scale = (
        0.0  # lambda in [0, 1]: share of a right completion's advantage before the error
    )
    return c


def mixed() -> ml_collections.ConfigDict:
    """Mixed, a baseline in arXiv 2601.18984."""
    c = ml_collections.ConfigDict()
    c.process_share = 0.5  # lambda in [0, 1]: weight of the mean step reward beside the outcome
    return c


def rts() -> ml_collections.ConfigDict:
    """RTS, a baseline in arXiv 2601.18984."""
    c = ml_collections.ConfigDict()
    c.slope = 10.0  # > 0, of the sigmoid over the share of good steps
    c.offset = 0.5  # share of good steps with reward 1/2, in [0, 1]
    return c


def prime() -> ml_collections.ConfigDict:
    """PRIME, arXiv 2502.01456."""
    c = ml_collections.ConfigDict()
    c.beta = 0.05  # > 0, reward per nat of log-ratio between reward model and reference
    c.learning_rate = 1e-6  # > 0, peak, of the reward model
    c.gamma = 1.0  # discount per token of implicit rewards, in [0, 1]
    c.implicit_coef = 1.0  # >= 0, of the implicit rewards' return (verl: 5)
    c.outcome_coef = 1.0  # >= 0, of the outcome's (verl: 5)
    c.min_accuracy = 0.2  # in [0, 1]: groups less right give no signal
    c.max_accuracy = 0.8  # in [0, 1]: groups more right give no signal
    return c


def ppo() -> ml_collections.ConfigDict:
    """PPO, arXiv 1707.06347, with the defaults of verl."""
    c = ml_collections.ConfigDict()
    c.gamma = 1.0  # discount per token, in [0, 1]
    c.lam = 1.0  # lambda of the advantage estimate, in [0, 1]
    c.critic_learning_rate = 1e-5  # > 0, peak
    c.value_clip = 0.5  # > 0, reward units that a value may move in one batch; 0: off
    return c


def srl() -> ml_collections.ConfigDict:
    """SRL, arXiv 2510.25992."""
    c = ml_collections.ConfigDict()
    c.min_std = (
        0.01  # epsilon >= 0: groups whose rewards have no larger population std give no signal
    )
    c.autojunk = False  # bool: difflib's heuristic for long texts, which changes the reward
    return c


def iop() -> ml_collections.ConfigDict:
    """IOP, arXiv 2605.05226; letters A-N: choices that the paper leaves open."""
    c = ml_collections.ConfigDict()
    c.threshold = 0.5  # tau_r in (0, 1]: reward at or above it counts as correct
    c.num_repairs = 2  # G_rep, repairs per failed completion, >= 1
    c.anchor = "random"  # E: random | nearest correct sample of the group
    c.reference_anchor = (
        False  # C: take the data set's solution as anchor where the group has no correct sample
    )
    c.audit = "continuation"  # continuation | replay | judge | none
    c.audit_continuations = 2  # k continuations of the `continuation` audit, >= 1
    c.audit_cut = "first_edit"  # first_edit | last_step: where that audit cuts the repair
    c.anchor_copy_similarity = 0.9  # a repair this close to its anchor is a copy, in [0, 1]
    # Unless the failed completion was this close to it before, in [0, 1]. Far below the limit of a copy on purpose, see
    # `credit.screen.cheap_tests`; equal to it, only a failed completion that was itself a copy is let off.
    c.anchor_path_similarity = 0.6
    c.judge_url = ""  # base URL of an OpenAI-compatible server, for the `judge` audit
    c.judge_model = ""  # model name sent to it
    c.judge_timeout_s = 30.0  # seconds per try, from the name's resolution to the last byte, > 0
    c.judge_retries = 4  # tries after the first where that can help: timeouts, 429, 5xx; >= 0
    c.judge_deadline_s = 120.0  # seconds for all tries of one question and their waits, > 0
    c.judge_patience = 3  # updates in a row without one verdict after which the run ends, >= 1
    c.edit_cost = 0.1  # lambda_edit in [0, 1): score = h (r - edit_cost * normalised distance)
    c.audit_reject = (
        "floor"  # L: literal | floor; score of a rejected repair in repair mode: 0 | -edit_cost
    )
    c.adv_group = "pair"  # A: pair (-1/+1) | original (z-score of the sampled group) | centred
    c.unrepaired = "drop"  # B: drop | outcome (whole failed completion as a negative)
    c.num_edits = 8  # K, edits kept at first; 0: all (no truncation)
    c.graft = "continue"  # I: splice | continue
    c.mark_insertion_point = (
        False  # J: an insertion gates the failed token that stands in its place
    )
    c.gate = "edits"  # edits | all: all trains every token of the pair (ablation)
    c.repair_weight = 0.5  # lambda_rep >= 0; 0: no repair-mode objective, no rows for it
    c.repair_objective = "rl"  # K: rl (group-normalised scores) | sft (best accepted repair only)
    c.repair_advantage = "centred"  # K: zscore | centred, over the repairs of one failure
    c.repair_rows = 256  # most repair-mode rows trained per update, >= 1
    c.clip_scale = (
        "sqrt"  # none | sqrt: widen the clip by sqrt(length / gated tokens), at most 5 times
    )
    return c
