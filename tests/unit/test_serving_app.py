"""The HTTP side over a real policy in this process; tests/integration/test_serving.py has it on a cluster."""

from __future__ import annotations

import base64
import dataclasses
import json
import socket
import statistics
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from actors.serving.app import MAX_BODY
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
    client.good("POST", "/act", GOOD)
    assert not caplog.records


def test_units_are_named_where_there_are_several(tmp_path):
    place = write_checkpoint(tmp_path / "policy", names=("goal", "object"))
    with local_server(place) as address:
        status, answer = Client(address).call("POST", "/act", GOOD)
        assert status == 422
        assert "name one of ['goal', 'object']" in answer["error"]
        assert "actions" in Client(address).good("POST", "/act", changed(unnorm_key="goal"))
    with local_server(place, ServingPlan(unnorm_key="object")) as address:
        assert "actions" in Client(address).good("POST", "/act", GOOD)


def test_options_of_thinking_hold_for_every_robot(checkpoint, policy):
    with local_server(checkpoint, depth=2, keep_ratio=0.5) as address:
        answer = Client(address).good("POST", "/act", GOOD)
        assert_same(answer, policy.act(**observation(0), depth=2, keep_ratio=0.5))
        assert Client(address).good("GET", "/health")["depth"] == 2


def test_openvla_oft_checkpoint(tmp_path):
    write_tokenizer(tmp_path / "tokenizer.json", 300)
    config = dataclasses.replace(preset("openvla_oft_tiny"), tokenizer=(tmp_path / "tokenizer.json").read_text())
    place = write_checkpoint(tmp_path / "policy", config)
    policy, belief = AvaVlaPolicy.from_checkpoint(place), None
    with local_server(place) as address:
        client = Client(address)
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


# Whatever a client sends, it is told in one line what is wrong.

GOOD = body(0)
IMAGE = GOOD["images"][0]


def changed(**changes):
    return {**GOOD, **changes}


def pictures(**changes):
    return changed(images=[IMAGE, {**IMAGE, **changes}])


