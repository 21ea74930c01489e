"""What commands make of their arguments, and what they say of those that they cannot take."""

from __future__ import annotations

import re
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hydra.errors import ConfigCompositionException
from omegaconf import OmegaConf
from safetensors import SafetensorError

from diffusion_art import hydra_errors
from diffusion_art.cli import command
from diffusion_art.config import config_dir
from diffusion_art.elsewhere import CHOICES, ELSEWHERE
from diffusion_art.errors import UserError
from diffusion_art.hydra_errors import check_sections, explain
from diffusion_art.overrides import RENAMED, holds
from tests.training.run.test_resume import FullDisk


def composed(run_here, name: str, *words: str):
    status, said, complaints = run_here(name, *words, "--cfg", "job")
    assert status == 0, complaints
    return OmegaConf.create(said)


@pytest.mark.parametrize(
    ("name", "key", "more"),
    [
        ("train", "data.path", ()),
        ("train", "callbacks.samples.folder", ()),
        ("train", "run", ()),
        ("train", "teacher.run", ("+experiment=distill",)),
        ("train", "prompts", ("+experiment=openclipart",)),
        ("sample", "run", ()),
        ("sample", "negative_prompt", ("run=x",)),
        ("prepare", "source.path", ("source=any",)),
        ("prepare", "caption_template", ()),
        ("stream", "data.path", ()),
        ("serve", "name", ("run=x",)),
        ("evaluate", "real", ()),
        ("export", "path", ("run=x",)),
        ("shards", "out", ("info", "path=x")),
        ("posthoc_ema", "run", ("sigma_rel=0.1",)),
        ("schedule_search", "out", ("run=x",)),
    ],
)
def test_every_command_takes_text_as_it_is(name, key, more, run_here):
    text = "Tom's Été, a=b (2) {x}"
    config = composed(run_here, name, *more, f"{key}={text}")
    assert OmegaConf.select(config, key) == text


def test_a_plus_before_a_key_that_is_there_does_no_harm(run_here):
    words = ("+trainer.fast_dev_run=true", "+trainer.overfit_batches=1", "+data.caption_template=it's {a}")
    config = composed(run_here, "train", "+debug=tiny", *words)
    assert (config.trainer.fast_dev_run, config.trainer.overfit_batches) == (True, 1)
    assert config.data.caption_template == "it's {a}"


def test_prompts_are_a_key_like_any_other(run_here):
    for name in ("train", "sample"):
        more = ["run=x"] if name == "sample" else []
        assert composed(run_here, name, *more, "prompts=[a red house, Tom's]").prompts == ["a red house", "Tom's"]
        assert composed(run_here, name, *more, "prompts=painter").prompts == "painter"
        assert "asked" not in composed(run_here, name, *more)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("stream", "data=painter"),
            "`data` is a section with the keys `path`, `remote`. Give one of them, as in data.path=...",
        ),
        (
            ("sample", "run=x", "guidance=3"),
            "`guidance` is a section with the keys `interval`, `rescale`, `threshold`.",
        ),
        (("serve", "run=x", "limits=10"), "`limits` is a section with the keys `max_body_bytes`, "),
        (("serve", "run=x", "limits.max_m=10"), "`limits` has `max_body_bytes`, "),
        (("serve", "run=x", "limits.max_m=10"), "did you mean `limits.max_n`"),
        (("train", "callbacks.samples=500"), "`callbacks.samples` is a section with the keys `folder`, `prompts`"),
        (("train", "data.source=wikiart"), "`data.source` is a section with the keys `count`, `seed`"),
        (("sample", "run=x", "promts=red"), "there is no config key `promts`; did you mean `prompts`?"),
        (("train", "data=panter"), "there is no `panter` in the config group `data`. Choose one of: "),
        (("stream", "data.path=My", "Pictures"), "put both in quotes: 'data.path=My Pictures'"),
        (("train", "experiment=quickstart32"), "so it is added with a plus sign: +experiment=quickstart32"),
        (("train", "+experiments=quickstart32"), "nothing would read it; did you mean `experiment`?"),
        (
            ("train", "+experiment=conf/experiment/quickstart32.yaml"),
            "is a path, and a file is chosen by its name: +experiment=quickstart32.",
        ),
        (("train", "+experiment=/nowhere/own.yaml"), "there is no /nowhere/own.yaml to choose for experiment."),
        (("evaluate", "run=x", "metrics=[]"), "metrics=[] holds nothing to measure with"),
        (("evaluate", "run=x", "metrics=[kid]", "pictures=0"), "pictures=0 is too small: give at least 2"),
        (("train", "optim.lr=1e-3,1e-4"), "optim.lr=1e-3,1e-4 are several values. Add -m for a run with each"),
    ],
)
def test_errors_name_what_was_typed(words, said, run_here):
    status, _, complaints = run_here(*words)
    assert status == 1
    assert complaints.startswith("error: ")
    assert said in complaints
    assert "asked" not in complaints
    assert "Traceback" not in complaints
    assert not [*Path("logs").glob("*/*")]


