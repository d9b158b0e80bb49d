"""The ways to reach a recipient: one file per channel, one line each in `registry`."""
