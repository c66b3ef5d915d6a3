r"""Where a completion states its final answer.

Host side. Reads: nothing. Writes: nothing.

Strict on purpose: a number somewhere in the text is no answer, it must stand in a place that says
so. The last such place counts, so that a policy may correct itself.
"""

from __future__ import annotations

import re

MAX_CHARS = 1_000_000  # longest completion that is searched
MAX_ANSWER_CHARS = 2000  # longest answer that is read

_BOX = re.compile(r"\\(?:boxed|fbox|framebox)(?![a-zA-Z])")
_FENCE = re.compile(r"\\([$()\[\]])")
_JOIN = re.compile(r"[$\])\s]*+(?:[,;]|(?:,\s*+)?\\?(?:text\{)?\s*+(?:and|or)(?:\s*+\})?)[$\[(\s]*")
_PHRASE = re.compile(
    r"answer\W{0,6}(?:is|are|=|:|would be|should be|must be|(?=\s\*{0,2}(?:\$|\\[(\[])))(?=[\s:*$\\(=-]|\d|\Z)"
)
_HEADING = re.compile(r"[#*][#*\s]*(?:the\s+)?(?:final\s+|correct\s+)?")  # "## Answer", then 15
_UNDER_IT = re.compile(r"answer([\s*:]*+)")
_LEAD = re.compile(
    r"[\s:=*]*(?:(?>is|thus|therefore|option|choice|simply|just|exactly|then|hence|indeed"
    r"|clearly|equal to|given by)\b[\s:*]*)*",
    re.I,
)
# Where the sentence ends, or goes on with reasons and with what is nearly the same.
_STOP = re.compile(
    r"[.!?](?=\s|\*|$)|\n|;? I hope\b|,?\s(?:since|because)\s"
    r"|,?\sas (?:required|desired|claimed|expected)\b"
    r"|(?:,?\s(?:or|which is)\s|\s\((?:or\s)?)(?:approximately|about|roughly)\s"
)
_MAX_BOXES = 8  # that stand side by side


def final_answer(completion: str) -> str | None:
    r"""The text in the place of the final answer, whatever it says; None without such a place.

    The place is the last `\boxed{...}`; boxes joined by nothing but a comma, "and" or "or" are one
    list. What stands behind "</think>" goes before the thoughts, and <answer>...</answer> before
    boxes elsewhere. Without a box: the line after the last "####"; without that: the sentence after the last
    "answer is" or "answer:". A last box that never closes is no answer, and earlier ones were not
    final.

    Args:
      completion: any text; over MAX_CHARS it counts as having no answer.
    Returns:
      Text without white space around it; None: no place, or over MAX_ANSWER_CHARS.
    Example:
      >>> final_answer(r"\boxed{3}, no: \boxed{\frac{1}{2}}")
      '\\frac{1}{2}'
      >>> final_answer("The answer is: 7. I checked it.")
      '7'
    """
    if len(completion) > MAX_CHARS:
        return None
    if "</think>" in completion:
        behind = completion[completion.rfind("</think>") + 8 :]
        if has_place(behind) or "answer" in behind.lower():
            completion = behind
    start = completion.rfind("<answer>")
    if start != -1 and "\\boxed" not in completion[start:]:
        return _tagged(completion[start + 8 :])
    if "\\boxed" in completion or "\\fbox" in completion or "\\framebox" in completion:
        return _last_boxes(completion)
    start = completion.rfind("####")
    if start != -1:
        return _first_line(completion[start + 4 :])
    lowered = completion.lower()
    if "answer" not in lowered or len(lowered) != len(completion):
        return None
    start = max(lowered.rfind("answer"), 0)
    while start != -1:
        match = _PHRASE.match(lowered, start)
        if match:
            return _sentence(completion[match.end() :])
        under = _UNDER_IT.match(lowered, start)
        if (
            under
            and "\n" in under[1]
            and _HEADING.fullmatch(lowered, lowered.rfind("\n", 0, start) + 1, start)
        ):
            return _sentence(completion[under.end() :])
        start = lowered.rfind("answer", 0, start)
    return None


