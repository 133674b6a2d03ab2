"""What a container lays open: its ports, the host itself, and Adminer, which is nothing but a door to the database."""

from __future__ import annotations

from collections.abc import Iterator

from policy.image_names import image_of
from policy.resources import CONTAINER, Resource

_POSTGRESQL_PORT = 5432

#: Capabilities that are as good as root on the host (capabilities(7)): mounting, loading modules, reading other processes or any file.
_LIKE_PRIVILEGED = frozenset({"ALL", "DAC_READ_SEARCH", "SYS_ADMIN", "SYS_MODULE", "SYS_PTRACE", "SYS_RAWIO"})


def no_published_database(container: Resource) -> Iterator[str]:
    """Refuse a PostgreSQL that is reached from outside the stack's network."""
    database = _is_database(container)
    for port in container.mappings("ports"):
        if database or port.get("internal") == _POSTGRESQL_PORT:
            external = port.get("external")
            # The engine sends each number as a floating-point one.
            number = f"{external:.0f}" if isinstance(external, int | float) else "a random port"
            yield f"{container}: publishes the database's port on {port.get('ip') or '0.0.0.0'}:{number}. {_LEAVE_OUT}"
    if database and container.inputs.get("publishAllPorts") is True:
        yield f"{container}: publishes all ports of a database (publish_all_ports). {_LEAVE_OUT}"
    if database and container.text("networkMode") == "host":
        yield f"{container}: a database on the host's own network (network_mode: host) is open to all that reach the host. {_LEAVE_OUT}"


_LEAVE_OUT = (
    "Leave that out: nodes reach the database by its name on the stack's network; a person uses `docker exec`, or, in dev, Adminer."
)


def _is_database(container: Resource) -> bool:
    """By the components' label, by the image's name, or by the variables of PostgreSQL's image: it may be told an ID alone."""
    image = image_of(container)
    return (
        container.role == "db"
        or bool(image and image.product and image.product.title == "PostgreSQL")
        or any(name.startswith("POSTGRES_") for name, _ in container.variables())
    )


def no_adminer_in_prod(resource: Resource) -> Iterator[str]:
    """Refuse Adminer where patients' data is: its whole history is one of holes, and it needs nothing but a password."""
    image = image_of(resource)
    named = image is not None and image.repository.rpartition("/")[2] == "adminer"
    known = resource.type == CONTAINER and (
        resource.role == "adminer" or any(name.startswith("ADMINER_") for name, _ in resource.variables())
    )
    if named or known:
        yield f"{resource}: Adminer is for environment: dev only. Leave it out; `docker exec` with psql is there in prod."


def no_privileged_container(container: Resource) -> Iterator[str]:
    """Refuse a container that could do on the host what root can."""
    for ground in _grounds(container):
        yield f"{container}: {ground}: whoever breaks into this container has the host. Leave it out, or run it outside this stack."


def _grounds(container: Resource) -> Iterator[str]:
    if container.inputs.get("privileged") is True:
        yield "is privileged"
    adds = container.mapping("capabilities").get("adds")
    for capability in adds if isinstance(adds, list) else ():
        if str(capability).upper().removeprefix("CAP_") in _LIKE_PRIVILEGED:
            yield f"has the capability {capability}"
    for key, option in (("pidMode", "pid_mode"), ("usernsMode", "userns_mode"), ("ipcMode", "ipc_mode")):
        if container.text(key) == "host":
            yield f"has {option}: host"
    for option in container.items("securityOpts"):
        if str(option).replace(":", "=").endswith("=unconfined"):
            yield f"is unconfined ({option})"
    mounts = [volume.get("hostPath") for volume in container.mappings("volumes")]
    mounts += [mount.get("source") for mount in container.mappings("mounts") if mount.get("type") == "bind"]
    for path in mounts:
        if str(path).endswith("docker.sock"):
            yield f"holds the engine's socket ({path})"
