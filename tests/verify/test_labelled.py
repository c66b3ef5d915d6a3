"""Verifier on labelled pairs, and on answers that mean harm.

Host side. Reads: labelled.jsonl beside this file. Writes: nothing.
"""

import json
import pathlib
import time

import pytest

from jaxrl_reason.verify import answers, equality, grammar, judge, lexer, numeric, values
from jaxrl_reason.verify.pool import VerifyPool

PAIRS = [
    json.loads(line)
    for line in pathlib.Path(__file__).with_name("labelled.jsonl").read_text().splitlines()
]


def test_the_set_is_large_and_balanced():
    negatives = sum(not pair["label"] for pair in PAIRS)
    assert len(PAIRS) >= 300 and negatives >= 0.45 * len(PAIRS)
    assert len({(p["gold"], p["prediction"]) for p in PAIRS}) == len(PAIRS)


def test_rates():
    found = {True: [], False: []}
    # In workers, where nobody checks types, which takes fifty times as long; the next test does.
    with VerifyPool(2, timeout_s=60.0) as pool:
        verdicts = pool.verify([(pair["prediction"], pair["gold"]) for pair in PAIRS])
    for pair, verdict in zip(PAIRS, verdicts, strict=True):
        assert verdict.reason in ("correct", "wrong", "unparsable"), pair
        found[pair["label"]].append(verdict.reward)
    assert sum(found[True]) >= 0.98 * len(found[True])
    assert sum(found[False]) <= 0.01 * len(found[False])


def test_equality_is_symmetric():
    # Without the rule on unfinished answers, which asks more of a prediction than of a gold one.
    for pair in PAIRS:
        gold = judge.read(pair["gold"]).tree
        answer = judge.read(answers.final_answer(pair["prediction"]) or "").tree
        if gold is not None and answer is not None:
            far = time.monotonic() + 60
            assert equality.equal(gold, answer, far) == equality.equal(answer, gold, far), pair


def test_every_gold_answer_verifies_against_itself():
    for gold in {pair["gold"] for pair in PAIRS}:
        assert answers.verify_answer(rf"\boxed{{{gold}}}", gold).reason == "correct", gold


