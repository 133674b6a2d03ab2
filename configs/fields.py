"""The kinds of values in a stack file, each with its rule and what a wrong one is told; the base of the settings' models."""

from __future__ import annotations

import contextlib
import ipaddress
import re
import socket
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic.alias_generators import to_camel

from configs.names import ADMINER, DB_HOST, DB_ROLES, FORWARDER_USER

#: Names that the stack gives to containers of its own on the private networks, and the one that means itself in every container.
RESERVED_NAMES = frozenset({ADMINER, DB_HOST, DB_ROLES, "localhost"})

#: What /etc/hosts of a container names its own loopback by.
_ITSELF = frozenset({"localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback"})
#: "This network" and what is reserved, with the address of everybody in it (RFC 6890).
_NOBODYS = (ipaddress.IPv4Network("0.0.0.0/8"), ipaddress.IPv4Network("240.0.0.0/4"))

_NAME = re.compile(r"[a-z][a-z0-9-]{0,30}[a-z0-9]|[a-z]")
#: What a duration's unit stands for.
SECONDS: Mapping[str, int] = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_START = re.compile(r"([0-9]{1,6})([smh])")
_KEEP = re.compile(r"forever|until-confirmed(?: after (?P<count>[0-9]{1,6})(?P<unit>[smhd]))?")
_USER = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,31}")
#: RFC 1123, section 2.1: labels of 1 to 63, and the last one not a number, so that 10.0.0.256 is not a name.
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST = re.compile(rf"(?=.{{1,253}}\Z)(?:{_LABEL}\.)*(?![0-9]+\Z){_LABEL}")
#: The engine's own grammar (distribution/reference): what does not fit it fails at a pull, when the network is there already.
_TAGGED_IMAGE = re.compile(
    r"(?P<name>(?:[A-Za-z0-9.-]+(?::[0-9]{1,5})?/)?[a-z0-9]+(?:[._/-]+[a-z0-9]+)*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?(?P<digest>@sha256:[0-9a-f]{64})?"
)


def _check_name(name: str) -> str:
    if name in RESERVED_NAMES:
        raise ValueError(f"is taken by the stack itself; the names {', '.join(sorted(RESERVED_NAMES))} are reserved.")
    if not _NAME.fullmatch(name):
        raise ValueError(
            "is not a host name: 1 to 32 lower-case letters, digits and hyphens, beginning with a letter, not ending with a hyphen."
        )
    return name


def _check_aet(aet: str) -> str:
    """An AE title: DICOM PS3.5 section 6.2, value representation AE. Orthanc refuses the same ones at its start."""
    if not aet or not aet.strip():
        raise ValueError("is empty; an AE title has 1 to 16 characters.")
    if len(aet) > 16:
        raise ValueError(f"has {len(aet)} characters; an AE title has at most 16.")
    if "\\" in aet:
        raise ValueError("holds a backslash, which separates values in DICOM; use letters, digits, '_' and '-'.")
    if not aet.isascii() or not aet.isprintable():
        raise ValueError("holds a control or non-ASCII character; use letters, digits, '_' and '-'.")
    if "${" in aet:
        raise ValueError("holds '${', which begins a variable in Orthanc's configuration files; use letters, digits, '_' and '-'.")
    if aet != aet.strip():
        raise ValueError("begins or ends with a space, which DICOM ignores; leave it out.")
    return aet


def _check_port(port: int) -> int:
    if not 1 <= port <= 65535:
        raise ValueError("is out of range; a port is 1 to 65535.")
    return port


def _seconds_to_start(value: Any) -> Any:
    match = _START.fullmatch(value) if isinstance(value, str) else None
    seconds = int(match[1]) * SECONDS[match[2]] if match else value
    if type(seconds) is not int or not 5 <= seconds <= 86_400:
        raise ValueError("is no time from 5s to 24h; write seconds (300), or a number and s, m or h (5m).")
    return seconds


def _check_user(user: str) -> str:
    if user == FORWARDER_USER:
        raise ValueError(f"is taken: the forwarder beside a node logs in as {FORWARDER_USER!r}; name this user otherwise.")
    if not _USER.fullmatch(user):
        raise ValueError("is not a user name: 1 to 32 letters, digits, '_' and '-', beginning with a letter.")
    return user


def _check_pattern(pattern: str) -> str:
    if not pattern.strip():
        raise ValueError("is empty, and would never match; '*' matches anything.")
    if len(pattern) > 256:
        raise ValueError(f"has {len(pattern)} characters; none of these elements has more than 64, and a pattern at most 256.")
    if "\n" in pattern or "\t" in pattern:
        raise ValueError("holds a tab or a new line, which none of these elements can hold: it would never match.")
    return pattern


def _check_keep(keep: str) -> str:
    if not _KEEP.fullmatch(keep):
        raise ValueError("is not 'forever', 'until-confirmed', or 'until-confirmed after 7d' (a number, and s, m, h or d).")
    return keep


