from __future__ import annotations

import pytest
import torch

from avavla_ray.learning.exit_labels import exit_labels, exit_loss


def test_label_is_one_where_three_more_steps_gain_less_than_delta():
    values = torch.tensor([[0.0, 0.10, 0.20, 0.30, 0.31, 0.32]])
    # z_1 -> z_4 gains 0.21, z_2 -> z_5 0.12; z_3 and z_4 are compared with z_5: 0.02, 0.01.
    assert exit_labels(values).tolist() == [[0, 0, 1, 1]]


def test_delta_and_lookahead_matter():
    values = torch.tensor([[0.0, 0.10, 0.20, 0.30, 0.31, 0.32]])
    assert exit_labels(values, delta=0.15).tolist() == [[0, 1, 1, 1]]
    assert exit_labels(values, lookahead=1).tolist() == [[0, 0, 1, 1]]
    assert exit_labels(values, delta=0.0).tolist() == [[0, 0, 0, 0]]


def test_falling_values_say_stop():
    assert exit_labels(torch.tensor([[0.5, 0.4, 0.3]])).tolist() == [[1]]


def test_a_gate_to_which_all_states_look_alike_learns_how_often_to_leave():
    labels = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    logit = torch.zeros((), requires_grad=True)
    loss, share = exit_loss(logit.expand(2, 3), labels)
    (slope,) = torch.autograd.grad(loss, logit)
    assert share == pytest.approx(2 / 6)
    assert slope.item() == pytest.approx(0.5 - 2 / 6)


def test_nobody_is_asked_after_the_only_step():
    logit, labels = torch.zeros((), requires_grad=True), exit_labels(torch.tensor([[0.5, 0.4], [0.1, 0.9]]))
    assert labels.shape == (2, 0)
    alone, share = exit_loss(logit.expand(2, 0), labels)
    assert alone == share == 0
    alone.backward()  # collectives of an engine want a gradient, whatever it is
