"""Who speaks TLS with whom, and what is wrong with a certificate."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from configs.certificates import check_certificates, with_certificates
from configs.loader import Loaded, load, parse
from configs.plan import plan_of
from configs.problems import SettingsError
from configs.secrets import parties_of
from configs.settings import StackSettings
from ops.stack import authority
from ops.stack.authority import LIFE, make
from tests.unit.certificates import KEY_BITS, certificates_for
from tests.unit.pki import Authority
from tests.unit.stacks import node, problems_of, settings_of, stack

NOW = datetime.now(UTC)
DAY = timedelta(days=1)
HOSPITAL = Authority("hospital")
SCANNER = {"name": "scanner", "aet": "SCANNER", "host": "10.0.0.7", "port": 104, "nodes": ["ct"], "allow": ["store"], "tls": True}


def mixed(**other: Any) -> StackSettings:
    """The node archive has TLS and ct has not, and forwards to it; other is linked to nobody; the scanner sends to ct."""
    nodes = node("archive", 0, tls=True), node("ct", 1, forwardTo=["archive"]), node("other", 2, tls=True, **other), node("plain", 3)
    return settings_of(stack(*nodes, modalities=[SCANNER]))


MIXED = mixed()
#: Those of MIXED that have a certificate of the stack's own, and with archive's, which is the hospital's.
OF_ITS_OWN = ["ct", "other", "scanner"]
ALL_KEYS = ["tlsCertificate.archive", "tlsCertificate.ct", "tlsCertificate.other", "tlsTrust.scanner"]


@pytest.fixture(autouse=True)
def _short_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authority, "_KEY_BITS", KEY_BITS)


# --- who ---


def test_prod_has_tls_and_dev_has_not_unless_they_say_so() -> None:
    prod = {"environment": "prod", "bind": "127.0.0.1", "images": {"source": "local"}}
    assert [party.name for party in parties_of(settings_of(stack(node("a"), **prod)))] == ["a", "db"]
    assert parties_of(settings_of(stack(node("a", tls=False), indexDb={"tls": False}, **prod))) == ()
    assert parties_of(settings_of(stack(node("a")))) == ()
    assert [party.name for party in parties_of(settings_of(stack(node("a", index="sqlite"), **prod)))] == ["a"]


def test_a_node_without_tls_has_a_certificate_where_it_calls_one_that_has() -> None:
    parties = [(party.name, party.serves) for party in parties_of(MIXED)]
    assert parties == [("archive", True), ("ct", False), ("other", True), ("scanner", False)]


def test_each_node_trusts_those_that_it_is_linked_to_and_calls_those_by_tls_that_serve_by_it() -> None:
    nodes = plan_of(MIXED).nodes
    trusted = {name: node.trusts for name, node in nodes.items()}
    assert trusted == {"archive": ("ct",), "ct": ("archive", "scanner"), "other": (), "plain": ()}
    called = {name: {peer.name: peer.tls for peer in node.peers} for name, node in nodes.items()}
    assert called == {"archive": {"ct": False}, "ct": {"archive": True, "scanner": True}, "other": {}, "plain": {}}


@pytest.mark.parametrize(
    ("allow", "confirm", "refused"),
    [(["echo"], "query", True), ([], "commitment", True), ([], "auto", True), ([], "query", False), ([], "stored", False)],
)
def test_a_device_without_tls_cannot_call_a_node_that_has(allow: list[str], confirm: str, refused: bool) -> None:
    pacs = {"name": "pacs", "aet": "PACS", "host": "h", "port": 104, "nodes": ["a"], "allow": allow}
    raw = stack(node("a", tls=True, forwardTo=[{"to": "pacs", "confirm": confirm}]), modalities=[pacs])
    assert list(problems_of(raw)) == (["modalities[0].tls"] if refused else [])


# --- what is in a certificate ---


@pytest.fixture
def held() -> dict[str, str]:
    """What a stack file holds for MIXED: the hospital's for archive, the stack's own for the others."""
    made, own = certificates_for(MIXED), HOSPITAL.issue("archive")
    hospitals = {"tlsCertificate.archive": own.certificate, "tlsKey.archive": own.key, "tlsTrust.archive": HOSPITAL.pem}
    return {**made.plain, **made.secret, **hospitals}


def problems(held: Mapping[str, str], now: datetime = NOW) -> dict[str, str]:
    return {problem.path: problem.message for problem in check_certificates(MIXED, held, "mixed", now)}


def with_another(held: dict[str, str], name: str = "archive", *, over: bool = False) -> dict[str, str]:
    """Another certificate of the hospital's for archive."""
    pair = HOSPITAL.issue(name, over=over)
    return held | {"tlsCertificate.archive": pair.certificate, "tlsKey.archive": pair.key}


def test_what_is_missing_is_named_once_with_the_command() -> None:
    found = problems({})
    assert list(found) == ALL_KEYS
    assert "./orthanc-stack certs mixed" in found["tlsCertificate.archive"]
    assert "tlsKey.archive" in found["tlsCertificate.archive"]


def test_good_ones_are_taken_until_they_are_over(held: dict[str, str]) -> None:
    assert problems(held) == {}
    assert "is over" in problems(with_another(held, over=True))["tlsCertificate.archive"]
    assert list(problems(held, NOW + LIFE + DAY)) == ALL_KEYS
    assert "begins" in problems(held, NOW - 5 * DAY)["tlsTrust.scanner"]


