"""Files that are there whole or not at all, and folders that are on a disk.

Host side. Reads: folders. Writes: the file it is given.
"""

from __future__ import annotations

import os
import pathlib
import re


def replace_text(path: str | os.PathLike, text: str) -> None:
    """Write a file so that a kill or a power cut leaves the old one or the new one, whole.

    Raises:
      OSError: as `open`; the old file is still there.
    """
    path = pathlib.Path(path)
    fresh = path.with_name(f".{path.name}.new")
    with open(fresh, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(fresh, path)


def remote_problem(folder: str) -> str:
    """Why a folder cannot be written to by its name; empty where nothing speaks against it.

    Example:
      >>> remote_problem("gs://bucket/run")
      'object storage cannot be written to; give a folder of a POSIX file system, for several hosts a shared one'
      >>> remote_problem("runs/gs")
      ''
    """
    # One slash: what is left of two where a path was made of it.
    if not re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", folder):
        return ""
    return (
        "object storage cannot be written to; give a folder of a POSIX file system, for several hosts a"
        " shared one"
    )


def local_folder(folder: str | os.PathLike, option: str) -> pathlib.Path:
    """The folder as a path.

    Args:
      folder: as the user wrote it.
      option: what it is called there.
    Raises:
      ValueError: it names object storage.
    """
    if problem := remote_problem(os.fspath(folder)):
        raise ValueError(f"{option} = {os.fspath(folder)!r}: {problem}")
    return pathlib.Path(folder)
