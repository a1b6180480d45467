"""The embedded log: SQLite files in one directory, for one machine."""

from dimint.log.embedded.log import EmbeddedLog

__all__ = ["EmbeddedLog"]
