"""What the watch server tells of runs, and what it refuses."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest
from omegaconf import OmegaConf
from PIL import Image

from diffusion_art.config import verbatim
from diffusion_art.serving.settings import Settings
from diffusion_art.training.run.run_folder import held
from diffusion_art.watching import runs as runs_module
from diffusion_art.watching.folder import settings_of
from tests.conftest import ROOT
from tests.training.run.test_run_folder import _holder
from tests.watching.conftest import LOG, watching, write_run

FIRST, SECOND = "night/first", "night/sweep_one/1"


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    monkeypatch.setattr(runs_module, "SEARCH_S", 0.0)


def listed(client: httpx2.Client) -> dict[str, dict]:
    return {run["id"]: run for run in client.get("/api/runs").json()["runs"]}


def test_runs_are_found_at_any_depth_with_how_they_stand(client, logs):
    told = listed(client)
    assert set(told) == {FIRST, SECOND}
    run = told[FIRST]
    assert (run["state"], run["step"], run["max_steps"], run["grid"]) == ("finished", 40, 40, 20)
    assert run["figures"]["val/loss"] == 0.9
    assert run["figures"]["train/loss"] == pytest.approx(1 / 40)
    with _holder(write_run(logs / "night/second", lr=0.2, rows=7)) as holder:
        assert listed(client)["night/second"]["state"] == "running"
        holder.kill()
    (logs / "night/second/report.md").unlink()
    assert listed(client)["night/second"]["state"] == "stopped"
    with (logs / "night/second/train.log").open("a") as log:
        log.write(LOG.replace("INFO", "ERROR").replace("run: logs/night", "the loss became nan at step 7"))
    assert (listed(client)["night/second"]["state"], listed(client)["night/second"]["reason"]) == (
        "failed",
        "the loss became nan at step 7",
    )
    with (logs / "night/second/train.log").open("a") as log:
        log.write(LOG.replace("run: logs/night", "SIGTERM: stopped at step 7, which is saved"))
    assert listed(client)["night/second"]["state"] == "stopped"
    with (logs / "night/second/train.log").open("a") as log:
        log.write(LOG)
    assert listed(client)["night/second"]["state"] == "stopped"
    with held(logs / "night/second"):  # it goes on to its end, and writes no report
        pass
    assert listed(client)["night/second"]["state"] == "finished"
    (logs / "night/second/failed.txt").write_text("#1: night/second already holds a run")  # a start after that
    assert listed(client)["night/second"]["state"] == "finished"
    (logs / "night/third").mkdir()
    (logs / "night/third/.running").touch()
    (logs / "night/third/failed.txt").write_text("#3 optim.lr=1e18: the loss became nan")
    assert listed(client)["night/third"]["state"] == "failed"
    assert listed(client)["night/third"]["step"] is None


def test_a_run_whose_name_is_not_utf8_hides_no_other(client, logs):
    try:
        write_run(logs / "night/third", lr=0.2).rename(logs / os.fsdecode(b"night/caf\xe9"))
    except OSError:
        pytest.skip("names are UTF-8 on this file system")
    write_run(logs / "day/first", lr=0.2).parent.rename(logs / os.fsdecode(b"d\xe4y"))
    assert set(listed(client)) == {FIRST, SECOND}


def test_curves_grow_with_the_file_and_are_not_sent_twice(client, logs):
    asked = {"run": [FIRST, SECOND], "metric": ["train/loss"]}
    answer = client.get("/api/curves", params=asked)
    told = answer.json()
    assert told["metrics"] == ["time/run_s", "train/loss", "val/loss"]
    assert told["runs"][FIRST]["grids"] == [0, 20]
    assert told["runs"][SECOND]["curves"]["train/loss"]["x"] == list(range(40))
    assert told["runs"][SECOND]["clock"]["y"][-1] == 19.5
    same = client.get("/api/curves", params=asked, headers={"If-None-Match": answer.headers["etag"]})
    assert (same.status_code, same.content) == (304, b"")
    with (logs / FIRST / "metrics.csv").open("ab") as file:
        file.write(b"40,20.0,0.125,\r\n41,20.5,0.")
    grown = client.get("/api/curves", params=asked, headers={"If-None-Match": answer.headers["etag"]})
    points = grown.json()["runs"][FIRST]["curves"]["train/loss"]
    assert (points["x"][-1], points["y"][-1]) == (40, 0.125)
    assert listed(client)[FIRST]["step"] == 41


def test_a_grid_comes_as_it_is_or_small(client, logs):
    params = {"run": FIRST, "step": 20}
    answer = client.get("/api/grid", params=params)
    assert answer.content == (logs / FIRST / "samples/step_00000020.png").read_bytes()
    small = client.get("/api/grid", params=params | {"small": "true"})
    assert small.headers["content-type"] == "image/webp"
    assert Image.open(io.BytesIO(small.content)).size == (96, 64)
    (logs / FIRST / "samples/step_00000030.png").write_bytes(b"\x89PNG half")
    assert client.get("/api/grid", params={"run": FIRST, "step": 30, "small": "true"}).status_code == 404


def test_a_report_opens_by_its_link_and_can_reach_nothing(client, logs):
    link = listed(client)[FIRST]["report"]
    answer = client.get(f"/{link}")
    assert answer.content == (logs / FIRST / "report.html").read_bytes()
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("sandbox allow-scripts; default-src 'none'")
    assert "same-origin" not in policy
    for other in (link.replace("first", "second"), link[:-1], link[:-1] + "é", f"report?run={FIRST}&key="):
        assert client.get(f"/{other}").status_code == 404, other
    assert client.get(f"/report?run={FIRST}").status_code == 400
    (logs / FIRST / "report.html").unlink()
    assert client.get(f"/{link}").status_code == 404
    assert listed(client)[FIRST]["report"] is None


def test_settings_differ_but_for_names_folders_and_secrets(client, logs):
    for run, module in ((FIRST, "predictions"), (SECOND, "denoiser")):  # one class, which has moved
        with (logs / run / "config.yaml").open("a") as file:
            file.write(f"prediction: {{_target_: diffusion_art.diffusion.{module}.V}}\n")
    told = client.get("/api/differences", params={"run": [FIRST, SECOND]}).json()
    assert told == {"runs": [FIRST, SECOND], "keys": {"optim.lr": [0.1, 0.5]}}
    assert client.get("/api/differences", params={"run": [FIRST]}).json()["keys"] == {}
    assert "hush" not in client.get("/api/differences", params={"run": [FIRST, SECOND]}).text


def test_a_prompt_is_shown_as_it_was_given(tmp_path: Path):
    file = tmp_path / "config.yaml"
    file.write_text(OmegaConf.to_yaml(OmegaConf.create(verbatim({"prompts": ["costs ${x}"], "name": "a"}))))
    assert settings_of(file) == {"prompts": ["costs ${x}"], "name": "a"}


OUTSIDE = ["../secret", "night/../../secret", "/etc", "night", "", ".", "night/first/../first", "night%2Ffirst"]


def test_nothing_but_known_runs_can_be_asked_for(client, logs):
    secret = write_run(logs.parent / "secret", lr=0.3)
    for id in OUTSIDE:
        for path in ("curves", "differences", "grid"):
            answer = client.get(f"/api/{path}", params={"run": id, "step": 0})
            assert answer.status_code == 404, (path, id)
            assert secret.name not in answer.text
            assert answer.json()["error"]["code"] == "no_run"


def test_what_is_wrong_with_a_request_is_said(client):
    many = [f"run{number}" for number in range(13)]
    cases = [
        ("/api/curves", {}, 400, "Missing required parameter: 'run'"),
        ("/api/curves", {"run": many}, 400, "At most 12 runs"),
        ("/api/grid", {"run": FIRST}, 400, "Missing required parameter: 'step'"),
        ("/api/grid", {"run": FIRST, "step": "x"}, 400, "Invalid value 'x' for 'step'"),
        ("/api/grid", {"run": FIRST, "step": -1}, 400, "Invalid value"),
        ("/api/grid", {"run": FIRST, "step": 5}, 404, "no grid at that step"),
        ("/page/../app.py", {}, 404, ""),
        ("/page/%2e%2e%2fapp.py", {}, 404, ""),
        ("/logs/night/first/config.yaml", {}, 404, "There is nothing at"),
    ]
    for path, params, status, said in cases:
        answer = client.get(path, params=params)
        assert answer.status_code == status, path
        assert said in answer.text, (path, answer.text)
    assert client.post("/api/runs").status_code == 405
    assert client.get("/", headers={"Host": "evil.example"}).status_code == 421


def test_a_server_with_a_token_tells_its_holder_alone(logs):
    token = "correct-horse-battery-staple"
    with watching(logs, Settings(tokens=(token,))) as url:
        assert httpx2.get(f"{url}/", trust_env=False).status_code == 200
        for path in ("runs", f"curves?run={FIRST}", f"grid?run={FIRST}&step=0"):
            asked = f"{url}/api/{path}"
            assert httpx2.get(asked, trust_env=False).status_code == 401
            allowed = httpx2.get(asked, trust_env=False, headers={"Authorization": f"Bearer {token}"})
            assert allowed.status_code == 200
        told = httpx2.get(f"{url}/api/runs", trust_env=False, headers={"Authorization": f"Bearer {token}"}).json()
        assert httpx2.get(f"{url}/{told['runs'][0]['report']}", trust_env=False).status_code == 200


def test_the_command_refuses_an_open_address_without_a_token_and_a_folder_that_is_not_there(run_here, tmp_path: Path):
    (tmp_path / "logs").mkdir()
    status, _, complaints = run_here("watch", "host=0.0.0.0")
    assert (status, complaints.count("\n")) == (1, 1)
    assert "a token is needed" in complaints
    status, _, complaints = run_here("watch", "logs=nowhere")
    assert status == 1
    assert "there is no folder nowhere to watch" in complaints
    status, _, complaints = run_here("watch", "port=70000")
    assert (status, complaints.count("\n")) == (1, 1)
    assert "nothing can be served at 127.0.0.1, port 70000" in complaints


@pytest.mark.slow
def test_it_tells_how_many_runs_there_are_and_that_it_stopped(logs):
    command = [sys.executable, "-m", "diffusion_art.watch", f"logs={logs}", "port=0"]
    said = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(command, **said) as watch:
        told = next(line for line in watch.stdout if "stop with Ctrl-C" in line)
        watch.terminate()
        rest, _ = watch.communicate(timeout=30)
        assert watch.returncode == 0, rest
    assert re.search(rf"\b(1 run|[2-9] runs) in {re.escape(str(logs))}: look at http://", told)
    assert rest.strip().endswith("stopped")


def test_watching_loads_no_torch():
    code = "import sys; import diffusion_art.watch; print('torch' in sys.modules, 'pandas' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert shown.stdout.strip() == "False False"
