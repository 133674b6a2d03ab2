"""What a stack file says of a forwarding link, and of how long a node keeps what it has forwarded."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from configs.fields import SECONDS, Settings, from_list, from_name

_KEEP = re.compile(r"forever|until-confirmed(?: after (?P<count>[0-9]{1,6})(?P<unit>[smhd]))?")


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


Patterns = Annotated[
    tuple[Annotated[str, AfterValidator(_check_pattern)], ...],
    BeforeValidator(from_list),
    Field(min_length=1, max_length=100),
]
Keep = Annotated[str, AfterValidator(_check_keep)]


class RuleSettings(Settings):
    """Which images a link is for: those that match a pattern of each list. `*` is any text, `?` any character; case does not count."""

    modality: Patterns = Field(default=(), description='patterns for Modality (0008,0060): `[CT, "M*"]`.')
    calling_aet: Patterns = Field(
        default=(),
        description="patterns for the AE title that sent the image to the node. What came by HTTP has none, and matches `*` alone.",
    )
    station: Patterns = Field(default=(), description="patterns for StationName (0008,1010).")
    study_description: Patterns = Field(default=(), description='patterns for StudyDescription (0008,1030): `["*chest*"]`.')


class LinkSettings(Settings):
    """One destination of a node. A name alone, ``server``, is short for ``{to: server}``."""

    to: str = Field(description="the destination's name: a node, or one of the stack's modalities that has this node among its `nodes`.")
    only: RuleSettings = Field(
        default_factory=RuleSettings,
        description="which images the destination gets; all, when left out. What no link is for stays where it is.",
    )
    associations: Annotated[int, Field(ge=1, le=16)] = Field(
        default=2, description="how many associations may send to the destination at once, 1 to 16."
    )
    confirm: Literal["commitment", "query"] = Field(
        default="commitment",
        description="what counts as arrived: 'commitment', the destination says by DICOM storage commitment that it keeps the image; "
        "'query', for one that cannot, it lists the image when it is asked (C-FIND).",
    )


_from_name = from_name(lambda name: {"to": name}, "a destination's name, or {to: name, …}")
Links = Annotated[
    tuple[Annotated[LinkSettings, BeforeValidator(_from_name, json_schema_input_type=str | LinkSettings)], ...],
    BeforeValidator(from_list),
    Field(max_length=64),
]
