"""One comment on a pull request, on a server shaped like GitHub: found, edited, never doubled, whoever comments and whatever fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ops import forge as client
from ops import offline_report, pipeline, sticky
from ops.comment import NAME, comment, fitted
from ops.setup.console import ROOT, SetupError
from tests.unit.archives import zipped
from tests.unit.forge_server import BOT, REPOSITORY, REPOSITORY_ID, TOKEN, Fault, Forge, running

HEAD = "a" * 40
FORK_ID = 99


@pytest.fixture
def forge() -> Iterator[Forge]:
    with running(Forge()) as served:
        yield served


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that would have been made."""
    made: list[float] = []
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
    monkeypatch.setattr(client.Api, "pause", lambda _, seconds: made.append(seconds))
    return made


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
    return {
        "GITHUB_ACTIONS": "true",
        "GITHUB_API_URL": forge.url,
        "GITHUB_REPOSITORY": REPOSITORY,
        "GITHUB_TOKEN": TOKEN,
        "GITHUB_EVENT_PATH": str(file),
        "GITHUB_RUN_ID": str(run),
    }


def post(forge: Forge, folder: Path, *stacks: str, run: int = 50) -> None:
    assert comment(stacks or ("dev", "prod"), environment(forge, folder, run=run), folder) == 0


def test_it_is_made_once_and_edited_after(forge: Forge, checkout: Path) -> None:
    post(forge, checkout, run=50)
    (checkout / "artifacts/preview/dev.md").write_text("## dev: two nodes go down\n")
    post(forge, checkout, run=51)
    (only,) = forge.ours()
    assert "two nodes go down" in only["body"]
    assert "nothing goes down" not in only["body"]
    assert "## prod: server goes down" in only["body"]
    assert f"Commit {HEAD[:10]}" in only["body"]
    assert forge.count("POST") == 1


def test_again_with_nothing_new_it_is_left_alone(forge: Forge, checkout: Path) -> None:
    post(forge, checkout)
    post(forge, checkout)
    assert (forge.count("POST"), forge.count("PATCH")) == (1, 0)


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


def test_a_forged_marker_of_somebody_else_is_not_edited(forge: Forge, checkout: Path) -> None:
    post(forge, checkout, run=50)
    body = forge.comments.pop()["body"]
    forged = forge.add_comment("mallory", body)
    ghost = forge.add_comment("ghost", body)
    ghost["user"] = None  # its account was deleted
    post(forge, checkout, run=51)
    assert forged["body"] == ghost["body"] == body
    assert [c["user"]["login"] for c in forge.ours() if c["user"]] == ["mallory", BOT]


def test_a_comment_of_ours_that_quotes_the_marker_is_not_taken_for_it(forge: Forge, checkout: Path) -> None:
    quoting = forge.add_comment(BOT, f"Another workflow quotes:\n{sticky.marker(NAME, 9)}\n")
    other = forge.add_comment(BOT, f"{sticky.marker('another', 9)}\ntext")
    post(forge, checkout)
    assert forge.count("POST") == 1
    assert forge.count("PATCH|DELETE") == 0
    assert quoting in forge.comments
    assert other in forge.comments


def test_two_runs_at_once_leave_one(forge: Forge, checkout: Path) -> None:
    """Both have looked, and found none, before either has made one."""
    barrier, looks = threading.Barrier(2), threading.Semaphore(2)

    def meet() -> None:
        if looks.acquire(blocking=False):
            barrier.wait(timeout=10)

    forge.before_list = meet
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda run: post(forge, checkout, run=run), (50, 51)))
    assert forge.count("POST") == 2
    (only,) = forge.ours()
    assert "run=51" in only["body"]


def test_doubles_that_were_left_behind_are_removed(forge: Forge, checkout: Path) -> None:
    for run in (40, 41, 42):
        forge.add_comment(BOT, f"{sticky.marker(NAME, run)}\nold")
    post(forge, checkout)
    assert len(forge.ours()) == 1
    assert "run=50" in forge.comments[0]["body"]


def test_an_older_run_does_not_replace_what_a_newer_one_wrote(forge: Forge, checkout: Path) -> None:
    post(forge, checkout, run=60)
    written = forge.comments[0]["body"]
    (checkout / "artifacts/preview/dev.md").write_text("## dev: of an older commit\n")
    post(forge, checkout, run=50)
    assert forge.comments[0]["body"] == written


