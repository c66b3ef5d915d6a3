r"""What is said behind a final answer: another one, or that it was a mistake.

Host side. Reads: nothing. Writes: nothing.
"""

from __future__ import annotations

import re

REACH = 600  # characters behind an answer that are looked at

_MISTAKE = re.compile(
    r"\b(?:scratch that|strike that|just kidding|on second thoughts?|my mistake|my bad|take (?:that|it) back|"
    r"i (?:just )?made (?:an|a) (?:\w{1,12} )?(?:error|mistake)|i was wrong|i (?:miscounted|miscalculated|misread)|"
    r"(?:this|that|it|which) (?:is|was) (?:wrong|incorrect|not correct|not right|a mistake)|"
    r"(?:that|it|this|answer) (?:should|must) (?:be|have been) (?:[$\\(]{1,3})?-?[0-9]|edit: should be|"
    r"turned out to be|turns out (?:to be )?(?:wrong|false|incorrect)|or so i thought|was my first guess|"
    r"fails the (?:check|test)|contradicts the)"
)
_OPENS = re.compile(
    r"(?:oops|whoops|correction|wait|hmm|hold on|p\.s\. that is wrong|actually,? (?:no|it|that|[0-9]))\b"
)
_CONFIRMS = re.compile(
    r"\b(?:yes|correct|right|confirm(?:s|ed)?|match(?:es)?|indeed|consistent|verified|holds|checks out|good|fine)\b"
)
_SUPPOSES = re.compile(r"\b(?:if|unless|avoid|common|might|would|let me know)\b")
_SENTENCES = re.compile(r"[.!?](?=\s)|[\n;—–]")
_LEADS = " \t$*_`\"')}]\\.,:-#"
_ASIDES = ("but ", "and ", "so ", "ah, ", "oh, ", "no, ")


def mistaken(text: str, end: int, answer: str) -> bool:
    r"""Whether what stands behind `end` says that the answer was a mistake.

    Args:
      text: a completion.
      end: where its final answer ends.
      answer: that answer.
    Example:
      >>> mistaken("5. Wait, that should be 6.", 1, "5"), mistaken("5. Check: 2+3=5.", 1, "5")
      (True, False)
    """
    behind = text[end : end + REACH].lower()
    if not behind.strip(_LEADS):
        return False
    at = 0
    for sentence in _SENTENCES.split(behind):
        at = behind.find(sentence, at) + len(sentence)
        said = sentence.strip(_LEADS)
        for aside in _ASIDES:
            said = said.removeprefix(aside)
        opens = _OPENS.match(said) is not None
        if not opens and _MISTAKE.search(said) is None or _SUPPOSES.search(said):
            continue
        repeats = behind.rstrip(" .!$})*\n").endswith(answer.lower())
        confirmed = repeats or _CONFIRMS.search(behind, at) is not None
        if not confirmed:
            return True
    return False