def seconds_to_keep(keep: str) -> int | None:
    """How many seconds after its last image came a node keeps a series that was confirmed; None for ever."""
    match = _KEEP.fullmatch(keep)
    if match is None or keep == "forever":
        return None
    return int(match["count"]) * SECONDS[match["unit"]] if match["count"] else 0


def _check_address(address: str) -> str:
    parsed = _ip_address(address)
    if parsed is None or parsed.is_multicast:
        raise ValueError("is not an IP address of this machine, such as 127.0.0.1, or 0.0.0.0 for all of them.")
    return str(parsed)  # one way to write it: 0:0::0 is the same as ::


def _check_host(host: str) -> str:
    if not _HOST.fullmatch(host) and _ip_address(host) is None:
        raise ValueError("is neither a host name nor an IP address.")
    return host


def unreachable(host: str) -> str:
    """Why a container cannot reach a device by this name or address: it is the container itself, or nobody's; empty where it can."""
    name = host.lower().removesuffix(".")
    address = _ip_address(name)
    if address is None:
        with contextlib.suppress(OSError, ValueError):  # 0x7f000001 is an address, too, for whoever resolves it (inet_aton(3))
            address = ipaddress.IPv4Address(socket.inet_aton(name))
    if isinstance(address, ipaddress.IPv6Address):
        address = address.ipv4_mapped or address
    if name in _ITSELF or name.endswith(".localhost") or (address and (address.is_loopback or address.is_unspecified)):
        return (
            "means the node's own container, which calls it: write host.docker.internal for what runs on the Docker engine's machine, "
            "else its own name or address."
        )
    # By IPv6, a link's own address means nothing without its interface; 169.254.x.y is found over the engine's machine.
    if address and (address.is_multicast or any(address in net for net in _NOBODYS) or (address.version == 6 and address.is_link_local)):
        return "is no address that a container can reach one device at: write the device's own."
    return ""


def _check_device_host(host: str) -> str:
    if why := unreachable(_check_host(host)):
        raise ValueError(why)
    return host


def _ip_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """An IP address; without a zone (fe80::1%eth0), which Docker does not take and no other machine knows."""
    try:
        return None if "%" in text else ipaddress.ip_address(text)
    except ValueError:
        return None


def _check_image(image: str) -> str:
    match = _TAGGED_IMAGE.fullmatch(image) if len(image) <= 512 else None
    if match is None or ".." in image or "//" in image:
        raise ValueError("is not the name of an image; write it as name:tag, or name:tag@sha256:…")
    if match["tag"] == "latest":
        raise ValueError("floats: 'latest' is another image tomorrow; name an exact version.")
    if match["tag"] is None and match["digest"] is None:
        raise ValueError("has no tag, which means 'latest', another image tomorrow; name an exact version.")
    return image


def _check_distinct(items: tuple[Any, ...]) -> tuple[Any, ...]:
    seen: set[Any] = set()
    for item in items:
        if item in seen:
            raise ValueError(f"has {str(item)!r} twice; leave one out.")
        seen.add(item)
    return items


def from_name(long_form: Callable[[str], Mapping[str, Any]], wanted: str) -> Callable[[Any], Any]:
    """What turns the short form of a mapping, a name alone, into the long one.

    Args:
        long_form: the mapping that a name stands for.
        wanted: what anything but a name or a mapping is told to be.
    """

    def expand(value: Any) -> Any:
        if isinstance(value, str):
            return long_form(value)
        if not isinstance(value, Mapping):
            raise ValueError(f"is neither a name nor a mapping; write {wanted}.")  # noqa: TRY004 - pydantic's
        return value

    return expand


def from_list(value: Any) -> Any:
    """Lists become tuples, so that settings stay frozen; anything else is left for pydantic to refuse."""
    return tuple(value) if isinstance(value, list) else value


#: How long a container may take to start, in seconds once it is read.
StartTimeout = Annotated[
    int,
    BeforeValidator(_seconds_to_start),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 5, "maximum": 86_400}, {"type": "string", "pattern": "^[0-9]{1,6}[smh]$"}]}),
]
NodeName = Annotated[str, AfterValidator(_check_name)]
AeTitle = Annotated[str, AfterValidator(_check_aet)]
Port = Annotated[int, AfterValidator(_check_port)]
UserName = Annotated[str, AfterValidator(_check_user)]
BindAddress = Annotated[str, AfterValidator(_check_address)]
Host = Annotated[str, AfterValidator(_check_host)]
DeviceHost = Annotated[str, AfterValidator(_check_device_host)]
Image = Annotated[str, AfterValidator(_check_image)]
Keep = Annotated[str, AfterValidator(_check_keep)]
Patterns = Annotated[
    tuple[Annotated[str, AfterValidator(_check_pattern)], ...],
    BeforeValidator(from_list),
    Field(min_length=1, max_length=100),
]
#: For lists: nothing stands in it twice.
Distinct = AfterValidator(_check_distinct)


class Settings(BaseModel):
    """Frozen, strict (no "4242" for 4242), unknown keys refused, camelCase in the stack file."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, alias_generator=to_camel, populate_by_name=False)
