import numpy as np
import pytest

from jaxrl_reason.credit import segment
from jaxrl_reason.types import Rollout
from tests.credit import helpers


def ids_of(pieces, separator):
    return segment.step_ids(range(len(pieces)), pieces, separator).tolist()


@pytest.mark.parametrize(
    "pieces, separator, expected",
    [
        (["1", "5", ";", "6", ";", "=", "6", ""], ";", [0, 0, 0, 1, 1, 2, 2, 2]),
        # The separator is the last text: EOS and padding-like tokens stay with the step that it ended.
        (["1", ";", "", ""], ";", [0, 0, 0, 0]),
        # "b;c" straddles the boundary: it belongs to the earlier step.
        (["a", "b;c", "d"], ";", [0, 0, 1]),
        # Two separators end in one token: one step ends.
        (["a", ";b;", "c"], ";", [0, 0, 1]),
        # A separator of two characters over two tokens ends with the second one.
        (["a\n", "\nb", "c\n\n", "d"], "\n\n", [0, 0, 1, 2]),
        # Of three line breaks the first two are the separator, the third starts the next step.
        (["a", "\n", "\n", "\n", "b"], "\n\n", [0, 0, 0, 1, 1]),
        # An empty step is a step.
        (["a", ";", ";", "b"], ";", [0, 0, 1, 2]),
        (["a", "b"], ";", [0, 0]),
        (["", "", "a"], ";", [0, 0, 0]),
        ([";", "a"], ";", [0, 1]),
        ([], ";", []),
    ],
)
def test_step_ids(pieces, separator, expected):
    assert ids_of(pieces, separator) == expected


@pytest.mark.parametrize(
    "pieces, rule, expected",
    [
        (["a", ".\n", "\nStep", " 1", " b\n", "Step 2"], "step_k", [0, 0, 0, 1, 1, 2]),
        (["It is 3", ".", "5.", " So", "!", " ", "End", ""], "sentence", [0, 0, 0, 1, 1, 2, 2, 2]),
        (["a", "\n\n\n", "b\n\nc", "d"], "blank_line", [0, 0, 1, 2]),
        (["x=1", "\n", "#c\n", "y", "=2\n", "```"], "code_line", [0, 0, 1, 1, 1, 1]),
        (["a", "b", "", "c", "d", "e", ""], "tokens:2", [0, 0, 0, 1, 2, 2, 2]),
        (["a", "b"], "tokens:9", [0, 0]),
    ],
)
def test_step_ids_of_rules(pieces, rule, expected):
    assert ids_of(pieces, rule) == expected


def test_pieces_of_a_sentencepiece_tokenizer_keep_their_spaces():
    class Pieces:
        names = ["<s>", "\u2581It", "\u2581is", "\u25814.", "\u2581So", "\u2581"]

        def convert_ids_to_tokens(self, token):
            return self.names[token]

        def decode(self, ids, **kwargs):
            return "" if ids == [0] else self.names[ids[0]].replace("\u2581", " ").strip()

    tokens = [1, 2, 3, 5, 4, 0]
    pieces = segment.token_pieces(Pieces(), tokens)
    assert pieces == [" It", " is", " 4.", " ", " So", ""]
    assert segment.step_ids(tokens, pieces, "sentence").tolist() == [0, 0, 0, 1, 1, 1]


def test_step_ids_are_gapless_and_cover_random_texts():
    rng = np.random.default_rng(0)
    for _ in range(200):
        pieces = [
            "".join(rng.choice(list("ab;\n"), size=rng.integers(0, 4)))
            for _ in range(rng.integers(1, 12))
        ]
        ids = ids_of(pieces, ";")
        assert len(ids) == len(pieces) and ids[0] == 0
        assert set(np.diff(ids)) <= {0, 1}
        # Every step but the last holds a separator, and no token ends a step that holds none.
        for step in range(max(ids)):
            assert ";" in "".join(p for p, i in zip(pieces, ids, strict=True) if i == step)
        # With one-character separators a token that ends a step is exactly one that holds a separator.
        ended = [";" in p for p in pieces]
        for t in range(1, len(pieces)):
            if ids[t] > ids[t - 1]:
                assert any(ended[s] for s in range(t) if ids[s] == ids[t - 1])


