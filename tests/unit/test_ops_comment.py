"""One comment on a pull request, on a server shaped like GitHub: found, edited, never doubled, whoever comments and whatever fails."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ops import pipeline, sticky
from ops.comment import NAME, comment, fitted
from ops.offline_report import Change, Report, markdown, read, write
from ops.setup.console import ROOT, SetupError
from tests.unit.archives import zipped
from tests.unit.forge_server import BOT, REPOSITORY_ID, TOKEN, Fault, Forge, served
from tests.unit.test_report_escape import HOSTILE

HEAD = "a" * 40
FORK_ID = 99


@pytest.fixture
def forge(monkeypatch: pytest.MonkeyPatch) -> Iterator[Forge]:
    yield from served(monkeypatch)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "artifacts" / "preview"
    folder.mkdir(parents=True)
    (folder / "dev.md").write_text("## dev: nothing goes down\n\nOne option of server.\n")
    (folder / "prod.md").write_text("## prod: server goes down for seconds\n")
    return tmp_path


def environment(forge: Forge, folder: Path, event: dict[str, Any] | None = None, *, run: int = 50) -> dict[str, str]:
    """A job's environment, for pull request 7."""
    file = folder / f"event-{run}.json"
    file.write_text(json.dumps(event if event is not None else {"pull_request": {"number": 7, "head": {"sha": HEAD}}}))
    return forge.environment(run, GITHUB_EVENT_PATH=str(file))


def post(forge: Forge, folder: Path, *, run: int = 50) -> None:
    assert comment(("dev", "prod"), environment(forge, folder, run=run), folder) == 0


def of_run(run: int, text: str, name: str = NAME) -> str:
    """What a run has written into its comment."""
    return f"{sticky.marker(name, run)}\n{text}"


def test_it_is_made_once_left_alone_and_edited_when_there_is_something_new(forge: Forge, checkout: Path) -> None:
    post(forge, checkout)
    post(forge, checkout)
    assert (forge.count("POST"), forge.count("PATCH")) == (1, 0)
    (checkout / "artifacts/preview/dev.md").write_text("## dev: two nodes go down\n")
    (checkout / "artifacts/preview/prod.md").unlink()
    post(forge, checkout, run=51)
    (only,) = forge.ours()
    assert "## dev: two nodes go down" in only["body"]
    assert "nothing goes down" not in only["body"]
    assert "## prod\n\nNo preview for this commit" in only["body"]
    assert f"Commit {HEAD[:10]}" in only["body"]
    assert forge.count("POST") == 1


@pytest.mark.parametrize(("before", "after"), [(250, 0), (0, 250), (101, 99), (100, 0)])
def test_it_is_found_on_any_page(forge: Forge, checkout: Path, before: int, after: int) -> None:
    for number in range(before):
        forge.add_comment("physicist", f"remark {number}")
    post(forge, checkout, run=50)
    for number in range(after):
        forge.add_comment("physicist", f"remark {before + number}")
    post(forge, checkout, run=51)
    assert len(forge.ours()) == 1
    assert len(forge.comments) == before + after + 1
    assert forge.count("GET .*/comments") >= 2 * (before // 100 + 1)


def test_what_only_looks_like_it_is_left_alone(forge: Forge, checkout: Path) -> None:
    forged = of_run(50, "Whoever may comment can copy the marker.")
    others = [
        forge.add_comment("mallory", forged),
        forge.add_comment("ghost", forged),
        forge.add_comment(BOT, f"Another workflow quotes:\n{sticky.marker(NAME, 9)}\n"),
        forge.add_comment(BOT, of_run(9, "text", "another")),
    ]
    others[1]["user"] = None  # its account was deleted
    before = copy.deepcopy(others)
    post(forge, checkout)
    assert forge.comments[:-1] == before
    assert forge.comments[-1]["user"] == {"login": BOT}
    assert (forge.count("POST"), forge.count("PATCH|DELETE")) == (1, 0)


@pytest.mark.parametrize(
    "marker", ["<!-- orthanc-stack:preview -->", "<!-- orthanc-stack:preview run=1 --> x", "<!-- orthanc-stack:preview run=-1 -->"]
)
def test_what_is_no_marker(marker: str) -> None:
    assert sticky.run_of(marker, NAME) is None
    assert sticky.run_of(sticky.marker(NAME, 3) + "\r\ntext", NAME) == 3


def test_two_runs_at_once_leave_one(forge: Forge, checkout: Path) -> None:
    """Both have looked, and found none, before either has made one."""
    barrier, looks = threading.Barrier(2), threading.Semaphore(2)

    def meet() -> None:
        if looks.acquire(blocking=False):
            barrier.wait(timeout=10)

    forge.on_list = meet
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda run: post(forge, checkout, run=run), (50, 51)))
    assert forge.count("POST") == 2
    (only,) = forge.ours()
    assert "run=51" in only["body"]


