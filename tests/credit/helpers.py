"""Small real parts for the credit tests: a word-level tokenizer, a plain aligner, policies that calculate."""

import dataclasses

import numpy as np
import tokenizers
import transformers

from jaxrl_reason.credit import screen, segment
from jaxrl_reason.types import Completion, PairAlignment, Problem, Verdict

WORDS = [
    "<pad>",
    "<eos>",
    "<unk>",
    ";",
    "=",
    "+",
    "*",
    ":",
    "ans",
    "solve",
    "the",
    "anchor",
    "says",
]
EOS = 1


def tokenizer():
    vocabulary = {word: i for i, word in enumerate(WORDS + [str(n) for n in range(20)])}
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>"
    )


TOKENIZER = tokenizer()


def encode(text):
    return TOKENIZER.encode(text, add_special_tokens=False)


def decode(tokens):
    return TOKENIZER.decode(list(tokens), skip_special_tokens=True)


def pieces_fn(tokens):
    return segment.token_pieces(TOKENIZER, tokens)


def completion(text, *, eos=True, prefix=0):
    tokens = tuple(encode(text) + [EOS] * eos)
    return Completion(
        tokens, np.zeros(len(tokens), np.float32), text, not eos, len(tokens) - prefix
    )


def align_pair(a, b):
    """Levenshtein of what common prefix and suffix leave; ties: match, substitute, delete, insert."""
    a, b = list(a), list(b)
    shorter = min(len(a), len(b))
    prefix = next((i for i in range(shorter) if a[i] != b[i]), shorter)
    rest = shorter - prefix
    suffix = next((i for i in range(rest) if a[-1 - i] != b[-1 - i]), rest)
    middle = _align_middle(a[prefix : len(a) - suffix], b[prefix : len(b) - suffix])
    ids = [
        np.pad(side, (prefix, suffix), constant_values=-1)
        for side in (middle.failed_edit_ids, middle.repaired_edit_ids)
    ]
    return PairAlignment(*ids, middle.num_edits)


def _align_middle(a, b):
    table = np.zeros((len(a) + 1, len(b) + 1), int)
    table[:, 0], table[0, :] = np.arange(len(a) + 1), np.arange(len(b) + 1)
    for i in range(1, len(a) + 1):
        for j in range(1, len(b) + 1):
            table[i, j] = min(
                table[i - 1, j - 1] + (a[i - 1] != b[j - 1]),
                table[i - 1, j] + 1,
                table[i, j - 1] + 1,
            )
    a_ids, b_ids = np.full(len(a), -1), np.full(len(b), -1)
    i, j, edit = len(a), len(b), table[-1, -1]
    while i or j:
        if i and j and a[i - 1] == b[j - 1] and table[i, j] == table[i - 1, j - 1]:
            i, j = i - 1, j - 1
            continue
        edit -= 1
        if i and j and table[i, j] == table[i - 1, j - 1] + 1:
            i, j = i - 1, j - 1
            a_ids[i] = b_ids[j] = edit
        elif i and table[i, j] == table[i - 1, j] + 1:
            i -= 1
            a_ids[i] = edit
        else:
            j -= 1
            b_ids[j] = edit
    assert edit == 0
    return PairAlignment(a_ids, b_ids, int(table[-1, -1]))


def align_fn(failed, repaired):
    return [align_pair(a, b) for a, b in zip(failed, repaired, strict=True)]


def align_texts(failed, repaired):
    return align_pair(failed.split(), repaired.split())


class Policy:
    """SampleFn around `go_on(words so far) -> words to add`; remembers what it was asked."""

    def __init__(self, go_on, *, eos=True):
        self.go_on, self.eos, self.calls = go_on, eos, []

    def __call__(self, prompts, *, stage, num_samples=1, temperature=1.0, prefixes=None):
        self.calls.append(
            {
                "prompts": [decode(p) for p in prompts],
                "stage": stage,
                "num_samples": num_samples,
                "temperature": temperature,
                "prefixes": [decode(p) for p in prefixes],
            }
        )
        groups = []
        for prefix in prefixes:
            group = []
            for draw in range(num_samples):
                text = " ".join([decode(prefix), *self.go_on(decode(prefix).split(), draw)])
                group.append(completion(text, eos=self.eos, prefix=len(prefix)))
            groups.append(group)
        return groups


def reduce_list(words, draw=0):
    """Go on with a list reduction modulo 10 from the last list shown, adding the first two numbers at every step."""
    steps = " ".join(words).split(";")
    numbers = [int(word) for word in steps[-2].split()]
    added = []
    while len(numbers) > 1:
        numbers = [(numbers[0] + numbers[1]) % 10, *numbers[2:]]
        added += [*map(str, numbers), ";"]
    return [*added, "=", str(numbers[0])]


def encode_prompt(problem: Problem):
    return encode(f"solve {problem.prompt} :")


def ans_verify(problems, texts):
    """Verdicts on the word behind the last "ans"."""
    verdicts = []
    for problem, text in zip(problems, texts, strict=True):
        answer = text.rpartition("ans")[2].strip()
        right = answer == problem.answer
        verdicts.append(Verdict(float(right), answer or None, "correct" if right else "wrong"))
    return verdicts


def tools(**changes):
    defaults = {
        "align_fn": align_fn,
        "pieces_fn": pieces_fn,
        "step_ids_fn": lambda tokens: segment.step_ids(tokens, pieces_fn, ";"),
        "answer_marker": "=",
        "anchor_copy_similarity": 0.9,
        "anchor_path_similarity": 0.6,
    }
    return screen.Tools(**(defaults | changes))


def retold(completion_, text):
    """The same tokens under another text, for tests that read the text alone."""
    return dataclasses.replace(completion_, text=text)
