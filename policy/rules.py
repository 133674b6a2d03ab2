"""The rules: functions that yield what is wrong with a resource. Pulumi shows their names and docstrings; docs/policy.md says why."""

import re
from collections.abc import Callable, Iterator

from configs.names import DB_PORT, LABEL_ROLE
from policy.images import ADMINER, POSTGRESQL, Product
from policy.resources import CONTAINER, IMAGE, UNKNOWN, VOLUME, Resource, SecretText

Check = Callable[[Resource], Iterator[str]]
RULES: list["Rule"] = []  # in the order of docs/policy.md

#: As good as root on the host (capabilities(7)): mounting, loading modules, reading other processes or any file.
_LIKE_ROOT = {"ALL", "DAC_READ_SEARCH", "SYS_ADMIN", "SYS_MODULE", "SYS_PTRACE", "SYS_RAWIO"}

#: An environment variable with a password in it.
_PASSWORD = re.compile(
    r"(?is)(?![^=]*_FILE=/)"  # not where the file with it is
    r"(?:[^=]*(?:PASSWORD|PASSWD|PASSPHRASE|SECRET|TOKEN|CREDENTIAL|APIKEY|REGISTERED_?USERS)[^=]*=."
    r"|(?:[^=]*_)?(?:KEY|PASS|PW)(?:_[^=]*)?=.|[^=]*_PWD=."  # PWD alone is the working directory
    r"|[^=]*=.*[a-z][a-z0-9+.-]*://[^/\s:@]*:[^/\s@]+@)"  # postgresql://user:password@host
)


class Rule:
    """Decorates a function that yields what is wrong with a resource of these types. `fix` is how to put right all that it yields."""

    def __init__(self, *types: str, prod_only: bool = False, fix: str = "") -> None:
        self.types, self.prod_only, self.fix = types, prod_only, fix

    def __call__(self, check: Check) -> Check:
        self.name, self.description, self.check = check.__name__.replace("_", "-"), (check.__doc__ or "").partition("\n")[0], check
        RULES.append(self)
        return check

    def messages(self, resource: Resource, *, prod: bool) -> Iterator[str]:
        """For each thing that is wrong with a resource: where, what, how to put it right."""
        if resource.type in self.types and (prod or not self.prod_only):
            yield from (f"{resource}: {wrong}. {self.fix}".rstrip() for wrong in self.check(resource))


def violations(resource: Resource, *, prod: bool) -> Iterator[tuple[str, str]]:
    """Everything that is wrong with a resource: name of the rule, message."""
    return ((rule.name, message) for rule in RULES for message in rule.messages(resource, prod=prod))


@Rule(IMAGE, CONTAINER)
def no_floating_image_tag(resource: Resource) -> Iterator[str]:
    """An image is named so that it is the same tomorrow."""
    if (image := resource.image) and image.floats:
        wrong = f"has the tag {image.tag!r}, which moves on with each release" if image.tag else "has no tag, which means 'latest'"
        yield f"the image {image.text} {wrong}. Name an exact version ({image.example}), or add its digest (@sha256:…)"


@Rule(IMAGE, CONTAINER)
def version_floor(resource: Resource) -> Iterator[str]:
    """Orthanc, Adminer and PostgreSQL have no holes that are known and mended."""
    if (image := resource.image) and (product := image.product) and image.outdated:
        if image.version:
            wrong = f"is older than {product.title} {image.floor}, which mends {product.because}. Take {image.example} or newer"
        else:
            wrong = f"may have known holes: it says no version of {product.title}. Write it before the digest ({image.example}@sha256:…)"
        yield f"the image {image.text} {wrong}"


@Rule(CONTAINER, fix="Leave that out: nodes reach the database by name on their network, people by `docker exec` or, in dev, by Adminer.")
def no_published_database(container: Resource) -> Iterator[str]:
    """A database is reached on the stack's network alone."""
    database = _is_of(container, POSTGRESQL, "db", "POSTGRES_")
    for port in container.each("ports"):
        if database or port.get("internal") == DB_PORT:
            external = f"{port['external']:.0f}" if port.get("external") else "a random port"  # the engine sends 5432.0
            yield f"publishes the database's port on {port.get('ip') or '0.0.0.0'}:{external}"
    if database and container.at("publishAllPorts") is True:
        yield "publishes all ports of a database (publish_all_ports)"
    if database and container.at("networkMode") == "host":
        yield "a database on the host's own network (network_mode: host) is open to all that reach the host"


@Rule(IMAGE, CONTAINER, prod_only=True, fix="Leave it out; `docker exec` with psql is there in prod.")
def no_adminer_in_prod(resource: Resource) -> Iterator[str]:
    """There is no Adminer in prod."""
    if _is_of(resource, ADMINER, "adminer", "ADMINER_"):
        yield "Adminer is for environment: dev only"


