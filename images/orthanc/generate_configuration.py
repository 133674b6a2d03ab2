"""Merge the mounted configuration files into /tmp/orthanc.json and fill what they leave out.

The contract is that of orthancteam/orthanc as far as this project uses it: the files' order, the defaults, the plugins
that a section brings in, the exit codes. Not supported: settings in environment variables (ORTHANC__...), secrets that
hold one value. Orthanc itself replaces ${VAR} when it reads the result.
"""

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

EXIT_NO_USERS = 253  # upstream's, since Orthanc 1.13 refuses the same
EXIT_BAD_JSON = 255
RESULT = Path("/tmp/orthanc.json")
FOLDERS = (Path("/etc/orthanc"), Path("/run/secrets"))
AVAILABLE = Path("/usr/share/orthanc/plugins-available")
#: A tmpfs here lets the image run on a read-only root.
PLUGIN_FOLDERS = (Path("/run/orthanc/plugins"), Path("/usr/share/orthanc/plugins"))

DEFAULTS: dict[str, Any] = {
    "StorageDirectory": "/var/lib/orthanc/db",
    "RemoteAccessAllowed": True,
    "AuthenticationEnabled": True,
    "HttpsCACertificates": "/etc/ssl/certs/ca-certificates.crt",
}
#: Section -> what is filled in when the section exists, and the plugins that it needs.
SECTIONS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "PostgreSQL": (
        {
            "EnableIndex": True,
            "EnableStorage": False,
            "Port": 5432,
            "Host": "HOST MUST BE DEFINED",
            "Database": "postgres",
            "Username": "postgres",
            "Password": "postgres",
            "EnableSsl": False,
            "Lock": False,
        },
        ("libOrthancPostgreSQLIndex.so", "libOrthancPostgreSQLStorage.so"),
    ),
    "DicomWeb": ({"Enable": True}, ("libOrthancDicomWeb.so",)),
    "PythonScript": ({}, ("libOrthancPython.so",)),
}

# A string is matched first, so that a URL's // in it is no comment.
_STRING_OR_COMMENT = re.compile(r'("(?:[^"\\]|\\.)*")|//[^\n]*|/\*.*?\*/', re.DOTALL)


def say(text: str) -> None:
    print(f"orthanc: {text}", file=sys.stderr, flush=True)


def parse(path: Path) -> dict[str, Any]:
    """Read one file; end the start with its name and position when it is no JSON object."""
    try:
        # A comment's line ends stay, so that an error's line number is the file's.
        text = _STRING_OR_COMMENT.sub(lambda m: m[1] or "\n" * m[0].count("\n") or " ", path.read_text(encoding="utf-8"))
        value = json.loads(text)
        if isinstance(value, dict):
            return value
        problem = "it holds no JSON object"
    except (OSError, ValueError) as error:
        problem = str(error)
    say(f"cannot read the configuration {path}: {problem}")
    sys.exit(EXIT_BAD_JSON)


def merge(into: dict[str, Any], layer: dict[str, Any]) -> None:
    """Put a layer over another: objects key by key, anything else replaced."""
    for key, value in layer.items():
        below = into.get(key)
        if isinstance(below, dict) and isinstance(value, dict):
            merge(below, value)
        else:
            into[key] = value


def enable(plugins: list[str]) -> None:
    """Link the wanted plugins, and only those, into the first plugin folder there is."""
    folder = next((f for f in PLUGIN_FOLDERS if f.is_dir()), PLUGIN_FOLDERS[-1])
    if sorted(p.name for p in folder.iterdir()) == sorted(plugins):
        return
    for old in folder.glob("*.so"):  # a container that is started again with another configuration
        old.unlink()
    for name in plugins:
        (folder / name).symlink_to((AVAILABLE / name).resolve())


def main() -> None:
    config: dict[str, Any] = {}
    for path in (p for folder in FOLDERS for p in sorted(folder.glob("*.json"))):
        say(f"configuration from {path}")
        merge(config, parse(path))
    for key, value in DEFAULTS.items():
        config.setdefault(key, value)
    config.setdefault("Plugins", [str(f) for f in PLUGIN_FOLDERS if f.is_dir()])
    plugins: list[str] = []
    for section, (defaults, libraries) in SECTIONS.items():
        if section in config:
            plugins += libraries
            if isinstance(config[section], dict):
                config[section] = {**defaults, **config[section]}
    if config["RemoteAccessAllowed"] and config["AuthenticationEnabled"] and not config.get("RegisteredUsers"):
        say("no user may log in: set RegisteredUsers in a file below /etc/orthanc or /run/secrets")
        sys.exit(EXIT_NO_USERS)
    enable(plugins)
    # 0600 from the first byte: the passwords are in it.
    RESULT.unlink(missing_ok=True)
    descriptor = os.open(RESULT, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as out:
        json.dump(config, out, indent=2)


main()
