"""Owns where tests keep what need not outlive them: in memory where it has room, so that no test waits for a disk.

A process that is killed loses nothing the kernel has, so a test that kills shows the same in both places.
"""

import os
import tempfile
from pathlib import Path

MEMORY = Path("/dev/shm")
ROOM_BYTES = 4 * 1024**3
"""Far more than two test processes with their servers and brokers take; a container's usual 64 MB are not enough."""


def place() -> str:
    """The folder to make temporary folders in: memory, or the usual one where memory has no room or runs no program
    (PostgreSQL's are copied beside its data where its account cannot reach them)."""
    try:
        room = os.statvfs(MEMORY)
    except OSError:
        return tempfile.gettempdir()
    usable = os.access(MEMORY, os.W_OK) and not room.f_flag & os.ST_NOEXEC
    return str(MEMORY) if usable and room.f_bavail * room.f_frsize >= ROOM_BYTES else tempfile.gettempdir()
