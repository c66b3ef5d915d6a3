"""First-error locators against the oracle, on wrong solutions that a tiny policy writes to list-reduction problems.

Host side; drives the device. Reads: a policy folder, a process reward model's folder; optionally a subset of
ProcessBench. Writes: a table on standard output, and JSON to --out.

Usage: python benchmarks/locators.py --policy runs/sft_arithmetic/policy --prm runs/prm_arithmetic/prm
           [--critic runs/critic_arithmetic] [--solutions 512] [--processbench gsm8k.json]
           [--out benchmarks/results/locators.json]

The critic is the policy itself, fine-tuned for as many updates and on as many labelled solutions as the reward model of
configs/prm_arithmetic.py; it is made if it is missing.

A share is one of the wrong solutions: match; earlier or later than the first error; missed: "no error"; unknown: the
locator does not say. Generations: completions sampled for one solution. Tokens: read by the reward model for one
solution. Seconds: of all of them, in a second call, so that nothing is compiled.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import platform
import time

import jax
import ml_collections
import numpy as np

from jaxrl_reason import config as config_lib
from jaxrl_reason import parts, sft, solutions, timing
from jaxrl_reason.credit import critic, locate, locate_steps, locators, segment
from jaxrl_reason.methods import first_errors
from jaxrl_reason.models import policy as policies
from jaxrl_reason.types import Problem
from jaxrl_reason.verify import processbench

CONFIGS = pathlib.Path(__file__).resolve().parent.parent / "configs"
FIRST_PROBLEMS = 50_000_000  # of no run, and no training or examination of a reward model

ROWS = {
    "oracle": {"locate.kind": "oracle"},
    "executable": {"locate.kind": "executable"},
    "Monte-Carlo, k = 8": {"locate.kind": "monte_carlo", "locate.retest": 0},
    "Monte-Carlo, k = 8, then 32": {"locate.kind": "monte_carlo", "locate.retest": 32},
    "reward model, 0.5": {"locate.kind": "prm", "locate.prm_threshold": 0.5},
    "reward model, 0.8": {"locate.kind": "prm", "locate.prm_threshold": 0.8},
    "diff to repair, 1": {"locate.kind": "repair_diff", "locate.repairs": 1},
    "diff to repair, 4": {"locate.kind": "repair_diff", "locate.repairs": 4},
    "critic": {
        "locate.kind": "critic",
        "locate.critic_form": "count",
        "locate.critic_prompt_tokens": 64,
        "locate.critic_new_tokens": 4,
    },
}
# The reward model's, of `prm_training`: what it learns from, the critic learns from.
LABELLED_PROBLEMS = 30_000_000


def make_critic(options: argparse.Namespace, policy: policies.Policy) -> None:
    """Fine-tune the policy to say how many steps of its solutions are right, where no critic is there yet."""
    if (options.critic / "policy").exists():
        return
    like = config_lib.load(CONFIGS / "prm_arithmetic.py", [f"model.source={options.policy}"])
    run = parts.make_run(like, policy=policy)
    lines = []
    for s in solutions.sample(run, LABELLED_PROBLEMS, like.prm.solutions, by="oracle"):
        if s.error == locate.NONE or s.error in s.numbers:
            right = len(s.steps) if s.error == locate.NONE else s.numbers.index(s.error)
            question = critic.count_prompt(s.problem.prompt, s.steps)
            lines.append(json.dumps({"prompt": question, "completion": f"= {right}"}))
    options.critic.mkdir(parents=True, exist_ok=True)
    file = options.critic / "labels.jsonl"
    file.write_text("\n".join(lines) + "\n")
    shapes = run.engine.shapes
    changes = {
        "run_dir": str(options.critic),
        "sft.path": str(file),
        "sft.policy_updates": like.prm.updates,
        "sft.batch_rows": like.prm.batch_rows,
        "sft.learning_rate": like.prm.learning_rate,
        "rollout.prompt_length": shapes.prompt + shapes.completion + 8,
    }
    like.update_from_flattened_dict(changes)
    begun = (options.critic / "config.json").exists()
    sft.sft(config_lib.validate(like), policy=policy, resume=begun)


def make_config(options: argparse.Namespace, changes: dict) -> ml_collections.ConfigDict:
    """VPPO's config with one locator."""
    config = config_lib.recipe("vppo")
    config.model.source = str(options.policy)
    config.locate.prm_path = str(options.prm)
    config.locate.critic_source = str(options.critic / "policy")
    config.update_from_flattened_dict(changes)
    return config_lib.validate(config)