@pytest.mark.parametrize(
    ("left", "run", "newest"),
    [
        pytest.param((40, 41, 42), 50, 50, id="doubles that were left behind are removed"),
        pytest.param((60,), 50, 60, id="an older run does not replace what a newer one wrote"),
        pytest.param((70, 72), 71, 72, id="of two the newest text stays"),
    ],
)
def test_one_stays_with_the_newest_text(forge: Forge, checkout: Path, left: tuple[int, ...], run: int, newest: int) -> None:
    first, *_ = [forge.add_comment(BOT, of_run(number, "of an earlier run")) for number in left]
    post(forge, checkout, run=run)
    assert forge.comments == [first]
    assert sticky.run_of(first["body"], NAME) == newest
    assert (first["body"] == of_run(newest, "of an earlier run")) == (newest != run)


def test_what_somebody_removes_meanwhile_is_no_error(forge: Forge, checkout: Path) -> None:
    for run in (40, 41):
        forge.add_comment(BOT, of_run(run, "old"))
    forge.faults += [Fault("DELETE", 404, done=True), Fault("PATCH", 410)]
    post(forge, checkout)
    (only,) = forge.ours()
    assert "run=50" in only["body"]


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
@pytest.mark.parametrize("request_", ["GET", "PATCH"])
def test_passing_faults_are_waited_out(forge: Forge, checkout: Path, status: int, request_: str) -> None:
    post(forge, checkout, run=50)
    forge.faults += [Fault(request_, status), Fault(request_, status, {"Retry-After": "7"})]
    post(forge, checkout, run=51)
    assert "run=51" in forge.ours()[0]["body"]
    assert forge.pauses == [1.0, 7.0]


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(Fault("POST", 502, done=True), id="made, and its answer was lost"),
        pytest.param(Fault("POST", 502), id="not made"),
        pytest.param(Fault("POST", 403, {"Retry-After": "3"}), id="a secondary limit of GitHub's"),
        pytest.param(Fault("POST", 403, {"X-RateLimit-Remaining": "0"}), id="a limit that is used up"),
    ],
)
def test_a_comment_that_had_a_fault_is_made_once(forge: Forge, checkout: Path, fault: Fault) -> None:
    forge.faults.append(fault)
    post(forge, checkout)
    assert len(forge.ours()) == 1
    assert len(forge.pauses) == 1
    assert forge.count("POST") == (1 if fault.done else 2)


def test_pauses_are_bounded(forge: Forge, checkout: Path) -> None:
    forge.faults += [Fault("GET", 429, {"Retry-After": "86400"}) for _ in range(20)]
    with pytest.raises(SetupError, match="429"):
        post(forge, checkout)
    assert forge.pauses == [60.0] * 5


def test_a_refusal_is_told_and_not_repeated(forge: Forge, checkout: Path) -> None:
    forge.faults.append(Fault("POST", 403))
    with pytest.raises(SetupError, match=r"POST /repos/clinic/stacks/issues/7/comments was refused: 403.*a fault"):
        post(forge, checkout)
    hub = pipeline.github(environment(forge, checkout))
    with pytest.raises(SetupError, match=r"422.*body is too long \(maximum is 65536 characters\)"):
        sticky.post(pipeline.comments(hub), NAME, 50, "x" * 65_536, hub.api)
    assert forge.pauses == []


