"""Figures of an evaluation by hand; records that a killed run goes on with; ProcessBench.

Host side; drives the device. Reads: files it wrote. Writes: temporary folders.
"""

import argparse
import io
import json

import jax
import pytest
import rich.console

from jaxrl_reason import (
    cli,
    cli_options,
    estimates,
    eval_folder,
    evaluate,
    parts,
    processbench,
    sharding,
    tasks,
)
from jaxrl_reason import config as config_lib
from jaxrl_reason.models import policy as policies
from jaxrl_reason.models import prm as prms
from jaxrl_reason.models import tokenizer as tokenizers


def test_pass_at_k_by_hand():
    # n = 4, c = 2, k = 2: 1 - C(2, 2) / C(4, 2) = 1 - 1/6.
    assert estimates.pass_at_k(4, 2, 2) == pytest.approx(5 / 6)
    assert estimates.pass_at_k(4, 0, 4) == 0.0
    assert estimates.pass_at_k(4, 1, 4) == 1.0
    with pytest.raises(ValueError, match="must be in"):
        estimates.pass_at_k(2, 1, 3)


@pytest.mark.parametrize(
    ("answers", "right", "expected"),
    [
        (["4", "4", "5"], [True, True, False], 1.0),
        (["4", "5", "5"], [True, False, False], 0.0),
        (["4", "5"], [True, False], 1 / 2),
        (["4", "5", "6"], [True, False, False], 1 / 3),
        (["5", "6"], [False, False], 0.0),
        (
            ["1/2", "0.5", "3", "3"],
            [True, True, False, False],
            1 / 2,
        ),  # equivalent texts vote together
        ([None, None, "4"], [False, False, True], 1.0),  # no answer, no vote
        ([None, None], [False, False], 0.0),
        ([], [], 0.0),
    ],
)
def test_majority_by_hand(answers, right, expected):
    assert estimates.majority(answers, right) == pytest.approx(expected)
    assert estimates.majority(answers[::-1], right[::-1]) == pytest.approx(expected)


def test_majority_over_runs():
    # Runs of two: a tie, then two right ones; the fifth sample fills no run.
    answers, right = ["1", "2", "1", "1", "2"], [True, False, True, True, False]
    assert estimates.maj_at_k(answers, right, 2) == pytest.approx(3 / 4)
    assert estimates.maj_at_k(answers, right, 1) == pytest.approx(3 / 5)
    with pytest.raises(ValueError, match="k = 6"):
        estimates.maj_at_k(answers, right, 6)


def test_intervals_resample_problems():
    assert estimates.bootstrap_interval([0.0, 1.0]) == (0.0, 1.0)  # a quarter of the draws each
    low, high = estimates.bootstrap_interval([0.0, 1.0] * 200)
    # Standard error 0.5 / sqrt(400) = 0.025, so about 0.5 -+ 0.049.
    assert 0.44 < low < 0.46 and 0.54 < high < 0.56
    assert estimates.bootstrap_interval([0.0, 1.0] * 200) == (low, high)
    values = [i / 7 for i in range(20)]
    assert estimates.bootstrap_interval(values, seed=1) != estimates.bootstrap_interval(values)


# --- The folder -----------------------------------------------------------------------------------

IDS = ["a", "b", "c", "d", "e"]
LINES = [json.dumps({"problem": i}).encode() + b"\n" for i in IDS]


@pytest.mark.parametrize(
    ("data", "kept"),
    [
        (b"", 0),
        (LINES[0][:5], 0),
        (b"".join(LINES[:2]), 2),
        (b"".join(LINES[:3]), 2),
        (b"".join(LINES[:3]) + LINES[3][:-1], 2),  # whole but for the end of its line
        (b"".join(LINES[:4]) + b"{", 4),
        (b"".join(LINES), 5),
        (b"".join(LINES) + b"\x00\xff", 5),
    ],
)
def test_what_is_no_whole_block_is_cut_off(tmp_path, data, kept):
    path = tmp_path / "task.jsonl"
    path.write_bytes(data)
    assert [r["problem"] for r in eval_folder.read_blocks(path, 2, IDS)] == IDS[:kept]
    assert path.read_bytes() == b"".join(LINES[:kept])


