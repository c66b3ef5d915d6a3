"""IOP: the policy repairs its own failed solutions, and only the tokens that differ are trained.

Host side. Reads: nothing. Writes: nothing. Source: arXiv 2605.05226 (algorithm 1, eq. 3-9); the letters A-N in
comments name choices that the paper leaves open, each a field of `config.iop`.

    failed completions + anchors -> repairs -> verdicts -> audit -> best repair of each failure
    -> alignment -> adaptive truncation -> bilateral gates -> policy rows  (-1 on failed, +1 on repaired tokens)
                                                            + repair rows  (every candidate, under the repair prompt)

Correct samples serve as anchors alone and never enter the gradient.
"""

from __future__ import annotations

from collections.abc import Sequence

import ml_collections
import numpy as np

from jaxrl_reason.credit import audit as credit_audit
from jaxrl_reason.credit import gate as credit_gate
from jaxrl_reason.credit import graft, judge, repair
from jaxrl_reason.methods import base, frame, iop_cases, iop_records
from jaxrl_reason.methods.iop_records import Candidate, Failure
from jaxrl_reason.types import REPAIR_STREAM, AuditResult, Completion, Row


class Iop:
    """Internalized outcome-to-process supervision; see the module's docstring."""

    def __init__(self, config: ml_collections.ConfigDict):
        self.config = config
        self.iop = config.iop
        self.tally = judge.Tally()  # of the `judge` audit, over the updates

    def gives_signal(self, group: base.Group) -> bool:
        """There is a failure to repair and a correct sample (or a reference) to anchor it."""
        failed = group.rewards < self.iop.threshold
        return bool(failed.any() and (not failed.all() or self._has_reference(group)))

    def max_rows(self, num_prompts: int, group_size: int) -> int:
        return 2 * num_prompts * group_size + (
            self.iop.repair_rows if self.iop.repair_weight else 0
        )

    def build(
        self, groups: Sequence[base.Group], stages: base.Stages, rng: np.random.Generator
    ) -> base.Built:
        """One update's rows: pairs of failed and repaired completions, then repair-mode rows."""
        self.tally.asked = self.tally.failed = 0
        failures = self._failures(groups, stages, rng)
        candidates = self._candidates(failures, stages, rng)
        accepted = self._select(candidates)
        kept = self._truncate([candidates[c] for c in accepted], failures, stages)
        pair_rows, credits = self._pair_rows([candidates[c] for c in accepted], failures, kept)
        # Without a verdict nobody knows whether a failure was repaired.
        settled = {candidates[c].failure for c in accepted}
        settled |= {c.failure for c in candidates if c.undecided}
        negatives = self._negatives(failures, settled)
        repair_rows = self._repair_rows(candidates, failures, accepted, stages, rng)
        metrics = iop_records.process_metrics(
            groups,
            failures,
            candidates,
            [candidates[c] for c in accepted],
            pair_rows,
            stages,
            threshold=self.iop.threshold,
        )
        if self.tally.asked:
            metrics["audit/judge_error_frac"] = self.tally.failed / self.tally.asked
        cases = iop_cases.cases(
            groups,
            failures,
            candidates,
            dict(zip(accepted, credits, strict=True)),
            negatives,
            threshold=self.iop.threshold,
        )
        records = iop_cases.records(cases, stages, limit=self.config.train.log_rollouts)
        rows = pair_rows + self._negative_rows(failures, negatives) + repair_rows
        return base.Built(rows, metrics, records)

    # --- failures and their anchors ------------------------------------------------------------

    def _failures(self, groups, stages, rng) -> list[Failure]:
        owners, failed, correct = [], [], []
        for group in groups:
            right = [
                c
                for c, reward in zip(group.completions, group.rewards, strict=True)
                if reward >= self.iop.threshold
            ]
            if not right and self._has_reference(group):  # C
                right = [_reference_anchor(group, stages)]
            if not right:
                continue
            for completion, reward in zip(group.completions, group.rewards, strict=True):
                if reward < self.iop.threshold:
                    owners.append(group)
                    failed.append(completion)
                    correct.append(right)
        anchors = repair.choose_anchors(  # E
            failed, correct, kind=self.iop.anchor, rng=rng, align_fn=stages.align
        )
        return [
            Failure(
                group, completion, anchor, stages.repair_prompt(group.problem, completion, anchor)
            )
            for group, completion, anchor in zip(owners, failed, anchors, strict=True)
        ]

    def _has_reference(self, group: base.Group) -> bool:
        return self.iop.reference_anchor and group.problem.reference is not None

    # --- repairs, verdicts, audit, score -------------------------------------------------------

    def _candidates(
        self, failures: list[Failure], stages: base.Stages, rng: np.random.Generator
    ) -> list[Candidate]:
        if not failures:
            return []
        sampled = stages.sample(
            [f.repair_prompt for f in failures], stage="repair", num_samples=self.iop.num_repairs
        )
        index = [i for i, repairs in enumerate(sampled) for _ in repairs]
        repaired = [c for repairs in sampled for c in repairs]
        problems = [failures[i].group.problem for i in index]
        verdicts = base.judge(stages.verify, problems, repaired)
        alignments = stages.align(
            [failures[i].failed.tokens for i in index], [c.tokens for c in repaired]
        )
        audits = self._audit(failures, index, repaired, verdicts, stages, rng)
        distances = repair.pair_distances(alignments)
        rewards = repair.repair_rewards(  # L
            [result is None or bool(result.accepted) for result in audits],
            [v.reward for v in verdicts],
            distances,
            edit_cost=self.iop.edit_cost,
            audit_reject=self.iop.audit_reject,
        )
        columns = (
            index,
            repaired,
            verdicts,
            alignments,
            distances.tolist(),
            audits,
            rewards.tolist(),
        )
        return [Candidate(*column) for column in zip(*columns, strict=True)]

    def _audit(self, failures, index, repaired, verdicts, stages, rng) -> list[AuditResult | None]:
        """Only repairs whose outcome is right are worth an audit: the others are rejected anyway (M)."""
        right = [k for k, v in enumerate(verdicts) if v.reward >= self.iop.threshold]
        audit = credit_audit.make_audit(
            self.iop,
            align_fn=stages.align,
            pieces_fn=stages.pieces,
            step_ids_fn=lambda tokens: iop_records.steps_of(tokens, stages),
            answer_marker=stages.answer_marker,
            sample_fn=stages.sample,
            verify_fn=stages.verify,
            encode_prompt=stages.policy_prompt,
            first_error=stages.first_error,
            rng=rng,
            tally=self.tally,
        )
        results = audit(
            [failures[index[k]].group.problem for k in right],
            [failures[index[k]].failed for k in right],
            [failures[index[k]].anchor for k in right],
            [repaired[k] for k in right],
        )
        audits: list[AuditResult | None] = [None] * len(repaired)
        for k, result in zip(right, results, strict=True):
            audits[k] = result
        return audits

    def _select(self, candidates: list[Candidate]) -> list[int]:
        """Position of the best accepted candidate of each failure that has one (M)."""
        if not candidates:
            return []
        per_failure = (-1, self.iop.num_repairs)  # candidates come in this order
        honest = [c.audit is not None and bool(c.audit.accepted) for c in candidates]
        best = repair.select_repairs(
            np.reshape(honest, per_failure),
            np.reshape([c.verdict.reward for c in candidates], per_failure),
            np.reshape([c.distance for c in candidates], per_failure),
            edit_cost=self.iop.edit_cost,
            threshold=self.iop.threshold,
        )
        return [i * self.iop.num_repairs + int(k) for i, k in enumerate(best) if k >= 0]

    # --- adaptive truncation, gates, policy rows -----------------------------------------------

    def _truncate(self, pairs: list[Candidate], failures, stages) -> list[int]:
        """K* of each pair (H, I)."""
        own = [failures[c.failure] for c in pairs]
        return graft.adaptive_num_edits(
            [f.group.problem for f in own],
            [f.failed for f in own],
            [c.repaired for c in pairs],
            [c.alignment for c in pairs],
            num_edits=self.iop.num_edits,
            kind=self.iop.graft,
            threshold=self.iop.threshold,
            verify_fn=stages.verify,
            decode=stages.decode,
            sample_fn=stages.sample,
            encode_prompt=stages.policy_prompt,
        ).num_edits

    def _pair_rows(self, pairs, failures, kept) -> tuple[list[Row], list[iop_cases.Credit]]:
        rows: list[Row] = []
        credits = []
        own = [failures[c.failure] for c in pairs]
        failed_old = frame.old_logprobs(self.config, [f.failed for f in own])
        for candidate, failure, k, old in zip(pairs, own, kept, failed_old, strict=True):
            gates = self._gates(candidate, failure, k)
            advantages = self._pair_advantages(failure.group)  # A
            sides = (failure.failed, candidate.repaired)
            # The ratio of a repaired completion conditions on the problem alone: what it was sampled with belongs to
            # the repair prompt, so that the update's own log-probs under the policy prompt serve.
            both = zip(sides, gates, advantages, (old, None), strict=True)
            for completion, gate, advantage, old in both:
                if gate.any():  # J: a side without a gated token has nothing to train
                    scale = credit_gate.clip_scale(len(gate), int(gate.sum()), self.iop.clip_scale)
                    filled = np.full(len(gate), advantage, np.float32)
                    prompt, tokens = failure.group.prompt, completion.tokens
                    rows.append(Row(prompt, tokens, gate, filled, old, clip_scale=scale))
            credits.append(iop_cases.Credit(gates, advantages))
        return rows, credits

    def _gates(self, candidate: Candidate, failure: Failure, kept: int):
        if self.iop.gate == "all":
            return (
                np.ones(len(failure.failed.tokens), bool),
                np.ones(len(candidate.repaired.tokens), bool),
            )
        return credit_gate.gates(
            candidate.alignment, kept, mark_insertion_point=self.iop.mark_insertion_point
        )

    def _pair_advantages(self, group: base.Group) -> tuple[float, float]:
        """Advantage of failed and of repaired tokens."""
        if self.iop.adv_group == "pair":
            return -1.0, 1.0
        p = float((group.rewards >= self.iop.threshold).mean())
        # An all-wrong group anchored by its reference has no spread of its own: half a sample stands in.
        p = min(max(p, 0.5 / len(group.rewards)), 1 - 0.5 / len(group.rewards))
        spread = np.sqrt(p * (1 - p)) if self.iop.adv_group == "original" else 1.0
        return -p / spread, (1 - p) / spread

    def _negatives(self, failures, settled: set[int]) -> dict[int, float]:
        """B: failures without an accepted repair are dropped, or trained whole as negatives, with this advantage."""
        if self.iop.unrepaired == "drop":
            return {}
        left = [i for i in range(len(failures)) if i not in settled]
        return {i: self._pair_advantages(failures[i].group)[0] for i in left}

    def _negative_rows(self, failures, negatives: dict[int, float]) -> list[Row]:
        old = frame.old_logprobs(self.config, [failures[i].failed for i in negatives])
        rows = []
        for (i, advantage), logprobs in zip(negatives.items(), old, strict=True):
            failure, length = failures[i], len(failures[i].failed.tokens)
            rows.append(
                Row(
                    failure.group.prompt,
                    failure.failed.tokens,
                    np.ones(length, bool),
                    np.full(length, advantage, np.float32),
                    logprobs,
                )
            )
        return rows

    # --- repair mode ---------------------------------------------------------------------------

    def _repair_rows(self, candidates, failures, accepted, stages, rng) -> list[Row]:
        """K: candidates under the repair prompt, weighted by lambda_rep; whole groups, up to `repair_rows`."""
        if not self.iop.repair_weight:
            return []
        if self.iop.repair_objective == "sft":
            chosen = [(k, 1.0) for k in accepted]
            order = rng.permutation(len(chosen))[: self.iop.repair_rows]
            chosen = [chosen[i] for i in order]
        else:
            chosen = []
            for i in rng.permutation(len(failures)):
                own = range(i * self.iop.num_repairs, (i + 1) * self.iop.num_repairs)
                own = [k for k in own if not candidates[k].undecided]
                scores = np.array([candidates[k].reward for k in own])
                # Equal scores: zero advantage, nothing to train.
                if not own or np.ptp(scores) < 1e-9:
                    continue
                if len(chosen) + len(own) > self.iop.repair_rows:
                    break
                # Two wrong repairs differ by their edit cost alone. Divided by its tiny spread, that difference
                # would count as much as right against wrong, and teach to copy the failed text.
                normalised = scores - scores.mean()
                if self.iop.repair_advantage == "zscore":
                    normalised = normalised / scores.std()
                chosen += list(zip(own, normalised, strict=True))
        prompts = [failures[candidates[k].failure].repair_prompt for k, _ in chosen]
        completions = [candidates[k].repaired for k, _ in chosen]
        old = frame.old_logprobs(self.config, completions)
        return [
            Row(
                prompt,
                completion.tokens,
                np.ones(len(completion.tokens), bool),
                np.full(len(completion.tokens), advantage, np.float32),
                logprobs,
                weight=self.iop.repair_weight,
                stream=REPAIR_STREAM,
            )
            for prompt, completion, logprobs, (_, advantage) in zip(
                prompts, completions, old, chosen, strict=True
            )
        ]


def _reference_anchor(group: base.Group, stages: base.Stages) -> Completion:
    text = group.problem.reference
    tokens = stages.encode(text)
    return Completion(tokens, np.zeros(len(tokens), np.float32), text, False, 0)