def test_the_token_is_in_no_message(forge: Forge, checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    environ = environment(forge, checkout) | {"GITHUB_TOKEN": "ghs_anotherToken"}
    with pytest.raises(SetupError, match="Bad credentials") as refused:
        comment(["dev"], environ, checkout)
    shown = capsys.readouterr()
    assert all("anotherToken" not in text for text in (str(refused.value), repr(pipeline.github(environ)), shown.out, shown.err))


def test_the_token_goes_to_no_other_host_and_not_in_clear(forge: Forge, checkout: Path) -> None:
    forge.runs[1] = {"head_sha": HEAD, "from": REPOSITORY_ID}
    number = forge.add_artifact("preview-dev", {"dev.md": b"x"}, run=1)
    hub = pipeline.github(environment(forge, checkout))
    assert pipeline.artifact(hub, number) == {"dev.md": b"x"}
    assert forge.storage_tokens == [None]
    with pytest.raises(SetupError, match="has to begin with https"):
        pipeline.github(environment(forge, checkout) | {"GITHUB_API_URL": "http://forge.example/api"})
    with pytest.raises(SetupError, match="names a page elsewhere"):
        hub.api.get("https://elsewhere.example/page")


def test_a_comment_of_two_long_reports_is_shortened_to_what_github_takes(forge: Forge, checkout: Path) -> None:
    for stack in ("dev", "prod"):
        rows = "\n".join(f"<details><summary>node {i}</summary>\n\n```\n{'x' * 60}\n```\n</details>" for i in range(500))
        (checkout / f"artifacts/preview/{stack}.md").write_text(f"## {stack}: 3 nodes go down\n\nData is at risk.\n\n{rows}\n")
    post(forge, checkout)
    body = forge.ours()[0]["body"]
    assert 30_000 < len(body) < 65_536
    assert body.count("Data is at risk.") == 2
    assert body.count("<details>") == body.count("</details>") == 500
    assert body.count("too long for a comment") == 1
    assert body.count("```") % 2 == 0


def test_length_is_counted_as_utf_16() -> None:
    signs = "\U0001f4a5" * 1_100
    assert signs in fitted([f"## dev\n\n{signs}"], "foot", 2_500)
    assert "\U0001f4a5" not in fitted([f"## dev\n\n{signs}"], "foot", 2_000)


def test_a_report_with_a_marker_in_it_loses_it(forge: Forge, checkout: Path) -> None:
    (checkout / "artifacts/preview/dev.md").write_text(of_run(10**17, "## dev\n"))
    post(forge, checkout, run=50)
    assert forge.ours()[0]["body"].count("orthanc-stack:") == 1
    post(forge, checkout, run=51)
    assert "run=51" in forge.ours()[0]["body"]


# --- Forks -----------------------------------------------------------------------------------------------------------


def fork_event(*, head: str = HEAD, repository: int = FORK_ID) -> dict[str, Any]:
    """What GitHub says of a finished run for a fork: it names no pull request."""
    source = {"id": repository, "owner": {"login": "mallory"}}
    run = {"id": 77, "head_sha": head, "head_branch": "fix/ports&state=closed", "head_repository": source, "pull_requests": []}
    return {"workflow_run": run, "repository": {"id": REPOSITORY_ID}}


def from_fork(forge: Forge, folder: Path, left: Mapping[str, bytes] | bytes | None, event: dict[str, Any] | None = None) -> str:
    """The comment after a fork's run that has left some files, an archive, or nothing; empty where there is none."""
    head = {"user": "mallory", "ref": "fix/ports&state=closed", "sha": HEAD, "repo": {"id": FORK_ID}}
    forge.pulls = [{"number": 3, "state": "open", "head": head | {"sha": "b" * 40}}, {"number": 7, "state": "open", "head": head}]
    forge.runs[77] = {"head_sha": HEAD, "from": FORK_ID}
    if left is not None:
        forge.add_artifact("offline-preview", left, run=77)
    assert comment(["dev"], environment(forge, folder, event or fork_event()), folder) == 0
    return "".join(found["body"] for found in forge.comments)


def test_a_forks_preview_comes_from_its_figures(forge: Forge, checkout: Path) -> None:
    change = Change("change", "Container", "server", (("image", "a", "b"),))
    report = write(Report("dev", base="main", counts=(("Container", 6),), changes=(change,)))
    body = from_fork(forge, checkout, {"dev.json": report.encode(), "dev.md": b"APPROVED by everybody", "number.txt": b"1"})
    assert "**From a fork.**" in body
    assert "Not compared with any deployed stack" in body
    assert "- changed: `Container` `server`\n  - `image`: `a` → `b`" in body
    assert "APPROVED" not in body
    assert "run=77" in body


def filled(text: str) -> tuple[Report, Report]:
    """A report and a refusal that have a text in every place."""
    change = Change("change", text, text, ((text, text, text),))
    return Report("dev", "", text), Report("dev", text, "", ((text, 1),), (change,), ((text, text, text),))


@pytest.mark.parametrize("text", [text for text in HOSTILE if text.strip()])
def test_nothing_in_a_forks_report_leaves_its_code_span(text: str) -> None:
    for made, harmless in zip(filled(text), filled("x"), strict=True):
        lines = markdown(read(write(made).encode(), "dev")).splitlines()
        assert all(line.count("`") % 2 == 0 for line in lines)
        # Without the code spans, what is left is our own text. A refusal has a span for each of its lines.
        outside, expected = ({"".join(line.split("`")[::2]) for line in each} for each in (lines, markdown(harmless).splitlines()))
        assert outside == expected
        assert not any("`@" in line or " @" in line or line.startswith(("/", "@")) for line in lines)
        assert "".join(lines).isprintable()


def written(**change: Any) -> bytes:
    """A report as JSON, with some of its values changed."""
    return json.dumps(json.loads(write(Report("dev"))) | change).encode()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[" * 100_000,
        b"[]",
        b"\xff\xfe\x00",
        b'{"format": 1, "stack": "dev"}',
        written(stack="prod"),
        written(base=5),
        written(counts=[["x", 1]] * 6000),
        written(counts=[["x", True]]),
        written(changes=[{"operation": "approve"}]),
    ],
)
def test_what_is_no_report_is_said_to_be_none(forge: Forge, checkout: Path, content: bytes) -> None:
    assert "is not as `make preview-offline` writes it" in from_fork(forge, checkout, {"dev.json": content})


