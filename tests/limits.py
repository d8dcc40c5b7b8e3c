"""The time after which a test gives up on a process, a connection or an event."""

from __future__ import annotations

#: Far above what anything takes on a busy machine: it only ends what hangs. It is below pytest's own limit for a test.
HANG_S = 300.0
