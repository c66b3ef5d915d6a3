"""Options of the commands that have more than a config.

Host side. Reads: nothing. Writes: nothing.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any

FIELDS_HELP = """\
Every field of the config can be set, after the config file's own values:
  --config.loss.clip_high=0.28  --config.run_dir runs/second
With --config=FILE, --help shows the values of that file.
"""


def add_command(
    commands: Any,
    name: str,
    command: Callable,
    text: str,
    *,
    config: bool,
    action: str = "store",
) -> argparse.ArgumentParser:
    """A command with what all have; with `config`, also what those have that read one."""
    sub = commands.add_parser(
        name,
        help=text,
        description=text[0].upper() + text[1:] + ".",
        epilog=FIELDS_HELP if config else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    sub.set_defaults(command=command, name=name)
    sub.add_argument("--traceback", action="store_true", help="show the stack of any error")
    if config:
        sub.add_argument(
            "--config",
            required=True,
            action=action,
            metavar="FILE",
            help="a file of configs/, or your own",
        )
        sub.add_argument(
            "--distributed",
            action="store_true",
            help="one of several processes (TPU pod, Slurm, Open MPI): find the others",
        )
    return sub


def takes_fields(command: argparse.ArgumentParser) -> bool:
    """Whether fields of a config are options of the command."""
    return command.epilog == FIELDS_HELP


def options_of(command: argparse.ArgumentParser) -> list[str]:
    """Names of the command's options, with their dashes."""
    return [name for action in command._actions for name in action.option_strings]


def config_of(arguments: Sequence[str]) -> str | None:
    """The config file among the arguments of a command; the first, where there are several.

    Example:
      >>> config_of(["train", "--config=a.py", "--help"]), config_of(["--config", "b.py"]), config_of(["-h"])
      ('a.py', 'b.py', None)
    """
    for argument, following in zip(arguments, [*arguments[1:], None], strict=True):
        name, given, path = argument.partition("=")
        if name == "--config":
            return path if given else following
    return None


def add_report(report: argparse.ArgumentParser) -> None:
    """Which runs, and where to."""
    report.add_argument("runs", nargs="+", metavar="RUN", help="run folders")
    report.add_argument(
        "--out",
        default=None,
        metavar="FILE",
        help="default: report.html in the folder that all runs share",
    )


def add_plan(plan: argparse.ArgumentParser) -> None:
    """Devices to plan for."""
    plan.add_argument(
        "--device",
        default="h100",
        help="v5e | v5p | v6e | a100 | h100 | h200 | b200; default: h100",
    )
    plan.add_argument(
        "--devices",
        type=int,
        default=1,
        metavar="N",
        help="number of devices of the whole run; default: 1",
    )


def add_compare(compare: argparse.ArgumentParser) -> None:
    """What to compare, and how often."""
    compare.epilog = FIELDS_HELP
    compare.add_argument("configs", nargs="+", metavar="FILE", help="config files; the first leads")
    compare.add_argument(
        "--out", required=True, metavar="FOLDER", help="of the runs and the report"
    )
    compare.add_argument("--seeds", type=int, default=3, help="runs of each config; default: 3")
    compare.add_argument(
        "--tokens", type=int, default=0, help="generated tokens of each run; default: the configs'"
    )
    compare.add_argument(
        "--workers",
        type=int,
        default=1,
        help="processes at a time, each on a core of its own; 0: this one; default: 1",
    )


def add_evaluate(evaluate: argparse.ArgumentParser) -> None:
    """What to measure, on which tasks."""
    evaluate.add_argument(
        "policy", metavar="POLICY", help="run, policy or Hugging Face folder, or preset"
    )
    evaluate.add_argument(
        "--task",
        action="append",
        default=None,
        metavar="NAME[=PATH]",
        help="instead of the config's task; may be repeated, also with one name",
    )
    evaluate.add_argument(
        "--k", type=int, nargs="+", default=None, metavar="K", help="k of pass@k, maj@k; default: 1"
    )
    evaluate.add_argument(
        "--out",
        default=None,
        metavar="FOLDER",
        help="write records, texts of completions and results.json there",
    )
    evaluate.add_argument(
        "--texts",
        type=_all_or_number,
        default=None,
        metavar="N|all",
        help="with --out: problems whose completions are written to TASK.texts.jsonl; default: all",
    )
    evaluate.add_argument("--resume", action="store_true", help="go on with the records in --out")


def _all_or_number(text: str) -> int | str:
    if text == "all":
        return text
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r}: must be all, or an integer >= 0")
    return int(text)


def add_processbench(bench: argparse.ArgumentParser) -> None:
    """What to score."""
    bench.add_argument(
        "files", nargs="+", metavar="FILE", help="ProcessBench subsets, JSON or JSONL"
    )
    bench.add_argument("--locator", required=True, metavar="NAME", help="executable, prm or critic")
    bench.add_argument(
        "--model",
        default="",
        metavar="FOLDER",
        help="process reward model for prm, language model for critic",
    )
    for name, default, text in (
        ("samples", 1, "answers of --locator critic: 1 is greedy, more vote"),
        ("prompt_tokens", 4096, "of --locator critic; a longer question is not answered"),
        ("new_tokens", 2048, "of an answer of --locator critic"),
    ):
        bench.add_argument(
            f"--{name}",
            type=int,
            default=default,
            metavar="N",
            help=f"{text}; default: %(default)s",
        )
    bench.add_argument(
        "--threshold",
        type=float,
        default=0.5,
        help="a step below it is wrong, for --locator prm; default: %(default)s",
    )
    bench.add_argument("--out", default=None, metavar="FILE", help="write the scores as JSON, too")


def add_export(export: argparse.ArgumentParser) -> None:
    """What to write, and where."""
    export.add_argument("policy", metavar="POLICY", help="run folder, policy folder or preset")
    export.add_argument("out", metavar="OUT", help="new or empty folder")
    export.add_argument(
        "--param_dtype",
        choices=("float32", "bfloat16"),
        default=None,
        help="of the written weights; default: as they are",
    )
    export.add_argument(
        "--adapters",
        action="store_true",
        help="write the adapters alone, as a folder of PEFT; default: merged into the weights",
    )
    export.add_argument(
        "--base",
        default="",
        metavar="MODEL",
        help="with --adapters: folder or hub id of the weights below them",
    )
