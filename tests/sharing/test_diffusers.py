"""`export format=diffusers`: the folder paints our pictures, here and where this project is not installed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers.schedulers.scheduling_deis_multistep import DEISMultistepScheduler
from safetensors.torch import load_file

from diffusion_art.config import build
from diffusion_art.diffusion.samplers import by_name
from diffusion_art.evaluation.model_card import OURS
from diffusion_art.models.vae import Vae
from diffusion_art.runs import Run, load_run
from diffusion_art.sharing.diffusers_folder import diffusers_pipeline, write_diffusers
from diffusion_art.sharing.painting import Painting
from tests.fakes import JIT_CONFIG, MODEL_CONFIG, SAMPLER_CONFIG, tiny_clip, toy_run, toy_vae, vae_config
from tests.sharing.clean import clean_python, run_clean
from tests.sharing.toys import PROMPTS, checkpoint_of

pytest.importorskip("transformers")

# diffusers' UniPC multiplies by numpy's numbers, and solves with a scalar as an array
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

DIFFUSION = "diffusion_art.diffusion"
TABLE = {
    "dpmpp_2m": ("schedules.Flow", {}, "Flow", {"name": "dpmpp_2m", "num_steps": 7}),
    "dpmpp_2m log_snr": ("schedules.CosineSchedule", {"shift": 0.5}, "V", {"name": "dpmpp_2m", "spacing": "log_snr"}),
    "dpmpp_2m karras": ("schedules.LinearBeta", {}, "V", {"name": "dpmpp_2m", "num_steps": 6, "spacing": "karras"}),
    "dpmpp_2m times": ("schedules.Flow", {"shift": 3.0}, "X0", {"name": "dpmpp_2m", "times": [1, 0.7, 0.4, 0.1, 0]}),
    "unipc": ("schedules.Flow", {}, "X0", {"name": "unipc", "num_steps": 7}),
    "unipc with signal left": ("schedules.LinearBeta", {}, "Epsilon", {"name": "unipc", "num_steps": 12}),
    "euler": ("schedules.CosineSchedule", {"zero_terminal_snr": False}, "Epsilon", {"name": "euler", "num_steps": 5}),
    "ddim": ("schedules.SquaredCosCapV2", {"zero_terminal_snr": True}, "V", {"name": "ddim", "num_steps": 6}),
    "consistency": ("schedules.Flow", {}, "Edm", {"name": "consistency", "num_steps": 3}),
    "edm": ("schedules.CosineSchedule", {}, "Edm", {"name": "dpmpp_2m", "num_steps": 5}),
}
GUIDANCE = [
    (2.0, {}),
    (1.0, {}),
    (0.0, {}),
    (0.0, {"rescale": 0.7}),
    (3.0, {"interval": [0.2, 0.8]}),
    (3.0, {"rescale": 0.7}),
    (6.0, {"threshold": 0.9}),
]


def apart(run: Run, pipe, sampler, *, prompts=PROMPTS, **how) -> float:
    """The largest difference of the two programs' pictures, in steps of 255."""
    ours = run.model.generate(
        prompts, seeds=[3, 4, 5], sampler=sampler, guidance_scale=run.guidance_scale(), **run.guidance(), **how
    )
    pipe.set_progress_bar_config(disable=True)
    generators = [torch.Generator().manual_seed(seed) for seed in (3, 4, 5)]
    theirs = pipe(prompts, generator=generators, output_type="pt").images
    assert ours.std() > 0.1
    return 255 * (theirs - (ours / 2 + 0.5)).abs().max().item()


@pytest.mark.parametrize("case", TABLE)
def test_every_schedule_prediction_and_sampler_paints_the_same(tmp_path, case):
    schedule, settings, prediction, sampler = TABLE[case]
    parts = {
        "schedule": {"_target_": f"{DIFFUSION}.{schedule}", **settings},
        "prediction": {"_target_": f"{DIFFUSION}.predictions.{prediction}"},
    }
    run = Run(checkpoint_of(tmp_path, parts))
    painted_by = by_name(**sampler)
    pipe = diffusers_pipeline(Painting(run, painted_by))
    assert apart(run, pipe, painted_by) < 0.2


