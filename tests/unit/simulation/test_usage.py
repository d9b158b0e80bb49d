"""What a process uses is read while it runs, while its children end, and when nobody has waited for it yet."""

import itertools
import os
import subprocess
import sys

from tocengine.simulation.load import usage

TWO_TICKS_S = 2.5 / os.sysconf("SC_CLK_TCK")  # rounded down in the child and in its parent


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


def test_the_time_of_a_child_that_ends_while_it_is_read_is_not_lost() -> None:
    ten_that_work = (
        "for n in 1 2 3 4 5 6 7 8 9 10; do sh -c 'i=0; while [ $i -lt 30000 ]; do i=$((i+1)); done'; done; read n"
    )
    parent = subprocess.Popen(["sh", "-c", ten_that_work], stdin=subprocess.PIPE)
    readings = [0.0]
    try:
        while len(readings) < 2 or usage.children(parent.pid) or readings[-1] < 0.1:
            readings.append(usage.tree_cpu_s(parent.pid))
    finally:
        parent.communicate(b"\n")
    lost = max(before - after for before, after in itertools.pairwise(readings))
    assert lost < TWO_TICKS_S
