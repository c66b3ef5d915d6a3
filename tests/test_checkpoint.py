"""Checkpoints come back bitwise, survive kills and full disks, and refuse with the reason."""

from __future__ import annotations

import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxrl_reason import checkpoint
from jaxrl_reason.types import TrainState

META = {"update": 3, "generated_tokens": 123_456_789_012, "seconds": 0.1 + 0.2, "note": "é"}


def make_state(seed: int = 0, width: int = 16, impl: str | None = None) -> TrainState:
    """A state with every kind of leaf: float32, bfloat16, ints, bool, scalars, a key, empty optimizer states."""
    keys = jax.random.split(jax.random.key(seed), 3)
    params = {
        "embed": jax.random.normal(keys[0], (8, width)),
        "layers_0": {"q": jax.random.normal(keys[1], (width, 8), jnp.bfloat16)},
        "odd": jnp.array([jnp.nan, -0.0, jnp.inf, 1e-42]),
        "ids": jax.random.randint(keys[2], (8,), -(2**31), 2**31 - 1),
        "flags": jnp.array([True, False, True]),
    }
    learnt = {name: params[name] for name in ("embed", "layers_0")}
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3))
    return TrainState(
        jnp.int32(seed + 3), params, optimizer.init(learnt), jax.random.key(seed + 9, impl=impl)
    )


