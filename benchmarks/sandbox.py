"""Programs per second through the sandbox, by number of tests.

Host side. Reads: nothing. Writes: a table on standard output, and JSON to --out.

Usage: python benchmarks/sandbox.py [--out benchmarks/results/sandbox.json]

A program reads two numbers and prints their sum. Processor time is that of this process and all of
its children, so that the rate per core holds on a busy machine too.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import platform
import resource
import time

from jaxrl_reason.verify import sandbox, sandbox_tests

PROGRAM = "print(sum(map(int, input().split())))"
NUM_PROGRAMS = 60


def processor_seconds() -> float:
    """Of this process and of all children that have ended."""
    who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    usages = [resource.getrusage(w) for w in who]
    return sum(u.ru_utime + u.ru_stime for u in usages)


def measure(num_tests: int) -> dict[str, float]:
    """Rates for programs with so many tests each, one at a time."""
    record = {"inputs": ["2 3"] * num_tests, "outputs": ["5"] * num_tests}
    tests = sandbox_tests.read_tests(record)
    start, before = time.perf_counter(), processor_seconds()
    results = sandbox.run_many([PROGRAM] * NUM_PROGRAMS, [tests] * NUM_PROGRAMS, workers=1)
    spent, passed = processor_seconds() - before, time.perf_counter() - start
    assert all(r.outcome == "passed" for r in results), results
    return {"per_core_second": NUM_PROGRAMS / spent, "per_second": NUM_PROGRAMS / passed}


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default=None)
    out = parser.parse_args().out
    sandbox.check_isolation()
    rates = {f"{n} tests": measure(n) for n in (1, 10)}
    for name, rate in rates.items():
        each = ", ".join(f"{v:.1f} programs {k.replace('_', ' ')}" for k, v in rate.items())
        print(f"{name}: {each}")
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps({"machine": platform.machine(), "rates": rates}, indent=2) + "\n")


if __name__ == "__main__":
    main()