def _is_of(resource: Resource, product: Product, role: str, variables: str) -> bool:
    """Whether it is of a product: by the image's name or, as that may be an ID, by the components' label or the image's variables."""
    named = resource.image is not None and resource.image.product is product
    labelled = any((label.get("label"), label.get("value")) == (LABEL_ROLE, role) for label in resource.each("labels"))
    return named or labelled or any(variable.startswith(variables) for variable in resource.each("envs"))


@Rule(CONTAINER, fix="Whoever breaks into this container has the host: leave it out, or run it outside this stack.")
def no_privileged_container(container: Resource) -> Iterator[str]:
    """No container can do on the host what root can."""
    if container.at("privileged") is True:
        yield "is privileged"
    capabilities = container.each("capabilities", "adds")
    yield from (f"has the capability {name}" for name in capabilities if name.upper().removeprefix("CAP_") in _LIKE_ROOT)
    yield from (f"has {kind}_mode: host" for kind in ("pid", "userns", "ipc") if container.at(f"{kind}Mode") == "host")
    yield from (f"is unconfined ({option})" for option in container.each("securityOpts") if re.search("[:=]unconfined$", option))
    paths = (str(mount.get("hostPath") or mount.get("source")) for mount in container.mounts("bind"))
    yield from (f"holds the engine's socket ({path})" for path in paths if path.endswith("docker.sock"))


@Rule(
    CONTAINER,
    fix="`docker inspect` shows it. Write it into a file below /run/secrets (uploads, permissions 0400) that the program reads: "
    "<NAME>_FILE where the image knows it, /run/secrets/orthanc.json for Orthanc.",
)
def no_password_in_environment(container: Resource) -> Iterator[str]:
    """Passwords are in files, not in environment variables."""
    named = [variable.partition("=")[0] for variable in container.each("envs") if _PASSWORD.match(variable)]
    yield from (f"the environment variable {name} holds a password" for name in named)
    # Names of variables alone: a secret one marks all the others with it, and it may be any of them.
    if not named and any(isinstance(variable, SecretText) for variable in container.each("envs")):
        yield "one of its environment variables is a secret of Pulumi's"


@Rule(CONTAINER, fix="Set it to how long it may take to stop (Orthanc 60, PostgreSQL 90).")
def stop_grace_is_set(container: Resource) -> Iterator[str]:
    """A container is given time to stop."""
    seconds = container.at("destroyGraceSeconds")
    if seconds is not UNKNOWN and (seconds or 0) <= 0:
        yield "has no destroy_grace_seconds: it is killed when it is replaced, in the middle of what it writes"


@Rule(CONTAINER, fix="Give it a healthcheck with tests, and wait=True (components/container.py has one for each kind of container).")
def health_check_is_set(container: Resource) -> Iterator[str]:
    """A container says whether it serves."""
    runs_once = container.at("attach") is True and container.at("mustRun") is False and container.at("restart") == "no"
    tests = container.at("healthcheck", "tests")
    if not runs_once and tests is not UNKNOWN and (not tests or tests[0] == "NONE"):
        yield "has no health check, so that an update ends before it serves, or when it never will"


@Rule(CONTAINER)
def log_limits_are_set(container: Resource) -> Iterator[str]:
    """A container's log does not fill the disk."""
    wrong = []
    for key, limit, example in (("max-size", r"(?i)0*[1-9]\d*[bkmg]?", "10m"), ("max-file", r"0*[1-9]\d*", "3")):
        value = container.at("logOpts", key)
        if value is not UNKNOWN and not re.fullmatch(limit, str(value)):
            wrong.append(f'"{key}": "{example}"')
    # Other drivers than Docker's default keep no files (journald, syslog), or bound them by themselves (local).
    if wrong and container.at("logDriver") in (None, "json-file"):
        yield f"its log is not bounded, and fills the host's disk. Say in log_opts: {', '.join(wrong)}"


@Rule(VOLUME, CONTAINER, prod_only=True)
def no_unprotected_data_volume_in_prod(resource: Resource) -> Iterator[str]:
    """Data volumes in prod outlive mistakes."""
    if resource.type == VOLUME and not resource.protected:
        yield "is not protected: a changed program, or pulumi destroy, deletes its data. Make it with protect=True, retain_on_delete=True"
    for mount in resource.mounts("volume"):
        if all(mount.get(key) in (None, "") for key in ("volumeName", "hostPath", "fromContainer", "source")):
            where = mount.get("containerPath") or mount.get("target") or "a path that is not known yet"
            yield f"has an anonymous volume at {where}, deleted with the container. Mount a docker.Volume that is protected"
