"""Tasks: problems, prompts and outcome checks, chosen by name.

Host side. Reads: the file that the chosen task reads, when it is made. Writes: nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import ml_collections

from jaxrl_reason.tasks import (
    arithmetic,
    base,
    checking,
    code,
    countdown,
    gsm8k,
    knights,
    maths,
    sources,
    steps,
)
from jaxrl_reason.verify import sandbox

_TASKS: dict[str, Callable[[ml_collections.ConfigDict], base.Task]] = {
    "arithmetic": lambda c: arithmetic.Arithmetic(c.length, c.modulus, c.operators, c.expert_order),
    "code": lambda c: _code(_source(c), c.sandbox),
    "countdown": lambda c: countdown.Countdown(
        c.numbers, c.largest, c.max_target, use_all=c.use_all
    ),
    "game24": lambda c: countdown.game24(),
    "gsm8k": lambda c: gsm8k.Gsm8k(_source(c), check=_checker(c)),
    "knights": lambda c: knights.Knights(c.people),
    "math": lambda c: maths.Maths(_source(c), check=_checker(c), steps=c.steps),
}


def make_task(task_config: ml_collections.ConfigDict) -> base.Task:
    """The task that the `task` part of a config names.

    Args:
      task_config: `config.task`; each task reads its own fields of it.
    Returns:
      A task, its data loaded.
    Raises:
      ValueError: no task has this name, or the task refuses its settings.
    Example:
      >>> from jaxrl_reason import config
      >>> make_task(config.base().task).name
      'arithmetic'
    """
    if task_config.name not in _TASKS:
        raise ValueError(f"task.name = {task_config.name!r}: must be one of {', '.join(_TASKS)}")
    task = _TASKS[task_config.name](task_config)
    task.step_separator = task_config.step_rule or task.step_separator
    return in_steps(task, task_config) if task_config.steps else task


def in_steps(task: base.Task, task_config: ml_collections.ConfigDict) -> steps.Steps:
    """The next steps of another task's solutions, as the `task` part of a config asks for them."""
    return steps.Steps(
        task,
        first=task_config.first_step,
        last=task_config.last_step,
        think=task_config.think,
        stop_at_separator=task_config.step_end == "separator",
    )


def _code(source: sources.Source, c: ml_collections.ConfigDict) -> base.Task:
    return code.Code(
        source,
        limits=sandbox.Limits(
            c.timeout_s, c.memory_mb, c.output_kb, c.disk_mb, c.max_threads, c.max_files
        ),
        workers=c.workers,
        batch_timeout_s=c.batch_timeout_s,
        require_isolation=c.require_isolation,
    )


def _source(c: ml_collections.ConfigDict) -> sources.Source:
    return sources.Source(
        path=c.path,
        eval_path=c.eval_path,
        data_dir=c.data_dir,
        pass_rates=c.pass_rates,
        min_pass_rate=c.min_pass_rate,
        max_pass_rate=c.max_pass_rate,
        fields=c.fields,
        hold_out=c.hold_out,
    )


def _checker(c: ml_collections.ConfigDict) -> checking.Checker:
    return checking.Checker(
        c.verify_workers,
        timeout_s=c.verify_timeout_s,
        extract=c.extract,
        second_opinion=c.second_opinion,
    )
