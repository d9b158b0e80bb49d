"""Owns the sending of the whole corpus to a running engine: a feed for each source, a count of each answer."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from tests.corpus.answers import bodies, faults, frames
from tests.corpus.files import CorpusFile
from tests.services.kafka import free_ports
from tocengine.formats.hl7v2.ack import read_ack
from tocengine.formats.hl7v2.batch import is_batch
from tocengine.formats.mllp import frame
from tocengine.simulation.configuration import Ports
from tocengine.simulation.engine import EngineProcess

ANSWER_S = 30.0
LAST = "LAST-OF-ALL"
SENTINEL = (
    "MSH|^~\\&|TEST|CORPUS|TOC|HUB|20260301120000-0500||ADT^A04^ADT_A01|{control}|P|2.5.1\r"
    "EVN||20260301120000-0500\rPID|1||000{control}^^^CORPUS^MR||LAST^OF ALL\rPV1|1|O|||||||||||||||||{visit}\r"
)
"""What is sent when all else was: the embedded log is read in order, so what came before it was tracked when it was."""


@dataclass
class Outcome:
    """What became of one source."""

    files: int = 0
    frames: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    unanswered: list[str] = field(default_factory=list)  # files with a frame that did not get its one answer
    dispositions: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)


@dataclass
class Run:
    """What became of the corpus, and of the engine."""

    outcomes: dict[str, Outcome] = field(default_factory=lambda: defaultdict(Outcome))
    intact: bool = False  # the audit log verifies
    exit_status: int = -1


def write_settings(folder: Path, ports: Ports, listeners: Mapping[str, int]) -> Path:
    """`tocengine.toml` with an MLLP feed for each name in `listeners`, and one FHIR feed."""
    feeds = "".join(
        f'[[feeds]]\nname = "{name}"\nfacility = "corpus"\nlisten = "127.0.0.1:{port}"\n\n'
        for name, port in listeners.items()
    )
    path = folder / "tocengine.toml"
    path.write_text(
        f"""
[engine]
data_dir = "data"

[http]
listen = "127.0.0.1:{ports.http}"

[admin]
listen = "127.0.0.1:{ports.admin}"

[[facilities]]
id = "corpus"
name = "Corpus Hospital"

[[feeds]]
name = "fhir"
facility = "corpus"
protocol = "fhir"

{feeds}""",
        encoding="utf-8",
    )
    return path


async def send_corpus(folder: Path, hl7v2: Sequence[CorpusFile], fhir: Sequence[CorpusFile]) -> Run:
    """Starts the engine in `folder`, sends every file, waits until all of it was tracked, and stops the engine."""
    names = {source: f"s{number}" for number, source in enumerate(sorted({file.source for file in hl7v2}))}
    mllp, http, admin, *others = free_ports(3 + len(names) + 1)
    ports, listeners = Ports(mllp, http, admin), dict(zip([*names.values(), "last"], others, strict=True))
    engine = EngineProcess(write_settings(folder, ports, listeners), ports.admin)
    run = Run()
    await engine.start(deadline_s=90)
    try:
        for source, name in names.items():
            outcome = run.outcomes[source]
            for file in hl7v2:
                if file.source == source:
                    await _send_file(file, listeners[name], outcome)
        async with aiohttp.ClientSession(f"http://127.0.0.1:{ports.http}") as session:
            for file in fhir:
                await _post_file(file, session, run.outcomes[f"{file.source} (FHIR)"])
        await _await_last(engine, listeners["last"])
        await _ask(engine, run, {name: source for source, name in names.items()})
    finally:
        run.exit_status = await engine.stop()
    return run


async def _send_file(file: CorpusFile, port: int, outcome: Outcome) -> None:
    """One connection: everything is written, then read until the engine closes."""
    stream = file.stream()
    answered = await _exchange(stream, port)
    outcome.files += 1
    outcome.frames += frames(stream)
    outcome.answers.update(_code(body) for body in bodies(answered))
    if faults(stream, answered):
        outcome.unanswered.append(file.path.name)


async def _exchange(stream: bytes, port: int) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    async with asyncio.timeout(ANSWER_S):
        writer.write(stream)
        writer.write_eof()
        answered = await reader.read(-1)
    writer.close()
    return answered


def _code(answer: bytes) -> str:
    """The acknowledgment code; of a batch that of its first acknowledgment, since a batch is taken or refused whole."""
    if not is_batch(answer):
        return read_ack(answer).code
    start = answer.find(b"MSH")
    return read_ack(answer[start:]).code if start >= 0 else "batch refused"


async def _post_file(file: CorpusFile, session: aiohttp.ClientSession, outcome: Outcome) -> None:
    body = file.path.read_bytes()
    path = "/fhir/$process-message" if b'"MessageHeader"' in body else "/fhir"
    async with session.post(path, data=body, headers={"content-type": "application/fhir+json"}) as response:
        answer = await response.json(content_type=None)
    outcome.files += 1
    outcome.frames += 1
    outcome.answers[str(response.status)] += 1
    if answer.get("resourceType") != "OperationOutcome":
        outcome.unanswered.append(file.path.name)


async def _await_last(engine: EngineProcess, port: int) -> None:
    """Returns when a message that is sent now, and one that is set aside, can be traced."""
    for control, visit in ((f"{LAST}-1", "V1"), (f"{LAST}-2", "")):
        body = SENTINEL.format(control=control, visit=visit).encode()
        (code,) = map(_code, bodies(await _exchange(frame(body), port)))
        assert code == "AA", code
        async with asyncio.timeout(60):
            while (await engine.call("trace", f"last:{control}", "--json"))[0] != 0:
                pass  # each look starts a process: it never spins


async def _ask(engine: EngineProcess, run: Run, sources: Mapping[str, str]) -> None:
    (status,) = await engine.ask("status")
    for part, column in (("messages", "disposition"), ("quarantine", "reason")):
        rows = status[part]
        assert isinstance(rows, list)
        for row in rows:
            source = sources.get(row["feed"])
            if source is not None:
                outcome = run.outcomes[source]
                counted = outcome.dispositions if part == "messages" else outcome.reasons
                counted[row[column]] += row["count"]
    (audit,) = await engine.ask("audit", "verify")
    run.intact = audit["intact"] is True
