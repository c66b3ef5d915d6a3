"""Repositories of the Hugging Face hub, by id: fetched into the local cache as a plain folder.

Host side. Reads: the network, the cache of huggingface_hub (HF_HOME). Writes: that cache. Of a checkpoint, only
weights in safetensors, JSON and tokenizer files are asked for: no code, no pickle.
"""

from __future__ import annotations

import pathlib
import re
from collections.abc import Sequence

_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*(@[\w./-]+)?")
# No "*": folders inside a repository hold weights in other formats.
FILES = (
    "config.json",
    "generation_config.json",
    "model*.safetensors",
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
)


def is_hub_id(source: str) -> bool:
    """Whether this can only be an id on the hub: "owner/name" or "owner/name@revision", and nothing on this disk.

    Example:
      >>> is_hub_id("Qwen/Qwen3-0.6B"), is_hub_id("Qwen/Qwen3-0.6B@main"), is_hub_id("runs/a/policy"), is_hub_id("tiny")
      (True, True, False, False)
    """
    # A folder that is misspelt is no id where its parent is here.
    return bool(_ID.fullmatch(source)) and not pathlib.Path(source).parent.exists()


def hidden(source: str) -> str:
    """Words on a folder here that keeps an id from being looked up on the hub, for messages; "" where none does.

    Example:
      >>> hidden("tiny"), hidden("no_such_owner/name")
      ('', '')
    """
    owner = pathlib.Path(source).parent
    if not _ID.fullmatch(source) or not owner.is_dir():
        return ""
    return (
        f"; the folder {owner} here hides {source} of the hub: rename it, or run in another folder"
    )


def fetch(source: str) -> pathlib.Path:
    """Folder of a checkpoint of the hub; what the cache has already is not fetched again.

    Args:
      source: "owner/name", or "owner/name@revision" with a branch, tag or commit.
    Returns:
      The folder in the cache.
    Raises:
      FileNotFoundError: no such repository or revision, no access to it, or no network and nothing in the cache.
    """
    return snapshot(source, FILES, field="model.source")


def snapshot(
    source: str, patterns: Sequence[str], *, field: str, repo_type: str = "model"
) -> pathlib.Path:
    """`fetch` of the files of any repository that match one of the patterns.

    Args:
      source: "owner/name", or "owner/name@revision".
      patterns: as the shell has them, but "*" goes through folders.
      field: of the config, for messages: where a path may be written instead.
      repo_type: model | dataset.
    Returns:
      The folder in the cache; other files of the repository, fetched before, may lie there too.
    Raises:
      FileNotFoundError: as `fetch`.
    """
    import huggingface_hub
    from huggingface_hub import errors

    name, _, revision = source.partition("@")
    page, dataset = name, ""
    if repo_type == "dataset":
        page, dataset = f"datasets/{name}", " --repo-type dataset"
    try:
        folder = huggingface_hub.snapshot_download(
            name, repo_type=repo_type, revision=revision or None, allow_patterns=list(patterns)
        )
    except errors.GatedRepoError as error:
        raise FileNotFoundError(
            f"{source}: its owner must grant access; ask on https://huggingface.co/{page}, then set HF_TOKEN"
        ) from error
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise FileNotFoundError(
            f"{source}: is neither a folder here nor a repository or revision on the hub (private ones need HF_TOKEN)"
        ) from error
    except Exception as error:  # of an HTTP library that changes with the version
        raise FileNotFoundError(
            f"{source}: is no folder here, and cannot be fetched from the hub ({type(error).__name__}). Fetch it where"
            f" there is a network, with `hf download {name}{dataset}`, and set {field} to its folder"
        ) from error
    return pathlib.Path(folder)
