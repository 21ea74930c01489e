"""The ten captions of EIR's text-to-image tutorial, painted by one request each and hung side by side.

    python examples/tutorial_grid.py --seed 1 --out grid.png

Needs `requests` and `matplotlib`. The captions are the tutorial's, word for word, so the grids can be compared.
"""

import argparse
import base64
import io
import os
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import matplotlib.image
import requests
from matplotlib.figure import Figure

CAPTIONS = [
    "Gustav Klimt / Whispers of Gold / Symbolism / portrait / 1904",
    "Frida Kahlo / Wounded Deer / Surrealism / self-portrait / None",
    "Katsushika Hokusai / Mountain Village in Mist / Ukiyo-e / landscape / 1830",
    "Salvador Dalí / Persistence of Memory Study / Surrealism / None / 1931",
    "Hieronymus Bosch / The Conjurer / Northern Renaissance / genre painting / c.1502",
    "Andy Warhol / Campbell's Soup I / Pop Art / screen printing / 1968.0",
    "Alphonse Mucha / Job Cigarettes / Art Nouveau / poster / 1896",
    "Isaac Levitan / Above Eternal Peace / Realism / landscape / 1894",
    "Paul Klee / Senecio (Head of a Man) / Expressionism / portrait / 1922",
    "J.M.W. Turner / Seascape Study / Romanticism / marina / None",
]


def paint(url: str, caption: str, *, token: str | None, **settings: float | str | None) -> bytes:
    """One PNG. Settings that are None are left to the server."""
    given = {name: value for name, value in settings.items() if value is not None}
    response = requests.post(
        f"{url}/v1/images/generations",
        json={"prompt": caption, **given},
        headers={"Authorization": f"Bearer {token}"} if token else {},
        timeout=600,
    )
    if not response.ok:
        raise SystemExit(f"error: {response.json()['error']['message']}")
    return base64.b64decode(response.json()["data"][0]["b64_json"])


def hang(pictures: list[bytes], captions: list[str], out: Path, *, columns: int = 5) -> None:
    """The pictures in rows, each above its caption; pixels stay square and sharp."""
    rows = -(-len(pictures) // columns)
    figure = Figure(figsize=(2.6 * columns, 3.1 * rows), layout="constrained")
    for axes, picture, caption in zip(figure.subplots(rows, columns).flat, pictures, captions, strict=True):
        axes.imshow(matplotlib.image.imread(io.BytesIO(picture), format="png"), interpolation="nearest")
        axes.set_xlabel(textwrap.fill(caption, 32), fontsize=8)
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    figure.savefig(out, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description="Paint the ten captions of the tutorial as a grid.")
    parser.add_argument("--url", default="http://localhost:8000")
    parser.add_argument("--token", default=os.environ.get("DIFFUSION_ART_SERVE_TOKEN"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, help="of the sampler; none: the server's own")
    parser.add_argument("--guidance", type=float, help="1 is plain conditional; none: the server's own")
    parser.add_argument("--out", type=Path, default=Path("tutorial_grid.png"))
    asked = parser.parse_args()

    def one(caption: str) -> bytes:
        settings = {"seed": asked.seed, "num_inference_steps": asked.steps, "guidance_scale": asked.guidance}
        return paint(asked.url, caption, token=asked.token, **settings)

    with ThreadPoolExecutor(len(CAPTIONS)) as pool:  # the server batches what comes together
        pictures = list(pool.map(one, CAPTIONS))
    hang(pictures, CAPTIONS, asked.out)
    print(asked.out)


if __name__ == "__main__":
    main()
