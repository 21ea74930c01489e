"""What people write first: FastAPI that calls a pipeline for each request.

    python -m serve_sides.plain_server '{"run": ..., "port": ..., "way": "pipeline"}'

`way` eir paints as `eirserve` does with the tutorial's model: one at a time, DDIM of 200 steps with eta 0.2 in float32,
answered as base64 of the float32 pixels.
"""

from __future__ import annotations

import base64
import json
import sys
import threading
from typing import Any

import torch
import uvicorn
from fastapi import FastAPI

from diffusion_art.diffusion.samplers import Sampler
from serve_sides.model import GUIDANCE_SCALE, load, paint


def app_of(run: str, way: str) -> FastAPI:
    app, model, turn = FastAPI(), load(run), threading.Lock()

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.post("/v1/images/generations")
    def generate(request: dict[str, Any]) -> dict[str, Any]:
        with turn:  # two pipelines at once on the same cores take more than twice as long
            if way == "eir":
                sampler = Sampler("ddim", num_steps=200, eta=0.2)
                image = model.generate(
                    [request["prompt"]], seeds=[request["seed"]], sampler=sampler, guidance_scale=GUIDANCE_SCALE
                )[0]
                pixels = ((image + 1) / 2).to(torch.float32).numpy().tobytes()
                return {"data": [{"b64_json": base64.b64encode(pixels).decode()}]}
            png = paint(model, [request["prompt"]], [request["seed"]], num_steps=request["num_inference_steps"])
        return {"data": [{"b64_json": png[0]}]}

    return app


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    uvicorn.run(app_of(given["run"], given["way"]), host="127.0.0.1", port=int(given["port"]), log_level="error")
