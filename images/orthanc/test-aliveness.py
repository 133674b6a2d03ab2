#!/usr/bin/python3 -ISE
"""Exit with 0 when Orthanc answers GET /changes?last, which reads its database, and with 1 otherwise.

Port, TLS and the first registered user come from /tmp/orthanc.json: no password is on a command line. It runs every few
seconds in each node, so it imports little: argparse, ssl and urllib would take most of its time (the options and the
TLS branch import theirs when they are used).
"""

import _socket  # what `socket` wraps; the wrapper's imports alone double the probe's cost
import sys
from binascii import b2a_base64
from json import load

# Orthanc that retries its database answers late; without a limit a hung one would collect probes.
TIMEOUT_S = 10


def options() -> dict[str, str]:
    """The upstream probe's options, if any is given."""
    if len(sys.argv) == 1:
        return {}
    from argparse import ArgumentParser  # noqa: PLC0415

    parser = ArgumentParser()
    for name in ("http_port", "http_scheme", "user", "pwd", "certfile", "keyfile", "keypwd"):
        parser.add_argument(f"--{name}")
    return {name: value for name, value in vars(parser.parse_args()).items() if value is not None}


def request(given: dict[str, str]) -> tuple[int, bool, bytes]:
    """The port, whether it speaks TLS, and the request to send."""
    try:
        with open("/tmp/orthanc.json", "rb") as file:  # noqa: PTH123  pathlib costs more than the request
            config = load(file)
    except FileNotFoundError:  # not configured yet, or the options say it all
        config = {}
    port = int(given.get("http_port", config.get("HttpPort", 8042)))
    default_scheme = "https" if config.get("SslEnabled") or "certfile" in given else "http"
    users = config.get("RegisteredUsers") or {}
    user = given.get("user") or next(iter(users), None)
    password = given.get("pwd") or users.get(user)
    login = ""
    if user and password:
        token = b2a_base64(f"{user}:{password}".encode(), newline=False).decode()
        login = f"Authorization: Basic {token}\r\n"
    text = f"GET /changes?last HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n{login}\r\n"
    return port, given.get("http_scheme", default_scheme) == "https", text.encode()


def ask_with_tls(given: dict[str, str], port: int, message: bytes) -> bytes:
    """The first bytes of the answer. The certificate names the node, not localhost: it is not verified."""
    import socket  # noqa: PLC0415
    import ssl  # noqa: PLC0415

    context = ssl._create_unverified_context()
    if "certfile" in given:
        context.load_cert_chain(given["certfile"], given.get("keyfile"), given.get("keypwd"))
    with socket.create_connection(("127.0.0.1", port), TIMEOUT_S) as raw, context.wrap_socket(raw) as tls:
        tls.sendall(message)
        return read_all(tls.recv)


def ask(port: int, message: bytes) -> bytes:
    """The first bytes of the answer, over plain HTTP."""
    connection = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
    connection.settimeout(TIMEOUT_S)
    connection.connect(("127.0.0.1", port))
    connection.sendall(message)
    return read_all(connection.recv)


def read_all(recv) -> bytes:  # type: ignore[no-untyped-def]  # typing's imports would be paid on each run
    """Read to the end, so that Orthanc logs no broken connection; return the beginning."""
    start = recv(64)
    while recv(4096):
        pass
    return bytes(start)


def main() -> int:
    given = options()
    port, with_tls, message = request(given)
    try:
        answer = ask_with_tls(given, port, message) if with_tls else ask(port, message)
    except OSError as error:
        print(f"127.0.0.1:{port}: {error}")
        return 1
    status = answer.split(b"\r\n", 1)[0].decode(errors="replace")
    if status.split(" ")[1:2] == ["200"]:
        return 0
    print(f"127.0.0.1:{port}: GET /changes?last answered {status or 'nothing'}")
    return 1


sys.exit(main())
