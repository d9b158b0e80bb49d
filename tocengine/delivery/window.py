"""Owns how many lanes of one recipient a worker takes ahead: few until the receiver proves fast. Pure.

Claims are worth making in bulk, but a lane taken ahead waits with its intent committed; so the window of a
receiver opens while its answers are quick and closes at the first one that is not.
"""

from collections.abc import Sequence

QUICK_S = 0.25
"""An answer within this time lets the window grow."""
WIDEST = 16
"""How many times the attempts in flight may be taken ahead."""


class Windows:
    """The windows of all recipients that a worker is sending to; an idle recipient takes no memory."""

    def __init__(self, per_endpoint: int) -> None:
        self.smallest = per_endpoint
        self._widest = per_endpoint * WIDEST
        self._width: dict[str, int] = {}
        self._taken: dict[str, int] = {}

    def allowances(self) -> tuple[Sequence[str], Sequence[int]]:
        """Recipients whose allowance is not `smallest`, and how many more lanes of each may be taken."""
        names = self._width.keys() | self._taken.keys()
        return list(names), [max(0, self._width.get(name, self.smallest) - self._taken.get(name, 0)) for name in names]

    def taken(self, recipient: str) -> None:
        """A lane of the recipient was taken for sending."""
        self._taken[recipient] = self._taken.get(recipient, 0) + 1

    def ended(self, recipient: str, seconds: float, answered: bool) -> None:
        """Its attempt ended after `seconds`; `answered` is false where it failed for want of a proper answer."""
        left = self._taken.get(recipient, 1) - 1
        if left > 0:
            self._taken[recipient] = left
        else:
            self._taken.pop(recipient, None)
        width = self._width.get(recipient, self.smallest)
        if answered and seconds <= QUICK_S:
            self._width[recipient] = min(self._widest, width + 1)
        else:
            self._width.pop(recipient, None)
        if left <= 0 and len(self._width) > 4096:
            self._width.pop(recipient, None)
