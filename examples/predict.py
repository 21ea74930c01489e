"""Ask `/predict` for a painting, as EIR's clients do, and save it.

    python examples/predict.py "Rembrandt / The Scholar's Study / Dutch Golden Age / interior / 1651"

Needs `requests`, `numpy` and `pillow`. Against EIR's own server the placeholder picture is mandatory; ours ignores it.
"""

import argparse
import base64
import io
import os
from pathlib import Path

import numpy as np
import requests
from PIL import Image

CAPTION = "Rembrandt / The Scholar's Study / Dutch Golden Age / interior / 1651"


def placeholder(side_px: int = 28) -> str:
    """The picture that the protocol wants and nobody looks at, as base64."""
    out = io.BytesIO()
    Image.new("RGB", (side_px, side_px)).save(out, "PNG")
    return base64.b64encode(out.getvalue()).decode("ascii")


def predict(url: str, captions: list[str], *, token: str | None = None, seed: int | None = None) -> list[np.ndarray]:
    """Paintings, uint8 [h w 3], one for each caption. requests.HTTPError carries the server's own words."""
    item = {"image": placeholder()} | ({} if seed is None else {"seed": seed})
    response = requests.post(
        f"{url}/predict",
        json=[{**item, "caption": caption} for caption in captions],
        headers={"Authorization": f"Bearer {token}"} if token else {},
        timeout=600,
    )
    if not response.ok:
        raise requests.HTTPError(f"{response.status_code}: {response.json()['error']['message']}", response=response)
    return [picture_of(result["image"]) for result in response.json()["result"]]


def picture_of(image: str) -> np.ndarray:
    """Base64 of float32 [3 side side] in [0, 1] -> uint8 [side side 3]."""
    values = np.frombuffer(base64.b64decode(image), dtype="<f4")
    side = round((values.size / 3) ** 0.5)
    return (values.reshape(3, side, side).transpose(1, 2, 0).clip(0, 1) * 255).round().astype(np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description="Ask /predict for paintings and save them.")
    parser.add_argument("captions", nargs="*", default=[CAPTION])
    parser.add_argument("--url", default="http://localhost:8000")
    parser.add_argument("--token", default=os.environ.get("DIFFUSION_ART_SERVE_TOKEN"))
    parser.add_argument("--seed", type=int, help="the same one for every caption; none: any")
    parser.add_argument("--out", type=Path, default=Path(), help="folder of the pictures")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    for number, pixels in enumerate(predict(asked.url, asked.captions, token=asked.token, seed=asked.seed)):
        path = asked.out / f"painting_{number:02d}.png"
        Image.fromarray(pixels).save(path)
        print(path)


if __name__ == "__main__":
    main()