HOSTILE = {
    "power tower": r"\boxed{9^{9^{9^{9^{9}}}}}",
    "power of a fraction": r"\boxed{(1/3)^{99999999999}}",
    "tower of roots": r"\boxed{" + r"\sqrt{" * 30 + "2" + "}" * 30 + "}",
    "factorial": r"\boxed{99999999!}",
    "factorials": r"\boxed{" + "((3!)!)!" + "}",
    "many factorials": r"\boxed{" + "+".join(["4000!"] * 190) + "}",
    "many powers": r"\boxed{" + "+".join(f"(1/{i})^{{999}}" for i in range(1001, 1110)) + "}",
    "digits": r"\boxed{" + "7" * 100_000 + "}",
    "bare digits": "7" * 100_000,
    "exponent": r"\boxed{1e" + "9" * 300 + "}",
    "deep round brackets": r"\boxed{" + "(" * 900 + "5" + ")" * 900 + "}",
    "deep fractions": r"\boxed{" + r"\frac{1}{" * 150 + "5" + "}" * 150 + "}",
    "deep signs": r"\boxed{" + "-" * 1900 + "5}",
    "deep bars": r"\boxed{" + "|" * 1900 + "}",
    "a megabyte of braces": r"\boxed{" + "{" * 500_000 + "}" * 500_000,
    "a megabyte of boxes": r"\boxed{}" * 120_000,
    "box phrases": "answer is " * 90_000 + r"\boxed",
    "spaces": r"\boxed{5" + " " * 1900 + "x}",
    "words": r"\boxed{5 " + "a " * 900 + "}",
    "units": r"\boxed{5 " + "cm/" * 25 + "}",
    "dollars": r"\boxed{" + "$" * 1900 + "}",
    "fonts": r"\boxed{" + r"\mathbf{" * 150 + "5" + "}" * 150 + "}",
    "commas": r"\boxed{" + "1," * 900 + "}",
    "plus-minus": r"\boxed{" + r"1\pm" * 90 + "1}",
    "import": r"\boxed{__import__('os').system('touch executed')}",
    "evaluation": r"\boxed{eval(open('executed','w'))}",
    "sympy": r"\boxed{(lambda: (yield))()}",
    "TeX": r"\boxed{\input{/etc/passwd}\def\a{\a\a}\a}",
    "unions": r"\boxed{" + r"\cup".join(f"[{i},{i + 1}]" for i in range(60)) + "}",
    "inequalities": r"\boxed{" + ",".join(rf"x\ne {i}" for i in range(60)) + "}",
    "sum of fractions": r"\boxed{y=" + "+".join(rf"\frac{{1}}{{x+{i}}}" for i in range(60)) + "}",
    "powers of sums": r"\boxed{" + "(" * 9 + "x" + "+1)^{99}" * 9 + "}",
    "factorials of n": r"\boxed{((n!)!)!}",
    "infix fractions": r"\boxed{" + r"{1\over " * 18 + "1" + "}" * 18 + "}",
    "backward brackets": r"\boxed{" + "]1,2[" * 90 + "}",
    "tags": "<answer>" * 120_000,
    "fonts that do not close": r"\boxed{" + r"\mathbf{{a}" * 150 + "}",
    "letters far apart": r"\boxed{" + ("a" + " " * 95) * 4 + "=5}",
    "number words": r"\boxed{" + "one million " * 100 + "}",
    "signs in words": r"\boxed{" + "negative " * 20 + "five}",
    "equals signs": r"\boxed{" + "=" * 1900 + "5}",
    "cases": r"\boxed{\begin{cases}" + r"x=1\\" * 200 + r"\end{cases}}",
    "repeating decimal": r"\boxed{0." + "12" * 400 + r"\ldots}",
    "NUL": "\\boxed{5\x006}",
    "surrogate halves": "\\boxed{\ud8005\udfff}",
    "bare surrogate": "\ud800",
    "marks": "\\boxed{" + "\u0301" * 1500 + "}",
    "directions": "\\boxed{\u202e5\u202c6}",
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("gold", ["5", r"\frac{x}{2}", "(1,2)", "yes"])
def test_hostile_answers_end_in_time_and_do_nothing(name, gold, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    start = time.thread_time()  # other processes may hold the machine
    verdict = answers.verify_answer(HOSTILE[name], gold, timeout_s=0.5)
    assert (
        time.thread_time() - start < 2.0
    )  # most of it for the types; tests/verify/test_hostile.py is strict
    assert verdict.reason in ("wrong", "unparsable", "timeout")
    if verdict.answer is not None:
        verdict.answer.encode()  # can be written to a file
    assert list(tmp_path.iterdir()) == []
    assert answers.verify_answer(r"\boxed{5}", "5").reason == "correct"


def test_the_deadline_is_kept():
    tree = grammar.parse("+".join(["sin(x)"] * 60))
    with pytest.raises(values.OutOfTime):
        equality.equal(tree, grammar.parse("60*cos(x)"), time.monotonic() - 1)
    slow = "+".join([r"\sin(x^{\sqrt{2}})"] * 40)
    verdict = answers.verify_answer(rf"\boxed{{{slow}}}", rf"{slow}+1", timeout_s=1e-4)
    assert verdict.reason == "timeout"


@pytest.mark.parametrize("text", ["5 = = 5", "", r"\frac{1}{", "???", "1" * 2000])
def test_unreadable_gold_answers_are_refused(text):
    with pytest.raises(ValueError, match="cannot be read"):
        answers.check_gold(text)


def test_functions_are_right_to_forty_digits():
    # Figures of the series, known from tables.
    known = {
        r"\sin 1": "0.8414709848078965066525023216302989996225",
        r"\arctan 2": "1.107148717794090503017065460178537040070",
        r"e^{\pi}": "23.14069263277926900572908636794854738026",
        r"\ln 10": "2.302585092994045684017991454684364207601",
        r"\cosh 1": "1.543080634815243778477905620757061682601",
        r"\arcsin\frac12": "0.5235987755982988730771072305465838140328",
    }
    for text, digits in known.items():
        value = values.evaluate(grammar.parse(lexer.clean(text)), {}, float("inf"))
        assert abs(value.re - numeric.Decimal(digits)) < numeric.Decimal(10) ** -37, text
        assert abs(value.im) < numeric.Decimal(10) ** -37
