"""Owns the codes of senders that are mapped while the engine runs: which are missing, what they were said to mean."""