@pytest.mark.parametrize(
    ("words", "now"),
    [
        (("sample", "run=x", "asked=[red]"), "prompts"),
        (("sample", "run=x", "+asked=[red]"), "prompts"),
        (("train", "data.codec=u8"), "data.payload"),
        (("train", "alignment=features", "alignment.until=0.5"), "alignment.stop_at_fraction"),
        (("train", "alignment.place=up"), "alignment.layer"),  # no alignment here, and so no such section
        (("train", "++alignment={_target_: X, relation: 1, similarity_weight: 1}"), "alignment.similarity_weight"),
        (("train", "+sampler.name=ddim"), "sampler"),
        (("train", "+experiment=wikiart", "model.text_encoder.cache_mb=9"), "model.text_encoder.cache_captions"),
        (("shards", "lint", "path=x", "pictures=false"), "decode_pictures"),
    ],
)
def test_an_old_key_gets_the_new_one_named(words, now, run_here):
    status, _, complaints = run_here(*words)
    assert status == 1
    assert f"is called `{now}` now: give {now}=..." in complaints
    assert "Traceback" not in complaints


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("train", "model.lr=1e-4"), "no config key `model.lr`; did you mean `optim.lr`?"),
        (("train", "learning_rate=1e-4"), "no config key `learning_rate`; did you mean `optim.lr`?"),
        (("train", "data.batch_size=16"), "did you mean `data.global_batch_size`?"),
        (("train", "max_steps=9"), "did you mean `trainer.max_steps`?"),
        (("train", "+experiment=wikiart", "data.source.count=5"), "or `data.remote`? Add a new key with `+data.source"),
        (("train", "--resume_from_checkpoint=logs/a"), "here ckpt_path=logs/a"),
        (("train", "--resume-from-checkpoint", "last"), "here ckpt_path=last"),
        (("train", "--seed", "1"), "there is no option --seed: settings are words like key=value, here seed=1"),
        (("train", "logger=null"), "choose one of csv, mlflow, tensorboard, trackio, wandb, or ~logger for none."),
        (("train", "optim=null"), "optim=null is no choice: choose one of adamw, muon."),
        (("sample", "run=", "sampler=null"), "`run=` has no value"),
        (("sample", "sampler=null"), "`run` has no value. Give it on the command line: run=..."),
        (("sample",), "`run` has no value. Give it on the command line: run=..."),
        (("train", "--xformers"), "there is no option --xformers: settings are words like key=value"),
        (("sample", "run=x", "prompt=a house"), "did you mean `prompts`?"),
        (("sample", "ckpt_path=x"), "did you mean `run`?"),
        (("sample", "--num_inference_steps", "20", "run=x"), "here num_steps=20"),
        (
            ("train", "+batch_size=16"),
            "called `data.global_batch_size` here: give data.global_batch_size=16",
        ),
        (("sample", "run=x", "+beauty=3"), "no config key `beauty`, and nothing would read it."),
        (("sample", "run=x", "+num_step=3"), "nothing would read it; did you mean `num_steps`?"),
        (("train", "+foo.bar=1"), "no config key `foo.bar`, and nothing would read it."),
        (("train", "+guidance.rescal=1"), "nothing would read it; did you mean `guidance.rescale`"),
        (("train", "++epochs=10"), "`epochs` is called `trainer.max_epochs` here: give trainer.max_epochs=10"),
        (("train", "steps=10"), "no config key `steps`; did you mean `trainer.max_steps`?"),
        (("train", "wandb=true"), "did you mean `logger`?"),
        (("train", "callbacks.checkpoints.save_top_k=2"), "did you mean `callbacks.checkpoints.keep_best`?"),
        (
            ("train", "lr_schedule=constant_with_warmup"),
            "`constant` is it, and warms up over lr_schedule.",
        ),
        (("train", "optim=Adam"), "optim=adamw optim.weight_decay=0 is Adam. Choose one of: adamw, muon."),
        (("train", "ema=false"), "ema.decay=0 is without averages. Choose one of: post_hoc, single."),
        (("train", "logger=TRUE"), "there is no `TRUE` in the config group `logger`. Choose one of: csv,"),
        (("train", "~optim"), "~optim leaves nothing to go by: choose one of adamw, muon."),
        (("train", "~callbacks.checkpoint"), "`callbacks.checkpoint` to drop; did you mean `callbacks.checkpoints`?"),
        (("train", "optim.lr=${oc.env:NOT_SET_HERE}"), "the environment variable NOT_SET_HERE is not set"),
        (("train", "run=${oc.env:NOT_SET_HERE}"), "as in ${oc.env:NOT_SET_HERE,default}."),
        (("train", "seed=choice(1,2)"), "seed=choice(1,2) are several values. Add -m for a run with each."),
        (("train", "-m", "seed=interval(1,2)"), "add +sweep=optuna"),
        (("train", "+experiment=clip", "+experiment=wikiart"), "experiment=... stands there more than once"),
        (("train", "seed=1", "--config-path=/", "run=x"), "--config-dir=FOLDER adds yaml files to those"),
        (("train", "seed=1", "--experimental-rerun", "no.pickle"), "there is no no.pickle to run again"),
        (("train", "hydra.job.chdir=true"), "would move all relative paths"),
    ],
)
def test_the_words_of_other_trainers_are_told_in_ours(words, said, run_here):
    status, _, complaints = run_here(*words)
    assert status == 1
    assert said in complaints
    assert "usage" not in complaints


