"""A Hugging Face checkpoint folder as a whole: config, weights, tokenizer, generation settings; in and out.

Host side. Reads: config.json, generation_config.json, tokenizer.json, *.safetensors. Writes: the same. No code of a
checkpoint is ever run, and no pickle read.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import Any

import transformers

from jaxrl_reason.models import convert, families
from jaxrl_reason.models import tokenizer as tokenizers
from jaxrl_reason.models.model_config import ModelConfig
from jaxrl_reason.types import Params

CONFIG_FILE = "config.json"
_GENERATION_FILE = "generation_config.json"


@dataclasses.dataclass(frozen=True)
class Description:
    """What the JSON files of a checkpoint say."""

    architecture: str
    config: ModelConfig
    settings: dict[str, Any]  # config.json, with generation_config.json over it


def is_checkpoint(folder: pathlib.Path) -> bool:
    """Whether this is a folder of `transformers`; a run of ours has a config.json too, of another kind.

    Raises:
      ValueError: the config.json is damaged.
    """
    path = folder / CONFIG_FILE
    return path.is_file() and not {"architectures", "model_type"}.isdisjoint(read_json(path))


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """Contents of a JSON file that holds an object.

    Raises:
      ValueError: it is no JSON, or no object.
    """
    try:
        fields = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: is not JSON ({error})") from error
    if not isinstance(fields, dict):
        raise ValueError(f"{path}: must hold a JSON object, not a {type(fields).__name__}")
    return fields


def describe(folder: pathlib.Path) -> Description:
    """Read the JSON files of a checkpoint; no weights.

    Raises:
      ValueError: the architecture or a field of config.json is not supported; every such field in one error.
    """
    fields = read_json(folder / CONFIG_FILE)
    try:
        architecture = families.architecture_of(fields)
        config = families.model_config(fields)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{folder / CONFIG_FILE}: {error}") from error
    generation = folder / _GENERATION_FILE
    settings = fields | (read_json(generation) if generation.is_file() else {})
    return Description(architecture, config, settings)


def read_params(
    folder: pathlib.Path,
    description: Description,
    shapes: Params,
    shardings: Params | None,
    *,
    param_dtype: str | None,
) -> tuple[Params, str]:
    """(parameters, their dtype) of a checkpoint; see `convert.read`.

    Args:
      folder: of the checkpoint.
      description: of the same.
      shapes: tree of ShapeDtypeStructs.
      shardings: the same tree of shardings; None: the default device.
      param_dtype: float32 or bfloat16; None: bfloat16 where all tensors have it, else float32.
    """
    with convert.open_weights(folder) as tensors:
        dtype = param_dtype or convert.stored_dtype(tensors)
        config = dataclasses.replace(description.config, param_dtype=dtype)
        try:
            params = convert.read(
                tensors, config, shapes, shardings, architecture=description.architecture
            )
        except ValueError as error:
            raise ValueError(f"{folder}: {error}") from error
    return params, dtype


def read_tokenizer(folder: pathlib.Path, description: Description) -> Any:
    """The tokenizer of a checkpoint, with EOS, padding and BOS as the checkpoint says.

    Raises:
      FileNotFoundError: there is no tokenizer.json.
      ValueError: more tokens than the model has, or settings that do not fit.
    """
    tokenizer = load_tokenizer(folder, description.config.vocab_size)
    try:
        tokenizers.adopt_settings(tokenizer, description.settings)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from error
    return tokenizer


def load_tokenizer(folder: pathlib.Path, vocab_size: int) -> Any:
    """tokenizer.json of any folder, as it is.

    Raises:
      FileNotFoundError: there is none.
      ValueError: it has more tokens than the model.
    """
    if not (folder / "tokenizer.json").is_file():
        raise FileNotFoundError(
            f"{folder}: no tokenizer.json; write one with tokenizer.save_pretrained of transformers"
        )
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    if len(tokenizer) > vocab_size:
        raise ValueError(
            f"{folder}: the tokenizer has {len(tokenizer)} tokens, the model only {vocab_size}"
        )
    return tokenizer


def write(folder: pathlib.Path, config: ModelConfig, params: Params, tokenizer: Any) -> None:
    """Write a checkpoint that `transformers` loads.

    Args:
      folder: exists.
      config: of the model.
      params: written in the dtype that they have, which must be `config.param_dtype`.
      tokenizer: its stop ids go to generation_config.json.
    Raises:
      ValueError: no architecture of transformers has these switches.
    """
    stops = list(tokenizers.stop_ids(tokenizer))
    tokens = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": stops[0] if len(stops) == 1 else stops,
        "pad_token_id": tokenizer.pad_token_id,
    }
    files = {
        CONFIG_FILE: families.config_fields(config) | tokens,
        _GENERATION_FILE: {name: i for name, i in tokens.items() if i is not None},
    }
    for name, fields in files.items():
        (folder / name).write_text(json.dumps(fields, indent=2) + "\n")
    convert.write(folder, config, params)
    tokenizers.save(tokenizer, folder)