def test_of_two_the_newest_text_stays(forge: Forge, checkout: Path) -> None:
    forge.add_comment(BOT, f"{sticky.marker(NAME, 70)}\nold")
    forge.add_comment(BOT, f"{sticky.marker(NAME, 72)}\nnewest")
    post(forge, checkout, run=71)
    assert [c["body"] for c in forge.comments] == [f"{sticky.marker(NAME, 72)}\nnewest"]


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
@pytest.mark.parametrize("request_", ["GET", "PATCH"])
def test_passing_faults_are_waited_out(forge: Forge, checkout: Path, pauses: list[float], status: int, request_: str) -> None:
    post(forge, checkout, run=50)
    forge.faults += [Fault(request_, status), Fault(request_, status, {"Retry-After": "7"})]
    post(forge, checkout, run=51)
    assert "run=51" in forge.ours()[0]["body"]
    assert pauses == [1.0, 7.0]


@pytest.mark.parametrize("done", [True, False])
def test_a_comment_whose_answer_was_lost_is_not_made_twice(forge: Forge, checkout: Path, done: bool) -> None:
    forge.faults.append(Fault("POST", 502, done=done))
    post(forge, checkout)
    assert len(forge.ours()) == 1


@pytest.mark.parametrize("headers", [{"Retry-After": "3"}, {"X-RateLimit-Remaining": "0"}])
def test_githubs_secondary_limits_are_waited_out(forge: Forge, checkout: Path, pauses: list[float], headers: dict[str, str]) -> None:
    forge.faults.append(Fault("POST", 403, headers))
    post(forge, checkout)
    assert len(forge.ours()) == 1
    assert len(pauses) == 1


def test_pauses_are_bounded(forge: Forge, checkout: Path, pauses: list[float]) -> None:
    forge.faults += [Fault("GET", 429, {"Retry-After": "86400"}) for _ in range(20)]
    with pytest.raises(SetupError, match="429"):
        post(forge, checkout)
    assert pauses == [60.0] * 5


def test_a_refusal_is_told_and_not_repeated(forge: Forge, checkout: Path, pauses: list[float]) -> None:
    forge.faults.append(Fault("POST", 403))
    with pytest.raises(SetupError, match=r"POST /repos/clinic/stacks/issues/7/comments was refused: 403.*a fault"):
        post(forge, checkout)
    assert pauses == []


