"""What the preStop hook of a pod with runners runs: tells them that the pod is to go, and waits until they are done.

    python -m actors.hand_in /tmp/avavla/leaving --seconds 45

The file is the one of the job's `--spot file:/tmp/avavla/leaving`. A runner that sees it finishes its chunks and hands
in everything; the driver copies what still lies on this machine, and only then tells the runner so, whose mark goes
(`actors.termination.Mark`). A runner whose process ends is not waited for, and where no runner is, nobody waits.

Exit status: 0 all is handed in; 1 time is up, and standard error says who was still waited for, which Kubernetes shows
as an event of the pod.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from actors.termination import waiting

LOOK_EVERY_S = 0.1


def hand_in(notice: Path, seconds: float) -> list[str]:
    """Give notice, and wait at most so long.

    Returns:
        Ids of the processes that have not handed in.
    """
    notice.parent.mkdir(parents=True, exist_ok=True)
    notice.touch()
    end = time.monotonic() + seconds
    while (left := waiting(notice)) and time.monotonic() < end:
        time.sleep(LOOK_EVERY_S)
    return left


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("notice", type=Path, help="the file of --spot file:PATH")
    parser.add_argument("--seconds", type=float, default=45.0, help="to wait at most")
    given = parser.parse_args()
    left = hand_in(given.notice, given.seconds)
    if left:
        sys.exit(f"after {given.seconds:g} s not all is handed in: processes {', '.join(left)}")


if __name__ == "__main__":
    main()
