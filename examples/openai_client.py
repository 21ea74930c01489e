"""OpenAI's own client, pointed at our server: pictures at once, and one that can be watched as it is painted.

    python examples/openai_client.py "Claude Monet / Water Lilies / Impressionism / landscape / 1906"

Needs `openai`. What OpenAI's API does not have, such as seed, steps and guidance, goes into `extra_body`.
"""

import argparse
import base64
import os
from pathlib import Path

from openai import OpenAI

PROMPT = "Claude Monet / Water Lilies / Impressionism / landscape / 1906"


def paint(client: OpenAI, prompt: str, out: Path, *, count: int = 2, seed: int = 0) -> list[Path]:
    """Some pictures, from consecutive seeds."""
    answer = client.images.generate(prompt=prompt, n=count, response_format="b64_json", extra_body={"seed": seed})
    paths = []
    for picture in answer.data or []:
        paths.append(out / f"seed_{(picture.model_extra or {})['seed']}.png")
        paths[-1].write_bytes(base64.b64decode(picture.b64_json or ""))
    return paths


def watch(client: OpenAI, prompt: str, out: Path, *, seed: int = 0) -> list[Path]:
    """One picture with looks at it on the way."""
    paths = []
    settings = {"seed": seed, "num_inference_steps": 20, "guidance_scale": 4}
    with client.images.generate(prompt=prompt, stream=True, partial_images=3, extra_body=settings) as events:
        for event in events:
            done = event.type == "image_generation.completed"
            paths.append(out / ("watched.png" if done else f"watched_{event.partial_image_index}.png"))
            paths[-1].write_bytes(base64.b64decode(event.b64_json))
    return paths


def main() -> None:
    parser = argparse.ArgumentParser(description="Paint with OpenAI's client.")
    parser.add_argument("prompt", nargs="?", default=PROMPT)
    parser.add_argument("--url", default="http://localhost:8000")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(), help="folder of the pictures")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    token = os.environ.get("DIFFUSION_ART_SERVE_TOKEN") or "none"
    with OpenAI(base_url=f"{asked.url}/v1", api_key=token) as client:
        for path in paint(client, asked.prompt, asked.out, seed=asked.seed):
            print(path)
        for path in watch(client, asked.prompt, asked.out, seed=asked.seed):
            print(path)


if __name__ == "__main__":
    main()