@pytest.mark.parametrize(
    ("content", "status", "complaint"),
    [
        ("", 400, "not JSON"),
        ("[1, 2]", 400, "a JSON list, expected an object"),
        (b"\xff\xfe\x00", 400, "not JSON"),
        ("[" * 100_000, 400, "not JSON"),
        ('{"instruction": ' + "1" * 5000 + "}", 400, "not JSON"),
        ({"images": []}, 400, "instruction is missing"),
        ({"instruction": "go"}, 400, "images is missing"),
        (changed(instrction="typo"), 400, "unknown field 'instrction'"),
        ({"encoded": "{}", "image": 3}, 400, "no other field"),
        ({"encoded": 5}, 400, "not JSON"),
        ({"encoded": "not json"}, 400, "not JSON"),
        (changed(belief="", session="x"), 400, "neither session nor reset"),
        (changed(belief="", reset=True), 400, "neither session nor reset"),
        (changed(session="x"), 404, "no session 'x'"),
        (changed(session=5), 422, "session: int, expected text"),
        (changed(reset="yes"), 422, "reset: str, expected true or false"),
        (changed(instruction=["go"]), 422, "instruction: list, expected text"),
        (changed(instruction=""), 422, "instruction"),
        (changed(instruction="go " * 200), 422, "instruction"),
        (changed(instruction="g" * 3000), 422, "instruction: 3000 characters, at most 2000"),
        (changed(unnorm_key="nois"), 422, "did you mean 'noise'?"),
        (changed(images=[IMAGE]), 422, "images: expected 2, one a camera, got 1"),
        (changed(images=[IMAGE] * 17), 422, "images: 17, at most 16"),
        (changed(images=[IMAGE, 5]), 422, "images[1]: 5, expected a base64 PNG or JPEG"),
        (changed(images=[IMAGE, "AAAA"]), 422, "images[1]: not a whole PNG or JPEG"),
        (changed(images=[IMAGE, "no base64!"]), 422, "images[1]: not base64"),
        (pictures(dtype="|O"), 422, "images[1]: array of type '|O'"),
        (pictures(dtype=[["x", "<f4"]]), 422, "images[1]: array of type list"),
        (pictures(dtype="<f4"), 422, "images[1]: 3072 bytes, an array [32, 32, 3] of <f4 has 12288"),
        (pictures(shape=[32, 32, 4]), 422, "images[1]: 3072 bytes"),
        (pictures(shape=[3, 32, 32]), 422, "images[1]: uint8 [3, 32, 32], expected uint8 [height, width, 3]"),
        (pictures(shape=[-32, -32, 3]), 422, "images[1]: array of shape list"),
        (pictures(shape=[2**31, 2**31, 2**31, 0]), 422, "images[1]: 3072 bytes"),
        (pictures(shape=[1, 1024, 3]), 422, "images[1]: expected at least 16 pixels"),
        (pictures(shape="32"), 422, "images[1]: array of shape '32'"),
        (pictures(__numpy__=None), 422, "images[1]: None, expected base64 text"),
        (changed(images=[IMAGE, encoded(np.zeros((32, 32, 3), np.float32))]), 422, "images[1]: float32 [32, 32, 3]"),
        (changed(images=[IMAGE, encoded(np.zeros((0, 0, 3), np.uint8))]), 422, "images[1]: [0, 0, 3], sides must be"),
        (changed(proprio=None), 422, "proprio: expected 8 numbers, got none"),
        (changed(proprio=[0.0] * 7), 422, "proprio: shape [7], expected [8]"),
        (changed(proprio=[0.0] * 7 + [float("nan")]), 422, "proprio: holds NaN"),
        (changed(proprio=[0.0] * 7 + [1e300]), 422, "proprio: holds NaN or an infinite number"),
        (changed(proprio=[0.0] * 7 + [10**400]), 422, "proprio: a number is too large"),
        (changed(proprio=[0.0] * 7 + [True]), 422, "proprio: list, expected a list of 8 numbers"),
        (changed(proprio="12345678"), 422, "proprio: '12345678', expected a list of 8 numbers"),
        (changed(proprio=encoded(np.zeros((2, 4)))), 422, "proprio: shape [2, 4], expected [8]"),
        (changed(belief=5), 422, "belief: int, expected text"),
        (changed(belief="AAAA"), 422, "belief: 3 bytes, this policy's have"),
        ({"image": IMAGE, "instruction": "go"}, 422, "images: expected 2, one a camera, got 1"),
        ({"full_image": IMAGE, "wrist_image": IMAGE, "state": [0.0], "instruction": "go"}, 422, "state: shape [1]"),
    ],
)  # fmt: skip
def test_bad_requests_are_refused_in_one_line(client, content, status, complaint):
    found, answer = client.call("POST", "/act", content)
    assert found == status, answer
    assert complaint in answer["error"]
    assert "\n" not in answer["error"]
    assert len(answer["error"]) <= 300
    assert set(answer) == {"error"}


def test_a_huge_picture_is_refused_before_it_is_unpacked(client):
    flat = picture_text(np.zeros((5000, 5000, 3), np.uint8))
    assert len(flat) < 400_000
    status, answer = client.call("POST", "/act", changed(images=[IMAGE, flat]))
    assert (status, answer["error"]) == (422, "images[1]: 5000x5000 pixels, at most 4096 a side")


def test_a_grey_picture_is_refused(client):
    status, answer = client.call("POST", "/act", changed(images=[IMAGE, picture_text(np.zeros((32, 32), np.uint8))]))
    assert (status, answer["error"]) == (422, "images[1]: picture of mode L, expected RGB")


def test_a_huge_body_is_refused(client):
    status, answer = client.call("POST", "/act", b" " * (MAX_BODY + 1))
    assert status == 413
    assert "send smaller pictures" in answer["error"]


def test_a_belief_of_another_policy_is_refused(client, one_camera):
    belief = client.good("POST", "/act", GOOD)["belief"]
    content = bytearray(base64.b64decode(belief))
    content[0] ^= 1
    status, answer = client.call("POST", "/act", changed(belief=base64.b64encode(content).decode()))
    assert (status, answer["error"][:27]) == (422, "belief: from another policy")
    content[0] ^= 1
    content[16:20] = np.float32("nan").tobytes()
    status, answer = client.call("POST", "/act", changed(belief=base64.b64encode(content).decode()))
    assert status == 422
    assert "holds NaN" in answer["error"]


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/act", 405), ("POST", "/nowhere", 404), ("DELETE", "/sessions/none", 404)]
)
def test_other_addresses_say_what_there_is(client, method, path, status):
    found, answer = client.call(method, path)
    assert found == status
    assert "POST /sessions" in answer["error"]


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
