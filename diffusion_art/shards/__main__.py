"""Look at shards: `python -m diffusion_art.shards lint|info|preview path=data/wikiart-128px`.

`info` says what a folder, or a weighted list of them, holds. `lint` reads every byte and decodes every picture, and
ends with status 1 when something would spoil a training; it also judges tars of others before `prepare` reads them.
`preview` paints a captioned contact sheet of the pictures that a run would see first.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from diffusion_art.cli import command
from diffusion_art.config import plain
from diffusion_art.errors import UserError
from diffusion_art.shards.build.tally import NAMED_SPLITS, told
from diffusion_art.shards.captioning import columns_of
from diffusion_art.shards.lint.findings import RULES
from diffusion_art.shards.lint.lint import Report, lint
from diffusion_art.shards.mixture import Mixture, Shards, ShardSpec, open_shards, with_remote
from diffusion_art.shards.pixels import BadPicture, decode, fit
from diffusion_art.shards.places import RemoteSettings
from diffusion_art.shards.reader import ShardSet
from diffusion_art.sheets import contact_sheet, write_png

log = logging.getLogger(__name__)

ACTIONS = ("lint", "info", "preview")
_MAX_PREVIEW = 1024  # pictures on one sheet


def shards(config: DictConfig) -> None:
    """Do what `config.action` says. SystemExit with status 1 when lint finds errors."""
    settings = plain(config)
    action, spec = settings["action"], with_remote(settings["path"], RemoteSettings.of(settings["remote"]))
    if action not in ACTIONS:
        raise UserError(f"say what to do: one of {', '.join(ACTIONS)}, as in `shards info path={settings['path']}`.")
    if action == "preview":
        out = preview(spec, **{name: settings[name] for name in ("split", "count", "seed", "columns", "out")})
        log.info("written to %s", out)
        return
    if action == "info":
        found = open_shards(spec)
        content = describe(found)
        _tell_info(found)
    else:
        asked = {"pictures": settings["decode_pictures"], "workers": settings["workers"]}
        report = lint(spec, **asked, progress=settings["progress"])
        content = report.plain()
        _tell(report)
    if settings["out"] is not None:
        _write(Path(settings["out"]), content)
    if action == "lint" and content["errors"]:
        raise SystemExit(1)


# ---------------------------------------------------------------------- info


def describe(shards: Shards) -> dict[str, Any]:
    """What is in `shards`, as JSON: the whole, and each folder with its share of the shuffled training pictures."""
    parts = shards.components if isinstance(shards, Mixture) else (shards,)
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
            }
            for split, infos in manifest.shards.items()
        },
    }


def _tell_info(shards: Shards) -> None:
    """`describe` for people, with what each build counted."""
    content = describe(shards)
    total = sum(content["splits"].values())
    title = f"{content['name']}: {total:,} pictures of {content['image_size_px']} px, digest {content['digest']}"
    log.info("%s", _printable(title))
    table = Table("split")
    for heading in ("pictures", "shards", "MB", "kB each", "share"):
        table.add_column(heading, justify="right")
    for folder in content["folders"]:
        table.add_section()
        table.add_row(f"[bold]{escape(_printable(folder['folder']))}")
        for split, counts in folder["splits"].items():
            figures = [
                f"{counts['samples']:,}",
                f"{counts['shards']:,}",
                f"{counts['bytes'] / 1e6:,.1f}",
                f"{counts['bytes'] / 1e3 / max(1, counts['samples']):.1f}",
            ]
            share = f"{100 * folder['share']:.1f} %" if split == "train" else ""
            table.add_row(escape(_printable(split)), *figures, share)
    Console().print(table)
    for part in shards.components if isinstance(shards, Mixture) else (shards,):
        captions = "as their source has them" if part.caption_template is None else part.caption_template or "none"
        log.info(
            "%s", _printable(f"captions of {part.name}: {captions}; columns: {', '.join(sorted(columns_of(part)))}")
        )
        for line in told(part.manifest):
            log.info("    %s", _printable(line))


# ---------------------------------------------------------------------- lint


def _tell(report: Report) -> None:
    """The report for people: a line for each kind of fault with the first of them, and the verdict."""
    findings = report.findings
    for rule, (meaning, error) in RULES.items():
        if count := findings.counts[rule]:
            log.info("%s: %s, %s", "ERROR" if error else "warning", meaning, _times(count))
            for where, what in findings.named[rule][:5]:
                log.info("    %s", _printable(f"{where} {what}"))
            if count > 5:
                log.info("    ...")
    looked_at = f"{report.samples:,} samples in {report.files:,} files, {report.seconds:.1f} s"
    log.info("%s: %s, %s", looked_at, _times(findings.errors, "error"), _times(findings.warnings, "warning"))


def _printable(text: str) -> str:
    """`text` without what could steer a terminal: names and captions may be a stranger's."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _times(count: int, noun: str = "time") -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


# ---------------------------------------------------------------------- preview


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
    if not 1 <= count <= _MAX_PREVIEW:
        raise UserError(f"count={count} does not fit a sheet; give 1 to {_MAX_PREVIEW}.")
    numbers = found.samples(split, seed, 0, 0, min(count, samples))
    keys, _, images = found.views(split, numbers)
    pictures, texts = [], []
    for number, key, image in zip(numbers.tolist(), keys.tolist(), images, strict=True):
        try:
            picture, captions = fit(decode(image or b""), found.image_size_px), found.captions(split, number)
            pictures.append(picture)
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


def _write(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", "utf-8", errors="replace")
    log.info("written to %s", path)


_run = command("shards")(shards)


def main() -> None:
    """The command line: the bare word becomes `action=`."""
    sys.argv[1:] = [f"action={word}" if word in ACTIONS else word for word in sys.argv[1:]]
    _run()


if __name__ == "__main__":
    main()
