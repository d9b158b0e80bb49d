"""Owns the way in: one folder per protocol, each turning bytes into messages for the one door, `intake`."""