def assert_same(found: TrainState, wanted: TrainState) -> None:
    """Equal structure, dtype, sharding and bits."""
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    names = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(wanted)]
    for name, a, b in zip(names, jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        assert a.dtype == b.dtype, name
        assert a.sharding.is_equivalent_to(b.sharding, b.ndim), name
        if jnp.issubdtype(b.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        assert a.shape == b.shape, name
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes(), name


def place(state: TrainState, mesh: Mesh, axes: PartitionSpec) -> TrainState:
    """Rows of the large arrays over `axes`, the rest on every device."""

    def sharding(x):
        wide = x.ndim == 2 and x.shape[0] % mesh.size == 0
        return NamedSharding(mesh, axes if wide else PartitionSpec())

    return jax.device_put(state, jax.tree.map(sharding, state))


def abstract(state: TrainState) -> TrainState:
    """Shapes, dtypes and shardings without values."""
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )


def test_restored_state_is_bitwise_the_saved_one(tmp_path: pathlib.Path):
    state = make_state()
    with checkpoint.Checkpoints(tmp_path / "checkpoints", keep=1) as store:
        assert store.latest_step() is None
        assert not (tmp_path / "checkpoints").exists()  # nothing is made before it is needed
        store.save(3, state, META)
        found, meta = store.restore(make_state(seed=5))  # other values, which must not be used
    assert_same(found, state)
    assert meta == META
    assert (tmp_path / "checkpoints" / "3").is_dir()
    # A later process reads it too, from shapes alone.
    with checkpoint.Checkpoints(tmp_path / "checkpoints", keep=1) as store:
        assert store.latest_step() == 3
        assert_same(store.restore(abstract(state))[0], state)


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
def test_a_restored_key_draws_the_same_numbers(tmp_path: pathlib.Path, impl: str):
    state = make_state(impl=impl)
    with checkpoint.Checkpoints(tmp_path, keep=1) as store:
        store.save(1, state, {})
        found, _ = store.restore(make_state(seed=1, impl=impl))
    assert jax.random.key_impl(found.key) == jax.random.key_impl(state.key)
    assert (jax.random.bits(found.key, (4,)) == jax.random.bits(state.key, (4,))).all()


def test_saved_on_one_mesh_restored_on_another(tmp_path: pathlib.Path):
    devices = np.array(jax.devices())
    assert devices.size == 8
    eight = place(make_state(), Mesh(devices, ("fsdp",)), PartitionSpec("fsdp"))
    two_by_four = place(
        make_state(seed=1),
        Mesh(devices.reshape(2, 4), ("data", "fsdp")),
        PartitionSpec(("fsdp", "data")),
    )
    one = make_state(seed=2)
    with checkpoint.Checkpoints(tmp_path, keep=1) as store:
        store.save(1, eight, {})
        assert_same(store.restore(abstract(eight))[0], eight)
        for like in (two_by_four, one):
            found, _ = store.restore(like)
            shardings = jax.tree.map(lambda x: x.sharding, like)
            assert_same(found, jax.device_put(make_state(), shardings))


def test_only_the_newest_are_kept_and_any_of_them_can_be_read(tmp_path: pathlib.Path):
    with checkpoint.Checkpoints(tmp_path, keep=2) as store:
        for step in (1, 2, 4, 7):
            store.save(step, make_state(seed=step), {"update": step})
        assert store.latest_step() == 7
        assert sorted(int(p.name) for p in tmp_path.iterdir()) == [4, 7]
        found, meta = store.restore(make_state(), step=4)
        assert_same(found, make_state(seed=4))
        assert meta == {"update": 4}
        with pytest.raises(checkpoint.CheckpointError, match=r"2: no such checkpoint.*: 4, 7"):
            store.restore(make_state(), step=2)
        # Saved again, as when a stop signal comes right after a regular save: left as it is.
        store.save(7, make_state(seed=7), {"update": 7})
        assert store.latest_step() == 7


def test_a_state_may_be_donated_as_soon_as_save_returns(tmp_path: pathlib.Path):
    state = make_state(width=200_000)  # long enough to be in writing when it is overwritten
    wanted = jax.tree.map(jnp.copy, state)
    overwrite = jax.jit(
        lambda params: jax.tree.map(lambda x: (x != x).astype(x.dtype), params), donate_argnums=0
    )
    jax.block_until_ready(overwrite(jax.tree.map(jnp.copy, state.params)))
    with checkpoint.Checkpoints(tmp_path, keep=1) as store:
        store.save(1, state, {})
        kept = jax.block_until_ready(overwrite(state.params))
        # On a CPU the writer holds the buffer itself, and jax leaves a buffer that is held alone.
        assert (kept["embed"] == 0).all()
        assert_same(store.restore(wanted)[0], wanted)


def test_a_reader_creates_and_deletes_nothing(tmp_path: pathlib.Path):
    with checkpoint.Checkpoints(tmp_path / "none", keep=None) as store:
        assert store.latest_step() is None
        with pytest.raises(checkpoint.CheckpointError, match="no complete checkpoint"):
            store.restore(make_state())
    assert not (tmp_path / "none").exists()
    with checkpoint.Checkpoints(tmp_path, keep=1) as store:
        store.save(1, make_state(), META)
    unfinished = tmp_path / "2.orbax-checkpoint-tmp"  # of a writer that may be alive
    unfinished.mkdir()
    with checkpoint.Checkpoints(tmp_path, keep=None) as store:
        assert store.restore(make_state())[1] == META
    assert unfinished.exists()


def test_nothing_to_keep_and_nothing_to_restore_stop(tmp_path: pathlib.Path):
    with pytest.raises(ValueError, match="keep = 0: must be >= 1"):
        checkpoint.Checkpoints(tmp_path, keep=0)
    with checkpoint.Checkpoints(tmp_path, keep=1) as store:
        with pytest.raises(checkpoint.CheckpointError) as caught:
            store.restore(make_state())
    assert str(tmp_path) in str(caught.value)
    assert "--resume" in str(caught.value)


def test_another_model_stops_with_the_leaves_that_differ(tmp_path: pathlib.Path):
    saved = make_state()
    params = dict(saved.params)
    del params["ids"]
    params["new"] = jnp.zeros(2)
    params["embed"] = jnp.zeros((9, 16))
    params["flags"] = saved.params["flags"].astype(jnp.int32)  # Orbax alone would cast this
    with checkpoint.Checkpoints(tmp_path, keep=1) as store:
        store.save(1, saved, {})
        with pytest.raises(checkpoint.CheckpointError) as caught:
            store.restore(saved._replace(params=params))
    lines = str(caught.value).splitlines()
    assert lines[0].startswith(f"{tmp_path}/1: made by a run with another model or optimizer")
    assert "of its arrays 4 differ" in lines[0]
    assert sorted(lines[1:5]) == [
        "  params.embed: float32 (8, 16) in the checkpoint, float32 (9, 16) in this run",
        "  params.flags: bool (3,) in the checkpoint, int32 (3,) in this run",
        "  params.ids: only in the checkpoint",
        "  params.new: not in the checkpoint",
    ]
    assert "config.json" in lines[5]


def test_a_long_list_of_leaves_is_cut(tmp_path: pathlib.Path):
    small, large = make_state(), make_state()
    large = large._replace(params={f"w{i}": jnp.zeros(1) for i in range(30)})
    with checkpoint.Checkpoints(tmp_path, keep=1) as store:
        store.save(1, small, {})
        with pytest.raises(checkpoint.CheckpointError, match="and 25 more") as caught:
            store.restore(large)
    # 30 new ones and 5 old ones, 10 of them named.
    assert "35 differ" in str(caught.value)
    assert str(caught.value).count("params.") == 10


def largest_file(folder: pathlib.Path) -> pathlib.Path:
    """The file that holds the array data."""
    return max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def flip_a_bit(folder: pathlib.Path) -> None:
    """As failing storage does: the array file stays readable, and is wrong."""
    path = largest_file(folder / "state")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


DAMAGES = {
    "bit": flip_a_bit,
    "truncated": lambda f: os.truncate(largest_file(f), largest_file(f).stat().st_size // 2),
    "missing data": lambda f: largest_file(f).unlink(),
    "missing state": lambda f: shutil.rmtree(f / "state"),
    "missing record": lambda f: shutil.rmtree(f / "record"),
    "garbage record": lambda f: (f / "record" / "metadata").write_text("garbage"),
    "other record": lambda f: (f / "record" / "metadata").write_text("[1]"),
    "garbage index": lambda f: (f / "state" / "manifest.ocdbt").write_text("garbage"),
    "missing part": lambda f: [
        p.unlink() for p in (f / "state" / "ocdbt.process_0" / "d").iterdir()
    ],
    "empty folder": lambda f: (shutil.rmtree(f), f.mkdir()),
}


# Orbax closes its event loop at the first array that cannot be read; reads of other arrays that end later find it
# closed, in threads where nobody can catch that.
@pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_stops_and_names_folder_cause_and_fix(
    tmp_path: pathlib.Path, damage: str
):
    state = make_state(width=4096)
    with checkpoint.Checkpoints(tmp_path, keep=2) as store:
        store.save(1, make_state(seed=1, width=4096), {"update": 1})
        store.save(2, state, {"update": 2})
    DAMAGES[damage](tmp_path / "2")
    with checkpoint.Checkpoints(tmp_path, keep=2) as store:
        with pytest.raises(checkpoint.CheckpointError) as caught:
            store.restore(state)
        message = str(caught.value)
        assert message.startswith(f"{tmp_path}/2: cannot be read, ")
        assert "Delete this folder" in message
        assert "<" not in message and "tensorstore_spec" not in message
        assert len(message) < 800
        # The one before is untouched, and deleting the folder is indeed the fix.
        shutil.rmtree(tmp_path / "2")
        found, meta = store.restore(state)
        assert meta == {"update": 1}
        assert_same(found, make_state(seed=1, width=4096))


def test_checksum_by_hand():
    # words 3, 0, 5 at places 0, 1, 2 with weights 1, 3, 5: 3 + 0 + 25 = 28
    assert int(checkpoint._checksum(jnp.array([3, 0, 5], jnp.int32))) == 28
    # [[1, 2], [3, 4]]: 1 * 1 + 2 * 3 + 3 * 5 + 4 * 7 = 50
    assert int(checkpoint._checksum(jnp.array([[1, 2], [3, 4]], jnp.int32))) == 50
    # bfloat16 1.0 is 0x3f80 = 16256, and -0.0 is 0x8000 = 32768: 16256 + 3 * 32768 = 114560
    assert int(checkpoint._checksum(jnp.array([1.0, -0.0], jnp.bfloat16))) == 114560
    assert int(checkpoint._checksum(jnp.array([True, False, True]))) == 1 + 5
    # -1 is 2^32 - 1: modulo 2^32 it is subtracted.
    assert int(checkpoint._checksum(jnp.array([-1, 1], jnp.int32))) == 3 - 1


SAVE_UNTIL_KILLED = """
import sys
import jax, jax.numpy as jnp
from jaxrl_reason import checkpoint
from jaxrl_reason.types import TrainState
store = checkpoint.Checkpoints(sys.argv[1], keep=2)
for step in range(1, 10**6):
    params = {"w": jnp.full((300, 1000), step, jnp.float32), "n": jnp.full(5, step)}
    state = TrainState(jnp.int32(step), params, (), jax.random.key(step))
    store.save(step, state, {"update": step})
    print(step, flush=True)
"""


def run_python(code: str, *arguments: object, **options) -> subprocess.Popen:
    """A process of its own, as a run is."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, text=True, stdout=subprocess.PIPE, **options)


def test_kill_at_any_moment_leaves_the_last_complete_checkpoint(tmp_path: pathlib.Path):
    rng = random.Random(time.time_ns())
    folders = [tmp_path / str(i) for i in range(2)]
    for _ in range(2):
        runs = []
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)
            runs.append(run_python(SAVE_UNTIL_KILLED, folder, stderr=subprocess.PIPE))
        for folder, process in zip(folders, runs, strict=True):
            begun = [int(process.stdout.readline()) for _ in range(3)][-1]
            wait = rng.uniform(0.0, 0.15)  # one save takes about 0.05 s
            time.sleep(wait)
            process.send_signal(signal.SIGKILL)
            begun = max([begun, *map(int, process.stdout.read().split())])
            assert process.wait() == -signal.SIGKILL
            process.stdout.close()
            process.stderr.close()
            like = TrainState(
                jnp.int32(0),
                {"w": jnp.zeros((300, 1000)), "n": jnp.zeros(5, int)},
                (),
                jax.random.key(0),
            )
            with checkpoint.Checkpoints(folder, keep=2) as store:
                latest = store.latest_step()
                # `begun` was being written, the one before it was complete by then.
                assert latest >= begun - 1, wait
                state, meta = store.restore(like)
                assert meta == {"update": latest}
                assert int(state.num_updates) == latest
                assert (state.params["w"] == latest).all()
                # The run goes on from there, and what the kill left behind is gone.
                store.save(latest + 1, state, {"update": latest + 1})
                store.wait()
            left = {p.name for p in folder.iterdir()}
            assert str(latest + 1) in left
            assert all(re.fullmatch(r"\d+", name) for name in left)


FILL = """
import sys, resource, signal
import jax, jax.numpy as jnp
from jaxrl_reason import checkpoint
from jaxrl_reason.types import TrainState
def state(step):
    key = jax.random.key(step)
    return TrainState(jnp.int32(step), {"w": jax.random.normal(key, (300, 1000))}, (), key)
store = checkpoint.Checkpoints(sys.argv[1], keep=3)
store.save(1, state(1), {"update": 1})
store.wait()
if sys.argv[2] == "limit":
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
try:
    store.save(2, state(2), {"update": 2})
    store.wait()
except checkpoint.CheckpointError as error:
    print(error)
print(store.latest_step(), store.restore(state(0))[1])
w = store.restore(state(0))[0].params["w"]
print(bool((w == state(1).params["w"]).all()))
"""


@pytest.fixture
def small_disk(tmp_path: pathlib.Path):
    """A folder with two megabytes, or None where this process may not mount one."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = shutil.which("mount")
    if not mount or os.geteuid():
        yield None
        return
    made = subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], capture_output=True
    )
    if made.returncode:
        yield None
        return
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def check_full(folder: pathlib.Path, kind: str) -> str:
    """The message of a save that does not fit; the checkpoint before it is still right."""
    with run_python(FILL, folder, kind, stderr=subprocess.PIPE) as process:
        printed, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    message, latest, same = printed.splitlines()
    assert message.startswith(f"{folder}: no space to save a checkpoint, ")
    assert "The newest complete one is 1." in message
    assert "Make room for one more (" in message
    assert "train.keep_checkpoints" not in message  # with a single one there it would not help
    assert latest == "1 {'update': 1}"
    assert same == "True"
    return message


