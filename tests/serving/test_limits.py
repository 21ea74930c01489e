from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import threading
import time
from collections import Counter

import httpx2
import pytest
import torch

from diffusion_art.diffusion.samplers.euler import Heun
from diffusion_art.errors import UserError
from diffusion_art.runs import load_run
from diffusion_art.serving.api.errors import ApiError
from diffusion_art.serving.api.gate import answers_to
from diffusion_art.serving.engine.jobs import Job
from diffusion_art.serving.settings import Limits, Settings, check_address
from diffusion_art.serving.studio import Files, Rates
from tests.serving.api.test_app import events_of
from tests.serving.raw import connect, ended, eventually, post, read_head
from tests.serving.running import serving

GENERATIONS = "/v1/images/generations"
TOKEN, OTHER = "a-token-of-some-length", "another-token-of-length"
LONG = {"prompt": "x", "sampler": "heun", "num_inference_steps": 200, "n": 4}  # 1600 network calls


def http(url: str, **options) -> httpx2.Client:
    return httpx2.Client(base_url=url, trust_env=False, timeout=60, **options)


def limited(**limits) -> Settings:
    return Settings(limits=Limits(**limits))


# ---------------------------------------------------------------------- who may ask


@pytest.fixture(scope="module")
def guarded(toy_folder):
    settings = Settings(tokens=(TOKEN, OTHER), limits=Limits(rate_per_minute=5))
    with serving(toy_folder, settings=settings) as running:
        yield running


@pytest.mark.parametrize("path", [GENERATIONS, "/predict", "/v1/models", "/v1/suggestions", "/metrics", "/v1/zzz"])
def test_without_the_token_nothing_is_told(guarded, path):
    with http(guarded.url) as client:
        for headers in (
            {},
            {"authorization": f"Bearer {TOKEN}x"},
            {"authorization": TOKEN},
            {"authorization": f"Basic {TOKEN}"},
            {"authorization": "Bearer"},
            {"authorization": b"Bearer \xff\xfe"},
        ):
            answer = client.request("POST" if path in (GENERATIONS, "/predict") else "GET", path, headers=headers)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == "Bearer"
            assert answer.json()["error"]["code"] == "invalid_api_key"
            assert TOKEN not in answer.text


def test_what_anybody_may_see(guarded):
    with http(guarded.url) as client:
        for path in ("/", "/health", "/ready", "/docs", "/openapi.json", "/page/app.js"):
            assert client.get(path).status_code == 200


def test_each_token_has_a_rate_of_its_own(guarded):
    with http(guarded.url, headers={"authorization": f"Bearer {TOKEN}"}) as client:
        for pictures, status in ((3, 200), (2, 200), (1, 429)):
            answer = client.post(GENERATIONS, json={"prompt": "x", "n": pictures})
            assert answer.status_code == status
        assert answer.json()["error"] == {
            "message": answer.json()["error"]["message"],
            "type": "rate_limit_error",
            "param": None,
            "code": "rate_limit_exceeded",
        }
        assert 1 <= int(answer.headers["retry-after"]) <= 60
        other = client.post(GENERATIONS, json={"prompt": "x"}, headers={"authorization": f"bearer {OTHER}"})
        assert other.status_code == 200


def test_names_that_are_not_ours_are_not_answered(client):
    port = client.base_url.port
    ours = ("localhost", "127.0.0.1", f"127.0.0.1:{port}", "[::1]:80", "LOCALHOST:1", "localhost.", "art.localhost:8")
    for host in ours:
        assert client.get("/health", headers={"host": host}).status_code == 200
    for host in ("evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", "10.0.0.1", "evillocalhost"):
        answer = client.get("/health", headers={"host": host})
        assert (answer.status_code, answer.json()["error"]["code"]) == (421, "unknown_host")
        assert f"hosts=[{host.partition(':')[0]}]" in answer.json()["error"]["message"]


def test_a_health_check_in_http_1_0_names_no_host(server):
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(b"GET /health HTTP/1.0\r\n\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 200")


def test_hosts_add_names_and_tokens_make_names_harmless():
    assert answers_to(Settings(hosts=("art.example",)), "Art.Example:443")
    assert not answers_to(Settings(hosts=("art.example",)), "example")
    assert answers_to(Settings(tokens=(TOKEN,)), "anything")


