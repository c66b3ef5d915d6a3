r"""Where a completion states its final answer.

Host side. Reads: nothing. Writes: nothing.

Strict on purpose: a number somewhere in the text is no answer, it must stand in a place that says
so. The last such place counts, so that a policy may correct itself, and none of them does if the
words around it take it back (`verify.doubt`).
"""

from __future__ import annotations

import re
from typing import NamedTuple

from jaxrl_reason.verify import afterwards, beside, doubt

MAX_CHARS = 1_000_000  # longest completion that is searched
MAX_ANSWER_CHARS = 2000  # longest answer that is read

_BOXES = (r"\boxed", r"\fbox", r"\framebox")
_MARKS = ("####", "<answer>", *_BOXES)
_BOX = re.compile(r"\\(?:boxed|fbox|framebox)(?![a-zA-Z])")
# What may stand between boxes of one list, once TeX's spaces, fonts and dollar signs are gone.
_LAYOUT = re.compile(
    r"\\(?:(?:quad|qquad|enspace|thinspace|text|textrm|textnormal|mbox|mathrm|hspace)(?![a-zA-Z])"
    r"|[,;:! ()\[\]\\])"
)
_BLANKS = str.maketrans("$~{}&", "     ")
_JOINS = frozenset(
    ", ; and or ,and ,or andalso ,andalso aswellas ,aswellas orelse ormaybe ,ormaybe orperhaps".split()
)
_PERCENT = re.compile(
    r"[$\s]*+(?:\\[,;:! ]\s*+)?(?:\\?%|(?:\\(?:text|mathrm)\s*+\{\s*+)?per ?cent(?![a-z])[\s}]*+)"
)
_PHRASE = re.compile(
    r"answer\W{0,6}(?:is|are|=|:|would be|should be|must be|(?=\s\*{0,2}(?:\$|\\[(\[])))"
    r"(?=[\s:*$\\(=-]|\d|\Z|(?<=:)[a-j]\b)"
)
_ABOUT = re.compile(r"answer (?:to|for|of) ")  # the answer to the question is
_ABOUT_IT = re.compile(r"(?:\bis|\bare|:)(?=[\s:*$\\(=-])")
_MAX_MENTIONS = 1000  # of an answer, from the last one back
_MAX_ABOUT = 120  # characters from "answer to" to "is"
# Where a model goes on with a question of its own, or speaks after the end of its turn.
_TURN = re.compile(
    r"\n[ \t]*+(?:#{1,4} ?)?(?:human|user|question|q|problem|instruction|input) ?[0-9]{0,2}:|\[inst\]",
    re.I,
)
_WHITE = re.compile(r"\s*+")
_DIGIT = re.compile(r"\d")
_TURN_ENDS = (
    "<|im_end|>",
    "<|endoftext|>",
    "<|eot_id|>",
    "<|end_of_text|>",
    "</s>",
    "<|im_start|>",
)
_VALUE = re.compile(
    r"[\s$*({]{0,4}-?\$?[0-9]{1,15}(?:,[0-9]{3}){0,5}(?:\.[0-9]{1,15})?[\s$*)}]{0,4}"
)
_NO_ANSWER_LINE = re.compile(
    r"\s*+(?:step|end|conclusion|solution|explanation|note|verification|check|checking|summary|done)\b",
    re.I,
)
_HEADING = re.compile(r"[#*][#*\s]*(?:the\s+)?(?:final\s+|correct\s+)?")  # "## Answer", then 15
_UNDER_IT = re.compile(r"answer([\s*:]*+)")
_LEAD = re.compile(
    r"[\s:=*]*(?:(?>is|thus|therefore|option|choice|simply|just|exactly|then|hence|indeed"
    r"|clearly|equal to|given by|approximately|about|roughly|around|surely|certainly|definitely|obviously)\b[\s:*]*)*",
    re.I,
)
# Where the sentence ends, or goes on with reasons and with what is nearly the same.
_STOP = re.compile(
    r"[.!?](?=\s|\*|$)|\n|;? I hope\b|[,\s]\s?(?:since|because)\s|,\sas\s"
    r"|\sas (?:required|desired|claimed|expected)\b|,\s?not\s|[,\s]\s?(?:rather than|instead of)\s"
    r"|\s\((?:that is|i\.e\.|which is|(?:and\s)?not)[\s,]|,\s?(?:which|but)\s(?=[a-z])"
    r"|(?:,?\s(?:or|which is)\s|\s\((?:or\s)?)(?:approximately|about|roughly)\s"
)
_MAX_BOXES = 8  # that stand side by side


