from __future__ import annotations

import base64
import contextlib
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx2
import pytest
from hydra import compose, initialize_config_dir

from diffusion_art.config import config_dir, plain
from diffusion_art.errors import UserError
from diffusion_art.files import CACHE_VARIABLE
from diffusion_art.serving.api.gate import answers_to
from diffusion_art.serving.engine.compiled import worth_trying
from diffusion_art.serving.listening import listen_at, url_of
from diffusion_art.serving.settings import OPENAI_NAMES, TOKEN_VARIABLE, Limits, Settings
from diffusion_art.stop_signals import AGAIN_S
from tests import commands
from tests.commands import COMMON
from tests.fakes import JIT_CONFIG, MODEL_CONFIG, SAMPLER_CONFIG, toy_model, write_checkpoint
from tests.serving.raw import eventually

ROOT = Path(__file__).parents[2]
TOKEN = "a-token-of-some-length"


def asked(*overrides: str) -> dict:
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        return plain(compose("serve", ["run=somewhere", *overrides]))


def test_the_yaml_says_what_the_classes_say(monkeypatch):
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    assert Settings.of(asked()) == Settings(aliases=OPENAI_NAMES, limits=Limits())


def test_settings_from_the_command_line_and_the_environment(monkeypatch):
    monkeypatch.setenv(TOKEN_VARIABLE, TOKEN)
    settings = Settings.of(asked("limits.max_n=3", "limits.rate_per_minute=null", "hosts=[Art.Example]", "name=mine"))
    assert settings.tokens == (TOKEN,)
    assert (settings.limits.max_n, settings.limits.rate_per_minute) == (3, None)
    assert (settings.hosts, settings.name) == (("art.example",), "mine")
    other = "another-token-of-length"
    assert Settings.of(asked(f"token={other}")).tokens == (other,)
    assert Settings.of(asked(f"token=[{other},{TOKEN}]")).tokens == (other, TOKEN)


def test_one_name_is_a_list_of_one_as_requests_and_browsers_write_it():
    settings = Settings.of(asked("hosts=Art.Example:8443", "cors=https://Example.org/", "aliases=mine"))
    assert (settings.hosts, settings.aliases) == (("art.example",), ("mine",))
    assert answers_to(settings, "art.example:8000")
    assert not answers_to(settings, "a")
    assert settings.cors == ("https://example.org",)
    assert Settings.of(asked("hosts=null", "cors=[]")).hosts == ()


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["host=0.0.0.0"], "error: host=0.0.0.0 can be reached by others, so a token is needed"),
        (["host=0.0.0.0", "token=short"], "error: a token of 5 characters is no secret"),
        (["limits.max_n=0"], "error: limits.max_n=0 must be at least 1; its default is 10"),
        (["limits.max_m=3"], "error: there is no config key `limits.max_m`; did you mean `limits.max_n`"),
        (["engine.max_rows=1"], "error: the engine cannot be made: max_rows=1"),
        (["engine.precision=float7"], "error: the engine cannot be made: precision='float7'"),
        (["drain_s=30s"], "error: drain_s=30s is not a number of seconds: give one, 0 or more."),
        (["log_level=loud"], "error: log_level=loud is not one of debug, info, warning, error"),
        (["compile=later"], "error: compile=later is not one of auto, true, false"),
        (["tls.certificate=cert.pem"], "error: tls.key is missing"),
        (["tls.certificate=cert.pem", "tls.key=key.pem"], "error: the certificate cert.pem and its key key.pem"),
        (["port=abc"], "error: port=abc is not a number: give one from 1 to 65535"),
        (["port=99999"], "error: nothing can be served at 127.0.0.1, port 99999"),
        (["host=203.0.113.1", f"token={TOKEN}"], "error: nothing can be served at 203.0.113.1, port 0"),
        (["run=nowhere"], "error: there is no run at nowhere"),
        (["checkpoint=other"], "has no checkpoint named 'other'"),
    ],
)
def test_mistakes_are_said_in_a_sentence(run_here, toy_folder, monkeypatch, overrides, said):
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    status, _, complaint = run_here("serve", f"run={toy_folder}", "port=0", "device=cpu", *overrides)
    assert status == 1
    assert said in complaint
    assert complaint.count("\n") == 1
    assert TOKEN not in complaint


