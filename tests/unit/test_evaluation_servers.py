"""A policy server decides on what the results say it decided on."""

import pytest
import ray
import torch

from actors.evaluation_actors import DecisionServer
from avavla_ray.errors import InputError


@pytest.mark.skipif(torch.cuda.is_available(), reason="torch can use this machine's GPU")
def test_a_server_that_was_given_a_gpu_does_not_decide_on_the_cpu(monkeypatch):
    monkeypatch.setattr(ray, "get_gpu_ids", lambda: [3])  # as in an actor that Ray has given one
    with pytest.raises(InputError, match=r"was given GPU 3, but torch .* has no CUDA.*--server-gpus"):
        DecisionServer().device([])
