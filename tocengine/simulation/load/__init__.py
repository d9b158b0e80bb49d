"""A load for a running engine: visits that differ, senders, a receiver that checks every notice, and what it all costs.

Senders and receiver are processes of their own, so that they do not share a core's time with what asks for figures.
"""
