"""Templates that take time or memory without end are stopped outside of this process; all others are as they were."""

from __future__ import annotations

import resource

import jinja2
import pytest

from jaxrl_reason.models import chat_template
from tests.models import chat

ASKED = [{"role": "user", "content": "1 + 1?"}]


@pytest.fixture(scope="module")
def tokenizer():
    return chat.make_tokenizer(["1 + 1? What is it?"], 300)


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "2 s"),
        ("{% set ns = namespace(x='aa') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}", "memory"),
        ("{{ 'a' * 2000000000 }}", "memory"),
        ("{{ 'a'.ljust(10 ** 10) }}", "memory"),
        # Computed when it is compiled, though it is never written.
        ("{% if messages | length > 9 %}{{ 'a' * 2000000000 }}{% endif %}", "memory"),
        ("{% if messages | length > 9 %}{{ 'a' | center(2000000000) }}{% endif %}", "memory"),
        ("{{ '%02000000000d' % 1 }}", "memory"),
        ("{{ (messages | list) * 200000000 }}", "memory"),
        ("{{ 'a' * 3000000 }}", "writes 3000000 characters"),
        ("{% for i in range(90000) %}{{ messages[0].content * 10 }}{% endfor %}", "characters"),
        ("{% macro f(n) %}{{ f(n) }}{% endmacro %}{{ f(1) }}", "RecursionError"),
    ],
)  # fmt: skip
def test_bombs_are_one_clear_error(tokenizer, template, said):
    tokenizer.chat_template = template
    before = resource.getrusage(resource.RUSAGE_SELF)
    with pytest.raises(ValueError, match=f"chat template: .*{said}"):
        chat_template.render(tokenizer, ASKED, add_generation_prompt=True)
    after = resource.getrusage(resource.RUSAGE_SELF)
    assert after.ru_utime - before.ru_utime < 2
    assert after.ru_maxrss - before.ru_maxrss < 200 << 10  # KiB


@pytest.mark.parametrize("bomb_role", ["system", "tool"])
def test_a_bomb_may_wait_for_a_conversation(tokenizer, bomb_role):
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.content }}{% if m.role == '" + bomb_role + "' %}"
        "{{ m.content * 2000000000 }}{% endif %}{% endfor %}"
    )
    assert chat_template.render(tokenizer, ASKED) == "1 + 1?"
    with pytest.raises(ValueError, match="memory"):
        chat_template.render(tokenizer, [{"role": bomb_role, "content": "a"}, *ASKED])


def test_what_a_template_refuses_is_said_by_itself(tokenizer):
    tokenizer.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(jinja2.TemplateError, match="roles must alternate"):
        chat_template.render(tokenizer, ASKED)


@pytest.mark.parametrize(
    "template",
    [
        chat.TEMPLATE,
        chat.BOS_TEMPLATE,
        "{% generation %}{{ messages[0].content }}{% endgeneration %}{{ strftime_now('%Y') }}",
        "{% for m in messages %}{{ m | tojson(indent=2) }}{% break %}{% endfor %}{{ tools is none }}",
    ],
)
def test_honest_templates_are_those_of_transformers(tokenizer, template, monkeypatch):
    tokenizer.chat_template, tokenizer.bos_token = template, "<|endoftext|>"
    for thinking in (True, False):
        options = {"add_generation_prompt": True, "enable_thinking": thinking}
        made = chat_template.render(tokenizer, ASKED, **options)
        assert made == tokenizer.apply_chat_template(ASKED, tokenize=False, **options)
    # A shape is tried once; afterwards no process is started.
    monkeypatch.setattr(chat_template.subprocess, "run", None)
    other = [{"role": "user", "content": "another question"}]
    assert chat_template.render(tokenizer, other, **options)
