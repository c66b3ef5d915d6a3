"""The mesh, the rules, and arrays that cross between host and devices, on eight CPU devices."""

from __future__ import annotations

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from jaxrl_reason import config, sharding


def sizes(data=1, fsdp=1, tensor=1):
    return types.SimpleNamespace(data=data, fsdp=fsdp, tensor=tensor)


def test_the_default_config_takes_all_devices():
    mesh = sharding.make_mesh(config.base().mesh)
    assert mesh.axis_names == ("data", "fsdp", "tensor")
    assert mesh.devices.shape == (1, len(jax.devices()), 1)


def test_a_section_of_the_config_and_plain_attributes_are_sizes_of_a_mesh():
    assert isinstance(config.base().mesh, sharding.MeshConfig)
    assert isinstance(sizes(), sharding.MeshConfig)
    assert not isinstance(types.SimpleNamespace(data=1, fsdp=1), sharding.MeshConfig)


def test_minus_one_takes_what_is_left():
    assert sharding.make_mesh(sizes(data=2, fsdp=-1, tensor=2)).devices.shape == (2, 2, 2)
    assert sharding.make_mesh(sizes(fsdp=-1), jax.devices()[:1]).devices.shape == (1, 1, 1)


@pytest.mark.parametrize(
    "bad",
    [
        sizes(2, 2, 3),
        sizes(1, -1, 3),
        sizes(1, 1, 1),
        sizes(1, 0, 1),
        sizes(-1, 1, 1),
        sizes(16, -1, 1),
    ],
)
def test_sizes_that_do_not_use_all_devices_are_named(bad):
    with pytest.raises(
        ValueError, match=f"data={bad.data} .*fsdp={bad.fsdp} .*tensor={bad.tensor} .* 8 devices"
    ):
        sharding.make_mesh(bad)


def test_rules_split_what_divides_and_replicate_the_rest():
    mesh = sharding.make_mesh(sizes(data=2, fsdp=2, tensor=2))
    spec = sharding.partition_spec
    assert spec(mesh, ("layers", "embed", "mlp"), (3, 4, 6)) == PartitionSpec(
        None, "fsdp", "tensor"
    )
    assert spec(mesh, ("vocab", "embed"), (5, 4)) == PartitionSpec(None, "fsdp")  # 5 tokens over 2
    assert spec(mesh, ("rows", None), (8, 3)) == PartitionSpec(("data", "fsdp"), None)
    assert spec(mesh, ("rows", None), (6, 3)) == PartitionSpec(None, None)  # 6 rows over 4
    gathered = spec(mesh, ("embed", "heads", "head_dim"), (4, 4, 8), sharding.GATHERED_RULES)
    assert gathered == PartitionSpec(None, "tensor", None)


def test_names_without_a_rule_and_without_an_axis_are_errors():
    mesh = sharding.make_mesh(sizes(fsdp=-1))
    with pytest.raises(ValueError, match="'embd' has no sharding rule"):
        sharding.partition_spec(mesh, ("embd",), (4,))
    with pytest.raises(ValueError, match="one name per axis"):
        sharding.partition_spec(mesh, ("embed",), (4, 4))


def test_parameters_lie_where_the_rules_say():
    mesh = sharding.make_mesh(sizes(fsdp=4, tensor=2))
    params = {
        "up": np.arange(32.0, dtype=np.float32).reshape(8, 4),
        "scale": np.ones(3, np.float32),
    }
    axes = {"up": ("embed", "mlp"), "scale": ("head_dim",)}
    placed = sharding.to_global(params, sharding.param_shardings(mesh, axes, params))
    assert placed["up"].sharding.shard_shape((8, 4)) == (2, 2)
    assert placed["scale"].sharding.is_fully_replicated
    back = sharding.to_host(placed)
    assert isinstance(back["up"], np.ndarray)
    np.testing.assert_array_equal(back["up"], params["up"])


def test_rows_are_split_over_data_and_fsdp():
    mesh = sharding.make_mesh(sizes(data=2, fsdp=2, tensor=2))
    assert sharding.row_shards(mesh) == 4
    tokens = np.arange(24).reshape(8, 3)
    placed = sharding.to_global((tokens, tokens[:, 0]), sharding.batch_sharding(mesh))
    assert [x.sharding.shard_shape(x.shape) for x in placed] == [(2, 3), (2,)]
    for shard in placed[0].addressable_shards:
        np.testing.assert_array_equal(shard.data, tokens[shard.index])
    whole = sharding.to_global(tokens, sharding.replicated(mesh))
    assert whole.sharding.is_fully_replicated


def test_rows_that_do_not_divide_are_an_error():
    mesh = sharding.make_mesh(sizes(fsdp=8))
    with pytest.raises(ValueError, match=r"\(6, 2\) does not divide.*pad its rows"):
        sharding.to_global(np.zeros((6, 2)), sharding.batch_sharding(mesh))


def test_constraints_split_inside_jit_and_are_nothing_without_a_mesh():
    mesh = sharding.make_mesh(sizes(fsdp=4, tensor=2))
    x = jnp.arange(32.0).reshape(8, 4)
    split = jax.jit(lambda x: sharding.constrain(x, mesh, ("rows", "heads")))(x)
    assert split.sharding.shard_shape((8, 4)) == (2, 2)
    np.testing.assert_array_equal(split, x)
    assert sharding.constrain(x, None, ("rows", "heads")) is x


def test_gathered_parameters_are_whole_along_fsdp():
    mesh = sharding.make_mesh(sizes(fsdp=4, tensor=2))
    params, axes = {"up": jnp.ones((8, 4))}, {"up": ("embed", "mlp")}
    gathered = jax.jit(lambda p: sharding.gather_params(p, mesh, axes))(params)
    assert gathered["up"].sharding.shard_shape((8, 4)) == (8, 2)
    assert sharding.gather_params(params, None, axes) is params
