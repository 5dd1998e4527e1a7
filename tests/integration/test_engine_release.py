"""An engine that is done with leaves its memory to the next one."""

from __future__ import annotations

import pytest
import torch.multiprocessing as mp

from tests.support import engine_release_ranks
from tests.support.ports import free_port


@pytest.mark.timeout(300)
def test_a_released_engine_leaves_no_tensor_and_the_next_one_trains_alike():
    mp.spawn(engine_release_ranks.work, (free_port(),), nprocs=1)
