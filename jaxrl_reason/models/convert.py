"""Weights of Hugging Face checkpoints: read slice by slice onto the mesh, and written back.

Host side. Reads: *.safetensors, model.safetensors.index.json. Writes: the same.

Nothing is read whole: each device's piece of a parameter is cut out of the files, so that a host needs memory for
the pieces of its own devices and for one parameter besides.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from jaxrl_reason.models import json_files, tensor_names
from jaxrl_reason.models.model_config import ModelConfig
from jaxrl_reason.types import Params

WEIGHTS_FILE = "model.safetensors"
_INDEX_FILE = WEIGHTS_FILE + ".index.json"
_DTYPES = ("F32", "BF16", "F16")
_ROWS_COMPARED = 4096  # of two tables at a time
# Names of tensors that are listed in one message.
_MOST_PROBLEMS = 100
GGUF_REFUSAL = (
    "GGUF is not read; take the checkpoint that it was made from, with config.json, tokenizer.json and"
    " *.safetensors (on the hub: the repository without GGUF in its name)"
)
SHARD_BYTES = 4 * 1024**3  # most bytes of a file that `write` makes


def flat(tree: Any) -> list[tuple[str, Any]]:
    """("layers.mlp.up", leaf) of a nested dict."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda x: isinstance(x, tuple))
    return [(".".join(step.key for step in path), leaf) for path, leaf in leaves]


