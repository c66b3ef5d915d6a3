"""Regular expressions take time in proportion to the text, by their form.

Host side. Reads: sources of the package. Writes: nothing.
"""

import pathlib

import pytest

from jaxrl_reason import verify
from tests.verify import pattern_rules

_PACKAGE = pathlib.Path(verify.__file__).parents[1]
MODULES = sorted(
    f"jaxrl_reason.{folder}.{path.stem}"
    for folder in ("verify", "tasks")
    for path in (_PACKAGE / folder).glob("*.py")
) + ["jaxrl_reason.credit.screen", "jaxrl_reason.credit.critic"]


@pytest.mark.parametrize("module", MODULES)
def test_patterns_cannot_be_slow(module):
    for place, pattern, flags, anchored in pattern_rules.patterns(module):
        assert pattern_rules.faults(pattern, flags, anchored=anchored) == [], (place, pattern)


def test_patterns_are_found():
    found = [p for module in MODULES for p in pattern_rules.patterns(module)]
    assert len(found) > 100
    assert any(anchored for *_, anchored in found) and not all(a for *_, a in found)


SLOW = [  # each takes time that grows as the square of some text, or faster
    r"(a*)*b", r"(a|a)*b", r"(a|ba|b)*c", r"(?:\s*\w*)*;", r"(?:x+\s*)+$", r"\s*,?\s*b", r"a*a*b",
    r"(?:a?){30}b", r"a(?:\s|\s+)*b", r"\d+(?:\.?\d+)*x", r".*?.*?x", r"(?:,\s*,?)*x", r"[ab]*(?=[ab]*c)",
]  # fmt: skip
SLOW_SEARCH = [r"\s+$", r"\s*,", r"\d+x", r"a.*b", r"(?:ab)+c", r"[a-z]+(?=,)", r"x\w*\d"]
FAST = [
    r"\s*+,?\s*+b", r"(?:a|b)*c", r"(?:a*+)b", r"(?:x\s*+)*;", r"(?:(?>is|in)\s)*x", r"[a-z]*?x", r"(?:,\d{3})+(?!\d)",
]  # fmt: skip
FAST_SEARCH = [
    r"\d+",
    r"<[^<>]*>",
    r"(?<!\s)\s+$",
    r"(?<=;)\w*x",
    r"^\s*x",
    r"\b[a-z]+\s",
    r"\\\w*,",
    r"(?:,\d+)+",
]


def test_slow_patterns_are_told_from_fast_ones():
    for pattern in [*SLOW, *SLOW_SEARCH]:
        assert pattern_rules.faults(pattern), pattern
    for pattern in SLOW:
        assert pattern_rules.faults(pattern, anchored=True), pattern
    for pattern in [*FAST, *SLOW_SEARCH]:
        assert pattern_rules.faults(pattern, anchored=True) == [], pattern
    for pattern in FAST_SEARCH:
        assert pattern_rules.faults(pattern) == [], pattern