@pytest.mark.parametrize("schedule", ["Flow", "CosineSchedule"])
def test_unipc_takes_our_steps_from_pure_noise_on(tmp_path, schedule):
    """Of a network whose answers change much from call to call."""
    parts = {
        "schedule": {"_target_": f"{DIFFUSION}.schedules.{schedule}"},
        "prediction": {"_target_": f"{DIFFUSION}.predictions.X0"},
    }
    run = Run(checkpoint_of(tmp_path, parts))
    with torch.no_grad():
        run.model.backbone.net.conv_out.weight.mul_(4)
    sampler = by_name("unipc", num_steps=4)
    assert apart(run, diffusers_pipeline(Painting(run, sampler)), sampler) < 0.01


@pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")  # DEIS multiplies numpy's numbers
def test_a_scheduler_made_from_the_config_of_another_paints_too_or_is_refused(tmp_path):
    run, sampler = Run(checkpoint_of(tmp_path, {})), by_name("euler", num_steps=6)
    pipe, dpm = (diffusers_pipeline(Painting(run, each)) for each in (sampler, by_name("dpmpp_2m", num_steps=6)))
    euler, solver = pipe.scheduler, dpm.scheduler
    pipe.scheduler = type(euler).from_config(solver.config)
    assert apart(run, pipe, sampler) < 0.2
    pipe.scheduler = type(solver).from_config(euler.config)
    with pytest.raises(ValueError, match='asks for epsilon: make it with prediction_type="sample"'):
        pipe("red")
    pipe.scheduler = DEISMultistepScheduler.from_config(solver.config)
    with pytest.raises(ValueError, match="DEISMultistepScheduler cannot end at no noise"):
        pipe("red")


@pytest.mark.parametrize(("scale", "guidance"), GUIDANCE)
def test_guidance_is_the_runs_own(tmp_path, scale, guidance):
    codec = {"_target_": "diffusion_art.models.codec.Pixel"}
    unet = MODEL_CONFIG["backbone"] | {"attention_sides": [8]}
    checkpoint = checkpoint_of(tmp_path, {"codec": codec, "backbone": unet}, guidance_scale=scale, guidance=guidance)
    run = Run(checkpoint)
    sampler = build(SAMPLER_CONFIG | {"num_steps": 10})  # of which some stop on the edges of the interval
    assert apart(run, diffusers_pipeline(Painting(run, sampler)), sampler) < 0.01


def test_what_a_pipeline_does_not_paint_is_said(tmp_path):
    pipe = diffusers_pipeline(Painting(Run(checkpoint_of(tmp_path, {})), by_name("euler", num_steps=1)))
    pipe.set_progress_bar_config(disable=True)
    assert pipe("red", height=16, width=16).images[0].size == (16, 16)
    for prompt, asked, told in (
        ("red", {"height": 512, "width": 512}, "this model paints 16x16, and not 512x512"),
        ("red", {"height": 32}, "and not 16x32"),
        ("red", {"num_inference_steps": 0}, "num_inference_steps=0 must be 1 or more"),
        ([], {}, "prompt=[] is none"),
    ):
        with pytest.raises(ValueError, match=told.replace("[", r"\[")):
            pipe(prompt, **asked)
    with pytest.raises(ValueError, match="upload its folder"):
        pipe.save_pretrained(tmp_path / "saved", push_to_hub=True)


def test_a_vaes_latents_are_decoded_by_it(tmp_path):
    codec = vae_config(toy_vae(tmp_path / "vae", scaling_factor=0.5, shift_factor=0.3))
    run = Run(checkpoint_of(tmp_path, {"codec": codec}, guidance_scale=3.0))
    sampler = build(SAMPLER_CONFIG)
    painting = Painting(run, sampler)
    pipe = diffusers_pipeline(painting)
    assert apart(run, pipe, sampler) < 0.2
    assert pipe(PROMPTS[0], height=16, width=16).images[0].size == (16, 16)
    folder = write_diffusers(tmp_path / "shared", painting)
    assert Vae(path=str(folder)).encode(torch.zeros(1, 3, 16, 16)).isfinite().all()
    assert json.loads((folder / "model_index.json").read_text())["vae"] == ["diffusers", "AutoencoderKL"]


