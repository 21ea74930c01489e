"""What is in shards, what their columns hold, and what is wrong with them, as JSON and for people; and a captioned
contact sheet of the pictures that a run would see first.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from diffusion_art.captions.captioner import clean
from diffusion_art.errors import UserError
from diffusion_art.shards.build.tally import NAMED_SPLITS, told
from diffusion_art.shards.lint.lint import Report
from diffusion_art.shards.lint.shards import RULES
from diffusion_art.shards.mixture import Mixture, Shards, open_shards, parts_of
from diffusion_art.shards.pixels import BadPicture, decode, fit
from diffusion_art.shards.places import ShardSpec
from diffusion_art.shards.reader import ShardSet
from diffusion_art.shards.recaptioning import columns_of, told_template
from diffusion_art.sheets import contact_sheet, write_png
from diffusion_art.units import counted

MAX_PREVIEW = 1024  # pictures on one sheet

log = logging.getLogger(__name__)


def describe(shards: Shards) -> dict[str, Any]:
    """What is in `shards`, as JSON: the whole, and each folder with its share of the shuffled training pictures."""
    parts = parts_of(shards)
    shares = (
        shards.shares("train") if isinstance(shards, Mixture) and shards.splits.get("train") else [1.0] * len(parts)
    )
    return {
        "name": shards.name,
        "digest": shards.digest,
        "image_size_px": shards.image_size_px,
        "splits": dict(shards.splits),
        "folders": [_describe_folder(part, share) for part, share in zip(parts, shares, strict=True)],
    }


def _describe_folder(part: ShardSet, share: float) -> dict[str, Any]:
    manifest = part.manifest
    return {
        "folder": str(part.place),
        "name": part.name,
        "digest": part.digest,
        "share": share,
        "caption_template": part.caption_template,
        "columns": sorted(columns_of(part)),
        "counts": manifest.extra.get("counts"),
        "splits_named": manifest.extra.get("splits") == NAMED_SPLITS,
        "without_caption": part.without_caption(),
        "builder_version": manifest.builder_version,
        "settings": manifest.extra.get("settings"),
        "splits": {
            split: {
                "samples": part.splits[split],
                "several_captions": part.several(split),
                "shards": len(infos),
                "bytes": sum(info.bytes for info in infos),
                **({"buckets": dict(part.buckets[split])} if split in part.buckets else {}),
            }
            for split, infos in manifest.shards.items()
        },
    }


def tell_info(shards: Shards) -> None:
    """`describe` for people, with what each build counted."""
    content = describe(shards)
    total = sum(content["splits"].values())
    title = f"{content['name']}: {counted(total)} of {content['image_size_px']} px, digest {content['digest']}"
    log.info("%s", printable(title))
    table = Table("split")
    for heading in ("pictures", "shards", "MB", "kB each", "share"):
        table.add_column(heading, justify="right")
    for folder in content["folders"]:
        table.add_section()
        table.add_row(f"[bold]{escape(printable(folder['folder']))}")
        for split, counts in folder["splits"].items():
            figures = [
                f"{counts['samples']:,}",
                f"{counts['shards']:,}",
                f"{counts['bytes'] / 1e6:,.1f}",
                f"{counts['bytes'] / 1e3 / max(1, counts['samples']):.1f}",
            ]
            share = f"{100 * folder['share']:.1f} %" if split == "train" else ""
            table.add_row(escape(printable(split)), *figures, share)
    Console().print(table)
    for part in parts_of(shards):
        captions = told_template(part.caption_template)
        log.info(
            "%s", printable(f"captions of {part.name}: {captions}; columns: {', '.join(sorted(columns_of(part)))}")
        )
        for split, counts in part.buckets.items():
            sizes = ", ".join(f"{name} {count:,}" for name, count in counts.items())
            log.info("    %s", printable(f"pictures of {split} by size: {sizes}"))
        for line in told(part.manifest):
            log.info("    %s", printable(line))


def tell_report(report: Report) -> None:
    """The report for people: a line for each kind of fault with the first of them, and the verdict."""
    findings = report.findings
    for rule, (meaning, error) in RULES.items():
        if count := findings.counts[rule]:
            log.info("%s: %s, %s", "ERROR" if error else "warning", meaning, counted(count, "time"))
            for where, what in findings.named[rule][:5]:
                log.info("    %s", printable(f"{where} {what}"))
            if count > 5:
                log.info("    ...")
    looked_at = f"{report.samples:,} samples in {report.files:,} files, {report.seconds:.1f} s"
    log.info("%s: %s, %s", looked_at, counted(findings.errors, "error"), counted(findings.warnings, "warning"))


def tell_statistics(content: dict[str, Any], *, top: int) -> None:
    """The values of each column that the training split has most pictures of, and their shares."""
    split = "train" if "train" in content["splits"] else next(iter(content["splits"]))
    samples = content["samples"][split]
    for column, found in content["splits"][split].items():
        table = Table(column, box=None, pad_edge=False, header_style="bold")
        for heading in ("pictures", "share"):
            table.add_column(heading, justify="right")
        for value, count in list(found["counts"].items())[:top]:
            table.add_row(escape(printable(value)), f"{count:,}", f"{100 * count / samples:.1f} %")
        without = f", {found['without']:,} pictures without one" if found["without"] else ""
        log.info("%s", printable(f"{column} of {split}: {found['different']:,} different{without}"))
        Console().print(table)


def printable(text: str) -> str:
    """`text` without what could steer a terminal: names and captions may be a stranger's."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


