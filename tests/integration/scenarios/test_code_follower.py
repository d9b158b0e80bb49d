"""An engine that takes messages in follows what codes mean, and takes up what a command left waiting for them."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from datetime import datetime

from tests.integration.scenarios.hospital import PATEL, Hospital
from tests.integration.scenarios.setting import Setting
from tocengine.errors import UnavailableError
from tocengine.eventlog import Topic
from tocengine.eventlog.memory import MemoryMessageScanner
from tocengine.local_codes.postgres import PostgresLocalCodes
from tocengine.model.profile import SourceProfile
from tocengine.normalize.dispatch import FeedNormalizer
from tocengine.ports import LogRecord
from tocengine.reprocessing.workshop import CodeFollower

CORRECTED = [(name, "UPDATED", "INPATIENT_DISCHARGE_CORRECTED") for name in ("haven", "patel")]


class Scanner(MemoryMessageScanner):
    """The log, which raises what it is told to before it gives anything, and counts how often it is asked."""

    def __init__(self, town: Setting, *troubles: Exception) -> None:
        super().__init__(town.log)
        self.troubles, self.asked = list(troubles), 0

    async def messages(
        self, since: datetime, until: datetime, portion: int = 200
    ) -> AsyncGenerator[Sequence[LogRecord], None]:
        self.asked += 1
        if self.troubles:
            raise self.troubles.pop(0)
        async for records in super().messages(since, until, portion):
            yield records


async def follower(town: Setting, scanner: Scanner, refresh_s: float = 0.01) -> CodeFollower:
    reprocessor = await town.reprocessor()
    normalizer = reprocessor.normalizer
    assert isinstance(normalizer, FeedNormalizer)
    return CodeFollower(town.pool, normalizer, reprocessor, scanner, refresh_s, lambda: town.now)


async def interrupted_mapping(town: Setting, code: str = "HHS") -> None:
    """A command that said what a code means and got no further."""
    async with town.pool.acquire() as connection:
        assert await PostgresLocalCodes().change(connection, ("b", "disposition", code), "06", "test", town.now)


async def waiting(town: Setting) -> int:
    return int(await town.pool.fetchval("select count(*) from code_unmapped where settled_at is null"))


async def discharged(town: Setting, hospital: Hospital, visit: str = "V100", clock: str = "11:00") -> None:
    town.feed(SourceProfile(), "b")
    await town.hear(hospital.says("A03", clock, visit=visit, disposition="HHS", pcp=PATEL), feed="b")
    await town.deliver()


async def until_renormalized(town: Setting, follows: CodeFollower) -> None:
    stop = asyncio.Event()
    running = asyncio.create_task(follows.run(stop))
    async with asyncio.timeout(20):
        while not await town.pool.fetchval("select count(*) from renormalized"):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    stop.set()
    await running


async def test_what_an_interrupted_command_left_is_taken_up_once(town: Setting, hospital: Hospital) -> None:
    await discharged(town, hospital)
    follows = await follower(town, scanner := Scanner(town))
    assert await follows.take_up() == 0  # nobody has said what it means
    await interrupted_mapping(town)
    await follows.refresh()
    assert await follows.take_up() == 1
    assert await follows.take_up() == 0  # it is on its way
    await town.publish()
    assert sorted(await town.route()) == CORRECTED
    assert await waiting(town) == 0
    assert (await follows.take_up(), scanner.asked) == (0, 1)
    row = await town.pool.fetchrow("select cause, requested_by from renormalized")
    assert row is not None
    assert tuple(row) == ("CODES", "tocengine")


async def test_what_the_log_no_longer_has_is_looked_for_once(town: Setting, hospital: Hospital) -> None:
    await discharged(town, hospital)
    for topic, partition in list(town.log.records):
        if topic == Topic.MESSAGES:
            del town.log.records[topic, partition]
    await interrupted_mapping(town)
    follows = await follower(town, scanner := Scanner(town))
    for _ in range(3):
        assert await follows.take_up() == 0
    assert scanner.asked == 1
    await discharged(town, hospital, "V2", "12:00")
    assert await follows.take_up() == 1  # a newer one was read in the moment before its meaning was known


async def test_an_outage_and_a_defect_are_waited_out(town: Setting, hospital: Hospital) -> None:
    await discharged(town, hospital)
    await interrupted_mapping(town)
    scanner = Scanner(town, UnavailableError("the log is away"), UnavailableError("still away"))
    await until_renormalized(town, await follower(town, scanner))
    assert scanner.asked == 3
    await town.publish()
    assert sorted(await town.route()) == CORRECTED


async def test_a_code_whose_messages_make_the_engine_fail_does_not_keep_the_others_waiting(
    town: Setting, hospital: Hospital
) -> None:
    await discharged(town, hospital)
    await town.hear(hospital.says("A03", "11:30", visit="V2", mrn="78", disposition="XYZ"), feed="b")
    await town.deliver()
    await interrupted_mapping(town)
    await interrupted_mapping(town, "XYZ")
    scanner = Scanner(town, RuntimeError("a defect"))
    await until_renormalized(town, await follower(town, scanner))
    assert scanner.asked == 2
