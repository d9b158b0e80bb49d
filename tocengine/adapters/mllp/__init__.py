"""Owns HL7 v2 over MLLP: a server that takes messages, and a client that sends them."""
