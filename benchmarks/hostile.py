r"""Texts that mean harm, generated: the largest processor time of every entry that reads text, and how it grows.

Host side. Reads: nothing. Writes: a table on standard output, and JSON to --out.

Usage: python benchmarks/hostile.py [--share 1.0] [--part 0/1] [--limit 0.5] [--out hostile.json]

A text is a prefix, one to three tokens that are repeated 10 to 10,000 times or up to a length at which some limit lies,
and a suffix. All singles and pairs go to all entries; triples, of one token of each class, to the verifier and to the
others in turn. Singles stand between all prefixes and suffixes, the others between each in turn. --share takes that
part of them, drawn once for all; --part i/n does every n-th, for n processes.

Time is that of the processor. The exponent is log(time ratio) / log(length ratio) from 1,000 to 10,000 repeats, where
the longer text took over SLOW_S: 1 is proportional. A call that takes over CALL_S is stopped.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import pathlib
import random
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from jaxrl_reason.credit import critic
from jaxrl_reason.tasks import arithmetic, copies, countdown, formats, gsm8k, knights
from jaxrl_reason.types import Problem
from jaxrl_reason.verify import answers, expressions, golds, judge, similarity, step_rules, steps

TOKENS = (
    "1", "7", "10", "a", "x", "A", "word", " ", "  ", "\t", "\n", "\n\n", "/", ",", ".", "$", "$$", "\\", "\\\\", "{",
    "}", "{}", "(", ")", "[", "]", "^", "_", "-", "+", "=", "%", ":", ";", "|", "&", "!", "?", "*", "**", "#", "'",
    '"', "<", ">", "~", "\\boxed{", "\\frac", "\\text{", "\\text{ and }", "\\quad", "\\,", "{,}", "\\sqrt", "\\pm",
    "\\cup", "\\circ", "\\in", "\\left(", "\\mathbf{", "\\begin{cases}", "\\cdot", "answer is ", "#### ", " or ",
    " and ", " not ", "the ", "１", "，", "²", "é", "\u200b", "\u00a0", "°", " cm", " apples", " per ", "million ",
    "Step 1", "<<", ">>", "</think>", "<answer>", "e.g.", "!=", "12:30 pm", "is a knight", "\\{", "\\}", ",000",
)  # fmt: skip
CLASSES = (  # of these, all triples
    "1", "a", "A", "word", " ", "\t", "\n", "/", ",", ".", "$", "\\", "{", "}", "(", ")", "[", "]", "^", "_", "-", "+",
    "=", "%", ":", "|", "&", "!", "\\boxed{", "\\frac", "\\text{", "\\quad", "\\sqrt", "\\pm", "answer is ", "#### ",
    " or ", " and ", "１", "\u200b", " cm", " apples", " per ", ",000",
)  # fmt: skip
PREFIXES = (
    "\\boxed{12 ", "the answer is ", "#### 5 ", "", "\\boxed{", "\\boxed{x=", "\\boxed{(1,", "\\boxed{\\frac{1}{2} ",
    "\\boxed{5 cm ", "\\boxed{\\text{", "**Answer:** $", "\\boxed{A", "<answer>",
)  # fmt: skip
SUFFIXES = ("", "}", "?", "1}", " (approx.)}", "=5", "$.")
GOLDS = (
    "12", "A, C", "(1, 2)", "[0, 1)", r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", "y = 2x + 1", "yes", "5 cm", "50%",
    r"\frac{\sqrt{3}}{2}", "x^2 + 1", "{1, 2, 3}", "3:4", r"\$5", "e^{-1}", "B", "March 14", "x < 3", "12_5",
)  # fmt: skip
REPEATS = (10, 100, 1000, 10_000)
LENGTHS = (78, 195, 295, 395, 1990)  # just under limits of the verifier
SLOW_S = 0.02  # processor time from which an exponent is worth its noise
CALL_S = 20.0
_COUNTDOWN = countdown.Countdown(4, 13, 24)
_KNIGHTS = knights.Knights(3)


class Case(NamedTuple):
    """A text to be, and what reads it."""

    entry: str
    prefix: str
    unit: str
    suffix: str
    gold: str


def _refused(call: Callable[[], Any]) -> None:
    try:
        call()
    except ValueError:
        pass  # what a loader says of a record it cannot use


def _steps_of(rule: str) -> Callable[[str, str], Any]:
    return lambda text, _: step_rules.ends(text, rule)


def _task(task: Any, problem: Problem) -> Callable[[str, str], Any]:
    return lambda text, _: task.verify([problem], [text])


ENTRIES: dict[str, Callable[[str, str], Any]] = {
    "verify_answer": lambda text, gold: answers.verify_answer(text, gold),
    "verify_answer, flexible": lambda text, gold: answers.verify_answer(
        text, gold, extract="flexible"
    ),
    "verify_answer, gold": lambda text, _: _refused(
        lambda: answers.verify_answer(r"\boxed{x+1}", text)
    ),
    "check_gold": lambda text, _: _refused(lambda: answers.check_gold(text)),
    "judge_record": lambda text, _: golds.judge_record(text, text, 2.0),
    "final_answer": lambda text, _: answers.final_answer(text),
    "parse_number": lambda text, _: answers.parse_number(text),
    "expressions.judge": lambda text, _: expressions.judge(text, [1, 2, 3], 6, use_all=True),
    "check_step": lambda text, _: steps.check_step(text),
    "ends of sentences": _steps_of("sentence"),
    "ends of lines": _steps_of("newline"),
    "ends of blank lines": _steps_of("blank_line"),
    "ends of Step k": _steps_of("step_k"),
    "ends of code": _steps_of("code_line"),
    "similarity, step": lambda text, gold: similarity.similarity(text, f"so {gold} is it. " * 40),
    "similarity, both": lambda text, _: similarity.similarity(text, text[::-1]),
    "written_step": lambda text, _: similarity.written_step(text, think=True, separator=";"),
    "maths record": lambda text, _: _refused(
        lambda: formats.maths_entry({"problem": text, "answer": text, "solution": text})
    ),
    "maths solution": lambda text, _: _refused(
        lambda: formats.maths_entry({"problem": "?", "solution": text})
    ),
    "gsm8k record": lambda text, _: _refused(
        lambda: gsm8k._entry({"question": "?", "answer": f"so #### {text}"})
    ),
    "question_key": lambda text, _: copies.question_key(text),
    "countdown": _task(_COUNTDOWN, _COUNTDOWN.batch(0, 0, 1)[0]),
    "knights": _task(_KNIGHTS, _KNIGHTS.batch(0, 0, 1)[0]),
    "knights, list": lambda text, _: knights.read_roles(text),
    "arithmetic": lambda text, _: arithmetic._verdict(Problem("p", "1 2", "3"), text),
    "critic": lambda text, _: (critic.parse(text, 4), critic.prompt(text, [text])),
}


def cases(share: float) -> Iterator[Case]:
    """All cases, or a share of them, always the same."""
    draw = random.Random(0).random
    return (case for case in _all_cases() if draw() < share)


def _all_cases() -> Iterator[Case]:
    names = list(ENTRIES)
    turn = 0
    for size in (1, 2):
        for tokens in itertools.product(TOKENS, repeat=size):
            for name in names:
                for end in itertools.product(PREFIXES, SUFFIXES) if size == 1 else [None]:
                    turn += 1
                    yield _case(name, tokens, turn, end)
    for tokens in itertools.product(CLASSES, repeat=3):
        turn += 1
        for name in ("verify_answer", names[1 + turn % (len(names) - 1)]):
            yield _case(name, tokens, turn, None)


def _case(name: str, tokens: tuple[str, ...], turn: int, ends: tuple[str, str] | None) -> Case:
    # Strides without a common divisor, so that every combination comes up.
    prefix, suffix = ends or (PREFIXES[turn % len(PREFIXES)], SUFFIXES[turn % len(SUFFIXES)])
    return Case(name, prefix, "".join(tokens), suffix, GOLDS[turn * 7 % len(GOLDS)])


def texts(case: Case) -> Iterator[tuple[int, str]]:
    """(repeats, text) of a case, short ones first."""
    fixed = len(case.prefix) + len(case.suffix)
    counts = [(length - fixed) // len(case.unit) for length in LENGTHS]
    for count in sorted({*REPEATS, *(n for n in counts if n > 0)}):
        yield count, case.prefix + case.unit * count + case.suffix


class TooSlow(BaseException):
    """A call took over CALL_S."""


def _stop(*_: object) -> None:
    raise TooSlow


def seconds(entry: Callable[[str, str], Any], text: str, gold: str) -> float:
    """Processor time of one call; CALL_S where it was stopped."""
    judge.read_gold.cache_clear()
    signal.setitimer(signal.ITIMER_PROF, CALL_S)
    start = time.thread_time()
    try:
        entry(text, gold)
        return time.thread_time() - start
    except TooSlow:
        return CALL_S
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def measure(share: float, part: int, parts: int, limit: float) -> dict:
    """Numbers of inputs, slowest input and largest exponent of each entry."""
    signal.signal(signal.SIGPROF, _stop)
    rows = {name: {"inputs": 0, "seconds": 0.0, "slowest": "", "exponent": 0.0, "over": []}
            for name in ENTRIES}  # fmt: skip
    for number, case in enumerate(cases(share)):
        if number % parts != part:
            continue
        row, entry, at = rows[case.entry], ENTRIES[case.entry], {}
        for count, text in texts(case):
            took = seconds(entry, text, case.gold)
            if took > min(limit, SLOW_S):  # once more: another process may have had the caches
                took = min(took, seconds(entry, text, case.gold))
            row["inputs"] += 1
            at[count] = took, len(text)
            shown = [repr(case.prefix), repr(case.unit), repr(case.suffix), case.gold, count]
            if took > row["seconds"]:
                row["seconds"], row["slowest"] = took, shown
            if took > limit:
                row["over"].append([took, *shown])
        (small, a), (large, b) = at[1000], at[10_000]
        if large > SLOW_S and small:
            exponent = math.log(large / small) / math.log(b / a)
            if exponent > row["exponent"]:
                row["exponent"], row["steepest"] = exponent, shown
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--share", type=float, default=1.0, help="part of the cases, in (0, 1]")
    parser.add_argument("--part", default="0/1", help="i/n: every n-th case from the i-th")
    parser.add_argument("--limit", type=float, default=0.5, help="seconds of one call to list")
    parser.add_argument("--out", type=pathlib.Path, help="JSON file to write")
    options = parser.parse_args()
    part, parts = map(int, options.part.split("/"))
    rows = measure(options.share, part, parts, options.limit)
    print(f"{'entry':22} {'inputs':>9} {'max s':>7} {'exponent':>8}  slowest")
    for name, row in rows.items():
        print(
            f"{name:22} {row['inputs']:9,} {row['seconds']:7.3f} {row['exponent']:8.2f}  {row['slowest']}"
        )
        for took in sorted(row["over"], reverse=True)[:5]:
            print(f"{'':22} over {options.limit} s: {took}")
    print(
        f"{sum(r['inputs'] for r in rows.values()):,} inputs; largest processor time"
        f" {max(r['seconds'] for r in rows.values()):.3f} s;"
        f" largest exponent {max(r['exponent'] for r in rows.values()):.2f}"
    )
    if options.out:
        options.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
