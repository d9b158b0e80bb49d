"""Owns the loop of a file feed: look, take each file whole, move it when all of it is durable."""

import asyncio
import time
from pathlib import Path
from typing import Final

import structlog

from tocengine.adapters.files.folder import Claimed, DropFolder
from tocengine.adapters.hl7v2_feed import Answer, HL7Feed
from tocengine.config import FeedSettings
from tocengine.errors import UnavailableError
from tocengine.formats.hl7v2.batch import is_batch
from tocengine.formats.hl7v2.files import pieces_in
from tocengine.formats.mllp import KEPT_OF_OVERSIZE, Broken, BrokenFrame
from tocengine.telemetry import Metrics, origin_of

_log = structlog.get_logger()
DRAIN_S: Final = 8.0
SWEEP_S: Final = 3600.0
REST_S: Final = 60.0
PEER: Final = "file"


class FileDrop:
    """The watcher of one feed. Files are taken one after the other by name, the messages of a file in order."""

    def __init__(self, settings: FeedSettings, feed: HL7Feed, metrics: Metrics) -> None:
        assert settings.directory is not None, "the configuration was checked"
        self._settings, self._feed, self._metrics = settings, feed, metrics
        self._folder = DropFolder(settings.directory, settings.files)
        self._stop = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._swept_at = float("-inf")
        self._rests_until: dict[Path, float] = {}  # by the clock of the loop

    async def start(self) -> None:
        """Begins to watch. Raises ConfigurationError where the directory cannot be used."""
        await asyncio.to_thread(self._folder.prepare)
        self._task = asyncio.create_task(self._watch(), name=f"files {self._settings.name}")
        _log.info("feed_watching", feed=self._settings.name)

    async def drain(self, timeout_s: float = DRAIN_S) -> None:
        """Finishes the messages under way and stops; a file that is not done stays to be picked up again."""
        self._stop.set()
        if self._task is not None:
            await asyncio.wait([self._task], timeout=timeout_s)
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _watch(self) -> None:
        while not self._stop.is_set():
            try:
                await self._look()
            except UnavailableError:
                _log.warning("message_not_stored", feed=self._settings.name, peer=PEER)
            except Exception as error:  # a directory that is away, or a defect: the files stay
                _log.error("files_not_taken", feed=self._settings.name, **origin_of(error))
                self._count("unreadable")
            try:
                await asyncio.wait_for(self._stop.wait(), self._settings.files.poll_s)
            except TimeoutError:
                continue

    async def _look(self) -> None:
        """Takes every file that is ready. Raises UnavailableError where one of them is not durable."""
        waiting = await asyncio.to_thread(self._folder.ready, time.time())
        for done, path in enumerate(waiting):
            self._metrics.files_waiting.labels(self._settings.name).set(len(waiting) - done)
            if self._stop.is_set():
                return
            if self._rests_until.get(path, 0.0) <= time.monotonic():
                await self._take_alone(path)
        self._metrics.files_waiting.labels(self._settings.name).set(0)
        if time.monotonic() - self._swept_at > SWEEP_S:
            self._swept_at = time.monotonic()
            await asyncio.to_thread(self._folder.sweep, time.time())

    async def _take_alone(self, path: Path) -> None:
        """Takes a file; one that cannot be read or moved rests for a while, and the others go on."""
        try:
            await self._take(path)
        except UnavailableError:
            raise
        except Exception as error:
            _log.error("file_not_taken", feed=self._settings.name, **origin_of(error))
            self._count("unreadable")
            self._rests_until[path] = time.monotonic() + REST_S
        else:
            self._rests_until.pop(path, None)

    async def _take(self, path: Path) -> None:
        claimed = await asyncio.to_thread(self._folder.claim, path)
        if claimed is None:
            return
        pieces = self._pieces(claimed)
        try:
            answers = await self._answers(pieces)
        except BaseException:
            self._folder.release(claimed)
            raise
        if len(answers) < len(pieces):  # told to stop in the middle
            self._folder.release(claimed)
            return
        failed = not answers or any(answer.refused for answer in answers)
        given = [answer.body for answer in answers if answer.body is not None]
        await asyncio.to_thread(self._folder.finish, claimed, failed=failed, answers=given)
        self._count("failed" if failed else "processed")
        _log.info("file_taken", feed=self._settings.name, count=len(answers), outcome="failed" if failed else "taken")

    def _pieces(self, claimed: Claimed) -> list[bytes | BrokenFrame]:
        """What is taken one by one."""
        return [_oversize(claimed.body)] if claimed.too_large else pieces_in(claimed.body)

    async def _answers(self, pieces: list[bytes | BrokenFrame]) -> list[Answer]:
        """The answer to each piece, in order, up to a call to stop. Raises UnavailableError."""
        answers: list[Answer] = []
        at_once = self._settings.max_in_flight
        for start in range(0, len(pieces), at_once):
            if self._stop.is_set():
                break
            answers += await asyncio.gather(*(self._answer(piece) for piece in pieces[start : start + at_once]))
        return answers

    async def _answer(self, piece: bytes | BrokenFrame) -> Answer:
        if isinstance(piece, BrokenFrame):
            return await self._feed.take_broken(piece, PEER)
        if len(piece) > self._settings.max_frame_bytes and not is_batch(piece):
            return await self._feed.take_broken(_oversize(piece), PEER)
        return await self._feed.take(piece, PEER)

    def _count(self, outcome: str) -> None:
        self._metrics.files.labels(self._settings.name, outcome).inc()


def _oversize(body: bytes) -> BrokenFrame:
    return BrokenFrame(body[:KEPT_OF_OVERSIZE], Broken.TOO_LARGE)