def _tagged(text: str) -> str | None:
    """What stands between <answer> and </answer>, or behind "answer is" in there."""
    end = text.find("</answer>")
    inner = text[:end].strip() if 0 <= end <= MAX_ANSWER_CHARS else ""
    if not inner or "<answer>" in inner:
        return None
    return final_answer(inner) if "answer" in inner.lower() or "####" in inner else inner


def has_place(completion: str) -> bool:
    """Whether the text names a place for its answer, readable or not."""
    return any(mark in completion for mark in ("####", "<answer>")) or any(
        mark in completion for mark in ("\\boxed", "\\fbox", "\\framebox")
    )


def _last_boxes(text: str) -> str | None:
    # From the end, so that a text of a million boxes costs what its last ones cost.
    found: list[str] = []
    end, after = len(text), None
    while len(found) < _MAX_BOXES:
        start = max(text.rfind(m, 0, end) for m in (r"\boxed", r"\fbox", r"\framebox"))
        if start == -1:
            break
        box = _box_at(text, start)
        if box is None:
            if not found:
                return None
            break
        content, stop = box
        if after is not None and not (stop <= after and _joined(text[stop:after])):
            break
        found.append(content)
        end = after = start
    found.reverse()
    if len(set(found)) > 1:
        return ", ".join(found)
    return found[-1] if found else None


def _joined(between: str) -> bool:
    return len(between) < 40 and _JOIN.fullmatch(_FENCE.sub(r"\1", between)) is not None


def _box_at(text: str, start: int) -> tuple[str, int] | None:
    match = _BOX.match(text, start)
    if not match:
        return None
    i = match.end()
    while i < len(text) and i < match.end() + 4 and text[i] == " ":
        i += 1
    if i < len(text) and text[i] != "{":
        # \boxed5 is TeX for a box around one character.
        return (text[i], i + 1) if text[i].isalnum() else None
    return _braced(text, i + 1)


def _braced(text: str, start: int) -> tuple[str, int] | None:
    """What stands before the brace that closes the one before `start`; None: not in reach."""
    depth, i = 1, start
    stop = min(len(text), start + MAX_ANSWER_CHARS)
    while i < stop:
        if text[i] == "\\":
            i += 1  # \{ and \} are brackets of a set, and pair off among themselves
        elif text[i] == "{":
            depth += 1
        elif text[i] == "}":
            depth -= 1
            if depth == 0:
                return text[start:i].strip(), i + 1
        i += 1
    return None


def _first_line(text: str) -> str | None:
    text = text.lstrip()
    end = text.find("\n")
    line = (text if end == -1 else text[:end]).strip()
    return line if len(line) <= MAX_ANSWER_CHARS else None


def _sentence(text: str) -> str | None:
    text = text[: MAX_ANSWER_CHARS + 200]
    text = text[_LEAD.match(text).end() :]
    bold = text.find("**")
    if bold > 0 and text.count("**", 0, bold + 3) == 1:
        text = text[:bold]  # the lead took the mark that opens it
    math = re.match(r"(\$\$|\\\[|\\\()(.*?)(\$\$|\\\]|\\\))", text, re.S)
    if math:
        # A displayed formula may run over lines, and its decimal points end no sentence.
        head, tail = math[0], text[math.end() :]
    else:
        head, tail = "", text
    match = _STOP.search(tail)
    sentence = (head + (tail[: match.start()] if match else tail)).strip()
    if sentence.endswith("*") and sentence.count("*") == 1:
        sentence = sentence[:-1].strip()  # the lead took its partner
    if sentence.endswith("}") and sentence.count("{") < sentence.count("}"):
        sentence = sentence[:-1].strip()  # {"answer": 15}
    return sentence if len(sentence) <= MAX_ANSWER_CHARS else None
