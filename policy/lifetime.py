"""How a container lives and ends, and what outlives it: time to stop, a health check, bounded logs, protected data."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from policy.resources import UNKNOWN, VOLUME, Resource

_SIZE = re.compile(r"0*[1-9]\d*[bkmg]?", re.IGNORECASE)
_COUNT = re.compile(r"0*[1-9]\d*")

#: Docker's default driver. Others keep no files (journald, syslog), or bound them by themselves (local).
_DRIVER_WITH_UNBOUNDED_FILES = "json-file"


def stop_grace_is_set(container: Resource) -> Iterator[str]:
    """Refuse a container that is killed at once: the provider's default is SIGKILL, on a database as well."""
    seconds = container.inputs.get("destroyGraceSeconds")
    if seconds is not UNKNOWN and not (isinstance(seconds, int | float) and seconds > 0):
        yield (
            f"{container}: has no destroy_grace_seconds: it is killed when it is replaced, in the middle of what it writes. "
            "Set it to how long it may take to stop (Orthanc 60, PostgreSQL 90)."
        )


def health_check_is_set(container: Resource) -> Iterator[str]:
    """Refuse a container of which nobody can tell whether it serves; one that runs once and is waited for needs no check."""
    if container.inputs.get("attach") is True and container.inputs.get("mustRun") is False and container.text("restart") == "no":
        return
    tests = container.mapping("healthcheck").get("tests")
    unknown = UNKNOWN in (container.inputs.get("healthcheck"), tests)
    if not unknown and (not isinstance(tests, list) or not tests or tests[0] == "NONE"):
        yield (
            f"{container}: has no health check, so that an update ends before it serves, or when it never will. Give it a healthcheck "
            "with tests, and wait=True (components/base.py has one for each kind of container)."
        )


def log_limits_are_set(container: Resource) -> Iterator[str]:
    """Refuse a log that grows until the disk is full: on Orthanc's disk, that ends the taking of images."""
    if container.inputs.get("logDriver") not in (None, _DRIVER_WITH_UNBOUNDED_FILES):
        return
    if container.inputs.get("logOpts") is UNKNOWN:
        return
    options = container.mapping("logOpts")
    limits = (("max-size", _SIZE, "10m"), ("max-file", _COUNT, "3"))
    wrong = [
        f'"{key}": "{example}"'
        for key, pattern, example in limits
        if options.get(key) is not UNKNOWN and not pattern.fullmatch(str(options.get(key, "")))
    ]
    if wrong:
        yield f"{container}: its log is not bounded, and fills the host's disk. Say in log_opts: {', '.join(wrong)}."


def no_unprotected_data_volume_in_prod(resource: Resource) -> Iterator[str]:
    """Refuse a volume that a changed name, a removed line or a `destroy` would delete, with patients' images in it."""
    if resource.type == VOLUME:
        if not resource.protected:
            yield (
                f"{resource}: is not protected: an edit of the program, or pulumi destroy, deletes the data in it. "
                "Make it with protect=True and retain_on_delete=True."
            )
        return
    anonymous = [volume for volume in resource.mappings("volumes") if _nameless(volume, "volumeName", "hostPath", "fromContainer")]
    anonymous += [mount for mount in resource.mappings("mounts") if mount.get("type") == "volume" and _nameless(mount, "source")]
    for volume in anonymous:
        where = volume.get("containerPath") or volume.get("target")
        yield f"{resource}: has an anonymous volume at {where}, deleted with the container. Mount a docker.Volume that is protected."


def _nameless(mount: Mapping[str, object], *sources: str) -> bool:
    """Whether nothing says what is mounted; what is not known yet is said."""
    return all(mount.get(source) in (None, "") for source in sources)
