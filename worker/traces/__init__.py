"""Traces of the worker: of the transactions that apply entries, and of their statements. Imports OpenTelemetry."""
