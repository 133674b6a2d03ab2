"""The HTTP API of a forge (GitHub, GitLab): JSON both ways, pages followed, passing faults tried again.

Standard library only: the job that may write to pull requests runs no package of anybody's.
"""

from __future__ import annotations

import http.client
import json
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from email.message import Message
from typing import Any

from ops.setup.console import SetupError

#: How long one answer may take.
_ANSWER_SECONDS = 30
#: How often a request is sent at most, and how long all pauses between are at most: a job that waits for ever blocks the next one.
ATTEMPTS = 6
_LONGEST_PAUSE_SECONDS = 60.0
#: What a forge answers when the same request may succeed later. GitHub says 403 for its secondary limits, with Retry-After.
_PASSING = frozenset({429, 500, 502, 503, 504})
#: More pages than that are a forge that goes round in circles: 100 on each, 50,000 comments.
_MOST_PAGES = 500
_NEXT = re.compile(r'<([^<>]*)>\s*;[^,]*\brel="?next"?')


class ForgeError(SetupError):
    """The forge refused a request.

    Attributes:
        status: the HTTP status; 0 where there was no answer.
    """

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status

    @property
    def passing(self) -> bool:
        """Whether the request may have been carried out all the same, or may be another time: nobody knows until it is looked at."""
        return self.status == 0 or self.status in _PASSING


@dataclass(frozen=True)
class Answer:
    """An answer: its decoded JSON (None where there is none), and the address of the next page."""

    body: Any
    next: str | None = None


@dataclass(frozen=True)
class Api:
    """A forge's API.

    Attributes:
        url: where it begins, without a slash at the end.
        headers: what each request carries: the token, the version. They are in no message and no repr.
    """

    url: str
    headers: Mapping[str, str] = field(repr=False)

    def pause(self, seconds: float) -> None:
        """Wait before another attempt."""
        time.sleep(seconds)

    def get(self, path: str) -> Any:
        """The JSON at a path (with its query)."""
        return self.send("GET", path).body

    def pages(self, path: str, *, attribute: str | None = None) -> Iterator[Any]:
        """The items of a list, of all its pages, as the Link headers lead.

        Args:
            path: the list; it is asked for 100 items a page.
            attribute: the attribute that holds the items, where the answer is not the list itself.
        """
        address: str | None = f"{path}{'&' if '?' in path else '?'}per_page=100"
        for _ in range(_MOST_PAGES):
            if address is None:
                return
            answer = self.send("GET", address)
            yield from answer.body[attribute] if attribute else answer.body
            address = answer.next
        raise ForgeError(f"GET {path} has more than {_MOST_PAGES} pages.")

    def send(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Answer:
        """Send a request. It is sent again after a passing fault, but for POST, which would make a second one of what it made.

        Raises:
            ForgeError: it was refused, or there was no answer to the last attempt.
        """
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return self._send(method, path, body)
            except _RefusedError as refused:
                error, wait = refused.error, refused.wait
                # A limit is said before anything is done. After any other fault a POST may have been carried out.
                again = refused.limited or (error.passing and method != "POST")
            if not again or attempt == ATTEMPTS:
                raise error
            self.pause(pause_before(attempt, wait))
        raise AssertionError("the last attempt either returns or raises")

    def download(self, path: str, most: int) -> bytes:
        """A file, which the API may keep elsewhere.

        Args:
            path: where the API has it.
            most: how many bytes are taken.

        Raises:
            ForgeError: it is larger, or was refused.
        """
        request = self._request("GET", path, None)
        try:
            with urllib.request.urlopen(request, timeout=_ANSWER_SECONDS) as answer:
                content: bytes = answer.read(most + 1)
        except (OSError, http.client.HTTPException) as error:
            raise ForgeError(f"GET {path} failed: {_reason(error)}", getattr(error, "code", 0)) from None
        if len(content) > most:
            raise ForgeError(f"GET {path}: more than {most} bytes.")
        return content

    def _send(self, method: str, path: str, body: Mapping[str, Any] | None) -> Answer:
        try:
            with urllib.request.urlopen(self._request(method, path, body), timeout=_ANSWER_SECONDS) as answer:
                content = answer.read()
                following = _NEXT.search(answer.headers.get("Link", ""))
                return Answer(json.loads(content) if content.strip() else None, following[1] if following else None)
        except urllib.error.HTTPError as error:
            limited = error.code == 429 or (error.code == 403 and _is_limit(error.headers))
            refused = ForgeError(f"{method} {path} was refused: {error.code} {error.reason}{_said(error)}", error.code)
            raise _RefusedError(refused, limited, _wait(error.headers)) from None
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise _RefusedError(ForgeError(f"{method} {path} got no answer: {_reason(error)}"), False, None) from None

    def _request(self, method: str, path: str, body: Mapping[str, Any] | None) -> urllib.request.Request:
        address = path if path.startswith(f"{self.url}/") else f"{self.url}{path}"
        if "://" in path and address != path:
            raise ForgeError(f"the forge at {self.url} names a page elsewhere: {path}")
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(address, data, {"Content-Type": "application/json"} if data else {}, method=method)
        for name, value in self.headers.items():
            # Not sent on when the answer leads to another host: urllib would hand the token to it.
            request.add_unredirected_header(name, value)
        return request


class _RefusedError(Exception):
    def __init__(self, error: ForgeError, limited: bool, wait: float | None) -> None:
        super().__init__(str(error))
        self.error, self.limited, self.wait = error, limited, wait


def pause_before(attempt: int, asked: float | None = None) -> float:
    """How many seconds to wait after an attempt: what the forge asks for, else 1, 2, 4 …; never more than a minute."""
    return min(asked if asked is not None else 2.0 ** (attempt - 1), _LONGEST_PAUSE_SECONDS)


def segment(text: str) -> str:
    """A text as one segment of a path, or one value of a query, whatever it holds."""
    return urllib.parse.quote(text, safe="")


def _is_limit(headers: Message) -> bool:
    return headers.get("Retry-After") is not None or headers.get("X-RateLimit-Remaining") == "0"


def _wait(headers: Message) -> float | None:
    after = headers.get("Retry-After") or ""
    if after.isdecimal():
        return float(after)
    reset = headers.get("X-RateLimit-Reset") or ""
    if headers.get("X-RateLimit-Remaining") == "0" and reset.isdecimal():
        return max(1.0, float(reset) - time.time())
    return None


def _said(error: urllib.error.HTTPError) -> str:
    """The forge's own message, as one line of bounded length. It goes to a log, where a line may be a command to the runner."""
    try:
        said = json.loads(error.read(64_000))
        message = str(said.get("message") or said.get("error") or "")
        details = "; ".join(str(one.get("message") or one.get("code") or one) for one in said.get("errors") or [] if isinstance(one, dict))
    except (OSError, ValueError, AttributeError, http.client.HTTPException):
        return ""
    text = " ".join(f"{message} {details}".split())[:300]
    return f" ({text})" if text else ""


def _reason(error: Exception) -> str:
    return " ".join(str(getattr(error, "reason", "") or error or type(error).__name__).split())