@pytest.mark.parametrize(
    "left",
    [
        pytest.param(None, id="nothing"),
        pytest.param(b"PK\x03\x04 and no more", id="no archive"),
        pytest.param(
            zipped({"dev.json": b" " * (pipeline.FILE_BYTES + 1), "../../evil": b"x", "a/dev.json": b"x"}), id="it unpacks to too much"
        ),
    ],
)
def test_a_run_that_left_nothing_of_use_is_said_to_have_failed(forge: Forge, checkout: Path, left: bytes | None) -> None:
    assert len(left or b"") < 10_000
    assert "## dev\n\nNo preview: the run failed" in from_fork(forge, checkout, left)


@pytest.mark.parametrize("event", [fork_event(head="c" * 40), fork_event(repository=98)], ids=["another commit", "another repository"])
def test_a_forks_run_reaches_no_other_pull_request(forge: Forge, checkout: Path, event: dict[str, Any]) -> None:
    """Its commit and its repository, as GitHub has them, say which it is for; a number in its artefact says nothing."""
    with pytest.raises(SetupError, match="no open pull request is at the commit"):
        from_fork(forge, checkout, {"dev.json": write(Report("dev")).encode()}, event)
    assert forge.comments == []


def test_a_run_of_a_branch_of_this_repository_is_left_to_its_own_workflow(forge: Forge, checkout: Path) -> None:
    assert from_fork(forge, checkout, {"dev.json": b"{}"}, fork_event(repository=REPOSITORY_ID)) == ""


# --- GitLab and the environment --------------------------------------------------------------------------------------


def test_gitlabs_note_is_made_once_and_edited_after(forge: Forge, checkout: Path) -> None:
    forge.account = "project_11_bot"
    environ = {
        "GITLAB_CI": "true",
        "CI_API_V4_URL": forge.url,
        "CI_PROJECT_ID": "11",
        "CI_MERGE_REQUEST_IID": "7",
        "GITLAB_TOKEN": TOKEN,
        "CI_PIPELINE_URL": "https://gitlab.example/clinic/stacks/-/pipelines/5",
        "CI_COMMIT_SHA": HEAD,
    }
    for number in range(120):
        forge.add_comment("physicist", f"remark {number}")
    forge.add_comment("mallory", of_run(1, "forged"))
    for pipeline_id in ("5", "6"):
        assert comment(["dev"], environ | {"CI_PIPELINE_ID": pipeline_id}, checkout) == 0
    (mine,) = [found for found in forge.ours() if found["author"]["username"] == "project_11_bot"]
    assert "run=6" in mine["body"]
    assert (forge.count("POST"), forge.count("PUT")) == (1, 1)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"GITHUB_REPOSITORY": "clinic/../x/y"}, "GITHUB_REPOSITORY"),
        ({"GITHUB_TOKEN": ""}, "GITHUB_TOKEN is not set"),
        ({"GITHUB_EVENT_PATH": "/nowhere"}, "GITHUB_EVENT_PATH"),
        ({"GITHUB_EVENT_PATH": ""}, "for no pull request: PULL_REQUEST"),
    ],
)
def test_what_is_missing_is_said(forge: Forge, checkout: Path, change: dict[str, str], said: str) -> None:
    with pytest.raises(SetupError, match=said):
        comment(["dev"], environment(forge, checkout) | change, checkout)


def test_as_a_command(forge: Forge, checkout: Path) -> None:
    """By make, under any python3, with two stacks in one variable."""

    def make(**more: str) -> subprocess.CompletedProcess[str]:
        env = os.environ | environment(forge, checkout) | {"PYTHON": sys.executable} | more
        return subprocess.run(["make", "comment", "STACK=dev prod"], cwd=ROOT, env=env, capture_output=True, text=True, check=False)

    for run in ("50", "51"):
        done = make(GITHUB_RUN_ID=run)
        assert done.returncode == 0, done.stderr
        assert TOKEN not in done.stdout + done.stderr
    (only,) = forge.ours()
    assert "run=51" in only["body"]
    assert "\n\n---\n\n" in only["body"]
    refused = make(GITHUB_TOKEN="another")
    assert refused.returncode != 0
    assert "Bad credentials" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_the_commands_with_a_token_need_no_package() -> None:
    """They begin under any Python 3.11, without the virtual environment: -S leaves out all that was installed."""
    code = "import ops.comment, ops.drift_issue, ops.reviewed; print('ok')"
    done = subprocess.run([sys.executable, "-S", "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout == "ok\n", done.stderr
