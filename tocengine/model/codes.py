"""Owns what is known of senders' codes that no table has: who lacks which, and what a person is asked about it."""

from collections.abc import Mapping, Sequence
from datetime import datetime

import msgspec

from tocengine.model.work import WorkItem, WorkKind

CodeKey = tuple[str, str, str]
"""(feed, table, code)"""


class NotedCodes(msgspec.Struct, frozen=True):
    """What a batch of events says about codes: messages that lack one, and codes nobody waits for any more."""

    unknown: Mapping[CodeKey, int] = msgspec.field(default_factory=dict)
    settled: Sequence[CodeKey] = ()

    def work_items(self, now: datetime) -> list[WorkItem]:
        """One for each feed, table and code."""
        return [
            WorkItem(
                kind=WorkKind.CODE_UNMAPPED,
                subject=subject_of(key),
                summary=f"The code {key[2]} is not in the table {key[1]} of the feed {key[0]}.",
                opened_at=now,
                feed=key[0],
            )
            for key in self.unknown
        ]


def subject_of(key: CodeKey) -> str:
    """What makes the work item of a code unique."""
    return "|".join(key)
