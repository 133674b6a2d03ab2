"""The kinds of values in a stack file, each with its rules and their messages; what all settings have in common."""

import contextlib
import ipaddress
import re
import socket
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic.alias_generators import to_camel

from configs.names import ADMINER, DB_HOST, DB_ROLES, FORWARDER_USER

#: Names that the stack gives to its own containers, and the name by which every container means itself.
RESERVED_NAMES = frozenset({ADMINER, DB_HOST, DB_ROLES, "localhost"})
#: The seconds of each unit of a duration.
SECONDS: Mapping[str, int] = {"s": 1, "m": 60, "h": 3600, "d": 86400}

#: The name of a user of a node.
USER_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,31}")
_START = re.compile(r"([0-9]{1,6})([smh])")
_KEEP = re.compile(r"forever|until-confirmed(?: after [0-9]{1,6}[smhd])?")
#: RFC 1123, section 2.1: labels of 1 to 63 characters. The last one is not a number, so that 10.0.0.256 is not a name.
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST = re.compile(rf"(?=.{{1,253}}\Z)(?:{_LABEL}\.)*(?![0-9]+\Z){_LABEL}")
#: The grammar of the engine (distribution/reference). A name that does not fit it would fail when the networks are already made.
_IMAGE = re.compile(
    r"(?!.*(?:\.\.|//))(?=.{1,512}\Z)(?:[A-Za-z0-9.-]+(?::[0-9]{1,5})?/)?[a-z0-9]+(?:[._/-]+[a-z0-9]+)*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@sha256:[0-9a-f]{64})?"
)
#: The names of the loopback address in a container's /etc/hosts.
_LOOPBACK_NAMES = frozenset({"localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback"})
#: Addresses of no device (RFC 6890): "this network", and the reserved ones with the broadcast address.
_NO_DEVICE = (ipaddress.IPv4Network("0.0.0.0/8"), ipaddress.IPv4Network("240.0.0.0/4"))


