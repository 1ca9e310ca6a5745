"""The project's folder, the key of its processes in tests, and the length of a run."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
API_KEY = "test-key-for-the-tests"
IS_LONG = "TORTURE" in os.environ
"""Run the long versions of tests."""
