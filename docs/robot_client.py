"""A robot that asks a policy server for its actions: python docs/robot_client.py http://127.0.0.1:8777"""

import base64
import json
import sys
import urllib.error
import urllib.request

import numpy as np


class Robot:
    def __init__(self, url):
        self.url = url.rstrip("/")
        self.session = self.call("POST", "/sessions")["session"]  # the server keeps this robot's belief in it

    def call(self, method, path, **fields):
        request = urllib.request.Request(self.url + path, json.dumps(fields).encode(), method=method)
        try:
            return json.loads(urllib.request.urlopen(request, timeout=60).read() or "null")
        except urllib.error.HTTPError as refusal:
            raise RuntimeError(f"{refusal.code} {json.loads(refusal.read())['error']}") from None

    def act(self, images, instruction, proprio, begins):
        """images (H, W, 3) uint8, one a camera; begins: a new episode -> actions (C, A), to be executed in turn."""
        text = [base64.b64encode(image.tobytes()).decode() for image in images]
        images = [{"__numpy__": t, "dtype": "|u1", "shape": i.shape} for t, i in zip(text, images, strict=True)]
        fields = {"images": images, "instruction": instruction, "proprio": list(map(float, proprio)), "reset": begins}
        return np.array(self.call("POST", "/act", session=self.session, **fields)["actions"])


if __name__ == "__main__":
    robot = Robot(sys.argv[1])
    policy = robot.call("GET", "/health")
    for decision in range(5):
        images = np.random.randint(0, 256, (policy["cameras"], 128, 128, 3), np.uint8)
        print(
            robot.act(images, "pick up the red block", np.zeros(policy["proprio"]), decision == 0)[0].round(3).tolist()
        )
    robot.call("DELETE", f"/sessions/{robot.session}")
