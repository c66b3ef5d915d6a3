"""Devices: the mesh, where every parameter and row lives on it, and the way between host and global arrays.

Host side, except `constrain` and `gather_params` (device side, jit-safe). Reads: jax.devices(). Writes: nothing.

Rows are split over ("data", "fsdp"). A parameter is split by the logical names of its axes and RULES; the same mesh
serves sampling and training.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import ml_collections
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from jaxrl_reason.types import TrainState

AXES = ("data", "fsdp", "tensor")
ROW_AXES = ("data", "fsdp")

# Devices, or their number alone: enough to know the size of every piece.
AnyMesh = Mesh | AbstractMesh

# A mesh axis, several of them, or None: not split.
MeshAxes = str | tuple[str, ...] | None

# Logical name of an array axis -> mesh axes.
RULES: Mapping[str, MeshAxes] = {
    "rows": ROW_AXES,
    "vocab": "tensor",
    "embed": "fsdp",
    "heads": "tensor",
    "kv_heads": "tensor",
    "head_dim": None,
    "mlp": "tensor",
    "experts": None,
    "rank": None,
    "layers": None,
}

# For loops that read every weight many times: gathered over "fsdp" once, before the loop.
GATHERED_RULES: Mapping[str, MeshAxes] = {**RULES, "embed": None}


@runtime_checkable
class MeshSizes(Protocol):
    """Devices per mesh axis."""

    data: int
    fsdp: int
    tensor: int


# `config.mesh`, or the same as attributes. Named apart: fields that a class answers for by `__getattr__` are none of a
# Protocol's from Python 3.12 on.
MeshConfig = ml_collections.ConfigDict | MeshSizes


def check_one_process() -> None:
    """Refuse to be one of several processes, before anything is read or written.

    Nothing agrees yet on what each of them samples, verifies and writes: they would wait for each other for ever, or
    train apart without a word.

    Raises:
      ValueError: there are several.
    """
    if jax.process_count() > 1:
        raise ValueError(
            f"several processes are not supported yet: this is process {jax.process_index()} of {jax.process_count()};"
            " start one process, on one machine, that has all of the devices"
        )


def make_mesh(mesh_config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Mesh with axes ("data", "fsdp", "tensor"), data * fsdp * tensor = number of devices.

    Args:
      mesh_config: sizes; fsdp = -1 takes all devices that `data` and `tensor` leave.
      devices: all devices of the run by default.
    Returns:
      Mesh whose axes are split by the compiler (`AxisType.Auto`).
    Raises:
      ValueError: the sizes do not multiply to the number of devices.
    Example:
      >>> import types
      >>> sizes = types.SimpleNamespace(data=1, fsdp=-1, tensor=1)
      >>> make_mesh(sizes, jax.devices()[:1]).shape["fsdp"]
      1
    """
    devices = list(jax.devices() if devices is None else devices)
    shape = mesh_shape(mesh_config, len(devices))
    return jax.make_mesh(shape, AXES, devices=devices, axis_types=(AxisType.Auto,) * len(AXES))


