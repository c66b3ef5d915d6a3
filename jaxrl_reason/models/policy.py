"""A policy: parameters, tokenizer and the function between them, from a preset or a folder and back to one.

Host side, except `Policy.apply` (device side, jit-safe). Reads: a policy folder, or a Hugging Face one. Writes:
the same.

| file in a policy folder | holds |
| --- | --- |
| `model.json` | the fields of `transformer.ModelConfig` |
| `params.safetensors` | parameters by path, "layers.mlp.up", in their own dtype |
| `tokenizer.json`, ... | what `tokenizer.save` writes |
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import pathlib
import shutil
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int

from jaxrl_reason import hub, sharding
from jaxrl_reason.models import convert, families, json_files, lora, pretrained, transformer
from jaxrl_reason.models import tokenizer as tokenizers
from jaxrl_reason.models.model_config import DeltaConfig, ExpertsConfig, LoraConfig, RopeScaling
from jaxrl_reason.ops import attention as ops_attention
from jaxrl_reason.types import Params

_MODEL_FILE = "model.json"
_PARAMS_FILE = "params.safetensors"
_RECORDS = {
    "rope_scaling": RopeScaling,
    "experts": ExpertsConfig,
    "delta": DeltaConfig,
    "lora": LoraConfig,
}
_RUN_SUBFOLDER = "policy"  # where a run leaves its trained policy

ApplyFn = Callable[[Params, Any, Any], Array]


@dataclasses.dataclass(frozen=True, eq=False)
class Policy:
    """Everything that is needed to sample from a model and to train it."""

    config: transformer.ModelConfig
    params: Params  # nested dict of arrays, as `transformer.init_params` makes them
    tokenizer: Any  # transformers tokenizer, with EOS and padding tokens
    # (params, tokens [B, T], token_mask [B, T]) -> logits [B, T, V] float32: position t predicts token t + 1. For
    # small inputs only; training never makes this array.
    apply: ApplyFn


def load_policy(
    source: str | os.PathLike,
    *,
    dtype: str = "float32",
    remat: str = "none",
    attention: str = "auto",
    mesh: Mesh | None = None,
    tokenizer: Any = None,
    seed: int = 0,
    param_dtype: str | None = None,
) -> Policy:
    """A policy with random weights (preset) or with those of a folder.

    Args:
      source: name of a preset, a folder written by `save_policy`, a run folder that has one in `policy/`, or a
        Hugging Face checkpoint folder (config.json, safetensors, tokenizer.json) of a family in `families`, or the id
        of one on the hub, "owner/name" or "owner/name@revision".
      dtype: compute dtype, float32 or bfloat16. Parameters keep the dtype they have.
      remat: what the backward pass computes anew: none | full | dots, see `config.model.remat`.
      attention: kernel of whole rows: auto | dense | xla | cudnn | splash, see `ops.attention.pick_kernel`.
      mesh: where parameters are placed, split as `sharding.RULES` say; None: the default device.
      tokenizer: of a preset; the arithmetic one by default, and it sets the vocabulary size. For a policy folder,
        which has its own: what it must be equal to, unless it came with a checkpoint. A checkpoint's own is kept.
      seed: of random weights.
      param_dtype: float32 or bfloat16, of a folder's parameters; None: the one that they have.
    Returns:
      Policy.
    Raises:
      FileNotFoundError: no such preset or folder, or a file of it is missing.
      ValueError: files that do not fit together, every missing, unknown and misshapen tensor in one error; or an
        attention kernel that these devices do not have.
    Example:
      >>> policy = load_policy("tiny")
      >>> policy.apply(policy.params, np.asarray([[111, 5, 7]]), np.ones((1, 3), bool)).shape
      (1, 3, 120)
    """
    source = os.fspath(source)
    platform = jax.default_backend() if mesh is None else mesh.devices.flat[0].platform
    kernel = ops_attention.pick_kernel(attention, platform=platform, dtype=dtype)
    computing = {"dtype": dtype, "remat": remat, "attention": kernel}
    if source in transformer.PRESETS and not os.path.isdir(source):
        tokenizer = tokenizers.arithmetic_tokenizer() if tokenizer is None else tokenizer
        config = dataclasses.replace(
            transformer.PRESETS[source], vocab_size=len(tokenizer), **computing
        )
        params = _random_params(config, mesh, seed)
        return Policy(config, params, tokenizer, _make_apply(config, mesh))
    folder = _policy_folder(os.fspath(hub.fetch(source)) if hub.is_hub_id(source) else source)
    if not (folder / _MODEL_FILE).is_file():
        config, params, tokenizer = _read_checkpoint(folder, mesh, param_dtype)
        config = dataclasses.replace(config, **computing)
    else:
        config = dataclasses.replace(read_config(folder / _MODEL_FILE), **computing)
        config = dataclasses.replace(config, param_dtype=param_dtype or config.param_dtype)
        tokenizer = _read_tokenizer(folder, config, tokenizer)
        params = _read_params(folder / _PARAMS_FILE, config, mesh)
    return Policy(config, params, tokenizer, _make_apply(config, mesh))


def merged(policy: Policy, mesh: Mesh | None = None) -> Policy:
    """The policy with its adapters, if it has any, merged into its weights."""
    if policy.config.lora is None:
        return policy
    config, params = lora.merge(policy.config, policy.params)
    return Policy(config, params, policy.tokenizer, _make_apply(config, mesh))


def adapted(
    policy: Policy, *, rank: int, alpha: float, targets: str, seed: int, mesh: Mesh | None = None
) -> Policy:
    """The policy with fresh adapters, which change nothing yet; those that it had are merged. See `lora.attach`."""
    policy = merged(policy, mesh)
    key = jax.random.key(seed)
    config, params = lora.attach(
        policy.config, policy.params, rank=rank, alpha=alpha, targets=targets, key=key, mesh=mesh
    )
    return Policy(config, params, policy.tokenizer, _make_apply(config, mesh))


def save_policy(folder: str | os.PathLike, policy: Policy) -> None:
    """Write a policy as a folder that `load_policy` reads; a policy that is there already is replaced.

    With several processes all must call this; the first one writes.

    Args:
      folder: made if it is missing. It changes only once everything is written.
      policy: its parameters may be split over any devices.
    Raises:
      ValueError: the folder holds something that is not a policy.
    Example:
      >>> import tempfile
      >>> folder = tempfile.mkdtemp()
      >>> save_policy(folder, load_policy("tiny", seed=3))
      >>> load_policy(folder).config.d_model
      64
    """
    folder = pathlib.Path(folder).absolute()
    if folder.is_dir() and any(folder.iterdir()) and not (folder / _MODEL_FILE).is_file():
        raise ValueError(f"{folder}: holds files but no policy; choose an empty or new folder")
    tensors = {
        name: np.ascontiguousarray(x) for name, x in convert.flat(sharding.to_host(policy.params))
    }
    if jax.process_index() != 0:
        return

    def write(fresh: pathlib.Path) -> None:
        model = json.dumps(dataclasses.asdict(policy.config), indent=2) + "\n"
        (fresh / _MODEL_FILE).write_text(model)
        safetensors.numpy.save_file(tensors, fresh / _PARAMS_FILE)
        tokenizers.save(policy.tokenizer, fresh)

    replace_folder(folder, write)


def export_policy(
    folder: str | os.PathLike, policy: Policy, *, param_dtype: str | None = None
) -> None:
    """Write a policy as a checkpoint that `transformers` loads, with the same logits; adapters are merged.

    With several processes all must call this; the first one writes.

    Args:
      folder: new or empty. It appears only once everything is written.
      policy: its parameters may be split over any devices.
      param_dtype: float32 or bfloat16, written; None: the one that the parameters have.
    Raises:
      ValueError: the folder holds something, or no architecture of transformers is like this model.
    Example:
      >>> import tempfile
      >>> folder = tempfile.mkdtemp()
      >>> export_policy(folder, load_policy("tiny"))
      >>> sorted(path.name for path in pathlib.Path(folder).glob("*.safetensors"))
      ['model.safetensors']
      >>> load_policy(folder).config.d_model
      64
    """
    folder = _export_folder(folder)
    config, params = lora.merge(policy.config, sharding.to_host(policy.params))
    config = dataclasses.replace(config, param_dtype=param_dtype or config.param_dtype)
    params = jax.tree.map(lambda x: x.astype(config.param_dtype), params)
    if jax.process_index() != 0:
        return

    def write(fresh: pathlib.Path) -> None:
        pretrained.write(fresh, config, params, policy.tokenizer)

    replace_folder(folder, write)


def export_adapters(folder: str | os.PathLike, policy: Policy, *, base: str = "") -> None:
    """Write a policy's adapters alone, as a folder of PEFT.

    With several processes all must call this; the first one writes.

    Args:
      folder: new or empty. It appears only once everything is written.
      policy: with adapters.
      base: folder or hub id of the weights below them, for the reader.
    Raises:
      ValueError: the folder holds something, or the policy has no adapters.
    """
    folder = _export_folder(folder)
    params = sharding.to_host(lora.split(policy.params)[1])
    if jax.process_index() == 0:
        replace_folder(folder, lambda fresh: lora.write_peft(fresh, policy.config, params, base))


def _export_folder(folder: str | os.PathLike) -> pathlib.Path:
    folder = pathlib.Path(folder).absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder}: is not empty; choose an empty or new folder to export to")
    return folder


def replace_folder(folder: pathlib.Path, write: Callable[[pathlib.Path], None]) -> None:
    """Write a folder beside its place, then put it there: it changes only once everything is written.

    Raises:
      OSError: it could not be written: the disk is full, or closed to this process. What was there is still there,
        and nothing is left beside it.
    """
    fresh, old = (folder.with_name(f".{folder.name}.{suffix}") for suffix in ("new", "old"))
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        fresh.mkdir(parents=True)
        write(fresh)
        _same_mode(fresh)
        # Two renames, since a folder that is not empty cannot be replaced by one.
        shutil.rmtree(old, ignore_errors=True)
        if folder.is_dir():
            folder.rename(old)
        fresh.rename(folder)
    except (OSError, safetensors.SafetensorError) as error:
        shutil.rmtree(fresh, ignore_errors=True)  # before its room is told
        raise OSError(
            f"{folder}: cannot be written ({getattr(error, 'strerror', None) or error}){_room(folder)}"
        ) from error
    finally:
        if old.is_dir() and not folder.is_dir():
            old.rename(folder)
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _same_mode(folder: pathlib.Path) -> None:
    """Give every file the mode that a new file has here: safetensors writes for its owner alone."""
    probe = folder / ".mode"
    probe.touch()
    mode = probe.stat().st_mode
    probe.unlink()
    for path in folder.iterdir():
        if path.is_file():
            path.chmod(mode)


def _room(folder: pathlib.Path) -> str:
    """How much is free where a folder was to be."""
    place = next(path for path in folder.parents if path.is_dir())
    return f"; {shutil.disk_usage(place).free / 1e9:.2f} GB are free there: make room, or choose another folder"


@functools.lru_cache(maxsize=8)  # policies of one shape share what is compiled
def _make_apply(config: transformer.ModelConfig, mesh: Mesh | None) -> ApplyFn:
    def apply(
        params: Params,
        tokens: Int[Array | np.ndarray, "B T"],
        token_mask: Bool[Array | np.ndarray, "B T"],
    ) -> Float[Array, "B T V"]:
        hidden, _ = transformer.forward(config, params, tokens, token_mask, mesh=mesh)
        return transformer.logits(params, hidden)

    return jax.jit(apply)


def _param_shardings(config: transformer.ModelConfig, mesh: Mesh) -> Params:
    return sharding.param_shardings(
        mesh, transformer.logical_axes(config), transformer.param_shapes(config)
    )


def _random_params(config: transformer.ModelConfig, mesh: Mesh | None, seed: int) -> Params:
    key = jax.random.key(seed)
    if mesh is None:
        return transformer.init_params(config, key)
    # With out_shardings no device ever holds the whole model.
    init = functools.partial(transformer.init_params, config)
    return jax.jit(init, out_shardings=_param_shardings(config, mesh))(key)


def _policy_folder(source: str) -> pathlib.Path:
    folder = pathlib.Path(source)
    if not folder.is_dir():
        if folder.suffix == ".gguf":
            raise FileNotFoundError(f"{source}: {convert.GGUF_REFUSAL}")
        raise FileNotFoundError(
            f"{source!r} is neither a preset ({', '.join(transformer.PRESETS)}) nor a folder{hub.hidden(source)}"
        )
    for candidate in (folder, folder / _RUN_SUBFOLDER):
        if (candidate / _MODEL_FILE).is_file() or pretrained.is_checkpoint(candidate):
            return candidate
    if convert.gguf_files(folder):
        raise FileNotFoundError(f"{source}: {convert.GGUF_REFUSAL}")
    raise FileNotFoundError(
        f"{source}: no {_MODEL_FILE} here or in {_RUN_SUBFOLDER}/, and no checkpoint's"
        f" {pretrained.CONFIG_FILE}; give a Hugging Face folder, one written by save_policy, or a run"
        " that has ended: it leaves its policy there"
    )


def _read_checkpoint(
    folder: pathlib.Path, mesh: Mesh | None, param_dtype: str | None
) -> tuple[transformer.ModelConfig, Params, Any]:
    description = pretrained.describe(folder)
    if description.architecture in families.PRM_ARCHITECTURES:
        raise ValueError(
            f"{folder}: is a process reward model, which makes no text; load it with models.prm.load_prm"
        )
    config = description.config
    tokenizer = pretrained.read_tokenizer(folder, description)
    params, dtype = pretrained.read_params(
        folder,
        description,
        transformer.param_shapes(config),
        None if mesh is None else _param_shardings(config, mesh),
        param_dtype=param_dtype,
    )
    return dataclasses.replace(config, param_dtype=dtype), params, tokenizer


def read_config(path: pathlib.Path) -> transformer.ModelConfig:
    """ModelConfig of a model.json, without what the run that wrote it chose for its own computing.

    Raises:
      ValueError: unknown or missing fields.
    """
    fields = json_files.read_object(path)
    for name in ("dtype", "remat", "attention"):
        fields.pop(name, None)
    problems = json_files.record_problems(transformer.ModelConfig, fields)
    records = {name: fields[name] for name in _RECORDS if fields.get(name) is not None}
    for name, values in records.items():
        if isinstance(values, dict):
            problems += json_files.record_problems(_RECORDS[name], values, f"{name}.")
        else:
            problems.append(f"{name} = {json_files.shown(values)}: must be an object")
    if problems:
        raise ValueError(f"{path}: bad model config:\n" + "\n".join(f"  {p}" for p in problems))
    try:
        if "lora" in records:
            records["lora"]["targets"] = tuple(map(str, records["lora"]["targets"]))
        made = {name: _RECORDS[name](**values) for name, values in records.items()}
        return transformer.ModelConfig(**(fields | made))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from error


def _read_tokenizer(
    folder: pathlib.Path, config: transformer.ModelConfig, expected: Any | None
) -> Any:
    tokenizer = pretrained.load_tokenizer(folder, config.vocab_size)
    if not tokenizers.is_own(tokenizer):
        return tokenizer
    if expected is not None and tokenizer.get_vocab() != expected.get_vocab():
        raise ValueError(
            f"{folder}: the policy's tokenizer ({len(tokenizer)} tokens) is not the one the task uses"
            f" ({len(expected)} tokens); choose a policy trained for this task"
        )
    return tokenizer


def _read_params(path: pathlib.Path, config: transformer.ModelConfig, mesh: Mesh | None) -> Params:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; save the policy with save_policy")
    shapes = dict(convert.flat(transformer.param_shapes(config)))
    targets = {} if mesh is None else dict(convert.flat(_param_shardings(config, mesh)))
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            _check_tensors(path, file, shapes)
            params = {}
            for name in shapes:
                array = file.get_tensor(name).astype(shapes[name].dtype)
                params[name] = (
                    sharding.to_global(array, targets[name]) if mesh else jnp.asarray(array)
                )
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path}: is damaged or no safetensors file ({error})") from error
    return convert.nest(params)


def _check_tensors(path: pathlib.Path, file: Any, shapes: Mapping[str, Any]) -> None:
    """Compare names and shapes from the file's header, before anything is read."""
    found = set(file.keys())
    problems = [f"{name}: missing" for name in sorted(shapes.keys() - found)]
    problems += [f"{name}: the model has no such tensor" for name in sorted(found - shapes.keys())]
    for name in sorted(found & shapes.keys()):
        shape = tuple(file.get_slice(name).get_shape())
        if shape != shapes[name].shape:
            problems.append(f"{name}: shape {shape}, the model needs {shapes[name].shape}")
    if problems:
        raise ValueError(
            f"{path}: does not fit {_MODEL_FILE} beside it:\n"
            + "\n".join(f"  {p}" for p in problems)
        )
