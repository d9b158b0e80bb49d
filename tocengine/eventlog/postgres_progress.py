"""Owns the question how far routing is with the log in PostgreSQL: one statement, cheap enough to be asked often."""

from tocengine.errors import UnavailableError
from tocengine.eventlog.topics import TOPIC_NUMBERS, Topic
from tocengine.ports import Progress
from tocengine.postgres import Pool, load_queries, unavailable_errors

_SQL = load_queries(__package__)


class PostgresLogProgress:
    """Implements `ports.LogProgress` for one topic, without reading or owning it."""

    def __init__(self, pool: Pool, topic: Topic) -> None:
        self._pool, self._topic = pool, topic

    async def look(self) -> Progress:
        """Raises UnavailableError while the database is gone."""
        with unavailable_errors():
            row = await self._pool.fetchrow(_SQL["progress"], TOPIC_NUMBERS[self._topic], str(self._topic))
        if row is None:
            raise UnavailableError("the database does not say how far routing is")
        return Progress(appended=row["appended"], applied=row["applied"])

    async def close(self) -> None:
        """The pool is its owner's."""
