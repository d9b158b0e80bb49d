"""The script of the day is the same for the same seed, and says what must arrive."""

from datetime import UTC, datetime

from tocengine.simulation.day import SHIFTS, DayWriter

START = datetime(2026, 3, 1, 6, 0, tzinfo=UTC)


def test_the_same_seed_gives_the_same_day() -> None:
    first, second = (DayWriter(7, START).write(33) for _ in range(2))
    assert first.posts == second.posts
    assert first.expected == second.expected
    assert DayWriter(8, START).write(33).posts != first.posts


def test_every_shift_sends_and_expects_something() -> None:
    day = DayWriter(7, START).write(33)
    assert {post.shift for post in day.posts} == set(range(len(SHIFTS)))
    assert len(day.expected_until(0)) < len(day.expected_until(1)) < len(day.expected_until(2)) == len(day.expected)


def test_messages_of_a_visit_are_recorded_in_the_order_they_are_sent() -> None:
    day = DayWriter(7, START).write(44)
    last: dict[bytes, bytes] = {}
    for post in day.posts:
        if post.feed != "stj-adt":
            continue
        lines = dict(line.split(b"|", 1) for line in post.body.split(b"\r") if line)
        account, recorded = lines[b"PID"].split(b"|")[17], lines[b"EVN"].split(b"|")[1]
        assert last.get(account, b"") <= recorded
        last[account] = recorded