class Place(NamedTuple):
    """Where an answer stands: its text, None where there is none that is stood by."""

    text: str | None
    start: int = 0
    end: int = 0  # behind it
    percent: bool = False  # a percent sign stands behind its box


def final_answer(completion: str) -> str | None:
    r"""The text in the place of the final answer; None without such a place, or if it is taken back.

    The place is the last `\boxed{...}`; boxes joined by nothing but a comma, "and" or "or" are one
    list. What stands behind "</think>" goes before the thoughts, and <answer>...</answer> before
    boxes elsewhere. Without a box: the line after the last "####"; without that: the sentence after the last
    "answer is" or "answer:". Where such a line or sentence with another number stands behind the
    box, it counts, and after "Wait, that is wrong" nothing does. A last box that
    never closes is no answer, and earlier ones were not final. What follows
    the end of the turn, or a question that the model puts to itself, is not read.

    Args:
      completion: any text; over MAX_CHARS it counts as having no answer.
    Returns:
      Text without white space around it; None: no place, "not 5" and the like, or over
      MAX_ANSWER_CHARS.
    Example:
      >>> final_answer(r"\boxed{3}, no: \boxed{\frac{1}{2}}")
      '\\frac{1}{2}'
      >>> final_answer("The answer is: 7. I checked it."), final_answer(r"I doubt it is \boxed{7}")
      ('7', None)
    """
    found = place(completion)
    return None if found is None else found.text


def marked(solution: str) -> str | None:
    """What a solution of a data set marks as its answer, in the places of `final_answer`: its author stands by it.

    Example:
      >>> marked(r"It is $9/3$, or $\\boxed{3}$.")
      '3'
    """
    found = _place(solution)
    return None if found is None else found.text


def place(completion: str) -> Place | None:
    """The place of the final answer; None: no words and no mark of the completion say so."""
    if len(completion) > MAX_CHARS:
        return None
    completion = own_turn(completion)
    found = _place(completion)
    if found is not None and found.end < len(completion):
        found = _last_said(completion, found)
    if found is None or found.text is None:
        return found
    refused = doubt.taken_back(completion, found.start, found.end) or afterwards.mistaken(
        completion, found.end, found.text
    )
    return found._replace(text=None) if refused else found


def _last_said(completion: str, found: Place) -> Place:
    """The place itself, or one behind it that states another value: "#### 6", "the answer is 6"."""
    behind = completion[found.end :]
    later = None
    if "####" in behind:
        text, end = _first_line(behind, behind.rfind("####") + 4)
        later = Place(text, behind.rfind("####"), end)
    elif "answer" in behind or "Answer" in behind:
        later = _phrase(behind, 0)
    if later is None or later.text is None or not _VALUE.fullmatch(later.text.rstrip(".")):
        return found
    if later.text == found.text or found.text is not None and not _VALUE.fullmatch(found.text):
        return found  # the same again, or a formula and its decimals
    return later._replace(start=later.start + found.end, end=later.end + found.end)


def own_turn(completion: str, *, marked: bool = True) -> str:
    r"""What a model says before it ends its turn, or asks itself the next question.

    Args:
      completion: any text.
      marked: what comes before the question must have a place for its answer; else a number will do.

    Example:
      >>> own_turn("Answer: 7\n\nQuestion: What is 1 + 1?\nAnswer: 2")
      'Answer: 7\n'
    """
    for mark in _TURN_ENDS if "<" in completion else ():
        at = completion.find(mark)
        if at != -1 and completion[:at].strip():
            completion = completion[:at]
    begin = _behind_thoughts(completion)
    if _TURN.search(completion, begin) is None:
        return completion
    if marked:
        answered = _first_place(completion, begin)
    else:
        digit = _DIGIT.search(completion, begin)
        answered = digit.start() if digit else None
    turn = None if answered is None else _TURN.search(completion, answered)
    return completion[: turn.start()] if turn else completion


def _first_place(completion: str, begin: int) -> int | None:
    """Where the first mark or "answer is" begins."""
    found = [at for mark in _MARKS if (at := completion.find(mark, begin)) != -1]
    lowered = completion.lower()
    said = _PHRASE.search(lowered, begin) if len(lowered) == len(completion) else None
    return min([*found, *([said.start()] if said else [])], default=None)


def _behind_thoughts(completion: str) -> int:
    at = completion.rfind("</think>") + 8
    if at >= 8 and (has_place(completion[at:]) or "answer" in completion[at:].lower()):
        return at
    return 0


