"""In how many parts a step's pictures are taken, by the memory there is: `find_batch_size=auto`.

    bytes = 20 weights + pictures * kept        fits where bytes <= memory_limit_gb, or 0.9 of the GPU's

A weight takes four bytes five times: itself, its gradient, two moments of the optimiser, its average. `kept` is what a
picture's forward pass keeps for the backward pass, counted in float32 on the meta device, and a tenth less in bf16,
where some of it takes half: 34.6 GB for `wikiart` with 128 pictures at once, of which 31.0 GB were measured. Nothing is
run on the device, and the answer depends on the config and the size of the memory alone, so that all processes of a run
come to the same.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from diffusion_art.config import build, class_of, is_a
from diffusion_art.devices import device_of
from diffusion_art.errors import UserError
from diffusion_art.models.backbone import Backbone
from diffusion_art.models.text_to_image import TextToImage
from diffusion_art.tensors import Conditioning
from diffusion_art.training.memory.batch_size import GPU_SHARE, block_of, usable_sizes

BYTES_PER_WEIGHT = 20
BF16_SHARE = 0.9  # of what is kept in float32
TOKENS, TEXT_WIDTH = 77, 512  # of a caption; what it adds is little beside the picture


def memory_limit(settings: dict[str, Any]) -> int | None:
    """Bytes that a run may fill on its device; None where neither a limit nor a GPU says."""
    if settings["memory_limit_gb"] is not None:
        return int(settings["memory_limit_gb"] * 1e9)
    if device_of(str(settings["trainer"]["accelerator"])) == "cuda":
        return int(GPU_SHARE * torch.cuda.get_device_properties(0).total_memory)
    return None


def fitting_part(settings: dict[str, Any], *, limit: int, world: int) -> tuple[int, int]:
    """The most pictures of a global batch that each of `world` processes can hold at once, at least one or one block,
    and the bytes that are foreseen for them.

    Raises:
        UserError: the processes cannot share a global batch.
    """
    sizes = usable_sizes(settings["data"]["global_batch_size"], world=world, block=block_of(settings))
    fixed, kept = kept_bytes(settings["model"])
    if "bf16" in str(settings["trainer"]["precision"]):
        kept = int(BF16_SHARE * kept)
    fitting = [size for size in sizes if fixed + size * kept <= limit]
    size = max(fitting, default=sizes[0])
    return size, fixed + size * kept


def kept_bytes(model: dict[str, Any]) -> tuple[int, int]:
    """Bytes that the network of a model's config takes in training: whatever the batch, and for each picture."""
    if not is_a(model, TextToImage):
        raise UserError(
            f"find_batch_size=auto knows text-to-image models only: {class_of(model).called} takes "
            "find_batch_size=true."
        )
    codec = build(model["codec"])
    side = model["image_size_px"] // codec.factor
    with torch.device("meta"):
        network: Backbone = build({**model["backbone"], "_partial_": True})(
            channels=codec.channels, sample_size=side, cross_attention_dim=TEXT_WIDTH, pooled_dim=TEXT_WIDTH
        )
        one, two = (_kept(network.train(), batch, (codec.channels, side, side)) for batch in (1, 2))
    return BYTES_PER_WEIGHT * sum(p.numel() for p in network.parameters()), two - one


def _kept(network: Backbone, batch: int, shape: tuple[int, int, int]) -> int:
    """Bytes of all tensors that one forward pass keeps, each counted once."""
    storages: dict[int, torch.UntypedStorage] = {}  # held, so that no address comes twice

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage._cdata] = storage
        return tensor

    mask = torch.ones(batch, TOKENS, dtype=torch.bool)
    cond = Conditioning(torch.zeros(batch, TOKENS, TEXT_WIDTH), mask, torch.zeros(batch, TEXT_WIDTH))
    with saved_tensors_hooks(pack, lambda tensor: tensor):
        network(torch.zeros(batch, *shape), torch.zeros(batch), cond)
    return sum(storage.nbytes() for storage in storages.values())