REFILL = """
import sys
import jax, jax.numpy as jnp
from jaxrl_reason import checkpoint
from jaxrl_reason.types import TrainState
def state(step):
    key = jax.random.key(step)
    return TrainState(jnp.int32(step), {"w": jax.random.normal(key, (100, 1000))}, (), key)
first, keep = map(int, sys.argv[2:])
with checkpoint.Checkpoints(sys.argv[1], keep=keep) as store:
    if store.latest_step() is not None:
        store.restore(state(0))
    for step in range(first, first + 6):
        try:
            store.save(step, state(step), {})
            store.wait()
        except checkpoint.CheckpointError as error:
            print(step, error)
            sys.exit()
    print(store._steps())
"""


def test_the_advice_for_a_full_disk_helps(small_disk):
    if small_disk is None:
        pytest.skip("needs root, to mount a small disk")

    def run(*arguments: int) -> str:
        with run_python(REFILL, small_disk / "checkpoints", *arguments) as process:
            return process.communicate(timeout=60)[0].strip()

    said = run(1, 9)
    step = int(said.split()[0])
    fewer = int(re.search(r"lower train.keep_checkpoints, now 9, to at most (\d+);", said)[1])
    assert fewer == step - 2 >= 2
    assert run(step, fewer) == str([*range(step + 6 - fewer, step + 6)])


def test_a_full_disk_is_named_and_the_checkpoint_before_stays(small_disk):
    if small_disk is None:
        pytest.skip("needs root, to mount a small disk")
    message = check_full(small_disk / "checkpoints", "disk")
    free = int(re.search(r"(\d+) bytes are free", message)[1])
    # The first checkpoint has 1.2 MB of random numbers, compressed by a tenth, of two.
    assert 0 < free < 1_200_000


def test_a_file_size_limit_is_named_and_the_checkpoint_before_stays(tmp_path: pathlib.Path):
    check_full(tmp_path / "checkpoints", "limit")
