"""The networks besides the policy that judge steps: a process reward model, a critic.

Host side; drives the device. Reads: the folders that `config.locate` names. Writes: nothing.
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import ml_collections

from jaxrl_reason import config_rules, timing
from jaxrl_reason.models import policy as policies
from jaxrl_reason.models import prm as prms
from jaxrl_reason.rollout import batching, critic, step_scores
from jaxrl_reason.types import Params, Problem


class Judges(NamedTuple):
    """What `config.locate` asks for; None: not needed."""

    scorer: step_scores.StepScorer | None
    question: Callable[[Problem], str]  # what the reward model reads before the first step
    critic: critic.Critic | None


def load(
    config: ml_collections.ConfigDict,
    shapes: batching.Shapes,
    policy: policies.Policy,
    task: Any,
    mesh: jax.sharding.Mesh,
) -> Judges:
    """The judges of a run.

    Args:
      config: of the run; reads method.name, locate, model.dtype, rollout.chunk_rows, loss.vocab_chunk.
      shapes: token budgets of the run.
      policy: of the run.
      task: its `policy_prompt` stands before the steps where the reward model reads no chat.
      mesh: devices.
    Returns:
      Judges.
    Raises:
      FileNotFoundError: no such model, or no record of the reward model's evaluation.
      ValueError: a damaged file.
    """
    kind = config.locate.kind if config.method.name in config_rules.LOCATING else ""
    if kind == "critic":
        return Judges(None, task.policy_prompt, critic.load_critic(config, policy, mesh))
    if kind != "prm":
        return Judges(None, task.policy_prompt, None)
    settings = config.locate
    prm = prms.load_prm(settings.prm_path, dtype=config.model.dtype, mesh=mesh)
    prms.end_id(prm)
    step_scores.check_evaluation(pathlib.Path(settings.prm_path), settings)
    tokens = settings.prm_tokens or step_scores.longest_row(shapes)
    scorer = step_scores.StepScorer(prm, max_tokens=tokens, chunk_rows=shapes.chunk_rows, mesh=mesh)
    return Judges(scorer, question_fn(prm, task), None)


def question_fn(prm: prms.Prm, task: Any) -> Callable[[Problem], str]:
    """What a reward model reads before the first step: the question in a chat, or the policy's prompt."""
    return (lambda problem: problem.prompt) if prm.chat else task.policy_prompt


def bind(
    judges: Judges,
    params: Params,
    key: jax.Array,
    clock: timing.Clock,
    engine: batching.Engine,
) -> dict[str, Any]:
    """`step_rewards` and `critic` of `methods.base.Stages`, with an update's parameters and key in them, timed.

    What a critic writes is counted among the tokens that `engine`, the run's, has generated.
    """

    def step_rewards(problems, steps):
        with clock.time("locate"):
            return judges.scorer([judges.question(p) for p in problems], steps)

    def ask(prompts, num_samples):
        with clock.time("locate"):
            answers = critic.ask_fn(judges.critic, params, key)(prompts, num_samples)
        engine.generated_tokens += int(answers.tokens.sum())
        return answers

    return {
        "step_rewards": judges.scorer and step_rewards,
        "critic": judges.critic and ask,
    }
