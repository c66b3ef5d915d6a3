"""Reinforcement learning for reasoning models in JAX: `import jaxrl_reason as jr`.

Host side. Reads: nothing. Writes: nothing.

The names of `__all__` are the public ones and load what they need at first use, so that importing
the package costs nothing and touches no device. Other names may change without notice.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from types import ModuleType  # `types` is a module of ours
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxrl_reason.config import load as load_config
    from jaxrl_reason.credit.segment import segment
    from jaxrl_reason.evaluate import evaluate
    from jaxrl_reason.models.policy import load_policy
    from jaxrl_reason.ops.alignment import align
    from jaxrl_reason.rollout.facade import sample, token_logprobs
    from jaxrl_reason.train import train
    from jaxrl_reason.verify.answers import verify_answer

__version__ = "0.1.0"

__all__ = [
    "align",
    "evaluate",
    "load_config",
    "load_policy",
    "sample",
    "segment",
    "token_logprobs",
    "train",
    "verify_answer",
]

# Public name -> (module, name there).
_HOMES = {
    "align": ("jaxrl_reason.ops.alignment", "align"),
    "load_config": ("jaxrl_reason.config", "load"),
    "load_policy": ("jaxrl_reason.models.policy", "load_policy"),
    "sample": ("jaxrl_reason.rollout.facade", "sample"),
    "segment": ("jaxrl_reason.credit.segment", "segment"),
    "token_logprobs": ("jaxrl_reason.rollout.facade", "token_logprobs"),
    "verify_answer": ("jaxrl_reason.verify.answers", "verify_answer"),
}

# Functions that share the name of their module. Python binds `jaxrl_reason.train` to the module as
# soon as anything imports it, so the module itself is made callable: `jr.train(config)` and
# `from jaxrl_reason import train; train.train(config)` both hold, whatever was imported first.
_CALLABLE = ("evaluate", "train")


class _CallableModule(ModuleType):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._function(*args, **kwargs)

    @property
    def _function(self) -> Any:
        return getattr(self, self.__name__.rpartition(".")[2])

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self._function)


class _Package(ModuleType):
    def __setattr__(self, name: str, value: Any) -> None:
        if name in _CALLABLE and type(value) is ModuleType:
            value.__class__ = _CallableModule
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name in _CALLABLE:
        return importlib.import_module(f"{__name__}.{name}")
    if name in _HOMES:
        module, function = _HOMES[name]
        return getattr(importlib.import_module(module), function)
    raise AttributeError(
        f"module {__name__!r} has no attribute {name!r}; public: {', '.join(__all__)}"
    )


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
