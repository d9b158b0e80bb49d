"""A role's process and the signals it gets."""

import signal
import subprocess
import sys

import pytest

ROLE = """
import asyncio, sys
from tocengine.process import run_until_drained

async def main(drain):
    print(type(asyncio.get_running_loop()).__module__, flush=True)
    await drain.wait()
    print("draining", flush=True)
    if sys.argv[1] == "stubborn":
        await asyncio.Event().wait()
    return 7

sys.exit(run_until_drained(main))
"""


def start(kind: str) -> subprocess.Popen[str]:
    role = subprocess.Popen([sys.executable, "-c", ROLE, kind], stdout=subprocess.PIPE, text=True)
    assert role.stdout is not None
    assert role.stdout.readline() == "uvloop\n"
    return role


def read_until_draining(role: subprocess.Popen[str]) -> None:
    assert role.stdout is not None
    while role.stdout.readline() != "draining\n":
        assert role.poll() is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_drains(number: signal.Signals) -> None:
    with start("good") as role:
        role.send_signal(number)
        assert role.wait(10) == 7


def test_the_second_signal_ends_the_process() -> None:
    with start("stubborn") as role:
        role.send_signal(signal.SIGTERM)
        read_until_draining(role)
        role.send_signal(signal.SIGINT)
        assert role.wait(10) == 128 + signal.SIGINT


def test_garbage_is_looked_for_seldom_and_never_in_what_lives_as_long_as_the_process() -> None:
    role = """
import gc
from tocengine.process import COLLECT_AFTER, run_until_drained, settle_memory

async def main(drain):
    settle_memory()
    return 7 if gc.get_threshold() == COLLECT_AFTER and gc.isenabled() and gc.get_freeze_count() > 1000 else 1

raise SystemExit(run_until_drained(main))
"""
    assert subprocess.run([sys.executable, "-c", role], check=False, timeout=30).returncode == 7