def mesh_shape(mesh_config: MeshConfig, num_devices: int) -> tuple[int, int, int]:
    """Devices along ("data", "fsdp", "tensor").

    Raises:
      ValueError: the sizes do not multiply to the number of devices.
    """
    data, fsdp, tensor = mesh_config.data, mesh_config.fsdp, mesh_config.tensor
    if fsdp == -1:
        fsdp = max(1, num_devices // (data * tensor))
    shape = (data, fsdp, tensor)
    if min(shape) < 1 or math.prod(shape) != num_devices:
        raise ValueError(
            f"mesh data={data} * fsdp={mesh_config.fsdp} * tensor={tensor} does not use {num_devices} devices: "
            f"choose sizes >= 1 whose product is {num_devices}, or fsdp=-1 with data * tensor dividing it"
        )
    return shape


def abstract_mesh(shape: tuple[int, int, int]) -> AbstractMesh:
    """The mesh of `make_mesh` on devices that are not here, for shapes alone; `shape` as `mesh_shape` gives it."""
    return AbstractMesh(shape, AXES)


def partition_spec(
    mesh: AnyMesh,
    names: Sequence[str | None],
    shape: Sequence[int],
    rules: Mapping[str, MeshAxes] = RULES,
) -> PartitionSpec:
    """PartitionSpec of one array; an axis that its mesh axis does not divide is replicated.

    Args:
      mesh: from `make_mesh`.
      names: logical name of each axis, None for one that is never split.
      shape: of the array.
      rules: logical name -> mesh axis.
    Returns:
      PartitionSpec with one entry per axis.
    Raises:
      ValueError: a name without a rule, or not one name per axis.
    """
    if len(names) != len(shape):
        raise ValueError(
            f"axis names {tuple(names)} do not fit the shape {tuple(shape)}: give one name per axis"
        )
    unknown = [name for name in names if name is not None and name not in rules]
    if unknown:
        raise ValueError(
            f"axis name {unknown[0]!r} has no sharding rule; known: {', '.join(rules)}"
        )
    entries = [None if name is None else rules[name] for name in names]
    return PartitionSpec(
        *(
            axes if axes is not None and size % _num_shards(mesh, axes) == 0 else None
            for axes, size in zip(entries, shape, strict=True)
        )
    )


def _num_shards(mesh: AnyMesh, axes: str | tuple[str, ...]) -> int:
    return math.prod(mesh.shape[axis] for axis in ((axes,) if isinstance(axes, str) else axes))


def param_shardings(
    mesh: AnyMesh, logical_axes: Any, shapes: Any, rules: Mapping[str, MeshAxes] = RULES
) -> Any:
    """Tree of NamedShardings for a tree of parameters.

    Args:
      mesh: from `make_mesh`.
      logical_axes: tree of tuples of names, as `models.transformer.logical_axes` gives.
      shapes: the same tree of arrays or ShapeDtypeStructs.
      rules: logical name -> mesh axis.
    Returns:
      The same tree of NamedShardings.
    """

    def shard(names, array):
        return NamedSharding(mesh, partition_spec(mesh, names, array.shape, rules))

    return jax.tree.map(shard, logical_axes, shapes, is_leaf=lambda x: isinstance(x, tuple))


def state_shardings(mesh: AnyMesh, logical_axes: Any, state: TrainState) -> TrainState:
    """Shardings of a state: optimizer moments beside their parameters, the rest everywhere.

    Args:
      mesh: from `make_mesh`.
      logical_axes: of its parameters, as in `param_shardings`.
      state: its arrays or their shapes.
    Returns:
      TrainState of shardings, without a companion.
    """
    params = param_shardings(mesh, logical_axes, state.params)
    everywhere = replicated(mesh)
    leaves = jax.tree_util.tree_leaves_with_path(state.params)
    places = dict(zip((path for path, _ in leaves), jax.tree.leaves(params), strict=True))
    shapes = {path: x.shape for path, x in leaves}

    # A moment lies in the optimizer's state under the path of its parameter, however the optimizer is chained.
    def place(path: tuple, x: Any) -> jax.sharding.Sharding:
        for start in range(len(path)):
            if shapes.get(path[start:]) == x.shape:
                return places[path[start:]]
        return everywhere

    moments = jax.tree_util.tree_map_with_path(place, state.opt_state)
    return TrainState(everywhere, params, moments, everywhere)


def row_shards(mesh: AnyMesh) -> int:
    """Number of pieces that rows are split into; it must divide every global number of rows."""
    return _num_shards(mesh, ROW_AXES)


def batch_sharding(mesh: AnyMesh) -> NamedSharding:
    """Rows (the first axis) split over ("data", "fsdp"), the rest whole."""
    return NamedSharding(mesh, PartitionSpec(ROW_AXES))


def replicated(mesh: AnyMesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def constrain(x: jax.Array, mesh: Mesh | None, names: Sequence[str | None]) -> jax.Array:
    """Inside jit: split an array by the logical names of its axes; nothing happens without a mesh.

    Said of activations, it makes the compiler gather weights and not activations.
    """
    if mesh is None:
        return x
    spec = partition_spec(mesh, names, x.shape)
    return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, spec))


def gather_params(params: Any, mesh: Mesh | None, logical_axes: Any) -> Any:
    """Inside jit: gather parameters over "fsdp", for loops that read every weight many times."""
    if mesh is None:
        return params
    shardings = param_shardings(mesh, logical_axes, params, GATHERED_RULES)
    return jax.tree.map(jax.lax.with_sharding_constraint, params, shardings)


def to_global(tree: Any, shardings: Any) -> Any:
    """Host arrays -> global arrays.

    Args:
      tree: numpy arrays, whole and equal on every process.
      shardings: one sharding for all, or a tree of them.
    Returns:
      The same tree of jax arrays; each process places only the pieces of its own devices.
    Raises:
      ValueError: the first axis of an array does not divide into the pieces of its sharding.
    """
    if isinstance(shardings, jax.sharding.Sharding):
        sharding = shardings
        shardings = jax.tree.map(lambda _: sharding, tree)
    return jax.tree.map(_place, tree, shardings)


def _place(array: Any, sharding: jax.sharding.Sharding) -> jax.Array:
    if isinstance(array, jax.Array) and not array.is_fully_addressable:
        return jax.device_put(array, sharding)
    array = np.asarray(array)
    try:
        sharding.shard_shape(array.shape)
    except ValueError as error:
        raise ValueError(
            f"an array of shape {array.shape} does not divide over {sharding}: pad its rows (budget or weight 0)"
        ) from error
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def to_host(tree: Any) -> Any:
    """Global arrays -> whole numpy arrays on every process.

    Args:
      tree: jax arrays, split over any devices.
    Returns:
      The same tree of numpy arrays. With several processes this is a collective call: all must make it.
    Example:
      >>> to_host({"x": jax.numpy.arange(2)})["x"]
      array([0, 1], dtype=int32)
    """
    if jax.process_count() == 1:
        return jax.device_get(tree)
    return jax.tree.map(
        lambda x: (
            np.asarray(x)
            if x.is_fully_addressable
            else np.asarray(multihost_utils.process_allgather(x, tiled=True))
        ),
        tree,
    )