def test_a_preview_says_when_a_certificate_ends_and_warns_thirty_days_before(held: dict[str, str]) -> None:
    def loaded(now: datetime) -> Loaded:
        return with_certificates(Loaded(MIXED, parse({})[1]), held, "mixed", now)

    found = loaded(NOW).certificates
    assert found["ct"].expires == f"{NOW + LIFE:%Y-%m-%d}"
    assert found["archive"].expires == f"{NOW + 90 * DAY:%Y-%m-%d}"
    assert found["scanner"].chain == ""
    for days, warned in ((timedelta(), []), (61 * DAY, ["archive"]), (LIFE - 29 * DAY, OF_ITS_OWN), (LIFE - 31 * DAY, [])):
        assert [warning.partition(":")[0] for warning in loaded(NOW + days).warnings] == warned
    assert "./orthanc-stack certs mixed" in loaded(NOW + 61 * DAY).warnings[0]


def test_what_does_not_belong_together_is_refused(held: dict[str, str]) -> None:
    for wrong, word in (
        (with_another(held, "pacs.hospital.example"), "pacs.hospital.example"),
        (held | {"tlsTrust.archive": Authority("another").pem}, "is not from what tlsTrust.archive holds"),
        (held | {"tlsKey.archive": HOSPITAL.issue("archive").key}, "tlsKey.archive"),
    ):
        ((path, message),) = problems(wrong).items()
        assert (path, word in message) == ("tlsCertificate.archive", True), message


@pytest.mark.parametrize("key", ["tlsCertificate.archive", "tlsTrust.archive", "tlsKey.archive", "tlsTrust.scanner"])
@pytest.mark.parametrize("text", ["", "x", "-----BEGIN CERTIFICATE-----\nMII=\n-----END CERTIFICATE-----\n"])
def test_what_cannot_be_read_is_refused_and_a_key_not_shown(held: dict[str, str], key: str, text: str) -> None:
    found = problems(held | {key: text})
    assert list(found) == [key]
    assert "MII" not in found[key]


def test_the_stack_file_is_refused_as_a_whole(held: dict[str, str]) -> None:
    config = {
        "orthanc-stack:environment": "dev",
        "orthanc-stack:nodes": '[{"name": "archive", "aet": "A", "httpPort": 1, "dicomPort": 2, "tls": true, "index": "sqlite"}]',
        "orthanc-stack:userPassword.archive.orthanc": "Xk3Xk3Xk3Xk3X",
        **{f"orthanc-stack:{key}": held[key] for key in ("tlsCertificate.archive", "tlsKey.archive", "tlsTrust.archive")},
    }
    secret = ["orthanc-stack:userPassword.archive.orthanc", "orthanc-stack:tlsKey.archive"]
    assert load(config, secret, "x", NOW).settings.nodes[0].tls
    with pytest.raises(SettingsError, match="is over"):
        load(config, secret, "x", NOW + 91 * DAY)
    with pytest.raises(SettingsError, match="a private key, and stands in the stack file in clear") as refused:
        load(config, secret[:1], "x", NOW)
    assert "BEGIN" not in str(refused.value)


# --- making them ---


def test_what_is_there_is_not_made_again(held: dict[str, str]) -> None:
    assert make(MIXED, held, NOW).why == {}


def test_what_ends_soon_is_made_anew_and_what_is_ones_own_never(held: dict[str, str]) -> None:
    later = NOW + LIFE - 59 * DAY
    assert make(MIXED, held, later, only_needed=True).why == {}
    made = make(MIXED, held, later)
    assert sorted(made.why) == OF_ITS_OWN
    assert list(problems({**held, **made.plain, **made.secret}, later)) == ["tlsCertificate.archive"]


def test_one_can_be_asked_for_and_ends_the_one_before(held: dict[str, str]) -> None:
    made = make(MIXED, held, NOW, ["ct"])
    assert list(made.why) == ["ct"]
    old = {**held, **made.plain, "tlsCertificate.ct": held["tlsCertificate.ct"]}
    assert "is not from what tlsTrust.ct holds" in problems(old)["tlsCertificate.ct"]


def test_without_the_authoritys_key_all_are_made_anew(held: dict[str, str]) -> None:
    del held["tlsCaKey"]
    made = make(MIXED, held, NOW, ["ct"])
    assert sorted(made.why) == sorted(["the authority", *OF_ITS_OWN])
    assert "tlsCaKey" in made.secret


def test_a_new_address_needs_a_new_certificate(held: dict[str, str]) -> None:
    assert make(mixed(bind="10.1.2.3"), held, NOW, only_needed=True).why == {"other": "it is not for 10.1.2.3"}


def test_nodes_that_know_the_old_authority_take_the_databases_new_certificate() -> None:
    """And so do those that know the new one."""
    settings = settings_of(stack(node("a"), indexDb={"tls": True}))
    first = certificates_for(settings)
    held = {**first.plain, **first.secret}
    renewed = make(settings, held, NOW, ["db"])
    assert renewed.plain["tlsTrust.db"] == held["tlsTrust.db"] == held["tlsCaCertificate"]
    made = make(settings, held, NOW, ["the authority"])
    assert set(made.why) == {"the authority", "db"}
    anew = {**made.plain, **made.secret}
    assert anew["tlsTrust.db"] != held["tlsTrust.db"]

    def refused(**changed: str) -> list[str]:
        said = {key.replace("_", "."): text for key, text in changed.items()}
        return [problem.path for problem in check_certificates(settings, anew | said, "x", NOW)]

    assert refused() == refused(tlsTrust_db=held["tlsTrust.db"]) == []
    without = anew["tlsCertificate.db"].rpartition("-----BEGIN")[0]
    assert refused(tlsCertificate_db=without, tlsTrust_db=held["tlsTrust.db"]) == ["tlsCertificate.db"]
