"""Will a run fit: bytes per device of everything that it holds, before anything is loaded.

Host side. Reads: a config, and the config.json of its model or, by name, `models.published`. Writes: nothing; no array
is made, and no device is needed.

The figures are those of `memory`; here are the kinds of devices, and the search for the smallest mesh.
"""

from __future__ import annotations

import dataclasses
import math
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import ml_collections

from jaxrl_reason import memory, parts, sharding, tasks
from jaxrl_reason.models import families, json_files, published, transformer
from jaxrl_reason.models import policy as policies
from jaxrl_reason.models import tokenizer as tokenizers
from jaxrl_reason.models.model_config import ModelConfig
from jaxrl_reason.ops.attention import pick_kernel
from jaxrl_reason.rollout import batching


@dataclasses.dataclass(frozen=True)
class Device:
    """One kind of accelerator."""

    platform: str  # cpu | gpu | tpu
    num_bytes: float  # of memory


# Capacities that the makers give for one chip (TPU v5e, v5p, v6e) or card (A100 80 GB, H100, H200 and B200, SXM).
DEVICES: Mapping[str, Device] = {
    "v5e": Device("tpu", 16e9),
    "v5p": Device("tpu", 95e9),
    "v6e": Device("tpu", 32e9),
    "a100": Device("gpu", 80e9),
    "h100": Device("gpu", 80e9),
    "h200": Device("gpu", 141e9),
    "b200": Device("gpu", 180e9),
}
# Share that arrays may fill: the rest is for the runtime, the programs and gaps between arrays.
USABLE = 0.9
# Activations of the update that take this share of the peak are worth the time of computing them twice.
_DOMINATE = 0.5
_MOST_DEVICES = 4096


@dataclasses.dataclass(frozen=True)
class Plan:
    """What `plan` found."""

    source: str
    device: str
    num_params: int
    estimate: memory.Estimate
    smallest: (
        memory.Estimate | None
    )  # fewest devices of this kind that hold the run; None: no mesh does
    # with model.remat=full on the mesh that was asked for; None: activations do not dominate, or it is set already
    remat: memory.Estimate | None = None

    @property
    def fits(self) -> bool:
        """Whether the mesh that was asked for holds the run."""
        return self.estimate.peak <= USABLE * DEVICES[self.device].num_bytes


def plan(config: ml_collections.ConfigDict, *, device: str, num_devices: int) -> Plan:
    """Memory of a run on devices that need not be here.

    Args:
      config: of the run. `model.source` may be a preset, a policy folder, a checkpoint folder of which config.json is
        enough, a config.json, or the name of a checkpoint that `models.published` knows.
      device: a key of DEVICES.
      num_devices: of the whole run.
    Returns:
      Plan.
    Raises:
      ValueError: an unknown device, a mesh that does not use so many devices, or rows that do not divide over it.
      FileNotFoundError: neither is the model here, nor are its shapes known.
    Example:
      >>> from jaxrl_reason import config
      >>> plan(config.base(), device="v5e", num_devices=1).fits
      True
    """
    if device not in DEVICES:
        raise ValueError(f"device {device!r}: must be one of {', '.join(DEVICES)}")
    if num_devices < 1:
        raise ValueError(f"devices = {num_devices}: must be >= 1")
    model = read_model(config.model, DEVICES[device].platform)
    shapes = token_budgets(config)
    mesh = sharding.mesh_shape(config.mesh, num_devices)
    _check_rows(config, mesh)
    params = transformer.param_shapes(model)
    estimate, remat = memory.estimate(config, model, shapes, mesh), None
    if (
        model.remat != "full"
        and estimate.phases["update"]["activations"] > _DOMINATE * estimate.peak
    ):
        remat = memory.estimate(config, dataclasses.replace(model, remat="full"), shapes, mesh)
    return Plan(
        source=config.model.source,
        device=device,
        num_params=sum(math.prod(x.shape) for x in jax.tree.leaves(params)),
        estimate=estimate,
        smallest=_smallest(config, model, shapes, USABLE * DEVICES[device].num_bytes),
        remat=remat,
    )


def read_model(model_config: ml_collections.ConfigDict, platform: str) -> ModelConfig:
    """The model as the run would make it, from its JSON file alone.

    Args:
      model_config: `config.model`.
      platform: cpu | gpu | tpu.
    Raises:
      FileNotFoundError: see `plan`.
      ValueError: a model, or an attention kernel, that cannot run.
    """
    source = model_config.source
    path = pathlib.Path(source)
    if path.is_dir():
        found = [path / name for name in ("model.json", "policy/model.json", "config.json")]
        path = next((p for p in found if p.is_file()), path)
    fields = published.find(source)
    if source in transformer.PRESETS:
        model = transformer.PRESETS[source]
    elif path.is_file() and path.name == "model.json":
        model = policies.read_config(path)
    elif path.is_file():
        model = families.model_config(json_files.read_object(path))
    elif fields is not None:
        model = families.model_config(fields)
    else:
        raise FileNotFoundError(
            f"model.source = {source!r}: neither a preset, a folder with config.json, a config.json, nor one of"
            f" {', '.join(published.PUBLISHED)}"
        )
    kernel = pick_kernel(model_config.attention, platform=platform, dtype=model_config.dtype)
    return dataclasses.replace(
        model,
        dtype=model_config.dtype,
        remat=model_config.remat,
        # cuDNN's cannot be traced without a GPU. Splash attention keeps the same arrays: outputs and log-sums.
        attention="splash" if kernel == "cudnn" else kernel,
        param_dtype="float32",
    )


