"""What a record asks: one question, or turns of a conversation, none of which is thrown away.

Host side. Reads: nothing. Writes: nothing.

| form of a turn | roles |
| --- | --- |
| {"role", "content"} (OpenAI, TRL, verl) | system, developer, user, assistant, tool |
| {"from", "value"} (ShareGPT) | system, human, gpt, observation, ... |

A content is a text, or a list of parts, {"type": "text", "text": ...}. Where a chat template is used, the turns go
through it as they are; elsewhere they stand in the prompt as plain text, with their roles.

Data sets bring format instructions of their own ("The last line of your response should be of the form Answer:
$Answer", "Let's think step by step and output the final answer within \\boxed{}."), which contradict or double a
task's. Sentences at either end of a question that ask for a form of the answer and for nothing else are taken off:
each of their words is in `_FORMAT_WORDS`, and one of `_FORMAT_SIGNS` is there. "Give the answer as a fraction in
\\boxed{}." stays.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jaxrl_reason.tasks.records import Unusable

QUESTIONS = (
    "problem",
    "question",
    "prompt",
    "query",
    "instruction",
    "input",
    "messages",
    "conversations",
)
# Whole conversations: the assistant's last turn is the solution.
_TALKS = ("messages", "conversations")
SYSTEMS = ("system", "system_prompt")

_ROLES = {
    **{name: name for name in ("system", "developer", "user", "assistant", "tool")},
    **{
        "human": "user",
        "gpt": "assistant",
        "model": "assistant",
        "bot": "assistant",
        "chatgpt": "assistant",
    },
    **{
        "ai": "assistant",
        "observation": "tool",
        "function": "tool",
        "function_response": "tool",
        "ipython": "tool",
    },
}
_AS_TEXT = re.compile(r"\s*\[\s*\{\s*[\"'](?:role|from|content|value)[\"']")

Turn = tuple[str, str]  # role, text


class Asked(NamedTuple):
    """The prompt of a record."""

    text: str  # the question
    before: tuple[Mapping[str, str], ...]  # turns before it, {"role", "content"}
    reply: str | None  # of the assistant, at the end of a whole conversation


def read(fields: Mapping[str, Any], names: Sequence[str] = QUESTIONS) -> Asked:
    """Question or turns of a record, without the data set's own format instruction.

    Args:
      fields: names in small letters.
      names: of fields that may hold the question; the first that does counts.
    Returns:
      Asked.
    Raises:
      Unusable: there is no question, or a part of it cannot be put into words.
    Example:
      >>> read({"question": "1 + 1? Please reason step by step, and put your final answer within \\\\boxed{}."}).text
      '1 + 1?'
      >>> read({"prompt": [{"role": "system", "content": "Base 8."}, {"role": "user", "content": "7 + 1?"}]}).before
      ({'role': 'system', 'content': 'Base 8.'},)
    """
    name = next((n for n in names if _has(fields.get(n))), None)
    if name is None:
        known = [n for n in names if n in fields]
        found = (
            f"field {known[0]} = {fields[known[0]]!r:.60}"
            if known
            else f"it has {', '.join(fields) or 'no field'}"
        )
        raise Unusable(f"no question in {', '.join(names)}", found)
    value = _decoded(fields[name])
    turns = [("user", value)] if isinstance(value, str) else _turns(name, value)
    if name == "instruction" and isinstance(fields.get("input"), str) and fields["input"].strip():
        turns = [("user", f"{turns[0][1].strip()}\n{fields['input']}")]
    reply = None
    if name in _TALKS and len(turns) > 1 and turns[-1][0] == "assistant":
        *turns, (_, reply) = turns
    if turns[-1][0] != "user":
        raise Unusable(f"the last turn of {name} is not the user's", turns[-1][0])
    system = next((fields[n] for n in SYSTEMS if isinstance(fields.get(n), str)), "")
    *before, (_, question) = _clean([("system", system), *turns], fields.get("context"))
    return Asked(question, tuple({"role": r, "content": t} for r, t in before), reply)


def is_talk(value: Any) -> bool:
    """Whether a field holds turns, as a list or as the text of one."""
    return isinstance(value, list) or isinstance(value, str) and bool(_AS_TEXT.match(value[:80]))


def messages(name: str, value: Any) -> list[dict[str, str]]:
    """Turns of a field as they stand, {"role", "content"}.

    Raises:
      Unusable: they are no turns, or not in words.
    Example:
      >>> messages("conversations", [{"from": "human", "value": "1 + 1?"}])
      [{'role': 'user', 'content': '1 + 1?'}]
    """
    found = _turns(name, _decoded(value))
    if not found:
        raise Unusable(f"field {name} has no turn")
    return [{"role": role, "content": text} for role, text in found]


def _decoded(value: Any) -> Any:
    """Turns that stand in the record as text, in JSON or as Python writes them."""
    if not isinstance(value, str) or not _AS_TEXT.match(value[:80]):
        return value
    for read_text in (json.loads, ast.literal_eval):
        try:
            return read_text(value)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    raise Unusable("the turns are a text that is no JSON", f"{value!r:.60}")


def _has(value: Any) -> bool:
    return bool(value.strip()) if isinstance(value, str) else value is not None and value != []


def _clean(turns: Sequence[Turn], context: Any) -> list[Turn]:
    (*before, (role, question)) = turns
    found = [
        (r, without_format(t) if r in ("system", "developer", "user") else t.strip())
        for r, t in before
    ]
    found = [(r, text) for r, text in found if text and not (r != "user" and is_format(text))]
    question = without_format(question)
    if not question:
        raise Unusable("the question is empty")
    if re.search(r"<(?:image|video|audio)>", question):
        raise Unusable("the question needs its picture")
    if isinstance(context, str) and context.strip():
        question = f"{context.strip()}\n{question}"
    return [*found, (role, question)]


def _turns(name: str, value: Any) -> list[Turn]:
    if not isinstance(value, Sequence) or not all(isinstance(turn, Mapping) for turn in value):
        raise Unusable(f"field {name} is neither a text nor a list of turns", f"{value!r:.60}")
    turns = []
    for turn in value:
        role = turn.get("role", turn.get("from"))
        content = turn.get("content", turn.get("value"))
        if _ROLES.get(str(role).lower()) is None:
            raise Unusable(f"a turn of {name} has no role that is known", f"{role!r:.40}")
        if content is None and turn.get("tool_calls"):
            raise Unusable("a turn calls a tool and says nothing", f"{turn!r:.60}")
        turns.append((_ROLES[str(role).lower()], _content(content)))
    return turns


def _content(content: Any) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, Mapping):
        content = [content]
    if not isinstance(content, Sequence):
        raise Unusable("the content of a turn is neither a text nor parts", f"{content!r:.60}")
    texts = []
    for part in content:
        text = (
            part
            if isinstance(part, str)
            else part.get("text")
            if isinstance(part, Mapping)
            else None
        )
        if not isinstance(text, str):
            raise Unusable(
                "the question needs its picture, or another part that is no text", f"{part!r:.60}"
            )
        texts.append(text)
    return "\n".join(texts)


# --- format instructions ---------------------------------------------------------------------------

_FORMAT_WORDS = frozenset(
    "a after all along an and answer answers any anything are as at be before begin below between block"
    " box boxed boxes brackets brief briefly but by can carefully chain clear clearly concise concisely"
    " contain correct correctly curly detail detailed directly do does don e each efficiently either else"
    " enclose enclosed enclosing end ending everything exactly explain explanation fbox final finally"
    " first follow followed following follows for form format formatted g given have help here how i"
    " immediately in inside into is it its itself just last latex let like line lines ll logically make"
    " markdown math mathematical mathematics maths must need no not notation note nothing of on once one"
    " only or other out output own place please present problem problems process produce properly provide"
    " provided put question questions quotes reason reasoning remember reply respond response result"
    " return rigorously s separate separately should show single solution solutions solve start state step"
    " steps strictly such sure symbols t tag tags task text that the them then there they think thinking"
    " this thorough thoroughly thought through to us use using via way when where which while with within"
    " without words work working wrap wrapped write written you your".split()
)
_FORMAT_SIGNS = re.compile(
    r"\\?boxed\b|####|step[ -]by[ -]step|\blast line\b|\banswer\s*:|\$\\?\w*answer"
    r"|</?(?:answer|think|solution|reasoning)>"
    r"|\bfinal answer\b|\b(?:own|separate|new) line\b|\bfollowing (?:math\w* )?(?:problem|question|task)s?\b"
    r"|\b(?:answer|latex|response) (?:in|format)\b|\bchain of thought\b",
    re.I,
)
_NOT_FORMAT = re.compile(r"[0-9=^+&%~]")
# Sentences end at lines and behind marks; instructions also begin where no mark stands before them.
_BORDER = re.compile(
    r"\n\s*+|(?<=[.!?。])\s++"
    r"|(?<=\S)\s++(?=(?:Let's|Let us|Please|Think|Reason|Remember|Put|Make sure|Present|Output)\b)"
)
_LEAD = re.compile(r"\A(?:\#+\s*|\*\*)?(?:problem|question|q|user)(?:\*\*)?\s*:(?:\*\*)?\s*", re.I)
_CUE = re.compile(
    r"(?:\n|(?<=[.!?])[ ])(?:\#+\s*|\*\*)?(?:answer|solution|a|assistant|response)(?:\*\*)?\s*:(?:\*\*)?\s*\Z",
    re.I,
)


def is_format(sentence: str) -> bool:
    """Whether a sentence asks for a form of the answer and says nothing else.

    Example:
      >>> is_format("Remember to put your answer on its own line after \\"Answer:\\".")
      True
      >>> is_format("Put the answer, rounded to two digits, in \\\\boxed{}.")
      False
    """
    if len(sentence) > 500 or _NOT_FORMAT.search(sentence) or not _FORMAT_SIGNS.search(sentence):
        return False
    return all(word in _FORMAT_WORDS for word in re.findall(r"[^\W_]+", sentence.casefold()))


def without_format(question: str) -> str:
    """A question without format instructions before and behind it, and without "Question:" and "Answer:" around it.

    A text of nothing else stays as it is.

    Example:
      >>> without_format("Question: How many? Let's think step by step.")
      'How many?'
    """
    text = question.strip()
    while (bare := _CUE.sub("", _LEAD.sub("", _between_formats(text))).strip()) not in ("", text):
        text = bare
    return text


def _between_formats(text: str) -> str:
    """The text from its first to its last sentence that is about something else; "" where none is."""
    borders = [m.span() for m in _BORDER.finditer(text)]
    starts, ends = [0, *(end for _, end in borders)], [*(start for start, _ in borders), len(text)]
    kept = [(a, b) for a, b in zip(starts, ends, strict=True) if not _is_frame(text[a:b])]
    return text[kept[0][0] : kept[-1][1]] if kept else ""


def _is_frame(piece: str) -> bool:
    label = piece.strip("#* ").casefold()
    return not label or label in _LABELS or is_format(piece)


_LABELS = ("problem:", "question:", "answer:", "solution:", "response:", "assistant:", "q:", "a:")
