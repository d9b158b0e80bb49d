"""Merges and moves of patients who live on different partitions and routing processes, while those are killed.

Many pairs of patients go through the same story side by side. The two of a pair are chosen so that the one's partition
is the one process's and the other's the other's; the order in which the processes take a pair's messages is left to
chance, and neither it nor the kills may show in what anybody is told.
"""

import asyncio
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from typing import ClassVar

import aiohttp
import pytest
from aiokafka.partitioner import DefaultPartitioner

from tests.acceptance.load import arrived
from tests.acceptance.scenario import Scenario, endings, haven, meadow, write_partners
from tests.acceptance.setting import ScaledOut, scaled_out
from tests.integration.scenarios.hospital import ZONE, Hospital
from tests.services.kafka import KafkaCluster
from tocengine.commands.session import connected
from tocengine.config import Config
from tocengine.config_file import load_config
from tocengine.credentials import patient_hash_key
from tocengine.eventlog.records import KeyHasher
from tocengine.model.identity import PatientKey
from tocengine.simulation.day import Expected
from tocengine.simulation.engine import EngineProcess
from tocengine.simulation.receivers import Receivers
from tocengine.simulation.senders import MllpSender

pytestmark = [pytest.mark.crash, pytest.mark.kafka, pytest.mark.timeout(600)]
PAIRS = 8  # of each story
ROUTES = ("route", "route-2")
DEADLINE_S = 90.0


def merged(s: Scenario) -> None:
    """A40: Haven's patient is Meadow's; then each number means the one person."""
    s.step("A04", "10:00", "E", haven("ED_REGISTRATION"))
    s.step("A04", "10:05", "E", meadow("ED_REGISTRATION"), suffix="B", mrn=s.other)
    s.send([s.hospital.merges("10:30", into=s.other, prior=s.mrn, day=s.day)], meadow("ED_REGISTRATION"))
    s.steps[-1][1].extend([Expected("haven", s.visit("B"), "ED_REGISTRATION")])
    s.step("A06", "11:00", "I", haven("INPATIENT_ADMIT"), meadow("INPATIENT_ADMIT"))
    s.ends("INPATIENT", owner=s.other)
    s.ends("ED", "B", owner=s.other)


def moved(s: Scenario) -> None:
    """A45: the visit is Meadow's patient's, who is somebody else."""
    s.step("A04", "10:00", "E", haven("ED_REGISTRATION"))
    move = s.rekeys("A45", "10:30", s.other, mrg={5: f"{s.visit()}^^^STJ^VN"})
    s.send([move], haven("ED_REGISTRATION", "RETRACTED"), meadow("ED_REGISTRATION"))
    s.step("A06", "11:00", "I", meadow("INPATIENT_ADMIT"), mrn=s.other)
    s.ends("INPATIENT", owner=s.other)


def handed_on(s: Scenario) -> None:
    """A43: the number is Meadow's patient's from now on, and so are its visits."""
    s.step("A04", "10:00", "E", haven("ED_REGISTRATION"))
    move = s.rekeys("A43", "10:30", s.other)
    s.send([move], haven("ED_REGISTRATION", "RETRACTED"), meadow("ED_REGISTRATION"))
    s.step("A06", "11:00", "I", meadow("INPATIENT_ADMIT"), mrn=s.other)
    s.ends("INPATIENT", owner=s.other)


def visits_merged(s: Scenario) -> None:
    """A42, then A50: Haven's visit goes on as Meadow's patient's one, and that under a new number."""
    s.step("A04", "10:00", "E", haven("ED_REGISTRATION"))
    s.send([s.hospital.merges("10:20", into=s.other, prior=s.mrn, day=s.day)], meadow("ED_REGISTRATION"))
    s.send([s.rekeys("A42", "10:30", s.other, mrg={5: f"{s.visit()}^^^STJ^VN"}, suffix="B")])
    s.send([s.rekeys("A50", "10:40", s.other, prior=s.other, mrg={5: f"{s.visit('B')}^^^STJ^VN"}, suffix="C")])
    s.step("A06", "11:00", "I", haven("INPATIENT_ADMIT"), meadow("INPATIENT_ADMIT"), suffix="C", mrn=s.other)
    s.ends("INPATIENT", "C", owner=s.other)


