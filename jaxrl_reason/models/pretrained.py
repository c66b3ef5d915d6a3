"""A Hugging Face checkpoint folder as a whole: config, weights, tokenizer, generation settings; in and out.

Host side. Reads: config.json, generation_config.json, tokenizer.json, *.safetensors. Writes: the same. No code of a
checkpoint is ever run, and no pickle read.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import transformers

from jaxrl_reason.models import convert, families, json_files
from jaxrl_reason.models import tokenizer as tokenizers
from jaxrl_reason.models.model_config import ModelConfig
from jaxrl_reason.types import Params

CONFIG_FILE = "config.json"
_GENERATION_FILE = "generation_config.json"
# What a tokenizer is read from besides tokenizer.json.
_TOKENIZER_FILES = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.json",
)


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
    return path.is_file() and not {"architectures", "model_type"}.isdisjoint(
        json_files.read_object(path)
    )


def describe(folder: pathlib.Path) -> Description:
    """Read the JSON files of a checkpoint; no weights.

    Raises:
      ValueError: the architecture or a field of config.json is not supported; every such field in one error.
    """
    fields = json_files.read_object(folder / CONFIG_FILE)
    try:
        architecture = families.architecture_of(fields)
        config = families.model_config(fields)
    except (ValueError, ArithmeticError) as error:
        raise ValueError(f"{folder / CONFIG_FILE}: {error}") from error
    path = folder / _GENERATION_FILE
    generation = json_files.read_object(path) if path.is_file() else {}
    for file, found in ((folder / CONFIG_FILE, fields), (path, generation)):
        _check_token_ids(file, found)
    return Description(architecture, config, fields | generation)


def _check_token_ids(path: pathlib.Path, fields: Mapping[str, Any]) -> None:
    for name in ("eos_token_id", "pad_token_id", "bos_token_id"):
        value = fields.get(name)
        ids = value if name == "eos_token_id" and isinstance(value, list) else [value]
        if value is not None and any(type(i) is not int for i in ids):
            also = " or a list of them" if name == "eos_token_id" else ""
            raise ValueError(f"{path}: {name} = {json_files.shown(value)}: must be an id{also}")


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
      ValueError: it has more tokens than the model, or a file of it is damaged.
    """
    if not (folder / "tokenizer.json").is_file():
        raise FileNotFoundError(
            f"{folder}: no tokenizer.json; write one with tokenizer.save_pretrained of transformers"
        )
    for path in (folder / name for name in _TOKENIZER_FILES):
        if path.is_file():
            json_files.read_object(path)
    try:
        tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(
            folder, local_files_only=True
        )
    except BaseException as error:  # of three libraries, one of which panics with its own kind
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise
        json_files.read_object(folder / "tokenizer.json")
        said = f"{type(error).__name__}: {error}"[:200]
        raise ValueError(
            f"{folder}: tokenizer.json, or a file beside it, is damaged or of a kind that is not read ({said})"
        ) from error
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
