"""House rules that a program can check: imports, sizes, side effects, docstrings, config fields."""

from __future__ import annotations

import ast
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator

import pytest

import jaxrl_reason
from jaxrl_reason import config

PACKAGE = pathlib.Path(jaxrl_reason.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

LINES_PER_FILE = 500
LINES_PER_FUNCTION = 60
LINES_OF_TRAIN = 150

# What the modules of each unit (first part of the name below the package) may import of ours.
_GROUND = {"types", "config", "config_rules", "files"}
_TOOLS = {"ops", "sharding", "metrics", "timing", "tasks", "verify", "hub"}
_MIDDLE = {"models", "algos", "credit"}
MAY_IMPORT = {
    "types": set(),
    "config": {"types", "config_rules", "config_methods", "config_phases", "files"},
    "config_rules": {"config_names"},
    "config_names": set(),
    "config_docs": {"config", "config_rules"},
    "config_methods": set(),
    "config_phases": {"config_rules"},
    **{unit: _GROUND | _TOOLS for unit in _TOOLS},
    "models": _GROUND | _TOOLS | {"models", "algos", "credit"},
    # What needs a network is handed in: sample_fn, score_fn, verify_fn.
    "algos": _GROUND | _TOOLS | {"algos", "credit"},
    "credit": _GROUND | _TOOLS | {"algos", "credit"},
    "methods": _GROUND | _TOOLS | {"algos", "credit", "methods"},
    "rollout": _GROUND | _TOOLS | _MIDDLE | {"rollout"},
    "checkpoint": _GROUND | _TOOLS,
    "files": set(),
    "signals": set(),
    "run_changes": _GROUND,
    "run_folder": _GROUND | _TOOLS | {"run_changes"},
    "cli_options": set(),
    "estimates": set(),
    "eval_folder": {"types", "files"},
    "eval_progress": {"estimates", "metrics"},
}
# Above them: may import everything but each other's callers.
# The parts of a run, made from its config, what they hold, and what they write.
PARTS = {"parts", "memory", "companions", "phases", "solutions", "supervised", "demonstrations"}
PROGRAMS = {
    *("train", "sft", "prm_training", "evaluate", "processbench"),
    *("report", "compare", "demo", "plan"),
}
FRONT = {"cli", "__main__"}


def name_of(path: pathlib.Path) -> str:
    """`jaxrl_reason/ops/masked.py` -> `jaxrl_reason.ops.masked`."""
    parts = list(path.relative_to(PACKAGE.parent).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def unit_of(module: str) -> str:
    """`jaxrl_reason.ops.masked` -> `ops`; the package itself -> ``."""
    return module.split(".")[1] if "." in module else ""


MODULES = {name_of(path): path for path in FILES}
TREES = {name: ast.parse(path.read_text()) for name, path in MODULES.items()}


def own_imports(module: str) -> Iterator[tuple[str, int]]:
    """(module of ours, line) of every import, also those inside functions."""
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno}: write the full name of the module"
            # `from jaxrl_reason.ops import masked` imports the module, not a name of the package.
            full = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in MODULES else node.module for name in full]
        else:
            continue
        yield from ((name, node.lineno) for name in names if name.split(".")[0] == "jaxrl_reason")


