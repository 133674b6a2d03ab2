"""The policy pack's rules: each is broken once, by itself, and holds where it must not complain."""

from __future__ import annotations

import contextlib
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
from ops.preview import command as preview
from ops.setup.console import ROOT, SetupError
from ops.stack import up
from policy.images import PRODUCTS
from policy.resources import CONTAINER, IMAGE, UNKNOWN, VOLUME, Resource, SecretText
from policy.rules import RULES, violations
from tests.unit.reports import recorded

#: A container as the components make one.
GOOD: Mapping[str, Any] = {
    "name": "orthanc-stack-dev-server",
    "image": "sha256:0123",
    "envs": ["TCP_NODELAY=1", "TZ=Europe/Vienna"],
    "labels": [{"label": LABEL_ROLE, "value": "node", "__defaults": []}],
    "ports": [{"internal": 8042.0, "external": 8042.0, "ip": "127.0.0.1", "__defaults": []}],
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
DB, ADMINER = ([{"label": LABEL_ROLE, "value": role, "__defaults": []}] for role in ("db", "adminer"))
PORT = [{"internal": 5432.0, "external": 15432.0, "ip": "127.0.0.1"}]


def container(**changes: Any) -> Resource:
    """A good container, less what is None, with what is changed."""
    inputs = {key: value for key, value in {**GOOD, **changes}.items() if value is not None}
    return Resource(type=CONTAINER, name="server-container", inputs=inputs)


def image(name: Any) -> Resource:
    return Resource(type=IMAGE, name="images-role", inputs={"name": name})


def volume(*, protected: bool) -> Resource:
    return Resource(type=VOLUME, name="server-data", inputs={"name": "orthanc-stack-prod-server"}, protected=protected)


def broken(resource: Resource, *, prod: bool = True) -> set[str]:
    """The names of the rules that a resource breaks."""
    return {rule for rule, _ in violations(resource, prod=prod)}


#: A container that runs once and is waited for: it needs no health check.
ONCE = {"healthcheck": None, "attach": True, "mustRun": False, "restart": "no"}

#: Rule, what breaks it and no other, what the message says. A rule that is not here fails the test below.
BROKEN = [
    ("no-floating-image-tag", image("postgres:17"), "postgres:17 has the tag '17', which moves on.*postgres:17.10"),
    ("no-floating-image-tag", image("adminer"), "has no tag, which means 'latest'.*adminer:5.5.1"),
    ("no-floating-image-tag", container(image="busybox:latest"), "the image busybox:latest .*busybox:1.2.3"),
    ("version-floor", image("adminer:5.5.0"), "older than Adminer 5.5.1, .*GHSA-fr74-9mf9-gf44.*Take adminer:5.5.1 or newer"),
    ("version-floor", image("orthancteam/orthanc:26.7.0"), "older than Orthanc 26.8.1, .*CVE-2026-10528"),
    ("version-floor", image("mirror.example:5000/postgres:13.23"), "CVE-2026-6473.*Take mirror.example:5000/postgres:14.23"),
    ("version-floor", image("postgres@sha256:0123"), r"no version of PostgreSQL.*\(postgres:18.4@sha256:…\)"),
    ("version-floor", container(image="adminer:4.8.1"), "the image adminer:4.8.1 is older"),
    ("no-published-database", container(labels=DB, ports=PORT), r"publishes .* 127.0.0.1:15432\. Leave"),
    ("no-published-database", container(ports=[{"internal": 5432.0}]), "on 0.0.0.0:a random port"),
    ("no-published-database", container(labels=DB, ports=[{"internal": 5433.0, "external": 5433.0}]), "on 0.0.0.0:5433"),
    ("no-published-database", container(labels=None, envs=["POSTGRES_USER=x"], ports=None, networkMode="host"), "network_mode: host"),
    ("no-published-database", container(image="postgres:17.11", labels=None, ports=None, publishAllPorts=True), "publish_all_ports"),
    ("no-adminer-in-prod", image("adminer:5.5.1"), "Adminer is for environment: dev only"),
    ("no-adminer-in-prod", image(local_image("adminer")), "dev only"),
    ("no-adminer-in-prod", container(labels=ADMINER), "dev only.*docker exec"),
    ("no-adminer-in-prod", container(labels=None, envs=["ADMINER_DEFAULT_SERVER=db"]), "dev only"),
    ("no-privileged-container", container(privileged=True), "is privileged.*leave it out"),
    ("no-privileged-container", container(capabilities={"adds": ["CAP_all"]}), "has the capability CAP_all"),
    ("no-privileged-container", container(pidMode="host"), "pid_mode: host"),
    ("no-privileged-container", container(securityOpts=["seccomp:unconfined"]), r"unconfined \(seccomp:unconfined\)"),
    ("no-privileged-container", container(mounts=[{"type": "bind", "source": "/run/docker.sock", "target": "/s"}]), "engine's socket"),
    ("no-password-in-environment", container(envs=[SecretText("DB_PASSWORD=hunter2")]), "variable DB_PASSWORD .*/run/secrets"),
    ("no-password-in-environment", container(envs=[SecretText("A=b"), SecretText("X=hunter2")]), "one of its .* is a secret of Pulumi's"),
    ("stop-grace-is-set", container(destroyGraceSeconds=None), "has no destroy_grace_seconds.*Orthanc 60"),
    ("health-check-is-set", container(healthcheck=None), "has no health check.*wait=True"),
    ("health-check-is-set", container(healthcheck={"tests": ["NONE"]}), "has no health check"),
    ("log-limits-are-set", container(logOpts=None), '"max-size": "10m", "max-file": "3"'),
    ("log-limits-are-set", container(logDriver=None, logOpts={"max-size": "10m"}), r'log_opts: "max-file": "3"\.'),
    ("no-unprotected-data-volume-in-prod", volume(protected=False), "is not protected.*protect=True"),
    ("no-unprotected-data-volume-in-prod", container(volumes=[{"volumeName": "", "containerPath": "/data"}]), "anonymous volume at /data"),
    ("no-unprotected-data-volume-in-prod", container(mounts=[{"type": "volume", "target": "/data"}]), "anonymous volume at /data"),
]


@pytest.mark.parametrize(("rule", "resource", "message"), BROKEN)
def test_a_broken_rule_says_what_and_where_and_no_other_complains(rule: str, resource: Resource, message: str) -> None:
    ((name, said),) = violations(resource, prod=rule.endswith("-in-prod"))
    assert name == rule
    assert re.search(message, said), said
    assert said.startswith("images-role: " if resource.type == IMAGE else f"{resource.inputs['name']}: ")
    assert "hunter2" not in said


def test_each_rule_is_broken_and_is_in_the_documentation_with_its_floors() -> None:
    names = [rule.name for rule in RULES]
    assert list(dict.fromkeys(rule for rule, _, _ in BROKEN)) == names
    page = (ROOT / "docs" / "policy.md").read_text()
    assert [line.split("`")[1] for line in page.splitlines() if line.startswith("| `")] == names
    for product in PRODUCTS:
        assert f"{product.title} {', '.join('.'.join(map(str, floor)) for floor in product.floors.values())}" in page


@pytest.mark.parametrize(
    "resource",
    [
        container(),
        *(container(logDriver=driver, logOpts=None) for driver in ("journald", "local")),
        container(**ONCE),
        container(labels=DB, ports=None, envs=["POSTGRES_PASSWORD_FILE=/run/secrets/postgres-password", "POSTGRES_USER=postgres"]),
        container(volumes=[{"hostPath": "/srv/dicom", "containerPath": "/data"}, {"fromContainer": "other"}]),
        container(mounts=[{"type": "volume", "source": "docker.sock", "target": "/data"}, {"type": "tmpfs", "target": "/tmp"}]),
        volume(protected=True),
        *(image(name) for name in ("orthancteam/orthanc:26.8.1", "orthancteam/orthanc:27.1.0-full", "debian:trixie-20261103")),
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
    postgres:18rc1 postgres:18.4rc1 postgres:17-trixie nginx:1 nginx:stable orthanc-stack/orthanc:local
"""
FIXED = f"""
    adminer:5.5.1 adminer:5.5.1-standalone mirror.example:5000/orthancteam/orthanc:26.8.1 postgres:17.10-trixie nginx:1.29
    nginx:stable{DIGEST} someone/tool:sha-0123456789ab orthanc-stack/orthanc:local-0123456789ab
"""
# A digest alone, or with a tag that says no version: nobody can see which one it is.
TOO_OLD = f"""
    jodogne/orthanc-plugins:1.12.11 osimis/orthanc:20.4.2 orthancteam/orthanc:26.8.0 orthancteam/orthanc{DIGEST}
    orthancteam/orthanc:latest{DIGEST} adminer:4.8.1{DIGEST} postgres:13.23 postgres:14.22 postgres:15.17 postgres:16.13 postgres:17.9
    postgres:18.3 someone/orthanc:local-0123456789ab
"""
# What is built here has Debian's version, with Debian's fixes.
NEW_ENOUGH = f"""
    jodogne/orthanc-plugins:1.13.0 orthancteam/orthanc:26.10.0 orthancteam/orthanc:26.8.1{DIGEST} adminer:6.0.0 orthanc:2.0.0
    postgres:14.23 postgres:15.18 postgres:16.14 postgres:17.10 bitnami/postgresql:18.4.0 postgres:19.0
    orthanc-stack/orthanc:local-0123456789ab nginx:0.1
"""
LIKE_ROOT = "ALL CAP_DAC_READ_SEARCH sys_admin SYS_MODULE SYS_PTRACE CAP_SYS_RAWIO"
DEFAULTS = " ".join(getattr(ImageSettings(), role) for role in ROLES)
PASSWORDS = """
    POSTGRES_PASSWORD=x PGPASSWORD=x ORTHANC__POSTGRESQL__PASSWORD=x ORTHANC__REGISTERED_USERS={"a":"b"} api_token=x SECRET_KEY=x
    DB_PASS=x ACCESS_KEY_ID=x MYSQL_PWD=x DATABASE_URL=postgresql://orthanc:x@db/orthanc POSTGRES_PASSWORD_FILE=hunter2
"""
NO_PASSWORDS = """
    POSTGRES_PASSWORD_FILE=/run/secrets/postgres-password POSTGRES_PASSWORD= PWD=/srv KEYBOARD=de COMPASS=north PGUSER=postgres
    DATABASE_URL=postgresql://orthanc@db:5432/orthanc
"""


#: Rule, what of it is judged, what breaks it, what does not.
LINES: list[tuple[str, Callable[[str], Resource], str, str]] = [
    ("no-floating-image-tag", image, FLOATING, f"{FIXED} {DEFAULTS}"),
    ("version-floor", image, TOO_OLD, f"{NEW_ENOUGH} {DEFAULTS}"),
    ("no-privileged-container", lambda name: container(capabilities={"adds": [name]}), LIKE_ROOT, "CHOWN CAP_KILL"),
    ("no-privileged-container", lambda key: container(**{key: "host"}), "pidMode usernsMode ipcMode", "cgroupnsMode"),
    ("no-privileged-container", lambda option: container(securityOpts=[option]), "seccomp:unconfined x=unconfined", "seccomp=a.json"),
    ("no-privileged-container", lambda path: container(volumes=[{"hostPath": path}]), "/run/docker.sock /docker.sock", "/run /srv"),
    ("no-password-in-environment", lambda variable: container(envs=[variable]), PASSWORDS, NO_PASSWORDS),
    ("stop-grace-is-set", lambda seconds: container(destroyGraceSeconds=float(seconds)), "0 -1", "0.5 60"),
    ("health-check-is-set", lambda key: container(**{**ONCE, key: None}), "attach mustRun restart", "healthcheck"),
    ("log-limits-are-set", lambda size: container(logOpts={"max-size": size, "max-file": "3"}), "-1 0 m 10x", "10m 1G 1048576 007k"),
    ("log-limits-are-set", lambda count: container(logOpts={"max-size": "10m", "max-file": count}), "-1 0 3m", "1 10"),
]


@pytest.mark.parametrize(("rule", "make", "breaking", "others"), LINES)
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
    """And a preview that fails for it ends with 1."""
    runs: list[tuple[str, ...]] = []

    def run(*arguments: str, env: object = None) -> int:
        runs.append(arguments)
        if "--event-log" in arguments:
            Path(arguments[arguments.index("--event-log") + 1]).write_text(recorded("policy-broken.jsonl"))
        return 255

    stack = Mock(prefix="s", run=run, held=Held, pending=[], unfinished=[], resources=[], failure=lambda what, _: SetupError(what))
    stack.name = "dev"
    for name in ("deployed", "require_secrets", "require_certificates"):
        monkeypatch.setattr(preview, name, Mock(return_value=stack))
    monkeypatch.setattr(up, "Stack", lambda *_: stack)
    for name in ("prepare", "ensure_secrets", "ensure_images", "refuse_lost_password"):
        monkeypatch.setattr(up, name, Mock())
    monkeypatch.setattr(up, "containers_of", lambda *_: [])
    monkeypatch.setattr(up, "watching", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(preview, "FOLDER", str(tmp_path))
    if command == "preview":
        assert preview.preview("dev", save_plan=False, as_json=False) == 1
    else:
        with pytest.raises(SetupError, match="`up` of dev did not end well"):
            up.up("dev")
    (arguments,) = runs
    assert arguments[0] == command
    position = arguments.index("--policy-pack")
    assert (ROOT / arguments[position + 1] / "PulumiPolicy.yaml").is_file()