@pytest.mark.parametrize("line", [b'{"problem": "z"}\n', b"[]\n", b"{\n", b"\xff\n"])
def test_foreign_records_are_refused(tmp_path, line):
    path = tmp_path / "task.jsonl"
    path.write_bytes(LINES[0] + line)
    with pytest.raises(ValueError, match="line 2"):
        eval_folder.read_blocks(path, 2, IDS)
    assert path.read_bytes() == LINES[0] + line


@pytest.fixture(scope="module")
def mesh():
    return sharding.make_mesh(config_lib.base().mesh, jax.devices()[:1])


@pytest.fixture(scope="module")
def policy(mesh):
    return policies.load_policy("tiny", mesh=mesh, seed=3)


def cases(**changes):
    config = config_lib.base()
    values = {"task.length": 2, "eval.num_samples": 4, "eval.num_problems": 20} | changes
    config_lib.override(config, [f"{k}={v}" for k, v in values.items()])
    config.rollout.chunk_rows = 64  # blocks of 16 problems: a whole one and a quarter
    return {"lists": config}


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


@pytest.mark.slow
# Writes of a block: texts, records, timing. Block 1 is cut off in its records, then in its texts.
@pytest.mark.parametrize(("at", "records", "texts"), [(5, 20, 100), (4, 16, 84)])
def test_a_killed_run_goes_on_to_the_same_bytes(
    policy, mesh, tmp_path, monkeypatch, at, records, texts
):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    results = evaluate.measure_all(policy, cases(), k=(1, 4), out=whole, mesh=mesh)
    append, calls = eval_folder.append, []

    def stop(path, lines):
        calls.append(path)
        if len(calls) == at:  # three of its lines and a half
            data = "".join(json.dumps(r) + "\n" for r in lines).encode()
            with open(path, "ab") as file:
                file.write(data[: int(len(data) * 3.5 / len(lines))])
            raise Killed
        append(path, lines)

    with monkeypatch.context() as patch:
        patch.setattr(eval_folder, "append", stop)
        with pytest.raises(Killed):
            evaluate.measure_all(policy, cases(), k=(1, 4), out=cut, mesh=mesh)
    assert len((cut / "lists.jsonl").read_bytes().splitlines()) == records
    assert len((cut / "lists.texts.jsonl").read_bytes().splitlines()) == texts
    with pytest.raises(FileExistsError, match="--resume"):
        evaluate.measure_all(policy, cases(), k=(1,), out=cut, mesh=mesh)
    with pytest.raises(ValueError, match="eval.*'seed': 1000003.*'seed': 5"):
        changed = cases(**{"eval.seed": 5})
        evaluate.measure_all(policy, changed, k=(1,), out=cut, mesh=mesh, resume=True)
    evaluate.measure_all(policy, cases(), k=(1, 4), out=cut, mesh=mesh, resume=True)
    for name in ("lists.jsonl", "lists.texts.jsonl", "results.json", "settings.json"):
        assert (whole / name).read_bytes() == (cut / name).read_bytes(), name

    written = json.loads((whole / "results.json").read_text())
    assert written == {k: v for k, v in results.items() if not k.startswith("perf/")}
    assert results["perf/lists/tokens_per_s"] > 0
    records = [json.loads(line) for line in (whole / "lists.jsonl").read_text().splitlines()]
    assert len(records) == 20 and {len(r["rewards"]) for r in records} == {4}
    lengths = [n for r in records for n in r["tokens"]]
    assert written["eval/lists/response_length"] == pytest.approx(sum(lengths) / len(lengths))
    assert evaluate.table(results).row_count == 8

    # Nothing is left to sample: other k from the same records.
    more = evaluate.measure_all(policy, cases(), k=(2,), out=cut, mesh=mesh, resume=True)
    assert more["eval/lists/avg@4"] == written["eval/lists/avg@4"]
    assert "eval/lists/maj@2" in more and "eval/lists/pass@4" not in more
    other = policies.load_policy("tiny", mesh=mesh, seed=4)
    with pytest.raises(ValueError, match="params"):
        evaluate.measure_all(other, cases(), k=(1,), out=cut, mesh=mesh, resume=True)


