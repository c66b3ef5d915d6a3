"""The loop: problems -> completions -> verdicts -> rows -> update, read from top to bottom.

Host side; drives the device. Reads: a policy, problems, checkpoints. Writes: the run folder

    config.json  metrics.jsonl  tensorboard/  rollouts/update_N.jsonl  eval/update_N.json  checkpoints/N/  policy/
    (report.html), and for a config with phases such a folder in it for each: phase_1/  phase_2/

Every stage can be replaced: `train(config, method=mine)` in a notebook is a fork.
"""

from __future__ import annotations

import contextlib
import functools
import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import ml_collections
import numpy as np

from jaxrl_reason import (
    checkpoint,
    companions,
    evaluate,
    files,
    metrics,
    parts,
    phases,
    run_folder,
    sharding,
    signals,
    timing,
)
from jaxrl_reason import config as config_lib
from jaxrl_reason.methods import base
from jaxrl_reason.rollout import batching
from jaxrl_reason.types import Problem, TrainState, VerifyFn


def train(
    config: ml_collections.ConfigDict,
    *,
    task: Any = None,
    policy: Any = None,
    method: base.Method | None = None,
    verify: VerifyFn | None = None,
    update_fn: Callable | None = None,
    writers: Sequence[metrics.MetricWriter] | None = None,
    mesh: jax.sharding.Mesh | None = None,
    resume: bool = False,
) -> tuple[pathlib.Path, TrainState]:
    """Train a policy; returns the run folder and the final state.

    Args:
      config: from `config.load` or `config.base`; see there for every field. With phases (`config.in_phases`) each is
        trained in turn, in a run folder of its own, and only `verify`, `mesh` and `resume` may be given.
      task: problems and verdicts; default `config.task`.
      policy: where to start; default `config.model.source`.
      method: rows of an update; default `config.method`.
      verify: (problems, texts) -> verdicts; default `task.verify`.
      update_fn: (state, batch) -> (state, metrics); default `algos.update`.
      writers: where metrics go; default console, metrics.jsonl and event files.
      mesh: devices; default all of them, as `config.mesh` says.
      resume: go on from the run folder's latest checkpoint, bitwise as if never stopped.
    Returns:
      (run folder, final TrainState).
    Raises:
      FileExistsError: the run folder holds a run and `resume` is False.
      FloatingPointError: the loss or a gradient is not finite; names update, tensors and last checkpoint.
      ValueError: a part is given for a config with phases, or nothing of the token budget is left for a phase.
    """
    config_lib.validate(config)
    sharding.check_one_process()
    if config.then:
        replaced = (task, policy, method, update_fn, writers)
        if any(x is not None for x in replaced):
            raise ValueError(
                "a config with phases makes its own parts; train each of config.phases(config) with yours"
            )
        return _train_phases(config, verify=verify, mesh=mesh, resume=resume)
    with contextlib.ExitStack() as closing:
        data = ("task.path", "task.eval_path", "task.pass_rates") if task is None else ()
        claim, store = closing.enter_context(parts.entered(config, resume=resume, data=data))
        run = parts.make_run(config, task=task, policy=policy, method=method, mesh=mesh)
        verify = verify or run.task.verify
        optimizer = parts.make_optimizer(run)
        update_fn = update_fn or parts.make_update(run, optimizer)
        second = companions.make(run)  # PRIME's reward model, PPO's critic; None for all others
        claim.write()
        state, progress = parts.start(
            run, optimizer, store, resume=resume, companion=second and second.first_state()
        )
        if policy is None and second is None and not config.loss.kl_coef and not config.lora.rank:
            run = parts.without_start(run)
        if writers is None:
            writers = metrics.open_writers(
                run.folder,
                num_updates=config.train.num_updates,
                max_generated_tokens=config.train.max_generated_tokens,
                tensorboard=config.train.tensorboard,
                resumed_from=claim.resumed_from,
            )
        writers = parts.Writers(writers)
        compiles = timing.CompileCounter()
        for part in (compiles, writers):
            closing.callback(part.close)
        stop = closing.enter_context(signals.stopping(parts.grace_s(config)))

        def keep(line: dict[str, float] | None = None) -> int:
            """The state after the last whole update, on the disk, and its metrics where they are not there yet."""
            if line is not None:
                writers.write(progress.update, line)
            store.save(progress.update, state, progress.to_dict())
            store.wait()
            return progress.update

        if progress.unevaluated:
            writers.phase("evaluating")
            with stop.droppable(keep):
                writers.write(progress.update, evaluate.in_loop(run, state.params, progress.update))
                progress.unevaluated = False
            if not stop.dropped:
                store.save(progress.update, state, progress.to_dict())

        while not _finished(config, progress) and not stop.is_set():
            clock = timing.Clock()
            update, spent = progress.update, run.engine.generated_tokens
            key = jax.random.fold_in(state.key, update)
            rng = np.random.default_rng([config.seed, update])
            companion = second and second.bind(state.companion, clock)
            stages = parts.bind_stages(run, state.params, key, verify, clock, companion)

            with stop.droppable(keep):
                # HOST, DEVICE, HOST: problems, completions, verdicts; refilled while groups give no signal.
                writers.phase("sampling")
                groups, sampled = collect(run, stages, update)
                sampled |= mismatch_metrics(groups, stages)

                # The method decides which rows are trained, on which tokens, with what advantage and weight.
                writers.phase("repairing" if config.method.name == "iop" else "building")
                if second is not None:  # its state is used up here
                    stop.commit(store.latest_update)
                built = run.method.build(groups, stages, rng)

                # DEVICE: optimizer updates, compiled once.
                writers.phase("updating")
                if stop.is_set() and second is None:
                    keep()  # the update may outlast the grace, and uses the state up
                stop.commit(store.latest_update)
                with clock.time("update"):
                    state, trained = state._replace(companion=None), 0
                    results: dict[str, float] = {}
                    split = batching.minibatches(built.rows, config.optim.minibatches, rng)
                    batches = [parts.place_batch(run, parts.to_batch(run, rows)) for rows in split]
                    # The first minibatch is on-policy; what the others divide by must be taken before it moves the
                    # policy.
                    state, batches[1:] = parts.with_old_logprobs(update_fn, state, batches[1:])
                    for rows, batch in zip(split, batches, strict=True):
                        state, results = update_fn(state, batch)
                        results = {name: float(value) for name, value in results.items()}
                        trained += sum(int(row.gate.sum()) for row in rows)
                        if results.get("policy/nonfinite") or not np.isfinite(
                            results.get("policy/param_norm", 0.0)
                        ):
                            _stop_nonfinite(run, update + 1, results, store)
                    state = state._replace(companion=built.companion)
            if stop.dropped:
                break
            progress.advance(
                generated=run.engine.generated_tokens - spent,
                trained=trained,
                seconds=clock.total(),
            )

            line = sampled | built.metrics | results | clock.metrics() | progress.metrics()
            line |= getattr(run.task, "metrics", dict)()
            line["perf/compiles"] = float(compiles.count)
            progress.unevaluated = _evaluates(config, progress)
            if progress.unevaluated and not stop.is_set():
                writers.phase("evaluating")
                with stop.droppable(functools.partial(keep, line)):
                    line = line | evaluate.in_loop(run, state.params, progress.update)
                    progress.unevaluated = False
            if not stop.dropped:
                writers.write(progress.update, line)
            if progress.update % config.train.log_rollouts_every == 0 or progress.update == 1:
                _write_records(run, progress.update, built.records)
            saving = progress.update % config.train.checkpoint_every == 0
            if saving or _finished(config, progress) or stop.is_set():
                writers.phase("saving")
                store.save(progress.update, state, progress.to_dict())

        store.wait()
        if not stop.dropped and not progress.unevaluated:
            parts.save_policy(run, state.params)
    return run.folder, state


