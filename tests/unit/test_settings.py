"""What a stack file may say. No Pulumi."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.loader import load, load_stack_file
from configs.problems import SettingsError
from configs.secrets import check_secret, secret_keys
from tests.unit.stacks import node, problems_of, settings_of, stack

VALID_AET = st.text(st.sampled_from("ABCDEFGHIJKLMNOPQRSTUVWXYZabcxyz0123456789_-. "), min_size=1, max_size=16).filter(
    lambda text: text == text.strip() and text != ""
)


@given(VALID_AET)
def test_every_ae_title_of_dicom_is_taken(aet: str) -> None:
    assert settings_of(stack(node("a", aet=aet))).nodes[0].aet == aet


@given(st.text())
def test_every_other_ae_title_is_refused_at_its_path(aet: str) -> None:
    printable = aet.isascii() and aet.isprintable() and "\\" not in aet
    if printable and aet == aet.strip() and 1 <= len(aet) <= 16:
        assert problems_of(stack(node("a", aet=aet))) == {}
    else:
        assert list(problems_of(stack(node("a", aet=aet)))) == ["nodes[0].aet"]


@given(st.integers())
def test_ports(port: int) -> None:
    problems = problems_of(stack(node("a", httpPort=port)))
    expected = [] if 1 <= port <= 65535 and port != 4000 else ["nodes[0].dicomPort"] if port == 4000 else ["nodes[0].httpPort"]
    assert list(problems) == expected


@pytest.mark.parametrize("port", ["8042", 8042.0, True, None, [8042]])
def test_a_port_is_an_integer(port: Any) -> None:
    assert list(problems_of(stack(node("a", httpPort=port)))) == ["nodes[0].httpPort"]


@pytest.mark.parametrize(
    ("key", "value", "fits"),
    [
        ("memory", 256, True),
        ("memory", 255, False),
        ("memory", 1_048_577, False),
        ("memory", "2048", False),
        ("memory", 2048.5, False),
        ("cpus", 2, True),
        ("cpus", 0.5, True),
        ("cpus", 0, False),
        ("cpus", float("nan"), False),
        ("cpus", float("inf"), False),
        ("cpus", "2", False),
        ("startTimeout", 300, True),
        ("startTimeout", "24h", True),
        ("startTimeout", "25h", False),
        ("startTimeout", "4s", False),
        ("startTimeout", "300", False),
        ("startTimeout", 300.0, False),
        ("startTimeout", True, False),
    ],
)
def test_limits(key: str, value: Any, fits: bool) -> None:
    raw = stack(node("a", **{key: value}), indexDb={key: value})
    assert set(problems_of(raw)) == (set() if fits else {f"nodes[0].{key}", f"indexDb.{key}"})


@pytest.mark.parametrize(("said", "seconds"), [(300, 300), ("300s", 300), ("5m", 300), ("2h", 7200)])
def test_a_start_is_timed_in_seconds_or_with_a_unit(said: Any, seconds: int) -> None:
    settings = settings_of(stack(node("a", startTimeout=said), indexDb={"startTimeout": said}))
    assert (settings.nodes[0].start_timeout, settings.index_db.start_timeout) == (seconds, seconds)


@pytest.mark.parametrize("name", ["", "A", "a_b", "-a", "a-", "a.b", "a b", "db", "adminer", "db-roles", "x" * 33, "ä"])
def test_names_that_are_no_host_names_are_refused(name: str) -> None:
    assert "nodes[0].name" in problems_of(stack(node("ok") | {"name": name}))


@pytest.mark.parametrize(
    ("image", "fits"),
    [
        ("orthancteam/orthanc:26.8.1", True),
        ("mirror.local:5000/orthancteam/orthanc:26.8.1", True),
        ("orthancteam/orthanc@sha256:" + "a" * 64, True),
        ("orthancteam/orthanc:26.8.1@sha256:" + "a" * 64, True),
        ("orthancteam/orthanc", False),
        ("orthancteam/orthanc:latest", False),
        ("mirror.local:5000/orthancteam/orthanc", False),
        ("a b:1", False),
        ("", False),
    ],
)
def test_images_carry_an_exact_version(image: str, fits: bool) -> None:
    assert (problems_of(stack(node("a"), images={"orthanc": image})) == {}) is fits


def test_unknown_keys_name_the_nearest_known_one() -> None:
    problems = problems_of(stack(node("a", forwardsTo=["b"]), imagse={}))
    assert "'forwardTo'" in problems["nodes[0].forwardsTo"]
    assert "'images'" in problems["imagse"]


def test_all_problems_are_reported_at_once() -> None:
    raw = stack(node("a", 0, aet="A\\B"), node("b", 1, forwardTo=["nobody"]), node("c", 1), images={"source": "moon"}, colour="red")
    paths = {"nodes[0].aet", "nodes[1].forwardTo[0]", "nodes[2].httpPort", "nodes[2].dicomPort", "images.source", "colour"}
    assert set(problems_of(raw)) == paths


def test_a_link_to_a_node_with_another_mistake_is_not_called_unknown() -> None:
    assert list(problems_of(stack(node("a", 0, aet=""), node("b", 1, forwardTo=["a"])))) == ["nodes[0].aet"]


def test_settings_are_frozen() -> None:
    settings = settings_of(stack(node("a")))
    with pytest.raises(ValueError, match="frozen"):
        settings.nodes[0].aet = "B"  # type: ignore[misc]


@pytest.mark.parametrize("name", ["dev", "prod"])
def test_the_projects_own_stack_files_are_valid(name: str) -> None:
    settings = load_stack_file(name)
    assert settings.environment == name
    assert [node.name for node in settings.nodes] == ["server", "client"]
    assert settings.nodes[1].targets == ("server",)
    assert [node.index for node in settings.nodes] == ["postgresql", "sqlite" if name == "dev" else "postgresql"]


def test_the_workstation_of_dev() -> None:
    (modality,) = load_stack_file("dev").modalities
    assert (modality.aet, modality.nodes, sorted(modality.allow)) == ("WORKSTATION", ("server", "client"), ["echo", "find", "store"])


def test_a_missing_stack_file_names_those_that_there_are() -> None:
    with pytest.raises(SettingsError, match=r"no Pulumi\.nowhere\.yaml.*Pulumi\.dev\.yaml"):
        load_stack_file("nowhere")


# --- secrets ---


def config(secrets: dict[str, str], **more: str) -> dict[str, str]:
    nodes = '[{"name": "a", "aet": "A", "httpPort": 8042, "dicomPort": 4242, "tls": false}]'
    own = {"environment": "prod", "bind": "127.0.0.1", "nodes": nodes, "indexDb": '{"tls": false}', **secrets, **more}
    return {f"orthanc-stack:{key}": value for key, value in own.items()}


GOOD = {"dbPassword": "Xk3Xk3Xk3Xk3X", "dbPassword.a": "Yk3Yk3Yk3Yk3Y", "userPassword.a.orthanc": "Zk3Zk3Zk3Zk3Z"}


def test_the_secrets_of_a_stack() -> None:
    assert secret_keys(settings_of(stack(node("a"), node("b", 1, index="sqlite", users=["x", "y"])))) == (
        "dbPassword",
        "dbPassword.a",
        "userPassword.a.orthanc",
        "userPassword.b.x",
        "userPassword.b.y",
    )
    assert secret_keys(settings_of(stack(node("b", index="sqlite")))) == ("userPassword.b.orthanc",)


def test_a_whole_configuration_is_taken() -> None:
    settings, _ = load(config(GOOD), [f"orthanc-stack:{key}" for key in GOOD], "organization/orthanc-stack/prod")
    assert settings.nodes[0].name == "a"


@pytest.mark.parametrize("key", GOOD)
def test_a_missing_secret_names_the_command_that_sets_it(key: str) -> None:
    given_secrets = {k: v for k, v in GOOD.items() if k != key}
    with pytest.raises(SettingsError, match=f"pulumi config set --secret {key}"):
        load(config(given_secrets), [f"orthanc-stack:{k}" for k in given_secrets], "prod")


def test_a_secret_in_clear_is_refused_and_not_shown() -> None:
    with pytest.raises(SettingsError, match="in clear") as refused:
        load(config(GOOD), ["orthanc-stack:dbPassword", "orthanc-stack:dbPassword.a"], "prod")
    assert not any(value in str(refused.value) for value in GOOD.values())


@pytest.mark.parametrize(
    "value",
    ["", "pa$$word1234x", "two words 123", 'quo"te123456', "quo'te123456", "back\\slash12", "12345678901234", "true", "NULL", "1.5", "-3"],
)
def test_secrets_that_the_images_would_misread(value: str) -> None:
    problem = check_secret("dbPassword", value, encrypted=True, strict=False)
    assert problem is not None
    assert value == "" or repr(value) not in str(problem)


@pytest.mark.parametrize("value", ["short1x", "MyPassword2026", "orthanc-orthanc", "changeme-changeme"])
def test_weak_secrets_are_refused_outside_dev(value: str) -> None:
    assert check_secret("dbPassword", value, encrypted=True, strict=True) is not None
    assert check_secret("dbPassword", value, encrypted=True, strict=False) is None


@given(st.text(st.sampled_from("ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnpqrtuvwxyz23456789"), min_size=32, max_size=32))
def test_what_make_secrets_sets_is_never_misread(value: str) -> None:
    problem = check_secret("dbPassword", f"x{value[1:]}", encrypted=True, strict=False)
    assert problem is None