def functions(module: str) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function and method, nested ones too."""
    for node in ast.walk(TREES[module]):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node


def test_modules_were_found():
    assert {"jaxrl_reason", "jaxrl_reason.types", "jaxrl_reason.config"} <= MODULES.keys()
    assert ("jaxrl_reason.types", 29) not in own_imports("jaxrl_reason.types")
    assert "jaxrl_reason.types" in {name for name, _ in own_imports("jaxrl_reason.checkpoint")}


@pytest.mark.parametrize("module", MODULES)
def test_imports_follow_the_layers(module: str):
    unit = unit_of(module)
    if unit in FRONT | {""}:
        return
    if unit in PARTS:
        allowed = MAY_IMPORT.keys() | PARTS
    elif unit in PROGRAMS:
        # evaluate is called inside the loop; the demo and compare call everything.
        allowed = MAY_IMPORT.keys() | PARTS | {"evaluate"}
        allowed |= PROGRAMS if unit in ("demo", "compare") else set()
    else:
        assert unit in MAY_IMPORT, f"{module}: no layer; see design, or add it to MAY_IMPORT"
        allowed = MAY_IMPORT[unit]
    bad = [
        f"line {line}: {name}" for name, line in own_imports(module) if unit_of(name) not in allowed
    ]
    assert not bad, f"{module} may not import {bad}"


def test_algos_credit_and_methods_never_reach_a_network():
    # Through others as well: what they import may not bring in a model.
    def reached(module: str, seen: set[str]) -> set[str]:
        for name, _ in own_imports(module):
            if name not in seen:
                seen.add(name)
                reached(name, seen)
        return seen

    for module in MODULES:
        if unit_of(module) in {"algos", "credit", "methods"}:
            networks = {m for m in reached(module, set()) if unit_of(m) in {"models", "rollout"}}
            assert not networks, f"{module} reaches {networks}"


def test_only_models_and_their_sampler_know_flax():
    for module, tree in TREES.items():
        found = {
            (node.module if isinstance(node, ast.ImportFrom) else node.names[0].name) or ""
            for node in ast.walk(tree)
            if isinstance(node, (ast.Import, ast.ImportFrom))
        }
        if any(name.split(".")[0] == "flax" for name in found):
            assert unit_of(module) == "models", f"{module}: flax belongs into models/"


def test_there_is_no_drawer_for_everything():
    names = {"utils", "util", "helpers", "common", "misc"}
    assert not [m for m in MODULES if m.rpartition(".")[2] in names]


@pytest.mark.parametrize("module", MODULES)
def test_sizes(module: str):
    lines = MODULES[module].read_text().count("\n")
    assert lines <= LINES_PER_FILE, f"{module}: {lines} lines, at most {LINES_PER_FILE}"
    for node in functions(module):
        document = ast.get_docstring(node, clean=False)
        documented = document.count("\n") + 1 if document else 0
        size = node.end_lineno - node.lineno + 1 - documented
        is_train = module == "jaxrl_reason.train" and node.name == "train"
        limit = LINES_OF_TRAIN if is_train else LINES_PER_FUNCTION
        assert size <= limit, f"{module}.{node.name}: {size} lines of code, at most {limit}"


@pytest.mark.parametrize("module", MODULES)
def test_public_functions_and_classes_have_docstrings(module: str):
    if not TREES[module].body:
        return
    assert ast.get_docstring(TREES[module]), f"{module} does not say what it is for"
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    public = [
        node
        for node in TREES[module].body
        if isinstance(node, kinds) and not node.name.startswith("_")
    ]
    missing = [node.name for node in public if ast.get_docstring(node) is None]
    assert not missing, f"{module}: no docstring: {missing}"


@pytest.mark.parametrize("module", MODULES)
def test_modules_say_where_they_run(module: str):
    if MODULES[module].name == "__init__.py" and module != "jaxrl_reason":
        return
    text = " ".join((ast.get_docstring(TREES[module]) or "").split())
    sides = ("Host side", "Device side", "Host and device")
    assert any(side in text for side in sides), f"{module}: say 'Host side.' or 'Device side.'"
    assert "reads" in text.lower() and "writes" in text.lower(), (
        f"{module}: say what it reads and writes"
    )


IMPORT_ALL = """
import builtins, importlib, json, sys
said = []
builtins.print = lambda *a, **k: said.append(a)
import jaxrl_reason
light = sorted(m for m in ("jax", "flax", "orbax.checkpoint", "transformers") if m in sys.modules)
signals = {}
import signal
before = signal.getsignal(signal.SIGTERM)
problems = []
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except Exception as error:
        problems.append(f"{name}: {type(error).__name__}: {error}")
from jax._src import xla_bridge
sys.stdout.write(json.dumps({
    "light": light, "said": [str(s) for s in said], "backends": sorted(xla_bridge._backends),
    "signal": signal.getsignal(signal.SIGTERM) is before, "problems": problems,
}))
"""


def test_importing_everything_prints_nothing_and_touches_no_device(tmp_path: pathlib.Path):
    modules = [m for m in MODULES if m != "jaxrl_reason.__main__"]
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, *modules],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"TRANSFORMERS_NO_ADVISORY_WARNINGS": "1"},  # not our voice
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert not found["problems"], "\n".join(found["problems"])
    assert found["light"] == [], "import jaxrl_reason alone must load none of them"
    assert found["said"] == []
    assert found["backends"] == [], "an import used a device"
    assert found["signal"]
    assert done.stderr == ""
    assert list(tmp_path.iterdir()) == [], "an import wrote a file"


def test_every_config_field_is_read_somewhere():
    """A field counts as read where its last name is taken as an attribute outside config.py.

    Sections are told apart where the code shows them: `config.loss.ratio` reads `loss.ratio` alone;
    `loss_config.ratio`, whose section a program cannot see, reads every `ratio` there is.
    """
    sections = {name.partition(".")[0] for name in config.fields(config.base()) if "." in name}
    read = set()
    for module, tree in TREES.items():
        if module == "jaxrl_reason.config":
            continue
        for node in ast.walk(tree):
            if not isinstance(node, ast.Attribute) or not isinstance(node.ctx, ast.Load):
                continue
            owner = node.value
            seen = owner.attr if isinstance(owner, ast.Attribute) else None
            read.add((seen if seen in sections else None, node.attr))
    unread = []
    for name in config.fields(config.base()):
        section, _, field = name.rpartition(".")
        if (section or None, field) not in read and (None, field) not in read:
            unread.append(name)
    assert not unread, f"no module reads these fields of the config: {', '.join(unread)}"


@pytest.mark.parametrize("name", jaxrl_reason.__all__)
def test_every_public_name_is_there(name: str):
    assert callable(getattr(jaxrl_reason, name))
    assert name in dir(jaxrl_reason)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'trian'.*train"):
        _ = jaxrl_reason.trian


@pytest.mark.parametrize("first", ["module", "package"])
def test_train_is_callable_whatever_was_imported_first(first: str):
    orders = {
        "module": "from jaxrl_reason.train import train as function; import jaxrl_reason as jr",
        "package": "import jaxrl_reason as jr; jr.train; from jaxrl_reason.train import train as function",
    }
    code = f"""
import inspect
{orders[first]}
from jaxrl_reason import train as module
assert module.train is function
assert callable(jr.train)
assert inspect.signature(jr.train) == inspect.signature(function)
try:
    jr.train()
except TypeError as error:
    assert "config" in str(error), error
else:
    raise AssertionError
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
