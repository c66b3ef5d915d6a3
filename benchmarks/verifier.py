"""Answer verifier on labelled pairs: rates per category, beside math-verify where it is installed, and speed.

Host side. Reads: a JSONL file of pairs; optionally GSM8K and ProcessBench. Writes: a table on
standard output, and JSON to --out.

Usage: python benchmarks/verifier.py [--pairs tests/verify/labelled.jsonl ...] [--gsm8k test.jsonl ...]
           [--golds aime24.jsonl ...] [--processbench gsm8k.json] [--out benchmarks/results/verifier.json]

A pair is {"category", "gold", "prediction", "label"}; a completion has a label for each way to look for
its answer, {"category", "gold", "completion", "strict", "flexible"}. math-verify is asked with its defaults, gold
and prediction through its `parse`, the gold in dollar signs. Speed is processor time of one thread.
"""

from __future__ import annotations

import argparse
import collections
import importlib.metadata
import json
import pathlib
import platform
import statistics
import time
from collections.abc import Callable

from jaxrl_reason.tasks import formats, sources
from jaxrl_reason.verify import judge, processbench, steps

Rates = dict[str, dict[str, float]]

_SETS = pathlib.Path(__file__).parents[1] / "tests" / "verify"
DEFAULT_PAIRS = [_SETS / "labelled.jsonl", _SETS / "adversarial.jsonl"]
DEFAULT_COMPLETIONS = _SETS / "completions.jsonl"
REPEATS = 5


def ours(prediction: str, gold: str) -> bool:
    """Whether our verifier calls the pair correct."""
    try:
        return judge.judge(prediction, gold, 2.0)[0] == "correct"
    except judge.UnreadableGold:
        return False


def modes(path: pathlib.Path) -> dict[str, dict[str, float]]:
    """Precision and recall of both ways to look for an answer, on completions with both labels."""
    completions = [json.loads(line) for line in path.read_text().splitlines()]
    found = {}
    for name, check in (("strict", judge.judge), ("flexible", judge.judge_leniently)):
        paid = [check(c["completion"], c["gold"], 2.0)[0] == "correct" for c in completions]
        hits = sum(p and c[name] for p, c in zip(paid, completions, strict=True))
        right = sum(c[name] for c in completions)
        precision, recall = hits / max(1, sum(paid)), hits / right
        found[name] = {"right": right, "precision": precision, "recall": recall}
        print(
            f"{name:9} {len(completions)} completions, {right} of them right: precision {precision:.3f}, "
            f"recall {recall:.3f}"
        )
    return found


def math_verify() -> Callable[[str, str], bool] | None:
    """The same question to math-verify; None where it is not installed."""
    try:
        from math_verify import parse, verify
    except ImportError:
        return None

    def ask(prediction: str, gold: str) -> bool:
        try:
            return bool(verify(parse(f"${gold}$"), parse(prediction)))
        except Exception:
            return False

    return ask


def rates(pairs: list[dict], check: Callable[[str, str], bool]) -> Rates:
    """True- and false-positive rate per category and in all, and the slowest answer."""
    hits, slowest = collections.defaultdict(list), 0.0
    for pair in pairs:
        start = time.perf_counter()
        said = check(pair["prediction"], pair["gold"])
        slowest = max(slowest, time.perf_counter() - start)
        for category in (pair["category"], "all"):
            hits[category, pair["label"]].append(said)
    found: Rates = {}
    for category in [*dict.fromkeys(pair["category"] for pair in pairs), "all"]:
        positive, negative = hits[category, True], hits[category, False]
        found[category] = {
            "positives": len(positive),
            "negatives": len(negative),
            "tpr": statistics.fmean(positive) if positive else None,
            "fpr": statistics.fmean(negative) if negative else None,
        }
    found["all"]["slowest_s"] = slowest
    return found


def speed(golds: list[str]) -> float:
    """GSM8K-like answers per second of one core: whole completions, a third of them wrong."""
    filler = "She sells 16 - 3 - 4 = 9 eggs. " * 8
    pairs = [(f"{filler}\n#### {g if i % 3 else g + '1'}", g) for i, g in enumerate(golds)]
    seconds = []
    for _ in range(REPEATS):
        start = time.process_time()
        for completion, gold in pairs:
            judge.judge(completion, gold, 2.0)
        seconds.append(time.process_time() - start)
    return len(pairs) / statistics.median(seconds)


