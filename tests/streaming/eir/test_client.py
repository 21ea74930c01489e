"""Our client at servers that speak only EIR's protocol 1.0, and at our own spoken to in it."""

import json
import logging
import pickle
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffusion_art.data.datamodule import StreamDataModule
from diffusion_art.errors import UserError
from diffusion_art.shards.reader import Sample
from diffusion_art.streaming.client.readers import ReadRequest
from diffusion_art.streaming.eir.client import DIGEST, EirReader
from diffusion_art.streaming.server.settings import Settings
from tests.streaming.eir.serving import EirStreamer, serving, streaming
from tests.streaming.pictures import picture, picture_caption, picture_key, write_pictures

SAMPLES = {picture_key(i): Sample(picture_key(i), picture(i), picture_caption(i)) for i in range(100)}


def requests(*sizes: int) -> list[ReadRequest]:
    stops = np.cumsum(sizes).tolist()
    return [ReadRequest("train", 0, stop - size, stop) for size, stop in zip(sizes, stops, strict=True)]


def impatient(url: str, **options) -> EirReader:
    return EirReader(url, timeout_s=2, retry_for_s=0.4, connect_for_s=0.4, **options)


@pytest.mark.parametrize("batch", [0, 1, 32, 200])
def test_requests_get_their_samples_however_many_the_server_sends_at_once(batch: int):
    with streaming(EirStreamer(batch=batch)) as url:
        reader = impatient(url)
        answers = list(reader.read(requests(10, 1, 25, 24)))
        reader.close()
    assert [len(samples) for samples in answers] == [10, 1, 25, 24]
    samples = [sample for answer in answers for sample in answer]
    assert {sample.key: sample for sample in samples} == {key: SAMPLES[key] for key in map(picture_key, range(60))}


def test_our_own_server_is_read_in_the_old_protocol_too(tmp_path: Path):
    write_pictures(tmp_path)
    with serving(tmp_path, Settings(eir_epochs=1)) as url:
        validation, length = impatient(url).choose_validation(20)
        assert (len(validation), length) == (20, 80)
        one, other = (impatient(url, validation=validation, samples=length) for _ in range(2))
        assert one.info().splits == {"val": 20, "train": 80}
        found = [samples for pair in zip(*(r.read(requests(*[8] * 10)) for r in (one, other))) for samples in pair]
        one.close()
        other.close()
    keys = [sample.key for samples in found for sample in samples]
    expected = SAMPLES.keys() - {sample.key for sample in validation}
    assert Counter(keys[:80]) == Counter(expected)
    assert Counter(keys) == Counter(dict.fromkeys(expected, 2))
    assert all(sample == SAMPLES[sample.key] for samples in found for sample in samples)


@pytest.mark.parametrize("streamer", [EirStreamer(), EirStreamer(ends=True, batch=7), EirStreamer(batch=0)])
def test_validation_samples_are_told_to_the_server_and_never_trained_on(streamer: EirStreamer):
    with streaming(streamer) as url:
        validation, length = impatient(url).choose_validation(20)
        assert length is None
        assert len({sample.key for sample in validation}) == 20
        assert streamer.validation == {sample.key for sample in validation}
        streamer.validation = set()  # as a server that has been started again
        reader = impatient(url, validation=validation)
        samples = [sample for answer in reader.read(requests(*[16] * 20)) for sample in answer]
        reader.close()
    assert {sample.key for sample in samples} == {picture_key(i) for i in range(60)} - {s.key for s in validation}


def test_validation_reads_what_was_chosen_without_a_server():
    validation = [SAMPLES[picture_key(i)] for i in range(10)]
    reader = pickle.loads(pickle.dumps(EirReader("ws://127.0.0.1:9/ws", validation=validation)))
    answers = list(reader.read([ReadRequest("val", None, 0, 4), ReadRequest("val", None, 4, 10)]))
    assert answers == [validation[:4], validation[4:]]


def test_of_a_short_stream_a_tenth_is_for_validation():
    with streaming(EirStreamer(samples=45, ends=True, batch=0)) as url:
        assert len(impatient(url).choose_validation(1000)[0]) == 5
    with streaming(EirStreamer(samples=45, batch=0)) as url:
        assert len(impatient(url).choose_validation(1000)[0]) == 5
    with streaming(EirStreamer(samples=45)) as url:
        assert impatient(url).choose_validation(0) == ([], None)


