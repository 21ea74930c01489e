"""What a server counts, and that Prometheus can read it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families
from websockets.sync.client import connect

from diffusion_art.streaming.client.readers import ReadRequest, StreamClient
from diffusion_art.streaming.server.metrics import FAMILIES, Exposition, Table, read_metrics
from diffusion_art.streaming.server.process import ServerProcess
from diffusion_art.streaming.server.settings import Settings
from diffusion_art.streaming.wire import SUBPROTOCOL, Read, StreamInfo, pack_message
from tests.conftest import ROOT
from tests.shards.toy import write_toy
from tests.streaming.running import figures_of, http, running

INFO = StreamInfo(
    name='a "name"\nwith \\ in it', splits={"train": 5, "val": 1}, digest="d", image_size_px=1, caption_template=None
)


def test_rows_add_up_and_a_process_that_takes_over_a_row_counts_on():
    table = Table(3)
    for number, row in enumerate(table.rows):
        row.begin()
        row.add("samples", "v2", 10**number)
        row.add("connections_open", "v1")
    assert (table.total("samples", "v2"), table.total("samples", "v1")) == (111, 0)
    assert (table.family_total("connections_open"), table.processes()) == (3, 3)
    table.rows[1].retire()
    assert (table.family_total("connections_open"), table.processes()) == (2, 2)
    table.rows[1].begin()
    table.rows[1].add("samples", "v2", 1000)
    assert (table.total("samples", "v2"), table.processes(), table.total("process_starts")) == (1111, 3, 4)


def test_another_process_writes_into_the_same_table():
    program = (
        "import sys; from diffusion_art.streaming.server.metrics import Table\n"
        "row = Table(2, descriptor=int(sys.argv[1])).rows[1]; row.begin(); row.add('samples', 'v1', 7)"
    )
    with Table.shared(2) as (table, descriptor):
        subprocess.run([sys.executable, "-c", program, str(descriptor)], check=True, cwd=ROOT, pass_fds=[descriptor])
        assert table.total("samples", "v1") == 7
        assert table.rows[0].get("samples", "v1") == 0
        assert table.rows[1].get("process_starts") == 1


def test_the_text_says_what_was_counted_and_keeps_to_the_conventions():
    table = Table(2)
    for row in table.rows:
        row.begin()
        row.add("sent_bytes", "v2", 2**40 + 1)
        for seconds in (0.0005, 0.001, 0.02, 0.3, 100):
            row.observe_request(seconds)
    text, content_type = Exposition(table, INFO).render()
    assert content_type.startswith("text/plain; version=")
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert {f"diffusion_art_stream_{family.name}" for family in FAMILIES} <= families.keys()
    for family in families.values():
        assert re.fullmatch(r"diffusion_art_stream_[a-z_]+", family.name)
        assert family.documentation.endswith(".")
        if family.type == "counter":
            assert all(sample.name.endswith("_total") for sample in family.samples)
    figures, about = read_metrics(text)
    assert about == {"name": INFO.name, "digest": "d"}
    assert figures["sent_bytes_total", "v2"] == 2 * (2**40 + 1)
    assert [figures["request_seconds_bucket", bound] for bound in ("0.001", "0.005", "0.025", "0.5", "+Inf")] == [
        4,
        4,
        6,
        8,
        10,
    ]
    assert figures["request_seconds_count", ""] == 10
    assert figures["request_seconds_sum", ""] == pytest.approx(200.643)
    assert figures["data_set_samples", "train"] == 5
    assert figures["resident_bytes", ""] > 2**20


def test_a_text_of_another_program_is_refused():
    for text in ("", "# TYPE up gauge\nup 1\n", "<html>"):
        with pytest.raises(ValueError, match="metric"):
            read_metrics(text)


def test_a_server_counts_what_it_does(toy: Path):
    with running(toy) as url:
        client = StreamClient(url)
        samples = [sample for batch in client.read([ReadRequest("train", 0, 0, 250)]) for sample in batch]
        with connect(url, subprotocols=[SUBPROTOCOL], compression=None, proxy=None) as connection:
            connection.send(pack_message(Read(1, "nowhere", 0, 0, 0, 1)))
            connection.recv()
            figures = figures_of(url)
            assert figures["connections_open", "v2"] == 1
        assert figures["samples_total", "v2"] == 250
        assert figures["requests_total", "v2"] == 4  # an epoch each, and the one that was refused
        assert figures["requests_refused_total", "v2"] == 1
        assert figures["request_seconds_count", ""] == 4
        pictures = sum(len(sample.image) + len(sample.caption.encode()) for sample in samples)
        assert pictures < figures["sent_bytes_total", "v2"] < pictures + 250 * 17 + 2000
        assert figures["connections_total", "v2"] >= 2
        assert figures["processes", ""] == 1
        assert http(url, "/nowhere")[0] == 404
        assert figures_of(url)["connections_refused_total", "path"] == 1


def test_unreadable_samples_are_counted(tmp_path: Path):
    write_toy(tmp_path, train=64)
    with running(tmp_path) as url:
        os.truncate(tmp_path / "train-000001.tar", 100)
        list(StreamClient(url).read([ReadRequest("train", None, 0, 64)]))
        figures = figures_of(url)
        assert (figures["samples_total", "v2"], figures["unreadable_samples_total", ""]) == (32, 32)


def test_health_is_for_everybody_and_metrics_for_those_with_the_token(toy: Path):
    with running(toy, Settings(token="sesame")) as url:
        for path in ("/health", "/healthz", "/livez", "/readyz", "/ping", "/health/", "//health"):
            assert http(url, path) == (200, "text/plain; charset=utf-8", "ok\n")
        for headers, said in (({}, "This stream needs its token"), ({"Authorization": "Bearer sesam"}, "This is not")):
            status, _, text = http(url, "/metrics", **headers)
            assert (status, text.startswith(said)) == (401, True)
            assert "as the header 'Authorization: Bearer TOKEN'" in text
        status, content_type, text = http(url, "/metrics", Authorization="Bearer sesame")
        assert (status, content_type.startswith("text/plain; version=")) == (200, True)
        assert read_metrics(text)[0]["connections_refused_total", "token"] == 2


def test_openmetrics_is_spoken_to_those_who_ask_for_it(server: ServerProcess):
    accept = "application/openmetrics-text; version=1.0.0,text/plain;version=0.0.4;q=0.5"
    status, content_type, text = http(server.url, "/metrics", Accept=accept)
    assert status == 200
    assert content_type.startswith("application/openmetrics-text")
    assert "diffusion_art_stream_samples" in {family.name for family in parse_openmetrics(text)}
