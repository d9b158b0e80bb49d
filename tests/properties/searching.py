"""Owns how many examples a property draws: what the suite has time for, or thousands where a search is asked for."""

from hypothesis import settings

SEARCHED = settings.get_current_profile_name() == "search"


def examples(usual: int) -> int:
    """`usual` in a run of the suite, what the profile says in a search (`make search`)."""
    return settings().max_examples if SEARCHED else usual
