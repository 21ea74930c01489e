from __future__ import annotations

import json

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from PIL import Image

from diffusion_art.config import config_dir
from diffusion_art.diffusion.samplers.euler import Euler
from diffusion_art.errors import UserError
from diffusion_art.prompts import prompts_of
from diffusion_art.runs import load_run
from diffusion_art.sample import sample, slug
from diffusion_art.sheets import read_metadata
from diffusion_art.sources.embedded import embedded_caption
from diffusion_art.tensors import to_uint8
from tests.fakes import MODEL_CONFIG, toy_model, toy_run


@pytest.fixture
def folder(tmp_path):
    return toy_run(tmp_path / "toy", toy_model())


def paint(*overrides: str):
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        config = compose("sample", ["device=cpu", *overrides])
    return sample(config)


def test_pictures_and_a_grid_that_tell_what_was_asked(folder, tmp_path):
    out = paint(
        f"run={folder}",
        'prompts=["Größe / red", ""]',
        "sampler=ddim",
        "num_steps=2",
        "guidance_scale=1.5",
        "negative_prompt=blue",
        "seed=7",
        f"out={tmp_path / 'out'}",
    )
    files = sorted(file.name for file in out.iterdir())
    assert files == ["000_groe-red.png", "001_picture.png", "grid.png"] or files[0].startswith("000_gro")
    told = read_metadata(out / files[0])
    assert told["prompt"] == "Größe / red"
    assert told["seed"] == "7"
    assert told["negative_prompt"] == "blue"
    assert told["checkpoint"].startswith("step_00000005-")
    assert json.loads(told["sampler"])["name"] == "ddim"
    assert (told["num_steps"], told["guidance_scale"], told["weights"]) == ("2", "1.5", "ema")
    assert read_metadata(out / "001_picture.png")["seed"] == "8"
    assert json.loads(read_metadata(out / "grid.png")["captions"]) == ["Größe / red", ""]


def test_a_picture_can_be_painted_again_from_its_own_words(folder):
    out = paint(f"run={folder}", "prompts=[red,blue]", "seed=3")
    told = read_metadata(out / "001_blue.png")
    assert told["run"] == f"{folder.parent.name}/toy"  # a name, no path of this machine
    run = load_run(folder)
    again = run.sample(
        told["prompt"],
        seed=int(told["seed"]),
        guidance_scale=float(told["guidance_scale"]),
        num_steps=int(told["num_steps"]),
    )
    with Image.open(out / "001_blue.png") as picture:
        difference = np.abs(np.asarray(picture).astype(int) - to_uint8(again[0]))
    assert difference.max() <= 1  # alone or beside others: the last bit of a float at most


def test_by_default_the_runs_own_prompts_sampler_and_guidance_into_the_run(folder):
    out = paint(f"run={folder}", "negative_prompt=null")
    assert out.parent == folder / "samples"
    told = read_metadata(out / "000_red.png")
    assert told["negative_prompt"] == ""
    assert (told["prompt"], told["guidance_scale"], json.loads(told["sampler"])["name"]) == ("red", "2.0", "euler")


@pytest.mark.parametrize("any_seed", ["seed=-1", "seed=null"])
def test_any_seed_is_told_and_can_be_painted_again(folder, any_seed, tmp_path):
    first = paint(f"run={folder}", "prompts=[red,blue]", any_seed, f"out={tmp_path / 'first'}")
    seeds = [int(read_metadata(first / f"00{row}_{name}.png")["seed"]) for row, name in enumerate(("red", "blue"))]
    assert seeds[1] == seeds[0] + 1
    again = paint(f"run={folder}", "prompts=[red,blue]", f"seed={seeds[0]}", f"out={tmp_path / 'again'}")
    for name in ("000_red.png", "001_blue.png"):
        assert (first / name).read_bytes() == (again / name).read_bytes()
    other = paint(f"run={folder}", "prompts=[red,blue]", any_seed, f"out={tmp_path / 'other'}")
    assert read_metadata(other / "000_red.png")["seed"] != str(seeds[0])
    with pytest.raises(UserError, match="or -1 for any"):
        paint(f"run={folder}", "prompts=red", "seed=[1,2]")


