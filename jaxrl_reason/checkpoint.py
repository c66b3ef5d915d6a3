"""Save and restore a TrainState with a JSON record, through Orbax.

Host side. Reads: `<folder>/<step>/`. Writes: the same, one folder per saved update.
A kill at any moment loses at most the save under way.

Where a run starts from, first match wins:

1. the newest checkpoint in the run's own `checkpoints/`, with `--resume`;
2. the parameters in the folder that `config.model.source` names;
3. random parameters, where `config.model.source` is a preset.

What was asked for is what happens, or the program stops: a checkpoint that cannot be restored
raises CheckpointError, never a silent fall to a lower rule.

Arrays go by the path of their leaf (`params.layers_0.attn.q`), so a checkpoint depends on names,
shapes and dtypes alone, not on the classes of an optimizer's state. Every array has a checksum that
is the same under any sharding: storage that lost a bit is an error, not a slightly different run.
"""

from __future__ import annotations

import errno
import gc
import json
import os
import re
import shutil
import sys
import zlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from jaxtyping import Array, UInt

from jaxrl_reason.types import TrainState

_MOST_LISTED = 10  # mismatching leaves named in an error
_FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class CheckpointError(RuntimeError):
    """A checkpoint could not be saved or restored; names the folder, the cause and the fix."""


