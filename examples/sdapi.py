"""Ask for paintings as front ends of AUTOMATIC1111's web UI do, watch them come about, and save them.

    python examples/sdapi.py "Claude Monet / Water Lilies / Impressionism / landscape / 1906" --size 512

Needs `requests`. The same script works against the web UI itself, started with --api.
"""

import argparse
import base64
import json
import os
import sys
import threading
from pathlib import Path

import requests

CAPTION = "Claude Monet / Water Lilies / Impressionism / landscape / 1906"


def main() -> None:
    parser = argparse.ArgumentParser(description="Ask /sdapi/v1/txt2img for paintings and save them.")
    parser.add_argument("prompt", nargs="?", default=CAPTION)
    parser.add_argument("--url", default="http://localhost:8000")
    parser.add_argument(
        "--token", default=os.environ.get("DIFFUSION_ART_SERVE_TOKEN"), help="or USER:PASSWORD's latter"
    )
    parser.add_argument("--seed", type=int, default=-1, help="of the first picture; -1: any")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--size", type=int, help="pixels a side; none: as the model paints")
    parser.add_argument("--count", type=int, default=2)
    asked = parser.parse_args()
    session = requests.Session()
    session.auth = ("user", asked.token) if asked.token else None
    body = {"prompt": asked.prompt, "seed": asked.seed, "steps": asked.steps, "batch_size": asked.count}
    if asked.size:
        body |= {"width": asked.size, "height": asked.size}
    done = threading.Event()
    watching = threading.Thread(target=watch, args=(session, asked.url, done))
    watching.start()
    try:
        answer = session.post(f"{asked.url}/sdapi/v1/txt2img", json=body, timeout=600)
    finally:
        done.set()
        watching.join()
    if not answer.ok:
        raise SystemExit(f"{answer.status_code}: {answer.json()['detail']}")
    save(answer.json())


def watch(session: requests.Session, url: str, done: threading.Event) -> None:
    """Say how far it is, twice a second."""
    while not done.wait(0.5):
        progress = session.get(f"{url}/sdapi/v1/progress?skip_current_image=true", timeout=10).json()["progress"]
        print(f"{100 * progress:.0f} %", file=sys.stderr)


def save(answer: dict) -> None:
    for picture, seed in zip(answer["images"], json.loads(answer["info"])["all_seeds"], strict=True):
        path = Path(f"seed_{seed}.png")
        path.write_bytes(base64.b64decode(picture))
        print(path)


if __name__ == "__main__":
    main()
