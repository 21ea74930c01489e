"""The tokenizer as files: `vocab.json` and `merges.txt`, as CLIP's are kept."""

from __future__ import annotations

import json
from pathlib import Path

from diffusion_art.models.tokenizer import END, SMALLEST, START, ClipTokenizer, first_merges

NAMES = {START: "<|startoftext|>", END: "<|endoftext|>"}  # of these tokens in CLIP's own files


def vocabulary(tokenizer: ClipTokenizer) -> dict[str, int]:
    """Each part of a word and its id."""
    return {NAMES.get(part, part): number for part, number in tokenizer.bpe.ids.items()}


def merges(tokenizer: ClipTokenizer) -> list[tuple[str, str]]:
    """The pairs that are joined, the first of them first."""
    return first_merges(tokenizer.vocab_size - SMALLEST)


def write_tokenizer(folder: Path, tokenizer: ClipTokenizer) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    words = json.dumps(vocabulary(tokenizer), ensure_ascii=False)
    (folder / "vocab.json").write_text(words, encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges(tokenizer)), ""]
    (folder / "merges.txt").write_text("\n".join(lines), encoding="utf-8")
