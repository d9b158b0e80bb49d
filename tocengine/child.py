"""Owns what every child process of the engine has in common: it ends with its parent, and its end is noticed."""

import asyncio
import ctypes
import os
import subprocess
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
_POLL_S = 0.02  # a waitpid(2) 50 times a second costs nothing, and works where pidfd_open(2) is not allowed


def die_with_parent(number: int) -> Callable[[], None]:
    """A `preexec_fn`: the kernel sends signal `number` to the child when the thread that forked it ends.

    Call it, and start the child, on the main thread. It must run after the child has changed its user, which
    clears the setting; subprocess does so.
    """
    parent = os.getpid()
    prctl = ctypes.CDLL(None, use_errno=True).prctl  # resolved before the fork

    def set_death_signal() -> None:
        if prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0) != 0 or os.getppid() != parent:
            os._exit(127)  # the parent is gone already: nobody would stop this child

    return set_death_signal


async def ended(process: subprocess.Popen[bytes]) -> int:
    """Waits for the end of `process` and returns its exit status (negative: the signal that ended it)."""
    while (status := process.poll()) is None:  # noqa: ASYNC110 - the kernel has no event for us here
        await asyncio.sleep(_POLL_S)
    return status
