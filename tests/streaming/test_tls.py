"""Encrypted streams, by certificates made for the test."""

import urllib.request
from pathlib import Path

import pytest
import trustme

from diffusion_art.errors import UserError
from diffusion_art.net import Tls, client_context
from diffusion_art.streaming.client.readers import ReadRequest, StreamClient
from diffusion_art.streaming.client.shard_reader import ShardReader
from diffusion_art.streaming.server.process import ServerProcess
from diffusion_art.streaming.server.settings import Settings
from tests.streaming.running import running


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `ca.pem`, and certificates of it for 127.0.0.1 (`good`) and elsewhere (`other`)."""
    folder = tmp_path_factory.mktemp("tls")
    ca = trustme.CA()
    ca.cert_pem.write_to_path(folder / "ca.pem")
    trustme.CA().cert_pem.write_to_path(folder / "stranger.pem")
    for name, host in (("good", "127.0.0.1"), ("other", "elsewhere.example")):
        issued = ca.issue_cert(host)
        issued.private_key_pem.write_to_path(folder / f"{name}.key")
        for blob in issued.cert_chain_pems:
            blob.write_to_path(folder / f"{name}.pem", append=True)
    return folder


def tls(folder: Path, name: str = "good") -> Tls:
    return Tls(str(folder / f"{name}.pem"), str(folder / f"{name}.key"))


@pytest.fixture(scope="module")
def secure(toy: Path, authority: Path):
    with running(toy, Settings(tls=tls(authority), token="sesame")) as url:
        yield url


def test_a_stream_over_tls_is_the_stream(toy: Path, authority: Path, secure: str):
    assert secure.startswith("wss://")
    requests = [ReadRequest("train", 0, 16 * k, 16 * (k + 1)) for k in range(20)]
    client = StreamClient(secure, token="sesame", ca=str(authority / "ca.pem"))
    assert list(client.read(requests)) == list(ShardReader(toy).read(requests))


def test_a_certificate_of_nobody_we_trust_is_an_error_with_the_mend(authority: Path, secure: str):
    for ca in (None, str(authority / "stranger.pem")):
        with pytest.raises(UserError, match=r"is not trusted \(.+\); give it, .* with data\.ca=FILE"):
            StreamClient(secure, token="sesame", ca=ca).info()


def test_a_certificate_for_another_host_is_not_trusted(toy: Path, authority: Path):
    settings = Settings(tls=tls(authority, "other"))
    with running(toy, settings) as url, pytest.raises(UserError, match=r"is not trusted .*127\.0\.0\.1"):
        StreamClient(url, ca=str(authority / "ca.pem")).info()


def test_health_is_answered_over_tls_too(authority: Path, secure: str):
    url = secure.replace("wss://", "https://").replace("/ws", "/health")
    with urllib.request.urlopen(url, context=client_context(str(authority / "ca.pem"))) as response:
        assert response.read() == b"ok\n"


def test_one_who_does_not_encrypt_is_not_understood(secure: str):
    with pytest.raises(UserError, match="no stream server answers"):
        StreamClient(secure.replace("wss://", "ws://"), connect_for_s=0.2).info()


@pytest.mark.parametrize(
    ("certificate", "key", "says"),
    [
        ("nowhere.pem", "good.key", "No such file"),
        ("good.pem", "other.key", "mismatch"),
        ("good.key", "good.pem", "cannot be used"),
        ("ca.pem", "ca.pem", "cannot be used"),
    ],
)
def test_a_certificate_that_cannot_be_used_is_an_error_before_anything_is_served(
    toy: Path, authority: Path, certificate: str, key: str, says: str
):
    broken = Tls(str(authority / certificate), str(authority / key))
    with pytest.raises(UserError, match=says), running(toy, Settings(tls=broken)):
        pass


def test_a_ca_that_is_none_is_an_error(authority: Path, secure: str):
    for ca in (authority / "good.key", authority / "nowhere.pem"):
        with pytest.raises(UserError, match=r"data\.ca=.* is no PEM file of certificates"):
            StreamClient(secure, ca=str(ca)).info()


def test_several_processes_share_a_certificate(toy: Path, authority: Path):
    requests = [ReadRequest("train", 0, 0, 150)]
    with ServerProcess(toy, processes=2, settings=Settings(tls=tls(authority))) as server:
        client = StreamClient(server.url, ca=str(authority / "ca.pem"))
        assert list(client.read(requests)) == list(ShardReader(toy).read(requests))
