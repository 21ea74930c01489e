"""A general batching server, LitServe, as its manual shows.

    python -m serve_sides.lit_server '{"run": ..., "port": ...}'
    python -m serve_sides.lit_server '{"run": ..., "port": ..., "device": "cuda"}'

With a device it paints by our network, sampler and replayed calls instead of a pipeline of diffusers'. A batch may hold
requests of different step counts; those of a count are painted together, one count after the other.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from typing import Any

import litserve

from serve_sides.model import Ours, Pipeline, load

MAX_BATCH = 16
TIMEOUT_S = 0.01


class TextToImageAPI(litserve.LitAPI):
    def __init__(self, run: str, device: str | None) -> None:
        super().__init__(max_batch_size=MAX_BATCH, batch_timeout=TIMEOUT_S, api_path="/v1/images/generations")
        self.run, self.on = run, device

    def setup(self, device: str) -> None:
        self.paint = Pipeline(load(self.run)) if self.on is None else Ours(load(self.run).to(self.on))

    def decode_request(self, request):  # LitServe makes its endpoint of this signature
        return request

    def batch(self, inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return inputs

    def predict(self, inputs: Any) -> list[str]:
        by_steps = defaultdict(list)
        for place, request in enumerate(inputs):
            by_steps[request["num_inference_steps"]].append(place)
        answers = [""] * len(inputs)
        for num_steps, places in by_steps.items():
            prompts, seeds = [inputs[p]["prompt"] for p in places], [inputs[p]["seed"] for p in places]
            for place, png in zip(places, self.paint(prompts, seeds, num_steps), strict=True):
                answers[place] = png
        return answers

    def unbatch(self, output: list[str]) -> list[str]:
        return output

    def encode_response(self, output: str) -> dict[str, Any]:
        return {"data": [{"b64_json": output}]}


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    on = given.get("device")
    api, accelerator = TextToImageAPI(given["run"], on), "cuda" if on == "cuda" else "cpu"
    server = litserve.LitServer(api, accelerator=accelerator, devices=1, workers_per_device=1, timeout=600)
    server.run(host="127.0.0.1", port=int(given["port"]), generate_client_file=False, log_level="error")