def test_every_word_of_other_trainers_has_one_here(run_here):
    commands = (("train",), ("sample", "run=x"), ("prepare", "source=any"), ("export", "run=x"))
    commands += (("posthoc_ema", "run=x", "sigma_rel=0.1"),)
    known = [composed(run_here, name, *more) for name, *more in commands]
    plain = [OmegaConf.to_container(config, resolve=False) for config in known]
    for key in {key for keys in ELSEWHERE.values() for key in keys}:
        assert any(holds(config, key) for config in plain), key


def test_every_choice_of_other_trainers_has_an_answer_that_holds(run_here):
    """What is named in its place is a choice, or can be composed."""
    for group, names in CHOICES.items():
        known = {file.stem for file in (config_dir() / group).glob("*.yaml")}
        assert known, group
        for said in set(names.values()):
            for name in re.findall(r"`(\w+)`", said):
                assert name in known or group == "model/backbone", said
            words = [word.strip(",") for word in said.split() if "=" in word and "FOLDER" not in word]
            if words:
                composed(run_here, "train", *words)


@pytest.mark.parametrize(
    "words",
    [
        ("seed=3", "--cfg", "job", "run=x"),
        ("seed=3", "-c", "job", "--package", "_global_", "run=x"),
        ("seed=3", "--resolve", "--cfg=job", "run=x"),
        ("seed=3", "--config-name", "train", "run=x", "--cfg", "job"),
    ],
)
def test_options_stand_anywhere_among_the_keys(words, run_here):
    status, said, complaints = run_here("train", *words)
    assert status == 0, complaints
    assert "seed: 3" in said
    assert "run: x" in said


def test_info_without_a_word_may_stand_before_keys(run_here):
    status, said, complaints = run_here("train", "--info", "seed=3", "run=x")
    assert status == 0, complaints
    assert "seed: 3" in said


def test_a_folder_of_own_yaml_files(run_here, tmp_path):
    (tmp_path / "mine" / "optim").mkdir(parents=True)
    (tmp_path / "mine" / "optim" / "mine.yaml").write_text("_target_: torch.optim.SGD\n_partial_: true\nlr: 0.25\n")
    status, said, complaints = run_here(
        "train", "seed=3", f"--config-dir={tmp_path / 'mine'}", "optim=mine", "--cfg", "job"
    )
    assert status == 0, complaints
    assert "lr: 0.25" in said