def measure(run: parts.Run, wrong: list[solutions.Solution], anchors: list) -> dict:
    """Figures of one locator on all wrong solutions."""
    seconds = []
    for attempt in range(2):
        key = jax.random.key(attempt)
        stages = parts.bind_stages(run, run.policy.params, key, run.task.verify, timing.Clock())
        tools = first_errors.tools(
            stages, lambda tokens: segment.step_ids(tokens, run.pieces, run.task.step_separator)
        )
        locator = locators.make_locator(run.config.locate, tools)
        start = time.perf_counter()
        found = locator([s.problem for s in wrong], [s.completion for s in wrong], anchors)
        seconds.append(time.perf_counter() - start)
    said, truth = found.first_error.step, np.array([s.error for s in wrong])
    known = said >= 0
    return {
        "match": float(np.mean(said == truth)),
        "earlier": float(np.mean(known & (said < truth))),
        "later": float(np.mean(known & (said > truth))),
        "missed": float(np.mean(said == locate.NONE)),
        "unknown": float(np.mean(said == locate.UNKNOWN)),
        "generations": float(found.generations.mean()),
        "tokens": float(found.tokens.mean()),
        "seconds": round(seconds[1], 2),
    }


def on_processbench(path: pathlib.Path) -> dict:
    """The executable check on labelled solutions of people's problems."""
    records = processbench.read(path)
    problems = [Problem(id=r.id, prompt=r.problem, answer="") for r in records]
    start = time.perf_counter()
    judged = locate_steps.executable(problems, [r.steps for r in records])
    seconds = time.perf_counter() - start
    scores = processbench.score([r.label for r in records], judged.steps)
    wrong = [s for s, r in zip(judged.steps, records, strict=True) if r.label >= 0]
    return scores._asdict() | {
        "unknown_of_erroneous": float(np.mean([s == locate.UNKNOWN for s in wrong])),
        "seconds": round(seconds, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--policy", type=pathlib.Path, required=True)
    parser.add_argument("--prm", type=pathlib.Path, required=True)
    parser.add_argument(
        "--critic", type=pathlib.Path, default=pathlib.Path("runs/critic_arithmetic")
    )
    parser.add_argument("--solutions", type=int, default=512, help="sampled, right and wrong")
    parser.add_argument("--processbench", type=pathlib.Path)
    parser.add_argument("--out", type=pathlib.Path, help="JSON file to write")
    options = parser.parse_args()
    policy = policies.load_policy(options.policy)
    make_critic(options, policy)
    run = parts.make_run(make_config(options, ROWS["oracle"]), policy=policy)
    found = solutions.sample(run, FIRST_PROBLEMS, options.solutions, by="oracle")
    right = {s.problem.id: s.completion for s in found if s.correct}
    wrong = [s for s in found if not s.correct]
    anchors = [right.get(s.problem.id) for s in wrong]
    result = {
        "machine": platform.machine(),
        "devices": [str(d) for d in jax.devices()],
        "solutions": len(found),
        "wrong": len(wrong),
        "wrong_with_anchor": sum(a is not None for a in anchors),
        "rows": {},
    }
    names = ("match", "earlier", "later", "missed", "unknown", "generations", "tokens", "seconds")
    print(
        f"{len(found)} solutions, {len(wrong)} wrong, {result['wrong_with_anchor']} with an anchor"
    )
    print(f"{'':28}" + "".join(f"{name:>12}" for name in names))
    for name, changes in ROWS.items():
        try:
            row = measure(
                parts.make_run(make_config(options, changes), policy=policy), wrong, anchors
            )
            print(f"{name:28}" + "".join(f"{row[n]:12.3f}" for n in names), flush=True)
        except ValueError as error:  # a locator that cannot work here says why
            row = {"not_run": str(error)}
            print(f"{name:28} not run: {error}")
        result["rows"][name] = row
    if options.processbench:
        result["processbench_executable"] = on_processbench(options.processbench)
        print(f"{options.processbench.name}, executable: {result['processbench_executable']}")
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
