"""Whose run a folder holds: one process at a time, one config, one content of the data.

Host side. Reads: the files of `config`'s data fields. Reads and writes, in the run folder:

| file | holds |
| --- | --- |
| `config.json` | the config; written anew only where a resumed run has changed it |
| `config_changes.jsonl` | what resumed runs have changed, and from which update on; there once one has |
| `data.json` | a fingerprint of the files of each data field |
| `.lock` | process and host that train here; the lock itself is the kernel's and ends with the process |

The lock is `flock`. On NFS it holds between hosts where the server keeps locks (Linux does since 2.6.12); with the
mount options `nolock` or `local_lock` it holds among the processes of one host alone.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import pathlib
import socket
import warnings
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import ml_collections

from jaxrl_reason import config as config_lib
from jaxrl_reason import files, run_changes
from jaxrl_reason.tasks import remote

# What a run may leave before its first checkpoint, and learns from: it is of the config that it was made under.
_EARLY = ("labels.jsonl", "own")
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


@contextlib.contextmanager
def locked(folder: str | os.PathLike, *, resume: bool = False) -> Iterator[pathlib.Path]:
    """Hold the run folder, which is made, against other processes that would train in it.

    Raises:
      FileNotFoundError: there is nothing to resume.
      ValueError: another process holds it (named), it cannot be written to, or it is no folder of a file system.
    """
    folder = files.local_folder(folder, "run_dir")
    if resume and not folder.is_dir():
        raise FileNotFoundError(f"{folder} holds no run to resume; start it without --resume")
    if jax.process_index():
        yield folder
        return
    path = folder / ".lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise ValueError(
            f"run_dir = {str(folder)!r}: cannot be written to ({error.strerror}); make it writable, or choose another"
            " --config.run_dir"
        ) from error
    try:
        _lock(descriptor, path)
        yield folder
    finally:
        os.close(descriptor)


def _lock(descriptor: int, path: pathlib.Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 1000, 0).decode(errors="replace").strip() or "unknown"
        raise ValueError(
            f"{path.parent}: another process trains here ({holder}); wait for it, stop it, or choose another"
            " --config.run_dir"
        ) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        warnings.warn(
            f"{path.parent}: this file system has no locks ({error.strerror}); nothing keeps a second process out",
            stacklevel=2,
        )
        return
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)


class Claim(NamedTuple):
    """A run that may go on in its folder."""

    folder: pathlib.Path
    texts: dict[str, str]  # name of a file -> what it is to hold
    changed: list[run_changes.Change]  # by a resumed run
    update: int | None  # that it goes on from; None: from its start
    resume: bool

    @property
    def resumed_from(self) -> int | None:
        """Last update whose metrics are kept; -1: none, since the run starts over; None: there are none yet."""
        return None if not self.resume else -1 if self.update is None else self.update

    def write(self) -> None:
        """Write what is not there yet, and say what a resumed run has changed."""
        if jax.process_index():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.changed:
            said = "".join(f"\n  {change}" for change in self.changed)
            print(
                f"{self.folder}: goes on from update {self.update or 0} with other settings:{said}"
            )
            fields = {c.field: [c.saved, c.now] for c in self.changed}
            with open(self.folder / "config_changes.jsonl", "a", encoding="utf-8") as file:
                file.write(json.dumps({"update": self.update, "changed": fields}) + "\n")
        for name, text in self.texts.items():
            path = self.folder / name
            if not path.exists() or path.read_text(encoding="utf-8", errors="replace") != text:
                files.replace_text(path, text)


def check(
    folder: pathlib.Path,
    config: ml_collections.ConfigDict,
    *,
    resume: bool,
    update: int | None = None,
    data: Sequence[str] = (),
) -> Claim:
    """Make sure that the folder is free, or with `resume` that it holds this very run.

    While there is no checkpoint nothing was trained, and a resumed run may be another.

    Args:
      folder: of the run.
      config: of the run.
      resume: go on with what is there.
      update: of the newest checkpoint; None: there is none.
      data: fields that name files whose content belongs to the run.
    Returns:
      What to write.
    Raises:
      FileExistsError: the folder holds a run and `resume` is False.
      FileNotFoundError: it holds none and `resume` is True.
      ValueError: resumed with a config or data that would change what was trained; or a damaged file.
    """
    saved, prints = folder / "config.json", folder / "data.json"
    if (saved.exists() or update is not None) and not resume:
        raise FileExistsError(
            f"{folder} already holds a run; go on with --resume, or choose another --config.run_dir"
        )
    if resume and not saved.exists() and update is None:
        raise FileNotFoundError(f"{folder} holds no run to resume; start it without --resume")
    now = {name: found for name in data if (found := fingerprint(config, name))}
    texts = {"config.json": config_lib.to_json(config)}
    if now:
        texts["data.json"] = json.dumps(now, indent=2, sort_keys=True) + "\n"
    if not resume or (update is None and not any((folder / n).exists() for n in _EARLY)):
        return Claim(folder, texts, [], update, resume)
    if not saved.exists():
        print(f"{saved}: missing; taking the config that was given for that of the run")
        return Claim(folder, texts, [], update, resume)
    before = _read_prints(prints)
    _check_data(prints, before, now, config)
    old, lacking = run_changes.read(saved)
    if lacking:
        print(f"{saved}: of another version; taken as their defaults: {', '.join(lacking)}")
    found = run_changes.changes(old, config)
    run_changes.refuse(saved, found, config, {name for name in now if name in before})
    moved = [c for c in found if c.name != "run_dir" and c.name not in run_changes.DATA]
    return Claim(folder, texts, moved, update, resume)


def claim(folder: pathlib.Path, config: ml_collections.ConfigDict, **options) -> None:
    """`check` and write at once."""
    check(folder, config, **options).write()


# --- data --------------------------------------------------------------------------------------------


def fingerprint(config: ml_collections.ConfigDict, name: str) -> str:
    """BLAKE2 of the files that a field of the config names, in their order; empty where it names none.

    Only content counts: neither names of files nor their dates.
    """
    section, _, field = name.rpartition(".")
    path = config[section][field]
    if not path:
        return ""
    total = hashlib.blake2b(digest_size=16)
    for file in remote.files(path):
        with open(file, "rb") as opened:
            total.update(hashlib.file_digest(opened, hashlib.blake2b).digest())
    return total.hexdigest()


def _read_prints(path: pathlib.Path) -> dict[str, str]:
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_bytes())
        if not isinstance(found, dict):
            raise ValueError(f"holds a {type(found).__name__}")
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path}: damaged ({error}); delete it to go on without a comparison of the data"
        ) from error
    return found


def _check_data(
    path: pathlib.Path,
    before: dict[str, str],
    now: dict[str, str],
    config: ml_collections.ConfigDict,
) -> None:
    changed = [name for name, digest in now.items() if before.get(name, digest) != digest]
    if changed:
        lines = [f"{n} = {config[n.rpartition('.')[0]][n.rpartition('.')[2]]!r}" for n in changed]
        raise ValueError(
            f"{path}: the run was started on other data; the content has changed of\n  "
            + "\n  ".join(lines)
            + "\nPut the old files back, or choose another --config.run_dir. To go on with the new content all the"
            f" same, delete {path.name}."
        )
