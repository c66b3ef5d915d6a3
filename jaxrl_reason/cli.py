"""The command line: one function for each command of `jaxrl-reason`.

Host side. Reads: arguments, config files. Writes: messages to standard error; results of `evaluate`, `processbench`,
`plan` and `report` to standard output. Exit status: 0 done, 1 the work failed, 2 the request was wrong; no
stack, except for bugs and with `--traceback`.

Every field of the config is an option, `--config.loss.clip_high=0.28` or `--config.loss.clip_high
0.28`, checked all together by `config.load`. argparse instead of config_flags: the latter names one
problem at a time, and suggests nothing.
"""

from __future__ import annotations

import argparse
import functools
import json
import logging
import os
import sys
from collections.abc import Sequence
from typing import Any

from jaxrl_reason import cli_options


class _UsageError(Exception):
    """The request is wrong; nothing was begun."""


def run() -> None:
    """Entry point of the console script; ends the process with `main`'s status."""
    sys.exit(main(sys.argv[1:]))


def main(argv: Sequence[str]) -> int:
    """Carry out one command.

    Args:
      argv: arguments, without the program's name.
    Returns:
      Exit status: 0 done, 1 the work failed, 2 the request was wrong.
    """
    rest, assignments = split_assignments(argv)
    parser = _make_parser()
    try:
        options = parser.parse_args(rest)
    except SystemExit as end:  # argparse has printed help or its error
        return int(end.code or 0)
    try:
        options.command(options, assignments)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        status = _status_of(error)
        if status is None or options.traceback:
            raise
        print(f"jaxrl-reason {options.name}: {error}", file=sys.stderr)
        if not isinstance(error, _UsageError):
            print("(--traceback shows where)", file=sys.stderr)
        return status
    return 0


