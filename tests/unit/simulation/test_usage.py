"""What a process uses is read while it runs, and when it was killed a moment ago and nobody has waited for it yet."""

import os
import subprocess
import sys

from tocengine.simulation.load import usage


def test_a_process_that_was_killed_and_not_waited_for_takes_no_memory() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        assert usage.parent(child.pid) == os.getpid()
        assert usage.resident_mb(child.pid) > 0
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert usage.resident_mb(child.pid) == usage.tree_mb(child.pid) == usage.peak_mb(child.pid) == 0
        assert usage.own_cpu_s(child.pid) >= 0
    finally:
        child.communicate()
