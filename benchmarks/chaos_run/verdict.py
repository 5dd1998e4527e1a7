"""What came of a struck run: the ledger against what its simulators wrote down, and success against an undisturbed run.

An episode is lost when its simulator saw its end, its runner had the time to hand it over, and the ledger does not have
it. One that ended while its simulator, runner or node was just being struck has not been handed over to anybody; no
more can be asked than that there are few of them. So is one of which a driver was told in the moment of its death.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from avavla_ray.evaluation.intervals import wilson
from benchmarks.chaos_run.strikes import Strike

HANDED_OVER_S = 2.0  # after its end an episode is on the driver's disk
ASKED_S = 0.5  # after its end its last question has been answered


def compare(records: Sequence[dict[str, Any]], ledger: Sequence[dict[str, Any]], strikes: Sequence[Strike]) -> dict:
    """Numbers of episodes: finished, in the ledger, lost, cut (not handed over by what was struck), double, false."""
    endings = [record for record in records if "task" in record]
    told = Counter(key(line) for line in ledger)
    names = Counter(line["episode_id"] for line in ledger)
    missing = [record for record in endings if key(record) not in told]
    cut = [record for record in missing if any(explains(strike, record, strikes) for strike in strikes)]
    for record in missing:
        if record not in cut:
            print(f"lost: {record}", flush=True)
    heard = sorted(line["time"] - end["time"] for end, line in _pairs(endings, ledger))
    return {
        "episodes_finished": len(endings), "episodes_in_ledger": len(ledger),
        "episodes_lost": len(missing) - len(cut), "episodes_cut": len(cut),
        "episodes_double": sum(told.values()) - len(told) + sum(names.values()) - len(names),
        "episodes_false": len(told.keys() - {key(record) for record in endings}),
        "heard_p99_s": heard[int(0.99 * (len(heard) - 1))] if heard else 0.0,
    }  # fmt: skip


def key(entry: dict[str, Any]) -> tuple[int, int, int, bool]:
    """Seeds are drawn from 2^31, so that no two episodes of a run have the same."""
    return entry["task"], entry["seed"], entry["steps"], bool(entry["success"])


def explains(strike: Strike, record: dict[str, Any], strikes: Sequence[Strike]) -> bool:
    """Whether this strike hit those who were to hand the episode over before they had.

    While there is no policy server, an episode that was cut off by its time limit waits for one; while the driver is
    stopped, nobody asks.
    """
    ended = record["time"]
    for outage in strikes:
        over = outage.time + (outage.recovered_s or 0.0)
        if outage.kind == "stop driver" and outage.back is not None:
            over = outage.back
        elif outage.part != "server":
            continue
        if outage.time - ASKED_S < ended < over:
            ended = over
    return record["pid"] in strike.doomed and ended > strike.time - HANDED_OVER_S


def _pairs(
    endings: Sequence[dict[str, Any]], ledger: Sequence[dict[str, Any]]
) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    by_key = {key(line): line for line in ledger}
    return [(record, by_key[key(record)]) for record in endings if key(record) in by_key]


def success(ledger: Sequence[dict[str, Any]], last: int) -> tuple[int, int]:
    """Successes and episodes, of the last ones."""
    recent = ledger[-last:]
    return sum(line["success"] for line in recent), len(recent)


def not_worse(struck: tuple[int, int], undisturbed: tuple[int, int]) -> bool:
    """The intervals of both success rates overlap, or the struck run's is above."""
    return wilson(*struck)[1] >= wilson(*undisturbed)[0]
