"""Owns what really happened to a patient: events fold into encounters, facts stand or fall, transitions follow."""