class Checkpoints:
    """The checkpoints of one run.

    Saving returns once the arrays are copied to the host; writing goes on in the background, and
    an error in it comes out of the next `save`, `wait`, `latest_step` or `close`.

    Example:
      >>> import tempfile, optax
      >>> params = {"w": jnp.arange(3.0)}
      >>> state = TrainState(jnp.int32(7), params, optax.adam(1e-3).init(params), jax.random.key(0))
      >>> with Checkpoints(tempfile.mkdtemp(), keep=2) as checkpoints:
      ...     checkpoints.save(7, state, {"generated_tokens": 1234})
      ...     restored, meta = checkpoints.restore(state)
      >>> int(restored.num_updates), restored.params["w"].tolist(), meta
      (7, [0.0, 1.0, 2.0], {'generated_tokens': 1234})
    """

    def __init__(self, folder: str | os.PathLike, keep: int | None):
        """Name a folder; it is made by the first save.

        Args:
          folder: of all checkpoints of the run.
          keep: newest ones kept, >= 1. None: read only, for a reader beside a live run, which
            creates and deletes nothing.
        """
        if keep is not None and keep < 1:
            raise ValueError(f"keep = {keep}: must be >= 1, or None to read only")
        self.folder = os.path.abspath(folder)
        self._keep = keep
        self._manager = None

    def save(self, step: int, state: TrainState, meta: Mapping[str, Any]) -> None:
        """Begin to save; a step that is saved already is left as it is.

        Args:
          step: number of updates done, names the folder.
          state: arrays on any devices; may be donated once this returns.
          meta: JSON values.
        Raises:
          CheckpointError: this save or the one before failed; earlier checkpoints stay readable.
        """
        self.wait()
        steps = self._steps()
        if step in steps:
            return
        # Before the new one is written, and not after: a run that was resumed with fewer, since its disk was full, has
        # the room now. Only here is it sure that what is kept can be read.
        for surplus in steps[: -self._keep]:
            shutil.rmtree(os.path.join(self.folder, str(surplus)))
        flat = _flatten(state)
        try:
            manager = self._open()
            # The caller may forbid implicit transfers; copying to the host is what saving means.
            with jax.transfer_guard("allow"):
                sums = _checksums(flat)
                record = {
                    "meta": dict(meta),
                    "arrays": {
                        name: [str(x.dtype), list(x.shape), sums[name]] for name, x in flat.items()
                    },
                }
                items = {
                    "state": ocp.args.StandardSave(flat),
                    "record": ocp.args.JsonSave(record),
                }
                manager.save(step, args=ocp.args.Composite(**items), force=True)
        except Exception as error:
            raise self._save_error(error) from error

    def restore(
        self, like: TrainState, step: int | None = None
    ) -> tuple[TrainState, dict[str, Any]]:
        """Read a checkpoint back, bitwise, onto the devices of `like`.

        Args:
          like: arrays or ShapeDtypeStructs with the shapes, dtypes and shardings wanted.
          step: which one; None: the newest.
        Returns:
          (state, meta) as saved.
        Raises:
          CheckpointError: nothing there, other leaves, or unreadable; names folder, cause and fix.
        """
        if step is None:
            step = self.latest_step()
        if step is None:
            raise CheckpointError(
                f"{self.folder}: holds no complete checkpoint. Start without --resume, or correct"
                " the folder."
            )
        place = os.path.join(self.folder, str(step))
        record = self._read(place, step, record=ocp.args.JsonRestore())["record"]
        if not isinstance(record, dict) or not {"meta", "arrays"} <= record.keys():
            raise _unreadable(place, "its record is not one that this program writes")
        wanted = _flatten(like)
        _check_leaves(place, record["arrays"], wanted)
        abstract = {
            name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding or _first_device())
            for name, x in wanted.items()
        }
        flat = self._read(place, step, state=ocp.args.StandardRestore(abstract))["state"]
        sums = _checksums(flat)
        damaged = [name for name in flat if sums[name] != record["arrays"][name][2]]
        if damaged:
            raise _unreadable(place, f"checksum differs in {_listed(damaged)}")
        return _unflatten(like, flat), record["meta"]

    def latest_step(self) -> int | None:
        """Newest complete checkpoint on disk, or None."""
        self.wait()
        return max(self._steps(), default=None)

    def latest_update(self) -> int:
        """The update that a run goes on from with what is on the disk; 0 where nothing is."""
        return self.latest_step() or 0

    def set_aside(self, step: int, place: str | os.PathLike) -> None:
        """Move a checkpoint to a folder beside, where no resumed run finds it."""
        self.wait()
        shutil.rmtree(place, ignore_errors=True)
        os.replace(os.path.join(self.folder, str(step)), place)

    def wait(self) -> None:
        """Block until the save under way is complete.

        Raises:
          CheckpointError: it failed.
        """
        try:
            if self._manager is not None:
                self._manager.wait_until_finished()
        except Exception as error:
            raise self._save_error(error) from error

    def close(self) -> None:
        """Wait, then end the background threads."""
        try:
            self.wait()
        finally:
            if self._manager is not None:
                self._manager.close()

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def _open(self) -> ocp.CheckpointManager:
        if self._manager is None:
            options = ocp.CheckpointManagerOptions(
                max_to_keep=self._keep,
                read_only=self._keep is None,
                # What a killed save left behind. A reader must not: the save may be alive.
                cleanup_tmp_directories=self._keep is not None,
            )
            self._manager = ocp.CheckpointManager(self.folder, options=options)
        return self._manager

    def _steps(self) -> list[int]:
        """Complete checkpoints on disk; the manager also lists one whose save has just failed."""
        if not os.path.isdir(self.folder):
            return []
        return sorted(ocp.utils.checkpoint_steps(self.folder))

    def _read(self, place: str, step: int, **items) -> Any:
        if not os.path.isdir(place):
            there = ", ".join(map(str, self._steps())) or "none"
            raise CheckpointError(f"{place}: no such checkpoint; complete ones: {there}")
        try:
            manager = self._open()
            with jax.transfer_guard("allow"):
                return manager.restore(step, args=ocp.args.Composite(**items))
        except Exception as error:
            cause = f"{type(error).__name__}: {_brief(error)}"
        # Outside the handler, so that no frame holds the half-done reads when they are collected.
        _collect_quietly()
        raise _unreadable(place, cause)

    def _save_error(self, error: Exception) -> CheckpointError:
        steps = self._steps()
        last = f"The newest complete one is {steps[-1]}." if steps else "There is no earlier one."
        # The storage library turns the error number into text.
        texts = [os.strerror(number) for number in _FULL_DISK]
        if not (
            getattr(error, "errno", None) in _FULL_DISK or any(text in str(error) for text in texts)
        ):
            return CheckpointError(
                f"{self.folder}: saving failed, {type(error).__name__}: {_brief(error)}. {last}"
            )
        return CheckpointError(
            f"{self.folder}: no space to save a checkpoint, {_free_bytes(self.folder)} bytes are free."
            f" {last} {self._room(steps)}"
        )

    def _room(self, steps: list[int]) -> str:
        """What helps against a full disk."""
        if not steps:
            return "Make room, or choose a run_dir on another disk."
        size = (
            f"Make room for one more ({_bytes_of(os.path.join(self.folder, str(steps[-1])))} bytes)"
        )
        if len(steps) == 1:
            return f"{size}, then go on with --resume."
        return (
            f"{size}, or lower train.keep_checkpoints, now {self._keep}, to at most {len(steps) - 1}; then go on with"
            f" --resume: what is too many by then ({', '.join(map(str, steps[:-1]))}, the oldest first) is deleted"
            " before the next is written."
        )


def newest(folder: str | os.PathLike) -> int | None:
    """Newest complete checkpoint in a folder that may not be there; None: none."""
    return Checkpoints(folder, keep=None).latest_step()


def _flatten(tree: Any) -> dict[str, Any]:
    """{name: leaf}; a typed key becomes its words, since files hold plain numbers only."""
    flat = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        if name in flat:
            raise ValueError(f"two leaves are called {name}: rename one, checkpoints go by name")
        flat[name] = _key_words(leaf) if _is_key(leaf) else leaf
    return flat