@pytest.mark.slow
def test_groups_and_keys_of_own_yaml_files(run_here, tmp_path):
    """Notes and what is interpolated may stand there; a key that is called otherwise here would be read by nothing."""
    (tmp_path / "mine/rates").mkdir(parents=True)
    (tmp_path / "mine/experiment").mkdir()
    (tmp_path / "mine/rates/low.yaml").write_text("factor: 0.25")
    own = tmp_path / "mine/experiment/own.yaml"
    words = ["--config-dir=mine", "+experiment=own", "+rates=low", "optim.lr=${rates.factor}", "ckpt_path=nowhere.ckpt"]
    for more, said in (
        ("tags: [a]", "nowhere.ckpt"),
        ("defaults: [override /optim: muon, /logger: [csv, wandb]]", "overrides stand last, those of"),
        ("learning_rate: 1", "gives `learning_rate`, which nothing reads: here it is called `optim.lr`."),
        ("gidance_scale: 1", "gives `gidance_scale`, which nothing reads: here it is called `guidance_scale`."),
    ):
        own.write_text(f"# @package _global_\n{more}\n")
        for place in ("--config-dir=mine", f"hydra.searchpath=[file://{tmp_path}/mine]"):
            status, _, complaints = run_here("train", place, *words[1:])
            assert status == 1
            assert said in complaints


def test_a_yaml_file_that_is_given_by_its_path(run_here, tmp_path):
    own = tmp_path / "mine/experiment/own.yaml"
    own.parent.mkdir(parents=True)
    own.write_text("# @package _global_\nseed: 3\n")
    (tmp_path / "own.yaml").write_text("defaults: [train, _self_]\n")
    for words, told in (
        ([f"+experiment={own}"], f"is a path: give --config-dir={tmp_path / 'mine'} +experiment=own."),
        ([f"+experiment={tmp_path / 'own'}"], "where it lies as FOLDER/experiment/own.yaml."),
        (["--config-path", str(tmp_path), "--config-name", "own"], "no train.yaml among your own: --config-dir=FOLDER"),
    ):
        status, _, complaints = run_here("train", *words)
        assert status == 1
        assert told in complaints


def test_jobs_that_failed_are_told_though_the_clock_is_set_back(run_here, monkeypatch):
    began = time.time()
    monkeypatch.setattr("diffusion_art.cli.time", SimpleNamespace(time=lambda: began + 3600))
    status, _, complaints = run_here("train", "-m", "ckpt_path=nowhere.ckpt", "seed=0,1")
    assert status == 1
    assert "error: 1 of the jobs failed:\n  there is no checkpoint at nowhere.ckpt" in complaints


@pytest.mark.usefixtures("logging_as_before")
def test_a_file_where_a_folder_should_be_ends_a_command_in_a_sentence(monkeypatch, capfd, tmp_path):
    (tmp_path / "taken").touch()
    monkeypatch.setattr("sys.argv", ["export", "run=x"])
    with pytest.raises(SystemExit):
        command("export")(lambda config: (tmp_path / "taken").mkdir(parents=True, exist_ok=True))()
    assert capfd.readouterr().err == f"error: {tmp_path}/taken cannot be used: File exists.\n"


@pytest.mark.usefixtures("logging_as_before")
@pytest.mark.parametrize("way", ["safetensors", "torch", "plain"])
def test_a_full_disk_ends_a_command_in_a_sentence(way, monkeypatch, capfd):
    def write(config: object) -> None:
        if way == "safetensors":  # its words, as the Rust of it puts them
            raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
        if way == "torch":
            torch.save({"weights": torch.zeros(1000)}, FullDisk())
        FullDisk().write(b"")

    monkeypatch.setattr("sys.argv", ["export", "run=x"])
    with pytest.raises(SystemExit):
        command("export")(write)()
    assert capfd.readouterr().err == "error: a file cannot be written: No space left on device.\n"


def test_what_a_plus_sign_adds_and_something_reads_goes_on(run_here):
    own = [
        "+callbacks.mine._target_=lightning.pytorch.callbacks.LearningRateMonitor",
        "+callbacks.mine.logging_interval=step",
    ]
    own += ["+my_rate=0.1", "optim.lr=${my_rate}", "+trainer.num_nodes=1", "+seed=3", "+terms.x={_target_: X}"]
    own += ["+optim.share=0.1", "optim.weight_decay=${.share}", "data.path=${oc.select:'my_rate'}"]
    status, _, complaints = run_here("train", *own, "ckpt_path=nowhere.ckpt")
    assert status == 1
    assert "nowhere.ckpt" in complaints


