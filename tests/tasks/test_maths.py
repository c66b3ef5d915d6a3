"""Maths: every record format, golds that cannot be used, prompts, verdicts.

Host side. Reads: files it wrote. Writes: a temporary folder.
"""

import json
import warnings

import pytest

from jaxrl_reason.models import tokenizer as tokenizers
from jaxrl_reason.tasks import base, checking, formats
from jaxrl_reason.tasks.maths import Maths

# One record of each data set, shortened; (record, question, gold, reference).
FORMATS = {
    "math": (
        {"problem": "Find $x$.", "level": "Level 5", "type": "Algebra", "solution": r"Halve it: $\boxed{\frac12}$."},
        "Find $x$.", r"\frac12", r"Halve it: $\boxed{\frac12}$.",
    ),
    "math500": (
        {"problem": "P2", "solution": "1 + 2, thus 3", "answer": "3", "subject": "Algebra", "unique_id": "a.json"},
        "P2", "3", "1 + 2, thus 3\n\n\\boxed{3}",
    ),
    "aime24": (
        {"id": 60, "problem": "P3", "solution": r"The answer is \boxed{204}.", "answer": "204", "url": "u"},
        "P3", "204", None,
    ),
    "aime, capital fields": (
        {"ID": "2024-I-1", "Problem": "P4", "Solution": "s #### 73", "Answer": 73},
        "P4", "73", "s #### 73",
    ),
    "amc23": ({"id": 0, "problem": "P5", "answer": 27.0, "question": "P5"}, "P5", "27", None),
    "hmmt": ({"problem_idx": 1, "problem": "P6", "answer": "-984", "problem_type": ["Algebra"]}, "P6", "-984", None),
    "minerva": (
        {"problem": "How far?", "solution": "With\n\\[ d=\\boxed{4.5e33} \\mathrm{~cm} \\]", "idx": 1},
        "How far?", "4.5e33", "With\n\\[ d=\\boxed{4.5e33} \\mathrm{~cm} \\]",
    ),
    "olympiadbench": (
        {"id": 1606, "context": "Let $n > 1$.", "question": "Find it.", "solution": [r"$\boxed{2}$, $\boxed{-2}$"],
         "final_answer": ["$2$", "$-2$"], "is_multiple_answer": True, "error": None, "modality": "Text-only"},
        "Let $n > 1$.\nFind it.", "$2$, $-2$", r"$\boxed{2}$, $\boxed{-2}$",
    ),
    "olympiadbench, one of one": (
        {"question": "Q1", "final_answer": ["7"], "is_multiple_answer": False, "solution": [], "context": None},
        "Q1", "7", None,
    ),
    "deepmath": (
        {"question": "Q2", "final_answer": r"\infty", "difficulty": 5.0, "topic": "t", "r1_solution_1": "<think>"},
        "Q2", r"\infty", None,
    ),
    "gsm8k": ({"question": "Q", "answer": "2 + 3 = 5\n#### 5"}, "Q", "5", "2 + 3 = 5\n#### 5"),
    "verl": (
        {"prompt": [{"role": "system", "content": "s"}, {"role": "user", "content": "Q4"}],
         "reward_model": {"ground_truth": "34", "style": "rule"}, "data_source": "math_dapo"},
        "Q4", "34", None,
    ),
}  # fmt: skip


def _write(folder, records, name="problems.jsonl"):
    path = folder / name
    path.write_text("\n".join(json.dumps(r) for r in records) + "\n")
    return path


@pytest.mark.parametrize("name", FORMATS)
def test_formats_are_recognised_by_their_fields(name):
    record, question, gold, reference = FORMATS[name]
    entry = formats.maths_entry(record)
    assert (entry.prompt, entry.answer, entry.reference) == (question, gold, reference)


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_reads_verifies_and_fits_its_budgets(tmp_path, kind):
    records = [record for record, *_ in FORMATS.values()]
    if kind == "parquet":
        import pyarrow
        from pyarrow import parquet

        # One data set per file, as they are distributed.
        record = records[list(FORMATS).index("olympiadbench")]
        path = tmp_path / "train.parquet"
        rows = [record | {"image_1": b"\x89PNG", "question": f"Find {i}."} for i in range(3)]
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        count = 3
    else:
        path, count = _write(tmp_path, records), len(records)
    task = Maths(path, completion_tokens=64)
    assert isinstance(task, base.Task | base.HoldsOut) and task.held_out is task
    problems = task.batch(0, 0, count)
    assert sorted(int(p.id.removeprefix("math-")) for p in problems) == [*range(1, count + 1)]
    with_reference = [p for p in problems if p.reference]
    verdicts = task.verify(with_reference, [p.reference for p in with_reference])
    verdicts += task.verify(problems, [f"\\boxed{{{p.answer}}}" for p in problems])
    assert {v.reason for v in verdicts} == {"correct"}
    tokenizer = tokenizers.make_tokenizer(task.tokenizer_name)
    longest = max(len(p.reference or "") for p in problems)
    failed, anchor = "f" * 64, "a" * max(63, longest)
    prompts = [task.policy_prompt(p) for p in problems]
    repairs = [task.repair_prompt(p, failed, anchor) for p in problems]
    lengths = [
        max(len(tokenizers.encode_prompt(tokenizer, t)) for t in ts) for ts in (prompts, repairs)
    ]
    assert lengths == [task.prompt_tokens, task.repair_prompt_tokens]
    assert all(r"in \boxed{} at" in text for text in prompts + repairs)


