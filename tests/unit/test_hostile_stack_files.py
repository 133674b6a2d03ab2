"""Whatever a stack file is, it is refused with a readable report, soon, and never by an exception of another kind. Both ways in."""

from __future__ import annotations

import collections
import contextlib
import json
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from configs.loader import load, load_stack_file
from configs.problems import SettingsError, path_of
from configs.secrets import secret_keys
from tests.unit.hostile_files import KINDS, MAY_BE, HostileFile, all_of_them, as_config, as_yaml, put, valid
from tests.unit.stacks import node, settings_of, stack

#: No file takes longer, of the processor's time. Most take some milliseconds.
SECONDS = 10
#: More than this nobody reads.
LONGEST_REPORT = 250_000
SECRETS = {f"orthanc-stack:{key}": "xxxxxxxxxxxxxxxx" for key in secret_keys(settings_of(valid()))}
LARGE = pytest.mark.slow("that files of megabytes and of thousands of items end soon, too, is what they prove")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the stack file of the stack "x" lies."""
    return tmp_path


def read_file(folder: Path, content: bytes) -> Any:
    """By the first way: the YAML file."""
    (folder / "Pulumi.x.yaml").write_bytes(content)
    return load_stack_file("x", folder)


def read_config(config: dict[str, str]) -> Any:
    """By the second way: as Pulumi hands it over, with all the secrets that it could need."""
    return load(config | SECRETS, SECRETS, "x", datetime.now(UTC)).settings


def assert_refused(read: Callable[[], Any], file: HostileFile) -> None:
    """It ends with a report that can be printed, in time, and names the place."""
    started = time.process_time()
    about = f"{file.kind} at {path_of(file.where)}: {file.content[:3000]!r}"
    try:
        read()
    except SettingsError as error:
        text = str(error)
    except Exception as error:
        raise AssertionError(f"{type(error).__name__}: {error}, and no report, for {about}") from error
    else:
        raise AssertionError(f"not refused: {about}")
    assert time.process_time() - started < SECONDS, about
    assert "Pulumi.x.yaml" in text, text
    assert len(text) < LONGEST_REPORT, f"{len(text)} characters for {about}"
    assert all(letter.isprintable() or letter == "\n" for letter in text), f"what it prints is not fit for a terminal: {text!r}"
    text.encode()
    if file.where and "is not YAML" not in text:  # there the line is named
        shown = {line.removeprefix("  ").partition(" = ")[0] for line in text.splitlines()}
        exact = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in path_of(file.where))[:500]
        assert any(exact.startswith(path) or path.startswith(exact) for path in shown if path), f"{exact} is not named: {text}"


def test_what_they_are_made_from_is_valid(folder: Path) -> None:
    assert read_file(folder, as_yaml(valid())).nodes[1].name == "ct"
    assert read_file(folder, b"\xef\xbb\xbf" + as_yaml(valid())).nodes[1].name == "ct", "a byte order mark is no mistake"
    assert read_config(as_config(valid()) or {}).nodes[1].name == "ct"


def test_there_are_enough_of_them() -> None:
    files = all_of_them()
    count = collections.Counter(file.kind for file in files)
    print(f"\n{len(files)} malformed stack files, {sum(file.config is not None for file in files)} of them also as Pulumi hands them over:")
    print("\n".join(f"  {number:4} {kind}" for kind, number in sorted(count.items())))
    assert len(files) >= 4000
    assert count.keys() == set(KINDS)
    assert sum(not file.where for file in files) >= 60, "hand-picked"


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=LARGE if kind in ("thousands", "deep and large") else ()) for kind in KINDS])
def test_every_malformed_file_is_refused(kind: str, folder: Path) -> None:
    for file in all_of_them():
        if file.kind == kind:
            assert_refused(lambda content=file.content: read_file(folder, content), file)  # type: ignore[misc]
            if file.config is not None:
                assert_refused(lambda config=file.config: read_config(config), file)  # type: ignore[misc]


@pytest.mark.parametrize(
    "value", ["[" * 100_000, '{"a":' * 100_000, "NaN", "[NaN]", "[" + "9" * 6000 + "]", '["\\ud800"]', "[1e999]", "\0", "null", "{", ""]
)
def test_texts_that_pulumi_could_hand_over(value: str) -> None:
    for key in ("nodes", "modalities", "images", "environment"):
        if (key, value) != ("modalities", "null"):
            config = (as_config(valid()) or {}) | {f"orthanc-stack:{key}": value}
            assert_refused(lambda config=config: read_config(config), HostileFile("text", (key,), value.encode()))  # type: ignore[misc]


def test_what_is_too_much_is_told(folder: Path) -> None:
    items = as_yaml(stack(*(node(f"n{i}") for i in range(501))))
    for content, told in (
        (items, "more than 100 problems"),
        (items, "has 501 items; a stack has at most 500"),
        (b"#" * 1_048_577, "bytes"),
    ):
        with pytest.raises(SettingsError, match=told):
            read_file(folder, content)


# --- what is no file ---


@pytest.mark.parametrize(
    ("kind", "make"),
    [
        ("a folder", Path.mkdir),
        ("a pipe, which is not waited for", os.mkfifo),
        ("a link to itself", lambda path: path.symlink_to(path)),
    ],
)
def test_what_is_no_file(kind: str, make: Callable[[Path], object], folder: Path) -> None:
    make(folder / "Pulumi.x.yaml")
    assert_refused(lambda: load_stack_file("x", folder), HostileFile(kind, (), b""))


def test_a_name_that_no_file_has(folder: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        load_stack_file("x" * 300, folder)


def test_a_file_that_may_not_be_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "Pulumi.x.yaml").write_bytes(as_yaml(valid()))

    def refuse(*_: Any, **__: Any) -> Any:  # root, as which the tests may run, reads everything
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    assert_refused(lambda: load_stack_file("x", folder), HostileFile("not readable", (), b""))


# --- and everything else ---

SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=30))
ANYTHING = st.recursive(
    SCALARS, lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=12), inner, max_size=4))
)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(where=st.sampled_from(sorted(MAY_BE, key=str)), value=ANYTHING)
def test_any_value_at_any_path_loads_or_is_refused(where: tuple[str | int, ...], value: Any, folder: Path) -> None:
    raw = put(valid(), where, value)
    taken = []
    with contextlib.suppress(SettingsError, UnicodeEncodeError):  # the latter: half a character, which no file can hold
        taken.append(read_file(folder, as_yaml(raw)))
    if (config := as_config(raw)) is not None:
        with contextlib.suppress(SettingsError):
            taken.append(read_config(config))
    for found in taken:  # what is taken can be written into a configuration file
        json.dumps(found.model_dump(mode="json"), allow_nan=False).encode()