def test_a_folder_for_tools_that_measure_it_holds_pictures_of_one_size(folder, tmp_path):
    """pytorch-fid and torch-fidelity stack whatever pictures lie there."""
    out = paint(f"run={folder}", "prompts=[red,blue]", "grid=false", f"out={tmp_path / 'out'}")
    assert sorted(file.name for file in out.iterdir()) == ["000_red.png", "001_blue.png"]
    for file in out.iterdir():
        with Image.open(file) as picture:
            assert picture.size == (16, 16)


def test_several_pictures_of_each_prompt(folder):
    out = paint(f"run={folder}", "prompts=[red,blue]", "count=2")
    seeds = [int(read_metadata(file)["seed"]) for file in sorted(out.glob("0*.png"))]
    assert seeds == [0, 1, 2, 3]


def test_pictures_say_it_in_the_words_of_automatic1111_too_and_no_path(folder, tmp_path, run_here):
    settings = [f"run={folder}", "negative_prompt=blue", "seed=4", "guidance_scale=1.5"]
    out = paint(*settings, 'prompts=["red, (2)"]')
    told = read_metadata(out / "000_red-2.png")
    hashed = load_run(folder).checkpoint_id.rpartition("-")[2]
    assert told["parameters"].startswith("red, (2)\nNegative prompt: blue\nSteps: 3, Sampler: Euler, ")
    model = f"Model hash: {hashed}, Model: {folder.parent.name}/toy, Version: "
    assert f"CFG scale: 1.5, Seed: 4, Size: 16x16, {model}" in told["parameters"]
    assert next(iter(told)) == "parameters"
    for file in out.iterdir():
        assert str(tmp_path).encode() not in file.read_bytes()
        assert not any(str(tmp_path) in text for text in read_metadata(file).values())
    half = tmp_path / "half.safetensors"
    assert run_here("export", f"run={folder}", "dtype=bf16", f"path={half}")[0] == 0
    told = read_metadata(paint(f"run={half}", "prompts=[red]") / "000_red.png")
    assert told["checkpoint"].endswith(f"-{hashed}-bf16")
    assert f"Model hash: {hashed}, Model: half, " in told["parameters"]


def test_prompts_from_a_file(folder, tmp_path):
    (tmp_path / "mine.txt").write_text("# two\n\nred\nÉtude, no. 2\n")
    out = paint(f"run={folder}", f"prompts={tmp_path / 'mine.txt'}", "num_steps=1")
    assert json.loads(read_metadata(out / "grid.png")["captions"]) == ["red", "Étude, no. 2"]


def test_prompts_by_name_as_text_and_as_numbers(folder):
    run = load_run(folder)
    assert len(prompts_of("painter", run)) == 16
    assert prompts_of("a red house", run) == ["a red house"]
    assert prompts_of("unknown", run) == ["unknown"]
    assert prompts_of(["a", 3], run) == ["a", "3"]
    assert prompts_of(None, run) == ["red", "blue"]
    run.config["prompts"] = None
    with pytest.raises(UserError, match="give prompts"):
        prompts_of(None, run)


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [("A red, red House!", "a-red-red-house"), ("漢字", "picture"), ("../../etc", "etc"), ("x" * 99, "x" * 48)],
)
def test_file_names_are_plain(prompt, expected):
    assert slug(prompt) == expected


def test_guidance_can_be_tempered_and_led_by_a_worse_run(folder, tmp_path):
    worse = toy_run(tmp_path / "worse", toy_model(seed=1))
    out = paint(
        *(f"run={folder}", "prompts=[red]", "guidance_scale=3", f"guide={worse}", f"out={tmp_path / 'out'}"),
        *("guidance.interval=[0.2,0.8]", "guidance.rescale=0.7", "guidance.threshold=0.9"),
    )
    told = read_metadata(out / "000_red.png")
    assert json.loads(told["guidance"]) == {"interval": [0.2, 0.8], "rescale": 0.7, "threshold": 0.9}
    assert told["guide"].startswith("step_00000005-")

    def again(**settings) -> np.ndarray:
        return to_uint8(load_run(folder).sample("red", guidance_scale=3, **settings)[0]).astype(int)

    tempered, led = {"guidance": json.loads(told["guidance"])}, {"guide": load_run(worse).model}
    with Image.open(out / "000_red.png") as picture:
        assert np.abs(np.asarray(picture) - again(**tempered, **led)).max() <= 1
    for others in ({}, tempered, led):
        assert np.abs(again(**tempered, **led) - again(**others)).max() > 2


