"""No password in an environment variable: `docker inspect` shows it, each process of the container has it, crash reports send it."""

from __future__ import annotations

import re
from collections.abc import Iterator

from policy.resources import Resource, SecretText

#: Words that name a secret wherever they stand in a variable's name, and words that do so as a part between underscores.
_ANYWHERE = re.compile(r"PASSWORD|PASSWD|PASSPHRASE|SECRET|TOKEN|CREDENTIAL|APIKEY|REGISTERED_?USERS")
_PARTS = frozenset({"KEY", "PASS", "PW"})
#: A URL with a password, postgresql://user:password@host.
_URL_WITH_PASSWORD = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s:@]*:[^/\s@]+@", re.IGNORECASE)


def no_password_in_environment(container: Resource) -> Iterator[str]:
    """Refuse a variable that is named like a secret, holds a URL with a password, or is secret to Pulumi."""
    named = [name for name, value in container.variables() if _is_password(name, value)]
    for name in named:
        yield f"{container}: the environment variable {name} holds a password, which docker inspect shows. {_AS_FILE}"
    # Names of variables alone: a secret one marks all the others with it, and it may be any of them.
    if not named and any(isinstance(variable, SecretText) for variable in [container.inputs.get("envs"), *container.items("envs")]):
        yield f"{container}: one of its environment variables is a secret of Pulumi's, which docker inspect shows. {_AS_FILE}"


_AS_FILE = (
    "Write it into a file below /run/secrets (uploads, permissions 0400) that the program reads: <NAME>_FILE where the image knows it, "
    "/run/secrets/orthanc.json for Orthanc."
)


def _is_password(name: str, value: str) -> bool:
    upper = name.upper()
    if not value or (upper.endswith("_FILE") and value.startswith("/")):
        return False  # nothing, or where the file with it is
    parts = upper.split("_")
    return bool(
        _ANYWHERE.search(upper)
        or not _PARTS.isdisjoint(parts)
        # PWD alone is the working directory.
        or (len(parts) > 1 and parts[-1] == "PWD")
        or _URL_WITH_PASSWORD.search(value)
    )
