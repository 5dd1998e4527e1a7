"""Demonstrations that others recorded, read as episodes of ours; see `source.Source`."""
