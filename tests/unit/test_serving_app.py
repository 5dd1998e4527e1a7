"""The HTTP side over a real policy in this process; tests/integration/test_serving.py has it on a cluster."""

from __future__ import annotations

import dataclasses
import json
import socket
import statistics
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from actors.serving.start import ServingPlan
from avavla_ray.policy.config import preset
from avavla_ray.policy.policy import AvaVlaPolicy
from tests.support.openvla_folder import write_tokenizer
from tests.support.policies import tiny
from tests.support.serving import (
    INSTRUCTION,
    Client,
    body,
    decoded,
    encoded,
    local_server,
    observation,
    picture_text,
    write_checkpoint,
)  # fmt: skip


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("serving") / "policy")


@pytest.fixture(scope="module")
def policy(checkpoint):
    return AvaVlaPolicy.from_checkpoint(checkpoint)


@pytest.fixture(scope="module")
def address(checkpoint):
    with local_server(checkpoint, ServingPlan(max_sessions=40)) as address:
        yield address


@pytest.fixture
def client(address):
    return Client(address)


def episode(policy, decisions=4, belief=None):
    """What the policy decides when asked directly."""
    for seed in range(decisions):
        decision = policy.act(**observation(seed), belief=belief)
        belief = decision.belief
        yield decision


def assert_same(answer, decision):
    np.testing.assert_allclose(answer["actions"], decision.actions, atol=1e-6)
    np.testing.assert_allclose(answer["exit_scores"], decision.exit_scores, atol=1e-6)
    assert answer["latent_steps"] == decision.latent_steps == len(answer["exit_scores"])


def test_a_session_keeps_the_belief_of_an_episode(client, policy):
    session = client.good("POST", "/sessions")["session"]
    for _ in range(2):  # the second time it begins the episode anew
        for seed, decision in enumerate(episode(policy)):
            answer = client.good("POST", "/act", body(seed, session=session, reset=seed == 0))
            assert_same(answer, decision)
            assert "belief" not in answer
            assert answer["milliseconds"] > 0
            assert answer["queued_milliseconds"] >= 0
    assert client.call("DELETE", f"/sessions/{session}") == (204, None)
    status, refused = client.call("POST", "/act", body(0, session=session))
    assert status == 404
    assert "begin the episode anew" in refused["error"]


def test_the_belief_may_stay_with_the_client(client, policy):
    more = {}
    for seed, decision in enumerate(episode(policy)):
        answer = client.good("POST", "/act", body(seed, **more))
        assert_same(answer, decision)
        more = {"belief": answer["belief"]}


def test_another_instruction_alone_begins_no_episode(client, policy):
    session = client.good("POST", "/sessions")["session"]
    first = policy.act(**observation(0))
    client.good("POST", "/act", body(0, session=session))
    answer = client.good("POST", "/act", {**body(1, session=session), "instruction": "open the drawer"})
    seen = {**observation(1), "instruction": "open the drawer"}
    assert_same(answer, policy.act(**seen, belief=first.belief))
    assert not np.allclose(answer["actions"], policy.act(**seen).actions, atol=1e-3)


def test_pictures_may_be_png_and_of_any_size(client, policy):
    seen = observation(3, size=50)
    content = {**body(3, size=50), "images": [picture_text(image) for image in seen["images"]]}
    assert_same(client.good("POST", "/act", content), policy.act(**seen))
    content["images"][0] = picture_text(seen["images"][0], "JPEG")
    assert client.call("POST", "/act", content)[0] == 200


def test_robots_together_are_decided_together_and_as_each_alone(address, policy):
    alone = [policy.act(**observation(seed, size=24 + seed)) for seed in range(12)]

    def ask(seed):
        client = Client(address)
        session = client.good("POST", "/sessions")["session"]
        answers = [client.good("POST", "/act", body(seed, 24 + seed, session=session, reset=True)) for _ in range(3)]
        client.good("DELETE", f"/sessions/{session}")
        return answers

    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(ask, range(12)))
    for one, decision in zip(answers, alone, strict=True):
        for answer in one:
            np.testing.assert_allclose(answer["actions"], decision.actions, atol=1e-5)
    assert max(answer["batch"] for one in answers for answer in one) > 1


