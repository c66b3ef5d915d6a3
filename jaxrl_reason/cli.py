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
import difflib
import functools
import itertools
import json
import logging
import os
import pathlib
import shlex
import shutil
import signal
import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from jaxrl_reason import cli_options


class _UsageError(Exception):
    """The request is wrong; nothing was begun."""


def run() -> None:
    """Entry point of the console script; ends the process with `main`'s status."""
    warnings.showwarning = _show_warning
    try:
        status = main(sys.argv[1:])
        if status == 130:  # a further Ctrl-C while libraries close would print their stacks
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read our output has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 141
    sys.exit(status)


def main(argv: Sequence[str]) -> int:
    """Carry out one command.

    Args:
      argv: arguments, without the program's name.
    Returns:
      Exit status: 0 done, 1 the work failed, 2 the request was wrong.
    """
    rest, assignments = split_assignments(argv)
    parser, commands = _make_parser()
    try:
        _check_options(commands, rest)
        if not _print_fields(commands, rest, assignments):
            options = parser.parse_args(rest, argparse.Namespace(argv=argv))
            return _carry_out(options, assignments)
    except SystemExit as end:  # argparse has printed help or its error
        return int(end.code or 0)
    return 0


def _carry_out(options: argparse.Namespace, assignments: Sequence[str]) -> int:
    try:
        options.command(options, assignments)
    except KeyboardInterrupt:
        resumable = getattr(options, "resume", None) is not None and getattr(options, "out", True)
        print(f"interrupted{_go_on(options.argv) if resumable else ''}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        raise
    except Exception as error:
        status = _status_of(error)
        if status is None or options.traceback:
            raise
        print(f"jaxrl-reason {options.name}: {error}", file=sys.stderr)
        if not isinstance(error, _UsageError):
            print("(--traceback shows where)", file=sys.stderr)
        return status
    return 0


def _go_on(argv: Sequence[str]) -> str:
    """How to go on after a stop, for a command that can."""
    command = ["jaxrl-reason", *argv, *([] if "--resume" in argv else ["--resume"])]
    return f"; go on with: {shlex.join(command)}"


def _check_options(commands: Mapping[str, argparse.ArgumentParser], rest: Sequence[str]) -> None:
    """Ends with the usage of the command, and with the option that was meant, where there is no such option."""
    if not rest or rest[0] not in commands:
        return
    command = commands[rest[0]]
    known, problems = cli_options.options_of(command), []
    for before, argument in itertools.pairwise(rest):
        name, value, text = argument.partition("=")
        if name.startswith("-"):
            if name.startswith("--") and name != "--" and name not in known:
                problems.append(_unknown(argument, name[2:], rest[0], command, known))
        elif cli_options.takes_fields(command) and value and "." in name and "/" not in name:
            problems.append(f"{argument}: write --config.{name}={text}")
        elif "--config" in known and name.endswith(".py") and before != "--config":
            problems.append(f"{argument}: write --config={argument}")
    if problems:
        command.error("; ".join(problems))


def _unknown(
    argument: str, name: str, label: str, command: argparse.ArgumentParser, known: Sequence[str]
) -> str:
    near = difflib.get_close_matches(f"--{name}", known, n=1, cutoff=0.8)
    if not near and cli_options.takes_fields(command):
        from jaxrl_reason import config, config_names

        own = {"sft": ("sft",), "train-prm": ("prm",)}.get(label, ())
        found = config_names.nearest_field(
            name, config.fields(config.base()), (*own, *config_names.COMMON_SECTIONS)
        )
        near = [f"--config.{found}"] if found else []
    return f"{argument}: no such option" + (f"; did you mean {near[0]}?" if near else "")


def _print_fields(
    commands: Mapping[str, argparse.ArgumentParser],
    rest: Sequence[str],
    assignments: Sequence[str],
) -> bool:
    """With --help: the command's options, then every field of its config; False where nothing was asked."""
    command = commands.get(rest[0]) if rest else None
    if not command or not cli_options.takes_fields(command) or not {"-h", "--help"} & set(rest):
        return False
    from jaxrl_reason import config, config_docs

    path = cli_options.config_of(rest)
    try:
        shown = config.load(path, assignments) if path else config.base()
    except (ValueError, FileNotFoundError) as error:
        command.error(str(error))
    said = f"Fields of the config; * where {path} differs from the default:"
    print(command.format_help(), said if path else "Fields of the config:", sep="\n")
    print(config_docs.listing(shown, width=min(shutil.get_terminal_size().columns, 120)))
    return True


_warned: set[tuple[str, int]] = set()  # places in other libraries


def _show_warning(message: Any, category: type[Warning], filename: str, line: int, *_: Any) -> None:
    """A warning without its place in the source; of another library, in one line and once for each place."""
    text = str(message)
    if not os.path.abspath(filename).startswith(os.path.dirname(__file__) + os.sep):
        if (filename, line) in _warned:
            return
        _warned.add((filename, line))
        text = " ".join(text.split())
    print(f"warning: {text}", file=sys.stderr)


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


def _make_parser() -> tuple[argparse.ArgumentParser, Mapping[str, argparse.ArgumentParser]]:
    """The parser, and that of each command by name."""
    parser = argparse.ArgumentParser(
        prog="jaxrl-reason",
        description="Reinforcement learning for reasoning models in JAX.",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    add = functools.partial(cli_options.add_command, commands)
    train = add("train", _train, "train a policy with reinforcement learning", config=True)
    sft = add("sft", _sft, "cold start: supervised training of a first policy", config=True)
    prm = add("train-prm", _train_prm, "train and examine a process reward model", config=True)
    for trained in (train, sft, prm):
        trained.add_argument(
            "--resume",
            action="store_true",
            help="go on from the newest checkpoint of config.run_dir",
        )
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
    return parser, commands.choices


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
    _keep_compiled()
    if getattr(options, "distributed", False):
        import jax

        from jaxrl_reason import sharding

        jax.distributed.initialize()
        sharding.check_one_process()


def _keep_compiled() -> None:
    """Compiled programs in a folder of the user, for this process and those that it starts.

    jax reads the variables at its import; those that are set already win.
    """
    if os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    folder = os.path.join(home, "jaxrl_reason", "xla")
    try:
        os.makedirs(folder, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        print(f"compiled programs are not kept: {error}", file=sys.stderr)
        return
    os.environ["JAX_COMPILATION_CACHE_DIR"] = folder
    for name, value in _CACHE_SETTINGS.items():
        os.environ.setdefault(name, value)


_CACHE_SETTINGS = {
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",  # small policies are many short programs
    "JAX_COMPILATION_CACHE_MAX_SIZE": str(4 * 2**30),  # bytes; what was used longest ago goes
}


def _train(options: argparse.Namespace, assignments: Sequence[str]) -> None:
    config = _load_config(options, assignments)
    _prepare_process(options)
    from jaxrl_reason import train

    folder, _ = train.train(config, resume=options.resume)
    print(f"run folder: {folder}", file=sys.stderr)
    if train.is_complete(config):
        names = shlex.quote(str(folder)), shlex.quote(options.config)
        said = "next: jaxrl-reason report {0}; jaxrl-reason evaluate {0} --config={1}"
        print(said.format(*names), file=sys.stderr)
    else:
        print(f"stopped before its end{_go_on(options.argv)}", file=sys.stderr)


def _sft(options: argparse.Namespace, assignments: Sequence[str]) -> None:
    config = _load_config(options, assignments)
    _prepare_process(options)
    from jaxrl_reason import sft

    _print_made(sft.sft(config, resume=options.resume))


def _train_prm(options: argparse.Namespace, assignments: Sequence[str]) -> None:
    config = _load_config(options, assignments)
    _prepare_process(options)
    from jaxrl_reason import prm_training

    _print_made(prm_training.train_prm(config, resume=options.resume))


def _print_made(folder: pathlib.Path) -> None:
    """Where the result lies, or how to come by it where a signal ended the work."""
    if folder.exists():
        print(folder)
    else:
        print(f"{folder}: not there yet; go on with --resume", file=sys.stderr)


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
    console = rich.console.Console(stderr=True, highlight=False)
    results = evaluate.measure_all(
        loaded,
        cases,
        k=options.k or (1,),
        out=options.out,
        texts=options.texts,
        resume=options.resume,
        mesh=mesh,
        console=console,
    )
    console.print(evaluate.table(results))
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
                    more += ["task.hold_out=0"]
                    more += ["task.min_pass_rate=0", "task.max_pass_rate=1"]
            config = _load_config(options, [*assignments, *more], path)
            label, number = config.task.name, 2
            while label in cases:
                label, number = f"{config.task.name}-{number}", number + 1
            cases[label] = config
    return cases


def _processbench(options: argparse.Namespace, assignments: Sequence[str]) -> None:
    _refuse(assignments)
    _prepare_process(options)
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
    _prepare_process(options)
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
    # A full disk, a server that does not answer, a number that is none.
    if isinstance(error, (FloatingPointError, OSError)) or (
        checkpoint and isinstance(error, checkpoint.CheckpointError)
    ):
        return 1
    return None