def test_the_end_of_a_pass_is_the_start_of_the_next():
    with streaming(EirStreamer(samples=20, ends=True, batch=8)) as url:
        reader = impatient(url)
        keys = [sample.key for answer in reader.read(requests(50, 10)) for sample in answer]
        reader.close()
    assert Counter(keys) == Counter({picture_key(i): 3 for i in range(20)})


def test_a_stream_without_samples_for_training_is_an_error():
    for streamer in (EirStreamer(samples=0, ends=True), EirStreamer(samples=5, says={}, ends=True)):
        validation = [SAMPLES[picture_key(i)] for i in range(5)]
        with streaming(streamer) as url, pytest.raises(UserError, match=r"no samples for training.*data\.val_samples"):
            next(impatient(url, validation=validation).read(requests(1)))


def test_a_server_that_breaks_off_is_asked_again():
    streamer = EirStreamer(batch=0)
    with streaming(streamer) as url:
        reader = EirReader([url], timeout_s=2, retry_for_s=10)
        answers = reader.read(requests(*[5] * 6))
        found = list(islice(answers, 2))
        for connection in set(streamer.connections):
            connection.transport.get_extra_info("socket").shutdown(2)
        found += list(answers)
        reader.close()
    assert [len(samples) for samples in found] == [5] * 6


def test_a_server_that_is_gone_is_an_error_that_names_it():
    with streaming(EirStreamer(batch=0)) as url:
        reader = impatient(url)
        answers = reader.read(requests(*[5] * 6))
        next(answers)
    with pytest.raises(UserError, match=rf"the EIR server at {url} has broken off"):
        list(answers)
    with pytest.raises(UserError, match=rf"the EIR server at {url} does not answer"):
        next(impatient(url).read(requests(1)))


def test_a_new_reader_in_mid_run_waits_as_the_run_does():
    streamer = EirStreamer(batch=0)
    with streaming(streamer) as url:
        port = int(url.rsplit(":", 1)[1].split("/")[0])
    reader = EirReader(url, met=True, connect_for_s=0.1, retry_for_s=30)
    with ThreadPoolExecutor() as pool:
        read = pool.submit(lambda: list(reader.read(requests(5))))
        time.sleep(1)
        with streaming(streamer, port=port):
            assert len(read.result()[0]) == 5
            reader.close()


@pytest.mark.parametrize(
    ("kind", "said", "complaint"),
    [
        ("handshake", json.dumps({"type": "error", "payload": {"message": "version 3"}}), "version 3"),
        ("getInfo", "not json", "not JSON"),
        ("getInfo", json.dumps({"type": "info", "payload": []}), "info that is none"),
        (
            "getData",
            json.dumps({"type": "data", "payload": {}}),
            "data that is no list.*repair the server",
        ),
        ("getData", json.dumps({"type": "data", "payload": []}), "has no samples for training"),
        (
            "getData",
            json.dumps({"type": "data", "payload": [{"sample_id": "a"}]}),
            "sample that is none.*repair",
        ),
        ("getData", json.dumps({"type": "error", "payload": {"message": "out of memory"}}), "out of memory"),
        ("getData", json.dumps([]), "was due"),
        ("getData", json.dumps({"type": "heartbeat"}), "no answer within"),
    ],
)
def test_a_server_that_does_not_keep_to_the_protocol_is_an_error(kind: str, said: str, complaint: str):
    with streaming(EirStreamer(says={kind: said})) as url:
        answers = EirReader(url, timeout_s=0.3, retry_for_s=0.2, connect_for_s=0.2).read(requests(1))
        with pytest.raises(UserError, match=complaint):
            next(answers)


def test_a_stream_of_something_else_is_an_error_that_says_what_it_is():
    said = json.dumps({"type": "info", "payload": {"inputs": {"x": {"type": "array"}}, "outputs": {}}})
    with (
        streaming(EirStreamer(says={"getInfo": said})) as url,
        pytest.raises(UserError, match=r"streams no captioned pictures.*array"),
    ):
        impatient(url).choose_validation(1)


