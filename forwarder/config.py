"""What the forwarder is told: one public and one secret JSON file, written by the deployment."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

PUBLIC_FILE = Path("/etc/forwarder.json")
SECRET_FILE = Path("/run/secrets/forwarder.json")

#: A way in which a destination can confirm; ``auto`` is the first of these that it turns out to have.
Method = Literal["commitment", "query", "stored"]
Confirm = Literal["auto", Method]


@dataclass(frozen=True, kw_only=True)
class Rules:
    """Which images a link is for. An empty list allows anything; each list that is not empty must have a pattern that matches.

    Patterns are compared without regard to case; ``*`` is any text, ``?`` any character.

    Attributes:
        modality: patterns for Modality (0008,0060).
        station: patterns for StationName (0008,1010).
        study_description: patterns for StudyDescription (0008,1030).
        calling_aet: patterns for the AE title that sent the image to the node; images that came by HTTP have none.
    """

    modality: tuple[str, ...] = ()
    station: tuple[str, ...] = ()
    study_description: tuple[str, ...] = ()
    calling_aet: tuple[str, ...] = ()

    @classmethod
    def of(cls, said: Mapping[str, Sequence[str]]) -> Rules:
        """Rules as the configuration has them."""
        return cls(
            modality=tuple(said.get("modality", ())),
            station=tuple(said.get("station", ())),
            study_description=tuple(said.get("studyDescription", ())),
            calling_aet=tuple(said.get("callingAet", ())),
        )

    def allow_series(self, tags: Mapping[str, str]) -> bool:
        """Whether any image of a series is for the link.

        Args:
            tags: its main DICOM tags and those of its study, by name.
        """
        asked = ((self.modality, "Modality"), (self.station, "StationName"), (self.study_description, "StudyDescription"))
        return all(_matches(patterns, tags.get(tag, "")) for patterns, tag in asked)

    def allow_image(self, calling_aet: str) -> bool:
        """Whether an image of an allowed series is for the link."""
        return _matches(self.calling_aet, calling_aet)

    @property
    def needs_study(self) -> bool:
        """Whether a tag of the study is asked for, which costs a request for each series."""
        return bool(self.study_description)

    @property
    def digest(self) -> str:
        """Changes when the rules do."""
        return hashlib.blake2b(repr(self).encode(), digest_size=6).hexdigest() if self != Rules() else ""


def _matches(patterns: Sequence[str], value: str) -> bool:
    text = value.strip().upper()
    return not patterns or any(fnmatchcase(text, pattern.upper().replace("[", "[[]")) for pattern in patterns)


@dataclass(frozen=True, kw_only=True)
class LinkConfig:
    """One destination.

    Attributes:
        to: its name: the entry of the Orthanc's DicomModalities.
        record: the number of the metadata of each series that holds what it has confirmed.
        associations: how many associations may send to it at once.
        confirm: what counts as arrived: storage commitment, an answer to a query, the success of the transfer, or what it has of these.
        rules: which images it gets.
        revision: changes when it was deployed anew: what it refused is then tried again.
    """

    to: str
    record: int
    associations: int = 2
    confirm: Confirm = "commitment"
    rules: Rules = field(default_factory=Rules)
    revision: str = ""


@dataclass(frozen=True, kw_only=True)
class Config:
    """The forwarder of one node.

    Attributes:
        node: the node's name.
        host: where its Orthanc is reached.
        port: its HTTP port.
        user: a user of its REST API.
        password: that user's password.
        trust: a file with the certificate by which the Orthanc is known; None for one without TLS.
        links: its destinations.
        delete_after: seconds after which a series that every destination has confirmed is deleted; None keeps it for ever.
        port_status: where status and metrics are served.
    """

    node: str
    host: str
    port: int
    user: str
    password: str
    links: tuple[LinkConfig, ...]
    trust: str | None = None
    delete_after: int | None = None
    port_status: int = 9042


def parse(public: Mapping[str, Any], secret: Mapping[str, Any]) -> Config:
    """The configuration from its two files' content.

    Raises:
        KeyError, TypeError: the deployment wrote something else; there is no way to go on.
    """
    links = tuple(
        LinkConfig(
            to=link["to"],
            record=int(link["record"]),
            associations=int(link["associations"]),
            confirm=link["confirm"],
            rules=Rules.of(link.get("only", {})),
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
        port_status=int(public["statusPort"]),
    )


def load() -> Config:
    """The configuration that was deployed."""
    return parse(json.loads(PUBLIC_FILE.read_text(encoding="utf-8")), json.loads(SECRET_FILE.read_text(encoding="utf-8")))
