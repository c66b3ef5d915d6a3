"""Time of the step similarity by `cydifflib` over that by Python's `difflib`, on the same pairs of texts in one run.

Host side. Reads: nothing. Writes: a table on standard output, and JSON to --out.

Usage: python benchmarks/similarity.py [--out benchmarks/results/similarity.json]

Pairs are sentences of words drawn from a small vocabulary; a share of the words of one side is replaced.
"""

from __future__ import annotations

import argparse
import difflib
import json
import pathlib
import platform
import time

import numpy as np

from jaxrl_reason.verify import similarity

LENGTHS = (40, 230, 1900)  # characters: a line, a step of a solution, a long step
REPLACED = 0.2  # share of the words
PAIRS = 40


def pairs(characters: int, rng: np.random.Generator) -> list[tuple[str, str]]:
    """Texts of about so many characters, and changed copies."""
    words = [
        "".join(rng.choice(list("abcdefghilmnoprstu"), size=rng.integers(1, 9))) for _ in range(400)
    ]
    made = []
    for _ in range(PAIRS):
        text = rng.choice(words, size=max(characters // 6, 1)).tolist()
        changed = [str(rng.choice(words)) if rng.random() < REPLACED else w for w in text]
        made.append((" ".join(changed), " ".join(text)))
    return made


def by_difflib(step: str, expert: str) -> float:
    """The same number by the standard library."""
    return difflib.SequenceMatcher(None, step, expert, autojunk=False).ratio()


def seconds(ratio, texts: list[tuple[str, str]]) -> tuple[float, list[float]]:
    """(seconds per pair, the numbers)."""
    start = time.process_time()
    found = [ratio(step, expert) for step, expert in texts]
    return (time.process_time() - start) / len(texts), found


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default=None)
    out = parser.parse_args().out
    rng, rows = np.random.default_rng(0), {}
    print(f"{'characters':>10}{'ours, ms':>12}{'difflib, ms':>14}{'ratio':>8}")
    for length in LENGTHS:
        texts = pairs(length, rng)
        (ours, mine), (theirs, same) = (
            seconds(f, texts) for f in (similarity.similarity, by_difflib)
        )
        assert mine == same, "the two must agree to the last digit"
        rows[length] = {"ours_ms": 1e3 * ours, "difflib_ms": 1e3 * theirs}
        print(f"{length:>10}{1e3 * ours:>12.3f}{1e3 * theirs:>14.3f}{theirs / ours:>8.1f}")
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        result = {"machine": platform.machine(), "pairs": PAIRS, "by_characters": rows}
        out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