def test_the_address_behind_a_proxy_names_the_server():
    settings = Settings(public_url="https://Art.Example:8443/art/")
    assert answers_to(settings, "art.example")
    assert not answers_to(settings, "example")


@pytest.mark.parametrize("url", ["art.example/art", "/art", "ws://art.example", "https://", "https://a?b", "https://["])
def test_what_is_no_address_of_a_server(url):
    with pytest.raises(UserError, match=r"^public_url=.* is no address: give one such as"):
        Settings(public_url=url)


def test_others_are_let_in_with_a_token_only():
    for host in ("127.0.0.1", "localhost", "::1", "127.1.2.3"):
        check_address(host, Settings())
    for host in ("0.0.0.0", "::", "10.0.0.1", "art.example"):
        with pytest.raises(UserError, match="a token is needed"):
            check_address(host, Settings())
        check_address(host, Settings(tokens=(TOKEN,)))


@pytest.mark.parametrize("token", ["", "short", "with space in between", "ümlauts-in-a-long-token", "x" * 15])
def test_tokens_that_are_no_secret(token):
    with pytest.raises(UserError, match="is no secret") as caught:
        Settings(tokens=(token,))
    assert not token or token not in str(caught.value)


# ---------------------------------------------------------------------- how much, and how fast


@pytest.mark.parametrize(
    ("name", "value"),
    [("max_n", 0), ("max_steps", -1), ("rate_per_minute", 0.5), ("body_timeout_s", 0)],
)
def test_limits_that_let_nothing_in(name, value):
    with pytest.raises(UserError, match=rf"limits\.{name}="):
        Limits(**{name: value})


def test_a_bucket_fills_with_time():
    now = 0.0
    rates = Rates(60, clock=lambda: now)
    rates.take("a", 60)
    rates.take("b", 1)
    rates.take(None, 1000)
    with pytest.raises(ApiError) as caught:
        rates.take("a", 5)
    assert (caught.value.status_code, caught.value.retry_after_s) == (429, pytest.approx(5))
    now = 5.0
    rates.take("a", 5)
    now = 1000.0
    rates.take("a", 60)
    with pytest.raises(ApiError):
        rates.take("a", 1)


def test_what_was_granted_and_not_taken_on_is_given_back():
    rates = Rates(10, clock=lambda: 0.0)
    rates.take("a", 8)
    rates.give_back("a", 8)
    rates.give_back("b", 8)
    rates.give_back(None, 8)
    for name in "ab":
        rates.take(name, 10)
        with pytest.raises(ApiError):
            rates.take(name, 1)


def test_a_full_queue_takes_nothing_of_a_tokens_share(toy_folder):
    settings = Settings(tokens=(TOKEN,), limits=Limits(rate_per_minute=4))
    headers = {"authorization": f"Bearer {TOKEN}"}
    with serving(toy_folder, settings=settings, max_jobs=2) as small, http(small.url, headers=headers) as client:
        others = small.engine.submit([Job("x", 0, Heun(num_steps=5000))] * 2)
        for _ in range(3):
            refused = client.post(GENERATIONS, json={"prompt": "x", "n": 2})
            assert refused.json()["error"]["code"] == "queue_full"
        for ticket in others:
            ticket.cancel()
        assert eventually(lambda: small.engine.stats().cancelled == 2)
        assert client.post(GENERATIONS, json={"prompt": "x", "n": 2}).status_code == 200


def test_the_oldest_customers_are_forgotten():
    rates = Rates(1, remembered=2, clock=lambda: 0.0)
    for name in "abc":
        rates.take(name, 1)
    rates.take("a", 1)
    with pytest.raises(ApiError):
        rates.take("c", 1)


def test_files_expire_and_make_room():
    now = 0.0
    files = Files(lifetime_s=10, max_bytes=100, clock=lambda: now)
    first = files.put(b"x" * 60, "image/png")
    now = 4.0
    second = files.put(b"y" * 30, "image/webp")
    assert (first.endswith(".png"), second.endswith(".webp"), len(first)) == (True, True, 26)
    file, left_s = files.get(first)
    assert (file.content, file.media_type, left_s) == (b"x" * 60, "image/png", 6)
    now = 11.0
    assert files.get(first) is None
    assert len(files) == 1
    third = files.put(b"z" * 80, "image/png")
    assert files.get(second) is None
    assert files.get(third) is not None
    assert files.bytes == 80
    files.put(b"q" * 101, "image/png")
    assert (len(files), files.bytes) == (0, 0)


