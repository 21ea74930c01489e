"""How a model paints, as plain numbers: what a program needs beside the networks to paint as we do.

A sampler is a table (`diffusion/samplers/table.py`). With what the network is shown at each call, and how x_0_hat is
read out of its answer, it is a list of `calls`. x begins as unit noise, `memory` and `last` as zeros. Call by call,

    out     = network(shown x, clock)
    x_0_hat = of_input x + of_out out, guided where `guided`, and clipped

and the next x and memory are sums of (x, x_0_hat, memory, last, fresh unit noise), weighted by the five numbers of `x`
and of `memory`; the next `last` is x_0_hat.
"""

from __future__ import annotations

import sys
import unicodedata
from functools import cache
from itertools import groupby
from typing import Any

from diffusion_art.diffusion.denoiser import view_at
from diffusion_art.diffusion.guidance import within
from diffusion_art.diffusion.samplers import Sampler, Tabular
from diffusion_art.errors import UserError
from diffusion_art.models.tokenizer import byte_characters
from diffusion_art.sharing.painting import Painting


def painting_table(painting: Painting) -> dict[str, Any]:
    """`painting.json`: sizes, guidance and the rows.

    Raises:
        UserError: a sampler that is no table.
    """
    model, guidance, characters = painting.model, painting.guidance, byte_characters()
    return {
        "latents": list(model.latent_shape),
        "unshuffle": painting.unshuffle,  # each block of so many pixels a side lies in the channels
        "context_length": model.text_encoder.context_length,
        "bytes": [characters[byte] for byte in range(len(characters))],  # as vocab.json writes them
        "words": words(),  # what a text is split into, as Python's `re` reads it
        "prompts": painting.prompts,
        "guidance_scale": painting.guidance_scale,
        "guidance_rescale": guidance["rescale"],
        "guidance_threshold": guidance["threshold"],
        "sampler": painting.sampler.describe(),
        "calls": _calls(painting, _tabular(painting.sampler), guidance["interval"] or (0.0, 1.0)),
    }


@cache
def words() -> str:
    """How CLIP splits a text, for Python's `re`, whose `\\w` takes numbers such as ² and ½ for letters."""
    numbers = _numbers()
    return rf"'s|'t|'re|'ve|'m|'ll|'d|[^\W\d_{numbers}]+|[\d{numbers}]|(?:[^\s\w{numbers}]|_)+"


def _numbers() -> str:
    """Those that are no decimal digits, as ranges of a class."""
    found = [code for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)) in ("Nl", "No")]
    runs = [[code for _, code in run] for _, run in groupby(enumerate(found), lambda pair: pair[1] - pair[0])]
    return "".join(f"{chr(run[0])}-{chr(run[-1])}" for run in runs)


def _calls(painting: Painting, sampler: Tabular, interval: tuple[float, float]) -> list[dict[str, Any]]:
    schedule, prediction = painting.model.schedule, painting.model.prediction
    calls = []
    for call in sampler.calls(schedule):
        view = view_at(schedule, prediction, call.t)
        kept = [call.memory_of_x, call.memory_of_x0, call.memory_of_memory, call.memory_of_last, 0.0]
        calls.append(
            {
                "shown": view.shown,
                "clock": view.clock,
                "of_input": view.of_x,
                "of_out": view.of_out,
                "guided": within(call.t, interval),
                "x": [call.of_x, call.of_x0, call.of_memory, call.of_last, call.of_noise],
                "memory": kept if call.remembers else [0.0, 0.0, 1.0, 0.0, 0.0],
            }
        )
    return calls


def _tabular(sampler: Sampler) -> Tabular:
    if isinstance(sampler, Tabular):
        return sampler
    raise UserError(
        f"the run paints with {sampler.name}, which looks at the picture at each step and is no table of numbers: "
        "export it with another sampler, such as sampler=dpmpp_2m."
    )