@pytest.mark.parametrize(
    "cut", [{"eval.top_k": 1}, {"eval.top_p": 1e-6}, {"eval.temperature": 1e-5}]
)
def test_samples_are_drawn_as_the_config_says(policy, mesh, tmp_path, cut):
    def lengths(**changes):
        folder = tmp_path / str(len(changes))
        evaluate.measure_all(policy, cases(**changes), k=(1,), out=folder, mesh=mesh)
        records = [json.loads(line) for line in (folder / "lists.jsonl").read_text().splitlines()]
        return [(r["tokens"], r["greedy"]["tokens"] * 4) for r in records]

    # The likeliest token alone is left: every sample is the greedy one.
    assert all(sampled == greedy for sampled, greedy in lengths(**cut))
    assert any(sampled != greedy for sampled, greedy in lengths())


def test_the_loop_draws_its_samples_as_the_config_says(policy, mesh, tmp_path, monkeypatch):
    config = cases(**{"eval.top_k": 1, "run_dir": tmp_path})["lists"]
    run = parts.make_run(config, policy=policy, mesh=mesh)
    drawn, sample = [], run.engine.sample
    monkeypatch.setattr(
        run.engine, "sample", lambda *a, **k: drawn.append(sample(*a, **k)) or drawn[-1]
    )
    evaluate.in_loop(run, run.policy.params)
    sampled, greedy = drawn
    for four, (one,) in zip(sampled, greedy, strict=True):
        assert [c.tokens for c in four] == [one.tokens] * 4


def test_texts_of_completions_say_what_the_records_say(policy, mesh, tmp_path):
    out = io.StringIO()
    console = rich.console.Console(file=out, force_terminal=False, width=200)
    few = cases(**{"eval.num_samples": 2, "eval.num_problems": 5})
    given = {"k": (1,), "out": tmp_path, "mesh": mesh}
    results = evaluate.measure_all(policy, few, **given, texts=3, console=console)
    records = [json.loads(line) for line in (tmp_path / "lists.jsonl").read_text().splitlines()]
    lines = [json.loads(line) for line in (tmp_path / "lists.texts.jsonl").read_text().splitlines()]
    problems = tasks.make_task(few["lists"].task).batch(few["lists"].eval.seed, 0, 3)
    assert [(line["problem"], line["draw"], line["sample"]) for line in lines] == [
        (p.id, draw, n)
        for p in problems
        for draw, n in (("sampled", 0), ("sampled", 1), ("greedy", 0))
    ]
    own = iter(lines)
    for problem, record in zip(problems, records, strict=False):
        for found, samples in ((record, 2), (record["greedy"], 1)):
            texts = [next(own) for _ in range(samples)]
            for name, many in (("reward", "rewards"), ("reason", "reasons"), ("answer", "answers")):
                assert [line[name] for line in texts] == found[many]
            assert [line["tokens"] for line in texts] == found["tokens"]
            assert {line["gold"] for line in texts} == {problem.answer}
            assert all(problem.prompt in line["prompt"] for line in texts)
            ended = [line["text"] for line in texts if line["reason"] != "truncated"]
            verdicts = tasks.make_task(few["lists"].task).verify([problem] * len(ended), ended)
            assert [v.reason for v in verdicts] == [
                line["reason"] for line in texts if line["reason"] != "truncated"
            ]
    shown = out.getvalue().splitlines()
    assert shown[0] == "completion 0/15  lists, sampling ..." and len(shown) <= 8
    accuracy = results["eval/lists/avg@2"]
    assert shown[-1].startswith(f"completion 15/15  accuracy {accuracy:.3f}  ")

    # What the folder began with goes on; another number is another evaluation; texts cannot be lost.
    evaluate.measure_all(policy, few, **given, resume=True)
    with pytest.raises(ValueError, match="texts: saved 3, now 'all'"):
        evaluate.measure_all(policy, few, **given, resume=True, texts="all")
    (tmp_path / "lists.texts.jsonl").write_text("")
    with pytest.raises(ValueError, match=r"lists\.texts\.jsonl: 0 lines, but .* 9 completions"):
        evaluate.measure_all(policy, few, **given, resume=True)


