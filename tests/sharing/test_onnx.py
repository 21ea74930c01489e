"""`export format=onnx`, and the script that paints from it without torch."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffusion_art.diffusion.samplers import NoiseSource
from diffusion_art.models.tokenizer import _WORDS, ClipTokenizer, clean
from diffusion_art.runs import load_run
from diffusion_art.sharing.folder import merges, vocabulary, write_tokenizer
from diffusion_art.sharing.onnx_folder import scale_once
from diffusion_art.sharing.table import words
from tests.conftest import ROOT
from tests.fakes import JIT_CONFIG, tiny_clip, toy_run
from tests.sharing.clean import clean_python, run_clean
from tests.sharing.toys import PROMPTS, checkpoint_of

for library in ("onnx", "onnxruntime", "onnxscript"):
    pytest.importorskip(library)

SCRIPT = ROOT / "examples" / "onnx_paint.py"
PAINT = f"""
import runpy, sys
runpy.run_path({str(SCRIPT)!r}, run_name="__main__")
assert not {{"torch", "diffusion_art", "transformers"}} & sys.modules.keys()
"""


def painted(folder: Path, tmp_path: Path, prompts: list[str], *words: str) -> np.ndarray:
    """The pictures of the script, in rows."""
    run_clean(clean_python(tmp_path / "env"), PAINT, folder, *prompts, *words, "--out", "out.png", cwd=tmp_path)
    with Image.open(tmp_path / "out.png") as picture:
        return np.stack(np.split(np.asarray(picture).astype(int), len(prompts), axis=1))


def expected(run, prompts: list[str], sampler) -> np.ndarray:
    pictures = run.model.generate(
        prompts, seeds=range(len(prompts)), sampler=sampler, guidance_scale=run.guidance_scale(), **run.guidance()
    )
    return ((pictures + 1) * 127.5).round().movedim(1, -1).numpy().astype(int)


def exported_pictures_are_ours(checkpoint: Path, tmp_path: Path, run_command) -> str:
    """In a process without the type checks, which torch's exporter does not get through."""
    done = run_command("export", f"run={checkpoint}", "format=onnx", f"path={tmp_path / 'o'}", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    run = load_run(checkpoint)
    noise = NoiseSource(range(3), run.model.latent_shape).x_T().numpy()
    np.save(tmp_path / "noise.npy", noise)
    theirs = painted(tmp_path / "o", tmp_path, PROMPTS, "--noise", "noise.npy")
    assert np.abs(theirs - expected(run, PROMPTS, run.sampler())).max() <= 1
    return done.stdout


@pytest.mark.slow
def test_the_script_paints_our_pictures_without_torch(tmp_path, run_command):
    guidance = {"interval": [0.1, 0.9], "rescale": 0.5, "threshold": 0.95}
    sampler = {"_target_": "diffusion_art.diffusion.samplers.dpm_solver.UniPC", "num_steps": 5}
    checkpoint = checkpoint_of(tmp_path, {}, guidance=guidance, guidance_scale=3.0, sampler=sampler)
    said = exported_pictures_are_ours(checkpoint, tmp_path, run_command)
    assert "denoiser.onnx" in said
    assert "from torch" in said
    for name in ("denoiser", "text_encoder"):  # no lines of code, no folders of this machine
        assert str(ROOT).encode() not in (tmp_path / "o" / f"{name}.onnx").read_bytes()
    assert len(SCRIPT.read_text().splitlines()) <= 60
    assert "library_name: onnx" in (tmp_path / "o" / "README.md").read_text()
    assert {entry.name for entry in (tmp_path / "o").iterdir()} == {
        *("denoiser.onnx", "text_encoder.onnx", "vocab.json", "merges.txt", "painting.json", "README.md")
    }


@pytest.mark.slow
@pytest.mark.longest
@pytest.mark.parametrize("kind", ["frozen", "jit"])
def test_other_towers_and_networks(kind, tmp_path, run_command):
    clip = f"local-dir:{tiny_clip(tmp_path / 'clip')}"
    frozen = {"_target_": "diffusion_art.models.text_encoder.OpenClipPretrained", "model": clip, "pretrained": None}
    parts = {"frozen": {"text_encoder": frozen}, "jit": {"backbone": JIT_CONFIG}}[kind]
    exported_pictures_are_ours(checkpoint_of(tmp_path, parts), tmp_path, run_command)


@pytest.mark.slow
@pytest.mark.longest
def test_guidance_scale_0_is_rescaled_by_both(tmp_path, run_command):
    checkpoint = checkpoint_of(tmp_path, {}, guidance_scale=0.0, guidance={"rescale": 0.7})
    exported_pictures_are_ours(checkpoint, tmp_path, run_command)


def test_the_files_of_the_tokenizer_give_our_ids(tmp_path):
    tokenizer = ClipTokenizer(context_length=20, vocab_size=900)
    write_tokenizer(tmp_path, tokenizer)
    vocab = json.loads((tmp_path / "vocab.json").read_text())
    assert vocab == vocabulary(tokenizer)
    assert sorted(vocab.values()) == list(range(900))
    assert len(merges(tokenizer)) == len((tmp_path / "merges.txt").read_text().splitlines()) - 1
    for text in ("Édouard's  1872 & _x_; a SEA... don't", "½ of 12", "100 m² h₂o", "ⅻ¾x²y", "x" * 40):
        assert [word for word in re.findall(words(), clean(text)) if word] == _WORDS.findall(clean(text))


def test_what_cannot_be_written_as_onnx(tmp_path, run_here, monkeypatch):
    run = toy_run(tmp_path / "logs" / "toy" / "first")

    def complaint(*words: str) -> str:
        status, _, complaints = run_here("export", f"run={run}", "format=onnx", f"path={tmp_path / 'out'}", *words)
        assert status == 1
        assert not (tmp_path / "out").exists()
        return complaints

    assert "paints with stochastic_heun, which looks at the picture" in complaint("sampler=stochastic_heun")
    assert "format=onnx is written in fp32" in complaint("dtype=fp16")
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "painting.json").write_text('{"brush": "wide"}')
    _, _, complaints = run_here("export", f"run={run}", "format=onnx", f"path={tmp_path / 'theirs'}")
    assert "theirs holds something else: give a folder of its own." in complaints
    assert (tmp_path / "theirs" / "painting.json").read_text() == '{"brush": "wide"}'
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert "needs onnxruntime, which is not installed" in complaint()


