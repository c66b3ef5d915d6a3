"""Answers that a policy could cheat with, right answers in odd dress, and whole completions.

Host side. Reads: adversarial.jsonl and completions.jsonl beside this file. Writes: nothing.

Both sets were labelled before the rules that they are about were written. A completion has two
labels: what a strict reader pays, who wants a marked answer, and what a lenient one pays.
"""

import json
import pathlib


def _records(name: str) -> list[dict]:
    return [
        json.loads(line) for line in pathlib.Path(__file__).with_name(name).read_text().splitlines()
    ]


PAIRS = _records("adversarial.jsonl")
COMPLETIONS = _records("completions.jsonl")


def test_the_sets_are_large_and_balanced_and_do_not_contradict_themselves():
    assert len(PAIRS) >= 420 and len({(p["gold"], p["prediction"]) for p in PAIRS}) == len(PAIRS)
    assert sum(not p["label"] for p in PAIRS) >= 0.45 * len(PAIRS)
    assert len({c["completion"] for c in COMPLETIONS}) >= 300
    assert sum(not c["flexible"] for c in COMPLETIONS) >= 0.45 * len(COMPLETIONS)
    assert not [c for c in COMPLETIONS if c["strict"] and not c["flexible"]]
