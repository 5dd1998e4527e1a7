"""An engine that is done with leaves its memory to the next one."""

from __future__ import annotations

import pytest

from tests.support import engine_release_ranks
from tests.support.ports import free_port
from tests.support.ranks import run_ranks


@pytest.mark.timeout(300)
def test_a_released_engine_leaves_no_tensor_and_the_next_one_trains_alike():
    run_ranks(engine_release_ranks.work, (free_port(),), 1)
