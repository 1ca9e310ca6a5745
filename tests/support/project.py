"""Where the project is, and the key that its processes have in tests."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
API_KEY = "test-key-for-the-tests"
