"""What another image of Orthanc makes of the schema of the indexes in PostgreSQL, and what `up` does before that."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from configs.held import VOLUME
from configs.settings import StackSettings
from ops.preview import command
from ops.preview.events import read
from ops.preview.page import markdown
from ops.preview.report import Level, build
from ops.setup.console import SetupError
from ops.setup.prepare import Tools
from ops.setup.state import State
from ops.stack import schema, up
from ops.stack.schema import Move, moves, revision_of
from ops.stack.stack import Stack
from tests.unit.reports import recorded
from tests.unit.stacks import node, settings_of, stack
from tests.unit.test_ops_preview import Recorded

_IMAGE = "orthancteam/orthanc:26.8.1"


@pytest.mark.parametrize(
    ("plugin", "revision"),
    [
        ("3.3", 1),
        ("5.0", 1),
        ("5.1", 1),
        ("6.0", 2),
        ("6.2", 2),
        ("7.1", 3),
        ("7.2", 4),
        ("8.0", 5),
        ("9.0", 6),
        ("10.0", 10),
        ("10.3", 10),
    ],
)
def test_the_revision_of_a_plugin(plugin: str, revision: int) -> None:
    assert revision_of(plugin) == revision


@pytest.mark.parametrize("plugin", ["10.4", "11.0", "mainline", ""])
def test_a_plugin_that_is_not_known(plugin: str) -> None:
    assert revision_of(plugin) is None


@pytest.mark.parametrize(
    ("before", "after", "said", "unsaid"),
    [
        (1, 10, ["revision 1,", "10.3 moves it to revision 10.", "53 minutes", "50 hours", "Rev10ToRev6.sql", "Rev2ToRev1.sql"], []),
        (6, 10, ["about 7 minutes", "Rev10ToRev6.sql (docs"], ["50 hours", "Rev6ToRev5.sql"]),
        (3, 5, ["moves it to revision 5", "Rev5ToRev4.sql, Rev4ToRev3.sql ("], ["minutes", "hours"]),
        (0, 1, ["moves it to revision 1", "What leads back: a backup."], ["minutes", ".sql"]),
        (0, 2, ["17 minutes", "Rev2ToRev1.sql"], []),
        (10, 6, ["none after revision 6", "Rev10ToRev6.sql (docs", "would start, and", "or a backup from"], ["minutes", "moves it"]),
        (11, 10, ["none after revision 10", "PostgreSQL/Plugins/SQL/Downgrades"], ["Rev1"]),
        (10, None, ["none of those that are known here, up to 10.3", "may move"], ["minutes", ".sql"]),
    ],
)
def test_what_is_said_of_a_move(before: int, after: int | None, said: Sequence[str], unsaid: Sequence[str]) -> None:
    move = Move(("a", "b"), before, after, "10.3")
    assert str(move.words).startswith(f"The schema of the database of a, b is revision {before}, ")
    assert [words for words in said if words not in str(move.words)] == []
    assert [words for words in unsaid if words in str(move.words)] == []
    assert move.back == (after is not None and after < before)


def test_an_old_plugin_refuses_a_newer_schema_itself() -> None:
    assert "it refuses to start. Orthanc never moves a schema back." in str(Move(("a",), 2, 1, "5.1").words)


class Deployed(Stack):
    """A stack whose state holds these nodes, made of an image."""

    def __init__(self, *nodes: str, image: str = _IMAGE) -> None:
        super().__init__("dev", Tools(Path("pulumi"), State("", "")))
        named = {"db-data": "v", "images-orthanc": image, **{f"{one}-container": f"c-{one}" for one in nodes}}
        self.state = [{"urn": f"urn::{urn}", "inputs": {"name": name}} for urn, name in named.items()]
        self.state[0] |= {"type": VOLUME, "outputs": {"name": "v"}}

    def export(self) -> dict[str, Any]:
        return {"resources": self.state}


Ask = Callable[..., list[str]]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Let databases have these revisions, and the engine hold the image or not; what is asked for."""

    def give(revisions: Mapping[str, int] | None, *, held: bool = True) -> list[str]:
        done: list[str] = []

        def of(_: Stack, nodes: Sequence[str]) -> Mapping[str, int]:
            done.append(f"databases of {', '.join(nodes)}")
            if revisions is None:
                raise SetupError("the database does not run")
            return {one: revision for one, revision in revisions.items() if one in nodes}

        monkeypatch.setattr(schema, "_revisions", of)

        def version(*_: str) -> str:
            done.append("plugin")
            return "10.3"

        monkeypatch.setattr(schema, "_plugin", version)
        monkeypatch.setattr(schema, "pull", lambda _: done.append("pull"))
        monkeypatch.setattr(schema, "holds", lambda *images: held and images == (_IMAGE,))
        return done

    return give


def wanted(*nodes: str, **more: Any) -> StackSettings:
    images = {"source": "registry", "orthanc": _IMAGE}
    return settings_of(stack(*(node(name, number, **more) for number, name in enumerate(nodes)), images=images))


def test_a_database_that_was_moved_to_another_volume_is_asked(asked: Ask) -> None:
    """After `upgrade-db --done`, the state has no `db-data`."""
    done = asked({"a": 1})
    upgraded = Deployed("a", image="other:1")
    upgraded.state[0]["urn"] = "urn::db.18-data"
    assert [(move.before, move.after) for move in moves(upgraded, wanted("a"))] == [(1, 10)]
    assert done == ["databases of a", "plugin"]