def test_a_body_that_says_it_is_large_is_not_waited_for(server):
    with connect(server.port) as link:
        link.sendall(post(GENERATIONS, {}, length=10_000_000))
        assert b"413" in read_head(link).splitlines()[0]


def test_a_megabyte_of_prompt(client):
    answer = client.post(GENERATIONS, json={"prompt": "x" * 1_000_000})
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")
    assert client.get("/health").status_code == 200


def test_a_body_that_does_not_say_how_large_it_is(client):
    answer = client.post(GENERATIONS, content=(b"x" * 10_000 for _ in range(100)))
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")
    assert client.post(GENERATIONS, json={"prompt": "x"}).status_code == 200


def test_numbers_beyond_this_servers_own_limits(toy_folder):
    settings = limited(max_n=2, max_steps=5, max_prompt_chars=10)
    with serving(toy_folder, settings=settings) as small, http(small.url) as client:
        for asked, code in (
            ({"n": 3}, "too_many_pictures"),
            ({"num_inference_steps": 6}, "too_many_steps"),
            ({"prompt": "x" * 11}, "prompt_too_long"),
        ):
            answer = client.post(GENERATIONS, json={"prompt": "x", **asked})
            assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)
        most = {"prompt": "x" * 10, "n": 2, "num_inference_steps": 5}
        assert client.post(GENERATIONS, json=most).status_code == 200
        model = client.get("/v1/models").json()["data"][0]
        limits = {"n": 2, "num_inference_steps": 5, "guidance_scale": 20, "prompt_characters": 10}
        assert model["limits"] == {**limits, "sizes": "any", "side_px": 2048}


def test_a_server_may_give_more_pictures_than_openais(toy_folder):
    asked = {"prompt": "x", "num_inference_steps": 1}
    with serving(toy_folder, settings=limited(max_n=12)) as large, http(large.url) as client:
        assert client.get("/v1/models").json()["data"][0]["limits"]["n"] == 12
        assert len(client.post(GENERATIONS, json={**asked, "n": 12}).json()["data"]) == 12
        refused = client.post(GENERATIONS, json={**asked, "n": 13})
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "too_many_pictures")
    with serving(toy_folder, settings=limited(max_n=12), max_jobs=4) as small, http(small.url) as client:
        assert client.get("/v1/models").json()["data"][0]["limits"]["n"] == 4  # more are never on their way


# ---------------------------------------------------------------------- clients that do not behave


