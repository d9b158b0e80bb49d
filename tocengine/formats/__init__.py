"""Owns the exchange formats: bytes to structure and back, pure, knowing nothing of feeds or storage."""
