"""Bytes of a loop: what is looped over counts by the step, constants and the carry once."""

from __future__ import annotations

import jax

from jaxrl_reason.ops import liveness

ROW = jax.ShapeDtypeStruct((1000,), "float32")  # 4,000 bytes
ROWS = jax.ShapeDtypeStruct((4, 1000), "float32")


def test_a_step_of_a_loop_holds_its_row_alone():
    def total(weights, start, rows):
        return jax.lax.scan(lambda sum, row: (sum + row * weights, None), start, rows)[0]

    # Arguments 24,000; the carry 4,000; in a step the row, whose place the product takes.
    assert liveness.peak_bytes(total, ROW, ROW, ROWS) == 32_000