PAINT = """
import importlib, json, sys
import numpy as np, torch
from pathlib import Path
try:
    import diffusion_art
except ImportError:
    pass
else:
    raise SystemExit("this project is installed here")
import diffusers, transformers
from diffusers import DiffusionPipeline
for folder in map(Path, sys.argv[1:]):
    index = json.loads((folder / "model_index.json").read_text())
    for part in ("unet", "scheduler", "tokenizer", "text_encoder"):
        library, name = index[part]
        if library == "text_tower":
            sys.path.insert(0, str(folder / "text_encoder"))
        getattr(importlib.import_module(library), name).from_pretrained(folder / part)
    asked = json.loads(Path("asked.json").read_text())
    pipe = DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)
    generators = [torch.Generator().manual_seed(seed) for seed in asked["seeds"]]
    images = pipe(asked["prompts"], generator=generators, output_type="np").images
    np.save(folder.name + ".npy", images)
    pipe.save_pretrained(folder.name + "-saved")
    saved = DiffusionPipeline.from_pretrained(folder.name + "-saved", trust_remote_code=True)
    generators = [torch.Generator().manual_seed(seed) for seed in asked["seeds"]]
    assert (saved(asked["prompts"], generator=generators, output_type="np").images == images).all()
    assert str(folder) not in Path(folder.name + "-saved", "model_index.json").read_text()
    pipe(asked["prompts"][0], num_inference_steps=2, guidance_scale=1.5).images[0].save(folder.name + ".png")
"""


@pytest.mark.slow
def test_both_kinds_of_tower_paint_where_this_project_is_not(tmp_path, run_here):
    clip = f"local-dir:{tiny_clip(tmp_path / 'clip')}"
    frozen = {"_target_": "diffusion_art.models.text_encoder.OpenClipPretrained", "model": clip, "pretrained": None}
    checkpoints = {
        "scratch": checkpoint_of(tmp_path / "scratch", {}),
        "frozen": checkpoint_of(tmp_path / "frozen", {"text_encoder": frozen}),
    }
    for name, checkpoint in checkpoints.items():
        words = ["format=diffusers", f"path={tmp_path / 'shared' / name}", "sampler=unipc", "num_steps=5"]
        status, said, complaints = run_here("export", f"run={checkpoint}", *words)
        assert status == 0, said + complaints
        assert "painted by both: at most 0.0" in said
        assert "custom_pipeline" not in said  # with it diffusers runs NAME.py where that lies beside the folder NAME
        (tmp_path / "shared" / f"{name}.py").write_text("raise SystemExit('a script of the same name was run')")
    (tmp_path / "asked.json").write_text(json.dumps({"prompts": PROMPTS, "seeds": [3, 4, 5]}))
    folders = [tmp_path / "shared" / name for name in checkpoints]
    run_clean(clean_python(tmp_path / "env"), PAINT, *folders, cwd=tmp_path)
    for name, checkpoint in checkpoints.items():
        run = load_run(checkpoint)
        ours = run.model.generate(PROMPTS, seeds=[3, 4, 5], sampler=by_name("unipc", num_steps=5), guidance_scale=2.0)
        theirs = torch.from_numpy(np.load(tmp_path / f"{name}.npy")).movedim(-1, 1)
        assert (theirs - (ours / 2 + 0.5)).abs().max() <= 1 / 255, name