def test_a_port_that_is_taken(run_here, toy_folder):
    """Also by a server that is still reading its run."""
    with listen_at("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        status, _, complaint = run_here("serve", f"run={toy_folder}", f"port={port}")
    assert status == 1
    assert f"error: nothing can be served at 127.0.0.1, port {port}" in complaint
    assert "choose another port=..." in complaint


def test_addresses_in_words():
    with listen_at("127.0.0.1", 0) as listener:
        assert url_of(listener) == f"http://127.0.0.1:{listener.getsockname()[1]}"
        assert url_of(listener, secure=True).startswith("https://")
    if socket.has_ipv6:
        try:
            with listen_at("::1", 0) as listener:
                assert url_of(listener).startswith("http://[::1]:")
        except UserError:
            pytest.skip("this machine has no ::1")


# ---------------------------------------------------------------------- the real command


class Command:
    """The real command in a process of its own; `url` is where it says that it serves."""

    def __init__(self, run: Path, cwd: Path, *overrides: str, env: dict[str, str] | None = None) -> None:
        environment = {**os.environ, **COMMON}
        environment |= {CACHE_VARIABLE: str(cwd.with_name(f"{cwd.name}-cache")), **(env or {})}
        self.process = commands.Command(
            [sys.executable, "-m", "diffusion_art.serve", f"run={run}", "device=cpu", *overrides],
            cwd=cwd,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.said: list[str] = []
        self.url = ""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(line)
            if " is served at " in line:
                self.url = line.rsplit(" ", 1)[1].strip()
                break
        assert self.url, "".join(self.said)
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.said += self.process.stdout

    def __enter__(self) -> Command:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()


def paint(url: str, **extra) -> httpx2.Response:
    with httpx2.Client(trust_env=False, timeout=60) as client:
        headers = extra.pop("headers", {})
        return client.post(
            f"{url}/v1/images/generations", json={"prompt": "a secret wish " * 9, **extra}, headers=headers
        )


def _paint_in_vain(url: str, asked: dict) -> None:
    with contextlib.suppress(httpx2.HTTPError):
        paint(url, **asked)


@pytest.mark.slow
def test_sigterm_lets_it_finish(toy_folder, tmp_path):
    with Command(toy_folder, tmp_path, "port=0") as served:
        statuses: list[int] = []
        long = {"sampler": "heun", "num_inference_steps": 200, "n": 4}
        asking = threading.Thread(target=lambda: statuses.append(paint(served.url, **long).status_code))
        assert paint(served.url).status_code == 200
        asking.start()
        with httpx2.Client(base_url=served.url, trust_env=False) as client:
            assert eventually(lambda: "running_pictures 4.0" in client.get("/metrics").text)
        served.process.send_signal(signal.SIGTERM)
        asking.join()
        assert statuses == [200]
        assert served.process.wait(30) == 0
        served._reader.join()
        said = "".join(served.said)
    assert "stopped; 5 pictures painted" in said
    assert "secret" not in said
    assert "Traceback" not in said
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_second_signal_ends_it_at_once(toy_folder, tmp_path):
    with Command(toy_folder, tmp_path, "port=0", "drain_s=600", "limits.max_steps=100000") as served:
        long = {"sampler": "heun", "num_inference_steps": 20_000, "n": 4}
        asking = threading.Thread(target=_paint_in_vain, args=(served.url, long))
        asking.start()
        with httpx2.Client(base_url=served.url, trust_env=False) as client:
            assert eventually(lambda: "running_pictures 4.0" in client.get("/metrics").text)
            served.process.send_signal(signal.SIGINT)
            assert eventually(lambda: client.get("/ready").status_code == 503)
        time.sleep(AGAIN_S)  # sooner it would be the first one, passed on
        served.process.send_signal(signal.SIGINT)
        assert served.process.wait(30) == 0
        asking.join()


@pytest.mark.slow
def test_killed_and_started_again_nothing_is_left(toy_folder, tmp_path):
    """The same port and the same picture; urls of the first life are gone, and nothing was written."""
    with Command(toy_folder, tmp_path, "port=0") as first:
        port = first.url.rpartition(":")[2]
        url = paint(first.url, seed=1, response_format="url").json()["data"][0]["url"]
        content = httpx2.get(url, trust_env=False).content
        first.process.kill()
    assert not list(tmp_path.iterdir())
    with Command(toy_folder, tmp_path, f"port={port}") as second:
        assert second.url == first.url
        assert httpx2.get(url, trust_env=False).status_code == 404
        again = paint(second.url, seed=1).json()["data"][0]["b64_json"]
        assert base64.b64decode(again) == content
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.longest
@pytest.mark.skipif(not worth_trying("cpu"), reason="nothing to compile with here, or no room")
def test_compiled_once_it_is_kept_for_servers_that_are_not_told_to(tmp_path):
    """Of a pixel transformer in bfloat16; the process that compiles compares it with the network as it is."""
    config = {"model": MODEL_CONFIG | {"backbone": JIT_CONFIG}, "sampler": SAMPLER_CONFIG, "guidance_scale": 2.0}
    checkpoint = write_checkpoint(tmp_path / "last.ckpt", toy_model(backbone=JIT_CONFIG), config=config)
    given = ("port=0", "engine.precision=bf16", "engine.max_rows=2")
    wish = {"seed": 1, "response_format": "b64_json"}

    def compiled(url: str) -> bool:
        return "network_compiled 1.0" in httpx2.get(f"{url}/metrics", trust_env=False).text

    with Command(checkpoint, tmp_path, *given, "compile=true") as first:
        assert eventually(lambda: compiled(first.url), within_s=600), "".join(first.said)
        painted = paint(first.url, **wish).json()["data"][0]["b64_json"]
    with Command(checkpoint, tmp_path, *given) as second:
        assert eventually(lambda: compiled(second.url), within_s=30), "".join(second.said)
        assert paint(second.url, **wish).json()["data"][0]["b64_json"] == painted
    with Command(checkpoint, tmp_path, *given, "compile=false") as third:
        paint(third.url, **wish)
        assert not compiled(third.url)


@pytest.mark.slow
def test_over_tls_with_a_token_from_the_environment(toy_folder, tmp_path):
    trustme = pytest.importorskip("trustme")
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    overrides = ("port=0", "host=0.0.0.0", "tls.certificate=cert.pem", "tls.key=key.pem", "log_level=debug")
    with Command(toy_folder, tmp_path, *overrides, env={TOKEN_VARIABLE: TOKEN}) as served:
        url = served.url.replace("0.0.0.0", "127.0.0.1")
        assert url.startswith("https://")
        context = ssl.create_default_context()
        authority.configure_trust(context)
        with httpx2.Client(base_url=url, trust_env=False, verify=context) as client:
            assert client.get("/v1/models").status_code == 401
            assert client.get("/v1/models", headers={"authorization": f"Bearer {TOKEN}"}).status_code == 200
        served.process.terminate()
        assert served.process.wait(30) == 0
        served._reader.join()
        assert TOKEN not in "".join(served.said)
