"""A container against what it was made from, as far as pulumi-docker does not read it back."""

import base64
import contextlib
import io
import json
import re
import shlex
import tarfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple, cast

from docker import DockerClient
from docker.errors import NotFound

from ops.drift.deployed import Deployed, Engine, State, name_of
from ops.drift.findings import Finding, code, listed
from ops.setup.console import SetupError
from ops.stack.engine import engine_errors

#: What `docker update` sets and the provider does not read, as the engine names it. The state's names begin with a small letter.
_UNREAD_LIMITS: Final = ("BlkioWeight", "CpuPeriod", "CpuQuota", "CpuRealtimeRuntime", "CpusetMems", "KernelMemory", "PidsLimit")
#: Bytes. No file of a stack is near it; a larger one that somebody put in its place is not read.
_LARGEST_FILE: Final = 16 << 20
_SECRET_FOLDER: Final = "/run/secrets/"
#: Orthanc's configuration: an option that differs is told by its name.
_OPTIONS: Final = "/etc/orthanc/orthanc.json"


class Held(NamedTuple):
    """A file inside a container."""

    content: bytes | None  #: None where it is no plain file, or far too large for one of ours
    mode: int = 0  #: its permissions
    owner: int = 0  #: its owner's number


#: Reads a file out of a container: the container's identifier, the path -> the file; None where there is none.
ReadFile = Callable[[str, str], Held | None]


def read_file(client: DockerClient, container: str, path: str) -> Held | None:
    """Read a file out of a container, running or not; no program runs there: it could not read a secret, nor be trusted."""
    try:
        with engine_errors(), contextlib.suppress(NotFound):
            stream, status = client.api.get_archive(container, path)
            # The highest bit of Go's file mode is a folder's.
            if status["mode"] >> 31 or status["size"] > _LARGEST_FILE:
                return Held(None)
            with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as archive:
                member = archive.getmembers()[0]
                content = archive.extractfile(member) if member.isfile() else None
                return Held(content.read() if content else None, member.mode & 0o7777, member.uid)
    except tarfile.TarError as error:
        raise SetupError(f"the Docker engine did not hand over {path} of the container {container[:12]}: {error}") from error
    return None


def check_container(one: Deployed, state: State, engine: Engine, read: ReadFile) -> Iterator[Finding]:
    """What of a container is not as it was deployed and a refresh does not see."""
    held, other = engine.get(("container", one.id)), engine.get(("container", one.name))
    if other is not None and other["Id"] != one.id:
        foreign, maker = state.made_by(other["Config"].get("Labels"))
        said = f"was {'renamed' if held else 'removed'}, and another container has its name {code(one.name)}, {maker}"
        yield _finding(one, "recreated", said, by_hand=() if foreign else removal(one.name))
        held = held or (None if foreign else other)
    if held is None:
        return  # a refresh tells that it was removed
    image = (engine.get(("image", str(held["Image"]))) or {}).get("Config") or {}
    yield from _runs(one, held)
    yield from _networks(one, held, state)
    yield from _mounts(one, held, state.prefix, read)
    # The variables that the stack does not set are its image's. Their values are never shown.
    wanted = _variables(image.get("Env")) | _variables(one.inputs.get("envs"))
    found = {name: value for name, value in _variables(held["Config"].get("Env")).items() if image or name in wanted}
    if differ := [name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name)]:
        yield _finding(one, "environment", f"has other environment variables: {listed(differ)}", replace=True)
    for upload in one.inputs.get("uploads") or ():
        if differs := _difference(upload, read(str(held["Id"]), upload["file"])):
            yield _finding(one, "file", f"has another file {code(upload['file'])}: {differs}", replace=True)


def removal(container: str) -> tuple[str, ...]:
    """The commands that remove a container. Its volumes stay."""
    return f"docker stop -t 60 {shlex.quote(container)}", f"docker rm {shlex.quote(container)}"


def _finding(one: Deployed, change: str, said: str, **more: Any) -> Finding:
    return Finding(one.part, change, f"{one.said} {said}.", one.name, urn=one.urn, **more)


def _variables(pairs: Any) -> dict[str, str]:
    return dict(str(pair).partition("=")[::2] for pair in pairs or ())


def _runs(one: Deployed, held: Mapping[str, Any]) -> Iterator[Finding]:
    status, host, name = held["State"]["Status"], held["HostConfig"], shlex.quote(name_of(held))
    if status == "paused":
        yield _finding(one, "paused", "is paused", by_hand=(f"docker unpause {name}",))
    elif status == "restarting" and one.inputs.get("mustRun", True):
        yield _finding(one, "restarting", f"ends and is started again and again; this says why: {code(f'docker logs {name}')}")
    # An engine says "no limit" in several ways.
    limits = ((key, host.get(key), one.inputs.get(key[0].lower() + key[1:])) for key in _UNREAD_LIMITS)
    if differ := [key for key, given, wanted in limits if (0 if given == -1 else given or 0) != (wanted or 0)]:
        yield _finding(one, "limit", f"has other limits than it was deployed with: {listed(differ)}", replace=True)