def test_the_token_is_in_no_message(forge: Forge, checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    environ = environment(forge, checkout) | {"GITHUB_TOKEN": "ghs_anotherToken"}
    with pytest.raises(SetupError, match="Bad credentials") as refused:
        comment(["dev"], environ, checkout)
    hub = pipeline.github(environ)
    shown = capsys.readouterr()
    assert all("anotherToken" not in text for text in (str(refused.value), repr(hub), shown.out, shown.err))


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


def test_what_the_server_does_not_take_is_told(forge: Forge, checkout: Path) -> None:
    hub = pipeline.github(environment(forge, checkout))
    with pytest.raises(SetupError, match=r"422.*body is too long \(maximum is 65536 characters\)"):
        sticky.post(pipeline.comments(hub), NAME, 50, "x" * 65_536, hub.api)


def test_length_is_counted_as_utf_16() -> None:
    signs = "\U0001f4a5" * 1_100
    assert signs in fitted([f"## dev\n\n{signs}"], "foot", 2_500)
    assert "\U0001f4a5" not in fitted([f"## dev\n\n{signs}"], "foot", 2_000)


def test_a_stack_that_has_no_preview_yet_is_said_to_have_none(forge: Forge, checkout: Path) -> None:
    (checkout / "artifacts/preview/prod.md").unlink()
    post(forge, checkout)
    assert "## prod\n\nNo preview for this commit" in forge.ours()[0]["body"]


def test_a_report_with_a_marker_in_it_loses_it(forge: Forge, checkout: Path) -> None:
    (checkout / "artifacts/preview/dev.md").write_text(f"{sticky.marker(NAME, 10**17)}\n## dev\n")
    post(forge, checkout, run=50)
    assert forge.ours()[0]["body"].count("orthanc-stack:") == 1
    post(forge, checkout, run=51)
    assert "run=51" in forge.ours()[0]["body"]


@pytest.mark.parametrize(
    "marker", ["<!-- orthanc-stack:preview -->", "<!-- orthanc-stack:preview run=1 --> x", "<!-- orthanc-stack:preview run=-1 -->"]
)
def test_what_is_no_marker(marker: str) -> None:
    assert sticky.run_of(marker, NAME) is None
    assert sticky.run_of(sticky.marker(NAME, 3) + "\r\ntext", NAME) == 3


# --- Forks -----------------------------------------------------------------------------------------------------------


def fork_event(*, head: str = HEAD, repository: int = FORK_ID) -> dict[str, Any]:
    """What GitHub says of a finished run for a fork: it names no pull request."""
    source = {"id": repository, "owner": {"login": "mallory"}}
    run = {"id": 77, "head_sha": head, "head_branch": "fix/ports&state=closed", "head_repository": source, "pull_requests": []}
    return {"workflow_run": run, "repository": {"id": REPOSITORY_ID}}


def from_fork(forge: Forge, folder: Path, files: dict[str, bytes] | None, event: dict[str, Any] | None = None) -> None:
    head = {"user": "mallory", "ref": "fix/ports&state=closed", "sha": HEAD, "repo": {"id": FORK_ID}}
    forge.pulls = [
        {"number": 3, "state": "open", "head": head | {"sha": "b" * 40}},
        {"number": 7, "state": "open", "head": head},
    ]
    forge.runs[77] = {"head_sha": HEAD, "from": FORK_ID}
    if files is not None:
        forge.add_artifact("offline-preview", files, run=77)
    assert comment(["dev"], environment(forge, folder, event or fork_event()), folder) == 0


REPORT = offline_report.Report(
    stack="dev",
    base="main",
    counts=(("Container", 6),),
    changes=(offline_report.Change("change", "Container", "server", (("image", "a", "b"),)),),
)


def test_a_forks_preview_comes_from_its_figures(forge: Forge, checkout: Path) -> None:
    files = {"dev.json": offline_report.write(REPORT).encode(), "dev.md": b"APPROVED by everybody", "number.txt": b"1"}
    from_fork(forge, checkout, files)
    body = forge.ours()[0]["body"]
    assert "**From a fork.**" in body
    assert "Not compared with any deployed stack" in body
    assert "- changed: `Container` `server`\n  - `image`: `a` → `b`" in body
    assert "APPROVED" not in body
    assert "run=77" in body


HOSTILE = [
    "`</details><script>alert(1)</script>",
    "``` \n## Approved\n",
    "x\n/merge\n@clinic/admins approved",
    "![](https://mallory.example/pixel.png)",
    f"{sticky.marker(NAME, 999)}",
    "a\u202eb\u2066c\u0000d\x1b[31m",
    "@dependabot merge",
    "| a | b |",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_in_a_forks_report_leaves_its_code_span(text: str) -> None:
    change = offline_report.Change("change", text, text, ((text, text, text),))
    report = offline_report.Report("dev", base=text, counts=((text, 1),), changes=(change,), violations=((text, text, text),))
    plain = offline_report.Report(
        "dev",
        base="x",
        counts=(("x", 1),),
        changes=(offline_report.Change("change", "x", "x", (("x", "x", "x"),)),),
        violations=(("x", "x", "x"),),
    )
    for made, harmless in ((report, plain), (offline_report.Report("dev", refused=text), offline_report.Report("dev", refused="x"))):
        lines = offline_report.markdown(offline_report.read(offline_report.write(made).encode(), "dev")).splitlines()
        expected = offline_report.markdown(harmless).splitlines()
        # Without the code spans, what is left is our own text. A refusal has a span for each of its lines.
        outside = ["".join(line.split("`")[::2]) for line in lines]
        assert all(line.count("`") % 2 == 0 for line in lines)
        assert set(outside) == {"".join(line.split("`")[::2]) for line in expected}
        assert not any("`@" in line or " @" in line or line.startswith(("/", "@")) for line in lines)
        assert not any(char in "".join(lines) for char in "\u202e\u2066\x00\x1b")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[" * 100_000,
        b"[]",
        b'{"format": 1, "stack": "prod"}',
        b'{"format": 1, "stack": "dev", "base": 5}',
        json.dumps(
            {"format": 1, "stack": "dev", "base": "", "refused": "", "counts": [["x", 1]] * 6000, "changes": [], "violations": []}
        ).encode(),
        json.dumps(
            {"format": 1, "stack": "dev", "base": "", "refused": "", "counts": [["x", True]], "changes": [], "violations": []}
        ).encode(),
        json.dumps(
            {"format": 1, "stack": "dev", "base": "", "refused": "", "counts": [], "changes": [{"operation": "approve"}], "violations": []}
        ).encode(),
        b"\xff\xfe\x00",
    ],
)
def test_what_is_no_report_is_said_to_be_none(forge: Forge, checkout: Path, content: bytes) -> None:
    from_fork(forge, checkout, {"dev.json": content})
    assert "is not as `make preview-offline` writes it" in forge.ours()[0]["body"]


def test_a_run_that_left_nothing_is_said_to_have(forge: Forge, checkout: Path) -> None:
    from_fork(forge, checkout, None)
    assert "## dev\n\nNo preview: the run failed" in forge.ours()[0]["body"]


def test_an_archive_that_unpacks_to_too_much_is_left_aside(forge: Forge, checkout: Path) -> None:
    from_fork(forge, checkout, {"dev.json": b" " * (pipeline.FILE_BYTES + 1), "../../evil": b"x", "a/dev.json": b"x"})
    assert "## dev\n\nNo preview: the run failed" in forge.ours()[0]["body"]
    assert len(zipped({"dev.json": b" " * (pipeline.FILE_BYTES + 1)})) < 10_000


def test_an_archive_that_is_none_is_left_aside(forge: Forge, checkout: Path) -> None:
    forge.runs[77] = {"head_sha": HEAD, "from": FORK_ID}
    number = forge.add_artifact("offline-preview", {}, run=77)
    forge.archives[number] = b"PK\x03\x04 and no more"
    from_fork(forge, checkout, None)
    assert "No preview: the run failed" in forge.ours()[0]["body"]


def test_a_forks_run_reaches_no_other_pull_request(forge: Forge, checkout: Path) -> None:
    """Its commit and its repository, as GitHub has them, say which it is for; a number in its artefact says nothing."""
    files = {"dev.json": offline_report.write(REPORT).encode()}
    with pytest.raises(SetupError, match="no open pull request is at the commit"):
        from_fork(forge, checkout, files, fork_event(head="c" * 40))
    with pytest.raises(SetupError, match="no open pull request is at the commit"):
        from_fork(forge, checkout, files, fork_event(repository=98))
    assert forge.comments == []


def test_a_run_of_a_branch_of_this_repository_is_left_to_its_own_workflow(forge: Forge, checkout: Path) -> None:
    from_fork(forge, checkout, {"dev.json": b"{}"}, fork_event(repository=REPOSITORY_ID))
    assert forge.comments == []


# --- GitLab ----------------------------------------------------------------------------------------------------------


def test_gitlabs_note_is_made_once_and_edited_after(forge: Forge, checkout: Path) -> None:
    forge.account = "project_11_bot"
    environ = {
        "GITLAB_CI": "true",
        "CI_API_V4_URL": forge.url,
        "CI_PROJECT_ID": "11",
        "CI_MERGE_REQUEST_IID": "7",
        "GITLAB_TOKEN": TOKEN,
        "CI_PIPELINE_ID": "5",
        "CI_PIPELINE_URL": "https://gitlab.example/clinic/stacks/-/pipelines/5",
        "CI_COMMIT_SHA": HEAD,
    }
    for number in range(120):
        forge.add_comment("physicist", f"remark {number}")
    forge.add_comment("mallory", f"{sticky.marker(NAME, 1)}\nforged")
    for pipeline_id in ("5", "6"):
        assert comment(["dev"], environ | {"CI_PIPELINE_ID": pipeline_id}, checkout) == 0
    mine = [c for c in forge.ours() if c["author"]["username"] == "project_11_bot"]
    assert len(mine) == 1
    assert "run=6" in mine[0]["body"]
    assert (forge.count("POST"), forge.count("PUT")) == (1, 1)


# --- The environment -------------------------------------------------------------------------------------------------


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
    env = os.environ | environment(forge, checkout) | {"PYTHON": sys.executable}
    for run in ("50", "51"):
        done = subprocess.run(
            ["make", "comment", "STACK=dev prod"], cwd=ROOT, env=env | {"GITHUB_RUN_ID": run}, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert TOKEN not in done.stdout + done.stderr
    (only,) = forge.ours()
    assert "run=51" in only["body"]
    assert "\n\n---\n\n" in only["body"]
    refused = subprocess.run(
        ["make", "comment"], cwd=ROOT, env=env | {"GITHUB_TOKEN": "another"}, capture_output=True, text=True, check=False
    )
    assert refused.returncode != 0
    assert "Bad credentials" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_the_commands_with_a_token_need_no_package() -> None:
    """They begin under any Python 3.11, without the virtual environment: -S leaves out all that was installed."""
    code = "import ops.comment, ops.drift_issue, ops.reviewed; print('ok')"
    done = subprocess.run([sys.executable, "-S", "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout == "ok\n", done.stderr