def split_assignments(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split off `--config.name=value` and `--config.name value`, as `name=value` strings.

    A name without a value stays without "=", which `config.override` reports with the rest.

    Example:
      >>> split_assignments(["train", "--config.seed", "3", "--config=c.py", "--config.run_dir=r"])
      (['train', '--config=c.py'], ['seed=3', 'run_dir=r'])
    """
    rest, assignments, position = [], [], 0
    while position < len(argv):
        argument = argv[position]
        position += 1
        if not argument.startswith("--config."):
            rest.append(argument)
            continue
        assignment = argument.removeprefix("--config.")
        if "=" not in assignment and position < len(argv) and not argv[position].startswith("--"):
            assignment += f"={argv[position]}"
            position += 1
        assignments.append(assignment)
    return rest, assignments


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="jaxrl-reason",
        description="Reinforcement learning for reasoning models in JAX.",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    add = functools.partial(cli_options.add_command, commands)
    train = add("train", _train, "train a policy with reinforcement learning", config=True)
    train.add_argument(
        "--resume", action="store_true", help="go on from the newest checkpoint of config.run_dir"
    )
    add("sft", _sft, "cold start: supervised training of a first policy", config=True)
    add("train-prm", _train_prm, "train and examine a process reward model", config=True)
    evaluate = add(
        "evaluate",
        _evaluate,
        "measure a policy on the tasks of one or more configs",
        config=True,
        action="append",
    )
    cli_options.add_evaluate(evaluate)
    bench = add(
        "processbench",
        _processbench,
        "score a first-error locator on labelled solutions",
        config=False,
    )
    cli_options.add_processbench(bench)
    compare = add("compare", _compare, "run several configs over seeds and report", config=False)
    cli_options.add_compare(compare)
    cli_options.add_plan(add("plan", _plan, "say whether a run fits its devices", config=True))
    export = add("export", _export, "write a policy as a Hugging Face checkpoint", config=False)
    cli_options.add_export(export)
    report = add("report", _report, "write an HTML page that compares runs", config=False)
    cli_options.add_report(report)
    demo = add(
        "demo", _demo, "train a tiny policy from nothing, in minutes, on a CPU", config=False
    )
    demo.add_argument("--run_dir", default="runs/demo", metavar="FOLDER", help="default: runs/demo")
    return parser


def _load_config(
    options: argparse.Namespace, assignments: Sequence[str], path: str | None = None
) -> Any:
    from jaxrl_reason import config

    try:
        return config.load(path or options.config, assignments)
    except (ValueError, FileNotFoundError) as error:
        raise _UsageError(error) from error


def _prepare_process(options: argparse.Namespace) -> None:
    """Settings of the process that no library module may touch."""
    # Its advice at import, that PyTorch is missing, is not for users of this program.
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    # Orbax logs the stack of an error that it also raises; ours names folder, cause and fix.
    logging.getLogger("absl").addFilter(lambda record: "raised an exception" not in record.msg)
    if getattr(options, "distributed", False):
        import jax

        jax.distributed.initialize()


def _train(options: argparse.Namespace, assignments: Sequence[str]) -> None:
    config = _load_config(options, assignments)
    _prepare_process(options)
    from jaxrl_reason import train

    folder, _ = train.train(config, resume=options.resume)
    print(f"run folder: {folder}", file=sys.stderr)


def _sft(options: argparse.Namespace, assignments: Sequence[str]) -> None:
    config = _load_config(options, assignments)
    _prepare_process(options)
    from jaxrl_reason import sft

    sft.sft(config)


def _train_prm(options: argparse.Namespace, assignments: Sequence[str]) -> None:
    config = _load_config(options, assignments)
    _prepare_process(options)
    from jaxrl_reason import prm_training

    print(prm_training.train_prm(config))


def _evaluate(options: argparse.Namespace, assignments: Sequence[str]) -> None:
    if options.resume and not options.out:
        raise _UsageError("--resume: nothing to go on with; name the folder with --out")
    cases = _evaluation_cases(options, assignments)
    _prepare_process(options)
    import rich.console

    from jaxrl_reason import evaluate, sharding, tasks
    from jaxrl_reason.models import policy, tokenizer

    first = next(iter(cases.values()))
    mesh = sharding.make_mesh(first.mesh)
    loaded = policy.load_policy(
        options.policy,
        dtype=first.model.dtype,
        mesh=mesh,
        tokenizer=tokenizer.make_tokenizer(tasks.make_task(first.task).tokenizer_name),
    )
    results = evaluate.measure_all(
        loaded, cases, k=options.k or (1,), out=options.out, resume=options.resume, mesh=mesh
    )
    rich.console.Console(stderr=True).print(evaluate.table(results))
    print(json.dumps(results, indent=2))


def _plan(options: argparse.Namespace, assignments: Sequence[str]) -> None:
    config = _load_config(options, assignments)
    _prepare_process(options)
    from jaxrl_reason import plan

    found = plan.plan(config, device=options.device, num_devices=options.devices)
    print(plan.table(found))


def _compare(options: argparse.Namespace, assignments: Sequence[str]) -> None:
    _prepare_process(options)
    from jaxrl_reason import compare

    page = compare.compare(
        options.configs,
        options.out,
        seeds=options.seeds,
        tokens=options.tokens,
        overrides=assignments,
        workers=options.workers,
    )
    print(page)


def _evaluation_cases(options: argparse.Namespace, assignments: Sequence[str]) -> dict[str, Any]:
    """Config of each task, by a name that no other has: every config with every --task."""
    cases: dict[str, Any] = {}
    for path in options.config:
        for task in options.task or [None]:
            more = []
            if task is not None:
                name, separator, file = task.partition("=")
                more = [f"task.name={name}"]
                if separator:
                    # That file and all of it, whatever the config trains and evaluates on.
                    more += [f"task.path={file}", "task.eval_path=", "task.pass_rates="]
                    more += ["task.min_pass_rate=0", "task.max_pass_rate=1"]
            config = _load_config(options, [*assignments, *more], path)
            label, number = config.task.name, 2
            while label in cases:
                label, number = f"{config.task.name}-{number}", number + 1
            cases[label] = config
    return cases


def _processbench(options: argparse.Namespace, assignments: Sequence[str]) -> None:
    _refuse(assignments)
    import rich.console

    from jaxrl_reason import processbench

    locate = processbench.make_locator(
        options.locator,
        model=options.model,
        threshold=options.threshold,
        samples=options.samples,
        prompt_tokens=options.prompt_tokens,
        new_tokens=options.new_tokens,
    )
    results = processbench.measure(options.files, locate)
    rich.console.Console(stderr=True).print(processbench.table(results))
    text = json.dumps(results, indent=2)
    if options.out:
        with open(options.out, "w") as file:
            file.write(text + "\n")
    print(text)


def _export(options: argparse.Namespace, assignments: Sequence[str]) -> None:
    _refuse(assignments)
    _prepare_process(options)
    from jaxrl_reason.models import policy

    loaded = policy.load_policy(options.policy)
    if options.adapters:
        policy.export_adapters(options.out, loaded, base=options.base)
    else:
        policy.export_policy(options.out, loaded, param_dtype=options.param_dtype)
    print(options.out)


def _report(options: argparse.Namespace, assignments: Sequence[str]) -> None:
    _refuse(assignments)
    from jaxrl_reason import report

    print(report.write_report(options.runs, options.out))


def _demo(options: argparse.Namespace, assignments: Sequence[str]) -> None:
    _refuse(assignments)
    from jaxrl_reason import demo

    demo.main(options.run_dir)


def _refuse(assignments: Sequence[str]) -> None:
    if assignments:
        names = ", ".join(f"--config.{a}" for a in assignments)
        raise _UsageError(f"this command has no config, so it cannot take {names}")


def _status_of(error: Exception) -> int | None:
    """Exit status of an error whose message says all; None: a bug, whose stack is wanted."""
    if isinstance(error, (_UsageError, FileExistsError, FileNotFoundError, ValueError)):
        return 2
    checkpoint = sys.modules.get("jaxrl_reason.checkpoint")
    if isinstance(error, (FloatingPointError, ConnectionError)) or (
        checkpoint and isinstance(error, checkpoint.CheckpointError)
    ):
        return 1
    return None