def solutions(paths: list[pathlib.Path]) -> dict:
    """Gold answers that verify against themselves, and gold solutions in which no step is wrong."""
    total = verified = clean = 0
    flagged = []
    for path in paths:
        for number, line in enumerate(path.read_text().splitlines(), 1):
            solution, _, gold = json.loads(line)["answer"].rpartition("####")
            total += 1
            verified += ours(f"{solution}#### {gold.strip()}", gold.strip())
            wrong = [
                e for s in solution.split("\n") for e in steps.equations(s) if e.outcome == "wrong"
            ]
            clean += not wrong
            if wrong:
                flagged.append([f"{path.name}:{number}", f"{wrong[0].left} = {wrong[0].right}"])
    share = clean / total
    print(
        f"GSM8K: {verified} of {total} golds verify; {share:.2%} of solutions without an error found"
    )
    return {"problems": total, "golds_verified": verified, "clean": share, "flagged": flagged}


def golds(paths: list[pathlib.Path]) -> dict:
    """Records of mathematics whose gold answer agrees with itself in a box; places of the others."""
    found = {}
    for path in paths:
        total, verified, others = 0, 0, []
        for number, line in enumerate(path.read_text().splitlines(), 1):
            total += 1
            try:
                gold = formats.maths_entry(json.loads(line)).answer
                if not ours(f"\\boxed{{{gold}}}", gold):
                    raise sources.Unusable(f"{gold}: does not agree with itself")
                verified += 1
            except sources.Unusable as error:
                others.append([number, str(error)])
        found[path.name] = {"problems": total, "golds_verified": verified, "others": others}
        print(f"{path.name}: {verified} of {total} golds verify {others or ''}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=pathlib.Path, nargs="*", default=DEFAULT_PAIRS)
    parser.add_argument("--completions", type=pathlib.Path, default=DEFAULT_COMPLETIONS)
    parser.add_argument("--gsm8k", type=pathlib.Path, nargs="*", default=[])
    parser.add_argument("--golds", type=pathlib.Path, nargs="*", default=[], help="of task math")
    parser.add_argument("--processbench", type=pathlib.Path)
    parser.add_argument("--out", type=pathlib.Path, help="JSON file to write")
    options = parser.parse_args()
    pairs = [json.loads(line) for path in options.pairs for line in path.read_text().splitlines()]
    result = {
        "machine": platform.machine(),
        "python": platform.python_version(),
        "pairs": len(pairs),
    }
    result["ours"] = rates(pairs, ours)
    other = math_verify()
    if other is not None:
        result["math_verify_version"] = importlib.metadata.version("math-verify")
        result["math_verify"] = rates(pairs, other)

    def cell(name: str, category: str, rate: str) -> str:
        value = result[name][category][rate] if name in result else None
        return f"{value:8.3f}" if value is not None else f"{'-':>8}"

    print(f"{'':16} {'pairs':>9} {'TPR':>8} {'FPR':>8}   math-verify: {'TPR':>8} {'FPR':>8}")
    for category, row in result["ours"].items():
        counts = f"{row['positives']}+{row['negatives']}"
        cells = [cell(n, category, r) for n in ("ours", "math_verify") for r in ("tpr", "fpr")]
        print(f"{category:16} {counts:>9} {cells[0]} {cells[1]}   {'':12} {cells[2]} {cells[3]}")
    result["modes"] = modes(options.completions)
    result["gsm8k_answers_per_s"] = speed([str(i * 7 % 10_000) for i in range(5000)])
    print(f"{result['gsm8k_answers_per_s']:,.0f} GSM8K answers per second of one core")
    if options.gsm8k:
        result["gsm8k"] = solutions(options.gsm8k)
    if options.golds:
        result["golds"] = golds(options.golds)
    if options.processbench:
        records = processbench.read(options.processbench)
        found = [steps.first_wrong_step(record.steps) for record in records]
        scores = processbench.score([record.label for record in records], found)
        result["processbench"] = scores._asdict()
        print(
            "ProcessBench, step check: "
            + ", ".join(f"{k} {v:.3f}" for k, v in result["processbench"].items())
        )
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
