"""Reading members with Ray actors that die, hang and break: each costs its member only."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from avavla_ray.demonstrations.importers.ledger import ImportLedger
from avavla_ray.demonstrations.importers.source import open_source
from avavla_ray.demonstrations.reader import read_metadata
from avavla_ray.errors import InputError
from tests.support.unreliable_source import UnreliableSource

pytestmark = pytest.mark.ray


@pytest.mark.timeout(120)
def test_trouble_costs_a_member_and_no_more(ray_cluster, tmp_path, capfd):
    from actors.demonstration_import import read_members

    (tmp_path / "notes").mkdir()
    source = UnreliableSource(tmp_path / "notes")
    members = source.members()
    ledger, seen = ImportLedger(tmp_path / "demos", {}), []

    def settle(member, reading):
        ledger.settle(member, reading.episodes, reading.skipped, reading.broken)
        seen.append(member.name)

    read_members(members, partial(UnreliableSource, tmp_path / "notes"), settle, num_actors=3, timeout_s=3.0)
    assert sorted(seen) == sorted(member.name for member in members), "each once"
    reasons = dict(entry.left_out[0] for entry in ledger.of(members) if entry.left_out)
    assert reasons == {
        "place 3": "lost: SimulatorFailure: physics diverged",
        "place 4": "wrong shape: of everything",
        "place 5": "unknown task: wash dishes",
        "place 6": "episode x-6 holds numbers that are not finite: leave it out",
        "place 8": "not readable: TypeError: nobody thought of this",
    }
    output = capfd.readouterr().out
    assert "place 2: hangs for more than 3 s; trying it again" in output
    assert "place 1: ActorDiedError" in output
    assert "place 3: SimulatorFailure: physics diverged; left out after 3 tries" in output
    summary = ledger.finish(members, {"suite": "libero_object", "image_size": 32})
    assert [episode.episode for episode in read_metadata(tmp_path / "demos").episodes] == ["x-0", "x-1", "x-2", "x-7"]
    assert (summary["members"], summary["episodes"], summary["left_out"]) == (9, 4, 5)
    assert summary["reasons"]["lost"] == 1


def test_a_source_that_cannot_be_opened_ends_the_import(ray_cluster, tmp_path):
    from actors.demonstration_import import read_members

    members = UnreliableSource(tmp_path).members()
    nowhere = partial(open_source, "libero-hdf5", Path("/nowhere"))
    with pytest.raises(InputError, match="no demonstrations at /nowhere"):
        read_members(members, nowhere, lambda *_: None, num_actors=2)
