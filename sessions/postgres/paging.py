"""The name by which dead letters still know `sessions.paging`."""

from sessions.paging import RowPosition, decode_cursor, encode_cursor

__all__ = ["RowPosition", "decode_cursor", "encode_cursor"]