@pytest.mark.slow
def test_the_folder_and_its_card(tmp_path, run_here):
    run = toy_run(tmp_path / "logs" / "toy" / "first")
    words = [f"run={run}", "format=diffusers", "dtype=fp16"]
    status, said, complaints = run_here("export", *words)
    assert status == 0, said + complaints
    folder = run / "first_step_00000005-diffusers"
    assert str(folder) in said
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    assert load_file(weights)["conv_in.weight"].dtype == torch.float16
    assert weights.stat().st_mode & 0o777 == 0o644
    card = folder / "README.md"
    text = card.read_text()
    assert "library_name: diffusers" in text
    assert "DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)" in text
    assert "diffusion_art.serve" not in text
    assert "16 x 16 pixels" in text
    assert str(tmp_path) not in text
    assert "None" not in text
    card.write_text("# Mine\n![Pictures](mine.png)\n")
    for name in ("mine.png", "LICENSE", ".git/objects/ab", "vae/config.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    (folder / ".git" / "hooks").symlink_to("nowhere")
    assert run_here("export", *words)[0] == 0  # in the place of the former
    assert card.read_text() == "# Mine\n![Pictures](mine.png)\n"
    assert all((folder / name).read_text() == name for name in ("mine.png", "LICENSE", ".git/objects/ab"))
    assert (folder / ".git" / "hooks").readlink() == Path("nowhere")
    assert not (folder / "vae").exists()  # this model has none
    assert {entry.name for entry in run.iterdir()} == {"checkpoints", "metrics.csv", "samples", folder.name}
    assert run_here("export", f"run={run}", f"path={tmp_path / 'a.safetensors'}")[0] == 0
    assert run_here("export", f"run={tmp_path / 'a.safetensors'}", "format=diffusers")[0] == 0
    assert (tmp_path / "a-diffusers" / "model_index.json").is_file()
    status, _, complaints = run_here("export", f"run={run}", "format=diffusers", f"path={run / 'samples'}")
    assert status == 1
    assert "holds something else: give a folder of its own." in complaints
    foreign = tmp_path / "stable-diffusion"
    foreign.mkdir()
    (foreign / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    (foreign / "diffusion_pytorch_model.safetensors").touch()
    status, _, complaints = run_here("export", f"run={run}", "format=diffusers", f"path={foreign}")
    assert status == 1
    assert "stable-diffusion holds something else" in complaints
    assert len(list(foreign.iterdir())) == 2


@pytest.mark.slow
def test_the_card_of_the_run_goes_along_with_its_pictures(tmp_path, run_here):
    run = toy_run(tmp_path / "logs" / "toy" / "first")
    checkpoint = load_run(run).checkpoint_id
    (run / "evaluation.png").write_bytes((run / "samples" / "step_00000005.png").read_bytes())
    own = f"---\nlibrary_name: diffusion_art\n---\n{OURS}\n![Pictures](evaluation.png)\nKID 0.1\n`{checkpoint}`\n"
    own += "## How to paint\n\nby diffusion_art.sample\n\n## Limits\n\n- none\n"
    (run / "MODEL_CARD.md").write_text(own)
    assert run_here("export", f"run={run}", "format=diffusers", f"path={tmp_path / 'out'}")[0] == 0
    text = (tmp_path / "out" / "README.md").read_text()
    assert "KID 0.1" in text
    assert "from_pretrained" in text
    assert "diffusion_art.sample" not in text
    assert text.index("from_pretrained") < text.index("## Limits")
    assert (tmp_path / "out" / "evaluation.png").is_file()
    (run / "MODEL_CARD.md").write_text(own.replace(checkpoint, "another"))
    (run / "evaluation.png").unlink()
    assert run_here("export", f"run={run}", "format=diffusers", f"path={tmp_path / 'out'}")[0] == 0
    assert "KID 0.1" not in (tmp_path / "out" / "README.md").read_text()
    assert not (tmp_path / "out" / "evaluation.png").exists()


def test_what_diffusers_has_not(tmp_path, run_here, monkeypatch):
    run = toy_run(tmp_path / "logs" / "toy" / "first")

    def complaint(*words: str) -> str:
        status, _, complaints = run_here("export", "format=diffusers", f"path={tmp_path / 'out'}", *words)
        assert status == 1
        assert not (tmp_path / "out").exists()
        return complaints

    assert "paints with heun, which no scheduler of diffusers does" in complaint(f"run={run}", "sampler=heun")
    assert "ddim with eta=0.5" in complaint(f"run={run}", "sampler=ddim", "sampler.eta=0.5")
    other = checkpoint_of(tmp_path, {"backbone": JIT_CONFIG})
    assert "has a JiT, and diffusers has none: export it with format=file or format=onnx." in complaint(f"run={other}")
    assert "ComfyUI cannot run this model unchanged" in complaint(f"run={run}", "format=comfyui")
    monkeypatch.setitem(sys.modules, "transformers", None)
    lacking = complaint(f"run={run}")
    assert "needs transformers, which is not installed. Install it: " in lacking
    assert "python -m pip install -e '.[share]'" in lacking


def test_towers_that_are_no_clip(tmp_path, run_here):
    folder = tiny_clip(tmp_path / "clip")
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["text_cfg"]["pool_type"] = "last"
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    frozen = {
        "_target_": "diffusion_art.models.text_encoder.OpenClipPretrained",
        "model": f"local-dir:{folder}",
        "pretrained": None,
    }
    checkpoint = checkpoint_of(tmp_path, {"text_encoder": frozen})
    status, _, complaints = run_here("export", f"run={checkpoint}", "format=diffusers")
    assert status == 1
    assert "is not built like CLIP's, and transformers has none of its kind" in complaints
