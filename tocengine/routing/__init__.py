"""Owns who is told what: the directory, who is a candidate, what is allowed, and the worker that writes it down."""
