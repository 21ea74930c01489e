"""What stores do wrong: what passes is tried again and counted, what does not is told in one sentence."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import fsspec
import numpy as np
import pytest

from diffusion_art.errors import UserError
from diffusion_art.shards.places import Address, place_of, refuse_secrets
from diffusion_art.shards.reader import ShardSet
from diffusion_art.shards.remote.counts import totals
from diffusion_art.shards.remote.objects import Objects
from tests.shards.remote.s3 import SECRET
from tests.shards.remote.web import Web

TAR = "train-000000.tar"


def read_all(shards: ShardSet) -> list[bytes]:
    return [bytes(image or b"?") for image in shards.views("train", np.arange(shards.splits["train"]))[2]]


def complaint(address: Address) -> str:
    with pytest.raises(UserError) as failed:
        read_all(ShardSet.open(address))
    text = str(failed.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("unit", ["shard", pytest.param("range", marks=pytest.mark.slow)])
def test_a_fault_that_passes_is_tried_again_and_counted(web: Web, toy: Path, at: Callable[..., Address], unit: str):
    faults: dict[str, list[object]] = {
        "manifest.json": [502],
        "index-train.npy": ["short"],
        TAR: [500, "cut"],
        "train-000001.tar": [503],
        "train-000002.tar": [429],
        "train-000003.tar": [408],
    }
    web.fault = lambda file, number: dict(enumerate(faults.get(file, []))).get(number)
    before = totals()["retries"]
    assert read_all(ShardSet.open(at(web.url, unit=unit, retry_for_s=60))) == read_all(ShardSet.open(toy))
    assert totals()["retries"] - before == 7


@pytest.mark.slow
def test_a_server_that_stops_in_the_middle_is_given_up_and_asked_again(web: Web, toy: Path, at):
    web.fault = lambda file, number: 1.5 if (file, number) == (TAR, 0) else None
    before = totals()["retries"]
    assert read_all(ShardSet.open(at(web.url, timeout_s=0.3))) == read_all(ShardSet.open(toy))
    assert totals()["retries"] > before


def test_a_wrong_byte_is_found_by_the_checksum_and_read_again(web: Web, toy: Path, at: Callable[..., Address]):
    web.fault = lambda file, number: "flip" if number == 0 and file != "manifest.json" else None
    assert read_all(ShardSet.open(at(web.url))) == read_all(ShardSet.open(toy))


@pytest.mark.parametrize(
    ("unit", "fault", "says"),
    [
        ("shard", 404, "does not exist (404)"),
        ("shard", 403, "may not be read (403); sign in with a line for the host in ~/.netrc"),
        ("range", "flip", "does not match its manifest.json: it has SHA-256"),
        ("shard", 500, "HTTP status 500"),
        pytest.param("shard", 416, "is shorter than its manifest.json says", marks=pytest.mark.slow),
        pytest.param("shard", 418, "HTTP status 418", marks=pytest.mark.slow),
        pytest.param("shard", "short", "is cut", marks=pytest.mark.slow),
        pytest.param("shard", "flip", "does not match its manifest.json: it has SHA-256", marks=pytest.mark.slow),
        pytest.param("range", 404, "does not exist (404)", marks=pytest.mark.slow),
    ],
)
def test_what_does_not_pass_is_one_sentence_with_the_file(web: Web, at, unit: str, fault: object, says: str):
    web.fault = lambda file, number: fault if file == TAR else None
    text = complaint(at(web.url, unit=unit, retry_for_s=0.5 if fault == 500 else 3.0))
    assert f"{web.url}/{TAR}" in text
    assert says in text


def test_an_index_that_another_process_evicts_before_it_is_opened_is_copied_again(web: Web, toy: Path, at):
    address = at(web.url)

    def evict(file: str, number: int) -> None:
        if (file, number) == ("index-val.npy", 0):
            (train,) = Path(address.settings.cache).glob("*/index-train.npy")
            train.unlink()

    web.fault = evict
    assert read_all(ShardSet.open(address)) == read_all(ShardSet.open(toy))
    assert web.asked["index-train.npy"] > 1


def test_a_folder_that_is_no_shards_is_refused(web: Web, at: Callable[..., Address]):
    assert "/other/manifest.json: the store says that it does not exist" in complaint(at(f"{web.url}/other"))


def test_another_tar_than_the_index_tells_of_is_refused_before_its_checksum_is_known(
    toy: Path, tmp_path: Path, at: Callable[..., Address], monkeypatch: pytest.MonkeyPatch
):
    import shutil

    monkeypatch.setattr("diffusion_art.shards.remote.range_store.BLOCK_BYTES", 4096)
    folder = Path(shutil.copytree(toy, tmp_path / "moved"))
    tar = folder / TAR
    tar.write_bytes(bytes(512) + tar.read_bytes()[:-512])
    web = Web(folder)
    try:
        with pytest.raises(UserError, match=r"does not match its index: at byte 0 there is no 0000000000000000\.jpg"):
            ShardSet.open(at(web.url, unit="range")).views("train", np.array([0]))
    finally:
        web.close()


def test_a_server_that_goes_down_half_way_ends_the_reading_with_what_to_do(web: Web, at: Callable[..., Address]):
    shards = ShardSet.open(at(web.url, retry_for_s=0.5))
    assert shards.read("train", 0)
    web.close()
    with pytest.raises(UserError, match=r"train-000003\.tar cannot be read .*see whether its server is up"):
        shards.read("train", 99)
    assert shards.read("train", 1)  # what is there is still read


def test_nothing_more_is_asked_for_when_the_program_ends(web: Web, toy: Path, at: Callable[..., Address]):
    """Ranges of shards that are copied ahead wait for their turn by the dozen: a server that is stopped would read
    them all.
    """
    objects = Objects(at(web.url))
    objects.stop()
    with pytest.raises(UserError, match="the program is ending"):
        objects.read(TAR, 0, 100, size=(toy / TAR).stat().st_size)
    assert not web.asked


def test_a_bucket_that_is_not_there_or_not_ours(bucket: str, s3, at, monkeypatch: pytest.MonkeyPatch):
    assert "s3://toys/sett/manifest.json: the store says that it does not exist" in complaint(at(f"{bucket}t"))
    assert "does not exist (404)" in complaint(at("s3://nowhere/set"))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    assert "FSSPEC_S3_ANON=true" in complaint(at(bucket))


def test_a_server_that_would_compress_is_asked_not_to(web: Web, at: Callable[..., Address]):
    ShardSet.open(at(web.url))
    assert web.encodings == {"identity"}


def test_headers_of_fsspecs_own_settings_are_sent(web: Web, at: Callable[..., Address], monkeypatch):
    monkeypatch.setitem(fsspec.config.conf, "http", {"headers": {"Authorization": f"Bearer {SECRET}"}})
    web.fault = lambda file, number: None if web.authorized == f"Bearer {SECRET}" else 401
    assert ShardSet.open(at(web.url)).read("train", 0)
    monkeypatch.setitem(fsspec.config.conf, "http", {"headers": {"Authorization": "Bearer wrong"}})
    assert "may not be read (401)" in complaint(at(web.url))


MISSING = """
import sys
sys.modules["s3fs"] = sys.modules["aiohttp"] = None
from diffusion_art.errors import UserError
from diffusion_art.shards.reader import ShardSet
for url in ("s3://b/set", "https://h/set", "abfs://c@account.dfs.core.windows.net/set", "nothing://x/y"):
    try:
        ShardSet.open(url)
    except UserError as error:
        print(error)
