"""Faults: processes that are killed, damaged or down, and the recovery from them."""
