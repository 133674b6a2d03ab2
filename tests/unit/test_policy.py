"""The policy pack's rules: each is broken once, by itself, and holds where it must not complain."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import yaml

from configs.held import Held
from configs.names import LABEL_ROLE
from configs.settings import ImageSettings
from images import ROLES, local_image
from ops import preview, recover, up
from ops.setup.console import ROOT, SetupError
from policy.image_names import PRODUCTS, dotted
from policy.resources import CONTAINER, IMAGE, UNKNOWN, VOLUME, Resource, SecretText
from policy.rules import RULES, violations
from tests.unit.reports import recorded

#: A container as the components make one.
GOOD: Mapping[str, Any] = {
    "name": "orthanc-stack-dev-server",
    "image": "sha256:0123",
    "envs": ["TCP_NODELAY=1", "TZ=Europe/Vienna"],
    "labels": [{"label": LABEL_ROLE, "value": "node"}],
    "ports": [{"internal": 8042.0, "external": 8042.0, "ip": "127.0.0.1"}],
    "volumes": [{"volumeName": "orthanc-stack-dev-server", "containerPath": "/var/lib/orthanc/db"}],
    "capabilities": {"drops": ["ALL"], "adds": ["CAP_CHOWN"]},
    "healthcheck": {"tests": ["CMD-SHELL", "true"]},
    "destroyGraceSeconds": 60.0,
    "logDriver": "json-file",
    "logOpts": {"max-size": "10m", "max-file": "3"},
    "networkMode": "bridge",
    "mustRun": True,
    "restart": "unless-stopped",
}
DB = [{"label": LABEL_ROLE, "value": "db"}]
ADMINER = [{"label": LABEL_ROLE, "value": "adminer"}]
PORT = [{"internal": 5432.0, "external": 15432.0, "ip": "127.0.0.1"}]


def container(**changes: Any) -> Resource:
    """A good container, less what is None, with what is changed."""
    inputs = copy.deepcopy(dict(GOOD)) | changes
    return Resource(type=CONTAINER, name="server-container", inputs={key: value for key, value in inputs.items() if value is not None})


def image(name: Any) -> Resource:
    return Resource(type=IMAGE, name="images-role", inputs={"name": name})


def with_variable(variable: str) -> Resource:
    return container(envs=[variable])


def volume(*, protected: bool) -> Resource:
    return Resource(type=VOLUME, name="server-data", inputs={"name": "orthanc-stack-prod-server"}, protected=protected)


def broken(resource: Resource, *, prod: bool = True) -> set[str]:
    """The names of the rules that a resource breaks."""
    return {rule for rule, _ in violations(resource, prod=prod)}


#: Rule, what breaks it and no other, what the message says. A rule that is not here fails the test below.
BROKEN = [
    ("no-floating-image-tag", image("postgres:17"), "postgres:17 has the tag '17', which moves on.*postgres:17.10"),
    ("no-floating-image-tag", image("adminer"), "has no tag, which means 'latest'.*adminer:5.5.1"),
    ("no-floating-image-tag", container(image="busybox:latest"), "orthanc-stack-dev-server: the image busybox:latest"),
    ("version-floor", image("adminer:5.5.0"), "older than Adminer 5.5.1, .*GHSA-fr74-9mf9-gf44.*Take adminer:5.5.1 or newer"),
    ("version-floor", image("orthancteam/orthanc:26.7.0"), "older than Orthanc 26.8.1, .*CVE-2026-10528"),
    (
        "version-floor",
        image("mirror.example:5000/library/postgres:16.13"),
        "CVE-2026-6473.*Take mirror.example:5000/library/postgres:16.14",
    ),
    ("version-floor", container(image="adminer:4.8.1"), "orthanc-stack-dev-server: the image adminer:4.8.1 is older"),
    ("no-published-database", container(labels=DB, ports=PORT), r"orthanc-stack-dev-server: publishes .* 127.0.0.1:15432\. Leave"),
    ("no-published-database", container(ports=[{"internal": 5432.0}]), "on 0.0.0.0:a random port"),
    ("no-published-database", container(labels=DB, ports=[{"internal": 5433.0, "external": 5433.0}]), "on 0.0.0.0:5433"),
    ("no-published-database", container(labels=None, envs=["POSTGRES_USER=x"], ports=None, networkMode="host"), "network_mode: host"),
    ("no-published-database", container(image="postgres:17.11", labels=None, ports=None, publishAllPorts=True), "publish_all_ports"),
    ("no-adminer-in-prod", image("adminer:5.5.1"), "images-role: Adminer is for environment: dev only"),
    ("no-adminer-in-prod", image(local_image("adminer")), "dev only"),
    ("no-adminer-in-prod", container(labels=ADMINER), "orthanc-stack-dev-server: Adminer is"),
    ("no-adminer-in-prod", container(labels=None, envs=["ADMINER_DEFAULT_SERVER=db"]), "dev only"),
    ("no-privileged-container", container(privileged=True), "orthanc-stack-dev-server: is privileged"),
    ("no-privileged-container", container(capabilities={"adds": ["SYS_ADMIN"]}), "has the capability SYS_ADMIN"),
    ("no-privileged-container", container(capabilities={"adds": ["CAP_all"]}), "has the capability CAP_all"),
    ("no-privileged-container", container(pidMode="host"), "pid_mode: host"),
    ("no-privileged-container", container(securityOpts=["seccomp:unconfined"]), r"unconfined \(seccomp:unconfined\)"),
    ("no-privileged-container", container(volumes=[{"hostPath": "/var/run/docker.sock", "containerPath": "/s"}]), "engine's socket"),
    ("no-privileged-container", container(mounts=[{"type": "bind", "source": "/run/docker.sock", "target": "/s"}]), "engine's socket"),
    ("no-password-in-environment", container(envs=["DB_PASSWORD=hunter2"]), "the environment variable DB_PASSWORD .*/run/secrets"),
    ("no-password-in-environment", container(envs=SecretText("hunter2")), "a secret of Pulumi's"),
    ("no-password-in-environment", container(envs=[SecretText("A=b"), SecretText("X=hunter2")]), "one of its environment variables"),
    ("stop-grace-is-set", container(destroyGraceSeconds=None), "orthanc-stack-dev-server: has no destroy_grace_seconds"),
    ("stop-grace-is-set", container(destroyGraceSeconds=0.0), "has no destroy_grace_seconds"),
    ("health-check-is-set", container(healthcheck=None), "orthanc-stack-dev-server: has no health check"),
    ("health-check-is-set", container(healthcheck={"tests": ["NONE"]}), "has no health check"),
    ("health-check-is-set", container(healthcheck=None, mustRun=False, restart="no"), "has no health check"),
    ("log-limits-are-set", container(logOpts=None), '"max-size": "10m", "max-file": "3"'),
    ("log-limits-are-set", container(logDriver=None, logOpts={"max-size": "10m"}), r'log_opts: "max-file": "3"\.'),
    ("log-limits-are-set", container(logOpts={"max-size": "-1", "max-file": "3"}), r'log_opts: "max-size": "10m"\.'),
    ("no-unprotected-data-volume-in-prod", volume(protected=False), "orthanc-stack-prod-server: is not protected.*protect=True"),
    ("no-unprotected-data-volume-in-prod", container(volumes=[{"containerPath": "/data"}]), "anonymous volume at /data"),
    ("no-unprotected-data-volume-in-prod", container(mounts=[{"type": "volume", "target": "/data"}]), "anonymous volume at /data"),
]


@pytest.mark.parametrize(("rule", "resource", "message"), BROKEN)
def test_a_broken_rule_says_what_and_where_and_no_other_complains(rule: str, resource: Resource, message: str) -> None:
    ((name, said),) = violations(resource, prod=rule.endswith("-in-prod"))
    assert name == rule
    assert re.search(message, said), said
    assert "hunter2" not in said


def test_each_rule_is_broken_and_is_in_the_documentation_with_its_floors() -> None:
    names = [rule.name for rule in RULES]
    assert len(set(names)) == len(names)
    assert {rule for rule, _, _ in BROKEN} == set(names)
    page = (ROOT / "docs" / "policy.md").read_text()
    assert [line.split("`")[1] for line in page.splitlines() if line.startswith("| `")] == names
    for product in PRODUCTS:
        assert f"{product.title} {', '.join(dotted(floor) for floor in product.floors.values())}" in page


@pytest.mark.parametrize(
    "resource",
    [
        container(),
        container(logDriver="journald", logOpts=None),
        container(logDriver="local", logOpts=None),
        container(healthcheck=None, attach=True, mustRun=False, restart="no"),  # db-roles: waited for to its end
        container(labels=DB, ports=None, envs=["POSTGRES_PASSWORD_FILE=/run/secrets/postgres-password", "POSTGRES_USER=postgres"]),
        container(volumes=[{"hostPath": "/srv/dicom", "containerPath": "/data"}]),
        volume(protected=True),
        image("orthancteam/orthanc:26.8.1"),
        image("orthancteam/orthanc:27.1.0-full"),
        image("busybox:1.37"),
        image("debian:trixie-20261103"),
        *(image(local_image(role)) for role in ROLES if role != "adminer"),
    ],
)
def test_what_is_right_is_let_through_in_prod(resource: Resource) -> None:
    assert list(violations(resource, prod=True)) == []


def test_dev_may_have_adminer_and_volumes_that_go() -> None:
    for resource in (image("adminer:5.5.1"), image(local_image("adminer")), container(labels=ADMINER), volume(protected=False)):
        assert broken(resource, prod=True)
        assert not broken(resource, prod=False)


DIGEST = "@sha256:" + "0123456789abcdef" * 4
FLOATING = """
    adminer adminer:latest adminer:5 adminer:5.5 adminer:standalone orthancteam/orthanc:26.8 mirror.example:5000/orthancteam/orthanc
    postgres:18rc1 postgres:17-trixie nginx:1 nginx:stable orthanc-stack/orthanc:local
