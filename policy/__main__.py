"""What `pulumi preview --policy-pack policy` runs."""

import sys
from pathlib import Path

# Pulumi runs this file by itself, but the pack's modules are the project's.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from policy import engine

engine.serve()