STORIES: tuple[Callable[[Scenario], None], ...] = (merged, moved, handed_on, visits_merged)


class Pair(Scenario):
    """A patient of Haven's, and one of Meadow's whose messages the other process reads."""

    partition: ClassVar[Callable[[str], int]]

    @property
    def other(self) -> str:
        mine = Pair.partition(self.mrn)
        return next(mrn for n in count() if Pair.partition(mrn := f"{self.mrn}M{n}") % 2 != mine % 2)


def _partition(config: Config) -> Callable[[str], int]:
    """The partition of a patient's messages, by number, as the log's producer chooses it. Partitions are shared out one
    by one to the two processes, so that the even ones are the one's and the odd ones the other's."""
    hasher, choose = KeyHasher(patient_hash_key(config)), DefaultPartitioner()
    partitions = list(range(config.event_log.kafka.partitions))

    def partition(mrn: str) -> int:
        return int(choose(hasher.patient(PatientKey("STJ", mrn)), partitions, partitions))

    return partition


def _scenarios(hospital: Hospital) -> Iterator[Scenario]:
    day = (datetime.now(ZONE) - timedelta(days=1)).date().isoformat()
    for number in range(PAIRS * len(STORIES)):
        scenario = Pair(number, day, hospital)
        STORIES[number % len(STORIES)](scenario)
        yield scenario


async def _tracked(process: EngineProcess) -> float:
    async with aiohttp.ClientSession() as session, session.get(f"{process.admin}/metrics") as response:
        text = await response.text()
    return sum(map(float, re.findall(r"^tocengine_events_tracked_total(?:{[^}]*}) (\S+)$", text, re.M)))


async def _kill(setting: ScaledOut, turn: int) -> None:
    """Kills one of the two routing processes, the other one the next time, and starts it again."""
    process = setting.processes[ROUTES[turn % 2]]
    await process.killed()
    await process.start(DEADLINE_S)


async def _tell(
    setting: ScaledOut, receivers: Receivers, scenarios: list[Scenario], shared: Counter[str]
) -> list[Expected]:
    """Sends every scenario's steps side by side, with a kill under way in each turn; what is to be told of them.
    `shared` counts the events each process has tracked before it was killed."""
    expected: list[Expected] = []
    async with MllpSender("127.0.0.1", setting.ports.mllp) as sender:
        for turn in range(max(len(s.steps) for s in scenarios)):
            shared.update({name: int(await _tracked(setting.processes[name])) for name in ROUTES})
            killing: Awaitable[None] = asyncio.ensure_future(_kill(setting, turn))
            for scenario in scenarios:
                for messages, told in scenario.steps[turn : turn + 1]:
                    for said in messages:
                        assert await sender.send(said.body) == "AA"
                    expected += told
            await killing
            tally = await arrived(expected, receivers, DEADLINE_S)
            assert (tally.lost, tally.duplicated) == (0, 0), turn
    return expected


async def test_merges_and_moves_between_two_routing_processes_that_are_killed(
    folder: Path, receivers: Receivers, secret: bytes, postgres_dsn: str, kafka: KafkaCluster
) -> None:
    setting = scaled_out(folder, receivers, secret, postgres_dsn, kafka.bootstrap, 1)
    Pair.partition = staticmethod(_partition(load_config(folder / "tocengine.toml")))
    scenarios = list(_scenarios(Hospital(system="ADTOUT")))
    path = write_partners(folder, receivers.port, secret, scenarios)
    status, out, error = await setting.engine.call("apply", "-f", str(path))
    assert status == 0, out + error
    try:
        setting.second("route")
        await setting.start(DEADLINE_S)
        shared: Counter[str] = Counter()
        expected = await _tell(setting, receivers, scenarios, shared)
        tally = await arrived(expected, receivers, DEADLINE_S)
        assert (tally.lost, tally.duplicated) == (0, 0)
        async with connected(load_config(folder / "tocengine.toml")) as pool, pool.acquire() as connection:
            for scenario in scenarios:
                assert await endings(connection, scenario) == scenario.endings
        assert all(shared[name] for name in ROUTES), shared
        (verified,) = await setting.engine.ask("audit", "verify")
        assert verified["intact"] is True
    finally:
        await setting.stop()