"""
FIXED = f"""
    adminer:5.5.1 adminer:5.5.1-standalone mirror.example:5000/orthancteam/orthanc:26.8.1 postgres:17.10-trixie nginx:1.29
    nginx:stable{DIGEST} someone/tool:sha-0123456789ab orthanc-stack/orthanc:local-0123456789ab
"""
# A digest alone, or with a tag that says no version: nobody can see which one it is.
TOO_OLD = f"""
    jodogne/orthanc-plugins:1.12.11 osimis/orthanc:24.1.2 orthancteam/orthanc:26.8.0 orthancteam/orthanc{DIGEST}
    orthancteam/orthanc:latest{DIGEST} adminer:4.8.1{DIGEST} postgres:13.22 postgres:14.22 postgres:18.3
    someone/orthanc:local-0123456789ab
"""
# What is built here has Debian's version, with Debian's fixes.
NEW_ENOUGH = f"""
    jodogne/orthanc-plugins:1.13.0 orthancteam/orthanc:26.10.0 orthancteam/orthanc:26.8.1{DIGEST} adminer:6.0.0 postgres:14.23
    postgres:17.10 bitnami/postgresql:18.4.0 postgres:19.0 orthanc-stack/orthanc:local-0123456789ab nginx:0.1
"""
DEFAULTS = " ".join(getattr(ImageSettings(), role) for role in ROLES)
PASSWORDS = """
    POSTGRES_PASSWORD=x PGPASSWORD=x ORTHANC__POSTGRESQL__PASSWORD=x ORTHANC__REGISTERED_USERS={"a":"b"} api_token=x SECRET_KEY=x
    DB_PASS=x MYSQL_PWD=x DATABASE_URL=postgresql://orthanc:x@db/orthanc POSTGRES_PASSWORD_FILE=hunter2
