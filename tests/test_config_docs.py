"""What --help says about the config: every field, from the comment beside it."""

from __future__ import annotations

import re

import pytest

from jaxrl_reason import config, config_docs, config_names


def test_every_field_has_a_comment_and_every_comment_a_field():
    comments, known = config_docs.field_comments(), config.fields(config.base())
    assert comments.keys() == known.keys()
    assert not [name for name, text in comments.items() if not text]
    assert comments["task.sandbox.max_threads"] == ">= 1; processes: one"
    # Above the field, over several lines, and inside brackets.
    assert comments["method.name"].startswith("iop | gspo | ") and comments["method.name"].endswith(
        "| srl"
    )
    assert comments["model.prompt_format"].startswith("plain | chat")


def test_every_section_has_a_title():
    sections = {name.rpartition(".")[0] for name in config.fields(config.base())} - {""}
    titles = config_docs.section_titles()
    assert titles.keys() == sections and all(titles.values())


@pytest.mark.parametrize("width", [60, 100])
def test_listing_names_value_range_and_meaning_of_every_field(width):
    text = config_docs.listing(width=width)
    for name, value in config.fields(config.base()).items():
        shown = repr(value) if value == "" else str(value)
        assert re.search(rf"^  {re.escape(f'{name} = {shown}')}( |$)", text, re.MULTILINE), name
    lines = text.splitlines()
    assert max(map(len, lines)) <= max(width, 72)
    text = " ".join(text.split())
    assert "loss.clip_low = 0.0003 in [0, 1): ratio >= 1 - clip_low" in text
    # The rules' own words where the comment does not have them.
    assert "left [>= -1]" in text and "[in [2, 16]]" not in text


def test_listing_marks_what_a_config_changes():
    changed = config.override(config.base(), ["optim.schedule=cosine", "task.path=x.jsonl"])
    lines = config_docs.listing(changed).splitlines()
    assert [line.split()[1] for line in lines if line.startswith("*")] == [
        "task.path",
        "optim.schedule",
    ]
    (line,) = [line for line in lines if "optim.schedule" in line]
    assert re.match(r"\* optim\.schedule = cosine +\(default: constant\) constant \| cosine", line)
    assert "(default: '') Problems for gsm8k, math and code" in config_docs.listing(changed)


KNOWN = list(config.fields(config.base()))


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("lr", "optim.learning_rate"),
        ("optim.lr", "optim.learning_rate"),
        ("loss.learning_rate", "optim.learning_rate"),
        ("clip-low", "loss.clip_low"),
        ("temp", "rollout.temperature"),
        ("kl", "loss.kl_coef"),
        ("max_tokens", "rollout.max_new_tokens"),
        ("seed", "seed"),
        ("task.modulos", "task.modulus"),
        ("qqqqqq", None),
    ],
)
def test_nearest_field(name, field):
    assert config_names.nearest_field(name, KNOWN) == field
