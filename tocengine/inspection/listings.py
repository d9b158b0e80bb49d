"""Owns the plain lists: what is set aside."""

from tocengine.postgres import Pool, load_queries

QUERIES = load_queries(__package__)
Row = dict[str, object]


async def quarantined(pool: Pool, limit: int) -> list[Row]:
    """The newest `limit` messages that are set aside, without their content."""
    return [dict(row) for row in await pool.fetch(QUERIES["quarantine_list"], limit)]