class Settings(BaseModel):
    """Frozen; strict (no "4242" for 4242); unknown keys refused; camelCase in the stack file; a field's docstring describes it."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, alias_generator=to_camel, use_attribute_docstrings=True)


def _check_distinct(items: tuple[Any, ...]) -> tuple[Any, ...]:
    if twice := [item for item, count in Counter(items).items() if count > 1]:
        raise ValueError(f"has {str(twice[0])!r} twice; leave one out.")
    return items


#: For lists: no item is there twice.
Distinct = AfterValidator(_check_distinct)


def or_name(long_form: Callable[[str], Mapping[str, Any]], wanted: str) -> Callable[[Any], Any]:
    """A validator that turns a name alone into the mapping that it is short for, and for other values says what is wanted."""

    def expand(value: Any) -> Any:
        if isinstance(value, str):
            return long_form(value)
        if not isinstance(value, Mapping):
            raise ValueError(f"is neither a name nor a mapping; write {wanted}.")  # noqa: TRY004 - pydantic takes only a ValueError
        return value

    return expand


def _check(*rules: tuple[Callable[[Any], object], str]) -> AfterValidator:
    """A check of a value: the first rule whose condition is true refuses it. An empty message stands for what the condition returns."""

    def check(value: Any) -> Any:
        for wrong, message in rules:
            if reason := wrong(value):
                raise ValueError(message or reason)
        return value

    return AfterValidator(check)


def _is_not(pattern: str | re.Pattern[str]) -> Callable[[str], bool]:
    """The condition that a text does not match a regular expression from its beginning to its end."""
    return lambda text: re.fullmatch(pattern, text) is None


def _seconds_to_start(value: Any) -> Any:
    match = _START.fullmatch(value) if isinstance(value, str) else None
    seconds = int(match[1]) * SECONDS[match[2]] if match else value
    if type(seconds) is not int or not 5 <= seconds <= 86_400:
        raise ValueError("is no time from 5s to 24h; write seconds (300), or a number and s, m or h (5m).")
    return seconds


def _ip_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """An IP address; None for other text, and for one with a zone (fe80::1%eth0): Docker does not take it, no other machine knows it."""
    try:
        return None if "%" in text else ipaddress.ip_address(text)
    except ValueError:
        return None


def _check_address(text: str) -> str:
    address = _ip_address(text)
    if address is None or address.is_multicast:
        raise ValueError("is not an IP address of this machine, such as 127.0.0.1, or 0.0.0.0 for all of them.")
    return str(address)  # always the short form: 0:0::0 becomes ::


def unreachable(host: str) -> str:
    """Why a container cannot reach a device by a host name or an IP address; empty where it can."""
    name = host.lower().removesuffix(".")
    address = _ip_address(name)
    if address is None:
        with contextlib.suppress(OSError, ValueError):  # resolvers also read 0x7f000001 as an address (inet_aton(3))
            address = ipaddress.IPv4Address(socket.inet_aton(name))
    if isinstance(address, ipaddress.IPv6Address):
        address = address.ipv4_mapped or address
    if name in _LOOPBACK_NAMES or name.endswith(".localhost") or (address and (address.is_loopback or address.is_unspecified)):
        return (
            "means the node's own container: write host.docker.internal for what runs on the machine of the Docker engine, "
            "else its own name or address."
        )
    # A link-local IPv6 address means nothing without its interface. A link-local IPv4 address is reached through the engine's machine.
    if address and (address.is_multicast or any(address in net for net in _NO_DEVICE) or (address.version == 6 and address.is_link_local)):
        return "is not the address of one machine that a container can reach: write the machine's own."
    return ""


#: Lists become tuples, so that settings stay frozen; pydantic refuses anything else.
FromList = BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)

NodeName = Annotated[
    str,
    _check(
        (RESERVED_NAMES.__contains__, f"is taken by the stack itself; the names {', '.join(sorted(RESERVED_NAMES))} are reserved."),
        (
            _is_not(r"[a-z](?:[a-z0-9-]{0,30}[a-z0-9])?"),
            "is not a host name: 1 to 32 lower-case letters, digits and hyphens, beginning with a letter, not ending with a hyphen.",
        ),
    ),
]
#: DICOM PS3.5, section 6.2, value representation AE. Orthanc refuses the same AE titles at its start.
AeTitle = Annotated[
    str,
    _check(
        (lambda aet: not aet.strip(), "is empty; an AE title has 1 to 16 characters."),
        (lambda aet: len(aet) > 16, "has more than 16 characters, the most that an AE title has."),
        (lambda aet: "\\" in aet, "holds a backslash, which separates values in DICOM; use letters, digits, '_' and '-'."),
        (_is_not(r"[ -~]*"), "holds a control or non-ASCII character; use letters, digits, '_' and '-'."),
        (lambda aet: "${" in aet, "holds '${', which begins a variable in Orthanc's configuration; use letters, digits, '_' and '-'."),
        (lambda aet: aet != aet.strip(), "begins or ends with a space, which DICOM ignores; leave it out."),
    ),
]
UserName = Annotated[
    str,
    _check(
        (FORWARDER_USER.__eq__, f"is taken: a node's forwarder logs in as {FORWARDER_USER!r}; give this user another name."),
        (_is_not(USER_NAME), "is not a user name: 1 to 32 letters, digits, '_' and '-', beginning with a letter."),
    ),
]
Port = Annotated[int, _check((lambda port: not 1 <= port <= 65535, "is out of range; a port is 1 to 65535."))]
Address = Annotated[str, AfterValidator(_check_address)]
Host = Annotated[
    str, _check((lambda host: not _HOST.fullmatch(host) and _ip_address(host) is None, "is neither a host name nor an IP address."))
]
DeviceHost = Annotated[Host, _check((unreachable, ""))]
Image = Annotated[
    str,
    _check(
        (_is_not(_IMAGE), "is not the name of an image; write it as name:tag, or name:tag@sha256:…"),
        (lambda image: image.partition("@")[0].endswith(":latest"), "floats: 'latest' is another image tomorrow; name an exact version."),
        (_is_not(r".*[:@][^/]*"), "has no tag, which means 'latest', another image tomorrow; name an exact version."),
    ),
]
Keep = Annotated[
    str, _check((_is_not(_KEEP), "is not 'forever', 'until-confirmed', or 'until-confirmed after 7d' (a number, and s, m, h or d)."))
]
#: Neither user nor host begins with a hyphen: ssh would read an option. No password: ssh takes none.
_SFTP = r"sftp://[^-/:@\s][^/:@\s]*@\w[\w.-]*(:\d{1,5})?/\S*[^/\s]"
_REPOSITORY = (
    "is neither a folder of the engine's machine (/srv/backup), nor a REST server (rest:https://host:8000/), nor S3 "
    "(s3:https://host/bucket), nor SFTP (sftp://user@host:22//srv/backup; with one / before srv, it is in the user's home)."
)
#: Where restic keeps backups.
Repository = Annotated[
    str,
    _check(
        (
            lambda to: to.startswith(("rest:", "s3:")) and "@" in to,
            "holds a login, which would stand in clear; set it as the secrets backupKey (user, or access key) and backupSecret.",
        ),
        (_is_not(rf"/[^/:].*|rest:https?://[^/\s]+\S*|s3:(https?://)?[^/\s]+/\S+|{_SFTP}"), _REPOSITORY),
        (lambda to: to.startswith("/") and {".", ".."} & {*to.split("/")}, "has a part '.' or '..'; write the folder's own path."),
    ),
]
#: The public key of an SSH server, as a line of sshd(8)'s known_hosts has it.
HostKey = Annotated[
    str,
    _check(
        (
            _is_not(r"(ssh-(ed25519|rsa)|ecdsa-sha2-nistp(256|384|521)) AAAA[A-Za-z0-9+/]+={0,2}"),
            "is not an SSH server's key: its type and the key, as ssh-keyscan prints them after the host (ssh-ed25519 AAAA…).",
        ),
    ),
]
_Pattern = Annotated[
    str,
    _check(
        (lambda pattern: not pattern.strip(), "is empty, and would never match; '*' matches anything."),
        (lambda pattern: len(pattern) > 256, "has more than 256 characters; none of these elements has more than 64."),
        (re.compile(r"[\n\t]").search, "holds a tab or a new line, which none of these elements can hold: it would never match."),
    ),
]
#: Of a UID (DICOM PS3.5, section 9), no letter: the standard's keywords are no UIDs.
_UidPattern = Annotated[
    str, _check((_is_not(r"[0-9.*?]{1,64}"), "is no UID, and no pattern of one: write 1.2.840.10008.5.1.4.1.1.2, or parts of it and '*'."))
]
Patterns = Annotated[tuple[_Pattern, ...], FromList, Field(min_length=1, max_length=100)]
UidPatterns = Annotated[tuple[_UidPattern, ...], FromList, Field(min_length=1, max_length=100)]
#: How long a container may take to start; in seconds once it is read.
Timeout = Annotated[
    int,
    BeforeValidator(_seconds_to_start),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 5, "maximum": 86_400}, {"type": "string", "pattern": "^[0-9]{1,6}[smh]$"}]}),
]
