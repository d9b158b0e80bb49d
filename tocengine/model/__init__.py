"""The nouns of the engine: typed, frozen, without behaviour beyond their own invariants."""
