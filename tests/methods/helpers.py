"""Stages with a scripted sampler around the real task, tokenizer and alignment kernel."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from jaxrl_reason.credit import segment
from jaxrl_reason.methods import base
from jaxrl_reason.models import tokenizer as tokenizers
from jaxrl_reason.ops import alignment
from jaxrl_reason.tasks import arithmetic
from jaxrl_reason.types import Completion, PairAlignment, Problem, TrainState

TASK = arithmetic.Arithmetic(length=4, modulus=10, operators="+")
TOKENIZER = tokenizers.arithmetic_tokenizer()
PROBLEM = Problem(id="p", prompt="3 8 5 2", answer="8")
WIDTH = 24


def completion(text: str, *, truncated: bool = False) -> Completion:
    """A finished completion with log-probs -0.5."""
    tokens = tuple(tokenizers.encode_completion(TOKENIZER, text))
    tokens = tokens[:-1] if truncated else tokens
    return Completion(tokens, np.full(len(tokens), -0.5, np.float32), text, truncated, len(tokens))


def group(*texts: str, problem: Problem = PROBLEM) -> base.Group:
    """Group of finished completions with their true verdicts."""
    completions = tuple(completion(text) for text in texts)
    verdicts = base.judge(TASK.verify, [problem] * len(texts), completions)
    prompt = tuple(tokenizers.encode_prompt(TOKENIZER, TASK.policy_prompt(problem)))
    return base.Group(problem, prompt, completions, tuple(verdicts))


def align(failed, repaired) -> list[PairAlignment]:
    """The real kernel, one pair at a time."""
    pairs = []
    for f, r in zip(failed, repaired, strict=True):
        sides = []
        for tokens in (f, r):
            row = np.zeros((1, WIDTH), np.int32)
            row[0, : len(tokens)] = tokens
            sides += [jnp.asarray(row), jnp.asarray(np.arange(WIDTH)[None, :] < len(tokens))]
        result = alignment.align(*sides)
        pairs.append(
            PairAlignment(
                np.asarray(result.failed_edit_ids)[0, : len(f)],
                np.asarray(result.repaired_edit_ids)[0, : len(r)],
                int(result.num_edits[0]),
            )
        )
    return pairs


class Script:
    """A sampler that answers from lists of texts, by stage, and a scorer that knows which prompt it was asked under."""

    def __init__(self, **texts: list[list[str]]):
        self.texts = texts
        self.scored: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
        self.sampled: list[tuple[str, int]] = []

    def sample(self, prompts, *, stage, num_samples=1, temperature=1.0, prefixes=None):
        self.sampled.append((stage, len(prompts)))
        answers = self.texts[stage.split("/")[0]]
        return [
            [completion(answers[i % len(answers)][j]) for j in range(num_samples)]
            for i in range(len(prompts))
        ]

    def reference(self, prompts, completions):
        return [np.full(len(c), -0.25, np.float32) for c in completions]

    def score(self, prompts, completions):
        self.scored += [(tuple(p), tuple(c)) for p, c in zip(prompts, completions, strict=True)]
        return [np.full(len(c), -0.25, np.float32) for c in completions]


class Companion:
    """A second model whose figures are written down: by default the reference's log-probs, so that all ratios are 0."""

    def __init__(self, figures=lambda completion: np.full(len(completion), -0.25, np.float32)):
        self.figures = figures
        self.trained: list = []
        self.predictions_before_training = 0

    @property
    def state(self):
        return TrainState(len(self.trained), None, None, None)

    def predict(self, prompts, completions):
        self.predictions_before_training += not self.trained
        return [self.figures(c) for c in completions]

    def train(self, rows, rng):
        self.trained += rows
        return self, {"companion/rows": float(len(rows))}


def stages(script: Script, companion: Companion | None = None) -> base.Stages:
    """Stages of the real task around a script."""

    def repair_prompt(problem, failed, anchor):
        text = TASK.repair_prompt(problem, failed.text, anchor.text)
        return tuple(tokenizers.encode_prompt(TOKENIZER, text))

    return base.Stages(
        sample=script.sample,
        score=script.score,
        verify=TASK.verify,
        align=align,
        policy_prompt=lambda p: tuple(tokenizers.encode_prompt(TOKENIZER, TASK.policy_prompt(p))),
        repair_prompt=repair_prompt,
        encode=lambda text: tuple(tokenizers.encode_completion(TOKENIZER, text)),
        decode=lambda tokens: tokenizers.decode_completion(TOKENIZER, tokens),
        pieces=lambda tokens: segment.token_pieces(TOKENIZER, tokens),
        first_error=TASK.first_error,
        answer_marker=TASK.answer_marker,
        step_separator=TASK.step_separator,
        reference=script.reference,
        companion=companion,
    )