def _networks(one: Deployed, held: Mapping[str, Any], state: State) -> Iterator[Finding]:
    # Of a container that does not run, a network's identifier may be an old one: at the next start the network is found by its name.
    running = held["State"]["Status"] == "running"
    ids = {other.name: other.id for other in state.deployed if other.kind == "network"}
    wanted = {str(network["name"]): set(network.get("aliases") or ()) for network in one.inputs.get("networksAdvanced") or ()}
    found = held["NetworkSettings"].get("Networks") or {}
    for network in wanted.keys() | found.keys():
        short, at = code(network.removeprefix(f"{state.prefix}-")), found.get(network) or {}
        if network not in found:
            yield _finding(one, "off-network", f"was taken off the network {short}", replace=True)
        elif network not in wanted:
            by_hand = (f"docker network disconnect {shlex.quote(network)} {held['Id'][:12]}",)
            yield _finding(one, "on-network", f"is on the network {short} as well, which it should not", by_hand=by_hand)
        elif running and at.get("NetworkID") != ids.get(network, at.get("NetworkID")):
            yield _finding(one, "off-network", f"is on another network, made under the name {short}", replace=True)
        elif missing := wanted[network] - set(at.get("Aliases") or ()):
            yield _finding(one, "alias", f"is on the network {short} without its name there, {listed(missing)}", replace=True)


def _mounts(one: Deployed, held: Mapping[str, Any], prefix: str, read: ReadFile) -> Iterator[Finding]:
    wanted = {str(volume["containerPath"]): str(volume.get("volumeName") or "") for volume in one.inputs.get("volumes") or ()}
    found = {str(mount["Destination"]): str(mount.get("Name") or mount.get("Source") or "") for mount in held.get("Mounts") or ()}
    for path in wanted.keys() | found.keys():
        volume, there = wanted.get(path, ""), found.get(path, "")
        nameless = re.fullmatch("[0-9a-f]{64}", there)  # made by the engine for an image, and goes with the container
        if volume and volume != there:
            kept, by_hand = f"What it took since then is in {code(there)}", cast("tuple[str, ...]", ())
            if nameless or not there:
                folder, name, kept = shlex.quote(f"./saved-{one.name}"), held["Id"][:12], "It took nothing since then"
                if read(held["Id"], path) is not None:
                    kept = f"What it took since then would go with it; the commands below save it to {code(folder)}"
                    by_hand = (f"docker stop -t 60 {name}", f"docker cp {name}:{shlex.quote(path)} {folder}")
            said = f"is not on its data volume {code(volume.removeprefix(f'{prefix}-'))} at {code(path)}. {kept}"
            yield _finding(one, "volume", said, data=True, replace=True, by_hand=by_hand)
        elif there and not volume and not nameless:
            yield _finding(one, "mount", f"has {code(there)} mounted at {code(path)}, which it should not", replace=True)


def _difference(upload: Mapping[str, Any], held: Held | None) -> str:
    """What is different about a file, which is compared with what the state says was written; empty where nothing is."""
    if held is None:
        return "it was removed"
    if held.content is None:
        return "it is no plain file, or far larger"
    encoded, path = upload.get("contentBase64"), upload["file"]
    wanted = base64.b64decode(encoded) if encoded else str(upload.get("content") or "").encode()
    if held.content != wanted:
        if path == _OPTIONS:
            return _options(wanted, held.content)
        return "it was edited (it holds secrets: nothing of it is shown)" if path.startswith(_SECRET_FOLDER) else "it was edited"
    mode = int(upload.get("permissions") or "0644", 8)
    if (held.mode, held.owner) != (mode, 0):
        return f"its permissions are {held.mode:04o} instead of {mode:04o}, its owner is {held.owner} instead of 0"
    return ""


def _options(wanted: bytes, found: bytes) -> str:
    """Which options differ. Their values stay out: who edits this file by hand may have put a password into it."""
    try:
        before, now = dict(json.loads(wanted)), dict(json.loads(found))
    except (ValueError, TypeError):
        return "it was edited, and is no JSON object"
    differ = [name for name in before.keys() | now.keys() if before.get(name) != now.get(name)]
    return f"options that differ: {listed(differ)}" if differ else "it was edited, and says the same"
