"""What mkdocs does beside rendering `docs/`: pages that are made from the code, and links that leave the folder.

Results, surprises and the painter's page are read where they lie; config, HTTP API and the API of the package are
written from `conf/`, the OpenAPI description and the package. None of these pages is a file.
"""

from __future__ import annotations

import posixpath
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

READ = {  # in the repository -> on the site
    "benchmarks/RESULTS.md": "benchmarks.md",
    "benchmarks/TRIED.md": "tried.md",
    "findings/README.md": "surprises.md",
    "data/README.md": "painter.md",
    "examples/README.md": "examples.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "README.md": "index.md",
}
PICTURES = [
    "data/painter.png",
    *(f"benchmarks/results/{path.name}" for path in (ROOT / "benchmarks/results").glob("*.png")),
]
PACKAGES = (  # for those who write programs with the package
    "runs",
    "checkpoints",
    "record",
    "diffusion",
    "models",
    "shards",
    "streaming",
    "sources",
    "captions",
    "data",
    "training",
    "evaluation",
)
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s#]+)(#[^)\s]*)?\)")
YAML_LINE = re.compile(
    r"^(?P<indent> *)(?P<item>- )?(?P<key>[\w/@]+(?: /?[\w/@]+)?):(?: (?P<value>.*?))?(?:\s+# ?(?P<says>.*))?$"
)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for name, page in READ.items():
        files.append(File.generated(config, page, content=(ROOT / name).read_text()))
    for name in PICTURES:
        files.append(File.generated(config, f"pictures/{posixpath.basename(name)}", abs_src_path=str(ROOT / name)))
    files.append(File.generated(config, "reference/config.md", content="\n".join(config_page())))
    files.append(File.generated(config, "reference/http.md", content="\n".join(http_page(openapi()))))
    for name in PACKAGES:
        text = f"# diffusion_art.{name}\n\n::: diffusion_art.{name}\n"
        files.append(File.generated(config, f"reference/api/{name}.md", content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links to files of the repository become links to their pages, or the file's name where it has none."""
    origin = {page: name for name, page in READ.items()}.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    return LINK.sub(lambda match: _link(match, origin, page.file.src_uri), markdown)


def _link(match: re.Match[str], origin: str, here: str) -> str:
    picture, words, to, anchor = match[1], match[2], match[3], match[4] or ""
    if "://" in to or to.startswith("/") or origin.startswith("docs/reference/"):
        return match[0]
    target = posixpath.normpath(posixpath.join(posixpath.dirname(origin), to))
    if target in READ:
        found = READ[target]
    elif target in PICTURES:
        found = f"pictures/{posixpath.basename(target)}"
    elif target.startswith("docs/"):
        found = target.removeprefix("docs/")
    else:
        return words if words.strip("`") == target else f"{words} (`{target}`)"
    return f"{picture}[{words}]({posixpath.relpath(found, posixpath.dirname(here) or '.')}{anchor})"


# -- conf/


def config_page() -> Iterator[str]:
    yield "# Every command and key\n"
    yield "Made from the files of `conf/` and their comments. A key is written with dots on the command line:"
    yield "`optim.lr=2e-4`. A choice of a group is written with its folder: `model/schedule=cosine`.\n"
    conf = ROOT / "conf"
    commands = sorted(conf.glob("*.yaml"))
    yield "## Commands\n"
    for path in commands:
        yield from _file(path, f"python -m diffusion_art.{path.stem}")
    for group in sorted({path.parent for path in conf.rglob("*.yaml")} - {conf}):
        yield f"## {group.relative_to(conf).as_posix()}\n"
        for path in sorted(group.glob("*.yaml")):
            yield from _file(path, f"{group.relative_to(conf).as_posix()}={path.stem}")


def _file(path: Path, title: str) -> Iterator[str]:
    lines = path.read_text().splitlines()
    yield f"### `{title}`\n"
    start = next((i for i, line in enumerate(lines) if not line.startswith("#")), len(lines))
    about = [line.lstrip("# ").rstrip() for line in lines[:start] if "@package" not in line]
    yield "\n".join(_about(about)) + "\n"
    rows = list(_keys(lines[start:]))
    if rows:
        yield "| key or group | value | |\n|---|---|---|"
        yield from (f"| `{key}` | {_code(value)} | {_safe(says)} |" for key, value, says in rows)
    yield ""


def _about(lines: list[str]) -> Iterator[str]:
    """The comment at a file's head, its commands set apart as code."""
    was_code = False
    for line in lines:
        words, command, rest = line.partition("python -m")
        for text, code in ((words.rstrip(), False), (command + rest, True)):
            if text or not command:
                if code != was_code:
                    yield ""
                yield f"    {text}" if code else _safe(text)
                was_code = code


def _keys(lines: list[str]) -> Iterator[tuple[str, str, str]]:
    """(key with dots, value, comment). A comment on lines of its own belongs to the key below it."""
    above: list[str] = []
    places: list[tuple[int, str]] = []
    for line in lines:
        if line.strip().startswith("#"):
            above.append(line.strip().lstrip("# "))
            continue
        found = YAML_LINE.match(line)
        if found is None:
            above = []
            continue
        indent = len(found["indent"])
        places = [place for place in places if place[0] < indent]
        says = " ".join([*above, found["says"] or ""]).strip()
        above = []
        if found["item"]:
            group = found["key"].removeprefix("override ").lstrip("/")
            if group != "hydra":
                yield group, found["value"] or "", says
            continue
        places.append((indent, found["key"]))
        if found["value"] or says:
            yield ".".join(key for _, key in places), found["value"] or "", says


def _safe(text: str) -> str:
    """Plain text as Markdown; pages that it names are linked."""
    for sign, written in (("|", "\\|"), ("<", "&lt;"), ("[", "\\["), ("_", "\\_"), ("*", "\\*")):
        text = text.replace(sign, written)
    return re.sub(r"docs/([\w\\]+\.md)", lambda match: f"[{match[1]}](../{match[1].replace(chr(92), '')})", text)


def _code(value: str) -> str:
    return f"`{value}`".replace("|", "\\|") if value else ""


# -- the HTTP API


def openapi() -> dict[str, Any]:
    """The description that a server gives at `/openapi.json`. It depends on no model."""
    from diffusion_art.serving.api.app import create_app
    from diffusion_art.serving.api.metrics import Metrics
    from diffusion_art.serving.settings import Settings

    return create_app(SimpleNamespace(settings=Settings(), metrics=Metrics())).openapi()  # type: ignore[arg-type]


def http_page(api: dict[str, Any]) -> Iterator[str]:
    yield "# HTTP API, field by field\n"
    yield f"{api['info']['description']} [The HTTP API](../api.md) tells how to use it. Made from `/openapi.json`.\n"
    for path, methods in api["paths"].items():
        for method, operation in methods.items():
            yield f"## `{method.upper()} {path}`\n"
            yield f"{operation.get('summary', '')}\n\n{operation.get('description', '')}\n"
            body = operation.get("requestBody", {}).get("content", {})
            schemas = [part.get("schema", {}) for part in body.values()]
            for schema in schemas:
                yield from _fields(api, schema, "Request")
            for status, answer in operation.get("responses", {}).items():
                yield f"* {status}: {answer.get('description', '')}"
            yield ""
    yield "## Answers\n"
    for name, schema in api["components"]["schemas"].items():
        yield f"### {name}\n"
        yield from _fields(api, schema, schema.get("description", ""))


def _fields(api: dict[str, Any], schema: dict[str, Any], title: str) -> Iterator[str]:
    if "$ref" in schema:
        schema = api["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    if schema.get("type") == "array" and "$ref" in schema.get("items", {}):
        yield from _fields(api, schema["items"], f"{title}: a list of")
        return
    yield f"{title}\n"
    if not schema.get("properties"):
        return
    yield "| field | type | default | |\n|---|---|---|---|"
    for name, field in schema["properties"].items():
        default = _code(repr(field["default"])) if "default" in field else ""
        told = _safe(" ".join(str(field.get("description", "")).split()))
        yield f"| `{name}` | {_safe(_type(field))} | {default} | {told} |"
    yield ""


def _type(field: dict[str, Any]) -> str:
    if "$ref" in field:
        return field["$ref"].rpartition("/")[2]
    for kind in ("anyOf", "oneOf"):
        if kind in field:
            return " or ".join(_type(each) for each in field[kind])
    if "enum" in field:
        return " or ".join(repr(each) for each in field["enum"])
    if field.get("type") == "array":
        return f"list of {_type(field.get('items', {}))}"
    bounds = [
        f"{sign} {field[name]}"
        for name, sign in (("minimum", ">="), ("maximum", "<="), ("exclusiveMinimum", ">"))
        if name in field
    ]
    return " ".join([str(field.get("type", "any")), *bounds])
