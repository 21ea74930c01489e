"""`MODEL_CARD.md`: what a model is, what it learned from, how good it is, how to paint with it, and its limits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffusion_art.evaluation.metrics import Metric
from diffusion_art.evaluation.report import BEWARE, MEMORISATION, PAINTED, painted_with
from diffusion_art.runs import Run
from diffusion_art.shards.places import place_of

LIES = ("path", "images")  # of a source: where its pictures lie
OURS = "and anew each time. Take this line away to keep what you change. -->"  # ends the line, in older cards too
LINE = f"<!-- Written by `evaluate` or `export`, {OURS}"


def write_card(path: Path, text: str) -> bool:
    """Write the card, unless there is one that somebody has made their own. Returns whether it was written."""
    if path.is_file() and OURS not in path.read_text(encoding="utf-8"):
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return True


def card_of(run: Run, result: Mapping[str, Any], metrics: Mapping[str, Metric], *, called: str, folder: Path) -> str:
    """The card of a run that commands name `called`."""
    parameters = sum(weight.numel() for weight in run.model.trainable_state().values())
    told = {"step": run.step, "parameters": parameters, "provenance": run.provenance}
    return model_card(run.name, run.config, result, metrics, **told, run=called, folder=folder)


def model_card(
    name: str,
    config: Mapping[str, Any],
    result: Mapping[str, Any],
    metrics: Mapping[str, Metric],
    *,
    step: int,
    parameters: int,
    provenance: Mapping[str, Any],
    run: str,
    folder: Path,
) -> str:
    """The card's Markdown. `run` is how commands name the run, `folder` where its pictures lie."""
    return "\n".join(
        [
            "---",
            "pipeline_tag: text-to-image",
            "library_name: diffusion_art",
            "tags: [diffusion, art]",
            "---",
            LINE,
            "",
            f"# {name}",
            "",
            *_what(config, step=step, parameters=parameters),
            *([f"![Pictures it painted]({PAINTED})", ""] if (folder / PAINTED).is_file() else []),
            "## Data",
            "",
            *_data(config),
            "## Recipe",
            "",
            *_recipe(config, step=step, provenance=provenance),
            "## How good it is",
            "",
            *_figures(result, metrics, folder=folder),
            "## How to paint",
            "",
            *_painting(config, run),
            "## Limits",
            "",
            *_limits(config, result),
        ]
    )


def _what(config: Mapping[str, Any], *, step: int, parameters: int) -> list[str]:
    size = config["model"]["image_size_px"]
    return [
        f"A text-to-image diffusion model that paints pictures of {size} x {size} pixels from captions: "
        f"{parameters / 1e6:.1f} million trained weights, {step:,} training steps from scratch, with diffusion_art.",
        "",
    ]


def _data(config: Mapping[str, Any]) -> list[str]:
    data = config.get("data") or {}
    source = (data.get("source") or {}).get("_target_", "")
    lines = [f"- Shards {_names(data['path'])}."] if data.get("path") else []
    if not lines and data.get("url"):
        lines = [f"- A stream server, `{data['url']}`."]
    if source:
        told = {key: _names(value) if key in LIES and value else value for key, value in data["source"].items()}
        settings = ", ".join(f"{key} {value}" for key, value in told.items() if key != "_target_")
        lines.append(f"- Made from `{source.rpartition('.')[2]}`{f' ({settings})' if settings else ''}.")
    if data.get("caption_template"):
        lines.append(f"- Captions: `{data['caption_template']}`.")
    lines.append("- The licence of the pictures is that of their source; add it here before you share the model.")
    return [*lines, ""]


def _names(path: Any) -> str:
    """The folders of `data.path`, one or several to mix, without what lies above them."""
    folders = [
        part["path"] if isinstance(part, Mapping) else part for part in (path if isinstance(path, list) else [path])
    ]
    return ", ".join(f"`{place_of(folder).name}`" for folder in folders)


def _recipe(config: Mapping[str, Any], *, step: int, provenance: Mapping[str, Any]) -> list[str]:
    model, data, trainer = config["model"], config.get("data") or {}, config.get("trainer") or {}
    batch = data.get("global_batch_size")
    parts = trainer.get("accumulate_grad_batches") or 1
    rows: list[tuple[str, Any]] = [
        *((part.replace("_", " "), _class(model.get(part))) for part in ("backbone", "text_encoder", "codec")),
        *((part, _class(model.get(part))) for part in ("schedule", "prediction")),
        (
            "optimiser",
            f"{_class(config['optim'])}, learning rate {config['optim'].get('lr')}" if config.get("optim") else "",
        ),
        ("pictures per step", batch * parts if batch else ""),
        ("steps", f"{step:,}"),
        ("pictures seen", f"{step * batch * parts:,}" if batch else ""),
        ("precision", trainer.get("precision", "")),
        ("seed", config.get("seed", "")),
        ("commit", provenance.get("commit") or "unknown"),
        ("versions", ", ".join(f"{name} {number}" for name, number in (provenance.get("versions") or {}).items())),
    ]
    return ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows if value != ""), ""]


def _figures(result: Mapping[str, Any], metrics: Mapping[str, Metric], *, folder: Path) -> list[str]:
    rows = ["| | figure | pictures | what it says |", "|---|---:|---:|---|"]
    for name, metric in metrics.items():
        if name not in result:
            continue
        count = metric.count(result[name])
        for figure in metric.figures:
            told = figure.told(result[name]).replace("+-", "±")
            says = metric.says() if figure is metric.figures[0] else ""
            rows.append(f"| {figure.label} | {told} | {f'{count:,}' if count else ''} | {says} |")
    about = f"Checkpoint `{result['checkpoint']}`, weights `{result['weights']}`, {painted_with(result)}."
    copies = "memorisation" in result and (folder / MEMORISATION).is_file()
    return [
        *(rows if len(rows) > 2 else ["Nothing was measured."]),
        "",
        about,
        "",
        *([f"![The painted pictures nearest to training pictures]({MEMORISATION})", ""] if copies else []),
    ]


def _painting(config: Mapping[str, Any], run: str) -> list[str]:
    prompts = config.get("prompts") or ["a red square on white"]
    prompt = str(prompts[0]).replace('"', "'").replace("'", "’")
    return [
        "```sh",
        f"python -m diffusion_art.sample run={run} 'prompts=[\"{prompt}\"]'",
        f"python -m diffusion_art.serve run={run}",
        "```",
        "",
        "```python",
        "from diffusion_art import load_run",
        "",
        f'images = load_run("{run}")(["{prompt}"], seed=0)',
        "```",
        "",
        f"Captions like those of the training data work best: {'; '.join(f'*{text}*' for text in prompts[:3])}.",
        "",
    ]


def _limits(config: Mapping[str, Any], result: Mapping[str, Any]) -> list[str]:
    size = config["model"]["image_size_px"]
    lines = [
        f"- It knows only what its data shows, in {size} px: no faces and no writing unless those were in it.",
        "- Names of artists in captions stand for a manner. Its pictures are no works of theirs.",
    ]
    if memorised := result.get("memorisation"):
        lines.append(
            f"- {memorised['copies']:,} of {memorised['pictures']:,} pictures were as near to a training picture as "
            f"the nearest {100 * memorised['expected']:g} % of those are to each other. Look at the pairs above."
        )
    else:
        lines.append("- Whether it copies training pictures was not measured: `metrics=[memorisation]`.")
    return [*lines, *(f"- {text}" for text in BEWARE), ""]


def _class(node: Any) -> str:
    return str((node or {}).get("_target_", "")).rpartition(".")[2]
