from __future__ import annotations

import torch

from diffusion_art.serving.engine.batch import EncodedCaptions
from diffusion_art.tensors import Conditioning


def test_captions_are_kept_as_far_as_the_bytes_go_and_mean_the_same_when_read_again():
    asked: list[str] = []

    def encode(captions: list[str]) -> Conditioning:
        asked.extend(captions)
        tokens = torch.full((1, len(captions[0]), 4), float(len(captions[0])))
        return Conditioning(tokens, torch.ones(1, len(captions[0]), dtype=torch.bool), tokens[:, 0])

    kept = EncodedCaptions(encode, max_bytes=500)
    first = kept(["red", "a blue house", "red"])
    assert asked == ["red", "a blue house"]
    assert first.mask.sum(1).tolist() == [3, 12, 3]
    for number in range(100):
        kept.warm([f"painting {number}"])
        assert kept.bytes <= 500
    assert torch.equal(kept(["red", "a blue house", "red"]).tokens, first.tokens)
    assert asked.count("red") == 2
