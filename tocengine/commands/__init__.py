"""The commands, a module per subject; each parses arguments, calls a stage and prints what it said."""
