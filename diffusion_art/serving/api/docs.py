"""`/docs`: the API on one page, made from its OpenAPI description. No script and nothing from elsewhere."""

from __future__ import annotations

from html import escape
from typing import Any

from fastapi import FastAPI

_STYLE = """
:root { color-scheme: light dark; --ink: #222; --paper: #fdfcfa; --line: #ddd8d0; --quiet: #6b665f; --box: #f4f1ec }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8e4de; --paper: #1b1a18; --line: #3a3733; --quiet: #a09a91; --box: #242220 }
}
body { max-width: 56rem; margin: 3rem auto; padding: 0 1.25rem; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, sans-serif }
h1, h2 { font-weight: 600; line-height: 1.2 }
h2 { margin-top: 3rem; border-top: 1px solid var(--line); padding-top: 1.5rem }
code, pre { font: 14px/1.5 ui-monospace, monospace } pre { background: var(--box); padding: 1rem; overflow-x: auto }
table { border-collapse: collapse; width: 100% } td { border-top: 1px solid var(--line); padding: .4rem .75rem .4rem 0;
  vertical-align: top } .quiet { color: var(--quiet) } a { color: inherit }
"""
CSP = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


def page_of(app: FastAPI, *, base_url: str, guarded: bool) -> str:
    """The whole page."""
    api = app.openapi()
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(api['info']['title'])}</title>",
        '<meta name=viewport content="width=device-width, initial-scale=1">',
        f"<style>{_STYLE}</style><h1>{escape(api['info']['title'])}</h1>",
        f"<p>{escape(api['info'].get('description', ''))}</p>",
        f"<pre>{escape(_curl(base_url, guarded))}</pre>",
        f"<pre>{escape(_python(base_url, guarded))}</pre>",
        '<p class=quiet>For programs: <a href="openapi.json">openapi.json</a></p>',
    ]
    for path, methods in api["paths"].items():
        for method, operation in methods.items():
            parts += _operation(api, path, method, operation)
    return "".join(parts)


def _operation(api: dict[str, Any], path: str, method: str, operation: dict[str, Any]) -> list[str]:
    parts = [f"<h2><code>{method.upper()} {escape(path)}</code></h2><p>{escape(operation.get('summary', ''))}</p>"]
    if text := operation.get("description"):
        parts.append(f"<p>{escape(text)}</p>")
    if body := operation.get("requestBody"):
        schema = body["content"]["application/json"]["schema"]
        parts.append("<table>")
        parts += [
            f"<tr><td><code>{escape(name)}</code><td class=quiet>{escape(kind)}<td>{escape(text)}"
            for name, kind, text in _fields(api, schema)
        ]
        parts.append("</table>")
    parts.append("<table>")
    parts += [
        f"<tr><td><code>{escape(status)}</code><td>{escape(answer.get('description', ''))}"
        for status, answer in sorted(operation.get("responses", {}).items())
    ]
    return [*parts, "</table>"]


def _fields(api: dict[str, Any], schema: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Name, type and description of a body's fields; those of its items where it is a list."""
    schema = _resolved(api, schema.get("items", schema))
    required = schema.get("required", [])
    return [
        (name, _kind(api, field) + (", required" if name in required else ""), field.get("description", ""))
        for name, field in schema.get("properties", {}).items()
    ]


def _kind(api: dict[str, Any], field: dict[str, Any]) -> str:
    choices = [_resolved(api, choice) for choice in field.get("anyOf", [field])]
    found = next(choice for choice in choices if choice.get("type") != "null")
    if "enum" in found:
        return " | ".join(str(value) for value in found["enum"])
    if found.get("type") == "array":
        return f"list of {_kind(api, found['items'])}"
    low, high = found.get("minimum"), found.get("maximum", found.get("exclusiveMaximum"))
    span = "" if low is None else f" {low:g}.." + ("" if high is None else f"{high:g}")
    return f"{found.get('type', '')}{span}"


def _resolved(api: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in schema:
        return schema
    return api["components"]["schemas"][schema["$ref"].rpartition("/")[2]]


def _curl(base_url: str, guarded: bool) -> str:
    token = " -H 'Authorization: Bearer TOKEN'" if guarded else ""
    return (
        f"curl {base_url}/v1/images/generations{token} -H 'Content-Type: application/json' \\\n"
        """  -d '{"prompt": "Claude Monet / Water Lilies / Impressionism / landscape / 1906", "seed": 7}' \\\n"""
        "  | jq -r '.data[0].b64_json' | base64 -d > picture.png"
    )


def _python(base_url: str, guarded: bool) -> str:
    return (
        "from openai import OpenAI\n\n"
        f'client = OpenAI(base_url="{base_url}/v1", api_key="{"TOKEN" if guarded else "none"}")\n'
        'answer = client.images.generate(prompt="Claude Monet / Water Lilies", n=2, extra_body={"seed": 7})'
    )