def token_budgets(config: ml_collections.ConfigDict) -> batching.Shapes:
    """Widths of the run's arrays; where the task's data are not here, those that the config gives.

    Raises:
      FileNotFoundError: the data are not here, and the config leaves a width to them.
    """
    prompt, completion = config.rollout.prompt_length, config.rollout.max_new_tokens
    if not (prompt and completion):
        task = tasks.make_task(config.task)
        return parts.make_prompts(config, task, tokenizers.make_tokenizer(task.tokenizer_name))[1]
    # A repair prompt holds the problem, a failed and a right completion.
    return batching.Shapes(prompt, completion, prompt + 2 * completion, config.rollout.chunk_rows)


def _check_rows(config: ml_collections.ConfigDict, mesh: tuple[int, int, int]) -> None:
    pieces = mesh[0] * mesh[1]
    if config.optim.microbatch_rows % pieces:
        raise ValueError(
            f"optim.microbatch_rows = {config.optim.microbatch_rows}: must be a multiple of the {pieces} devices that"
            " share rows, mesh.data * mesh.fsdp"
        )


def _smallest(
    config: Any, model: ModelConfig, shapes: batching.Shapes, limit: float
) -> memory.Estimate | None:
    for mesh_shape in _meshes(model):
        if memory.least(config, model, mesh_shape) > limit:
            continue
        found = memory.estimate(config, model, shapes, mesh_shape)
        if found.peak <= limit:
            return found
    return None


def _meshes(model: ModelConfig) -> Iterator[tuple[int, int, int]]:
    """Meshes in order of their devices, powers of two; few devices share a head before many do."""
    num = 1
    while num <= _MOST_DEVICES:
        for tensor in (1, 2, 4, 8):
            if num % tensor == 0 and model.num_heads % tensor == 0:
                yield 1, num // tensor, tensor
        num *= 2


def table(found: Plan) -> str:
    """The plan as text, in GB (1e9 bytes) per device."""
    device, one = DEVICES[found.device], found.estimate
    sizes = " ".join(f"{axis}={size}" for axis, size in one.mesh.items())
    lines = [
        f"{found.source}: {found.num_params / 1e9:.2f}e9 parameters",
        f"on {math.prod(one.mesh.values())} x {found.device}, {device.num_bytes / 1e9:g} GB each: {sizes}",
        "",
        f"{'GB per device':<40}",
    ]
    lines += [_line(name, size) for name, size in one.held.items()]
    for phase, rows in one.phases.items():
        lines += [phase, *(_line(f"  {name}", size) for name, size in rows.items())]
        lines.append(_line("  with all that is held", sum(one.held.values()) + sum(rows.values())))
    usable = USABLE * device.num_bytes
    verdict = "fits" if found.fits else "does NOT fit"
    lines += [
        "",
        f"peak {one.peak / 1e9:.2f} of {usable / 1e9:.1f} GB ({USABLE:.0%} of the memory): {verdict}",
    ]
    if found.remat is not None and found.remat.peak < one.peak:
        share = one.phases["update"]["activations"] / one.peak
        lines.append(
            f"activations of the update are {share:.0%} of it: with model.remat=full, which computes them anew, the"
            f" peak is {found.remat.peak / 1e9:.2f} GB"
        )
    if found.smallest is None:
        lines.append(f"smallest mesh that fits: none, with up to {_MOST_DEVICES} devices")
    else:
        mesh = " ".join(f"{axis}={size}" for axis, size in found.smallest.mesh.items())
        devices = math.prod(found.smallest.mesh.values())
        lines.append(
            f"smallest mesh that fits: {devices} devices, {mesh}, peak {found.smallest.peak / 1e9:.2f} GB"
        )
    if device.platform == "gpu":
        lines.append(
            f"JAX takes 75% of a GPU by itself: set XLA_PYTHON_CLIENT_MEM_FRACTION={USABLE}"
        )
    lines.append(f"activations are estimates, good to {memory.TOLERANCE:.0%}")
    return "\n".join(lines)


def _line(name: str, size: int) -> str:
    return f"{name:<32}{size / 1e9:8.2f}"