def test_step_ids_take_a_function_of_the_tokens():
    tokens = helpers.encode("1 5 ; 6 ; = 6") + [helpers.EOS]
    assert segment.step_ids(tokens, helpers.pieces_fn, ";").tolist() == [0, 0, 0, 1, 1, 2, 2, 2]


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="separator = ''"):
        segment.step_ids([1], ["a"], "")
    with pytest.raises(ValueError, match="2 pieces for 1 tokens"):
        segment.step_ids([1], ["a", "b"], ";")
    with pytest.raises(ValueError, match="marker = ''"):
        segment.answer_start([1], ["a"], "")


@pytest.mark.parametrize(
    "pieces, marker, expected",
    [
        (["8", ";", "=", "8", ""], "=", 2),
        (["2", "=", "2", ";", "=", "8"], "=", 4),  # the last one counts
        (["x ", "##", "## 8"], "####", 1),  # starts inside the second token
        (
            ["x ##", "## 8"],
            "####",
            0,
        ),  # a token that straddles the start belongs to the answer span
        (["", "", "=", "8"], "=", 2),  # tokens without text do not start it
        (["8", ";"], "=", 2),
        ([], "=", 0),
    ],
)
def test_answer_start(pieces, marker, expected):
    assert segment.answer_start(range(len(pieces)), pieces, marker) == expected


def test_token_pieces_ask_once_per_distinct_id():
    asked = []

    class Counting:
        def decode(self, ids, **kwargs):
            asked.extend(ids)
            return helpers.TOKENIZER.decode(ids, **kwargs)

    tokens = helpers.encode("5 ; 5 ; 5") + [helpers.EOS]
    assert segment.token_pieces(Counting(), tokens) == ["5", ";", "5", ";", "5", ""]
    assert len(asked) == 3


def test_segment_covers_each_completion_and_nothing_else():
    prompt = helpers.encode("solve 1 5 :")
    texts = ["6 ; = 6", "6", ""]
    width = 6
    tokens = np.zeros((4, 4 + width), np.int32)
    completion_mask = np.zeros(tokens.shape, bool)
    for row, text in enumerate(texts):
        # Row 2 holds EOS alone; row 3 is padding.
        completion = helpers.encode(text) + [helpers.EOS]
        tokens[row, :4] = prompt
        tokens[row, 4 : 4 + len(completion)] = completion
        completion_mask[row, 4 : 4 + len(completion)] = True
    rollout = Rollout(
        tokens,
        token_mask=tokens > 0,
        completion_mask=completion_mask,
        behavior_logprobs=np.zeros(tokens.shape, np.float32),
        group_ids=np.zeros(4, np.int32),
        truncated=np.zeros(4, bool),
    )
    segments = segment.segment(rollout, helpers.TOKENIZER, ";")
    np.testing.assert_array_equal(segments.step_ids >= 0, completion_mask)
    # "6 ; = 6 EOS": steps 0 0 1 1 1.
    assert segments.step_ids[0].tolist() == [-1] * 4 + [0, 0, 1, 1, 1, -1]
    assert segments.step_ids[1].tolist() == [-1] * 4 + [0, 0, -1, -1, -1, -1]
    assert segments.step_ids[2].tolist() == [-1] * 4 + [0, -1, -1, -1, -1, -1]
    assert segments.step_mask.tolist() == [
        [True, True],
        [True, False],
        [True, False],
        [False, False],
    ]
    assert segments.step_ids.dtype == np.int32 and segments.step_mask.dtype == bool


def test_segment_of_no_completion_at_all_keeps_one_step_column():
    empty = np.zeros((2, 3), np.int32)
    rollout = Rollout(
        empty, empty > 0, empty > 0, empty.astype(np.float32), empty[:, 0], empty[:, 0] > 0
    )
    segments = segment.segment(rollout, helpers.TOKENIZER, ";")
    assert segments.step_mask.tolist() == [[False], [False]]
