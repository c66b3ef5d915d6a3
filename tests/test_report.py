"""The report page: what it shows, how runs are grouped, and that model text cannot act on it."""

import base64
import hashlib
import html.parser
import importlib.resources
import json
import math
import re

import pytest

from jaxrl_reason import config, report
from jaxrl_reason.methods import iop_cases

HOSTILE = [
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<!--<script>",
    "{{data}} {{scripts}}",
    "\u2028\u2029",
    "&lt;/script&gt;",
]


def side(tokens, advantage=0.0, **fields):
    count = len(tokens)
    base = {
        "gate": [1] * count,
        "edit": [-1] * count,
        "step": [0] * count,
        "logprob": [-0.5] * count,
    }
    return {"tokens": tokens, "advantage": [advantage] * count} | base | fields


def pair(update, **fields):
    record = {
        "update": update,
        "method": "iop",
        "kind": "pair",
        "problem": "1 2",
        "gold": "3",
        "separator": ";",
        "failed": side(["4", ";", "=", "4"], -1.0),
        "repaired": side(["3", ";", "=", "3"], 1.0),
        "anchor": "3 ; = 3",
        "audit": {"accepted": True, "reason": "replayed"},
        "reward_failed": 0.0,
        "reward_repaired": 1.0,
        "oracle_first_error": 0,
        "gate_first_step": 0,
    }
    return record | fields


def make_run(folder, rows, *, overrides=(), records=()):
    """A run folder as the training loop leaves it."""
    (folder / "rollouts").mkdir(parents=True)
    resolved = config.override(config.base(), [*overrides, f"run_dir={folder}"])
    (folder / "config.json").write_text(config.to_json(resolved))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for record in records:
        with (folder / "rollouts" / f"update_{record['update']}.jsonl").open("a") as file:
            file.write(json.dumps(record) + "\n")
    return folder


def rows_to(last, final, *, tokens=100):
    """Updates 0..last, evaluated at both ends; accuracy goes from 0.25 to `final`."""
    rows = [{"update": 0, "eval/arithmetic/avg@1": 0.25, "eval/arithmetic/greedy": 0.5}]
    for update in range(1, last + 1):
        cost = {"perf/generated_tokens": tokens * update, "perf/seconds": 2.0 * update}
        rows.append({"update": update, "reward/mean": update / last} | cost)
    rows[-1] |= {"eval/arithmetic/avg@1": final, "eval/arithmetic/greedy": 1.0}
    return rows


