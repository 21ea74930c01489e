"""What people write first: FastAPI that calls a pipeline for each request.

    python -m serve_sides.plain_server '{"run": ..., "port": ..., "way": "pipeline"}'

`way` eir paints as `eirserve` does with the tutorial's model: one at a time, DDIM of 200 steps with eta 0.2 in float32,
answered as base64 of the float32 pixels.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
import uvicorn
from fastapi import FastAPI

from diffusion_art.accel.cores import leave_cores
from serve_sides.model import EIR_SAMPLER, GUIDANCE_SCALE, Pipeline, load


def app_of(run: str, way: str) -> FastAPI:
    cores = leave_cores()
    app, model = FastAPI(), load(run)
    paint = None if way == "eir" else Pipeline(model)
    # one at a time, and always in the same thread: two pipelines at once on the same cores take more than twice as long
    turn = ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(cores,))

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    def painted(request: dict[str, Any]) -> str:
        prompts, seeds = [request["prompt"]], [request["seed"]]
        if paint is not None:
            return paint(prompts, seeds, request["num_inference_steps"])[0]
        image = model.generate(prompts, seeds=seeds, sampler=EIR_SAMPLER, guidance_scale=GUIDANCE_SCALE)[0]
        return base64.b64encode(((image + 1) / 2).to(torch.float32).numpy().tobytes()).decode()

    @app.post("/v1/images/generations")
    async def generate(request: dict[str, Any]) -> dict[str, Any]:
        return {"data": [{"b64_json": await asyncio.get_running_loop().run_in_executor(turn, painted, request)}]}

    return app


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    uvicorn.run(app_of(given["run"], given["way"]), host="127.0.0.1", port=int(given["port"]), log_level="error")