def test_a_guide_of_another_space_or_schedule_is_refused(folder):
    model = load_run(folder).model
    settings = {"seeds": [0], "sampler": Euler(num_steps=1), "guidance_scale": 2.0}
    pixel, wide = {"_target_": "diffusion_art.models.codec.Pixel"}, {**MODEL_CONFIG["backbone"], "attention_sides": [8]}
    for guide, said in (
        (toy_model(schedule={"_target_": "diffusion_art.diffusion.schedules.CosineSchedule"}), "CosineSchedule"),
        (
            toy_model(codec=pixel, backbone=wide),
            "diffuses Pixel latents of shape",
        ),
        (toy_model(image_size_px=32, backbone=wide), "diffuses Unshuffle2 latents of shape"),
    ):
        with pytest.raises(UserError, match=said):
            model.generate(["red"], guide=guide, **settings)
    with pytest.raises(UserError, match="negative_prompt='blue' has no place"):
        model.generate(["red"], guide=toy_model(), negative_prompts=["blue"], **settings)


def test_a_run_with_a_grid_of_its_own_keeps_it_until_told_otherwise(folder):
    run = load_run(folder)
    run.config["sampler"] = {"name": "unipc", "num_steps": 12, "times": [1.0, 0.7, 0.3, 0.0]}
    run.config["guidance"] = {"interval": [0.1, 0.9], "rescale": 0.5, "threshold": 0.0}
    assert (run.sampler().times, run.sampler().num_steps) == ((1.0, 0.7, 0.3, 0.0), 3)
    assert run.sampler(num_steps=5).times is None
    assert run.guidance(rescale=0.0) == {"interval": (0.1, 0.9), "rescale": 0.0, "threshold": 0.0}


def test_nothing_is_written_when_the_request_is_wrong(folder, tmp_path):
    wrongs = ("prompts=[]", "seed=-2", "seed=1.5", "seed=true", "seed=random", "count=0", "count=1.5", "num_steps=0")
    for wrong in (*wrongs, "format=gif", "quality=80", "guidance.rescale=2", "sampler.eta=2"):
        overrides = ["sampler=ddim"] if wrong.startswith("sampler") else []
        with pytest.raises(UserError, match=wrong.partition("=")[0].rpartition(".")[2]):
            paint(f"run={folder}", f"out={tmp_path / 'out'}", *overrides, wrong)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("format", "named"), [("jpg", "JPEG"), ("webp", "WEBP")])
def test_other_formats_keep_what_they_were_painted_from(folder, tmp_path, format, named):
    out = paint(f"run={folder}", 'prompts=["Größe"]', f"format={format}", f"out={tmp_path / 'fine'}")
    coarse = paint(f"run={folder}", 'prompts=["Größe"]', f"format={format}", "quality=5", f"out={tmp_path / 'coarse'}")
    file = out / f"000_groe.{format}"
    assert sorted(path.name for path in out.iterdir()) == [file.name, "grid.png"]
    with Image.open(file) as picture:
        assert picture.format == named
        assert json.loads(picture.getexif()[0x010E])["run"] == f"{folder.parent.name}/toy"
    assert embedded_caption(file.read_bytes()) == "Größe"
    assert len((coarse / file.name).read_bytes()) < len(file.read_bytes())


def test_a_sampler_that_is_no_table_paints_too(folder, tmp_path):
    words = "sampler=stochastic_heun", "num_steps=2", "sampler.s_churn=1"
    out = paint(f"run={folder}", f"out={tmp_path}", "prompts=[red]", *words)
    told = read_metadata(out / "000_red.png")
    sampler = json.loads(told["sampler"])
    assert (sampler["name"], sampler["num_steps"], sampler["s_churn"]) == ("stochastic_heun", 2, 1)
    assert "Sampler: Stochastic Heun, " in told["parameters"]


@pytest.mark.slow
def test_the_real_command(folder, tmp_path, run_command, run_here):
    done = run_command(
        "sample", f"run={folder}", 'prompts=["a, red", "b / (c)"]', "num_steps=2", "out=painted", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "painted").glob("*.png"))) == 3
    status, _, complaints = run_here("sample", "run=nowhere")
    assert status == 1
    assert complaints.startswith("error: there is no run at nowhere")
    assert "Traceback" not in complaints
    wrong = run_command("sample", f"run={folder}", "num_steps=2.5", cwd=tmp_path)  # where no type checker complains
    assert wrong.stderr.startswith("error: num_steps must be a whole number from 1 on, not 2.5")
