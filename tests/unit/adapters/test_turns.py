"""Turns on a running loop: one at a time, what came in between is seen, and the order of a connection."""

import asyncio
import socket

from tocengine.adapters.turns import Turns
from tocengine.model.ids import FeedName

FLOOD, QUIET = FeedName("flood"), FeedName("quiet")


async def test_a_flood_that_came_first_does_not_go_first() -> None:
    turns, order = Turns(), list[str]()

    async def prepare(feed: FeedName) -> None:
        await turns.take(feed, 2000)
        order.append(feed)

    async with asyncio.TaskGroup() as group:
        for _ in range(64):
            group.create_task(prepare(FLOOD))
        group.create_task(prepare(QUIET))
    assert order.index(QUIET) <= 2


async def test_what_comes_while_messages_are_prepared_is_seen_soon() -> None:
    """A socket that became readable meanwhile: its callback comes between turns, however many wait."""
    turns, order, tasks = Turns(), list[str](), list[asyncio.Task[None]]()
    near, far = socket.socketpair()
    loop = asyncio.get_running_loop()

    async def prepare(feed: FeedName) -> None:
        await turns.take(feed, 2000)
        order.append(feed)
        if len(order) == 3:
            far.send(b"x")

    def readable() -> None:
        loop.remove_reader(near)
        tasks.append(asyncio.create_task(prepare(QUIET)))

    with near, far:
        loop.add_reader(near, readable)
        await asyncio.gather(*(prepare(FLOOD) for _ in range(100)))
        await asyncio.gather(*tasks)
    assert order.index(QUIET) <= 20


async def test_a_line_keeps_its_order_whatever_the_feeds() -> None:
    turns, order = Turns(), list[int]()

    async def prepare(number: int) -> None:
        await turns.take(FLOOD if number % 3 else QUIET, 100_000 if number % 3 else 100, line="a connection")
        order.append(number)

    async with asyncio.TaskGroup() as group:
        for number in range(50):
            group.create_task(prepare(number))
    assert order == list(range(50))


async def test_who_gives_up_leaves_the_turn_to_others() -> None:
    turns, order = Turns(), list[int]()

    async def prepare(number: int) -> None:
        await turns.take(FLOOD, 2000)
        order.append(number)

    tasks = [asyncio.create_task(prepare(number)) for number in range(20)]
    await asyncio.sleep(0)
    for task in tasks[5::2]:
        task.cancel()
    await asyncio.wait(tasks)
    assert order == [0, 1, 2, 3, 4, *range(6, 20, 2)]
    await asyncio.wait_for(turns.take(QUIET, 2000), 1)


async def test_the_level_delays_and_its_end_frees() -> None:
    turns = Turns(longest_wait_s=60)
    turns.set_level(10.0)
    tasks = [asyncio.create_task(turns.take(FLOOD, 2000)) for _ in range(100)]
    await asyncio.wait_for(turns.take(QUIET, 2000), 1)
    assert turns.queue.waiting()[FLOOD] > 80
    turns.set_level(None)
    await asyncio.wait_for(asyncio.gather(*tasks), 5)


async def test_nobody_is_held_back_for_longer_than_the_longest_wait() -> None:
    turns = Turns(longest_wait_s=0.05)
    turns.set_level(1.0)
    await asyncio.wait_for(asyncio.gather(*(turns.take(FLOOD, 2000) for _ in range(200))), 5)