def test_texts_that_are_kept_where_nobody_says(tmp_path):
    assert eval_folder.kept_texts(None) == eval_folder.kept_texts(tmp_path) == "all"
    for saved, kept in (({"texts": 3}, 3), ({"texts": "all"}, "all"), ({}, 0)):  # {}: an older one
        (tmp_path / "settings.json").write_text(json.dumps(saved))
        assert eval_folder.kept_texts(tmp_path) == kept


@pytest.mark.parametrize(("texts", "kept"), [("all", 10), (0, 0), (3, 6), (99, 10)])
def test_a_book_cuts_texts_back_to_its_records(tmp_path, texts, kept):
    def book():
        return eval_folder.Book(tmp_path, "t", IDS, 2, 2, texts)

    def lines(kind):
        path = tmp_path / f"t{kind}.jsonl"
        return path.read_bytes().splitlines() if path.exists() else []

    for start in (0, 2, 4):
        ids = IDS[start : start + 2]
        written = [{"problem": i, "text": "\u2028"} for i in ids for _ in range(2)]
        book().write(start, [{"problem": i} for i in ids], written, {})
    assert len(book().read()) == 5 and len(lines(".texts")) == kept
    # A kill between the texts and the records of the last block.
    (tmp_path / "t.jsonl").write_bytes(b"".join(LINES[:4]))
    assert len(book().read()) == 4 and len(lines(".texts")) == min(kept, 8)


@pytest.mark.parametrize(("text", "value"), [("all", "all"), ("0", 0), ("12", 12)])
def test_texts_option(text, value):
    parser = argparse.ArgumentParser()
    cli_options.add_evaluate(parser)
    assert parser.parse_args(["policy", "--texts", text]).texts == value
    with pytest.raises(SystemExit):
        parser.parse_args(["policy", f"--texts=-{text}"])


def test_a_k_that_is_too_large_is_found_before_the_work(policy, mesh):
    with pytest.raises(ValueError, match="k = 5.*raise eval.num_samples"):
        evaluate.measure(policy, None, cases()["lists"], k=(5,), mesh=mesh)


def test_tasks_of_the_command_line(tmp_path):
    config_file = tmp_path / "mine.py"
    config_file.write_text(
        "from jaxrl_reason import config\ndef get_config(): return config.base()\n"
    )
    options = argparse.Namespace(
        config=[str(config_file)] * 2, task=["arithmetic", "gsm8k=x.jsonl"]
    )
    found = cli._evaluation_cases(options, ["eval.num_samples=3", "task.eval_path=y.jsonl"])
    assert list(found) == ["arithmetic", "gsm8k", "arithmetic-2", "gsm8k-2"]
    assert found["gsm8k-2"].task.path == "x.jsonl" and found["gsm8k"].eval.num_samples == 3
    assert found["gsm8k-2"].task.eval_path == "" and found["arithmetic"].task.eval_path == "y.jsonl"
    options.task = ["chess"]
    with pytest.raises(cli._UsageError, match="task.name = 'chess'"):
        cli._evaluation_cases(options, [])


# --- ProcessBench ---------------------------------------------------------------------------------