def _place(completion: str) -> Place | None:
    begin = _behind_thoughts(completion)
    start = completion.rfind("<answer>", begin)
    if start != -1 and "\\boxed" not in completion[start:]:
        return _tagged(completion, start)
    if "\\" in completion and any(completion.find(mark, begin) != -1 for mark in _BOXES):
        return _last_boxes(completion, begin)
    start = len(completion)
    while (start := completion.rfind("####", begin, start)) != -1:
        text, end = _first_line(completion, start + 4)
        earlier = completion.rfind("####", begin, start) != -1
        if not (earlier and _NO_ANSWER_LINE.match(text or "")):  # a heading
            return Place(text, start, end)
    return _phrase(completion, begin)


def _phrase(completion: str, begin: int) -> Place | None:
    """The sentence behind the last "answer is"."""
    lowered = completion.lower()
    if len(lowered) != len(completion):
        return None
    start = len(lowered)
    for _ in range(_MAX_MENTIONS):
        start = lowered.rfind("answer", begin, start)
        if start == -1:
            break
        match = _PHRASE.match(lowered, start)
        if match:
            return _sentence(completion, start, match.end())
        under = _UNDER_IT.match(lowered, start)
        if (
            under
            and "\n" in under[1]
            and _HEADING.fullmatch(lowered, lowered.rfind("\n", 0, start) + 1, start)
        ):
            return _sentence(completion, start, under.end())
        if _ABOUT.match(lowered, start):
            stop = _STOP.search(lowered, start, start + _MAX_ABOUT)
            said = _ABOUT_IT.search(lowered, start, stop.start() if stop else start + _MAX_ABOUT)
            if said:
                return _sentence(completion, start, said.end())
    return None


def _tagged(completion: str, start: int) -> Place:
    """What stands between <answer> and </answer>, or behind "answer is" in there."""
    begin, end = start + 8, completion.find("</answer>", start)
    inner = completion[begin:end].strip() if 0 <= end - begin <= MAX_ANSWER_CHARS else ""
    if not inner or "<answer>" in inner:
        return Place(None, start, len(completion))
    named = "answer" in inner.lower() or "####" in inner
    return Place(final_answer(inner) if named else inner, start, end + len("</answer>"))


def has_place(completion: str) -> bool:
    """Whether the text has a mark for its answer, readable or not."""
    return any(mark in completion for mark in _MARKS)


def _last_boxes(text: str, begin: int) -> Place:
    # From the end, so that a text of a million boxes costs what its last ones cost.
    found: list[str] = []
    end, after, last = len(text), None, len(text)
    while len(found) < _MAX_BOXES:
        start = max(text.rfind(m, begin, end) for m in _BOXES)
        if start == -1:
            break
        box = _box_at(text, start)
        if box is None:
            if not found:
                return Place(None, start, len(text))
            break
        content, stop = box
        if after is not None and not (stop <= after and _joined(text[stop:after])):
            break
        last = last if found else stop
        found.append(content)
        end = after = start
    found.reverse()
    if len(set(found)) > 1:
        return Place(beside.whole(text, after, last, ", ".join(found)), after, last)
    percent = _PERCENT.match(text, last)
    if percent is not None:
        last = percent.end()
    return Place(beside.whole(text, after, last, found[-1]), after, last, percent is not None)


def _joined(between: str) -> bool:
    if len(between) > 60:
        return False
    joined = "".join(_LAYOUT.sub(" ", between).translate(_BLANKS).split())
    return joined in _JOINS or not joined and "\n" not in between


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


def _first_line(text: str, begin: int) -> tuple[str | None, int]:
    begin = _WHITE.match(text, begin).end()
    end = text.find("\n", begin)
    end = len(text) if end == -1 else end
    line = text[begin:end].strip() if end - begin <= 2 * MAX_ANSWER_CHARS else ""
    return (line if len(line) <= MAX_ANSWER_CHARS else None), end


def _sentence(completion: str, start: int, begin: int) -> Place:
    """The place whose sentence begins at `begin`."""
    text = completion[begin : begin + MAX_ANSWER_CHARS + 200]
    lead = _LEAD.match(text).end()
    text = text[lead:]
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
    end = begin + lead + len(head) + (match.start() if match else len(tail))
    if sentence.endswith("*") and sentence.count("*") == 1:
        sentence = sentence[:-1].strip()  # the lead took its partner
    if sentence.endswith("}") and sentence.count("{") < sentence.count("}"):
        sentence = sentence[:-1].strip()  # {"answer": 15}
    return Place(sentence if len(sentence) <= MAX_ANSWER_CHARS else None, start, end)
