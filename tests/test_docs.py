"""Every example in a docstring of the package runs and prints what it says."""

from __future__ import annotations

import ast
import doctest
import importlib
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl_reason

PACKAGE = pathlib.Path(jaxrl_reason.__file__).parent
_FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


def examples() -> list[tuple[str, str, str, int]]:
    """(module, object, docstring, line) of every docstring with an example.

    Read from the source, not from live objects: a decorator such as jax.jit or the type checker of
    this test run would hide some of them from doctest's own search.
    """
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                text = ast.get_docstring(node)
                if text and ">>>" in text:
                    name = getattr(node, "name", "module")
                    found.append((module, name, text, getattr(node, "lineno", 1)))
    return found


def set_apart(text: str) -> str:
    """A blank line where an example ends by indentation alone, as before `Source:` in our docstrings."""
    lines, prompt = [], None
    for line in text.splitlines():
        indent = len(line) - len(line.lstrip())
        if line.lstrip().startswith(">>>"):
            prompt = indent
        elif not line.strip():
            prompt = None
        elif prompt is not None and indent < prompt:
            lines.append("")
            prompt = None
        lines.append(line)
    return "\n".join(lines)


EXAMPLES = examples()


@pytest.mark.parametrize(
    ("module", "name", "text", "line"), EXAMPLES, ids=[f"{e[0]}.{e[1]}" for e in EXAMPLES]
)
def test_example(module: str, name: str, text: str, line: int):
    names = vars(importlib.import_module(module)) | {"jax": jax, "jnp": jnp, "np": np}
    test = doctest.DocTestParser().get_doctest(
        set_apart(text), names, f"{module}.{name}", module, line
    )
    assert test.examples
    said: list[str] = []
    doctest.DocTestRunner(optionflags=_FLAGS).run(test, out=said.append)
    assert not said, "".join(said)


def test_a_wrong_example_would_fail():
    with pytest.raises(AssertionError, match="Expected:"):
        test_example("jaxrl_reason.config", "wrong", "  >>> 1 + 1\n  3\nSource: none", 1)
    test_example("jaxrl_reason.config", "right", "  >>> 1 + 1\n  2\nSource: none", 1)


def test_modules_of_formulas_have_examples():
    documented = {module for module, *_ in EXAMPLES}
    for folder in ("ops", "algos", "credit"):
        for path in (PACKAGE / folder).glob("[!_]*.py"):
            assert f"jaxrl_reason.{folder}.{path.stem}" in documented, path