def _train_phases(
    config: ml_collections.ConfigDict, *, resume: bool, **options: Any
) -> tuple[pathlib.Path, TrainState]:
    """Each phase as a run of its own, from the parameters of the one before; then the whole as one run folder.

    `train.max_generated_tokens` counts the tokens of all phases so far. A SIGTERM ends the phase that runs. With
    `resume`, a phase that is complete has no update left to do.
    """
    with run_folder.locked(config.run_dir, resume=resume) as folder:
        update = checkpoint.newest(folder / "phase_1" / "checkpoints")
        claim = run_folder.check(folder, config, resume=resume, update=update)
        claim._replace(changed=[]).write()  # each phase says what has changed for it
        spent, last = 0, config_lib.phases(config)[-1]
        for phase in config_lib.phases(config):
            budget, own = phase.train.max_generated_tokens, pathlib.Path(phase.run_dir)
            if budget and budget <= spent:
                raise ValueError(
                    f"{own}: the phases before have spent {spent} of train.max_generated_tokens = {budget}; raise it,"
                    " or lower their train.num_updates"
                )
            phase.train.max_generated_tokens = budget and budget - spent
            if phase.run_dir == last.run_dir or not is_complete(phase):
                _, state = train(phase, resume=is_begun(own), **options)
            if not is_complete(phase):
                return folder, state
            spent += int(metrics.read_metrics(own / "metrics.jsonl")[-1]["perf/generated_tokens"])
        phases.join(config)
    return folder, state


