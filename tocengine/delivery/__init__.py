"""Delivery: from a queued notice to one that was delivered, or to a person who knows that it was not."""