def _unflatten(like: Any, flat: Mapping[str, Array]) -> Any:
    def leaf_of(path, leaf):
        found = flat[jax.tree_util.keystr(path, simple=True, separator=".")]
        return jax.random.wrap_key_data(found, impl=_key_impl(leaf)) if _is_key(leaf) else found

    return jax.tree_util.tree_map_with_path(leaf_of, like)


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _key_impl(key: Any) -> Any:
    """Generator of a key; traced, since a ShapeDtypeStruct is asked as well."""
    found = []
    jax.eval_shape(lambda k: found.append(jax.random.key_impl(k)), key)
    return found[0]


def _key_words(key: Any) -> Any:
    if isinstance(key, jax.Array):
        return jax.random.key_data(key)
    words = jax.eval_shape(jax.random.key_data, key)
    return jax.ShapeDtypeStruct(words.shape, words.dtype, sharding=key.sharding)


def _checksums(flat: Mapping[str, Array]) -> dict[str, int]:
    # One at a time: programs with collectives that wait for each other's threads can lock up virtual CPU devices.
    return {name: int(jax.device_get(_checksum(x))) for name, x in flat.items()}


def fingerprint(tree: Any) -> int:
    """A number that almost surely differs where any array of the tree does; the same under any sharding.

    Example:
      >>> fingerprint({"w": jnp.arange(3.0)}) == fingerprint({"w": jnp.arange(3.0) + 1})
      False
    """
    with jax.transfer_guard("allow"):
        return zlib.crc32(json.dumps(_checksums(_flatten(tree)), sort_keys=True).encode())


@jax.jit
def _checksum(x: Array) -> UInt[Array, ""]:
    """sum_i (2 i + 1) word_i modulo 2^32.

    Integer sums do not depend on their order, hence not on the sharding; odd weights let no changed
    word vanish and make swapped words show.
    """
    if x.dtype == jnp.bool_:
        x = x.astype(jnp.uint8)
    word = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32, 8: jnp.uint32}[x.dtype.itemsize]
    words = jax.lax.bitcast_convert_type(x, word).astype(jnp.uint32)
    index, stride = jnp.zeros(words.shape, jnp.uint32), 1
    for axis in reversed(range(words.ndim)):
        place = jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis)
        index += place * jnp.uint32(stride % 2**32)
        stride *= words.shape[axis]
    return jnp.sum(words * (2 * index + 1), dtype=jnp.uint32)


def _check_leaves(place: str, saved: Mapping[str, list], wanted: Mapping[str, Any]) -> None:
    """Compare names, shapes and dtypes first: Orbax itself would cast a dtype in silence."""
    problems = [f"{name}: not in the checkpoint" for name in wanted if name not in saved]
    problems += [f"{name}: only in the checkpoint" for name in saved if name not in wanted]
    for name, leaf in wanted.items():
        if name in saved:
            there = f"{saved[name][0]} {tuple(saved[name][1])}"
            here = f"{leaf.dtype} {tuple(leaf.shape)}"
            if there != here:
                problems.append(f"{name}: {there} in the checkpoint, {here} in this run")
    if problems:
        count = f"{len(problems)} differ{'s' if len(problems) == 1 else ''}"
        raise CheckpointError(
            f"{place}: made by a run with another model or optimizer; of its arrays {count}:\n  "
            + _listed(problems, separator="\n  ")
            + "\nResume with the config.json of that run, or choose another run_dir."
        )


def _unreadable(place: str, cause: str) -> CheckpointError:
    return CheckpointError(
        f"{place}: cannot be read, {cause}. Delete this folder to go on from the checkpoint before"
        " it, or choose another run_dir."
    )


def _free_bytes(folder: str) -> int:
    while not os.path.exists(folder):
        folder = os.path.dirname(folder)
    return shutil.disk_usage(folder).free


def _bytes_of(folder: str) -> int:
    return sum(
        os.path.getsize(os.path.join(at, n)) for at, _, names in os.walk(folder) for n in names
    )


def _brief(error: Exception) -> str:
    """The first line or two of what a storage library says, without its own objects and places in its source."""
    inner = error.__cause__ or error
    text = " ".join(str(inner if "<bound method" in str(error) else error).split())
    text = re.split(
        r" *(?:See full TensorStore details|<bound method|\[(?:tensorstore_spec|source))", text
    )[0]
    return text.rstrip(". ") if len(text) <= 300 else text[:300] + "..."


def _listed(texts: list[str], separator: str = ", ") -> str:
    more = [f"and {len(texts) - _MOST_LISTED} more"] if len(texts) > _MOST_LISTED else []
    return separator.join(texts[:_MOST_LISTED] + more)


def _first_device() -> jax.sharding.Sharding:
    return jax.sharding.SingleDeviceSharding(jax.local_devices()[0])


def _collect_quietly() -> None:
    """Collect what a failed restore abandoned; each read would print a page on the same error."""
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    try:
        gc.collect()
    finally:
        sys.unraisablehook = hook
