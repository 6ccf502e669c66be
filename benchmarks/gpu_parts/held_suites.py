"""The conformance suites of all presets, collected by pytest from here (`held.py`)."""

from __future__ import annotations

from harness.conformance import MethodConformance
from harness.planning.compose import available

for preset in sorted(available("method")):
    globals()[f"Test_{preset}"] = type(f"Test_{preset}", (MethodConformance,), {"preset": preset})