def test_one_bad_request_does_not_spoil_its_neighbours(address, policy):
    def ask(seed):
        content = body(seed)
        if seed % 2:
            content["proprio"] = content["proprio"][:5]
        return Client(address).call("POST", "/act", content)

    with ThreadPoolExecutor(8) as pool:
        for seed, (status, answer) in enumerate(pool.map(ask, range(8))):
            if seed % 2:
                assert (status, answer["error"]) == (422, "proprio: shape [5], expected [8]")
            else:
                np.testing.assert_allclose(answer["actions"], policy.act(**observation(seed)).actions, atol=1e-5)


def test_answers_are_not_held_back(client):
    """Nagle's algorithm would delay every answer on an open connection by the 40 ms of the receipt's timer."""
    taken = []
    for _ in range(15):
        start = time.perf_counter()
        client.good("GET", "/health")
        taken.append(time.perf_counter() - start)
    assert statistics.median(taken) < 0.035


def test_health_says_what_is_served_and_how_it_does(client):
    before = client.good("GET", "/health")
    client.good("POST", "/act", body(0))
    after = client.good("GET", "/health")
    assert len(after["policy"]) == 64
    assert (after["preset"], after["device"], after["precision"]) == ("tiny", "cpu", "float32")
    assert (after["cameras"], after["proprio"], after["chunk"], after["action"]) == (2, 8, 8, 7)
    assert (after["attention"], after["compiled"]) == (None, False)
    assert after["decisions"] == before["decisions"] + 1
    assert after["milliseconds_mean"] > 0
    assert after["milliseconds_p90"] > 0
    assert after["batch_mean"] >= 1
    assert 0 <= after["latent_steps_mean"] <= 5
    assert after["uptime_seconds"] >= before["uptime_seconds"]


def test_a_second_request_of_a_session_is_told_to_wait(checkpoint):
    with local_server(checkpoint, ServingPlan(batch_wait_ms=400)) as address, ThreadPoolExecutor(2) as pool:
        session = Client(address).good("POST", "/sessions")["session"]
        both = [pool.submit(Client(address).call, "POST", "/act", body(seed, session=session)) for seed in range(2)]
        (_, decision), (status, refused) = sorted((one.result() for one in both), key=lambda one: one[0])
    assert "actions" in decision
    assert status == 409
    assert "a decision under way" in refused["error"]


def test_a_client_that_leaves_in_the_middle_is_no_failure(address, client, caplog):
    host, port = address.split(":")
    with socket.create_connection((host, int(port))) as leaving:
        leaving.sendall(b"POST /act HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{")
        time.sleep(0.1)
    time.sleep(0.2)
    client.good("POST", "/act", body(0))
    assert not caplog.records


def test_units_are_named_where_there_are_several(tmp_path):
    place = write_checkpoint(tmp_path / "policy", names=("goal", "object"))
    with local_server(place) as address:
        status, answer = Client(address).call("POST", "/act", body(0))
        assert status == 422
        assert "name one of ['goal', 'object']" in answer["error"]
        assert "actions" in Client(address).good("POST", "/act", body(0, unnorm_key="goal"))
    with local_server(place, ServingPlan(unnorm_key="object")) as address:
        assert "actions" in Client(address).good("POST", "/act", body(0))


def test_options_of_thinking_hold_for_every_robot(checkpoint, policy):
    with local_server(checkpoint, depth=2, keep_ratio=0.5) as address:
        answer = Client(address).good("POST", "/act", body(0))
        assert_same(answer, policy.act(**observation(0), depth=2, keep_ratio=0.5))
        assert Client(address).good("GET", "/health")["depth"] == 2


