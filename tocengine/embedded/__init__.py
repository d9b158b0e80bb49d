"""Owns the PostgreSQL the engine starts itself: installed by pip, a direct child, data in the data directory."""

from tocengine.embedded.attach import database, running_server
from tocengine.embedded.server import EmbeddedPostgres

__all__ = ["EmbeddedPostgres", "database", "running_server"]