def test_silent_and_dripping_connections_end_and_keep_nobody_out(toy_folder):
    settings = limited(header_timeout_s=0.5, max_connections=8)
    with serving(toy_folder, settings=settings) as small, http(small.url) as client:
        links = [connect(small.port) for _ in range(20)]
        for link in links[::2]:
            link.sendall(b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Drip")
        assert client.post(GENERATIONS, json={"prompt": "x"}).status_code == 200
        for link in links:
            assert ended(link)
            link.close()
        assert client.get("/health").status_code == 200


def test_answers_under_way_are_not_ended_to_make_room(toy_folder):
    settings = limited(max_connections=2)
    with serving(toy_folder, settings=settings) as small:
        with connect(small.port) as busy:
            busy.sendall(post(GENERATIONS, {"prompt": "x", "num_inference_steps": 100}))
            eventually(lambda: small.engine.stats().jobs_running == 1)
            idle = [connect(small.port) for _ in range(4)]
            assert b"200 OK" in read_head(busy).splitlines()[0]
        for link in idle:
            link.close()


def test_a_request_that_came_before_its_time_has_its_time(toy_folder):
    """Its head comes with the request before it, its body when a silent connection would be ended."""
    settings, whole = limited(keep_alive_s=0.01, header_timeout_s=0.5), post(GENERATIONS, {"prompt": "x"})
    with serving(toy_folder, settings=settings) as small, connect(small.port) as link:
        link.sendall(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" + whole[:-5])
        time.sleep(0.8)
        link.sendall(whole[-5:])
        answers = b""
        while part := link.recv(65536):
            answers += part
    assert answers.count(b"HTTP/1.1 200 OK") == 2


def test_a_body_that_drips(toy_folder):
    with serving(toy_folder, settings=limited(body_timeout_s=0.3)) as small, connect(small.port) as link:
        link.sendall(post(GENERATIONS, {"prompt": "x"}, length=500))
        assert b"408" in read_head(link).splitlines()[0]


def test_a_client_that_does_not_read(toy_folder):
    requests = 2000
    with serving(toy_folder, settings=limited(write_timeout_s=0.3)) as small, connect(small.port) as link:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sender = threading.Thread(
            target=_send_all, args=(link, b"GET /docs HTTP/1.1\r\nHost: localhost\r\n\r\n" * requests)
        )
        sender.start()
        assert eventually(lambda: len(small.server.server_state.connections) == 1)
        assert eventually(lambda: len(small.server.server_state.connections) == 0)
        sender.join()
        with http(small.url) as client:
            assert client.get("/health").status_code == 200


def _send_all(link: socket.socket, content: bytes) -> None:
    with contextlib.suppress(OSError):
        link.sendall(content)


@pytest.mark.parametrize("asked", [LONG, {**LONG, "stream": True, "partial_images": 3}], ids=["plain", "stream"])
def test_who_goes_frees_the_place(toy_folder, asked):
    with serving(toy_folder, max_jobs=4) as small:
        with connect(small.port) as link:
            link.sendall(post(GENERATIONS, asked))
            assert eventually(lambda: small.engine.stats().jobs_running == 4)
            if asked.get("stream"):
                assert b"200 OK" in read_head(link)
        assert eventually(lambda: small.engine.stats().cancelled == 4)
        stats = small.engine.stats()
        assert (stats.finished, stats.jobs_running) == (0, 0)
        with http(small.url) as client:
            assert client.post(GENERATIONS, json={"prompt": "x"}).status_code == 200


def test_predict_too_is_cancelled(toy_folder):
    with serving(toy_folder) as small:
        with connect(small.port) as link:
            link.sendall(post("/predict", [{"caption": str(number)} for number in range(30)]))
            assert eventually(lambda: small.engine.stats().ticks > 0)
        assert eventually(lambda: small.engine.stats().cancelled > 0)
        assert eventually(lambda: small.engine.stats().jobs_running + small.engine.stats().jobs_waiting == 0)


@pytest.mark.slow
def test_two_hundred_clients_at_a_queue_of_32(toy_folder):
    """Each gets a picture or is told when to come back; meanwhile the server says that it lives."""

    async def storm(url: str) -> tuple[Counter[int], list[int]]:
        limits = httpx2.Limits(max_connections=None)
        async with httpx2.AsyncClient(base_url=url, trust_env=False, timeout=60, limits=limits) as client:

            async def one(number: int) -> int:
                answer = await client.post(GENERATIONS, json={"prompt": str(number), "num_inference_steps": 8})
                if answer.status_code == 429:
                    assert int(answer.headers["retry-after"]) >= 1
                    assert answer.json()["error"]["code"] == "queue_full"
                else:
                    assert len(answer.json()["data"]) == 1
                return answer.status_code

            storming = asyncio.gather(*(one(number) for number in range(200)))
            lives = []
            while not storming.done():
                lives.append((await client.get("/health")).status_code)
                await asyncio.sleep(0.02)
            return Counter(await storming), lives

    with serving(toy_folder, max_jobs=32) as small:
        answers, lives = asyncio.run(storm(small.url))
        assert answers.keys() == {200, 429}
        assert answers.total() == 200
        assert answers[200] >= 32
        assert set(lives) == {200}
        assert small.engine.stats().finished == answers[200]


# ---------------------------------------------------------------------- when painting fails


@pytest.fixture
def faulty(toy_folder):
    """A server whose text encoder raises for some captions."""
    run = load_run(toy_folder)
    encode = run.model.encode_captions

    def faulty_encode(captions):
        if "boom" in captions:
            raise RuntimeError("a secret prompt went wrong")
        if "full" in captions:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return encode(captions)

    run.model.encode_captions = faulty_encode
    with serving(run) as running, http(running.url) as client:
        yield client


def test_a_step_that_raises_fails_its_request_alone(faulty, caplog):
    with caplog.at_level(logging.INFO):
        failed = faulty.post(GENERATIONS, json={"prompt": "boom", "n": 2})
    assert failed.status_code == 500
    assert failed.json()["error"] == {
        "message": "The server made a mistake; its log says more.",
        "type": "server_error",
        "param": None,
        "code": "internal_error",
    }
    assert "RuntimeError at" in caplog.text
    assert "secret" not in caplog.text
    assert faulty.post(GENERATIONS, json={"prompt": "x"}).status_code == 200
    assert faulty.post("/predict", json=[{"caption": "x"}, {"caption": "boom"}]).status_code == 500


def test_out_of_memory_is_worth_another_try(faulty):
    failed = faulty.post(GENERATIONS, json={"prompt": "full"})
    assert failed.status_code == 503
    assert failed.headers["x-should-retry"] == "true"
    assert int(failed.headers["retry-after"]) >= 1


def test_a_stream_says_that_it_failed(faulty):
    answer = faulty.post(GENERATIONS, json={"prompt": "boom", "stream": True})
    assert answer.status_code == 200
    ((name, data),) = events_of(answer.text)
    assert name == "error"
    assert data["error"]["code"] == "internal_error"


def test_a_stream_says_that_something_nobody_thought_of_went_wrong(toy_folder, caplog):
    with serving(toy_folder) as small, http(small.url) as client:
        small.studio._pool.shutdown()  # what encodes pictures
        answer = client.post(GENERATIONS, json={"prompt": "x", "stream": True})
    ((name, data),) = events_of(answer.text)
    assert (name, data["error"]["code"]) == ("error", "internal_error")
    assert "RuntimeError at" in caplog.text


# ---------------------------------------------------------------------- the end


def test_a_draining_server_finishes_what_it_has_and_takes_nothing_more(toy_folder):
    with serving(toy_folder) as small, connect(small.port) as link:
        link.sendall(post(GENERATIONS, {"prompt": "x", "sampler": "heun", "num_inference_steps": 60, "n": 2}))
        assert eventually(lambda: small.engine.stats().jobs_running == 2)
        with http(small.url) as client:
            small.server.drain()
            refused = client.post(GENERATIONS, json={"prompt": "x"})
            assert (refused.status_code, refused.json()["error"]["type"]) == (503, "server_error")
            assert refused.headers["retry-after"]
            assert client.get("/ready").status_code == 503
            assert client.get("/health").status_code == 200
        answer = b""
        while part := link.recv(65536):
            answer += part
        head, _, body = answer.partition(b"\r\n\r\n")
        assert b"200 OK" in head
        assert len(json.loads(body)["data"]) == 2
        small.thread.join(20)
        assert not small.thread.is_alive()
        assert not small.engine.alive


def test_what_cannot_be_finished_in_time_is_told(toy_folder):
    with serving(toy_folder) as small, http(small.url) as client:
        statuses = []
        asking = threading.Thread(target=lambda: statuses.append(client.post(GENERATIONS, json=LONG).status_code))
        asking.start()
        assert eventually(lambda: small.engine.stats().jobs_running == 4)
        small.server.drain_s = 0.05
        small.server.drain()
        asking.join(20)
        assert statuses == [503]


def test_an_engine_that_died_is_no_healthy_server(toy_folder):
    with serving(toy_folder) as small, http(small.url) as client:
        small.engine.stop()
        for path in ("/health", "/ready"):
            assert client.get(path).status_code == 503
        assert client.post(GENERATIONS, json={"prompt": "x"}).status_code == 503


def test_jobs_left_over_by_a_caller_are_its_own(server):
    """The engine is shared: a ticket that nobody of HTTP holds does not disturb the answers."""
    (ticket,) = server.engine.submit([Job("x", 0, server.studio.orders.sampler_of())])
    with http(server.url) as client:
        assert client.post(GENERATIONS, json={"prompt": "x"}).status_code == 200
    assert ticket.result.result(20).shape == (16, 16, 3)


def test_an_answer_does_not_wait_for_word_of_its_head(server):
    with connect(server.port) as link:
        link.sendall(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        read_head(link)
        lines = [line.transport.get_extra_info("socket") for line in server.server.server_state.connections]
        assert lines
        assert all(line.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) for line in lines)
