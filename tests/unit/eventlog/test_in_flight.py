"""The bound on what is being appended: first come, first served, and nobody lost by a cancellation."""

import asyncio

from tocengine.eventlog.in_flight import InFlight


async def test_admits_while_there_is_room_and_in_order() -> None:
    gate = InFlight(max_records=2, max_bytes=100)
    order: list[int] = []

    async def enter(number: int) -> None:
        await gate.enter(1, 10)
        order.append(number)

    await enter(0)
    await enter(1)
    waiting = [asyncio.create_task(enter(number)) for number in (2, 3)]
    await asyncio.sleep(0)
    assert order == [0, 1]
    gate.leave(1, 10)
    gate.leave(1, 10)
    await asyncio.gather(*waiting)
    assert order == [0, 1, 2, 3]


async def test_one_larger_than_the_bounds_goes_alone() -> None:
    gate = InFlight(max_records=1, max_bytes=10)
    await gate.enter(5, 1000)
    other = asyncio.create_task(gate.enter(1, 1))
    await asyncio.sleep(0)
    assert not other.done()
    gate.leave(5, 1000)
    await other


async def test_whoever_stood_behind_a_cancelled_one_moves_up() -> None:
    gate = InFlight(max_records=2, max_bytes=100)
    await gate.enter(1, 10)
    large = asyncio.create_task(gate.enter(2, 10))
    small = asyncio.create_task(gate.enter(1, 10))
    await asyncio.sleep(0)
    large.cancel()
    await asyncio.gather(large, return_exceptions=True)
    await small
    gate.leave(1, 10)
    gate.leave(1, 10)
    await gate.drained()


async def test_cancelled_in_the_turn_of_its_admission_gives_the_room_back() -> None:
    gate = InFlight(max_records=1, max_bytes=100)
    await gate.enter(1, 10)
    waiting = asyncio.create_task(gate.enter(1, 10))
    await asyncio.sleep(0)
    gate.leave(1, 10)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await gate.drained()