def test_processbench_from_the_command_line(tmp_path, capsys):
    rows = [
        {"id": "a", "problem": "p", "steps": ["1 + 1 = 3", "so"], "label": 0},
        {"id": "b", "problem": "p", "steps": ["1 + 1 = 2", "so 3"], "label": 1},
        {"id": "c", "problem": "p", "steps": ["1 + 1 = 2"], "label": -1},
    ]
    one, other = tmp_path / "one.json", tmp_path / "other.jsonl"
    one.write_text(json.dumps(rows))
    other.write_text("".join(json.dumps(r) + "\n" for r in rows[1:]))
    out = tmp_path / "scores.json"
    arguments = ["processbench", str(one), str(other), "--out", str(out), "--locator"]
    assert cli.main([*arguments, "executable"]) == 0
    captured = capsys.readouterr()
    results = json.loads(captured.out)
    assert results == json.loads(out.read_text())
    assert results["one"]["erroneous"] == results["one"]["missed"] == 0.5
    assert results["one"]["f1"] == pytest.approx(2 / 3) and results["other"]["f1"] == 0.0
    assert results["average"]["f1"] == pytest.approx(1 / 3)
    assert "average" in captured.err
    assert cli.main([*arguments, "oracle"]) == 2
    assert "must be one of executable" in capsys.readouterr().err


def test_processbench_of_a_reward_model(tmp_path, capsys):
    prm = prms.new_prm(policies.load_policy("tiny"), jax.random.key(0), step_end=";", chat=False)
    prms.save_prm(tmp_path / "prm", prm)
    path = tmp_path / "one.json"
    steps = ["3 4", "7"]
    rows = [{"id": str(n), "problem": "1 2 4", "steps": steps, "label": n - 1} for n in range(2)]
    path.write_text(json.dumps(rows))
    arguments = ["processbench", str(path), "--locator", "prm"]
    assert cli.main(arguments) == 2
    assert "--model FOLDER" in capsys.readouterr().err
    # Untrained, it says 0.5 of every step.
    for threshold, match, correct in (("0.5", 0.0, 1.0), ("0.6", 1.0, 0.0)):
        more = ["--model", str(tmp_path / "prm"), "--threshold", threshold]
        assert cli.main([*arguments, *more]) == 0
        found = json.loads(capsys.readouterr().out)["one"]
        assert (found["match"], found["correct"]) == (match, correct)
    assert cli.main([*arguments, "--model", str(tmp_path / "prm"), "--threshold", "1.5"]) == 2
    assert "threshold 1.5: must be in (0, 1]" in capsys.readouterr().err


def test_processbench_of_a_critic(tmp_path, capsys, monkeypatch):
    whole = policies.load_policy("tiny", tokenizer=tokenizers.byte_tokenizer())
    policies.save_policy(tmp_path / "policy", whole)
    path = tmp_path / "one.json"
    rows = [{"id": str(n), "problem": "1 2", "steps": ["1", "3"], "label": n - 1} for n in (0, 2)]
    path.write_text(json.dumps(rows))
    arguments = ["processbench", str(path), "--locator", "critic"]
    assert cli.main(arguments) == 2
    assert "'critic': needs a language model; give --model FOLDER" in capsys.readouterr().err
    arguments += ["--model", str(tmp_path / "policy"), "--prompt_tokens", "900", "--new_tokens"]
    assert cli.main([*arguments, "0"]) == 2
    assert "locate.critic_new_tokens = 0" in capsys.readouterr().err
    monkeypatch.setattr(tokenizers, "decode_completion", lambda tokenizer, ids: r"\boxed{1}")
    assert cli.main([*arguments, "2", "--samples", "2"]) == 0
    found = json.loads(capsys.readouterr().out)["one"]
    assert (found["match"], found["correct"]) == (1.0, 0.0)


def test_processbench_takes_any_locator(tmp_path):
    path = tmp_path / "one.json"
    path.write_text(json.dumps([{"id": "a", "problem": "p", "steps": ["x", "y"], "label": 1}]))

    def last(problems, solutions):
        assert problems[0].prompt == "p"
        return [len(s) - 1 for s in solutions]

    assert processbench.measure([path], last)["one"]["match"] == 1.0
    found = processbench.measure([path], lambda problems, solutions: [-2])["one"]
    assert (found["missed"], found["unknown"]) == (1.0, 1.0)
    with pytest.raises(ValueError, match="second file called one"):
        processbench.measure([path, path], last)
