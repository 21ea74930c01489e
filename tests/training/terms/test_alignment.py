"""Representation alignment: its two losses by hand, and where their gradients go."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from diffusion_art.errors import UserError
from diffusion_art.models.image_tower import ImageTower
from diffusion_art.models.text_to_image import TextToImage
from diffusion_art.training.terms.alignment import Alignment, relation_loss
from tests.fakes import JIT_CONFIG, SmallTower, toy_model

IMAGES = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1


def alignment(maps: dict[str, int] | None = None, tower: ImageTower | None = None, **changes) -> Alignment:
    torch.manual_seed(0)
    return Alignment(
        maps=maps or {"middle": 16}, tower=tower or SmallTower(), **{"total_steps": 10, "hidden": 32} | changes
    )


class AsIs(ImageTower):
    """The pictures themselves."""

    dim, side = 3, 2

    def forward(self, images: Tensor) -> Tensor:
        return images

    def describe(self) -> dict[str, str]:
        return {"class": type(self).__name__}

    def maps(self, images: Tensor, layers: Sequence[int]) -> list[Tensor]:
        return [images]


def plain(relation: float) -> Alignment:
    """Without a projection and with pictures for features, so that both sides can be written down."""
    made = Alignment(maps={"middle": 3}, tower=AsIs(), total_steps=1, similarity_weight=relation)
    made.projection = nn.Sequential(nn.Identity())
    return made


# ---------------------------------------------------------------------- the loss by hand


def test_likeness_is_compared_pair_by_pair():
    ours = torch.tensor([[1.0, 0.0], [0.0, 3.0], [2.0, 2.0]])  # cosines 0, 1/sqrt(2), 1/sqrt(2)
    wanted = torch.tensor([[1.0, 0.0], [5.0, 0.0], [0.0, 1.0]])  # 1, 0, 0
    torch.testing.assert_close(relation_loss(ours, wanted), torch.tensor((1 + 0.5 + 0.5) / 3))
    assert relation_loss(ours, 7 * ours) < 1e-12
    assert relation_loss(ours[:1], wanted[:1]) == 0  # no pairs


def test_the_loss_is_one_minus_the_cosine_of_each_position_and_the_relation_of_the_pages():
    a, b = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 1.0, 0.0])
    middle = torch.stack([a, b])[:, :, None, None].expand(2, 3, 2, 2).clone()
    images = torch.stack([a, a])[:, :, None, None].expand(2, 3, 2, 2).clone()
    images[1, :, 0, 0] = b  # of eight positions five agree, and three are at right angles
    cosine_of_pages = (images[1].mean((1, 2)) @ a) / images[1].mean((1, 2)).norm()
    torch.testing.assert_close(plain(0.0).between(middle, images), torch.tensor(3 / 8))
    torch.testing.assert_close(plain(2.0).between(middle, images), 3 / 8 + 2 * cosine_of_pages**2)


# ---------------------------------------------------------------------- with a backbone


def map_of(model: TextToImage, place: str = "middle") -> Tensor:
    t = torch.linspace(0.1, 0.9, 4)
    cond = model.encode_captions(["red", "", "blue", "a red house"])
    return model.backbone.with_map(model.codec.encode(IMAGES), t, cond, place)[1]


@pytest.mark.parametrize("changes", [{}, {"backbone": JIT_CONFIG}], ids=["unet", "jit"])
def test_training_on_it_alone_brings_the_map_to_what_the_tower_sees(changes):
    model = toy_model(**changes)
    made = alignment(model.backbone.maps, layer="auto")
    optimizer = torch.optim.Adam([*model.parameters(), *made.parameters()], lr=5e-3)
    losses = []
    for _ in range(60):
        loss = made.between(map_of(model, made.place), IMAGES)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 0.5
    assert losses[-1] < 0.2 * losses[0]


def test_gradients_reach_the_middle_and_what_is_before_it_and_nothing_else():
    model, tower = toy_model(), SmallTower()
    made = alignment(tower=tower)
    made.between(map_of(model), IMAGES).backward()
    heard = {name for name, p in model.backbone.named_parameters() if p.grad is not None and p.grad.any()}
    assert {name.split(".")[1] for name in heard} >= {"conv_in", "down_blocks", "mid_block", "time_embedding"}
    assert not any("up_blocks" in name or "conv_out" in name for name in heard)
    assert all(p.grad.any() for p in made.parameters())
    assert all(p.grad is None for p in tower.parameters())
    assert tower.calls == 1


def test_the_tower_is_no_part_of_it_but_goes_where_it_goes():
    made = alignment()
    assert all(name.startswith("projection.") for name in made.state_dict())
    assert len(list(made.parameters())) == 6
    made.double()
    assert made.tower.conv.weight.dtype == torch.float64
    assert made.train().tower.training is False


def test_autocast_leaves_the_tower_alone():
    made, middle = alignment(), map_of(toy_model()).detach()
    with torch.autocast("cpu", torch.bfloat16):
        loss = made.between(middle.bfloat16(), IMAGES)
    assert made.tower.seen.dtype == torch.float32
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, made.between(middle, IMAGES), atol=0.02, rtol=0)


def test_it_ends_after_a_share_of_the_steps():
    assert alignment(total_steps=1600).until_step == 640
    assert alignment(total_steps=1000, stop_at_fraction=0.29).until_step == 290  # 0.29 * 1000 is 289.99...
    assert alignment(total_steps=7, stop_at_fraction=1).until_step == 7


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"layer": "up"}, "alignment.layer=up is not one of this backbone's: middle, or auto"),
        ({"weight": 0.0}, "alignment.weight=0.0 must be positive.*alignment=none"),
        ({"stop_at_fraction": 0.0}, "alignment.stop_at_fraction=0.0 is no share"),
        ({"stop_at_fraction": 1.5}, "alignment.stop_at_fraction=1.5 is no share"),
        ({"total_steps": -1}, "trainer.max_steps=-1 sets it no end"),
        ({"similarity_weight": -1.0}, "alignment.similarity_weight=-1.0 must be 0 or more"),
        ({"hidden": 0}, "alignment.hidden=0 must be at least 1"),
    ],
)
def test_what_makes_no_sense_is_refused(changes, says):
    with pytest.raises(UserError, match=says):
        alignment(**changes)
