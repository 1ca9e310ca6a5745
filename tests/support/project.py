"""The project's folder, and the key of its processes in tests."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
API_KEY = "test-key-for-the-tests"
