"""The command line: `./orthanc-stack COMMAND STACK [options]`. Each command imports only what it needs.

Exit statuses: 0 well; 1 refused or failed; 2 a wrong command line; 3 (NOT_WELL) the command did its work, and what it found is not well;
130 interrupted.
"""
# ruff: noqa: PLC0415 - a command that prints help imports nothing else

import functools
import json
import os
import shlex
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from ops.setup.console import ROOT, SetupError

_OPTIONS: Final[dict[str, Any]] = {"no_args_is_help": True, "context_settings": {"help_option_names": ["-h", "--help"]}}
app = typer.Typer(help="Orthanc DICOM servers on Docker, from one stack file.", pretty_exceptions_enable=False, **_OPTIONS)
developers = typer.Typer(help="For developers of this project: tests, linters, measurements, reference pages.", **_OPTIONS)
app.add_typer(developers, name="dev", rich_help_panel="This machine")

_RUN, _LOOK, _BACKUP = "Run a stack", "Look at a stack", "Backups"
_SECRETS, _MACHINE = "Secrets and certificates", "This machine"


def _stack_names() -> list[str]:
    from ops.setup.prepare import stack_names

    return stack_names()


StackName = Annotated[
    str, typer.Argument(metavar="STACK", help="The stack: NAME of Pulumi.NAME.yaml.", autocompletion=_stack_names, show_default=False)
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for the stack's name.")]
Json = Annotated[bool, typer.Option("--json", help="For programs: JSON on standard output.")]
All = Annotated[bool, typer.Option("--all", help="List each image that is set aside.")]
Plan = Annotated[
    Path | None, typer.Option("--plan", help="Do what this plan of a preview says, and nothing else.", exists=True, dir_okay=False)
]


def _command(panel: str, group: typer.Typer = app, **settings: Any) -> Callable[[Callable[..., int]], Callable[..., None]]:
    """Register a function as a command. What it returns is the exit status; what users can put right is a message and no traceback."""

    def register(function: Callable[..., int]) -> Callable[..., None]:
        @functools.wraps(function)
        def guarded(*arguments: Any, **options: Any) -> None:
            raise typer.Exit(_status(lambda: function(*arguments, **options)))

        # Typer goes by the annotations; a command has no result.
        guarded.__annotations__ = {**function.__annotations__, "return": None}
        group.command(rich_help_panel=panel, **settings)(guarded)
        return guarded

    return register


def _status(work: Callable[[], int]) -> int:
    from configs.problems import SettingsError

    try:
        status = work()
        sys.stdout.flush()  # a reader that has gone is noticed here, and not when Python ends
    except (SetupError, SettingsError) as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted. Give the same command again: it puts right what this run has left.", file=sys.stderr)
        return 130
    except OSError as error:
        try:
            sys.stdout.flush()
        except OSError:
            # What is left has nowhere to go, and Python would try again when it ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):  # the reader of a pipe (`… outputs dev | head`) has seen enough
            return 128 + signal.SIGPIPE
        # A full disk, or a checkout that is not this user's.
        print(f"\n{error.filename}: {error.strerror}" if error.filename else f"\n{error.strerror or error}", file=sys.stderr)
        return 1
    return status


@_command(_RUN)
def up(
    stack: StackName,
    plan: Plan = None,
    no_backup: Annotated[
        bool, typer.Option("--no-backup", help="Make no backup before another image moves the schema of an index.")
    ] = False,
) -> int:
    """Deploy the stack, or what changed of it, and verify it. Installs and builds what is missing."""
    from ops.stack.up import up

    return up(stack, plan.absolute() if plan else None, saves=not no_backup)


@_command(_RUN)
def send(
    stack: StackName,
    node: Annotated[str, typer.Argument(help="The node that gets the images.", show_default=False)],
    folder: Annotated[Path, typer.Argument(help="A folder of DICOM files, with all folders in it; or one file.", show_default=False)],
) -> int:
    """Upload a folder of images to a node, and say what was refused and why."""
    from ops.stack.send import send

    return send(stack, node, folder)


@_command(_RUN)
def down(stack: StackName) -> int:
    """Stop the stack; data and settings stay. `up` starts it again."""
    from ops.stack.lifecycle import down

    return down(stack)


@_command(_RUN)
def destroy(stack: StackName, yes: Yes = False) -> int:
    """Remove the stack with its data; volumes that are protected (prod) stay. Asks for the stack's name."""
    from ops.stack.lifecycle import destroy

    return destroy(stack, yes=yes)


@_command(_RUN, name="upgrade-db")
def upgrade_db(
    stack: StackName,
    undo: Annotated[bool, typer.Option("--undo", help="Go back to the old version and its data.")] = False,
    done: Annotated[
        bool, typer.Option("--done", help="Remove the old data: there is no way back then. Asks for the stack's name.")
    ] = False,
    no_backup: Annotated[bool, typer.Option("--no-backup", help="Make no backup first.")] = False,
    yes: Yes = False,
) -> int:
    """Move PostgreSQL to its next major version, into a new volume; the old one stays until --done. The nodes stop meanwhile."""
    from ops.upgrade.command import confirm_upgrade, undo_upgrade, upgrade

    if undo and done:
        raise typer.BadParameter("say --undo or --done: not both.")
    if done:
        return confirm_upgrade(stack, yes=yes)
    return undo_upgrade(stack) if undo else upgrade(stack, no_backup=no_backup)


@_command(_RUN)
def unlock(stack: StackName, yes: Yes = False) -> int:
    """Remove the lock of a run that died; refused while that run is alive here. Asks for the stack's name."""
    from ops.stack.interrupted import unlock

    return unlock(stack, yes=yes)


@_command(_LOOK)
def check(stack: StackName, as_json: Json = False) -> int:
    """Read the stack file and hold it to every rule, without an engine, a state or a secret."""
    from ops.stack.verify import check

    return check(stack, as_json=as_json)


@_command(_LOOK)
def preview(
    stack: StackName,
    save_plan: Annotated[bool, typer.Option("--save-plan", help="Keep the plan, for `up --plan`.")] = False,
    as_json: Json = False,
) -> int:
    """Show what `up` would change, and which rules of the policy pack that breaks; write a report for reviewers to artifacts/preview/."""
    from ops.preview.command import preview

    return preview(stack, save_plan=save_plan, as_json=as_json)


@_command(_LOOK)
def verify(stack: StackName) -> int:
    """Check a running stack as its users meet it: containers, logins, C-ECHO over every link, indexes, forwarders."""
    from ops.stack.verify import verify_stack

    return verify_stack(stack)


@_command(_LOOK)
def status(stack: StackName, every_image: All = False, as_json: Json = False) -> int:
    """What waits on each forwarding link, what is set aside, why, and what mends it."""
    from ops.stack.forwarding import status

    return status(stack, as_json=as_json, every_image=every_image)


@_command(_LOOK)
def retry(stack: StackName) -> int:
    """Have the forwarders try everything now, what was set aside as well."""
    from ops.stack.forwarding import ask

    return ask(stack, "retry")


@_command(_LOOK)
def recheck(stack: StackName) -> int:
    """Ask each destination again for all that it has confirmed; what it lost is sent again."""
    from ops.stack.forwarding import ask

    return ask(stack, "recheck")


@_command(_LOOK)
def drift(stack: StackName, as_json: Json = False) -> int:
    """Report what of a running stack was changed by hand, and what puts it right; change nothing. The exit status is 3 if something was."""
    from ops.drift.command import drift

    return drift(stack, as_json=as_json)


@_command(_LOOK)
def outputs(stack: StackName, show_secrets: Annotated[bool, typer.Option("--show-secrets", help="The passwords, too.")] = False) -> int:
    """The stack's outputs as JSON: addresses, AE titles, links."""
    from ops.stack.stack import deployed

    found = deployed(stack, engine=False).outputs(show_secrets=show_secrets)
    if "nodes" not in found:
        raise SetupError(f"the stack {stack} has no outputs: `./orthanc-stack up {stack}` deploys it.")
    print(json.dumps(found, indent=2, sort_keys=True, ensure_ascii=False))
    return 0


@_command(_BACKUP)
def backup(stack: StackName, sheet: Annotated[bool, typer.Option("--sheet", help="Print the recovery sheet.")] = False) -> int:
    """Back up indexes, images and stack file while the stack works; where to, the stack file says (backup.to)."""
    from ops.backup.backup import backup

    return backup(stack, sheet=sheet)


@_command(_BACKUP)
def restore(
    stack: StackName,
    origin: Annotated[str, typer.Option("--from", help="The repository, where no stack file names it.", show_default=False)] = "",
    at: Annotated[str, typer.Option("--at", help="The newest before a time (UTC): 2026-11-28T06:00.", show_default=False)] = "",
) -> int:
    """Restore a stack from its backup on an engine that has nothing of it, and deploy it."""
    from ops.backup.restore import restore

    return restore(stack, origin=origin, at=at)


@_command(_BACKUP, name="check-data")
def check_data(
    stack: StackName,
    *,
    sample: Annotated[int, typer.Option(help="Compare the MD5 of so many percent, others each day.", min=0, max=100)] = 100,
    rate: Annotated[int, typer.Option(metavar="MB", help="Read at most so many megabytes a second; 0: no limit.", min=0)] = 0,
    anew: Annotated[bool, typer.Option("--anew", help="Do not go on with a check that was broken off.")] = False,
    as_json: Json = False,
    mend: Annotated[bool, typer.Option("--mend", help="Fetch such images from another node, and take orphaned ones in.")] = False,
) -> int:
    """Compare each node's index with its files: missing, damaged, orphaned. The exit status is 3 if there are any."""
    from ops.backup.check import check_data

    return check_data(stack, sample=sample, as_json=as_json, mending=mend, rate=rate, anew=anew)


@_command(_BACKUP)
def forget(
    stack: StackName, patient: Annotated[str, typer.Option(help="The PatientID, exactly as the images have it.")], yes: Yes = False
) -> int:
    """Erase a patient at every node, and from what a restore brings back; list what that does not reach. Asks for the stack's name."""
    from ops.backup.forget import forget

    return forget(stack, patient, yes=yes)


@_command(_BACKUP)
def drill(stack: StackName) -> int:
    """Restore the newest backup into a second stack, check it, remove it. The exit status is 3 if anything differs."""
    from ops.backup.drill import drill

    return drill(stack)


@_command(_SECRETS)
def secrets(stack: StackName) -> int:
    """Set the secrets that are missing to random values, and never change one."""
    from ops.stack.secrets import secrets

    return secrets(stack)


@_command(_SECRETS)
def certs(
    stack: StackName,
    renew: Annotated[list[str] | None, typer.Option(help="Renew that of a node, a device, `db`, or `all`.", show_default=False)] = None,
    export: Annotated[list[str] | None, typer.Option(help="Write a device's PEM files to certificates/.", show_default=False)] = None,
) -> int:
    """Make the certificates that are missing or end soon."""
    from ops.stack.secrets import certs

    return certs(stack, renew or (), export or ())


@_command(_SECRETS)
def rotate(
    stack: StackName,
    keys: Annotated[list[str] | None, typer.Argument(metavar="KEY", help="The secrets: dbPassword.archive …", show_default=False)] = None,
    everything: Annotated[bool, typer.Option("--all", help="All passwords, and the TLS keys of nodes and database.")] = False,
) -> int:
    """Give secrets new random values on a running stack."""
    from ops.stack.secrets import rotate
    from ops.stack.up import up

    if everything and keys:
        raise typer.BadParameter("say which secrets, or --all: not both.")
    return rotate(stack, keys or (), everything=everything) or up(stack)


@_command(_MACHINE)
def setup(stack: StackName) -> int:
    """Find or make all that `up` needs, and deploy nothing."""
    from ops.setup.prepare import set_up

    return set_up(stack)


@_command(_MACHINE)
def images(stack: StackName) -> int:
    """Build the images from Debian's packages."""
    from ops.setup.prepare import build_images

    return build_images(stack)


@_command(_MACHINE)
def env(stack: StackName) -> int:
    """Print what plain `pulumi` needs here: eval "$(./orthanc-stack env dev)"."""
    from ops.setup.prepare import prepare

    before = dict(os.environ)
    prepare(stack)
    path = os.environ["PATH"].split(os.pathsep)
    scripts = str(Path(sys.executable).parent)
    os.environ["PATH"] = os.pathsep.join([*([] if scripts in path else [scripts]), *path])
    changed = {key: value for key, value in os.environ.items() if before.get(key) != value and key != "PYTHONUTF8"}
    for name, value in sorted({**changed, "PULUMI_STACK": stack}.items()):
        print(f"export {name}={shlex.quote(value)}")
    # A variable that names another engine, or how it is reached.
    for name in sorted(before.keys() - os.environ.keys()):
        print(f"unset {name}")
    return 0


@_command(_MACHINE)
def clean() -> int:
    """Delete what can be made again: the virtual environment, caches, artefacts. State, stack files and data stay."""
    for name in (".venv", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".hypothesis", "artifacts"):
        if (ROOT / name).is_symlink():
            (ROOT / name).unlink()
        elif (ROOT / name).exists():
            shutil.rmtree(ROOT / name)
    print("  The virtual environment, caches and artefacts are gone. State, passphrase, stack files, data and built tools stay.")
    return 0


@_command("", developers)
def test(
    slow: Annotated[bool, typer.Option("--slow", help="All other tests, in twenty minutes.")] = False,
    tier: Annotated[list[str] | None, typer.Option(help="Only this tier: a folder of tests/.", show_default=False)] = None,
    pytest: Annotated[list[str] | None, typer.Argument(metavar="ARGS", help="Arguments of pytest's.", show_default=False)] = None,
) -> int:
    """The tests that matter most, in five minutes."""
    from dev.tiers import TIERS, run_tests

    return run_tests("dev", "test-slow" if slow else "test", tier or TIERS, pytest or ())


@_command("", developers)
def lint() -> int:
    """All linters."""
    from dev.lint import lint

    return lint()


def _module(name: str, *, prepared: bool = True) -> int:
    """Go on as a module of its own, with the machine made ready for it."""
    from ops.setup.prepare import prepare

    if prepared:
        prepare("dev", state=False)
    os.chdir(ROOT)  # `python -m` looks for modules in the current folder
    os.execv(sys.executable, [sys.executable, "-m", name])


@_command("", developers)
def bench() -> int:
    """Measure against docker compose and an empty program; writes docs/bench/."""
    return _module("bench")


@_command("", developers)
def soak() -> int:
    """Forwarding under hundreds of faults, for half an hour; writes docs/bench/soak.md."""
    return _module("tests.faults.soak")


@_command("", developers)
def docs() -> int:
    """Write docs/settings.md, its JSON Schema and docs/wrong-stack-files.md from the settings' models."""
    return _module("dev.reference", prepared=False)


if __name__ == "__main__":
    app(prog_name="orthanc-stack")
