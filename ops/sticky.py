"""One comment on a pull request: made once, edited ever after.

It is told by a marker in its first line and by its author. Whoever may comment can copy the marker, which makes theirs no comment of ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from ops.forge import ATTEMPTS, Api, ForgeError, pause_before

#: What a marker is made of. It stands in a comment of HTML, which it must not be able to end.
_RUN = re.compile(r"\d{1,18}")


@dataclass(frozen=True)
class Comment:
    """A comment as the forge has it."""

    id: int
    author: str
    body: str


class Comments(Protocol):
    """The comments of one pull request (merge request)."""

    @property
    def author(self) -> str:
        """The account whose comments are ours."""

    @property
    def limit(self) -> int:
        """How many characters a comment may have."""

    def all(self) -> Iterator[Comment]:
        """Every comment, of all pages."""

    def create(self, body: str) -> Comment:
        """Make one."""

    def edit(self, comment: Comment, body: str) -> None:
        """Give one another text."""

    def delete(self, comment: Comment) -> None:
        """Remove one."""


def marker(name: str, run: int) -> str:
    """The first line of a comment: which one it is, and which run of the pipeline wrote it. Invisible where it is shown."""
    return f"<!-- orthanc-stack:{name} run={run} -->"


def run_of(body: str, name: str) -> int | None:
    """The run that wrote a comment of a name; None where it is no such comment: the marker counts in the first line alone."""
    first, _, _ = body.partition("\n")
    match = re.fullmatch(rf"<!-- orthanc-stack:{re.escape(name)} run=({_RUN.pattern}) -->", first.rstrip("\r"))
    return int(match[1]) if match else None


def post(comments: Comments, name: str, run: int, text: str, api: Api) -> str:
    """Make the one comment of a name, or edit it; what was done.

    Two runs at once may both find none. So whoever makes one looks again: the oldest stays, the others go, whoever made them. What an
    older run knows does not replace what a newer one has written.

    Args:
        comments: the pull request's comments.
        name: which comment it is.
        run: the number of this run; later runs have greater ones.
        text: the comment, without its marker.
        api: whose pauses are kept between attempts.

    Raises:
        ForgeError: the forge refuses it.
    """
    body = f"{marker(name, run)}\n{text}"
    for attempt in range(1, ATTEMPTS + 1):
        found = _ours(comments, name)
        try:
            made = [] if found else [comments.create(body)]
        except ForgeError as error:
            # A POST without an answer may have been carried out: only another look tells.
            if not error.passing or attempt == ATTEMPTS:
                raise
            api.pause(pause_before(attempt))
            continue
        if made:
            found = _ours(comments, name) or made
        first, *others = found
        for other in others:
            _tolerating_absence(comments.delete, other)
        newest = max(run_of(comment.body, name) or 0 for comment in found)
        if newest > run:
            _keep_newest(comments, first, others, name)
            return f"run {newest}, which is newer, has written it already"
        if first.body == body:
            return "made" if made and first.id == made[0].id else "left as it was"
        if _tolerating_absence(comments.edit, first, body):
            return "edited"
        # Somebody has removed it since it was found.
    raise ForgeError("the comment was removed as often as it was found.")


def _ours(comments: Comments, name: str) -> list[Comment]:
    """Our comments of a name, the oldest first."""
    ours = (comment for comment in comments.all() if comment.author == comments.author and run_of(comment.body, name) is not None)
    return sorted(ours, key=lambda comment: comment.id)


def _keep_newest(comments: Comments, first: Comment, others: list[Comment], name: str) -> None:
    newest = max([first, *others], key=lambda comment: run_of(comment.body, name) or 0)
    if newest is not first:
        _tolerating_absence(comments.edit, first, newest.body)


def _tolerating_absence(action: Any, *arguments: Any) -> bool:
    """Do something to a comment; False where it is gone."""
    try:
        action(*arguments)
    except ForgeError as error:
        if error.status not in (404, 410):
            raise
        return False
    return True


@dataclass(frozen=True)
class ForgeComments:
    """The comments of a pull request, where a forge has them.

    Attributes:
        api: the forge's API.
        author: the account whose comments are ours.
        listed: where all of them are, and new ones are made.
        each: where each of them is, less its number.
        editing: the method that gives one another text.
        account: the attributes of a comment that lead to its author's name.
        limit: how many characters a comment may have.
    """

    api: Api
    author: str
    listed: str
    each: str
    editing: str
    account: tuple[str, str]
    limit: int

    def all(self) -> Iterator[Comment]:
        """Every comment, of all pages."""
        return map(self._comment, self.api.pages(self.listed))

    def create(self, body: str) -> Comment:
        """Make one."""
        return self._comment(self.api.send("POST", self.listed, {"body": body}).body)

    def edit(self, comment: Comment, body: str) -> None:
        """Give one another text."""
        self.api.send(self.editing, f"{self.each}/{comment.id}", {"body": body})

    def delete(self, comment: Comment) -> None:
        """Remove one."""
        self.api.send("DELETE", f"{self.each}/{comment.id}")

    def _comment(self, found: Mapping[str, Any]) -> Comment:
        account, name = self.account
        # The account of a comment is null when it was deleted.
        return Comment(int(found["id"]), str((found.get(account) or {}).get(name, "")), str(found.get("body") or ""))


def github_comments(api: Api, repository: str, number: int, author: str) -> ForgeComments:
    """The comments of a pull request on GitHub: those of the issue that it is as well. GitHub answers 422 to longer ones."""
    issues = f"/repos/{repository}/issues"
    return ForgeComments(api, author, f"{issues}/{number}/comments", f"{issues}/comments", "PATCH", ("user", "login"), 65_536)


def gitlab_comments(api: Api, project: str, number: int, author: str) -> ForgeComments:
    """The notes of a merge request on GitLab."""
    notes = f"/projects/{project}/merge_requests/{number}/notes"
    return ForgeComments(api, author, notes, notes, "PUT", ("author", "username"), 1_000_000)
