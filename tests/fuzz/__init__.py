"""Owns the coverage-guided fuzzing of what reads a sender's bytes, and the inputs it found."""
