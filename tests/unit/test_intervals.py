import pytest
from hypothesis import given
from hypothesis import strategies as st

from avavla_ray.evaluation.intervals import wilson


# Values of Wilson's formula worked out by hand for z = 1.96 (Newcombe 1998, table I: 81/263, 15/148, 0/20, 1/29).
@pytest.mark.parametrize(
    ("successes", "episodes", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_published_values(successes, episodes, low, high):
    assert wilson(successes, episodes) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_contains_the_share_and_mirrors(pair):
    successes, episodes = pair
    low, high = wilson(successes, episodes)
    assert 0.0 <= low <= successes / episodes <= high <= 1.0
    mirrored = wilson(episodes - successes, episodes)
    assert (1 - mirrored[1], 1 - mirrored[0]) == pytest.approx((low, high), abs=1e-9)


def test_nothing_played_says_nothing():
    assert wilson(0, 0) == (0.0, 1.0)


def test_impossible_counts():
    with pytest.raises(ValueError, match="3 successes in 2"):
        wilson(3, 2)
