"""The three forms of a request for a decision, and of its answer.

    own      {"images": [...], "instruction", "proprio", "unnorm_key", "session", "reset", "belief"} -> an object
    OpenVLA  {"image", "instruction", "unnorm_key"} -> one action (A,), as vla-scripts/deploy.py of openvla/openvla
    OFT      {"full_image", "..._wrist_image", "state", "instruction"} -> C actions (A,) in a list, as
             vla-scripts/deploy.py of moojink/openvla-oft

Each may come as {"encoded": "the object as JSON text"}; the answer then is JSON text inside JSON, as of those servers.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from actors.serving.batching import Decided
from actors.serving.belief_text import encode_belief
from actors.serving.faults import Fault
from actors.serving.messages import PolicyFacts
from actors.serving.wire import decode_image, decode_numbers, encode_array
from avavla_ray.errors import InputError

OWN_FIELDS = ("images", "instruction", "proprio", "unnorm_key", "session", "reset", "belief")
MAX_INSTRUCTION = 2000  # characters; the policy's own limit is in tokens


@dataclass(frozen=True)
class Call:
    """A request for a decision, its arrays still as text.

    Attributes:
        images: field name and content of each, in the order of the policy's cameras.
        encoded: the answer goes out as JSON text inside JSON.
    """

    form: Literal["own", "openvla", "oft"]
    images: tuple[tuple[str, Any], ...]
    instruction: str
    proprio: Any
    unnorm_key: str | None
    session: str | None
    reset: bool
    belief: str | None
    encoded: bool

    def decoded_images(self, cameras: int) -> list[np.ndarray]:
        """Raises InputError for another number of pictures, before any is unpacked, and for what isn't a picture."""
        if len(self.images) != cameras:
            raise InputError(f"images: expected {cameras}, one a camera, got {len(self.images)}")
        return [decode_image(field, value) for field, value in self.images]

    def decoded_proprio(self, length: int) -> np.ndarray | None:
        """(length,) float32 in the data's units. Raises InputError for another length, or what isn't finite numbers."""
        if self.proprio is None or length == 0:
            return None
        return decode_numbers("state" if self.form == "oft" else "proprio", self.proprio, length)


def read_call(body: bytes, session_header: str | None) -> Call:
    """The request that a body holds.

    Args:
        session_header: a client that can't add a field to its body names its session here.

    Raises:
        Fault: 400, the body has another form.
        InputError: a field's value is of another kind.
    """
    content = _object(body)
    encoded = "encoded" in content
    if encoded:
        if len(content) != 1:
            raise Fault(400, 'body: beside "encoded" there must be no other field')
        content = _object(content["encoded"])
    form: Literal["own", "openvla", "oft"] = "own"
    proprio = content.get("proprio")
    if "full_image" in content:
        form, proprio = "oft", content.get("state")
        # The reference takes every field with "wrist" in its name, in the order of the body.
        others = sorted(
            field for field in content.keys() - {"full_image"} if field.endswith("_image") or "wrist" in field
        )
        images = [(field, content[field]) for field in ("full_image", *others)]
    elif "image" in content:
        form, images = "openvla", [("image", content["image"])]
    else:
        images = _own_images(content)
    session = _text(content, "session") or session_header
    belief, reset = _text(content, "belief"), content.get("reset", False)
    if not isinstance(reset, bool):
        raise InputError(f"reset: {type(reset).__name__}, expected true or false")
    if belief is not None and (session is not None or reset):
        raise Fault(400, "body: a belief belongs to a request with neither session nor reset: leave one of them out")
    instruction = _text(content, "instruction")
    if instruction is None:
        raise Fault(400, "body: the field instruction is missing")
    if len(instruction) > MAX_INSTRUCTION:
        raise InputError(f"instruction: {len(instruction)} characters, at most {MAX_INSTRUCTION}")
    return Call(
        form, tuple(images), instruction, proprio, _text(content, "unnorm_key"), session, reset, belief, encoded
    )


def write_answer(call: Call, decided: Decided, facts: PolicyFacts) -> bytes:
    """The body of the answer to `call`."""
    answer = decided.answer
    content: Any
    if call.form == "own":
        content = {
            "actions": answer.actions.tolist(),
            "latent_steps": answer.latent_steps,
            "exit_scores": answer.exit_scores.tolist(),
            "milliseconds": answer.milliseconds,
            "queued_milliseconds": decided.queued_milliseconds,
            "batch": decided.batch,
        }
        if call.session is None:
            content["belief"] = encode_belief(answer.belief, facts)
    else:
        # Float64, as those servers answer; single numbers are exact in it.
        actions = [encode_array(action.astype("<f8")) for action in answer.actions]
        content = actions if call.form == "oft" else actions[0]
    text = json.dumps(content, allow_nan=False)
    return (json.dumps(text) if call.encoded else text).encode()


def _object(text: str | bytes) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except (ValueError, TypeError, RecursionError) as error:
        raise Fault(400, f"body: not JSON ({type(error).__name__}: {str(error)[:80]})") from error
    if not isinstance(content, dict):
        raise Fault(400, f"body: a JSON {type(content).__name__}, expected an object")
    return content


def _own_images(content: dict[str, Any]) -> list[tuple[str, Any]]:
    unknown = sorted(content.keys() - set(OWN_FIELDS))
    if unknown:
        raise Fault(400, f"body: unknown field {unknown[0][:40]!r}, known: {', '.join(OWN_FIELDS)}")
    if not isinstance(content.get("images"), list):
        raise Fault(400, "body: the field images is missing or no list: give one image a camera")
    return [(f"images[{index}]", value) for index, value in enumerate(content["images"])]


def _text(content: dict[str, Any], field: str) -> str | None:
    value = content.get(field)
    if value is not None and not isinstance(value, str):
        raise InputError(f"{field}: {type(value).__name__}, expected text")
    # JSON can write halves of surrogate pairs, which are no characters: nothing could hash, log or answer them.
    if value is not None and any("\ud800" <= character <= "\udfff" for character in value):
        raise InputError(f"{field}: holds half a surrogate pair, expected text that UTF-8 can write")
    return value
