"""Locators: the oracle, Monte-Carlo binary search against scripted chances, and the difference to a repair."""

from __future__ import annotations

import numpy as np
import pytest

from jaxrl_reason import config as config_lib
from jaxrl_reason.credit import locate, locate_monte_carlo, locators, segment
from jaxrl_reason.models import tokenizer as tokenizers
from jaxrl_reason.types import Completion, Problem, Verdict
from tests.methods import helpers

WRONG = "1 5 2 ; 1 9 ; 0 ; = 0"  # 3 8 5 2 modulo 10: step 1 is wrong, 5 + 2 is not 9
RIGHT = "1 5 2 ; 1 7 ; 8 ; = 8"


def steps_of(tokens):
    pieces = segment.token_pieces(helpers.TOKENIZER, tokens)
    return segment.step_ids(tokens, pieces, ";")


def make_tools(**changes) -> locators.Tools:
    """Tools around the real task; what the locator must not touch is None."""
    tools = locators.Tools(*[None] * len(locators.Tools._fields))
    return tools._replace(
        step_ids_fn=steps_of,
        decode=lambda tokens: tokenizers.decode_completion(helpers.TOKENIZER, tokens),
        separator=helpers.TASK.step_separator,
        verify_fn=helpers.TASK.verify,
        align_fn=helpers.align,
        **changes,
    )


@pytest.mark.parametrize(
    ("text", "truncated", "step", "token"),
    [
        (WRONG, False, 1, 4),  # "1 5 2 ;" are tokens 0..3
        (RIGHT, False, -1, -1),
        ("9 5 2 ; 1 7 ; 8 ; = 8", False, 0, 0),
        ("1 5 2 ; 1 7 ; 8 ; = 9", False, 3, 9),
        ("1 5 2 ; 1 7", False, 2, 6),  # stops before step 2: EOS stands in its place
        ("1 5 2 ; 1 7", True, 2, 6),  # no EOS: the error lies behind the last token
    ],
)
def test_oracle_names_the_step_and_its_first_token(text, truncated, step, token):
    completion = helpers.completion(text, truncated=truncated)
    find = locate.oracle(helpers.TASK.first_error, steps_of)
    found = find([helpers.PROBLEM], [completion])
    assert found.first_error.step.tolist() == [step]
    assert found.first_error.token.tolist() == [token]
    assert found.generations.tolist() == [0]
    if step == 2:
        assert len(completion.tokens) == token + (not truncated)


def test_repair_diff_takes_the_step_of_the_first_edit():
    find = locate.repair_diff(helpers.align, steps_of)
    wrong, right = helpers.completion(WRONG), helpers.completion(RIGHT)
    found = find([helpers.PROBLEM] * 3, [wrong, wrong, right], [right, None, right])
    # "1 9" against "1 7": token 5, in step 1, which starts at token 4.
    assert found.first_error.step.tolist() == [1, -2, -1]
    assert found.first_error.token.tolist() == [4, -2, -1]
    assert found.generations.tolist() == [0, 0, 0]
    nothing = find([helpers.PROBLEM], [wrong])
    assert nothing.first_error.step.tolist() == [-2]


class Chances:
    """A policy that is right, from a prefix of m steps of problem i, in the first `right[i][m]` of its k tries.

    Completions have one token per step, whose id is the number of the step.
    """

    def __init__(self, **right: list[int]):
        self.right = right
        self.calls: list[list[tuple[str, int, int]]] = []  # (problem, steps, samples) per call
        self.stages: list[str] = []

    def sample(self, prompts, *, stage, num_samples=1, temperature=1.0, prefixes=None):
        assert temperature == 1.0
        names = [list(self.right)[p[0]] for p in prompts]
        self.calls.append([(n, len(f), num_samples) for n, f in zip(names, prefixes, strict=True)])
        self.stages.append(stage)
        return [
            [
                Completion(
                    (*prefix, 99),
                    np.zeros(len(prefix) + 1, np.float32),
                    "right" if j < self.right[name][len(prefix)] else "wrong",
                    False,
                    1,
                )
                for j in range(num_samples)
            ]
            for name, prefix in zip(names, prefixes, strict=True)
        ]

    def locator(self, **changes) -> locate.Locator:
        settings = dict(continuations=8, retest=0, max_generations=1000, threshold=0.5) | changes
        return locate_monte_carlo.monte_carlo(
            self.sample,
            lambda problems, texts: [
                Verdict(float(text == "right"), text, "wrong") for text in texts
            ],
            lambda problem: (list(self.right).index(problem.id),),
            lambda tokens: np.arange(len(tokens)),
            **settings,
        )

    def find(self, names: str, num_steps: int, **changes):
        problems = [Problem(id=n, prompt="", answer="") for n in names]
        completion = Completion(
            tuple(range(num_steps)), np.zeros(num_steps, np.float32), "", False, num_steps
        )
        return self.locator(**changes)(problems, [completion] * len(names))


