"""What the forwarder is told: one public and one secret JSON file, written by the deployment."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, Self

from forwarder.orthanc import Image

PUBLIC_FILE = Path("/etc/forwarder.json")
SECRET_FILE = Path("/run/secrets/forwarder.json")

#: A way in which a destination can confirm; ``auto`` is the first of these that it turns out to have.
Method = Literal["commitment", "query", "stored"]
Confirm = Literal["auto", Method]


@dataclass(frozen=True, kw_only=True)
class Lists:
    """Lists of patterns. An empty one matches anything; of another one, a pattern has to match.

    Patterns are compared without regard to case; ``*`` is any text, ``?`` any character.
    """

    modality: tuple[str, ...] = ()  #: patterns for Modality (0008,0060)
    station: tuple[str, ...] = ()  #: patterns for StationName (0008,1010)
    study_description: tuple[str, ...] = ()  #: patterns for StudyDescription (0008,1030)
    calling_aet: tuple[str, ...] = ()  #: patterns for the AE title that sent the image to the node; images that came by HTTP have none
    sop_class: tuple[str, ...] = ()  #: patterns for the SOP class UID
    origin: str = ""  #: ``received``, ``created``, or empty for both

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> Self:
        """The lists as the configuration has them."""
        return cls(
            modality=tuple(said.get("modality", ())),
            station=tuple(said.get("station", ())),
            study_description=tuple(said.get("studyDescription", ())),
            calling_aet=tuple(said.get("callingAet", ())),
            sop_class=tuple(said.get("sopClass", ())),
            origin=said.get("origin") or "",
        )

    @property
    def of_images(self) -> bool:
        """Whether a list may match some images of a series, and not others."""
        return bool(self.calling_aet or self.sop_class or self.origin)

    def match_series(self, tags: Mapping[str, str]) -> bool:
        """Whether the lists of series match. ``tags``: the series' main DICOM tags and those of its study, by name."""
        asked = ((self.modality, "Modality"), (self.station, "StationName"), (self.study_description, "StudyDescription"))
        return all(_matches(patterns, tags.get(tag, "")) for patterns, tag in asked)

    def match(self, image: Image, tags: Mapping[str, str]) -> bool:
        """Whether all lists match an image."""
        by_image = _matches(self.calling_aet, image.calling_aet) and _matches(self.sop_class, image.sop_class)
        return by_image and self.origin in ("", image.origin) and self.match_series(tags)


@dataclass(frozen=True, kw_only=True)
class Rules(Lists):
    """Which images a link is for: those that all of its own lists match, and that ``but_not`` does not match."""

    but_not: Lists | None = None  #: an image that all of these lists match is left out; None leaves out none

    @classmethod
    def of(cls, said: Mapping[str, Any], but_not: Mapping[str, Any] | None = None) -> Self:
        """The rules as the configuration has them."""
        left_out = Lists.of(but_not or {})
        return replace(super().of(said), but_not=left_out if left_out != Lists() else None)

    def allow_series(self, tags: Mapping[str, str]) -> bool:
        """Whether an image of a series can be for the link. ``tags``: its main DICOM tags and those of its study, by name."""
        out = self.but_not
        return self.match_series(tags) and (out is None or out.of_images or not out.match_series(tags))

    def allow_image(self, image: Image, tags: Mapping[str, str]) -> bool:
        """Whether an image is for the link. ``tags`` are those of its series and its study, or its own."""
        return self.match(image, tags) and (self.but_not is None or not self.but_not.match(image, tags))

    @property
    def needs_study(self) -> bool:
        """Whether a tag of the study is asked for, which costs a request for each series."""
        return bool(self.study_description or (self.but_not and self.but_not.study_description))

    def undecided(self, study_tags: Mapping[str, str]) -> bool:
        """Whether the rules ask for StudyDescription and the study has none. Orthanc keeps the tags of a study's first image alone."""
        return self.needs_study and not study_tags.get("StudyDescription", "").strip()

    @property
    def digest(self) -> str:
        """Changes when the rules do, and not with a version of this program: another digest makes the forwarder look at every series."""
        if self == Rules():
            return ""
        said = {one.name: (getattr(self, one.name), one.default) for one in fields(self)}
        parts = [f"{name}={value!r}" for name, (value, default) in said.items() if name in _DIGESTED or value != default]
        return hashlib.blake2b(f"Rules({', '.join(parts)})".encode(), digest_size=6).hexdigest()


#: What the digest of all rules has: the lists that the first version knew.
_DIGESTED = ("modality", "station", "study_description", "calling_aet")


def _matches(patterns: Sequence[str], value: str) -> bool:
    text = value.strip().upper()
    return not patterns or any(fnmatchcase(text, pattern.upper().replace("[", "[[]")) for pattern in patterns)


@dataclass(frozen=True, kw_only=True)
class LinkConfig:
    """One destination."""

    to: str  #: its name: the entry of the Orthanc's DicomModalities
    record: int  #: the number of the series' metadata that holds its record
    aet: str = ""  #: its AE title
    outside: bool = False  #: whether it is a device, and no node of the stack
    associations: int = 2  #: how many associations may send to it at once
    #: what counts as arrived: storage commitment, an answer to a query, the success of the transfer, or the first of these that it has
    confirm: Confirm = "commitment"
    rules: Rules = field(default_factory=Rules)  #: which images it gets
    revision: str = ""  #: changes when it was deployed anew: what it refused is then tried again


@dataclass(frozen=True, kw_only=True)
class Config:
    """The forwarder of one node."""

    node: str  #: the node's name
    host: str  #: where its Orthanc is reached
    port: int  #: its HTTP port
    user: str  #: a user of its REST API
    password: str  #: that user's password
    links: tuple[LinkConfig, ...]  #: its destinations
    trust: str | None = None  #: a file with the certificate by which the Orthanc is known; None for one without TLS
    delete_after: int | None = None  #: seconds after which a series that every destination has confirmed is deleted; None keeps it for ever
    scu_timeout: int = 10  #: seconds that its Orthanc waits for a destination's answer (DicomScuTimeout); 0 is without end
    port_status: int = 9042  #: where status and metrics are served


def parse(public: Mapping[str, Any], secret: Mapping[str, Any]) -> Config:
    """The configuration from its two files' content. A KeyError or TypeError: the deployment wrote something else, and nothing works."""
    links = tuple(
        LinkConfig(
            to=link["to"],
            record=int(link["record"]),
            aet=link.get("aet", ""),
            outside=link.get("outside", False),
            associations=int(link["associations"]),
            confirm=link["confirm"],
            rules=Rules.of(link.get("only", {}), link.get("not", {})),
            revision=link.get("revision", ""),
        )
        for link in public["links"]
    )
    return Config(
        node=public["node"],
        host=public["host"],
        port=int(public["port"]),
        user=secret["user"],
        password=secret["password"],
        trust=public.get("trust"),
        links=links,
        delete_after=public.get("deleteAfterSeconds"),
        scu_timeout=int(public.get("scuTimeout", 10)),
        port_status=int(public["statusPort"]),
    )


def load() -> Config:
    """The configuration that was deployed."""
    return parse(json.loads(PUBLIC_FILE.read_text(encoding="utf-8")), json.loads(SECRET_FILE.read_text(encoding="utf-8")))
