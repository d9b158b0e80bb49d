"""Owns the figures of a load: computed from what was sent, what arrived and what was used; shown as a table."""

from collections.abc import Mapping, Sequence

import msgspec
from rich.table import Table

from tocengine.simulation.load.receiver import Received
from tocengine.simulation.load.senders import Sent
from tocengine.simulation.load.target import Usage
from tocengine.simulation.load.visits import Mix


class Figures(msgspec.Struct, kw_only=True):
    """One run. CPU is in seconds per 1,000 messages, None where it was used on another machine; `cpu_s_per_1000` is
    engine and PostgreSQL together. Messages that were held back are `held` and in no latency end to end."""

    acks_per_s: float
    delivered_per_s: float
    ack_p50_ms: float
    ack_p99_ms: float
    ack_max_ms: float
    e2e_p50_ms: float
    e2e_p99_ms: float
    e2e_max_ms: float
    cpu_s_per_1000: float
    postgres_cpu_s_per_1000: float | None
    kafka_cpu_s_per_1000: float | None
    rss_mb: float
    bytes_per_message: float
    held: int
    lost: int
    duplicated: int
    reordered: int
    refused: int  # notices the receiver did not take: wrong signature, content or recipient

    @property
    def exact(self) -> bool:
        """Everything arrived once, in order and as it should be."""
        return not (self.lost or self.duplicated or self.reordered or self.refused)


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """What a run of the visits `first` to `last` (exclusive) left to be computed from."""

    first: int
    last: int
    sent: Sent
    received: Received
    used: Usage
    peak_mb: float
    grown_bytes: int

    @property
    def messages(self) -> int:
        """How many visits were discharged."""
        return self.last - self.first


def figures_of(run: Run, mix: Mix) -> Figures:
    """The figures of a run. Latencies count from when a message was due."""
    sent, arrived = run.sent, run.received.arrived
    acks = sorted((end - due) * 1000 for due, end in zip(sent.due, sent.answered, strict=True))
    told = [number for number in range(run.first, run.last) if mix.told(number)]
    here = [number for number in told if arrived[number]]
    whole = sorted((arrived[n] - sent.due[n - run.first]) * 1000 for n in here if not mix.early(n)) or [0.0]
    started = min(sent.due)
    engine, postgres, messages = sum(run.used.engine.values()), run.used.postgres, run.messages
    spent_s = max((arrived[number] for number in here), default=started) - started
    return Figures(
        acks_per_s=round(messages / (max(sent.answered) - started), 1),
        delivered_per_s=round(len(here) / spent_s, 1) if spent_s else 0.0,
        ack_p50_ms=_percentile(acks, 0.5),
        ack_p99_ms=_percentile(acks, 0.99),
        ack_max_ms=round(acks[-1], 1),
        e2e_p50_ms=_percentile(whole, 0.5),
        e2e_p99_ms=_percentile(whole, 0.99),
        e2e_max_ms=round(whole[-1], 1),
        cpu_s_per_1000=round((engine + (postgres or 0.0)) / messages * 1000, 3),
        postgres_cpu_s_per_1000=_per_1000(postgres, messages),
        kafka_cpu_s_per_1000=_per_1000(run.used.kafka, messages),
        rss_mb=round(run.peak_mb, 1),
        bytes_per_message=round(run.grown_bytes / messages, 1),
        held=sum(mix.early(number) for number in range(run.first, run.last)),
        lost=len(told) - len(here),
        duplicated=run.received.duplicated,
        reordered=run.received.reordered,
        refused=run.received.refused.total(),
    )


def _percentile(ascending: Sequence[float], share: float) -> float:
    return round(ascending[min(int(len(ascending) * share), len(ascending) - 1)], 1)


def _per_1000(seconds: float | None, messages: int) -> float | None:
    return None if seconds is None else round(seconds / messages * 1000, 3)


def figures_table(title: str, figures: msgspec.Struct, processes: Mapping[str, float] | None = None) -> Table:
    """The figures, and the CPU milliseconds per message of each process, the load's own too."""
    table = Table("figure", "value", title=title, title_justify="left", box=None)
    for name in figures.__struct_fields__:
        value = getattr(figures, name)
        table.add_row(name, "elsewhere" if value is None else f"{value:,}")
    for process, milliseconds in (processes or {}).items():
        table.add_row(f"CPU ms per message, {process}", f"{milliseconds:.2f}")
    return table
