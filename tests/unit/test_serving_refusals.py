"""Whatever a client sends, it is told in one line what is wrong, and the server goes on."""

from __future__ import annotations

import base64
import json
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.serving.app import MAX_BODY
from actors.serving.conventions import read_call
from actors.serving.faults import Fault
from avavla_ray.errors import InputError
from tests.support.serving import Client, body, encoded, local_server, picture_text, write_checkpoint


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    with local_server(write_checkpoint(tmp_path_factory.mktemp("serving") / "policy")) as address:
        yield Client(address)


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
        (changed(images=[IMAGE] * 17), 422, "images: expected 2, one a camera, got 17"),
        (changed(images=["no picture"] * 3), 422, "images: expected 2, one a camera, got 3"),
        (changed(instruction="go \ud800"), 422, "instruction: holds half a surrogate pair"),
        (changed(unnorm_key="\udfff"), 422, "unnorm_key: holds half a surrogate pair"),
        ({"encoded": json.dumps(changed(session="\udc80"))}, 422, "session: holds half a surrogate pair"),
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
    flat = picture_text(np.zeros((2100, 2100, 3), np.uint8))
    assert len(flat) < 100_000
    status, answer = client.call("POST", "/act", changed(images=[IMAGE, flat]))
    assert (status, answer["error"]) == (422, "images[1]: 2100x2100 pixels, at most 2048 a side")


def test_pictures_beyond_the_cameras_are_not_unpacked(client):
    """A body of 300 kB that would unpack to 200 MB."""
    flat = picture_text(np.zeros((2048, 2048, 3), np.uint8))
    client.call("POST", "/act", changed(images=[IMAGE, IMAGE, flat]))
    tracemalloc.start()
    assert client.call("POST", "/act", changed(images=[flat] * 16))[0] == 422
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8e6


def test_a_grey_picture_is_refused(client):
    status, answer = client.call("POST", "/act", changed(images=[IMAGE, picture_text(np.zeros((32, 32), np.uint8))]))
    assert (status, answer["error"]) == (422, "images[1]: picture of mode L, expected RGB")


def test_a_huge_body_is_refused(client):
    status, answer = client.call("POST", "/act", b" " * (MAX_BODY + 1))
    assert status == 413
    assert "send smaller pictures" in answer["error"]


def test_a_belief_of_another_policy_is_refused(client):
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
    content[16:20] = np.float32(3e38).tobytes()
    status, answer = client.call("POST", "/act", changed(belief=base64.b64encode(content).decode()))
    assert (status, answer["error"][:37]) == (422, "belief: holds numbers beyond 1e+06: g")


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/act", 405), ("POST", "/nowhere", 404), ("DELETE", "/sessions/none", 404)]
)
def test_other_addresses_say_what_there_is(client, method, path, status):
    found, answer = client.call(method, path)
    assert found == status
    assert "POST /sessions" in answer["error"]


# Anything JSON can hold, at the places where something else belongs.
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
ARRAYS = st.fixed_dictionaries(
    {"__numpy__": ANYTHING | st.binary(max_size=12).map(lambda content: base64.b64encode(content).decode())},
    optional={
        "dtype": ANYTHING | st.sampled_from(["|u1", "<f4", "|O", "uint8"]),
        "shape": ANYTHING | st.lists(st.integers(-2, 3), max_size=5),
    },
)
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "images": ANYTHING | st.lists(ANYTHING | ARRAYS, max_size=3),
        "instruction": ANYTHING | st.just("go"),
        **dict.fromkeys(("image", "full_image", "wrist_image", "state", "proprio"), ANYTHING | ARRAYS),
        **dict.fromkeys(("session", "belief", "reset", "unnorm_key", "encoded"), ANYTHING),
    },
)


@settings(max_examples=150, deadline=None)
@given(content=FIELDS)
def test_no_request_breaks_the_reader(content):
    try:
        call = read_call(json.dumps(content).encode(), None)
        call.decoded_proprio(8)
        for image in call.decoded_images(len(call.images)):
            assert image.dtype == np.uint8
            assert image.shape[2] == 3
    except (Fault, InputError):
        pass  # the two that clients are told; anything else would be the server's failure
