"""AVA-VLA on Ray: a recurrent, early-exit robot policy, its simulators, and the maths that trains it."""

__version__ = "0.1.0"