def test_an_experiment_stands_before_what_changes_it(run_here):
    assert composed(run_here, "train", "+debug=overfit", "+experiment=quickstart").trainer.max_steps == 400


def test_every_new_key_is_one(run_here):
    """And a key that has another meaning elsewhere is refused only where it was renamed."""
    words = ["+experiment=wikiart", "alignment=features", "logger=wandb"]
    known = [composed(run_here, "train", *words), composed(run_here, "sample", "run=x", "sampler=ddim")]
    known += [composed(run_here, "shards", "info", "path=x"), composed(run_here, "train", "+experiment=distill")]
    plain = [OmegaConf.to_container(config, resolve=False) for config in known]
    for old, new in RENAMED.items():
        assert any(holds(config, new) for config in plain), new
        assert not any(holds(config, old) for config in plain), old
    assert composed(run_here, "evaluate", "pictures=3").pictures == 3


def test_a_value_is_no_reason_to_compose_the_config_twice(monkeypatch):
    def composed(*args, **kwargs):
        raise AssertionError("the config was composed")

    monkeypatch.setattr("hydra.initialize_config_dir", composed)
    monkeypatch.setattr(hydra_errors, "initialize_config_dir", composed)
    for word in ("optim.lr=1e-3", "run=first", "data.image_size_px=32", "callbacks.samples.every_n_steps=5"):
        monkeypatch.setattr("sys.argv", ["train", "+experiment=quickstart", word])
        check_sections("train")
    monkeypatch.setattr("sys.argv", ["train", "callbacks.samples=5"])
    with pytest.raises(AssertionError):
        check_sections("train")


def test_a_section_can_be_dropped_or_given_whole(run_here):
    assert composed(run_here, "train", "callbacks.loss_plot=null").callbacks.loss_plot is None
    assert composed(run_here, "sample", "run=x", "guidance={rescale: 0.5}").guidance.rescale == 0.5


def test_a_yaml_that_still_overrides_prompts_as_a_group():
    complaint = ConfigCompositionException(
        "In 'experiment/mine': Could not override 'prompts'.\nNo match in the defaults list."
    )
    said = explain(complaint, "train")
    assert (
        said == "`prompts` is a key, not a group of files: write `prompts: ...` in place of `override /prompts: ...`."
    )


def test_a_launcher_that_cannot_start_jobs_is_told_in_a_sentence(run_here, monkeypatch):
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    monkeypatch.setenv("PATH", "/nowhere")
    status, _, complaints = run_here("train", "-m", "hydra/launcher=submitit_slurm", "seed=0,1")
    assert status == 1
    assert complaints.startswith('error: the launcher starts no jobs: Could not detect "srun"')


@pytest.mark.slow
@pytest.mark.usefixtures("logging_as_before")
def test_a_job_that_went_well_since_has_failed_no_more(monkeypatch, capfd, tmp_path):
    """What it left when it failed is told as its end by `watch`."""
    mistakes = [UserError("once")]

    def work(config: object) -> None:
        if mistakes:
            raise mistakes.pop()

    monkeypatch.chdir(tmp_path)
    words = ["-m", "run=x", "hydra.sweep.dir=out", "hydra.sweep.subdir=job"]
    monkeypatch.setattr("sys.argv", ["export", *words])
    with pytest.raises(SystemExit):
        command("export")(work)()
    assert (tmp_path / "out/job/failed.txt").read_text().endswith(": once")
    monkeypatch.setattr("sys.argv", ["export", *words])
    command("export")(work)()
    assert not (tmp_path / "out/job/failed.txt").exists()


@pytest.mark.usefixtures("logging_as_before")
@pytest.mark.parametrize("name", ["export", "train"])
def test_keys_of_a_sweep_may_be_typed_as_one_mapping(name, monkeypatch, capfd, tmp_path):
    seen = []
    monkeypatch.chdir(tmp_path)
    words = ["-m", "hydra.sweep.dir=out", "hydra.sweep.subdir=${hydra.job.num}", "hydra.sweeper.params={run: 'a,b'}"]
    monkeypatch.setattr("sys.argv", [name, *words])
    command(name)(lambda config: seen.append(config.run))()
    assert seen == ["a", "b"], capfd.readouterr().err
