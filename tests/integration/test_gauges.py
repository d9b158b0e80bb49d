"""What a scrape and a readiness probe get while the database is away: an answer, in time."""

from tocengine.inspection.gauges import Gauges
from tocengine.postgres import Pool
from tocengine.telemetry import Metrics


async def test_a_database_that_is_gone_is_not_reachable_and_breaks_no_scrape(pool: Pool) -> None:
    gauges = Gauges(pool, Metrics())
    assert await gauges.reachable()
    await gauges.refresh()
    await pool.close()
    assert not await gauges.reachable()
    await gauges.refresh()


async def test_a_pool_that_is_taken_holds_nobody_up(pool: Pool) -> None:
    gauges = Gauges(pool, Metrics())
    taken = [await pool.acquire() for _ in range(pool.get_max_size())]
    assert not await gauges.reachable()
    for connection in taken:
        await pool.release(connection)
