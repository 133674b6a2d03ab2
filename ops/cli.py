"""The commands behind the Makefile: `python3 -m ops <command> [stack]`.

Begins under whatever python3 there is, with the standard library only; makes the virtual environment; and goes on in it.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import shlex
import shutil
import signal
import sys
from typing import TextIO

MINIMUM_PYTHON = (3, 11)

#: Each command with what `make help` says of it.
COMMANDS = {
    "up": "deploy the stack from whatever is there, and check it; PLAN=<file> does what that plan says, and nothing else",
    "preview": "show what up would change and what it breaks of policy/, with a report in artifacts/preview/; PLAN=1 keeps the plan",
    "preview-offline": "what the stack file would deploy, without an engine, a state or a secret; BASE=<commit> compares with a commit",
    "verify": "check a running stack as its users meet it",
    "drift": "report what of a running stack was changed by hand; artifacts/drift/ has it, and nothing is changed",
    "outputs": "the stack's outputs as JSON; SHOW_SECRETS=1 shows the passwords",
    "status": "what waits on each forwarding link, and how it does; JSON=1 as JSON",
    "retry": "have the forwarders try everything now: destinations that failed, images set aside",
    "recheck": "ask each destination again for all that it has confirmed; what it lost is sent again",
    "secrets": "set the secrets that are missing to random values",
    "certs": "make the certificates that are missing or end soon; RENEW=<name> or all, EXPORT=<name> for a device",
    "rotate": "give secrets new random values on a running stack: KEY=<key>, or KEY=all",
    "down": "stop the stack and keep its data",
    "destroy": "remove the stack; volumes that are protected stay (prod). Asks for its name; YES=1 (or --yes) does not",
    "env": 'print what plain `pulumi` needs: eval "$(make -s env)"',
    "setup": "find or make all that up needs, and deploy nothing",
    "images": "build the images from Debian's packages",
    "test": 'the tests that matter most, in five minutes; TIERS="unit program" runs some of them',
    "test-slow": "all other tests, in twenty minutes; each says why it is slow",
    "soak": "forwarding under hundreds of faults, for half an hour; writes docs/bench/soak.md",
    "lint": "all linters",
    "bench": "measure against docker compose and an empty program; writes docs/bench/",
    "comment": 'the previews of STACK="dev prod" in one comment on the pull request (docs/ci.md)',
    "reviewed": "fetch the plan that was reviewed with the merged pull request, if it is for this very tree",
    "newest": "refuse a commit that is no longer the newest of its branch",
    "drift-check": "make drift, and keep its answer for drift-issue",
    "drift-issue": 'one issue that tells what of STACK="dev prod" has drifted: opened, updated, closed',
    "docs": "write docs/settings.md and its JSON Schema from the settings' models",
    "clean": "delete what can be made again: the virtual environment, caches, artefacts",
}
_NEED_DEVELOPMENT = ("test", "test-slow", "soak", "lint", "bench")
#: Their standard output is for programs: what the set-up says goes to standard error.
_FOR_PROGRAMS = ("outputs", "status", "env")
#: What has a forge's token in its environment: runs under any python3, and no package of anybody's.
_WITH_TOKEN = ("comment", "reviewed", "newest", "drift-issue")


#: What takes a stack's name and returns an exit status, as module:function.
_OF_A_STACK = {
    "up": "ops.stack.up:up",
    "preview": "ops.preview.command:preview",
    "preview-offline": "ops.offline:preview_offline",
    "verify": "ops.stack.up:verify_stack",
    "drift": "ops.drift.command:drift",
    "drift-check": "ops.drift_issue:drift_check",
    "secrets": "ops.stack.secrets:secrets",
    "certs": "ops.stack.certs:certs",
    "rotate": "ops.stack.rotate:rotate",
    "down": "ops.stack.lifecycle:down",
    "setup": "ops.setup.prepare:set_up",
    "images": "ops.setup.prepare:build_images",
}


def main(arguments: list[str]) -> int:
    """Run one command; the exit status."""
    if "--yes" in arguments:
        os.environ["YES"] = "1"
    command, stack = (*(word for word in arguments if word != "--yes"), "dev")[:2] if arguments else ("help", "dev")
    if command == "help":
        for name, meaning in COMMANDS.items():
            print(f"  make {name:<15} {meaning}")
        print("\n  STACK=<name> chooses the stack file Pulumi.<name>.yaml; it is dev when left out.")
        return 0
    if command not in COMMANDS:
        print(f"There is no command {command!r}. There are: {', '.join(COMMANDS)}.", file=sys.stderr)
        return 2
    if command == "clean":
        return _clean()
    if command in _WITH_TOKEN:
        return _pipeline(command, arguments[1:] or [stack])
    with contextlib.ExitStack() as context:
        out = sys.stdout
        if command in _FOR_PROGRAMS:
            context.enter_context(contextlib.redirect_stdout(sys.stderr))
        _enter_venv(command, [command, stack])
        return _run(command, stack, out)


def _enter_venv(command: str, arguments: list[str]) -> None:
    """Make the virtual environment and go on in it; returns when this is its interpreter already."""
    from ops.setup.console import ROOT
    from ops.setup.venv import ensure_venv, venv_python

    inside = sys.prefix == str(ROOT / ".venv")
    python = venv_python()
    if not inside:
        ensure_venv("requirements-dev.txt" if command in _NEED_DEVELOPMENT else "requirements-ops.txt")
    if not inside:
        sys.stdout.flush()
        os.execv(python, [str(python), "-m", "ops", *arguments])


def _run(command: str, stack: str, out: TextIO) -> int:
    """Everything from here on runs in the virtual environment; each command imports only what it needs."""
    # ruff: noqa: PLC0415
    if command in _OF_A_STACK:
        module, function = _OF_A_STACK[command].split(":")
        return int(getattr(importlib.import_module(module), function)(stack))
    if command == "destroy":
        from ops.stack.lifecycle import destroy

        return destroy(stack, yes=os.environ.get("YES") == "1")
    if command == "outputs":
        from ops.stack.outputs import outputs_json
        from ops.stack.up import deployed

        show = os.environ.get("SHOW_SECRETS") == "1"
        print(outputs_json(deployed(stack, engine=False).outputs(show_secrets=show), show_secrets=show), file=out)
        return 0
    if command in ("status", "retry", "recheck"):
        return _forwarding(command, stack, out)
    if command == "env":
        return _env(stack, out)
    if command in ("test", "test-slow"):
        from dev.tiers import TIERS, run_tests

        return run_tests(stack, command, os.environ.get("TIERS", "").split() or TIERS)
    if command in ("bench", "soak", "docs"):
        from ops.setup.prepare import prepare

        if command != "docs":
            prepare(stack, state=False)
        module = {"bench": "bench", "soak": "tests.faults.soak", "docs": "dev.reference"}[command]
        sys.stdout.flush()
        os.execv(sys.executable, [sys.executable, "-m", module])
    from dev.lint import lint

    return lint()


def _pipeline(command: str, stacks: list[str]) -> int:
    # ruff: noqa: PLC0415
    from ops import comment, drift_issue, reviewed

    if command == "newest":
        return reviewed.newest()
    if command == "reviewed":
        return reviewed.reviewed(stacks[0])
    return {"comment": comment.comment, "drift-issue": drift_issue.drift_issue}[command](stacks)


def _forwarding(command: str, stack: str, out: TextIO) -> int:
    from ops.stack import forwarding

    if command != "status":
        return forwarding.ask(stack, command)
    return forwarding.status(stack, out)


def _env(stack: str, out: TextIO) -> int:
    from ops.setup.prepare import exports, prepare
    from ops.setup.venv import venv_python

    before = dict(os.environ)
    prepare(stack)
    path = os.environ["PATH"].split(os.pathsep)
    scripts = str(venv_python().parent)
    os.environ["PATH"] = os.pathsep.join([*([] if scripts in path else [scripts]), *path])
    for name, value in exports(before, dict(os.environ), stack):
        print(f"export {name}={shlex.quote(value)}", file=out)
    if "DOCKER_CONTEXT" in before and "DOCKER_CONTEXT" not in os.environ:
        print("unset DOCKER_CONTEXT", file=out)
    return 0


def _clean() -> int:
    from ops.setup.console import ROOT

    for name in (".venv", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".hypothesis", "artifacts"):
        shutil.rmtree(ROOT / name, ignore_errors=True)
    print("  The virtual environment, caches and artefacts are gone. State, passphrase, stack files, data and built tools stay.")
    return 0


def _guarded(arguments: list[str]) -> int:
    """main(), with what users can put right as a message and never as a traceback."""
    if sys.version_info < MINIMUM_PYTHON:
        wanted, found = (".".join(map(str, version[:2])) for version in (MINIMUM_PYTHON, sys.version_info))
        print(f"This is Python {found}; {wanted} or newer is needed: make {' '.join(arguments[:1])} PYTHON=python{wanted}", file=sys.stderr)
        return 1
    from ops.setup.console import SetupError

    try:
        return main(arguments)
    except SetupError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted. The same command goes on where this one stopped.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of a pipe (`make outputs | head`) has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except Exception as error:
        # Its class is in the virtual environment's half of the program, which may not be there yet.
        if type(error).__name__ != "SettingsError":
            raise
        print(f"\n{error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(_guarded(sys.argv[1:]))
