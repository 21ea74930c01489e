"""Caption following scores the painter near 1, a painter of something else near chance, and counts honestly."""

from __future__ import annotations

import json
from functools import cache

import torch

from diffusion_art.evaluation.caption_following import (
    caption_following,
    painter_captions,
    save_json,
    summary,
    unseen_prompts,
)
from diffusion_art.sources.painter import COLOUR_NAMES, STYLES, Commission, Painter, held_out_pairs


def as_images(pictures: list) -> torch.Tensor:
    return torch.stack([torch.from_numpy(picture) for picture in pictures]).permute(0, 3, 1, 2).float() / 127.5 - 1


@cache
def pictures_by_truth() -> dict[tuple[int, frozenset[int]], list]:
    """Painter pictures of another seed, by style and colour pair."""
    found: dict[tuple[int, frozenset[int]], list] = {}
    for held_out, count in ((False, 6400), (True, 640)):
        painter = Painter(seed=77, held_out=held_out)
        for index in range(count):
            asked = painter.commission(index)
            found.setdefault((asked.style, frozenset(asked.colours)), []).append((painter, index))
    return found


def truth(caption: str) -> tuple[int, frozenset[int]]:
    """Style and colours read from the words of a caption."""
    _, title, style, _, _ = caption.split(" / ")
    first, second = title.split(" in ", 1)[1].split(",")[0].split(" and ")
    number = [known.name for known in STYLES].index(style)
    return number, frozenset((COLOUR_NAMES.index(first), COLOUR_NAMES.index(second)))


def perfect(captions: list[str], seeds: list[int]) -> torch.Tensor:
    """Paints another picture of what is asked: the painter as the model."""
    chosen = []
    for caption, seed in zip(captions, seeds):
        options = pictures_by_truth()[truth(caption)]
        painter, index = options[seed % len(options)]
        chosen.append(painter.paint(index).image)
    return as_images(chosen)


def deaf(captions: list[str], seeds: list[int]) -> torch.Tensor:
    """Paints well, but whatever it likes."""
    painter = Painter(seed=78)
    shuffled = torch.randperm(4000, generator=torch.Generator().manual_seed(1)).tolist()
    return as_images([painter.paint(shuffled[seed % 4000]).image for seed in seeds])


def test_the_painter_follows_its_captions():
    result = caption_following(perfect, count=64, held_out_count=32)
    assert result["style"] > 0.96
    assert result["palette"] > 0.96
    assert result["held_out"] > 0.93
    counts = {key: result[f"{key}_count"] for key in ("style", "palette", "held_out")}
    assert counts == {"style": 64, "palette": 64, "held_out": 32}
    assert len(result["rows"]) == 96
    assert sum(row["style_right"] for row in result["rows"] if not row["held_out"]) == round(64 * result["style"])
    assert {name: share["style_count"] for name, share in result["by_style"].items()} == {
        style.name: 4 for style in STYLES
    }


def test_a_model_that_ignores_captions_scores_near_chance():
    result = caption_following(deaf, count=112, held_out_count=32)
    assert result["style"] < 0.15  # 1 in 16
    assert result["palette"] < 0.1  # 1 in 45
    assert result["held_out"] < 0.1


def test_style_and_colours_are_scored_apart():
    """A model that gets the style right in colours of its own."""

    def other_colours(captions: list[str], seeds: list[int]) -> torch.Tensor:
        chosen = []
        for caption, seed in zip(captions, seeds):
            number, colours = truth(caption)
            options = [o for (s, c), o in pictures_by_truth().items() if s == number and not c & colours]
            painter, index = options[seed % len(options)][0]
            chosen.append(painter.paint(index).image)
        return as_images(chosen)

    result = caption_following(other_colours, count=48, held_out_count=16)
    assert result["style"] >= 0.95
    assert result["palette"] == 0
    assert result["held_out_style"] >= 0.9
    assert result["held_out"] == 0


def test_batches_do_not_change_the_score():
    def counting(captions: list[str], seeds: list[int]) -> torch.Tensor:
        assert len(captions) == len(seeds) <= 7
        return perfect(captions, seeds)

    once = caption_following(perfect, count=20, held_out_count=6, batch_size=26)
    assert caption_following(counting, count=20, held_out_count=6, batch_size=7) == once


def test_not_a_number_counts_as_wrong_and_breaks_nothing():
    def broken(captions: list[str], seeds: list[int]) -> torch.Tensor:
        return torch.full((len(captions), 3, 32, 32), float("nan"))

    result = caption_following(broken, count=32, held_out_count=16)
    assert result["style"] < 0.2
    assert result["palette"] < 0.2


def test_prompts_are_unseen_different_and_as_asked():
    captions = painter_captions(Painter(count=4000))
    assert 3900 < len(captions) <= 4000
    seen = unseen_prompts(240, exclude=captions)
    assert len({prompt.caption for prompt in seen} - captions) == 240
    assert [prompt.style for prompt in seen[:16]] == list(range(16))
    assert [p.caption for p in unseen_prompts(10, seed=1)] != [p.caption for p in unseen_prompts(10, seed=2)]

    def combination(prompt: Commission) -> bool:
        pair = tuple(COLOUR_NAMES[number] for number in sorted(prompt.colours))
        return pair in held_out_pairs(STYLES[prompt.style].name)

    assert not any(map(combination, seen))
    assert all(map(combination, unseen_prompts(64, held_out=True)))


def test_an_excluded_caption_is_never_asked():
    plain = unseen_prompts(48)
    taken = {prompt.caption for prompt in plain[::2]}
    again = unseen_prompts(48, exclude=taken)
    assert len(again) == 48
    assert not taken & {prompt.caption for prompt in again}


def test_result_goes_to_json_whole_and_is_told_in_a_line(tmp_path):
    result = caption_following(perfect, count=16, held_out_count=4)
    path = tmp_path / "run" / "caption_following.json"
    save_json(result, path)
    assert json.loads(path.read_text(encoding="utf-8")) == result
    assert [file.name for file in path.parent.iterdir()] == ["caption_following.json"]
    assert summary(result).startswith("caption following: style 100.0 % of 16, both colours 100.0 % of 16")