"""


def test_a_library_that_is_not_installed_is_named_with_its_command():
    lines = subprocess.run([sys.executable, "-c", MISSING], capture_output=True, text=True, check=True).stdout
    s3, https, azure, nothing = lines.splitlines()
    assert "needs s3fs" in s3
    assert "python -m pip install -e '.[remote]'" in s3
    assert "needs aiohttp" in https
    assert "python -m pip install adlfs" in azure
    assert "nothing is not" in nothing


@pytest.mark.parametrize(
    "url",
    [
        f"s3://AKIA:{SECRET}@bucket/set",
        f"https://anna:{SECRET}@host/set",
        f"https://{SECRET}@host/set",
        f"https://host/set?X-Amz-Signature={SECRET}",
        f"simplecache::https://anna:{SECRET}@host/set",
    ],
)
def test_an_address_with_a_secret_is_refused_without_showing_it(url: str):
    with pytest.raises(UserError, match=r"carries .*addresses are saved") as failed:
        place_of(url)
    assert SECRET not in str(failed.value)


@pytest.mark.parametrize("url", [f"wss://anna:{SECRET}@host/ws", f"[ws://a:8000/ws,wss://host/ws?key={SECRET}]"])
def test_of_the_address_of_a_stream_server_it_says_where_a_token_is_given(url: str):
    with pytest.raises(UserError, match=r"carries .* by \$DIFFUSION_ART_STREAM_TOKEN, or by data\.token") as failed:
        refuse_secrets(url)
    assert SECRET not in str(failed.value)


def test_a_container_named_as_azure_does_is_no_secret():
    assert str(place_of("abfs://container@account.dfs.core.windows.net/set/")).endswith("/set")


def test_a_stream_server_is_told_from_a_folder():
    with pytest.raises(UserError, match=r"data\.url=ws://h:8000/ws"):
        place_of("ws://h:8000/ws")
