"""Who speaks TLS with whom, and what is wrong with a certificate."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from configs.certificates import certificates_of, check_certificates, soon_over
from configs.loader import load
from configs.problems import SettingsError
from configs.settings import StackSettings
from configs.tls import parties_of, trusted_by
from configs.wiring import DicomEndpoint, peers_of
from ops.authority import LIFE, make
from tests.unit.certificates import certificates_for
from tests.unit.pki import Authority
from tests.unit.stacks import node, problems_of, settings_of, stack

NOW = datetime.now(UTC)
HOSPITAL = Authority("hospital")
SCANNER = {"name": "scanner", "aet": "SCANNER", "host": "10.0.0.7", "port": 104, "nodes": ["ct"], "allow": ["store"], "tls": True}
#: archive has TLS and ct has not, and forwards to it; other is linked to nobody.
MIXED = stack(node("archive", 0, tls=True), node("ct", 1, forwardTo=["archive"]), node("other", 2, tls=True), node("plain", 3))


def named(settings: StackSettings, name: str) -> Any:
    return next(node for node in settings.nodes if node.name == name)


# --- who ---


def test_prod_has_tls_and_dev_has_not_unless_they_say_so() -> None:
    prod = {"environment": "prod", "bind": "127.0.0.1", "images": {"source": "local"}}
    assert [party.name for party in parties_of(settings_of(stack(node("a"), **prod)))] == ["a", "db"]
    assert parties_of(settings_of(stack(node("a", tls=False), indexDb={"tls": False}, **prod))) == ()
    assert parties_of(settings_of(stack(node("a")))) == ()
    assert [party.name for party in parties_of(settings_of(stack(node("a", index="sqlite"), **prod)))] == ["a"]


def test_a_node_without_tls_has_a_certificate_where_it_calls_one_that_has() -> None:
    settings = settings_of(MIXED)
    assert [(party.name, party.serves) for party in parties_of(settings)] == [("archive", True), ("ct", False), ("other", True)]


def test_each_node_trusts_those_that_it_is_linked_to_and_nobody_else() -> None:
    settings = settings_of({**MIXED, "modalities": [SCANNER]})
    trusted = {node.name: trusted_by(node, settings) for node in settings.nodes}
    assert trusted == {"archive": ("ct",), "ct": ("archive", "scanner"), "other": (), "plain": ()}


def test_a_peer_is_called_by_tls_where_it_serves_by_tls() -> None:
    settings = settings_of({**MIXED, "modalities": [SCANNER]})
    endpoints = {name: DicomEndpoint(name, name, 1) for name in ("archive", "ct", "other", "plain", "scanner")}
    entries = {
        node.name: {peer.name: peer.modality().get("UseDicomTls", False) for peer in peers_of(node, settings, endpoints)}
        for node in settings.nodes
    }
    assert entries["ct"] == {"archive": True, "scanner": True}
    assert entries["archive"] == {"ct": False}


@pytest.mark.parametrize(("allow", "confirm", "refused"), [(["echo"], "query", True), ([], "commitment", True), ([], "query", False)])
def test_a_device_without_tls_cannot_call_a_node_that_has(allow: list[str], confirm: str, refused: bool) -> None:
    pacs = {"name": "pacs", "aet": "PACS", "host": "h", "port": 104, "nodes": ["a"], "allow": allow}
    raw = stack(node("a", tls=True, forwardTo=[{"to": "pacs", "confirm": confirm}]), modalities=[pacs])
    assert list(problems_of(raw)) == (["modalities[0].tls"] if refused else [])


# --- what is in a certificate ---


@pytest.fixture
def held() -> dict[str, str]:
    """What a stack file holds for MIXED with the scanner: the hospital's for archive, the stack's own for the others."""
    made = certificates_for(settings_of({**MIXED, "modalities": [SCANNER]}))
    own = HOSPITAL.issue("archive")
    return {
        **made.plain,
        **made.secret,
        "tlsCertificate.archive": own.certificate,
        "tlsKey.archive": own.key,
        "tlsTrust.archive": HOSPITAL.pem,
    }


def problems(held: dict[str, str], now: datetime = NOW) -> dict[str, str]:
    settings = settings_of({**MIXED, "modalities": [SCANNER]})
    return {problem.path: problem.message for problem in check_certificates(settings, held, "mixed", now)}


def test_good_ones_are_taken(held: dict[str, str]) -> None:
    assert problems(held) == {}


def test_what_is_missing_is_named_once_with_the_command() -> None:
    found = problems({})
    assert list(found) == ["tlsCertificate.archive", "tlsCertificate.ct", "tlsCertificate.other", "tlsTrust.scanner"]
    assert "make certs STACK=mixed" in found["tlsCertificate.archive"]
    assert "tlsKey.archive" in found["tlsCertificate.archive"]


def test_what_is_over_is_refused_and_named(held: dict[str, str]) -> None:
    over = HOSPITAL.issue("archive", over=True)
    held |= {"tlsCertificate.archive": over.certificate, "tlsKey.archive": over.key}
    assert "is over" in problems(held)["tlsCertificate.archive"]
    assert set(problems(held, NOW + LIFE + timedelta(days=1))) == {
        "tlsCertificate.archive",
        "tlsCertificate.ct",
        "tlsCertificate.other",
        "tlsTrust.scanner",
    }
    assert "begins" in problems(held, NOW - timedelta(days=5))["tlsTrust.scanner"]


def test_thirty_days_before_its_end_it_is_warned_of(held: dict[str, str]) -> None:
    settings = settings_of({**MIXED, "modalities": [SCANNER]})
    found = certificates_of(settings, held)
    assert soon_over(found, NOW) == {}
    assert list(soon_over(found, NOW + timedelta(days=61))) == ["archive"]
    assert list(soon_over(found, NOW + LIFE - timedelta(days=29))) == ["ct", "other", "scanner"]
    assert list(soon_over(found, NOW + LIFE - timedelta(days=31))) == []


def test_a_certificate_for_another_name_is_refused(held: dict[str, str]) -> None:
    other = HOSPITAL.issue("pacs.hospital.example")
    held |= {"tlsCertificate.archive": other.certificate, "tlsKey.archive": other.key}
    assert "pacs.hospital.example" in problems(held)["tlsCertificate.archive"]


def test_one_of_another_authority_is_refused(held: dict[str, str]) -> None:
    held["tlsTrust.archive"] = Authority("another").pem
    assert "is not from what tlsTrust.archive holds" in problems(held)["tlsCertificate.archive"]


def test_a_key_of_another_certificate_is_refused(held: dict[str, str]) -> None:
    held["tlsKey.archive"] = HOSPITAL.issue("archive").key
    assert "tlsKey.archive" in problems(held)["tlsCertificate.archive"]


@pytest.mark.parametrize("key", ["tlsCertificate.archive", "tlsTrust.archive", "tlsKey.archive", "tlsTrust.scanner"])
@pytest.mark.parametrize("text", ["", "x", "-----BEGIN CERTIFICATE-----\nMII=\n-----END CERTIFICATE-----\n"])
def test_what_cannot_be_read_is_refused_and_a_key_not_shown(held: dict[str, str], key: str, text: str) -> None:
    held[key] = text
    assert list(problems(held)) == [key]
    assert "MII" not in problems(held)[key]


def test_a_preview_says_when_a_certificate_ends(held: dict[str, str]) -> None:
    found = certificates_of(settings_of({**MIXED, "modalities": [SCANNER]}), held)
    assert found["ct"].expires == f"{NOW + LIFE:%Y-%m-%d}"
    assert found["archive"].expires == f"{NOW + timedelta(days=90):%Y-%m-%d}"
    assert found["scanner"].chain == ""


def test_the_stack_file_is_refused_as_a_whole(held: dict[str, str]) -> None:
    config = {
        "orthanc-stack:environment": "dev",
        "orthanc-stack:nodes": '[{"name": "archive", "aet": "A", "httpPort": 1, "dicomPort": 2, "tls": true, "index": "sqlite"}]',
        "orthanc-stack:userPassword.archive.orthanc": "Xk3Xk3Xk3Xk3X",
        **{f"orthanc-stack:{key}": held[key] for key in ("tlsCertificate.archive", "tlsKey.archive", "tlsTrust.archive")},
    }
    secret = ["orthanc-stack:userPassword.archive.orthanc", "orthanc-stack:tlsKey.archive"]
    assert load(config, secret, "x")[0].nodes[0].tls
    with pytest.raises(SettingsError, match="is over"):
        load(config, secret, "x", NOW + timedelta(days=91))
    with pytest.raises(SettingsError, match="a private key, and stands in the stack file in clear") as refused:
        load(config, secret[:1], "x")
    assert "BEGIN" not in str(refused.value)


# --- making them ---


def test_nothing_is_made_again_that_is_there(held: dict[str, str]) -> None:
    settings = settings_of({**MIXED, "modalities": [SCANNER]})
    assert make(settings, held, NOW).why == {}


def test_what_ends_soon_is_made_anew_and_what_is_ones_own_never(held: dict[str, str]) -> None:
    settings = settings_of({**MIXED, "modalities": [SCANNER]})
    later = NOW + LIFE - timedelta(days=59)
    made = make(settings, held, later)
    assert set(made.why) == {"ct", "other", "scanner"}
    assert list(problems(held | dict(made.plain) | dict(made.secret), later)) == ["tlsCertificate.archive"]
    assert make(settings, held, later, only_needed=True).why == {}


def test_one_can_be_asked_for_and_ends_the_one_before(held: dict[str, str]) -> None:
    settings = settings_of({**MIXED, "modalities": [SCANNER]})
    made = make(settings, held, NOW, ["ct"])
    assert list(made.why) == ["ct"]
    mixed = held | dict(made.plain) | {"tlsCertificate.ct": held["tlsCertificate.ct"]}
    assert "is not from what tlsTrust.ct holds" in problems(mixed)["tlsCertificate.ct"]


def test_without_the_authoritys_key_all_are_made_anew(held: dict[str, str]) -> None:
    settings = settings_of({**MIXED, "modalities": [SCANNER]})
    del held["tlsCaKey"]
    made = make(settings, held, NOW, ["ct"])
    assert set(made.why) == {"the authority", "ct", "other", "scanner"}
    assert "tlsCaKey" in made.secret


def test_a_new_address_needs_a_new_certificate(held: dict[str, str]) -> None:
    raw = stack(node("archive", 0, tls=True), node("ct", 1, forwardTo=["archive"]), node("other", 2, tls=True, bind="10.1.2.3"))
    made = make(settings_of({**raw, "modalities": [SCANNER]}), held, NOW, only_needed=True)
    assert made.why == {"other": "it is not for 10.1.2.3"}


def test_nodes_that_know_the_old_authority_take_the_databases_new_certificate_and_those_that_know_the_new_one() -> None:
    settings = settings_of(stack(node("a"), indexDb={"tls": True}))
    first = make(settings, {}, NOW)
    held = dict(first.plain) | dict(first.secret)
    renewed = make(settings, held, NOW, ["db"])
    assert renewed.plain["tlsTrust.db"] == held["tlsTrust.db"] == held["tlsCaCertificate"]
    anew = make(settings, held, NOW, ["the authority"])
    assert set(anew.why) == {"the authority", "db"}
    assert anew.plain["tlsTrust.db"] != held["tlsTrust.db"]
    for trust in (held["tlsTrust.db"], anew.plain["tlsTrust.db"]):
        found = check_certificates(settings, {**anew.plain, **anew.secret, "tlsTrust.db": trust}, "x", NOW)
        assert list(found) == []
    without = anew.plain["tlsCertificate.db"].rpartition("-----BEGIN")[0]
    found = check_certificates(
        settings, {**anew.plain, **anew.secret, "tlsCertificate.db": without, "tlsTrust.db": held["tlsTrust.db"]}, "x", NOW
    )
    assert [problem.path for problem in found] == ["tlsCertificate.db"]