def test_binary_search_finds_every_boundary_in_about_log2_probes():
    for error in range(8):
        # Prefixes of up to `error` steps can be completed: step `error` is the first wrong one.
        policy = Chances(a=[4] * (error + 1) + [0] * 8)
        found = policy.find("a", 8)
        assert found.first_error.step.tolist() == [error]
        assert found.first_error.token.tolist() == [error]
        # log2 8 = 3 probes of 8, and one of the empty prefix where the first step is the error.
        assert found.generations.tolist() == [8 * (3 + (error == 0))]
    policy = Chances(a=[1, 1, 1, 1, 1, 1, 0, 0, 0])
    policy.find("a", 8)
    assert [steps for ((_, steps, _),) in policy.calls] == [4, 6, 5]
    assert len(set(policy.stages)) == 3, "each draw has a name of its own"


def test_a_second_test_moves_the_boundary_behind_a_prefix_that_was_only_unlucky():
    # The prefix of 2 steps is right, but hard: 0 of 8, and 1 of 32. Step 4 is the error.
    policy = Chances(a=[8, 8, 1, 8, 8, 0, 0])
    draw = policy.sample

    def unlucky(prompts, *, num_samples=1, **kwargs):
        policy.right["a"][2] = 1 if num_samples == 32 else 0
        return draw(prompts, num_samples=num_samples, **kwargs)

    policy.sample = unlucky
    early = policy.find("a", 6)
    # Probes 3 (good), 4 (good), 5 (bad): the unlucky prefix is never met.
    assert early.first_error.step.tolist() == [4]
    short = policy.find("a", 4, retest=0)
    # 4 steps: probe 2 (unlucky), 1 (good): step 1, too early.
    assert short.first_error.step.tolist() == [1]
    both = policy.find("a", 4, retest=32)
    # The second test of 2 moves on: probe 3 (good), whose boundary is the whole completion: step 3.
    assert both.first_error.step.tolist() == [3]
    assert both.generations.tolist() == [8 + 8 + 32 + 8]


def test_a_confirmed_boundary_costs_one_second_test():
    found = Chances(a=[8, 8, 0, 0, 0]).find("a", 4, retest=32)
    assert found.first_error.step.tolist() == [1]
    assert found.generations.tolist() == [8 + 8 + 32]


def test_a_policy_that_never_succeeds_says_nothing():
    policy = Chances(a=[0] * 5, b=[1, 0, 0, 0, 0])
    found = policy.find("aabb", 4)
    assert found.first_error.step.tolist() == [-2, -2, 0, 0]
    assert found.first_error.token.tolist() == [-2, -2, 0, 0]
    # 2 probes each; the empty prefix once per problem, booked on the first that asked.
    assert found.generations.tolist() == [24, 16, 24, 16]
    assert [len(call) for call in policy.calls] == [4, 4, 2]


def test_a_spent_budget_is_unknown():
    found = Chances(a=[8] * 6 + [0] * 3).find("a", 8, max_generations=23)
    assert found.first_error.step.tolist() == [-2]
    assert found.generations.tolist() == [16]


def test_searches_do_not_disturb_each_other_and_their_order_does_not_matter():
    chances = dict(a=[8, 8, 8, 0, 0], b=[8, 0, 0, 0, 0], c=[8, 8, 8, 8, 0])
    for names in ("abc", "cab", "b"):
        found = Chances(**chances).find(names, 4)
        assert found.first_error.step.tolist() == [{"a": 2, "b": 0, "c": 3}[n] for n in names]


def test_truncated_continuations_are_wrong_and_nothing_costs_nothing():
    policy = Chances(a=[8, 8, 8])
    find = policy.locator()
    empty = find([], [])
    assert empty.first_error.step.shape == (0,) and not policy.calls
    draw = policy.sample

    def cut_off(*args, **kwargs):
        return [
            [Completion(c.tokens, c.logprobs, c.text, True, 1) for c in group]
            for group in draw(*args, **kwargs)
        ]

    policy.sample = cut_off
    assert policy.find("a", 2).first_error.step.tolist() == [-2]


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="continuations = 0, retest = 0: must be >= 1"):
        Chances(a=[]).locator(continuations=0)
    settings = config_lib.base().locate
    tools = make_tools(first_error=None, step_rewards=None, critic=None)
    for kind, words in (
        ("oracle", "cannot judge steps; choose monte_carlo"),
        ("prm", "set locate.prm_path"),
        ("critic", "set locate.critic_source"),
        (
            "guess",
            "'guess': must be one of oracle, monte_carlo, executable, prm, critic, repair_diff",
        ),
    ):
        settings.kind = kind
        with pytest.raises(ValueError, match=words):
            locators.make_locator(settings, tools)
