"""Where the records of a data set lie: files here, by name or pattern, or files of a data set on the Hugging Face hub.

Host side. Reads: folders; the network and the cache of huggingface_hub (HF_HOME) for a hub id. Writes: that cache.
"""

from __future__ import annotations

import fnmatch
import glob
import os
import re

from jaxrl_reason import hub

_ID = re.compile(r"([\w-][\w.-]*)/[\w-][\w.-]*(@[\w./-]+)?:[^:]+")


def is_hub_id(path: str) -> bool:
    """Whether this can only name files of a data set on the hub: "owner/name[@revision]:files", and nothing here.

    Example:
      >>> is_hub_id("openai/gsm8k:main/train-*.parquet"), is_hub_id("data/train.jsonl"), is_hub_id("openai/gsm8k")
      (True, False, False)
    """
    match = _ID.fullmatch(path)
    return match is not None and not os.path.exists(match[1]) and not os.path.exists(path)


def files(path: str | os.PathLike) -> list[str]:
    """The files that a path of the config means, in the order of their names.

    Args:
      path: a file; a pattern such as "data/train-*.parquet"; or "owner/name:data/train-*.parquet", files of a data set
        on the hub, with "@revision" behind the name where it is to be a branch, tag or commit. "~" in front is the home
        folder.
    Returns:
      At least one file on this disk.
    Raises:
      FileNotFoundError: there is none.
    """
    path = os.path.expanduser(os.fspath(path))
    if os.path.isfile(path):
        return [path]
    if is_hub_id(path):
        source, _, pattern = path.partition(":")
        folder = str(hub.snapshot(source, [pattern], field="task.path", repo_type="dataset"))
        # The cache may hold more of this data set.
        found = [os.path.relpath(p, folder) for p in glob.glob(f"{folder}/**", recursive=True)]
        found = [f"{folder}/{name}" for name in found if fnmatch.fnmatchcase(name, pattern)]
    else:
        source, found = path, glob.glob(path, recursive=True)
    found = sorted(name for name in found if os.path.isfile(name))
    if not found:
        kind = (
            "a folder; name its files, as in {0}/*.parquet"
            if os.path.isdir(path)
            else "no such file"
        )
        if _ID.fullmatch(path) and not is_hub_id(path):
            kind += hub.hidden(path.partition(":")[0])
        raise FileNotFoundError(
            f"{path}: {kind.format(path)}; task.path and task.eval_path take a file of records, a pattern of such"
            " files, or files of a data set on the hub: owner/name:data/train-*.parquet"
        )
    return found
