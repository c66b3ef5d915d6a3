"""Settings of every test: eight CPU devices, strict ranks, and skips for what is not here."""

from __future__ import annotations

import atexit
import os
import pathlib
import shutil
import signal
import tempfile
from collections.abc import Iterator

# Processes that tests start run this checkout, from whatever folder.
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(pathlib.Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
)
# Before jax is imported: the suite means the CPU, also on a machine that has more. The variable
# wins, so that `JAX_PLATFORMS=cuda,cpu pytest -m gpu` reaches the other devices.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Most programs here run once or twice, and compiling them is most of the time there is; programs
# that tests start follow.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

import jax
import pytest

NUM_DEVICES = 8

jax.config.update("jax_num_cpu_devices", NUM_DEVICES)

# Tests build the same small programs again and again; so do the programs that they start.
_CACHE = tempfile.mkdtemp(prefix="jaxrl_reason_cache_")
atexit.register(shutil.rmtree, _CACHE, ignore_errors=True)
for _name, _value in (
    ("jax_compilation_cache_dir", _CACHE),
    ("jax_persistent_cache_min_compile_time_secs", 0),
    ("jax_persistent_cache_min_entry_size_bytes", -1),
):
    os.environ[_name.upper()] = str(_value)
    jax.config.update(_name, _value)
jax.config.update("jax_numpy_rank_promotion", "raise")


# Started first, so that no core is left alone with one of them at the end.
LONG_FILES = ("test_train.py", "test_checkpoint_runs.py", "test_configs_run.py", "test_families.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first; skip what needs an accelerator that is not here."""
    rank = {name: i for i, name in enumerate(LONG_FILES)}
    items.sort(key=lambda item: rank.get(item.path.name, len(rank)))
    for platform in ("gpu", "tpu"):
        marked = [item for item in items if item.get_closest_marker(platform)]
        if marked and jax.default_backend() != platform:
            for item in marked:
                item.add_marker(pytest.mark.skip(reason=f"needs a {platform.upper()}"))


@pytest.fixture
def key() -> jax.Array:
    """A fixed random key."""
    return jax.random.key(0)


@pytest.fixture
def heard_signals() -> Iterator[None]:
    """Signals reach the programs that a test starts, also where `nohup` or `&` of a script started the suite."""
    hangup = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    interrupt = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGHUP, hangup)
    signal.signal(signal.SIGINT, interrupt)
