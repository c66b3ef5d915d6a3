"""Accuracy of a policy: inside the training loop, and on its own, task by task, with intervals.

Host side; drives the device. Reads: a policy and problems; records of an evaluation that goes on. Writes: eval/ of the
run folder, from the loop alone; records and results of an evaluation that was given a folder.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import sys
import time
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np
import rich.console
import rich.table

from jaxrl_reason import config as config_lib
from jaxrl_reason import estimates, eval_folder, eval_progress, files, sharding, tasks
from jaxrl_reason.methods import base
from jaxrl_reason.models import prompts as prompts_lib
from jaxrl_reason.parts import Run, make_prompts, whole_params
from jaxrl_reason.rollout import batching
from jaxrl_reason.types import Completion, Problem

_BLOCK_PROBLEMS = 16  # least problems of a block
_GREEDY = {"temperature": 0.0}


def accuracies(line: Mapping[str, float | int]) -> tuple[float, float] | None:
    """(avg@k of the samples, greedy) of one line of metrics.jsonl; None where nothing was evaluated.

    Example:
      >>> accuracies({"update": 3, "eval/arithmetic/avg@1": 0.25, "eval/arithmetic/greedy": 0.5})
      (0.25, 0.5)
      >>> accuracies({"update": 4})
    """
    sampled = [v for k, v in line.items() if k.startswith("eval/") and "/avg@" in k]
    greedy = [v for k, v in line.items() if k.startswith("eval/") and k.endswith("/greedy")]
    return (sampled[0], greedy[0]) if sampled and greedy else None


def draws(eval_config: ml_collections.ConfigDict) -> dict[str, Any]:
    """How `config.eval` has its samples drawn, as arguments of `Engine.sample`.

    Example:
      >>> draws(config_lib.override(config_lib.base(), ["eval.top_p=0.7"]).eval)
      {'temperature': 1.0, 'top_k': 0, 'top_p': 0.7}
    """
    return {name: eval_config[name] for name in ("temperature", "top_k", "top_p")}


def _sample(
    engine: batching.Engine,
    params: Any,
    prompts: prompts_lib.Prompts,
    problems: Sequence[Any],
    key: jax.Array,
    *,
    num_samples: int,
    draw: Mapping[str, Any],
    stage: str,
) -> list[list[Completion]]:
    return engine.sample(
        params,
        key,
        [prompts.policy(p) for p in problems],
        stage=stage,
        num_samples=num_samples,
        **draw,
    )


def correct_counts(
    engine: batching.Engine,
    params: Any,
    prompts: prompts_lib.Prompts,
    problems: Sequence[Any],
    key: jax.Array,
    *,
    num_samples: int,
    draw: Mapping[str, Any],
    stage: str,
) -> np.ndarray:
    """[len(problems)] int: how many of `num_samples` completions, drawn as `draws` says, are right."""
    groups = _sample(
        engine,
        params,
        prompts,
        problems,
        key,
        num_samples=num_samples,
        draw=draw,
        stage=stage,
    )
    repeated = [p for p in problems for _ in range(num_samples)]
    verdicts = base.judge(prompts.task.verify, repeated, [c for group in groups for c in group])
    rewards = np.array([v.reward >= estimates.THRESHOLD for v in verdicts])
    return rewards.reshape(len(problems), num_samples).sum(axis=1)


def whole_task(task: Any) -> Any:
    """What evaluation asks: whole problems, also of a task that trains on single steps (`tasks.steps`); held-out ones
    where the task holds some out (`tasks.base.HoldsOut`).
    """
    whole = getattr(task, "whole", task)
    return getattr(whole, "held_out", whole)


def evaluation_problems(task: Any, config: ml_collections.ConfigDict) -> list[Problem]:
    """`config.num_problems` problems, or all of a data set that has fewer: none is asked twice.

    Args:
      task: of `whole_task`.
      config: `config.eval`.
    """
    wanted = config.num_problems
    wanted = min(wanted, len(task)) if hasattr(task, "__len__") else wanted
    return task.batch(config.seed, 0, wanted)


def in_loop(run: Run, params: Any, update: int | None = None) -> dict[str, float]:
    """Accuracy of samples (`draws`) and greedy on the run's fixed evaluation problems; the same draws every time.

    With the number of an update, how often each problem was solved goes to eval/update_N.json of the run folder.
    """
    config, task = run.config.eval, whole_task(run.task)
    prompts, params = dataclasses.replace(run.prompts, task=task), whole_params(run, params)
    problems = evaluation_problems(task, config)
    key = jax.random.key(config.seed)
    sampled = correct_counts(
        run.engine,
        params,
        prompts,
        problems,
        key,
        num_samples=config.num_samples,
        draw=draws(config),
        stage="eval",
    )
    greedy = correct_counts(
        run.engine, params, prompts, problems, key, num_samples=1, draw=_GREEDY, stage="greedy"
    )
    if update is not None and jax.process_index() == 0:
        record = {
            "update": update,
            "problems": [problem.id for problem in problems],
            "num_samples": config.num_samples,
            "correct": sampled.tolist(),
            "greedy": greedy.tolist(),
        }
        path = run.folder / "eval" / f"update_{update}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        files.replace_text(path, json.dumps(record) + "\n")
    prefix = f"eval/{task.name}"
    return {
        f"{prefix}/avg@{config.num_samples}": float(sampled.mean() / config.num_samples),
        f"{prefix}/greedy": float(greedy.mean()),
        f"{prefix}/num_problems": float(len(problems)),
    }


class Measured(NamedTuple):
    """Figures of one task."""

    results: dict[str, float]  # eval/<task>/...: a function of the records
    tokens_per_s: float  # sampled, verification included; 0 where nothing was sampled now or before


def evaluate(
    policy: Any,
    task: Any,
    *,
    num_samples: int = 8,
    k: Sequence[int] = (1, 4, 8),
    num_problems: int = 256,
    seed: int = 1_000_003,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    config: ml_collections.ConfigDict | None = None,
) -> dict[str, float]:
    """avg@n, pass@k, maj@k and greedy accuracy of a policy, with 95% bootstrap intervals over problems.

    Args:
      policy: from `load_policy`.
      task: from `tasks.make_task`.
      num_samples: n, completions per problem.
      k: each <= n.
      num_problems: how many problems; of a data set with fewer, all.
      seed: of problems and draws.
      temperature: of the samples, > 0; greedy is measured beside them.
      top_k, top_p: cuts of their distribution, see `rollout.sampling`; 0 and 1: none.
      config: reads model.prompt_format, model.enable_thinking, rollout, mesh and loss.vocab_chunk; default `base()`.
    Returns:
      {"eval/<task>/pass@4": 0.5, "eval/<task>/pass@4/low": 0.4, "eval/<task>/pass@4/high": 0.6, ...}; the names are
      those of `estimates.summarise`.
    Raises:
      ValueError: a k larger than num_samples.
    """
    config = config.copy_and_resolve_references() if config else config_lib.base()
    with config.unlocked():
        config.eval.num_samples, config.eval.num_problems = num_samples, num_problems
        config.eval.seed, config.eval.temperature = seed, temperature
        config.eval.top_k, config.eval.top_p = top_k, top_p
    return measure(policy, task, config_lib.validate(config), k=k).results


def measure(
    policy: Any,
    task: Any,
    config: ml_collections.ConfigDict,
    *,
    k: Sequence[int],
    label: str | None = None,
    folder: pathlib.Path | None = None,
    texts: int | str = eval_folder.ALL_TEXTS,
    mesh: jax.sharding.Mesh | None = None,
    console: rich.console.Console | None = None,
) -> Measured:
    """`evaluate` with the token budgets and sizes of a config, and records in a folder.

    Problems are sampled in blocks; every draw follows from (eval.seed, number of the block), so that blocks which the
    folder holds need not be drawn again.

    Args:
      policy: from `load_policy`.
      task: from `tasks.make_task`.
      config: its `eval` and `rollout` are read, and `mesh` unless one is given.
      k: each <= config.eval.num_samples.
      label: name of the task in figures and files; None: its own.
      folder: of `eval_folder.open_folder`; None: nothing is written.
      texts: problems whose completions are written out in the folder, the first ones; or "all".
      mesh: on which the policy was loaded; None: the config's.
      console: where progress goes; None: nowhere.
    Returns:
      Measured.
    Raises:
      ValueError: a k larger than the number of samples, or records of other problems in the folder.
    """
    sharding.check_one_process()
    task, samples = whole_task(task), config.eval.num_samples
    for number in k:
        if not 1 <= number <= samples:
            raise ValueError(
                f"k = {number}: must be in [1, {samples}], the number of samples; raise eval.num_samples"
            )
    label = label or task.name
    prompts, shapes = make_prompts(config, task, policy.tokenizer)
    task = prompts.task
    if note := getattr(task, "note", ""):
        print(note, file=sys.stderr)
    engine = batching.Engine(
        policy.config,
        policy.tokenizer,
        shapes,
        mesh=mesh or sharding.make_mesh(config.mesh),
        vocab_chunk=config.loss.vocab_chunk,
    )
    problems = evaluation_problems(task, config.eval)
    wanted = len(problems)
    size = block_size(config)
    book = eval_folder.Book(folder, label, [p.id for p in problems], size, samples + 1, texts)
    records = book.read()
    shown = eval_progress.Progress(console, label, samples, wanted, len(records))
    engine.on_rows = shown.rows
    timing = []
    with contextlib.closing(shown):
        for start in range(len(records), wanted, size):
            clock, before = time.monotonic(), engine.generated_tokens
            asked, number = problems[start : start + size], start // size
            block, written = _block(engine, policy.params, prompts, asked, config, number, shown)
            tokens = engine.generated_tokens - before
            spent = {"seconds": time.monotonic() - clock, "tokens": tokens}
            timing.append({"task": label, "block": number, "first": not timing} | spent)
            records += block
            if jax.process_index() == 0:
                book.write(start, block, written, timing[-1])
            shown.block(records, _speed(timing))
    if folder:
        timing = [t for t in eval_folder.read_timing(folder / "timing.jsonl") if t["task"] == label]
    found = estimates.summarise(records, [r["greedy"] for r in records], k)
    return Measured({f"eval/{label}/{name}": v for name, v in found.items()}, _speed(timing))


def block_size(config: ml_collections.ConfigDict) -> int:
    """Problems that are sampled, verified and written together: enough to fill the sampler's chunks."""
    return max(config.rollout.chunk_rows // config.eval.num_samples, _BLOCK_PROBLEMS)


def _block(
    engine: batching.Engine,
    params: Any,
    prompts: prompts_lib.Prompts,
    problems: Sequence[Any],
    config: ml_collections.ConfigDict,
    number: int,
    shown: eval_progress.Progress,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(record of each problem, texts of each problem one after the other)."""
    key, tokenizer = jax.random.key(config.eval.seed), engine.tokenizer
    asked = [tokenizer.decode(list(prompts.policy(p))) for p in problems]

    def draw(stage: str, name: str, samples: int, how: Mapping[str, Any]):
        shown.phase("greedy" if how is _GREEDY else "sampling")
        groups = _sample(
            engine,
            params,
            prompts,
            problems,
            key,
            num_samples=samples,
            draw=how,
            stage=f"{stage}/{number}",
        )
        shown.phase("verifying")
        repeated = [p for p in problems for _ in range(samples)]
        verdicts = iter(base.judge(prompts.task.verify, repeated, [c for g in groups for c in g]))
        found = []
        for problem, prompt, group in zip(problems, asked, groups, strict=True):
            own = [next(verdicts) for _ in group]
            record = estimates.record(problem.id, own, [len(c.tokens) for c in group])
            found.append((record, eval_folder.texts(problem, prompt, name, group, own)))
        return found

    sampled = draw("eval", "sampled", config.eval.num_samples, draws(config.eval))
    greedy = draw("greedy", "greedy", 1, _GREEDY)
    both = list(zip(sampled, greedy, strict=True))
    records = [record | {"greedy": one} for (record, _), (one, _) in both]
    return records, [line for (_, many), (_, one) in both for line in [*many, *one]]


def _speed(timing: Sequence[Mapping[str, Any]]) -> float:
    """Tokens per second; the first block of a process, which compiles, counts only where there is no other."""
    warm = [t for t in timing if not t["first"]] or timing
    seconds = sum(t["seconds"] for t in warm)
    return sum(t["tokens"] for t in warm) / seconds if seconds else 0.0


def measure_all(
    policy: Any,
    cases: Mapping[str, ml_collections.ConfigDict],
    *,
    k: Sequence[int],
    out: str | os.PathLike | None = None,
    texts: int | str | None = None,
    resume: bool = False,
    mesh: jax.sharding.Mesh | None = None,
    console: rich.console.Console | None = None,
) -> dict[str, float]:
    """Several tasks, one after the other, with records and `results.json` in one folder.

    Args:
      policy: from `load_policy`.
      cases: config of each task, by the name that figures and files are to have.
      k: of pass@k and maj@k.
      out: folder; None: nothing is written.
      texts: problems of each task whose completions are written out, or "all"; None: as an evaluation that goes on
        began, else all.
      resume: go on in a folder that holds records.
      mesh: on which the policy was loaded; None: that of each config.
      console: where progress goes; None: nowhere.
    Returns:
      Figures of all tasks, and perf/<task>/tokens_per_s, which results.json leaves out: it is not a function of the
      records.
    Raises:
      FileExistsError: the folder holds an evaluation and `resume` is False.
      ValueError: it holds another one; a k larger than the number of samples; tasks for different tokenizers.
    """
    sharding.check_one_process()
    ready = {label: tasks.make_task(config.task) for label, config in cases.items()}
    names = {task.tokenizer_name for task in ready.values()}
    if len(names) > 1:
        raise ValueError(
            f"tasks for different tokenizers ({', '.join(sorted(names))}): measure one kind at a time"
        )
    folder = None
    if out is not None:
        texts = eval_folder.kept_texts(out) if texts is None else texts
        settings = {"params": _digest(policy.params)} | ({"texts": texts} if texts else {})
        for label, config in cases.items():
            for section in ("task", "rollout", "eval"):
                settings[f"{label}.{section}"] = config_lib.fields(config[section])
        folder = eval_folder.open_folder(out, settings, resume=resume)
    results, speeds = {}, {}
    shared = {"k": k, "folder": folder, "texts": texts or 0, "mesh": mesh, "console": console}
    for label, config in cases.items():
        found = measure(policy, ready[label], config, label=label, **shared)
        results |= found.results
        speeds[f"perf/{label}/tokens_per_s"] = found.tokens_per_s
    if folder and jax.process_index() == 0:
        eval_folder.write_results(folder, results)
    return results | speeds


def _digest(params: Any) -> int:
    """CRC-32 of all parameters: another policy must not add to the records of this one."""
    crc = 0
    for leaf in jax.tree.leaves(params):
        crc = zlib.crc32(np.ascontiguousarray(sharding.to_host(leaf)).view(np.uint8), crc)
    return crc


def table(results: Mapping[str, float]) -> rich.table.Table:
    """Figures as a table: one row per task and figure, with its interval."""
    made = rich.table.Table("task", "figure", "value", "95% interval")
    for name, value in results.items():
        kind, label, *figure = name.split("/")
        if figure[-1] in ("low", "high"):
            continue
        interval = (
            ""
            if kind != "eval"
            else f"{results[f'{name}/low']:.4g} .. {results[f'{name}/high']:.4g}"
        )
        made.add_row(label, "/".join(figure), f"{value:.4g}", interval)
    return made
