"""The pages: the tests, files, headings and commands that they name are there, and the stack files in them are accepted."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from typer.main import get_command

from configs.loader import parse
from configs.stack_file import read_config
from ops.cli import app
from ops.setup.console import ROOT

_TESTS: Final = "".join(file.read_text() for file in ROOT.glob("tests/**/*.py"))
#: The project's own pages. The folders of what git ignores are not looked into.
_PAGES: Final = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("[a-z]*/README.md"), *ROOT.glob("tests/**/README.md")])
_README_LINES: Final = 200
#: What the Makefile keeps.
_ALIASES: Final = frozenset(
    ["up", "down", "preview", "outputs", "verify", "status", "destroy", "test", "test-slow", "lint", "bench", "soak"]
)
#: What `make` took besides STACK before 2.0.0.
_OLD_VARIABLES: Final = "PLAN|BASE|SHOW_SECRETS|JSON|KEY|RENEW|EXPORT|YES"

pages = pytest.mark.parametrize("page", _PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def prose_of(page: Path) -> str:
    """A page without its blocks of code, in which `#` begins no heading and brackets are no link."""
    return re.sub(r"^( *)```.*?^\1```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def anchors_of(page: Path) -> set[str]:
    """The anchors that GitHub gives to a page's headings: lower case, without punctuation, blanks as hyphens, a number for the second."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.+)$", prose_of(page), re.MULTILINE):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        anchor = re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-")
        found.add(next(name for i in range(len(found) + 1) if (name := f"{anchor}-{i}" if i else anchor) not in found))
    return found


def broken_links(page: Path) -> Iterator[str]:
    """The relative links that lead to no file, or to no heading of one."""
    for link in re.findall(r"\]\(([^)\s]+)\)", prose_of(page)):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if not target.exists() or (anchor and anchor not in anchors_of(target)):
            yield link


def shown_commands(text: str) -> Iterator[tuple[str, list[str]]]:
    """What a text calls as `./orthanc-stack …`: the command (of developers': `dev test`), and its options.

    A name in capitals stands for any command. What follows a `#`, a `;` or `--` is no option of it.
    """
    for called in re.findall(r"\./orthanc-stack(?![\w/.-])\s*((?:(?!\./orthanc-stack)[^`#;|&)\n])*)", text):
        words = called.partition(" -- ")[0].split()
        command = " ".join(words[: 2 if words[:1] == ["dev"] else 1])
        if not command.isupper():
            yield command, re.findall(r"(?<!\S)--?[a-z][a-z-]*", " ".join(words))


def options_of(command: str) -> set[str]:
    """The options of a command, "" for those before any. Raises KeyError where there is no such command."""
    found: Any = get_command(app)
    for word in [] if command.startswith("-") else command.split():
        found = found.commands[word]
    return {"--help", *(option for parameter in found.params for option in parameter.opts)}


@pages
def test_a_test_that_a_page_names_is_there(page: Path) -> None:
    text = page.read_text()
    for path, name in re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", text):
        assert (ROOT / path).is_file(), path
        assert not name or re.search(rf"^(class|def) {name}\b", (ROOT / path).read_text(), re.MULTILINE), f"{path}::{name}"
    for name in re.findall(r"`(test_\w+)`", text):
        assert re.search(rf"def {name}\b", _TESTS), name


@pages
def test_links_lead_somewhere(page: Path) -> None:
    assert list(broken_links(page)) == []


@pages
def test_commands_are_those_of_the_command_line(page: Path) -> None:
    for command, options in shown_commands(page.read_text()):
        assert set(options) <= options_of(command), command


@pages
def test_no_page_shows_the_old_command_line(page: Path) -> None:
    text = page.read_text()
    # In code alone: English has "make" as well.
    assert set(re.findall(r"(?:^ {4,}|`|\$\(|sudo )make (?:-s )?([a-z-]+)", text, re.MULTILINE)) <= _ALIASES
    assert re.findall(rf"\bmake [^`\n]*\b(?:{_OLD_VARIABLES})=", text) == []


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= _README_LINES


def test_the_readmes_table_has_every_command() -> None:
    rows = re.findall(r"^\| (`.+?) \|", (ROOT / "README.md").read_text(), re.MULTILINE)
    spans = [span for row in rows for span in re.findall(r"`([^`]+)`", row)]
    told = [shown for span in spans for shown in shown_commands(f"./orthanc-stack {span}")]
    assert {command.split()[0] for command, _ in told} == set(get_command(app).commands)  # type: ignore[attr-defined]
    for command, options in told:
        assert set(options) <= options_of(command), command


def test_the_readmes_stack_file_is_accepted(tmp_path: Path) -> None:
    (block,) = (found for found in re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL) if "config:" in found)
    file = tmp_path / "Pulumi.mine.yaml"
    file.write_text(block)
    settings, _, problems = parse({key.partition(":")[2]: value for key, value in read_config(file).items()})
    assert problems == []
    assert settings is not None
    assert len(settings.nodes) == 5


@pages
def test_stack_files_in_pages_are_yaml(page: Path) -> None:
    for block in re.findall(r"^```yaml\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
        yaml.safe_load(block)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("[a](#one-two) [b](there.md#x) [c](https://a/b) ![d](there.md)", []),
        ("[a](#two) [b](there.md#y) [c](gone.md)", ["#two", "there.md#y", "gone.md"]),
        ("```\n[a](gone.md)\n# two\n```\n[b](#two)", ["#two"]),
    ],
)
def test_broken_links_are_found(text: str, wrong: list[str], tmp_path: Path) -> None:
    (tmp_path / "there.md").write_text("## X\n")
    page = tmp_path / "page.md"
    page.write_text(f"# One, `two`\n\n{text}\n")
    assert list(broken_links(page)) == wrong


def test_commands_are_found() -> None:
    text = '`./orthanc-stack\n up a --plan F` "$(./orthanc-stack env dev)" `./orthanc-stack COMMAND` ./orthanc-stack dev test -- --x # --y'
    assert list(shown_commands(text)) == [("up", ["--plan"]), ("env", []), ("dev test", [])]
