"""The conformance suites of all presets, collected by pytest from here (`held.py`)."""

from __future__ import annotations

from harness.conformance import ExchangeConformance, MethodConformance
from harness.conformance.tiny import find_class
from harness.method import Exchange
from harness.planning.compose import available

for preset in sorted(available("method")):
    kind = ExchangeConformance if issubclass(find_class(preset), Exchange) else MethodConformance
    globals()[f"Test_{preset}"] = type(f"Test_{preset}", (kind,), {"preset": preset})
