r"""Where the steps of a text end: behind a separator, or by one of several rules.

Host side. Reads: nothing. Writes: nothing.

| rule | a step ends |
| --- | --- |
| blank_line | behind blank lines |
| newline | behind a line break and the blank lines that follow it |
| step_k | before a line that starts with "Step" and a number, with or without marks such as ** or ### |
| sentence | behind . ! or ? before white space, or behind blank lines; not behind "3." that starts a line, or "e.g." |
| code_line | behind a line of code; comments, blank lines and fences belong to the line of code that follows |
| tokens:N | after N tokens; a text alone has none |
| any other text | behind that text |
"""

from __future__ import annotations

import re

from jaxrl_reason import config_rules

_BLANK_LINE = re.compile(r"\n[ \t\r\n]*")  # or one line break and what is white behind it
_NEWLINE = re.compile(r"\n(?:[ \t\r]*\n)*")
_STEP_K = re.compile(r"^[ \t>*#_-]*step[ \t]*\d", re.IGNORECASE | re.MULTILINE)
# A space before the next sentence belongs to that one, as it does in most tokens.
_SENTENCE = re.compile(
    r"[.!?…][\"'”’)\]*_$]*(?:(?:[ \t\r]*\n)+|(?=[ \t]+\S))|[。！？](?:[ \t\r]*\n)*|"
    + _BLANK_LINE.pattern
)
_NO_SENTENCE = re.compile(
    r"(?:^|\n)[^\S\n]*\d+\.$|\b(?:e\.g|i\.e|cf|vs|approx|resp|Eq|Fig|No|Dr|Mr|Mrs|Ms|Prof|St)\.$"
)
_CODE_LINE = re.compile(r"^(?![ \t\r]*(?:#|```|$)).*(?:\n|\Z)", re.MULTILINE)
_TOKENS = re.compile(config_rules.STEP_TOKENS)
_LOOK_BACK = 40  # characters before a full stop that tell an abbreviation

NAMES = config_rules.STEP_RULES


def is_rule(text: str) -> bool:
    """Whether this names a rule, and is no separator.

    Example:
      >>> is_rule("sentence"), is_rule("tokens:64"), is_rule("tokens:0"), is_rule(";")
      (True, True, False, False)
    """
    return text in NAMES or _TOKENS.fullmatch(text) is not None


def num_tokens(rule: str) -> int | None:
    """N of "tokens:N"; None for every other rule.

    Example:
      >>> num_tokens("tokens:64"), num_tokens("sentence")
      (64, None)
    """
    match = _TOKENS.fullmatch(rule)
    return int(match[1]) if match else None


def shown(rule: str) -> str:
    """The separator, or a line break for a rule: what stands between steps that are shown.

    Example:
      >>> shown(";"), shown("sentence")
      (';', '\\n')
    """
    return "\n" if is_rule(rule) else rule


def ends(text: str, rule: str) -> list[int]:
    r"""Where steps end.

    Args:
      text: any.
      rule: a separator, or one of the rules above but "tokens:N".
    Returns:
      Numbers of characters, increasing, each > 0: a step stands before each, and one behind the last if text is left.
    Raises:
      ValueError: the rule is empty, or counts tokens.
    Example:
      >>> text = "Step 1: 2 + 3.5 = 5.5. So 5.5.\nStep 2: done."
      >>> [ends(text, rule) for rule in ("newline", "step_k", "sentence", " = ")]
      [[31], [31], [22, 31], [18]]
    """
    if not rule:
        raise ValueError(
            "separator = '': must not be empty; give the text that ends a reasoning step"
        )
    if num_tokens(rule) is not None:
        raise ValueError(f"step rule {rule!r}: counts tokens, and a text has none; choose another")
    if rule not in NAMES:
        return [match.end() for match in re.finditer(re.escape(rule), text)]
    if rule == "step_k":
        found = [match.start() for match in _STEP_K.finditer(text)]
    elif rule == "code_line":
        # What stands behind the last line of code, such as a fence, belongs to it.
        found = [match.end() for match in _CODE_LINE.finditer(text)][:-1]
    elif rule == "sentence":
        found = [_sentence_end(text, match) for match in _SENTENCE.finditer(text)]
    elif rule == "blank_line":
        found = [_blank_line_end(text, match) for match in _BLANK_LINE.finditer(text)]
    else:
        found = [match.end() for match in _NEWLINE.finditer(text)]
    begin = len(text) - len(text.lstrip())  # white space alone is no first step
    return [end for end in found if end > begin]


def _blank_line_end(text: str, match: re.Match) -> int:
    """Behind the last of several line breaks; 0: there is one alone."""
    return text.rfind("\n", match.start() + 1, match.end()) + 1


def _sentence_end(text: str, match: re.Match) -> int:
    """Where the sentence ends; 0: it goes on."""
    if match[0].startswith("\n"):
        return _blank_line_end(text, match)
    if match[0].startswith("."):
        before = text[max(0, match.start() - _LOOK_BACK) : match.start() + 1]
        return 0 if _NO_SENTENCE.search(before) else match.end()
    return match.end()