def maps_made(model) -> int:
    """How many nodes write a whole map."""
    from onnx import shape_inference

    graph = shape_inference.infer_shapes(model).graph
    shapes = {value.name: value.type.tensor_type.shape.dim for value in [*graph.value_info, *graph.output]}
    return sum(np.prod([dim.dim_value for dim in shapes[node.output[0]]]) == 2 * 3 * 4 * 4 for node in graph.node)


def test_a_norm_that_is_scaled_and_shifted_goes_over_its_map_twice():
    """The product of a fixed scale and a computed one is taken per channel; two computed ones stay as they are."""
    import onnx_ir
    import onnxruntime
    from onnx import checker, parser

    proto = parser.parse_model("""
        <ir_version: 10, opset_import: ["": 20]>
        net (float[2,3,4,4] x, float[2,3,1,1] scale, float[2,3,1,1] shift) => (float[2,3,4,4] out, float[2,3,4,4] kept)
        <float[3,1,1] weight = {0.5, -2, 3}, float[3,1,1] bias = {1, 0.25, -1}>
        {
            weighted = Mul(x, weight)
            normed = Add(weighted, bias)
            scaled = Mul(normed, scale)
            out = Add(scaled, shift)
            once = Mul(x, scale)
            moved = Add(once, shift)
            twice = Mul(moved, scale)
            kept = Add(twice, shift)
        }""")
    checker.check_model(proto, full_check=True)
    model = onnx_ir.from_proto(proto)
    scale_once(model)
    rewritten = onnx_ir.to_proto(model)
    assert [maps_made(one) for one in (proto, rewritten)] == [8, 6]
    rng = np.random.default_rng(0)
    shapes = {"x": (2, 3, 4, 4), "scale": (2, 3, 1, 1), "shift": (2, 3, 1, 1)}
    given = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    before, after = (
        onnxruntime.InferenceSession(one.SerializeToString()).run(None, given) for one in (proto, rewritten)
    )
    np.testing.assert_allclose(after, before, atol=1e-5)
