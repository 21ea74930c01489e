"""The site builds without a warning, and its pages ask for nothing from elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from tests.conftest import ROOT

ASKED = re.compile(
    r"<(?:script|img|iframe|source)[^>]*\bsrc=[\"']?(https?:[^\"' >]+)|<link[^>]*\bhref=[\"']?(https?:[^\"' >]+)"
)


@pytest.mark.slow
def test_the_site_builds_and_is_self_contained(tmp_path):
    pytest.importorskip("mkdocs")
    out = tmp_path / "site"
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(out)],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    pages = {str(path.relative_to(out)): path.read_text() for path in out.rglob("*.html")}
    assert {"index.html", "tutorial.html", "wire.html", "reference/config.html", "reference/http.html"} <= pages.keys()
    assert {name: found for name, text in pages.items() if (found := ASKED.findall(text))} == {}
    assert "optim.lr" not in pages["tutorial.html"]
    assert "lr_warmup" in pages["reference/config.html"] or "warmup_steps" in pages["reference/config.html"]
    assert "/v1/images/generations" in pages["reference/http.html"]
    assert "CosineSchedule" in pages["reference/api/diffusion.html"]
    assert (out / "search" / "search_index.json").is_file()