"""
NO_PASSWORDS = """
    POSTGRES_PASSWORD_FILE=/run/secrets/postgres-password POSTGRES_PASSWORD= PWD=/srv KEYBOARD=de COMPASS=north PGUSER=postgres
    DATABASE_URL=postgresql://orthanc@db:5432/orthanc
"""


@pytest.mark.parametrize(
    ("rule", "make", "breaking", "others"),
    [
        ("no-floating-image-tag", image, FLOATING, f"{FIXED} {DEFAULTS}"),
        ("version-floor", image, TOO_OLD, f"{NEW_ENOUGH} {DEFAULTS}"),
        ("no-password-in-environment", with_variable, PASSWORDS, NO_PASSWORDS),
    ],
)
def test_where_the_line_is_drawn(rule: str, make: Callable[[str], Resource], breaking: str, others: str) -> None:
    assert [text for text in breaking.split() if rule not in broken(make(text), prod=False)] == []
    assert [text for text in others.split() if rule in broken(make(text), prod=False)] == []


@pytest.mark.parametrize("key", sorted(GOOD))
def test_what_a_preview_does_not_know_is_let_through(key: str) -> None:
    assert list(violations(container(**{key: UNKNOWN}), prod=True)) == []
    assert list(violations(image(UNKNOWN), prod=True)) == []


def test_what_is_known_is_judged_beside_what_is_not() -> None:
    assert broken(container(envs=[UNKNOWN, "DB_PASSWORD=x"])) == {"no-password-in-environment"}
    assert broken(container(logOpts={"max-size": UNKNOWN})) == {"log-limits-are-set"}
    assert not broken(container(volumes=[{"volumeName": UNKNOWN, "containerPath": "/data"}], healthcheck={"tests": UNKNOWN}))


def test_the_pack_and_the_program_have_one_environment() -> None:
    program, pack = (
        yaml.safe_load((ROOT / name).read_text())["runtime"]["options"] for name in ("Pulumi.yaml", "policy/PulumiPolicy.yaml")
    )
    assert pack["toolchain"] == program["toolchain"] == "pip"
    assert (ROOT / "policy" / pack["virtualenv"]).resolve() == (ROOT / program["virtualenv"]).resolve()


@pytest.mark.parametrize("command", ["preview", "up"])
def test_the_command_runs_the_pack(command: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """And a preview that fails says that nothing was touched."""
    runs: list[tuple[str, ...]] = []

    def run(*arguments: str, env: object = None) -> int:
        runs.append(arguments)
        if "--event-log" in arguments:
            Path(arguments[arguments.index("--event-log") + 1]).write_text(recorded("policy-broken.jsonl"))
        return 255

    stack = Mock(prefix="s", run=run, marker=lambda: tmp_path / "marker", held=Held, export=dict)
    stack.name, stack.tools.docker = "dev", ("true",)  # an engine that holds nothing
    module = {"preview": preview, "up": up}[command]
    monkeypatch.setattr(module, "Stack", lambda *_: stack)
    for name in ("prepare", "ensure_secrets", "ensure_images", "docker_runner"):
        monkeypatch.setattr(module, name, Mock())
    for asking in (up, recover):
        monkeypatch.setattr(asking, "was_interrupted", lambda *_: False)
    for name, answer in (("refuse_lost_password", None), ("list_containers", []), ("needs_refresh", False)):
        monkeypatch.setattr(up, name, Mock(return_value=answer))
    monkeypatch.setattr(preview, "FOLDER", tmp_path)
    with pytest.raises(SetupError, match="Policies or Diagnostics" if command == "preview" else "is not up"):
        getattr(module, command)("dev")
    (arguments,) = runs
    assert arguments[0] == command
    position = arguments.index("--policy-pack")
    assert (ROOT / arguments[position + 1] / "PulumiPolicy.yaml").is_file()
