"""The locator that a config names.

Host side. Reads: nothing. Writes: nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import ml_collections

from jaxrl_reason.credit import critic, locate, locate_monte_carlo, locate_steps
from jaxrl_reason.types import (
    AlignFn,
    Completion,
    CriticFn,
    Problem,
    SampleFn,
    StepRewardsFn,
    VerifyFn,
)


class Tools(NamedTuple):
    """The functions that a locator may need; None: there is no such thing in this run."""

    step_ids_fn: locate.StepIdsFn
    decode: Callable[[Sequence[int]], str]
    separator: str  # text that ends a step
    first_error: Callable[[Problem, str], int] | None  # the task's own oracle
    sample_fn: SampleFn
    verify_fn: VerifyFn
    align_fn: AlignFn
    encode_prompt: Callable[[Problem], Sequence[int]]
    repair_prompt: Callable[[Problem, Completion, Completion], Sequence[int]]
    step_rewards: StepRewardsFn | None
    critic: CriticFn | None


def make_locator(settings: ml_collections.ConfigDict, tools: Tools) -> locate.Locator:
    """Locator that `settings`, the `locate` part of a config, asks for.

    Args:
      settings: `config.locate`.
      tools: what it may use.
    Returns:
      Locator.
    Raises:
      ValueError: unknown kind, or one whose tool is missing.
    Example:
      >>> from jaxrl_reason import config
      >>> tools = Tools(*[None] * len(Tools._fields))._replace(separator=";")
      >>> make_locator(config.base().locate, tools)
      Traceback (most recent call last):
      ...
      ValueError: locate.kind = 'oracle': this task cannot judge steps; choose monte_carlo
    """
    kinds = {
        "oracle": _oracle,
        "monte_carlo": _monte_carlo,
        "executable": lambda settings, tools: _by_steps(locate_steps.executable, tools),
        "prm": _prm,
        "critic": _critic,
        "repair_diff": _repaired,
    }
    if settings.kind not in kinds:
        raise ValueError(f"locate.kind = {settings.kind!r}: must be one of {', '.join(kinds)}")
    return kinds[settings.kind](settings, tools)


def _by_steps(judge: locate_steps.JudgeSteps, tools: Tools) -> locate.Locator:
    return locate_steps.by_steps(judge, tools.step_ids_fn, tools.decode, tools.separator)


def _oracle(settings: ml_collections.ConfigDict, tools: Tools) -> locate.Locator:
    if tools.first_error is None:
        raise ValueError("locate.kind = 'oracle': this task cannot judge steps; choose monte_carlo")
    return locate.oracle(tools.first_error, tools.step_ids_fn)


def _monte_carlo(settings: ml_collections.ConfigDict, tools: Tools) -> locate.Locator:
    return locate_monte_carlo.monte_carlo(
        tools.sample_fn,
        tools.verify_fn,
        tools.encode_prompt,
        tools.step_ids_fn,
        continuations=settings.continuations,
        retest=settings.retest,
        max_generations=settings.max_generations,
        threshold=settings.threshold,
    )


def _prm(settings: ml_collections.ConfigDict, tools: Tools) -> locate.Locator:
    if tools.step_rewards is None:
        raise ValueError("locate.kind = 'prm': no reward model was loaded; set locate.prm_path")
    return _by_steps(locate_steps.by_rewards(tools.step_rewards, settings.prm_threshold), tools)


def _critic(settings: ml_collections.ConfigDict, tools: Tools) -> locate.Locator:
    if tools.critic is None:
        raise ValueError("locate.kind = 'critic': no critic was loaded; set locate.critic_source")
    form = critic.FORMS[settings.critic_form]
    return _by_steps(locate_steps.by_critic(tools.critic, settings.critic_samples, form), tools)


def _repaired(settings: ml_collections.ConfigDict, tools: Tools) -> locate.Locator:
    return locate.repaired(
        tools.sample_fn,
        tools.verify_fn,
        tools.align_fn,
        tools.repair_prompt,
        tools.step_ids_fn,
        num_repairs=settings.repairs,
        threshold=settings.threshold,
    )
