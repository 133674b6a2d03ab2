#!/usr/bin/env python3
"""Asks as the probe of orthancteam/orthanc does (docker/orthanc/test-aliveness.py), and costs as much: ten times ours."""

import base64
import json
import ssl
import sys
import time
import traceback
import urllib.request
from pathlib import Path

#: Seconds of a core.
COST = 0.2

configuration = json.loads(Path("/tmp/orthanc.json").read_text())
scheme = "https" if configuration.get("SslEnabled") else "http"
context = ssl._create_unverified_context()
request = urllib.request.Request(f"{scheme}://localhost:{configuration.get('HttpPort', 8042)}/changes?last")
login = ":".join(next(iter(configuration["RegisteredUsers"].items())))
request.add_header("Authorization", f"Basic {base64.b64encode(login.encode()).decode()}")
while time.process_time() < COST:
    pass
try:
    with urllib.request.urlopen(request, context=context) as answer:
        sys.exit(answer.status != 200)
except OSError:
    traceback.print_exc()
    sys.exit(1)
