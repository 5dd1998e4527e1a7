"""Copying what was delivered from machines that are about to go, before they go."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import ray

from actors.fragment_queue import Lot


def rescued(nodes: Iterable[str], lots: Sequence[Lot]) -> list[str]:
    """Have the driver's node fetch the lots that lie on these nodes; returns at once.

    Fragments lie in the object store of the machine that made them until somebody reads them, and go with it. When it
    has gone, Ray takes the copy for the original.

    Returns:
        The nodes of which everything has been fetched. Ask again for the others.
    """
    done = []
    for node in sorted(nodes):
        there = list({lot.fragments for lot in lots if lot.node == node})
        if not there or len(ray.wait(there, num_returns=len(there), timeout=0, fetch_local=True)[0]) == len(there):
            done.append(node)
    return done
