"""How much memory and disk an open engine may take."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Options:
    """``cache_bytes`` bounds the decoded pages in memory, changed ones included; a checkpoint is due when changed ones
    take a quarter of it, or when the log grew by ``log_bytes`` since the last, and whoever writes waits for it when they take
    half. ``log_file_bytes`` is the size at which the next log file is begun."""

    cache_bytes: int = 512 * 1024 * 1024
    log_file_bytes: int = 100 * 1024 * 1024

    @property
    def dirty_bytes(self) -> int:
        """Bytes of changed nodes at which a checkpoint is due."""
        return self.cache_bytes // 4

    @property
    def most_dirty_bytes(self) -> int:
        """Bytes of changed nodes at which writers wait for the checkpoint."""
        return self.cache_bytes // 2

    @property
    def log_bytes(self) -> int:
        """Bytes of log at which a checkpoint is due, which bounds the time of a recovery."""
        return self.log_file_bytes
