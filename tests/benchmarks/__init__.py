"""Benchmarks: CPU per message stage by stage, and the whole engine under load. Run by `make bench`, never by pytest."""
