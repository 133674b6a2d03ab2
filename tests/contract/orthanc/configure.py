"""Makes /tmp/orthanc.json by the rules of orthancteam/orthanc (generateConfiguration.py, configurator.py): README.md has the list."""

import json
import os
import random
import re
import sys
from pathlib import Path
from typing import Any

DEFAULTS: dict[str, Any] = {
    "StorageDirectory": "/var/lib/orthanc/db",
    "RemoteAccessAllowed": True,
    "AuthenticationEnabled": True,
    "HttpsCACertificates": "/etc/ssl/certs/ca-certificates.crt",
    "Plugins": ["/run/orthanc/plugins", "/usr/share/orthanc/plugins"],
}
#: Upstream's plugins-def.json, as far as there are such plugins here: by the section or option that brings them in, what is filled in and
#: the files.
PLUGINS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "PostgreSQL": (
        {"EnableIndex": True, "EnableStorage": False, "Port": 5432, "Host": "HOST MUST BE DEFINED", "Database": "postgres"}
        | {"Username": "postgres", "Password": "postgres", "EnableSsl": False, "Lock": False},
        ("libOrthancPostgreSQLIndex.so", "libOrthancPostgreSQLStorage.so"),
    ),
    "PythonScript": ({}, ("libOrthancPython.so",)),
    "DicomWeb": ({"Enable": True}, ("libOrthancDicomWeb.so",)),
    "OrthancExplorer2": ({"Enable": True, "IsDefaultOrthancUI": True}, ("libOrthancExplorer2.so",)),
}
AVAILABLE = Path("/usr/share/orthanc/plugins-available")
WITHOUT_USERS, WITH_ERRORS = 253, 255

_COMMENT_OR_STRING = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^\\"])*"', re.DOTALL)
_VARIABLE = re.compile(r"(?<!\\)\$(?:(\w+)|\{(\w+)\})", re.ASCII)

configuration: dict[str, Any] = {}


def fail(status: int, text: str) -> None:
    print(f"contract: {text}", flush=True)
    sys.exit(status)


def parsed(path: Path) -> Any:
    """One file. A variable that is not set is nothing, and `$NAME` is one as well as `${NAME}`."""
    text = _VARIABLE.sub(lambda found: os.environ.get(found[1] or found[2], ""), path.read_text())
    try:
        return json.loads(_COMMENT_OR_STRING.sub(lambda found: " " if found[0].startswith("/") else found[0], text))
    except ValueError as error:
        fail(WITH_ERRORS, f"{path} is no JSON: {error}")


def merge(into: dict[str, Any], layer: dict[str, Any], *, overwrite: bool = True) -> None:
    for key, value in layer.items():
        if isinstance(value, dict) and key in into:
            merge(into[key], value, overwrite=overwrite)
        elif overwrite or key not in into:
            into[key] = value


def set_one(name: str, value: str) -> None:
    """What a variable or a secret of this name says; nothing, where the name is not of an option's form."""
    if not name.startswith("ORTHANC__"):
        return
    words = [part.split("_") for part in name.removeprefix("ORTHANC__").split("__")]
    layer: Any
    try:
        layer = json.loads(value)
    except ValueError:
        layer = value
    for path in reversed(words):
        layer = {"".join(word.capitalize() for word in path): layer}
    merge(configuration, layer)


def link(plugin: str) -> None:
    folder = Path("/run/orthanc/plugins")
    target = (folder if folder.is_dir() else Path("/usr/share/orthanc/plugins")) / plugin
    if not target.is_file():
        try:
            target.hardlink_to(AVAILABLE / plugin)
        except OSError as error:
            fail(WITH_ERRORS, f"failed to install {plugin}: {error}")


def in_no_order(folder: str, pattern: str) -> list[Path]:
    """Upstream takes what glob gives it: the file system's order."""
    return random.sample(found := list(Path(folder).glob(pattern)), len(found))


for file in (*in_no_order("/etc/orthanc", "*.json"), *in_no_order("/run/secrets", "*.json")):
    merge(configuration, parsed(file))
for name, value in os.environ.items():
    set_one(name, value)
for file in in_no_order("/run/secrets", "*"):
    if file.is_file():
        set_one(file.name, file.read_text().rstrip("\n"))

merge(configuration, DEFAULTS, overwrite=False)
if (AVAILABLE / "libOrthancExplorer2.so").exists():  # on by default
    configuration.setdefault("OrthancExplorer2", {})
for section, (defaults, files) in PLUGINS.items():
    if section in configuration:
        if defaults:
            merge(configuration, {section: defaults}, overwrite=False)
        for plugin in files:
            link(plugin)
if configuration["RemoteAccessAllowed"] and configuration["AuthenticationEnabled"] and not configuration.get("RegisteredUsers"):
    fail(WITHOUT_USERS, "HTTP authentication is enabled, remote access is allowed, and RegisteredUsers has no user")
Path("/tmp/orthanc.json").write_text(json.dumps(configuration, indent=2))