def is_begun(folder: pathlib.Path) -> bool:
    """Whether there is a run to go on with."""
    return (folder / "config.json").exists() or checkpoint.newest(
        folder / "checkpoints"
    ) is not None


def is_complete(config: ml_collections.ConfigDict) -> bool:
    """Whether the run in `config.run_dir` has reached its last update or its token budget, and left its policy."""
    folder = pathlib.Path(config.run_dir)
    if not (folder / "policy").exists():
        return False
    if config.then:  # the policy of the whole is written at the very end
        return True
    last = metrics.read_metrics(folder / "metrics.jsonl")[-1]
    done = parts.Progress(last["update"], int(last.get("perf/generated_tokens", 0)))
    return _finished(config, done)


def collect(
    run: parts.Run, stages: base.Stages, update: int
) -> tuple[list[base.Group], dict[str, float]]:
    """N judged groups of G completions; with `rollout.max_refills`, groups without signal are replaced.

    Args:
      run: parts of the run.
      stages: functions bound to the current parameters.
      update: number of this update; problems are a pure function of (seed, update, attempt).
    Returns:
      (groups, metrics of everything that was sampled, kept or not).
    """
    config = run.config
    wanted = config.rollout.num_prompts
    kept: list[base.Group] = []
    seen: list[base.Group] = []
    for attempt in range(1 + config.rollout.max_refills):
        problems = run.task.batch(config.seed, update, wanted, attempt)
        prompts = [stages.policy_prompt(p) for p in problems]
        sampled = stages.sample(
            prompts, stage=f"policy-{attempt}", num_samples=config.rollout.group_size
        )
        flat = [c for completions in sampled for c in completions]
        repeated: list[Problem] = [p for p in problems for _ in range(config.rollout.group_size)]
        verdicts = iter(base.judge(stages.verify, repeated, flat))
        groups = [
            base.Group(p, prompt, tuple(cs), tuple(next(verdicts) for _ in cs))
            for p, prompt, cs in zip(problems, prompts, sampled, strict=True)
        ]
        seen += groups
        useful = [g for g in groups if run.method.gives_signal(g)]
        kept += useful if config.rollout.max_refills else groups
        if len(kept) >= wanted:
            break
    found = sampling_metrics(seen)
    if config.rollout.max_refills:
        found["reward/kept_group_frac"] = len(kept) / len(seen)
    return kept[:wanted], found


def sampling_metrics(groups: Sequence[base.Group]) -> dict[str, float]:
    """Rewards, lengths and verdicts of sampled groups."""
    rewards = np.stack([g.rewards for g in groups])
    completions = [c for g in groups for c in g.completions]
    reasons = [v.reason for g in groups for v in g.verdicts]
    lengths = np.array([len(c.tokens) for c in completions])
    return {
        "reward/mean": float(rewards.mean()),
        "reward/std": float(rewards.std()),
        "reward/frac_zero_std": float((np.ptp(rewards, axis=1) == 0).mean()),
        "response_length/mean": float(lengths.mean()),
        "response_length/max": float(lengths.max()),
        "response_length/clip_ratio": float(np.mean([c.truncated for c in completions])),
        "verifier/parse_fail_frac": reasons.count("unparsable") / len(reasons),
        "verifier/timeout_frac": reasons.count("timeout") / len(reasons),
    }