def test_nothing_is_asked_where_the_image_stays(asked: Ask) -> None:
    done = asked({"a": 1})
    assert moves(Deployed("a"), wanted("a")) == ()
    assert moves(Deployed("a", image="other:1"), wanted("a", index="sqlite")) == ()
    new = Deployed("a", image="other:1")
    new.state = new.state[1:]
    assert moves(new, wanted("a")) == (), "a stack without a database"
    assert done == []


def test_another_image_is_asked_and_databases_of_the_same_revision_are_told_together(asked: Ask) -> None:
    done = asked({"a": 6, "b": 1, "c": 6, "d": 10})
    found = moves(Deployed("a", "b", "c", "d", "e", image="other:1"), wanted("a", "b", "c", "d", "e"))
    assert found == (Move(("b",), 1, 10, "10.3"), Move(("a", "c"), 6, 10, "10.3"))
    assert done == ["databases of a, b, c, d, e", "plugin"]


def test_a_node_that_comes_may_have_had_its_database_before(asked: Ask) -> None:
    done = asked({"b": 1})
    assert moves(Deployed("a"), wanted("a", "b")) == (Move(("b",), 1, 10, "10.3"),)
    assert done == ["databases of b", "plugin"]
    done = asked({})
    assert moves(Deployed("a"), wanted("a", "b")) == ()
    assert done == ["databases of b"]


def test_a_database_that_does_not_run_hinders_nobody_before_its_first_node(asked: Ask) -> None:
    asked(None)
    assert moves(Deployed(), wanted("a")) == ()
    with pytest.raises(SetupError, match="does not run"):
        moves(Deployed("a", image="other:1"), wanted("a"))


def test_an_image_that_the_engine_does_not_hold_is_pulled_by_up_alone(asked: Ask) -> None:
    done = asked({"a": 1}, held=False)
    with pytest.raises(SetupError, match="does not hold orthancteam/orthanc"):
        moves(Deployed("a", image="other:1"), wanted("a"))
    assert "pull" not in done
    assert moves(Deployed("a", image="other:1"), wanted("a"), may_pull=True)
    assert "pull" in done


# --- up ---


@pytest.fixture
def before_up(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[str, list[str]]]:
    """What save_before_move() refuses, and the stacks that it backs up."""

    def give(found: Sequence[Move] | str, *, backup: bool = True, saves: bool = True, fails: bool = False) -> tuple[str, list[str]]:
        saved: list[str] = []

        def look(*_: Any, **__: Any) -> Sequence[Move]:
            if isinstance(found, str):
                raise SetupError(found)
            return found

        def save(name: str, *, sheet: bool) -> int:
            if fails:
                raise SetupError("the repository does not answer")
            saved.append(f"{name} {sheet}")
            return 0

        monkeypatch.setattr(up, "moves", look)
        monkeypatch.setattr(up, "backup", save)
        settings = settings_of(stack(node("a"), **({"backup": {"to": "/srv"}} if backup else {})))
        try:
            up.save_before_move(Deployed("a"), settings, saves=saves)
        except SetupError as error:
            return str(error), saved
        return "", saved

    return give


_FORWARD, _BACK = Move(("a",), 1, 10, "10.3"), Move(("b",), 10, 1, "5.0")


def test_up_backs_up_before_a_schema_moves(before_up: Callable[..., tuple[str, list[str]]]) -> None:
    assert before_up([_FORWARD]) == ("", ["dev False"])
    assert before_up([Move(("a",), 10, None, "11.0")]) == ("", ["dev False"])
    assert before_up([]) == ("", [])
    assert before_up([_FORWARD], saves=False) == ("", [])
    assert before_up([_FORWARD], saves=False, backup=False) == ("", [])


def test_up_refuses_what_it_cannot_back_up_and_says_both_ways(before_up: Callable[..., tuple[str, list[str]]]) -> None:
    for refused, saved in (before_up([_FORWARD], backup=False), before_up([_FORWARD], fails=True), before_up("the database does not run")):
        assert saved == []
        assert "othing was touched" in refused
        assert "./orthanc-stack up dev --no-backup" in refused
    assert before_up("the database does not run", saves=False) == ("", [])


@pytest.mark.parametrize("saves", [True, False])
def test_up_refuses_an_image_that_is_too_old(before_up: Callable[..., tuple[str, list[str]]], *, saves: bool) -> None:
    refused, saved = before_up([_FORWARD, _BACK], saves=saves)
    assert "too old for a database" in refused
    assert saved == []


# --- preview ---


def test_the_report_has_it_among_what_endangers_data() -> None:
    report = build(read(recorded("image-changed.jsonl")), schemas=[_FORWARD.words])
    assert report.level is Level.DOWNTIME
    assert _FORWARD.words in report.cautions
    assert "the database of `a` is revision 1" in markdown(report)[0]


def test_an_image_that_is_too_old_fails_the_preview(tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    status, report = command.run(Recorded(tmp_path, recorded("image-changed.jsonl")), plan, [_BACK.words], too_old=True)
    assert (status, report.level, plan.exists()) == (1, Level.FAILED, False)
    page = markdown(report)[0]
    assert "This cannot be deployed: the new image of Orthanc is too old for a database." in page.splitlines()[0]
    assert "`Rev10ToRev6.sql`" in page


def test_what_is_not_known_is_told_and_stops_no_preview(asked: Ask) -> None:
    asked(None)
    ((words,), too_old) = schema.told_moves(Deployed("a", image="other:1"), wanted("a"))
    assert str(words).endswith("not known: the database does not run")
    assert not too_old
