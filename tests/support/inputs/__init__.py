"""Inputs: hostile, extreme and generated values, and the project's own documents."""
