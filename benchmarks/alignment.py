"""Alignment kernel against rapidfuzz on the same pairs, in the same run.

Host side. Reads: nothing. Writes: a table on standard output, and JSON to --out.

Usage: python benchmarks/alignment.py [--out benchmarks/results/alignment_cpu.json] [--repeats 5]

Two clocks. Wall seconds are what a user waits for; processor seconds (of all threads) stay readable
on a machine that does other work, but say nothing about a kernel that runs on an accelerator.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import platform
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import rapidfuzz
from rapidfuzz.distance import Levenshtein

from jaxrl_reason.ops import alignment

NUM_PAIRS = 256
LENGTHS = (512, 2048)
EDIT_RATES = (0.05, 0.3)
VOCABULARY = 32_000

Pair = tuple[list[int], list[int]]


def make_pairs(length: int, rate: float, seed: int = 0) -> list[Pair]:
    """Random rows, and each with random substitutions, insertions and deletions, a third each."""
    rng = np.random.default_rng(seed)
    pairs = []
    for _ in range(NUM_PAIRS):
        failed = rng.integers(0, VOCABULARY, length).tolist()
        repaired = []
        for token in failed:
            kind = rng.integers(3) if rng.random() < rate else -1
            if kind in (0, 1):
                repaired.append(int(rng.integers(VOCABULARY)))
            if kind in (-1, 1):
                repaired.append(token)
        pairs.append((failed, repaired))
    return pairs


def pack(rows: list[list[int]]) -> tuple[jax.Array, jax.Array]:
    """Right-padded ids and mask; the width is rounded up to 64."""
    width = -(-max(map(len, rows)) // 64) * 64
    ids = np.zeros((len(rows), width), np.int32)
    for row, tokens in zip(ids, rows, strict=True):
        row[: len(tokens)] = tokens
    lengths = np.array([len(tokens) for tokens in rows])
    return jnp.asarray(ids), jnp.asarray(np.arange(width) < lengths[:, None])


def measure(calls: dict[str, Callable[[], object]], repeats: int) -> dict[str, dict[str, float]]:
    """Median milliseconds of each call, taken in turn so that other load falls on all alike."""
    samples = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            wall, cpu = time.perf_counter(), time.process_time()
            jax.block_until_ready(call())
            times = (time.perf_counter() - wall, time.process_time() - cpu)
            samples[name].append([1e3 * t for t in times])
    return {
        name: {
            "wall_ms": statistics.median(wall for wall, _ in values),
            "wall_ms_min": min(wall for wall, _ in values),
            "cpu_ms": statistics.median(cpu for _, cpu in values),
        }
        for name, values in samples.items()
    }


def run_case(length: int, rate: float, repeats: int) -> dict:
    """One row of the table; stops if the kernel and rapidfuzz disagree about any distance."""
    pairs = make_pairs(length, rate)
    inputs = (*pack([failed for failed, _ in pairs]), *pack([repaired for _, repaired in pairs]))
    start = time.perf_counter()
    out = jax.block_until_ready(alignment.align(*inputs))
    compile_s = time.perf_counter() - start
    distances = [Levenshtein.distance(a, b) for a, b in pairs]
    if out.num_edits.tolist() != distances:
        raise SystemExit(f"wrong distances at {length} tokens, {rate:.0%} edits: fix the kernel")
    calls = {
        "kernel": lambda: alignment.align(*inputs),
        "editops": lambda: [Levenshtein.editops(a, b) for a, b in pairs],
        "distance": lambda: [Levenshtein.distance(a, b) for a, b in pairs],
    }
    times = measure(calls, repeats)
    return {
        "tokens": length,
        "edit_rate": rate,
        "max_distance": max(distances),
        "first_call_s": compile_s,
        **times,
        "editops_over_kernel_wall": times["editops"]["wall_ms"] / times["kernel"]["wall_ms"],
        "editops_over_kernel_cpu": times["editops"]["cpu_ms"] / times["kernel"]["cpu_ms"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, help="JSON file to write")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    device = jax.devices()[0]
    about = {
        "device": device.device_kind,
        "platform": device.platform,
        "machine": platform.machine(),
        "usable_cores": len(os.sched_getaffinity(0)),
        "load_at_start": os.getloadavg()[0],
        "jax": jax.__version__,
        "rapidfuzz": rapidfuzz.__version__,
        "num_pairs": NUM_PAIRS,
        "vocabulary": VOCABULARY,
        "repeats": options.repeats,
    }
    print(", ".join(f"{name} {value}" for name, value in about.items()))
    print(f"{NUM_PAIRS} pairs; median ms, wall (processor); ratio: editops / kernel")
    print(
        f"{'tokens':>6} {'edits':>6} {'kernel':>16} {'editops':>16} {'distance':>16} {'ratio':>13}"
    )
    cases = []
    for length in LENGTHS:
        for rate in EDIT_RATES:
            case = run_case(length, rate, options.repeats)
            cases.append(case)
            columns = (case[name] for name in ("kernel", "editops", "distance"))
            cells = " ".join(f"{c['wall_ms']:7.1f} ({c['cpu_ms']:6.1f})" for c in columns)
            ratios = (
                f"{case['editops_over_kernel_wall']:5.2f} ({case['editops_over_kernel_cpu']:.2f})"
            )
            print(f"{length:6d} {rate:6.0%} {cells} {ratios:>13}", flush=True)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps({**about, "cases": cases}, indent=2) + "\n")


if __name__ == "__main__":
    main()