def test_pictures_and_captions_may_have_any_names():
    def said(picture_b64: str) -> str:
        inputs = {"art": picture_b64, "title": None}
        sample = {"inputs": inputs, "target_labels": {"out": {"out": picture_b64}}, "sample_id": 7}
        return json.dumps({"type": "data", "payload": [sample]})

    info = {"inputs": {"title": {"type": "sequence"}, "art": {"type": "image"}}, "outputs": {"out": {"type": "image"}}}
    streamer = EirStreamer(says={"getInfo": json.dumps({"type": "info", "payload": info}), "getData": said("aGFsbG8=")})
    with streaming(streamer) as url:
        for written in ("aGFsbG8=", "aGFsbG8", "aGFs\nbG8=\n", "data:image/png;base64,aGFsbG8="):
            streamer.says["getData"] = said(written)
            assert next(impatient(url).read(requests(1))) == [Sample("7", b"hallo", "")]
        streamer.says["getData"] = said("no base64!")
        assert next(impatient(url).read(requests(1))) == [Sample("7", b"", "")]


# ------------------------------------------------------------------ training from it

TOLD = json.dumps({"type": "status", "payload": {"samples": 60}})  # 10 for validation and 7 batches of 8


def module(url: str, **options) -> StreamDataModule:
    settings = {"image_size_px": 16, "global_batch_size": 8, "val_samples": 10, "num_workers": 0} | options
    return StreamDataModule(url=url, **settings)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_training_falls_back_to_the_old_protocol_and_says_so_once(num_workers: int, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    with streaming(EirStreamer(says={"status": TOLD})) as url:
        data = module(url, num_workers=num_workers)
        data.setup()
        assert sum("protocol 1.0" in message for message in caplog.messages) == 1
        assert "validates on the next samples there" in caplog.text
        first, again = ([batch.keys for batch in data.val_dataloader()] for _ in range(2))
        assert first == again
        assert [len(keys) for keys in first] == [8, 2]
        batches = list(data.train_dataloader())
        data.train_loader = None  # ends its workers, which a collection of cycles would wait for in vain
        data.teardown()
    assert [batch.cursor for batch in batches] == list(range(1, 8))
    assert all(batch.images.shape[-2:] == (16, 16) for batch in batches)
    validation = {key for keys in first for key in keys}
    assert len(validation) == 10
    assert not validation & {key for batch in batches for key in batch.keys}


def test_a_resumed_run_keeps_its_count():
    with streaming(EirStreamer(says={"status": TOLD})) as url:
        data = module(url)
        data.setup()
        data.cursor = 4
        state = data.state_dict()
        assert state["digest"] == DIGEST
        data.teardown()
        resumed = module(url)
        resumed.load_state_dict(state)
        resumed.setup()
        assert [batch.cursor for batch in resumed.train_dataloader()] == [5, 6, 7]
        resumed.teardown()


def test_readers_of_a_run_know_that_its_server_was_met():
    with streaming(EirStreamer(says={"status": TOLD})) as url:
        data = module(url)
        data.setup()
        open_reader: Any = data._open_reader
        reader = open_reader(timeout_s=2, retry_for_s=0.3)
    with pytest.raises(UserError, match="has broken off"):
        next(reader.read(requests(1)))
    data.teardown()


def test_epochs_need_a_length():
    with streaming(EirStreamer()) as url:
        data = module(url)
        data.setup()
        assert data.epoch == 0.0
        with pytest.raises(UserError, match=r"does not say how many.*trainer\.max_steps"):
            data.batches_of(2)
        data.teardown()


def test_a_checkpoint_of_another_protocol_is_refused():
    with streaming(EirStreamer()) as url:
        data = module(url)
        data.setup()
        state = data.state_dict() | {"digest": "0" * 32}
        with pytest.raises(UserError, match="the checkpoint was trained on data set"):
            data.load_state_dict(state)
        data.teardown()


@pytest.mark.slow
@pytest.mark.parametrize(("num_workers", "devices"), [(2, 1), pytest.param(1, 2, marks=pytest.mark.longest)])
def test_the_command_trains_from_an_eir_server(run_command, tmp_path: Path, num_workers: int, devices: int):
    streamer = EirStreamer()
    with streaming(streamer) as url:
        arguments = ["+experiment=quickstart32", "+debug=tiny", "callbacks.progress=null", f"data.url={url}", "run=eir"]
        arguments += [f"data.num_workers={num_workers}"]
        arguments += ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"] if devices == 2 else []
        said = run_command("train", *arguments, cwd=tmp_path)
    assert said.returncode == 0, said.stdout + said.stderr
    assert said.stdout.count("speaks EIR's protocol 1.0 only") == 1
    assert len(streamer.validation) == 16
    assert (tmp_path / "logs/tiny/eir/checkpoints/last.ckpt").exists()
    assert sum(request["type"] == "setValidationIds" for request in streamer.heard) == 1
