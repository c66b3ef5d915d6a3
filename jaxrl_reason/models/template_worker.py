"""Renders one chat template in a process that may be killed; run as a program by `chat_template`.

Host side. Reads: standard input, {"template", "variables", "limits"} in JSON. Writes: standard output, the number of
characters that the template makes. Exit status: 0 rendered, 1 the template refused, else it was ended.

Only jinja2 is imported, so that it starts in a tenth of a second.
"""

from __future__ import annotations

import contextlib
import json
import resource
import sys
from datetime import datetime
from typing import Any

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.sandbox


class _Generation(jinja2.ext.Extension):
    """{% generation %}, with which templates mark what the assistant says: its body, as it is."""

    tags = {"generation"}

    def parse(self, parser: Any) -> Any:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.Scope(body).set_lineno(line)


class _Impossible(jinja2.nodes.Impossible):
    """Raised where the compiler could not compute a constant: for want of memory, this process alone could not."""

    def __init__(self, *given: Any):
        super().__init__(*given)
        if isinstance(sys.exc_info()[1], MemoryError):
            sys.exit(3)


def _refuse(message: str) -> None:
    raise jinja2.TemplateError(message)


def render(template: str, variables: dict[str, Any]) -> str:
    """What a template makes, in the environment that `transformers` gives it."""
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = lambda value, **options: json.dumps(
        value, ensure_ascii=False, **options
    )
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment.from_string(template).render(**variables)


def main() -> int:
    """Limits itself, then renders what standard input asks for."""
    asked = json.load(sys.stdin)
    jinja2.nodes.Impossible = _Impossible
    for name, value in asked["limits"].items():
        with contextlib.suppress(OSError, ValueError):  # not every system has every limit
            resource.setrlimit(getattr(resource, name), (value, value))
    try:
        print(len(render(asked["template"], asked["variables"])))
    except MemoryError:
        return 3
    except Exception:  # the template is a program: it may end in any way
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
