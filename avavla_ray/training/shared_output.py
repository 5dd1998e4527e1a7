"""The output folder of a cloning run whose machines share no file system: each has its own, and a store between them.

    STORE/launch          which start of the job may write here; of the driver
    STORE/refusal.json    why the workers of a launch gave up; of any of them
    STORE/checkpoints/    the run's checkpoints, a snapshot of their own that rank 0 publishes
    STORE/ray/            Ray Train's own notes

Everything else of the run is in the driver's folder, which is mirrored as every job's is.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from avavla_ray.storage.fetching import bring, fetch
from avavla_ray.storage.freeze import APART, scan
from avavla_ray.storage.manifest import read_manifest
from avavla_ray.storage.mirror import Mirror
from avavla_ray.storage.names import address_of
from avavla_ray.storage.place import Place
from avavla_ray.storage.publisher import Overtaken, Publisher
from avavla_ray.storage.staging import Staging
from avavla_ray.storage.transfers import read_bytes, write_bytes
from avavla_ray.training.output import CHECKPOINTS, LAUNCH, REFUSAL
from avavla_ray.training.run_checkpoints import StoredCheckpoint

ROUNDS = 5


class SharedOutput:
    """What the processes of a run tell each other through a store; picklable. Every method raises InputError where
    the store does not answer or refuses."""

    def __init__(self, store: Place) -> None:
        self.store = store

    @classmethod
    def of(cls, output: Path) -> SharedOutput | None:
        """Where an output folder is mirrored to; None for one that is nowhere else."""
        address = address_of(output)
        return None if address is None else cls(Place.of(address))

    @property
    def folder(self) -> Path:
        """The output folder of a worker on this machine."""
        return Staging(self.store).folder

    def begin(self, output: Path, launch: str) -> None:
        """For the driver: from now on only workers of this launch may write, and they alone publish checkpoints."""
        (output / CHECKPOINTS).mkdir(parents=True, exist_ok=True)
        (output / CHECKPOINTS / APART).touch()
        write_bytes(self.store / LAUNCH, launch.encode())

    def launched(self) -> str | None:
        """The newest launch."""
        content = read_bytes(self.store / LAUNCH)
        return None if content is None else content.decode()

    def refuse(self, launch: str, reason: str) -> None:
        """As `output.refuse`."""
        write_bytes(self.store / REFUSAL, json.dumps({"launch": launch, "reason": reason}).encode())

    def refusal(self, launch: str) -> str | None:
        """As `output.refusal`."""
        noted = json.loads(read_bytes(self.store / REFUSAL) or b"{}")
        return noted["reason"] if noted.get("launch") == launch else None

    @contextmanager
    def publishing(self) -> Iterator[Callable[[], None]]:
        """For rank 0: bring the checkpoints; inside the block they are published, at once when what it yields is
        called, and all of them before it ends well.

        What an earlier rank 0 on this machine had no time to publish is taken up, if nobody has gone on since.
        """
        staging = Staging(self.store, CHECKPOINTS)
        with staging.lock:
            newest = staging.bring(discard=True)
        publisher = Publisher(staging.folder, staging.root, staging.notes, newest)
        try:
            publisher.publish()  # the other machines can only have what is there
        except Overtaken as error:  # by a predecessor that is still dying: to be tried again
            raise RuntimeError(str(error)) from error
        with Mirror(publisher, say=_only_troubles) as mirror:

            def saved() -> None:
                if mirror.overtaken:
                    raise RuntimeError(f"another process publishes to {staging.root}: this one ends")
                mirror.nudge()

            yield saved

    def take(self, stored: StoredCheckpoint) -> StoredCheckpoint:
        """For the others: the checkpoint that rank 0 has chosen, on this machine."""
        staging = Staging(self.store, CHECKPOINTS)
        own = staging.folder / stored.path.name
        # What lies here under the same name may be another, which this machine wrote before it was replaced: only the
        # content tells. Where it is the same, nothing is brought.
        with staging.lock:
            for _ in range(ROUNDS):
                manifest = read_manifest(staging.root)
                files = manifest.below(own.name)
                if not files:
                    break
                try:
                    bring(staging.root, manifest, staging.folder, files)
                except FileNotFoundError:
                    continue
                for name in scan(own).keys() - {name.removeprefix(f"{own.name}/") for name in files}:
                    (own / name).unlink(missing_ok=True)
                return stored._replace(path=own)
        raise RuntimeError(f"{staging.root} does not keep {own.name}, which rank 0 goes on from")

    def gather(self, output: Path) -> None:
        """For the driver, when no worker runs any more: bring the checkpoints into its folder."""
        staging = Staging(self.store, CHECKPOINTS)
        folder = output / CHECKPOINTS
        if staging.folder == folder:
            with staging.lock:
                staging.bring(discard=True)  # of a rank 0 that was replaced
        elif read_manifest(staging.root).generation:
            fetch(staging.root, folder, exact=True)
        (folder / APART).touch()  # else the run's own snapshot has them too


def _only_troubles(line: str) -> None:
    if not line.startswith("published to "):
        print(line, flush=True)