class Page(html.parser.HTMLParser):
    """Elements with their attributes, and the text inside each script and style element."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.content = [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self.content.append([tag, dict(attrs), ""])

    def handle_data(self, data):
        if self.cdata_elem:
            self.content[-1][2] += data

    @property
    def data(self):
        (text,) = [text for _, attrs, text in self.content if attrs.get("id") == "data"]
        return json.loads(text)


@pytest.fixture
def runs(tmp_path):
    """Two arms: iop with two seeds, gspo with one."""
    make_run(tmp_path / "a0", rows_to(4, 0.75), records=[pair(2), pair(4)])
    make_run(tmp_path / "a1", rows_to(4, 1.0, tokens=300), overrides=["seed=1"])
    make_run(tmp_path / "b0", rows_to(2, 0.5), overrides=["method.name=gspo"])
    return [tmp_path / name for name in ("a0", "a1", "b0")]


def test_page_holds_arms_curves_and_records(runs):
    out = report.write_report(runs)
    assert out == runs[0].parent / "report.html"
    data = Page(out.read_text("utf-8")).data
    assert [(arm["label"], arm["runs"]) for arm in data["arms"]] == [("iop", [0, 1]), ("gspo", [2])]
    assert data["arms"][0]["luck"] == 0.1  # modulo 10
    assert [(run["name"], run["arm"], run["seed"]) for run in data["runs"]] == [
        ("a0", 0, 0),
        ("a1", 0, 1),
        ("b0", 1, 0),
    ]
    first = data["runs"][0]
    assert first["updates"] == [0, 1, 2, 3, 4]
    assert first["tokens"] == [0, 100, 200, 300, 400]
    assert first["seconds"] == [0, 2, 4, 6, 8]
    assert first["trained"] == []  # never counted
    assert first["curves"]["eval/arithmetic/avg@1"] == [0.25, None, None, None, 0.75]
    assert first["curves"]["reward/mean"] == [None, 0.25, 0.5, 0.75, 1.0]
    assert not any(name.startswith("perf/generated") for name in first["curves"])
    assert [record["update"] for record in first["records"]] == [2, 4]
    assert first["records"][0]["failed"]["tokens"] == ["4", ";", "=", "4"]
    assert first["records"][0]["repaired"]["advantage"] == [1.0] * 4


def test_summary_over_seeds(runs):
    arms = Page(report.write_report(runs).read_text("utf-8")).data["arms"]
    accuracy = arms[0]["summary"]["eval"]["eval/arithmetic/avg@1"]
    # 0.75 and 1.0: mean 0.875, sample variance 2 * 0.125^2 / 1 = 0.03125.
    assert accuracy["last"] == [0.875, pytest.approx(math.sqrt(0.03125), abs=1e-6), 2]
    assert accuracy["first"] == [0.25, 0.0, 2]
    # 400 and 1200 tokens: mean 800, sample variance 2 * 400^2.
    assert arms[0]["summary"]["tokens"] == [800, pytest.approx(math.sqrt(320_000), rel=1e-5), 2]
    assert arms[1]["summary"]["updates"] == [2, None, 1]
    assert arms[1]["summary"]["trained"] is None


@pytest.mark.parametrize(
    ("evaluated", "first", "last"),
    [
        ({0: 0.25}, 0.25, None),
        ({0: 0.25, 4: 0.5}, 0.25, 0.5),
        ({0: 0.25, 2: 0.75, 3: 0.5}, 0.25, 0.5),
        ({4: 0.5}, None, 0.5),
        ({2: 0.25, 4: 0.5}, 0.25, 0.5),
    ],
)
def test_a_run_that_was_evaluated_once_has_one_end(tmp_path, evaluated, first, last):
    rows = [{"update": u, "reward/mean": 0.5} for u in range(5)]
    for update, value in evaluated.items():
        rows[update]["eval/arithmetic/avg@1"] = value
    (arm,) = report.collect([make_run(tmp_path / "run", rows)])["arms"]
    found = arm["summary"]["eval"]["eval/arithmetic/avg@1"]
    assert found == {"first": first and [first, None, 1], "last": last and [last, None, 1]}


def test_an_arm_averages_the_runs_that_have_an_end(tmp_path):
    done = make_run(tmp_path / "a", rows_to(4, 0.75))
    begun = make_run(tmp_path / "b", rows_to(4, 0.5)[:3], overrides=["seed=1"])
    (arm,) = report.collect([done, begun])["arms"]
    found = arm["summary"]["eval"]["eval/arithmetic/avg@1"]
    assert found == {"first": [0.25, 0.0, 2], "last": [0.75, None, 1]}


def flat(**changes):
    return {"seed": 0, "run_dir": "r", "method.name": "iop", "iop.audit": "replay"} | {
        name.replace("__", "."): value for name, value in changes.items()
    }


def labels(*configs):
    return [(arm["label"], arm["runs"]) for arm in report.group_arms(configs)]


def test_seed_and_run_dir_do_not_split_an_arm():
    assert labels(flat(), flat(seed=1, run_dir="s"), flat(seed=0)) == [("iop", [0, 1, 2])]


def test_settings_of_iop_do_not_split_other_methods():
    gspo = flat(method__name="gspo")
    assert labels(gspo, flat(method__name="gspo", iop__audit="none")) == [("gspo", [0, 1])]


def test_labels_name_only_what_sets_arms_of_one_method_apart():
    arms = [
        flat(),
        flat(iop__audit="none"),
        flat(method__name="gspo", loss__ratio="sequence"),
        flat(method__name="grpo", loss__ratio="token"),
    ]
    assert [label for label, _ in labels(*arms)] == [
        "iop, audit=replay",
        "iop, audit=none",
        "gspo",
        "grpo",
    ]
    settings = [arm["settings"] for arm in report.group_arms(arms)]
    assert settings[2] == {"method.name": "gspo", "loss.ratio": "sequence"}
    assert settings[1] == {"method.name": "iop", "iop.audit": "none"}


def test_fields_with_one_last_name_are_told_apart():
    one = flat(optim__eps=1e-8, advantage__eps=1e-6)
    two = flat(optim__eps=1e-7, advantage__eps=0.1 + 0.2)
    assert [label for label, _ in labels(one, two)] == [
        "iop, optim.eps=1e-08, advantage.eps=1e-06",
        "iop, optim.eps=1e-07, advantage.eps=0.3",
    ]


# --- hostile text


@pytest.fixture
def hostile_page(tmp_path):
    text = " ".join(HOSTILE)
    record = pair(
        1,
        problem=text,
        gold=text,
        anchor=text,
        failed=side(HOSTILE, -1.0),
        repaired=side(HOSTILE, 1.0),
        audit={"accepted": False, "reason": text},
    )
    rows = [{"update": 1, f"reward/{HOSTILE[0]}": 0.5}]
    overrides = [f"task.path={text}"]
    run = make_run(tmp_path / "run", rows, overrides=overrides, records=[record])
    other = make_run(tmp_path / "other", rows)
    return report.write_report([run, other]).read_text("utf-8")


def test_hostile_text_reaches_the_page_only_as_data(hostile_page):
    page = Page(hostile_page)
    clean = Page(report.render({"arms": [], "runs": []}))
    assert page.elements == clean.elements  # the same elements and attributes, none from the text
    record = page.data["runs"][0]["records"][0]
    assert record["failed"]["tokens"] == HOSTILE  # and nothing of it is lost
    assert record["problem"] == record["audit"]["reason"] == " ".join(HOSTILE)
    assert HOSTILE[0] in page.data["arms"][0]["label"]


def test_data_is_plain_ascii_without_markup(hostile_page):
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', hostile_page)
    assert data.isascii()
    assert not set(data) & set("<>&")


def test_scripts_never_parse_text_as_markup_or_code(hostile_page):
    code = "".join(text for tag, attrs, text in Page(hostile_page).content if not attrs)
    assert "textContent" in code
    for name in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "srcdoc"):
        assert name not in code
    assert not re.search(r"\beval\(|new Function|setTimeout\(", code)


def test_policy_allows_exactly_the_scripts_of_the_page(hostile_page):
    page = Page(hostile_page)
    (policy,) = [
        attrs["content"]
        for tag, attrs in page.elements
        if attrs.get("http-equiv") == "Content-Security-Policy"
    ]
    directives = {part.split()[0]: part.split()[1:] for part in policy.split(";")}
    assert directives["default-src"] == ["'none'"]
    for tag, directive in (("script", "script-src"), ("style", "style-src")):
        hashes = [
            "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"
            for name, attrs, text in page.content
            if name == tag and attrs.get("id") != "data"
        ]
        assert directives[directive] == hashes
        assert hashes


def test_page_loads_nothing(runs):
    text = report.write_report(runs).read_text("utf-8")
    page = Page(text)
    assert not {tag for tag, _ in page.elements} & {"link", "img", "iframe", "object", "embed"}
    loading = ("src", "href", "srcset", "action", "poster", "background")
    assert not [attrs for _, attrs in page.elements if set(attrs) & set(loading)]
    assert not any(name.startswith("on") for _, attrs in page.elements for name in attrs)
    addresses = set(re.findall(r"https?://[^\s\"'`)]+", text))
    assert addresses == {"http://www.w3.org/2000/svg"}  # a namespace name, never fetched
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|import\(|WebSocket|Worker\(", text)
    assert "{{" not in text  # every mark was replaced


# --- what is left out


def test_records_are_capped_evenly(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "MAX_RECORDS", 6)
    records = [pair(update, problem=f"{update}-{n}") for update in (1, 2, 10) for n in range(5)]
    run = make_run(tmp_path / "run", rows_to(10, 1.0), records=records)
    (shown,) = report.collect([run])["runs"]
    assert shown["records_logged"] == 15
    # Two of each update, in the order of updates (10 after 2, not after 1).
    problems = [record["problem"] for record in shown["records"]]
    assert problems == ["1-0", "1-1", "2-0", "2-1", "10-0", "10-1"]


def test_more_updates_than_records(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "MAX_RECORDS", 3)
    run = make_run(tmp_path / "run", rows_to(9, 1.0), records=[pair(u) for u in range(1, 10)])
    (shown,) = report.collect([run])["runs"]
    assert [record["update"] for record in shown["records"]] == [1, 5, 9]


def test_long_records_are_capped_by_tokens(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "MAX_TOKENS", 20)  # 8 tokens a record: the third passes 20
    run = make_run(tmp_path / "run", rows_to(9, 1.0), records=[pair(u) for u in range(1, 10)])
    assert len(report.collect([run])["runs"][0]["records"]) == 3


def test_long_runs_are_thinned_and_keep_evaluations(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "MAX_POINTS", 3)
    rows = [{"update": u, "x": float(u), "perf/generated_tokens": 10 * u} for u in range(1, 10)]
    rows[3]["eval/arithmetic/avg@1"] = 0.5  # update 4
    run = report.collect([make_run(tmp_path / "run", rows)])["runs"][0]
    # Buckets of three updates, 1-3 4-6 7-9, and the evaluation after update 4 cuts the second.
    assert run["updates"] == [3, 4, 6, 9]
    assert run["curves"]["x"] == [2.0, 4.0, 5.5, 8.0]
    assert run["curves"]["eval/arithmetic/avg@1"] == [None, 0.5, None, None]
    assert run["tokens"] == [30, 40, 60, 90]


def test_unknown_fields_and_odd_metrics_are_ignored(tmp_path):
    record = pair(1, extra=[1], failed=side(["a"], -1.23456, novel=[1]))
    rows = [{"update": 1, "note": "text", "policy/kl": None, "reward/mean": 1 / 3}]
    run = report.collect([make_run(tmp_path / "run", rows, records=[record])])["runs"][0]
    assert run["curves"] == {"policy/kl": [None], "reward/mean": [0.333333]}
    assert "extra" not in run["records"][0]
    assert "novel" not in run["records"][0]["failed"]
    assert run["records"][0]["failed"]["advantage"] == [-1.2346]


def test_completion_records_need_no_repair(tmp_path):
    record = {"update": 1, "method": "gspo", "kind": "completion", "problem": "p", "gold": "g"}
    record |= {"separator": "\n", "failed": side(["a", "\n"], 0.7), "reward_failed": 1.0}
    run = make_run(tmp_path / "run", rows_to(1, 0.5), records=[record])
    (shown,) = report.collect([run])["runs"][0]["records"]
    assert shown["kind"] == "completion"
    assert shown["repaired"] is shown["audit"] is shown["anchor"] is None
    assert shown["failed"]["advantage"] == [0.7, 0.7]


@pytest.mark.parametrize(
    ("fields", "status", "accepted"),
    [
        ({"status": "unrepaired", "reason": "wrong", "audit": None}, "unrepaired", None),
        ({"status": "undecided", "audit": {"accepted": None, "reason": "late"}}, "undecided", None),
        ({"status": "no_anchor", "audit": None, "repaired": None}, "no_anchor", None),
        # Of an earlier version.
        ({}, "accepted", True),
        ({"audit": {"accepted": False, "reason": "copied"}}, "rejected", False),
    ],
)
def test_status_of_records(tmp_path, fields, status, accepted):
    run = make_run(tmp_path / "run", rows_to(1, 0.5), records=[pair(1, **fields)])
    (shown,) = report.collect([run])["runs"][0]["records"]
    assert shown["status"] == status and shown["reason"] == fields.get("reason")
    assert (shown["audit"] or {}).get("accepted") is accepted


def test_every_status_has_words_in_the_viewer():
    script = (importlib.resources.files("jaxrl_reason") / "report_viewer.js").read_text("utf-8")
    block = script[script.index("const STATUSES = {") : script.index("const FILTERS")]
    assert tuple(re.findall(r"^    (\w+): \[", block, re.MULTILINE)) == iop_cases.STATUSES


def test_half_written_files_of_a_running_run(tmp_path):
    run = make_run(tmp_path / "run", rows_to(2, 0.5), records=[pair(1)])
    for path in (run / "metrics.jsonl", run / "rollouts" / "update_1.jsonl"):
        with path.open("a") as file:
            file.write('{"update": 3, "rew')
    (shown,) = report.collect([run])["runs"]
    assert shown["updates"] == [0, 1, 2]
    assert len(shown["records"]) == 1


def test_stage_times_stand_in_for_seconds(tmp_path):
    rows = [{"update": u, "time/generate": 1.5, "time/update": 0.5, "time/x": 9} for u in (1, 2)]
    assert report.collect([make_run(tmp_path / "run", rows)])["runs"][0]["seconds"] == [2, 4]


# --- errors


@pytest.mark.parametrize("name", ["metrics.jsonl", "config.json"])
def test_a_folder_that_is_not_a_run(tmp_path, runs, name):
    (runs[1] / name).unlink()
    missing = tmp_path / "nowhere"
    with pytest.raises(ValueError) as error:
        report.write_report([runs[0], runs[1], missing])
    lines = str(error.value).splitlines()
    assert lines[1:] == [
        f"  {runs[1]}: no {name}, so this is not a run folder; name a run_dir",
        f"  {missing}: no such folder; name the run_dir of a training run",
    ]
    assert not (tmp_path / "report.html").exists()


def test_a_folder_of_runs_is_told_what_it_holds(runs):
    with pytest.raises(ValueError, match=r"not a run folder; name the runs in it: a0, a1, b0"):
        report.write_report([runs[0].parent])


def test_a_run_without_updates(tmp_path):
    run = make_run(tmp_path / "run", [])
    with pytest.raises(ValueError, match=r"run: metrics\.jsonl is empty; wait"):
        report.write_report([run])


def test_no_folder():
    with pytest.raises(ValueError, match="name at least one"):
        report.write_report([])


def test_a_counter_that_falls_is_named(tmp_path):
    rows = [{"update": u, "perf/generated_tokens": n} for u, n in ((1, 50), (2, 40))]
    with pytest.raises(ValueError, match="perf/generated_tokens falls from 50 to 40 at update 2"):
        report.write_report([make_run(tmp_path / "run", rows)])


@pytest.mark.parametrize("bad", [{"failed": side(["a", "b"], gate=[1])}, {"failed": None}])
def test_a_broken_record_is_named(tmp_path, bad):
    run = make_run(tmp_path / "run", rows_to(1, 1.0), records=[pair(1, **bad), pair(1)])
    with pytest.raises(ValueError, match=r"update_1\.jsonl, line 1: not a rollout record"):
        report.write_report([run])


# --- where it goes


def test_default_and_chosen_places(runs, tmp_path):
    assert report.write_report([runs[0]]) == runs[0] / "report.html"
    chosen = report.write_report([runs[0], runs[0]], tmp_path / "deep" / "page.html")
    assert chosen == tmp_path / "deep" / "page.html"
    assert len(Page(chosen.read_text("utf-8")).data["runs"]) == 1  # one folder named twice


def test_same_input_same_page(runs, tmp_path):
    pages = [report.write_report(runs, tmp_path / f"{i}.html").read_bytes() for i in range(2)]
    assert pages[0] == pages[1]
