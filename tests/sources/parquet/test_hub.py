"""`sources/parquet/hub.py`, against a hub that cannot be reached and against a small one on this machine."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants

from diffusion_art.errors import UserError
from diffusion_art.sources.parquet.hub import WikiArt, download
from tests.fakes_sources import wikiart_folder, wikiart_rows, write_parquet

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILE = "data/train-00000-of-00001.parquet"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[str]:
    """The address of a server with one data set, `someone/art`, of one parquet file and a README."""
    content = write_parquet(tmp_path / "served.parquet", wikiart_rows(5)).read_bytes()
    siblings = [{"rfilename": FILE, "size": len(content)}, {"rfilename": "README.md"}]
    info = json.dumps({"id": "someone/art", "sha": COMMIT, "siblings": siblings}).encode()
    tree = json.dumps([{"type": "file", "path": FILE, "size": len(content), "oid": "0" * 40}]).encode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.startswith("/api/datasets/someone/art/tree/"):
                self._answer(tree)
            elif self.path.startswith("/api/datasets/someone/art"):
                self._answer(info)
            elif self.path == f"/datasets/someone/art/resolve/{COMMIT}/{FILE}":
                self._answer(content)
            else:
                self.send_response(404)
                self.send_header("X-Error-Code", "RepoNotFound")
                self.send_header("Content-Length", "0")
                self.end_headers()

        do_HEAD = do_GET

        def _answer(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_the_parquet_files_are_downloaded_once(hub: str) -> None:
    folder = download("someone/art", endpoint=hub)
    assert [path.name for path in folder.rglob("*") if path.is_file()] == [FILE.rpartition("/")[2]]
    source = WikiArt(folder, repo_id="someone/art")
    assert (source.name, source.count) == ("art", 5)
    assert download("someone/art", endpoint="http://127.0.0.1:9") == folder  # the cache needs no hub


def test_a_data_set_that_the_hub_does_not_have(hub: str) -> None:
    with pytest.raises(UserError, match="no public data set `someone/else`"):
        download("someone/else", endpoint=hub)


def test_without_the_hub_the_error_names_three_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UserError) as caught:
        WikiArt()
    message = str(caught.value)
    assert "Artificio/WikiArt is not on this machine and the Hugging Face hub cannot be reached" in message
    for way in (
        "source=wikiart source.path=FOLDER",
        "on a machine that reaches the hub",
        "data.url=ws://HOST",
    ):
        assert way in message


def test_a_local_copy_needs_no_hub_and_makes_the_same_shards(tmp_path: Path) -> None:
    source = WikiArt(wikiart_folder(tmp_path / "copy", count=3))
    assert (source.name, source.count) == ("wikiart", 6)
    assert source.describe() == WikiArt(tmp_path / "copy" / "data").describe()
