"""Owns feeds that arrive as files in a watched directory."""
