"""Who may log in at a node, and what each may do there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import Annotated

from pydantic import BeforeValidator, Field

from configs.fields import Settings, UserName, from_list, from_name
from configs.problems import Problem


class Role(StrEnum):
    """What a user may ask of a node's web interface and REST API; components/roles.lua has each request."""

    ADMIN = "admin"
    VIEWER = "viewer"
    UPLOADER = "uploader"


class UserSettings(Settings):
    """One user of a node. A name alone, ``orthanc``, is short for ``{name: orthanc, role: admin}``."""

    name: UserName = Field(
        description="the user's name, unique at the node: 1 to 32 letters, digits, '_' and '-', beginning with a letter. 'forwarder' is "
        "taken."
    )
    role: Annotated[Role, Field(strict=False)] = Field(
        description="'admin': everything. 'viewer': looks, searches and downloads, changes nothing, and sends nothing on. 'uploader': "
        "sends images to the node by HTTP, and sees none.",
    )


_from_name = from_name(lambda name: {"name": name, "role": Role.ADMIN}, "a user's name, or {name: name, role: viewer}")
Users = Annotated[
    tuple[Annotated[UserSettings, BeforeValidator(_from_name, json_schema_input_type=str | UserSettings)], ...],
    BeforeValidator(from_list),
    Field(min_length=1, max_length=100),
]


def check_users(users: Sequence[UserSettings], path: str) -> Iterator[Problem]:
    """What is wrong with a node's users together.

    Args:
        users: the users.
        path: their path in the stack file.
    """
    seen: set[str] = set()
    for i, user in enumerate(users):
        if user.name in seen:
            yield Problem(f"{path}[{i}].name", "is the name of another user of this node, too; leave one out.", user.name)
        seen.add(user.name)
    if not any(user.role is Role.ADMIN for user in users):
        yield Problem(path, "holds no admin, and somebody has to look after the node: give one of them role: admin.")