def nest(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """Inverse of `flat`.

    Example:
      >>> nest({"a.b": 1, "a.c": 2})
      {'a': {'b': 1, 'c': 2}}
    """
    tree: dict[str, Any] = {}
    for path, leaf in leaves.items():
        *parents, last = path.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = leaf
    return tree


@contextlib.contextmanager
def open_weights(folder: pathlib.Path) -> Iterator[dict[str, Any]]:
    """{tensor name: lazy slice} of a checkpoint folder, of one file or of those that its index names.

    Raises:
      FileNotFoundError: no weights, or a file that the index names is missing.
      ValueError: a file is damaged, does not hold what the index says, or lies outside of the folder.
    """
    with contextlib.ExitStack() as stack:
        tensors: dict[str, Any] = {}
        for path, expected in _weight_files(folder).items():
            try:
                file = stack.enter_context(safetensors.safe_open(path, framework="numpy"))
            except safetensors.SafetensorError as error:
                raise ValueError(f"{path}: is damaged or no safetensors file ({error})") from error
            absent = sorted(expected - set(file.keys()))
            if absent:
                raise ValueError(
                    f"{path}: lacks {', '.join(absent)}, which {_INDEX_FILE} says it holds"
                )
            tensors |= {name: file.get_slice(name) for name in file.keys()}
        yield tensors


def _weight_files(folder: pathlib.Path) -> dict[pathlib.Path, set[str]]:
    """Files, each with the tensors that the index expects in it."""
    index = folder / _INDEX_FILE
    if not index.is_file():
        if not (folder / WEIGHTS_FILE).is_file():
            if gguf_files(folder):
                raise FileNotFoundError(f"{folder}: {GGUF_REFUSAL}")
            raise FileNotFoundError(
                f"{folder}: neither {WEIGHTS_FILE} nor {_INDEX_FILE}; weights in another format (.bin, .pt) must be"
                " saved as safetensors first"
            )
        _check_inside(folder, folder / WEIGHTS_FILE)
        return {folder / WEIGHTS_FILE: set()}
    weight_map = json_files.read_object(index).get("weight_map")
    if not isinstance(weight_map, dict):
        raise ValueError(
            f"{index}: is no index of safetensors files (weight_map = {json_files.shown(weight_map)}:"
            " must be an object)"
        )
    files: dict[pathlib.Path, set[str]] = {}
    for name, file in weight_map.items():
        plain = isinstance(file, str) and pathlib.PurePath(file).name == file and "\0" not in file
        if not plain or file in ("", ".."):
            raise ValueError(
                f"{index}: {json_files.shown(name)} in {json_files.shown(file)}: must be the name of a file in this"
                " folder"
            )
        files.setdefault(folder / file, set()).add(name)
    missing = sorted(path.name for path in files if not path.is_file())
    if missing:
        raise FileNotFoundError(
            f"{folder}: {_INDEX_FILE} names files that are missing: {', '.join(missing)}"
        )
    for path in files:
        _check_inside(folder, path)
    return files


def _check_inside(folder: pathlib.Path, path: pathlib.Path) -> None:
    """Refuse a link out of the folder: what a stranger's checkpoint names must be its own.

    The cache of the hub is made of links, from snapshots/REVISION/ to blobs/ beside it.
    """
    home, target = folder.resolve(), path.resolve()
    cached = home.parent.name == "snapshots" and target.parent == home.parent.parent / "blobs"
    if not cached and not target.is_relative_to(home):
        raise ValueError(
            f"{path}: is a link to {target}, outside of this folder; put the file here"
        )


def gguf_files(folder: pathlib.Path) -> list[pathlib.Path]:
    """Files of a format that is not read."""
    return sorted(folder.glob("*.gguf"))


def stored_dtype(tensors: Mapping[str, Any]) -> str:
    """bfloat16 where every tensor has it, else float32, which holds all that is stored without loss."""
    return "bfloat16" if all(x.get_dtype() == "BF16" for x in tensors.values()) else "float32"


def read(
    tensors: Mapping[str, Any],
    config: ModelConfig,
    shapes: Params,
    shardings: Params | None,
    *,
    architecture: str,
) -> Params:
    """Parameters of a checkpoint, each device's piece cut out of the files.

    Args:
      tensors: from `open_weights`.
      config: of the model; parameters get its `param_dtype`.
      shapes: tree of ShapeDtypeStructs, as `transformer.param_shapes` gives.
      shardings: the same tree of shardings; None: the default device.
      architecture: from config.json.
    Returns:
      The tree of `shapes`, with arrays.
    Raises:
      ValueError: every missing, unknown and misshapen tensor in one error.
    """
    wanted = dict(flat(shapes))
    _check(tensors, config, wanted, architecture)
    places = {} if shardings is None else dict(flat(shardings))
    return nest(
        {
            path: _read_leaf(
                tensors,
                tensor_names.tensor_name(path, config),
                struct.shape,
                jnp.dtype(config.param_dtype),
                places.get(path),
            )
            for path, struct in wanted.items()
        }
    )


def _check(
    tensors: Mapping[str, Any], config: ModelConfig, wanted: Mapping[str, Any], architecture: str
) -> None:
    """Compare names, shapes and dtypes from the headers, before anything is read."""
    needed: dict[str, tuple[int, ...]] = {}
    # Before a name is made for each: a wrong number of layers may ask for any number of them.
    stacks = {path: tensor_names.tensor_name(path, config).num_stacked for path in wanted}
    count = sum(math.prod(wanted[path].shape[:n]) for path, n in stacks.items())
    if count > 2 * len(tensors) + _MOST_PROBLEMS:
        raise ValueError(
            f"weights do not fit config.json: it asks for {count} tensors, there are {len(tensors)};"
            f" num_hidden_layers = {config.num_layers}"
            + (f", num_experts = {config.experts.num_experts}" if config.experts else "")
        )
    for path, struct in wanted.items():
        name = tensor_names.tensor_name(path, config)
        stacked, own = struct.shape[: name.num_stacked], struct.shape[name.num_stacked :]
        shape = tuple(math.prod(own[axis] for axis in group) for group in name.groups)
        needed |= {name.format(at): shape for at in np.ndindex(*stacked)}
    problems = [f"{name}: missing" for name in sorted(needed.keys() - tensors.keys())]
    for name in sorted(tensors.keys() - needed.keys()):
        if tensor_names.may_be_left_out(name, architecture):
            continue
        if config.tied and name == "lm_head.weight" and "model.embed_tokens.weight" in tensors:
            # Some programs write a tied head as well; it must then be the same.
            if _equal(tensors[name], tensors["model.embed_tokens.weight"]):
                continue
            problems.append(f"{name}: differs from the embedding, but tie_word_embeddings is true")
        else:
            problems.append(f"{name}: the model has no such tensor")
    for name in sorted(tensors.keys() & needed.keys()):
        shape, dtype = tuple(tensors[name].get_shape()), tensors[name].get_dtype()
        if shape != needed[name]:
            problems.append(f"{name}: shape {shape}, the model needs {needed[name]}")
        if dtype not in _DTYPES:
            problems.append(f"{name}: dtype {dtype}, must be one of {', '.join(_DTYPES)}")
    if problems:
        if len(problems) > _MOST_PROBLEMS:
            problems[_MOST_PROBLEMS:] = [f"and {len(problems) - _MOST_PROBLEMS} more"]
        raise ValueError(
            "weights do not fit config.json:\n" + "\n".join(f"  {p}" for p in problems)
        )


def _equal(one: Any, two: Any) -> bool:
    if one.get_shape() != two.get_shape():
        return False
    rows = one.get_shape()[0]
    starts = range(0, rows, _ROWS_COMPARED)
    parts = (slice(start, min(start + _ROWS_COMPARED, rows)) for start in starts)
    return all(np.array_equal(one[part], two[part]) for part in parts)


def _read_leaf(
    tensors: Mapping[str, Any],
    name: tensor_names.TensorName,
    shape: tuple[int, ...],
    dtype: Any,
    place: jax.sharding.Sharding | None,
) -> jax.Array:
    pieces: dict[tuple, np.ndarray] = {}  # devices that hold the same piece share its reading

    def piece(index: Sequence[slice]) -> np.ndarray:
        bounds = tuple(part.indices(size)[:2] for part, size in zip(index, shape, strict=True))
        if bounds not in pieces:
            pieces[bounds] = _read_piece(tensors, name, shape, bounds, dtype)
        return pieces[bounds]

    if place is None:
        return jnp.asarray(piece((slice(None),) * len(shape)))
    return jax.make_array_from_callback(shape, place, piece)


def _read_piece(
    tensors: Mapping[str, Any],
    name: tensor_names.TensorName,
    shape: tuple[int, ...],
    bounds: tuple[tuple[int, int], ...],
    dtype: Any,
) -> np.ndarray:
    """Elements bounds[i][0] to bounds[i][1] along each axis i of one parameter."""
    out = np.empty([stop - start for start, stop in bounds], dtype)
    stacked, own = bounds[: name.num_stacked], bounds[name.num_stacked :]
    own_shape = shape[name.num_stacked :]
    order = [axis for group in name.groups for axis in group]
    # Along a merged axis the slowest of its parts is cut while reading, the others afterwards.
    cuts, after, sizes = [], [slice(None)] * len(own), []
    for first, *rest in name.groups:
        inner = math.prod(own_shape[axis] for axis in rest)
        cuts.append(slice(own[first][0] * inner, own[first][1] * inner))
        sizes += [own[first][1] - own[first][0], *(own_shape[axis] for axis in rest)]
        for axis in rest:
            after[axis] = slice(*own[axis])
    for at in itertools.product(*(range(*bound) for bound in stacked)):
        part = tensors[name.format(at)][tuple(cuts)].reshape(sizes)
        part = part.transpose(np.argsort(order))[tuple(after)]
        out[tuple(i - bound[0] for i, bound in zip(at, stacked, strict=True))] = part
    return out


def write(
    folder: pathlib.Path, config: ModelConfig, params: Params, *, shard_bytes: int = SHARD_BYTES
) -> None:
    """Write parameters as safetensors files under their names in `transformers`.

    Args:
      folder: exists.
      config: of the model.
      params: nested dict of host arrays; written in the dtype that they have.
      shard_bytes: most bytes of one file, where several are needed.
    """
    plan = _plan_files(config, params, shard_bytes)
    total = max(plan.values())
    pending: dict[str, np.ndarray] = {}
    current = 1

    def flush() -> None:
        file = folder / _file_name(current, total)
        safetensors.numpy.save_file(pending, file, metadata={"format": "pt"})
        pending.clear()

    for path, leaf in flat(params):
        name = tensor_names.tensor_name(path, config)
        for at in np.ndindex(*leaf.shape[: name.num_stacked]):
            tensor = name.format(at)
            if plan[tensor] != current:
                flush()
                current = plan[tensor]
            pending[tensor] = _as_stored(leaf[at], name)
    flush()
    if total > 1:
        weight_map = {name: _file_name(number, total) for name, number in plan.items()}
        size = sum(leaf.nbytes for _, leaf in flat(params))
        index = {"metadata": {"total_size": size}, "weight_map": weight_map}
        (folder / _INDEX_FILE).write_text(json.dumps(index, indent=2) + "\n")


def _plan_files(config: ModelConfig, params: Params, shard_bytes: int) -> dict[str, int]:
    """{tensor name: number of its file}, in the order of writing."""
    plan: dict[str, int] = {}
    number, filled = 1, 0
    for path, leaf in flat(params):
        name = tensor_names.tensor_name(path, config)
        stacked = leaf.shape[: name.num_stacked]
        size = leaf.nbytes // math.prod(stacked)
        for at in np.ndindex(*stacked):
            if filled and filled + size > shard_bytes:
                number, filled = number + 1, 0
            plan[name.format(at)] = number
            filled += size
    return plan


def _file_name(number: int, total: int) -> str:
    return WEIGHTS_FILE if total == 1 else f"model-{number:05d}-of-{total:05d}.safetensors"


def _as_stored(array: np.ndarray, name: tensor_names.TensorName) -> np.ndarray:
    order = [axis for group in name.groups for axis in group]
    sizes = [math.prod(array.shape[axis] for axis in group) for group in name.groups]
    return np.ascontiguousarray(array.transpose(order).reshape(sizes))
