"""Which setting is recommended, and the price of a latent step along the front."""

import pytest

from avavla_ray.evaluation.budget import MILLISECONDS, STEPS, Budget
from avavla_ray.evaluation.choice import choose, front, known, prices
from avavla_ray.evaluation.threshold_table import Row, Share


def row(title, rate, steps, ms=10.0):
    share = None if rate is None else Share(rate, rate - 0.1, rate + 0.1)
    return Row("PPO", title, (steps, ms, ms), {"suite": share}, {}, share)


ROWS = [
    row("0.30", 0.60, 1.2, 20.0), row("0.55", 0.90, 2.2, 28.0), row("0.60", 0.90, 2.4, 27.0),
    row("1.00", 0.905, 5.0, 60.0), row("fixed depth 3", 0.70, 3.0, 35.0), row("0.99", None, None),
]  # fmt: skip


def title(row):
    return None if row is None else row.title


@pytest.mark.parametrize(
    ("cost", "budget", "give_up", "expected"),
    [
        (STEPS, Budget(STEPS, 2.5), 0.0, "0.55"),
        (STEPS, Budget(STEPS, 2.0), 0.0, "0.30"),
        (STEPS, Budget(STEPS, 9.0), 0.0, "1.00"),
        (STEPS, Budget(STEPS, 1.0), 0.0, None),
        (MILLISECONDS, Budget(MILLISECONDS, 30.0), 0.0, "0.60"),
        (STEPS, None, 0.0, "1.00"),
        (STEPS, None, 0.01, "0.55"),
        (MILLISECONDS, None, 0.01, "0.60"),
    ],
)
def test_the_choice(cost, budget, give_up, expected):
    assert title(choose(ROWS, cost, budget, give_up)) == expected


def test_nothing_can_be_chosen_of_nothing():
    assert choose([ROWS[-1]], STEPS, None) is None
    assert len(known(ROWS, STEPS)) == 5


def test_the_front_and_what_a_step_costs_on_it():
    assert [each.title for each in front(ROWS, STEPS)] == ["0.30", "0.55", "1.00"]
    lines = prices(ROWS, STEPS).splitlines()
    assert "points for one more latent step" in lines[0]
    assert [line.split("|")[4].strip() for line in lines[2:]] == ["-", "+30.0", "+0.2"]
