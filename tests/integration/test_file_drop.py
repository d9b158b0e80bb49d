"""A watched directory: what is taken, when it moves, and what a sender finds there afterwards."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Collection, Hashable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tocengine.adapters.files.folder import DropFolder
from tocengine.adapters.files.server import FileDrop
from tocengine.adapters.hl7v2_feed import HL7Feed
from tocengine.config import FeedSettings, FileDropSettings
from tocengine.errors import ConfigurationError, RefusedError, UnavailableError
from tocengine.formats import hl7v2
from tocengine.formats.hl7v2.batch import read_batch
from tocengine.formats.hl7v2.files import messages_in
from tocengine.model.ids import FacilityId, FeedName
from tocengine.model.message import Disposition, Message, Receipt
from tocengine.model.profile import SendingFacility, Source, SourceProfile
from tocengine.telemetry import Metrics

NOW = datetime(2026, 3, 1, 20, 41, 5, tzinfo=UTC)


class Door:
    """Notes what it is given. `down` makes it unavailable, `refusing` names a control id it refuses."""

    def __init__(self) -> None:
        self.accepted: list[str] = []
        self.refused: list[str] = []
        self.down = False
        self.largest = 0

    async def turn(self, message: Message) -> None:
        return

    async def accept(self, message: Message, line: Hashable = None) -> Receipt:
        if self.down:
            raise UnavailableError("down")
        self.accepted.append(message.control_id)
        return Receipt(message_id=message.message_id, disposition=Disposition.ACCEPTED, answered=message.answers[0])

    async def refuse(self, message: Message, error: RefusedError, line: Hashable = None) -> Receipt:
        self.refused.append(error.problem.reason)
        self.largest = max(self.largest, len(message.body))
        return Receipt(
            message_id=message.message_id,
            disposition=Disposition.REFUSED,
            problem=error.problem,
            answered=message.answers[2],
        )

    async def accept_whole(self, messages: Sequence[Message], ignored: Collection[int] = ()) -> Sequence[Receipt]:
        return [await self.accept(each) for each in messages]

    async def ignore(self, message: Message, line: Hashable = None) -> Receipt:
        return await self.accept(message)


class Drop:
    """A running file feed on `folder`."""

    def __init__(self, folder: Path, **settings: object) -> None:
        self.folder, self.door, self.metrics = folder, Door(), Metrics()
        files = FileDropSettings(**{"poll_s": 0.01, "settle_s": 0.0, **settings})  # type: ignore[arg-type]
        feed = FeedSettings(
            name=FeedName("north-files"),
            facility=FacilityId("north"),
            protocol="files",
            directory=folder,
            files=files,
            max_frame_bytes=2048,
        )
        facility = SendingFacility(id=FacilityId("north"), name="North")
        source = Source(feed=feed.name, facility=facility, profile=SourceProfile())
        self.drop = FileDrop(feed, HL7Feed(source, self.door, lambda: NOW, self.metrics), self.metrics)

    def put(self, name: str, content: bytes) -> None:
        """As a sender should: written under another name, then renamed."""
        unfinished = self.folder / f".{name}"
        unfinished.write_bytes(content)
        unfinished.rename(self.folder / name)

    def names(self, folder: str = "") -> list[str]:
        return sorted(path.name for path in (self.folder / folder).iterdir() if path.is_file())

    def counted(self, outcome: str) -> float:
        labels = {"feed": "north-files", "outcome": outcome}
        return self.metrics.registry.get_sample_value("tocengine_files_total", labels) or 0.0


def message(control_id: str, kind: str = "ADT^A01", filler: str = "") -> bytes:
    return f"MSH|^~\\&|REG|NORTH|TOC|HUB|20260301154102||{kind}|{control_id}|P|2.5.1\rPID|1||{filler}\r".encode()


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110 - what it waits for is on a disk
            await asyncio.sleep(0.005)


@pytest.fixture
async def drop(tmp_path: Path) -> AsyncIterator[Drop]:
    made = Drop(tmp_path / "inbox")
    await made.drop.start()
    yield made
    await made.drop.drain()


async def test_a_file_is_taken_in_order_and_moved_when_all_of_it_is_stored(drop: Drop) -> None:
    drop.put("b.hl7", message("3"))
    drop.put("a.hl7", message("1") + message("2"))
    await until(lambda: drop.names("processed") == ["a.hl7", "b.hl7"])
    assert drop.names() == []
    assert sorted(drop.door.accepted) == ["1", "2", "3"]
    assert drop.door.accepted.index("1") < drop.door.accepted.index("2")
    assert drop.counted("processed") == 2


async def test_a_refused_message_fails_its_file_and_says_why(drop: Drop) -> None:
    drop.put("mixed.hl7", message("1") + message("2", kind="ORU^R01"))
    await until(lambda: drop.names("failed") == ["mixed.hl7", "mixed.hl7.ack"])
    answers = (drop.folder / "failed" / "mixed.hl7.ack").read_bytes()
    codes = [hl7v2.parse(answer).get("MSA-1") for answer in messages_in(answers)]
    assert codes == ["AA", "AR"]
    assert drop.counted("failed") == 1
    assert drop.names("processed") == []


BATCH = b"FHS|^~\\&|REG|NORTH|TOC|HUB|20260301||||F1\rBHS|^~\\&|REG|NORTH|TOC|HUB|20260301||||B1\r"


async def test_a_batch_file_is_taken_whole_and_answered_by_a_batch(tmp_path: Path) -> None:
    drop = Drop(tmp_path / "inbox", write_acks=True)
    await drop.drop.start()
    drop.put("night.hl7", BATCH + message("1") + message("2", filler="x" * 1500) + b"BTS|2\rFTS|1\r")
    await until(lambda: drop.names("acks") == ["night.hl7.ack"])
    assert drop.door.accepted == ["1", "2"]
    answer = read_batch((drop.folder / "acks" / "night.hl7.ack").read_bytes())
    assert [hl7v2.parse(each).get("MSA-1") for each in answer.messages] == ["AA", "AA"]
    assert answer.header is not None
    assert answer.header.field(12) == b"F1"
    await drop.drop.drain()


async def test_a_batch_file_with_a_wrong_count_fails_whole(drop: Drop) -> None:
    drop.put("night.hl7", BATCH + message("1") + message("2") + b"BTS|10\rFTS|1\r")
    await until(lambda: drop.names("failed") == ["night.hl7", "night.hl7.ack"])
    assert (drop.door.accepted, drop.door.refused) == ([], ["batch_count"])


async def test_a_refused_batch_file_too_large_to_quarantine_is_kept_in_the_folder(drop: Drop) -> None:
    many = b"".join(message(str(number), filler="x" * 10_000) for number in range(1100))
    drop.put("huge.hl7", BATCH + many)
    await until(lambda: "huge.hl7" in drop.names("failed"))
    assert (drop.door.accepted, drop.door.refused) == ([], ["batch_too_long"])
    assert drop.door.largest <= 10 * 1024 * 1024


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"no header at all", "no_header"), (message("1", filler="x" * 4096), "frame_too_large")],
)
async def test_what_is_no_message_is_kept_and_refused(drop: Drop, content: bytes, reason: str) -> None:
    drop.put("odd.txt", content)
    await until(lambda: drop.names("failed") == ["odd.txt", "odd.txt.ack"])
    assert drop.door.refused == [reason]


async def test_a_file_that_cannot_be_moved_does_not_hold_up_the_others(drop: Drop) -> None:
    (drop.folder / "failed").chmod(0o500)
    (drop.folder / "failed").rename(drop.folder / "elsewhere")  # root writes into any folder: take it away
    drop.put("a.hl7", message("1", kind="ORU^R01"))
    drop.put("b.hl7", message("2"))
    await until(lambda: drop.names("processed") == ["b.hl7"])
    assert drop.names() == ["a.hl7"]
    assert drop.counted("unreadable") == 1
    assert drop.door.refused == ["message_type"]  # it rests: it is not taken again at every look


async def test_the_longest_name_has_room_for_its_answer(drop: Drop) -> None:
    name = "n" * 250 + ".hl7"
    drop.put(name, message("1", kind="ORU^R01"))
    await until(lambda: len(drop.names("failed")) == 2)
    assert drop.names() == []


async def test_the_time_a_sender_gave_a_file_does_not_matter(drop: Drop) -> None:
    drop.put("a.hl7", message("1"))
    os.utime(drop.folder / "a.hl7", (4e9, 4e9))
    await until(lambda: drop.names("processed") == ["a.hl7"])


async def test_an_empty_file_fails(drop: Drop) -> None:
    drop.put("empty.hl7", b"")
    await until(lambda: drop.names("failed") == ["empty.hl7"])


async def test_while_nothing_can_be_stored_files_stay(drop: Drop) -> None:
    drop.door.down = True
    drop.put("a.hl7", message("1"))
    waiting = {"feed": "north-files"}
    await until(lambda: drop.metrics.registry.get_sample_value("tocengine_files_waiting", waiting) == 1)
    assert drop.names() == ["a.hl7"]
    drop.door.down = False
    await until(lambda: drop.names("processed") == ["a.hl7"])
    assert drop.door.accepted == ["1"]


async def test_what_is_not_finished_or_no_file_is_left_alone(drop: Drop) -> None:
    outside = drop.folder.parent / "outside.hl7"
    outside.write_bytes(message("9"))
    for name in (".hidden.hl7", "a.tmp", "b.part", "c.hl7.FILEPART"):
        (drop.folder / name).write_bytes(message("8"))
    (drop.folder / "link.hl7").symlink_to(outside)
    os.mkfifo(drop.folder / "pipe.hl7")
    (drop.folder / "folder.hl7").mkdir()
    drop.put("z.hl7", message("1"))
    await until(lambda: drop.names("processed") == ["z.hl7"])
    assert drop.door.accepted == ["1"]


async def test_a_name_used_again_overwrites_nothing(drop: Drop) -> None:
    for control_id in ("1", "2"):
        drop.put("day.hl7", message(control_id))
        await until(lambda: drop.names() == [])
    await until(lambda: drop.names("processed") == ["day.1.hl7", "day.hl7"])
    assert drop.door.accepted == ["1", "2"]


async def test_two_watchers_take_each_file_once(tmp_path: Path) -> None:
    one, two = Drop(tmp_path / "inbox"), Drop(tmp_path / "inbox")
    await one.drop.start()
    await two.drop.start()
    for number in range(40):
        one.put(f"{number:03}.hl7", message(str(number)))
    await until(lambda: len(one.names("processed")) == 40)
    await one.drop.drain()
    await two.drop.drain()
    assert sorted(one.door.accepted + two.door.accepted, key=int) == [str(number) for number in range(40)]


async def test_acknowledgments_are_written_where_they_are_wanted(tmp_path: Path) -> None:
    drop = Drop(tmp_path / "inbox", write_acks=True)
    await drop.drop.start()
    drop.put("a.hl7", message("1"))
    await until(lambda: drop.names("acks") == ["a.hl7.ack"])
    assert hl7v2.parse((drop.folder / "acks" / "a.hl7.ack").read_bytes()).get("MSA-2") == "1"
    await drop.drop.drain()


async def test_a_file_over_the_limit_is_refused_unread(tmp_path: Path) -> None:
    drop = Drop(tmp_path / "inbox", max_bytes=1024)
    await drop.drop.start()
    drop.put("big.hl7", message("1") * 100)
    await until(lambda: drop.names("failed") == ["big.hl7", "big.hl7.ack"])
    assert (drop.door.accepted, drop.door.refused) == ([], ["frame_too_large"])
    await drop.drop.drain()


def test_what_is_old_goes_and_what_failed_stays(tmp_path: Path) -> None:
    folder = DropFolder(tmp_path, FileDropSettings(keep_days=2))
    folder.prepare()
    for place in ("processed", "failed"):
        (tmp_path / place / "a.hl7").write_bytes(b"")
    moved = (tmp_path / "processed" / "a.hl7").stat().st_ctime
    folder.sweep(moved + 2 * 86_400)
    assert (tmp_path / "processed" / "a.hl7").exists()
    folder.sweep(moved + 2 * 86_400 + 1)
    assert not (tmp_path / "processed" / "a.hl7").exists()
    assert (tmp_path / "failed" / "a.hl7").exists()


def test_a_file_that_changed_lately_is_not_finished(tmp_path: Path) -> None:
    folder = DropFolder(tmp_path, FileDropSettings(settle_s=5))
    path = tmp_path / "a.hl7"
    path.write_bytes(message("1"))
    written = path.stat().st_ctime
    assert folder.ready(written + 4.9) == []
    assert folder.ready(written + 5) == [path]


def test_a_directory_that_cannot_be_made_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigurationError, match="cannot be made"):
        DropFolder(tmp_path / "file" / "inbox", FileDropSettings()).prepare()