def test_openvla_oft_checkpoint(tmp_path):
    write_tokenizer(tmp_path / "tokenizer.json", 300)
    config = dataclasses.replace(preset("openvla_oft_tiny"), tokenizer=(tmp_path / "tokenizer.json").read_text())
    place = write_checkpoint(tmp_path / "policy", config)
    policy, belief = AvaVlaPolicy.from_checkpoint(place), None
    with local_server(place) as address:
        client = Client(address)
        assert client.good("GET", "/health")["attention"] == "sdpa"
        session = client.good("POST", "/sessions")["session"]
        for seed in range(3):
            seen = observation(seed, size=64)
            seen["proprio"] = seen["proprio"][: config.proprio_dim]
            decision = policy.act(**seen, belief=belief)
            belief = decision.belief
            payload = {
                "full_image": encoded(seen["images"][0]), "wrist_image": encoded(seen["images"][1]),
                "state": seen["proprio"].tolist(), "instruction": INSTRUCTION,
            }  # fmt: skip
            answer = client.good("POST", "/act", payload, session=session)
            np.testing.assert_allclose([decoded(action) for action in answer], decision.actions, atol=1e-5)


def test_too_many_sessions_are_refused(tmp_path, checkpoint):
    with local_server(checkpoint, ServingPlan(max_sessions=2)) as address:
        client = Client(address)
        names = [client.good("POST", "/sessions")["session"] for _ in range(2)]
        status, answer = client.call("POST", "/sessions")
        assert status == 429
        assert "2 sessions are open" in answer["error"]
        client.good("DELETE", f"/sessions/{names[0]}")
        client.good("POST", "/sessions")


def test_an_idle_session_expires(checkpoint):
    with local_server(checkpoint, ServingPlan(session_minutes=0.3 / 60)) as address:
        client = Client(address)
        session = client.good("POST", "/sessions")["session"]
        client.good("POST", "/act", body(0, session=session))
        time.sleep(0.4)
        status, answer = client.call("POST", "/act", body(1, session=session))
        assert status == 404
        assert "idle for 0.005 minutes" in answer["error"]
        assert client.good("GET", "/health")["sessions"] == 0


# OpenVLA's and OFT's forms; the field names and the answers' shapes are those of their vla-scripts/deploy.py.


@pytest.fixture(scope="module")
def one_camera(tmp_path_factory):
    config = tiny(backbone__num_cameras=1, proprio_dim=0)
    place = write_checkpoint(tmp_path_factory.mktemp("one_camera") / "policy", config)
    with local_server(place) as address:
        yield Client(address), AvaVlaPolicy.from_checkpoint(place)


def test_openvla_clients_get_one_action(one_camera):
    client, policy = one_camera
    image = observation(0)["images"][0]
    expected = policy.act([image], INSTRUCTION)
    payload = {"image": encoded(image), "instruction": INSTRUCTION, "unnorm_key": "noise"}
    answer = client.good("POST", "/act", payload)
    assert set(answer) == {"__numpy__", "dtype", "shape"}
    assert (answer["dtype"], answer["shape"]) == ("<f8", [7])
    np.testing.assert_allclose(decoded(answer), expected.actions[0], atol=1e-6)
    # Again from a zero belief, and double-encoded: JSON text inside JSON, both ways.
    text = client.good("POST", "/act", {"encoded": json.dumps({**payload, "unnorm_key": None})})
    np.testing.assert_allclose(decoded(json.loads(text)), expected.actions[0], atol=1e-6)
    # With a session the belief is kept, whether a field or a header names it.
    session = client.good("POST", "/sessions")["session"]
    client.good("POST", "/act", {**payload, "session": session})
    second = client.good("POST", "/act", payload, session=session)
    expected = policy.act([image], INSTRUCTION, belief=expected.belief)
    np.testing.assert_allclose(decoded(second), expected.actions[0], atol=1e-6)


def test_oft_clients_get_a_list_of_actions(client, policy):
    seen = observation(0)
    payload = {
        "left_wrist_image": encoded(seen["images"][1]), "full_image": encoded(seen["images"][0]),
        "state": encoded(seen["proprio"].astype(np.float64)), "instruction": INSTRUCTION, "task": "not looked at",
    }  # fmt: skip
    expected = policy.act(**seen)
    for answer in (
        client.good("POST", "/act", payload),
        json.loads(client.good("POST", "/act", {"encoded": json.dumps(payload)})),
    ):
        assert len(answer) == 8
        assert all((action["dtype"], action["shape"]) == ("<f8", [7]) for action in answer)
        np.testing.assert_allclose([decoded(action) for action in answer], expected.actions, atol=1e-6)
