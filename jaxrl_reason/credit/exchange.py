"""One HTTP request and its answer within a time that covers all of it.

Host side. Reads: the network. Writes: nothing.

A socket's timeout starts anew with every byte, and the resolution of a name has none. So the request runs in a thread
of its own that is left to itself when the time is over; its connection is then cut.
"""

from __future__ import annotations

import contextlib
import email.utils
import http.client
import re
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any, NamedTuple

_SECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")


class TooLong(Exception):
    """The answer has more bytes than are read."""


class Answer(NamedTuple):
    """What a server said, whatever its status."""

    status: int
    headers: dict[str, str]  # names in lower case
    body: bytes


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the key to another host, and turns a POST into a GET."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


def post(
    url: str,
    body: bytes,
    headers: Mapping[str, str],
    *,
    timeout_s: float,
    max_bytes: int,
) -> Answer:
    """The server's answer, of any status; redirects are not followed.

    Args:
      url: http or https.
      body: JSON.
      headers: beside the content type; sent to this host alone.
      timeout_s: seconds for everything: name, connection, encryption, header, body.
      max_bytes: longest body that is read.
    Returns:
      Answer.
    Raises:
      TimeoutError: the time is over.
      TooLong: the body is longer than `max_bytes`.
      OSError, http.client.HTTPException: no connection, or one that broke off.
      ValueError: no such URL or header.
    """
    request = urllib.request.Request(
        url, data=body, headers={"Content-Type": "application/json"}, method="POST"
    )
    for name, value in headers.items():
        request.add_unredirected_header(name, value)
    opened: list[socket.socket] = []
    over = threading.Event()
    outcome: list[Answer | BaseException] = []

    def run() -> None:
        try:
            outcome.append(_exchange(_opener(opened, over), request, timeout_s, max_bytes))
        except BaseException as error:  # raised again by the thread that waits
            outcome.append(error)

    thread = threading.Thread(target=run, daemon=True, name="exchange")
    thread.start()
    thread.join(timeout_s)
    if thread.is_alive():
        over.set()
        for connection in opened:
            with contextlib.suppress(OSError, ValueError):
                connection.shutdown(socket.SHUT_RDWR)
        raise TimeoutError
    (result,) = outcome
    if isinstance(result, BaseException):
        raise result
    return result


def _opener(opened: list[socket.socket], over: threading.Event) -> urllib.request.OpenerDirector:
    """Notes every connection as it is made."""

    def noting(kind: type[http.client.HTTPConnection]) -> type[http.client.HTTPConnection]:
        class Noting(kind):
            def connect(self) -> None:
                super().connect()
                opened.append(self.sock)
                if over.is_set():
                    self.close()
                    raise TimeoutError

        return Noting

    class Plain(urllib.request.HTTPHandler):
        def http_open(self, request):
            return self.do_open(noting(http.client.HTTPConnection), request)

    class Secure(urllib.request.HTTPSHandler):
        def https_open(self, request):
            return self.do_open(noting(http.client.HTTPSConnection), request)

    return urllib.request.build_opener(Plain, Secure, _NoRedirect)


def _exchange(
    opener: urllib.request.OpenerDirector,
    request: urllib.request.Request,
    timeout_s: float,
    max_bytes: int,
) -> Answer:
    try:
        response = opener.open(request, timeout=timeout_s)
    except urllib.error.HTTPError as error:
        response = error
    except urllib.error.URLError as error:
        raise error.reason if isinstance(error.reason, TimeoutError) else error from None
    with response:
        body = bytearray()
        while chunk := response.read(min(1 << 16, max_bytes + 1 - len(body))):
            body += chunk
            if len(body) > max_bytes:
                raise TooLong(f"more than {max_bytes} bytes")
        # http.client takes a body that ends early for whole where it is read in pieces.
        if left := getattr(response, "length", None):
            raise http.client.IncompleteRead(b"", left)
        found = {name.lower(): value for name, value in response.headers.items()}
        return Answer(response.status, found, bytes(body))


def retry_after(text: str) -> float | None:
    """Seconds that a header Retry-After asks to wait, >= 0; None where it names no time that can be read.

    Example:
      >>> retry_after("2"), retry_after("Wed, 21 Oct 2015 07:28:00 GMT"), retry_after("soon")
      (2.0, 0.0, None)
    """
    if _SECONDS.fullmatch(text.strip()):
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (TypeError, ValueError, OverflowError, OSError):
        return None