# ---------------------------------------------------------------------- what the columns hold


def statistics(shards: Shards, columns: Sequence[str]) -> dict[str, Any]:
    """Counts by split and column, as JSON: the values with most pictures first, and how many have none.

    Reads the metadata of every sample. Words for missing, and samples that cannot be read, count as without a value.
    """
    counts = {split: {name: Counter[str]() for name in columns} for split in shards.splits}
    for split, found in _metadata(shards):
        for name in columns:
            counts[split][name][clean(str(found.get(name) or ""))] += 1
    splits = {split: {name: _most_first(counter) for name, counter in named.items()} for split, named in counts.items()}
    return {"name": shards.name, "digest": shards.digest, "samples": dict(shards.splits), "splits": splits}


def _metadata(shards: Shards) -> Iterator[tuple[str, dict[str, Any]]]:
    for part in parts_of(shards):
        for split, samples in part.splits.items():
            for i in range(samples):
                try:
                    yield split, part.metadata(split, i)
                except (OSError, ValueError, RecursionError):
                    yield split, {}


def _most_first(counter: Counter[str]) -> dict[str, Any]:
    without = counter.pop("", 0)
    return {"different": len(counter), "without": without, "counts": dict(counter.most_common())}


# ---------------------------------------------------------------------- a contact sheet


def preview(
    spec: ShardSpec,
    *,
    split: str = "train",
    count: int = 32,
    seed: int | None = 0,
    columns: int | None = None,
    out: str | Path | None = None,
) -> Path:
    """Paint the first `count` pictures of `split` in the order of a run with `seed`, with all their captions; the
    sheet's path.

    UserError when the split is empty or none of the pictures can be read.
    """
    found = open_shards(spec)
    samples = found.splits.get(split, 0)
    if samples == 0:
        counts = ", ".join(f"{n:,} in {name}" for name, n in found.splits.items())
        raise UserError(f"{found.name} has no pictures in split {split!r}, but {counts}. Choose another with split=...")
    if not 1 <= count <= MAX_PREVIEW:
        raise UserError(f"count={count} does not fit a sheet; give 1 to {MAX_PREVIEW}.")
    numbers = found.samples(split, seed, 0, 0, min(count, samples))
    keys, _, images = found.views(split, numbers)
    pictures, texts = [], []
    for number, key, image in zip(numbers.tolist(), keys.tolist(), images, strict=True):
        try:
            captions = found.captions(split, number)
            pictures.append(fit(decode(image or b""), (found.image_size_px, found.image_size_px)))
            texts.append(" | ".join(captions))
        except (BadPicture, OSError, ValueError, RecursionError) as error:
            log.warning("picture %016x cannot be read and is left out: %s", key, error)
    if not pictures:
        raise UserError(f"none of {len(numbers)} pictures of {found.name} can be read; see `shards lint`.")
    order = "in stored order" if seed is None else f"as seed {seed} shows them"
    title = f"{found.name}: {len(pictures)} of {samples:,} in {split}, {order}"
    path = Path(out) if out is not None else Path(f"{re.sub(r'[^a-z0-9_]+', '-', found.name.lower())}-preview.png")
    story = {"digest": found.digest, "split": split, "keys": [f"{key:016x}" for key in keys.tolist()]}
    sheet = contact_sheet(pictures, texts, columns=columns, title=title)
    return write_png(sheet, path, {"captions": texts, **story})
