"""Owns the list of things only a person can put right."""

from tocengine.work_items.postgres import PostgresWorkItems

__all__ = ["PostgresWorkItems"]