MISMATCH_ROWS = 32


def mismatch_metrics(groups: Sequence[base.Group], stages: base.Stages) -> dict[str, float]:
    """Sampler against trainer on the first completions: log-probs of the same tokens under the same parameters.

    Returns:
      `mismatch/kl`: k3 estimate of KL(sampler, trainer), nats per token; `mismatch/prob_error`: mean of
      exp |difference|, 1 where they agree. Other kernels, a forgotten temperature or attended padding show here first.
    """
    completions = [(g.prompt, c) for g in groups for c in g.completions][:MISMATCH_ROWS]
    if not completions:
        return {}
    scored = stages.score([p for p, _ in completions], [c.tokens for _, c in completions])
    difference = np.concatenate(scored) - np.concatenate([c.logprobs for _, c in completions])
    return {
        "mismatch/kl": float(np.mean(np.expm1(difference) - difference)),
        "mismatch/prob_error": float(np.mean(np.exp(np.abs(difference)))),
    }


def _finished(config: ml_collections.ConfigDict, progress: parts.Progress) -> bool:
    budget = config.train.max_generated_tokens
    return progress.update >= config.train.num_updates or bool(
        budget and progress.generated_tokens >= budget
    )


def _evaluates(config: ml_collections.ConfigDict, progress: parts.Progress) -> bool:
    """Whether the policy is evaluated after the update that is done."""
    every = config.eval.every
    return bool(every and progress.update % every == 0) or _finished(config, progress)


def _stop_nonfinite(
    run: parts.Run, update: int, results: dict[str, float], store: checkpoint.Checkpoints
) -> None:
    """Raise with what a resumed run can do; a checkpoint whose policy is broken is moved out of its way first."""
    report = run.folder / f"nonfinite_update_{update}.json"
    files.replace_text(report, json.dumps({k: repr(v) for k, v in results.items()}, indent=2))
    bad = [name for name, value in results.items() if not np.isfinite(value)]
    # What depends on the policy alone, not on rewards and advantages. An update that ends in such a policy is applied,
    # and is not saved.
    broken = not np.isfinite(
        [results.get(f"policy/{n}", 0.0) for n in ("entropy", "param_norm")]
    ).all()
    newest, why = store.latest_step(), ""
    if newest == update - 1 and broken and results.get("policy/nonfinite"):
        away = run.folder / f"nonfinite_checkpoint_{newest}"
        store.set_aside(newest, away)
        why = f" The policy before this update gives such figures already; its checkpoint is now {away}."
        newest = store.latest_step()
    if newest is None:
        fix = (
            "None is left to go on from: look at model.source and model.dtype"
            if update == 1
            else "None is left to go on from: choose another --config.run_dir and a lower optim.learning_rate"
        )
    elif newest == update - 1 and results.get("policy/nonfinite"):
        fix = (
            f"The last checkpoint, {store.folder}/{newest}, leads to this very update again: it is its rows or its"
            " gradient that are not finite. Look at the rewards, delete that checkpoint to go further back, or set"
            " model.dtype to float32 in another --config.run_dir"
        )
    else:
        fix = (
            f"Last good checkpoint: {store.folder}/{newest}. Lower optim.learning_rate, or set optim.grad_clip, and"
            " go on with --resume"
        )
    raise FloatingPointError(
        f"update {update}: not finite: {', '.join(bad) or 'gradient'}; nothing of it was saved.{why} Figures of the"
        f" update: {report}. {fix}."
    )


def _write_records(run: parts.Run, update: int, records: list[dict]) -> None:
    if not records or jax.process_index():
        return
    path = run.folder / "rollouts" / f"update_{update}.jsonl"
    path.parent.mkdir(exist_ok=True)
    name = {"update": update, "method": run.config.method.name}
    lines = [json.dumps(name | r) for r in records[: run.config.train.log_rollouts]]
    files.replace_text(path, "\n".join(lines) + "\n")
