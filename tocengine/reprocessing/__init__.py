"""Normalizes again what was received before: after a profile was corrected, a code mapped, a defect mended."""
