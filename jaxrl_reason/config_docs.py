"""The fields of the config for a reader: what each is set to, what it may be, and the comment beside its default.

Host side. Reads: the source of `config` and of the modules that it takes sections from. Writes: nothing.
"""

from __future__ import annotations

import ast
import functools
import io
import pathlib
import textwrap
import tokenize
from collections.abc import Iterator
from typing import Any

import ml_collections

from jaxrl_reason import config as config_lib
from jaxrl_reason import config_rules

_NAMES = 42  # columns of names and values, before what is said about them


def field_comments() -> dict[str, str]:
    """{dotted name: its comment, in one line}, in the order of `config.base`.

    Example:
      >>> field_comments()["optim.learning_rate"]
      '> 0, peak'
    """
    return {name: text for name, text, is_section in _read("config", "base") if not is_section}


def section_titles() -> dict[str, str]:
    """{dotted name of a section: what it is about}.

    Example:
      >>> section_titles()["task.sandbox"]
      'Where programs of the policy run, for the task `code`; limits are those of one test.'
    """
    return {name: text for name, text, is_section in _read("config", "base") if is_section}


def listing(config: ml_collections.ConfigDict | None = None, *, width: int = 100) -> str:
    """Every field: its value, what it may be and what it means; `*` where a config has another value than the default.

    Args:
      config: whose values are shown; None: the defaults.
      width: columns of the page.
    Returns:
      Lines, by section.
    """
    default = config_lib.fields(config_lib.base())
    shown = default if config is None else config_lib.fields(config)
    titles, comments = section_titles(), field_comments()
    lines, section = [], None
    for name, comment in comments.items():  # in the order in which they are written down
        value = shown[name]
        if name.rpartition(".")[0] != section:
            section = name.rpartition(".")[0]
            title = f"{section}: {titles[section]}" if section else "the run"
            lines += ["", *textwrap.wrap(title, width)]
        rule = config_rules.allowed(name)
        words = comment if _says(comment, rule) else f"{comment} [{rule}]"
        changed = value != default[name]
        if changed:
            words = f"(default: {_text(default[name])}) {words}"
        lines += _entry(f"{'*' if changed else ' '} {name} = {_text(value)}", words, width)
    return "\n".join(lines)


def _says(comment: str, rule: str) -> bool:
    """Whether a comment names the range, or all the words, that the rules allow."""
    if rule.startswith("one of "):
        return all(word in comment for word in rule.removeprefix("one of ").split(", "))
    return rule in comment or rule.removeprefix("in [").rstrip("]").replace(", ", "..") in comment


def _entry(left: str, words: str, width: int) -> list[str]:
    said = textwrap.wrap(words, max(width - _NAMES, 30)) or [""]
    if len(left) < _NAMES:
        first, said = [f"{left:<{_NAMES}}{said[0]}".rstrip()], said[1:]
    else:
        first = textwrap.wrap(left, width, subsequent_indent="    ", break_on_hyphens=False)
    return first + [" " * _NAMES + line for line in said if line]


def _text(value: Any) -> str:
    return repr(value) if value == "" else str(value)


def _read(module: str, function: str, prefix: str = "") -> Iterator[tuple[str, str, bool]]:
    """(dotted name, comment or title, is a section) of all that a function sets on its `c`."""
    functions, comments, whole_lines = _parse(module)
    for node in functions[function].body:
        target = node.targets[0] if isinstance(node, ast.Assign) else None
        if not isinstance(target, ast.Attribute):
            continue
        name = prefix + target.attr
        if isinstance(node.value, ast.Call):  # _task(), config_methods.iop()
            made = node.value.func
            home = made.value.id if isinstance(made, ast.Attribute) else module
            maker = made.attr if isinstance(made, ast.Attribute) else made.id
            title = ast.get_docstring(_parse(home)[0][maker]) or ""
            yield name, " ".join(title.split()), True
            yield from _read(home, maker, f"{name}.")
            continue
        first = node.lineno
        while first - 1 in whole_lines:
            first -= 1
        found = [comments[i] for i in range(first, node.end_lineno + 1) if i in comments]
        yield name, " ".join(found), False


@functools.cache
def _parse(module: str) -> tuple[dict[str, ast.FunctionDef], dict[int, str], set[int]]:
    """Functions by name, comments by line, and the lines that are nothing but a comment."""
    source = pathlib.Path(config_lib.__file__).with_name(f"{module}.py").read_text("utf-8")
    functions = {n.name: n for n in ast.parse(source).body if isinstance(n, ast.FunctionDef)}
    comments, whole_lines = {}, set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            comments[token.start[0]] = token.string.lstrip("# ")
            if not token.line[: token.start[1]].strip():
                whole_lines.add(token.start[0])
    return functions, comments, whole_lines