def test_repair_prompt_asks_for_the_draft_and_takes_braces_as_they_are(tmp_path):
    task = Maths(_write(tmp_path, [{"problem": r"\frac{1}{2} {x}?", "answer": "1/2"}]))
    (problem,) = task.batch(0, 0, 1)
    text = task.repair_prompt(problem, r"{failed} \boxed{3}", "{anchor}")
    for part in (
        r"\frac{1}{2} {x}?",
        r"{failed} \boxed{3}",
        "{anchor}",
        "word for word",
        "Do not mention",
    ):
        assert text.count(part) == 1


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"answer": "1"}, "no question in problem, .*it has answer"),
        ({"problem": "", "answer": "1"}, "no question in .*field problem = ''"),
        ({"problem": None, "answer": "1"}, "no question in .*field problem = None"),
        ({"problem": ["a"], "answer": "1"}, r"field problem is neither a text nor .*\['a'\]"),
        ({"prompt": [{"role": "assistant", "content": "x"}], "answer": "1"}, "the last turn of prompt is not the user"),
        ({"problem": "P"}, "no gold answer in answer"),
        ({"problem": "P", "solution": "so it is 5"}, r"no answer in .boxed\{\} .*'so it is 5'"),
        ({"problem": "P", "solution": {"a": 5}}, "field solution is neither a text"),
        ({"problem": "P", "answer": True}, "field answer is no answer: True"),
        ({"problem": "P", "answer": float("nan")}, "no gold answer .*field answer = nan"),
        ({"problem": "P", "answer": float("inf")}, "field answer is no answer: inf"),
        ({"problem": "P", "answer": {"a": 1}}, "field answer is no answer"),
        ({"problem": "P", "final_answer": []}, "no gold answer .*field final_answer"),
        ({"problem": "P", "answer": [1, 2]}, "several answers, and no word"),
        ({"problem": "P", "answer": "1", "pass_rate": "half"}, "field pass_rate is no number .*'half'"),
        ({"problem": "P", "answer": "1", "pass_rate": 1.5}, "field pass_rate is no number .*1.5"),
    ],
)  # fmt: skip
def test_wrong_records_are_left_out_and_named_by_file_and_line(tmp_path, record, message):
    path = _write(tmp_path, [{"problem": "R", "answer": "1"}, record])
    with pytest.warns(
        UserWarning, match=f"{path}: 1 of 2 problems cannot be used:\n  line 2: .*{message}"
    ):
        assert len(Maths(path)) == 1


def test_problems_that_cannot_be_used_are_left_out_and_listed(tmp_path):
    good = {"problem": "P", "answer": "1"}
    bad = [
        {"problem": "P", "answer": "= = ="},
        {"problem": "P", "answer": "{" * 5000},
        {"problem": "P", "solution": r"the box \boxed{never closes"},
        {"problem": "P", "final_answer": ["3.1"], "error": "1e-1"},
        {"problem": "P", "answer": "3", "modality": "Multimodal"},
    ]
    path = _write(tmp_path, [good, *bad])
    with pytest.warns(
        UserWarning,
        match="5 of 6 problems cannot be used:\n  line 2: the gold answer cannot be read: '= = =' .2 such",
    ) as said:
        task = Maths(path)
    assert len(task) == 1
    assert "line 5: the gold answer holds within a tolerance only: '3.1', 1e-1" in str(
        said[0].message
    )
    assert "line 6: the question needs its picture" in str(said[0].message)
    with pytest.raises(ValueError, match="5 of 5 problems cannot be used:\n  line 1: the gold"):
        Maths(_write(tmp_path, bad))


@pytest.mark.parametrize("gold", ["np.arcsin(10/13)", "MR=SRMC", "SRAC=LRAC", "SRMC=LRMC"])
def test_golds_of_minerva_that_look_odd_are_read(tmp_path, gold):
    path = _write(tmp_path, [{"problem": "P", "solution": f"so $\\boxed{{{gold}}}$."}])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        task = Maths(path)
    (problem,) = task.batch(0, 0, 1)
    texts = {
        "np.arcsin(10/13)": (r"\boxed{\arcsin\frac{10}{13}}", r"\boxed{\arccos(10/13)}"),
        "MR=SRMC": (r"\boxed{\text{SRMC} = \text{MR}}", r"\boxed{MR = LRMC}"),
        "SRAC=LRAC": (r"\boxed{LRAC = SRAC}", r"\boxed{SRAC = SRAC}"),
        "SRMC=LRMC": (r"\boxed{LRMC = SRMC}", r"\boxed{SRMC = LRAC}"),
    }[gold]
    assert [v.reason for v in task.verify([problem] * 2, texts)] == ["correct", "wrong"]


def test_a_gold_answer_that_hangs_is_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(checking, "_RECORDS", "tests.verify.hostile_checks:record")
    checking._reader.cache_clear()
    records = [
        {"problem": f"P{i}", "answer": gold} for i, gold in enumerate(["1/2", "spin", "1/3"])
    ]
    path = tmp_path / "hostile.jsonl"
    path.write_text("\n".join(map(json.dumps, records)))
    try:
        with pytest.warns(UserWarning, match="line 2: the gold answer .*'spin' .it takes too long"):
            task = Maths(path)
        assert [p.answer for p in task.problems] == ["1/2", "1/3"]
    finally:
        checking._reader.cache_clear()


def test_hostile_gold_answers_load_at_once(tmp_path):
    golds = ["12 apples" + " " * 28 + "(approx.)", "5 cm" + " " * 25 + "1", "A  " * 18 + "?", "5"]
    path = tmp_path / "hostile.jsonl"
    records = [{"question": f"Q{i}", "answer": f"blah #### {gold}"} for i, gold in enumerate(golds)]
    path.write_text("\n".join(map(json.dumps, records)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        task = Maths(path)
    assert "5" in [p.answer for p in task.problems]
