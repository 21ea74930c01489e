"""Train a model: `python -m diffusion_art.train +experiment=quickstart`.

Composes the run from `conf/`, makes its shards where they are missing, trains, and leaves a run folder that
explains itself
(`logs/<name>/<run>/`). With several processes that nobody else started, starts them from the saved config.
"""

from __future__ import annotations

from diffusion_art.extras import check_extra

check_extra("train")

import csv
import itertools
import logging
import os
import signal
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import psutil
import torch
from hydra.core.hydra_config import HydraConfig
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import seed_everything
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf, open_dict
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main as torchrun

from diffusion_art.accel.regions import cannot_compile
from diffusion_art.callbacks.graceful_stop import was_stopped
from diffusion_art.checkpoints import find_checkpoint
from diffusion_art.cli import command, config_dir
from diffusion_art.config import class_of, is_a, plain, verbatim
from diffusion_art.devices import computes_in_bf16
from diffusion_art.errors import UserError
from diffusion_art.models.autoencoder import Autoencoder
from diffusion_art.prompts import read_prompts
from diffusion_art.runs import load_run
from diffusion_art.stop_signals import SIGNALS, exit_status, stop_signal
from diffusion_art.training.batch_size import find_batch_size
from diffusion_art.training.build import build_datamodule, build_module, build_trainer, is_lightnings, refused
from diffusion_art.training.init_from import started_from
from diffusion_art.training.length import settled_steps
from diffusion_art.training.limits import check_limits
from diffusion_art.training.out_of_memory import is_out_of_memory, out_of_memory
from diffusion_art.training.parts import fitting_part, memory_limit
from diffusion_art.training.resume import checked_resume, steps_done
from diffusion_art.training.run_folder import HELD_VARIABLE, held
from diffusion_art.training.stopping import Stopped, stop_request
from diffusion_art.training.terms.teacher import student_of
from diffusion_art.training.trial_runs import LASTING, check_trial, trial, trial_steps

log = logging.getLogger(__name__)

WORTH_COMPILING_STEPS = 1000  # compile=auto: a shorter run is over before compiling has paid
EXAMPLES = 12  # captions of its own data that a run paints with prompts=auto
STOPPING = (  # options of torchrun: who stops the run waits for its checkpoint
    f"--signals_to_handle=SIGHUP,SIGQUIT,{','.join(signal.Signals(number).name for number in SIGNALS)}",
    "--shutdown_timeout=600",
)


_stamps: set[str] = set()  # the names that this process gave


def run_stamp() -> str:
    """The name of a run nobody named: SLURM's job, or the time it started.

    All processes of one torchrun share their parent, and so its start time.
    """
    if job := os.environ.get("SLURM_JOB_ID"):
        return f"slurm-{job}"
    parent = psutil.Process(os.getppid()) if "TORCHELASTIC_RUN_ID" in os.environ else None
    stamp = time.strftime("%Y-%m-%d_%H-%M-%S", time.localtime(parent.create_time() if parent else None))
    _stamps.add(stamp)
    return stamp


def fresh_folder(path: str) -> str:
    """`path`; or where it is named by the time and another run took that name, in the same second, `path-2` and on.

    Made here, since who makes a folder has it.
    """
    ours = any(path.endswith(stamp) for stamp in _stamps)
    if not ours or "TORCHELASTIC_RUN_ID" in os.environ:  # whose processes must find the same name
        return path
    for number in itertools.count(1):
        folder = Path(path if number == 1 else f"{path}-{number}")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            folder.mkdir()
            return str(folder)
    raise AssertionError("unreachable")


def wandb_offline() -> bool:
    """Whether there is no key to upload with."""
    return "WANDB_API_KEY" not in os.environ and not (Path.home() / ".netrc").exists()


OmegaConf.register_new_resolver("stamp", run_stamp, use_cache=True, replace=True)
OmegaConf.register_new_resolver("fresh", fresh_folder, use_cache=True, replace=True)
OmegaConf.register_new_resolver("wandb_offline", wandb_offline, replace=True)


# ---------------------------------------------------------------------- settling the config


def settle(config: DictConfig, run_dir: Path) -> dict[str, Any]:
    """The config as plain data with every choice made: run folder, length, precision, compiling, teacher, text encoder.

    What it returns rides in the checkpoint and builds the same run anywhere.

    Raises:
        UserError: a value out of range, or no length.
    """
    with open_dict(config):
        config.paths.run_dir = str(run_dir)
        _settle_length(config)
        if config.trainer.precision == "auto":
            config.trainer.precision = best_precision(str(config.trainer.accelerator))
        config.compile = settled_compile(config.compile, str(config.trainer.accelerator), config.trainer.max_steps)
        if "teacher" in config.keys():  # noqa: SIM118 -- `in config` is false for a value that is still missing
            _settle_teacher(config)
        else:
            _settle_text_encoder(config)
        if config.get("init_from"):
            _settle_start(config)
    settings = plain(config)
    check_limits(settings)
    _settle_prompts(settings)
    return settings


def _settle_prompts(settings: dict[str, Any]) -> None:
    """The texts themselves, for the grids and for all that is painted from this run later."""
    for asked in (settings, settings["callbacks"].get("samples") or {}):
        if asked.get("prompts") == "auto":
            asked["prompts"] = build_datamodule(settings).example_captions(EXAMPLES) or "wikiart"
        if asked.get("prompts") is not None:
            asked["prompts"] = read_prompts(asked["prompts"])


def _settle_length(config: DictConfig) -> None:
    """`trainer.max_steps`, which all that depends on the run's length follows, whatever was given of it."""
    trainer = plain(config.trainer)
    check_trial(trainer)
    if steps := trial_steps(trainer):
        config.trainer = trial(trainer, steps)
        config.logger = {}
        config.callbacks = {name: node for name, node in config.callbacks.items() if name not in LASTING}
        log.info("trainer.fast_dev_run: %d steps, as many batches of validation, nothing logged or saved", steps)
        return
    known = {"data": plain(config.data), "paths": plain(config.paths), "trainer": trainer}
    check_limits(known)
    config.trainer.max_steps, said = settled_steps(
        trainer,
        typed=_typed(),
        per_step=known["data"]["global_batch_size"] * trainer["accumulate_grad_batches"],
        pictures=lambda: build_datamodule(known).training_samples(),
    )
    config.trainer.max_epochs = -1
    if said:
        log.info("%s", said)


def _typed() -> list[str]:
    """The keys given on the command line, if there is one."""
    if not HydraConfig.initialized():
        return []
    return [override.partition("=")[0].lstrip("+") for override in HydraConfig.get().overrides.task]


def best_precision(accelerator: str) -> str:
    """`bf16-mixed` where the processor computes in bf16, else full precision."""
    if torch.cuda.is_available() and accelerator in ("auto", "gpu", "cuda"):
        return "bf16-mixed" if computes_in_bf16(torch.device("cuda")) else "32-true"
    if accelerator == "mps" or (accelerator == "auto" and torch.backends.mps.is_available()):
        return "32-true"
    return "bf16-mixed" if computes_in_bf16(torch.device("cpu")) else "32-true"


def settled_compile(asked: bool | str, accelerator: str, max_steps: int) -> bool | str:
    """How the network is compiled: `auto` is by region (true) on a GPU, for a run long enough to gain by it.

    Raises:
        UserError: no such choice, or nothing to compile with.
    """
    if asked not in (False, True, "whole", "auto"):
        raise UserError(f"compile={asked} is not known: choose auto, true (by region), whole (as one graph) or false.")
    on_gpu = torch.cuda.is_available() and accelerator in ("auto", "gpu", "cuda")
    if not asked or (asked == "auto" and not (on_gpu and (max_steps < 0 or max_steps >= WORTH_COMPILING_STEPS))):
        return False
    lacking = cannot_compile("cuda" if on_gpu else "cpu")
    if lacking and asked != "auto":
        raise UserError(f"compile={str(asked).lower()} is not possible here: {lacking}. Or train with compile=false.")
    if lacking:
        log.warning("the network is not compiled, and trains slower: %s", lacking)
        return False
    return True if asked == "auto" else asked


def settle_batch_size(settings: dict[str, Any], *, checkpoint: Path | None, world: int) -> None:
    """Split the pictures of a step into parts that fit: `auto` by what they will take, `true` by trying. A resumed run
    keeps the parts it has, in which its place in the data is counted.

    Raises:
        UserError: another value, or `true` in processes started by others, each of which would find its own size.
    """
    data, trainer, asked = settings["data"], settings["trainer"], settings["find_batch_size"]
    settings["find_batch_size"] = False
    if asked not in (True, "auto"):
        raise UserError(f"find_batch_size={asked} is not one of false, true and auto.")
    if asked is True and {"TORCHELASTIC_RUN_ID", "SLURM_NTASKS"} & os.environ.keys():
        raise UserError(
            "find_batch_size=true asks one process, not several. Take find_batch_size=auto, which measures nothing; or "
            "run once without torchrun or SLURM, and give what it chooses: data.global_batch_size=... "
            "trainer.accumulate_grad_batches=..."
        )
    pictures = data["global_batch_size"] * trainer["accumulate_grad_batches"]
    if checkpoint is not None:
        trained = load_run(checkpoint).config
        size, parts = trained["data"]["global_batch_size"], trained["trainer"]["accumulate_grad_batches"]
        if size * parts == pictures:  # else the data module says what does not agree
            data["global_batch_size"], trainer["accumulate_grad_batches"] = size, parts
            log.info("find_batch_size: resumed, so the batch size stays that of %s", checkpoint)
        return
    if asked == "auto":
        _settle_parts(settings, pictures=pictures, world=world)
        return
    found = find_batch_size(settings, world=world)
    data["global_batch_size"] = found.size * world
    trainer["accumulate_grad_batches"] = pictures // data["global_batch_size"]
    log.info(
        "find_batch_size: data.global_batch_size=%d trainer.accumulate_grad_batches=%d, %d pictures per step as "
        "before; %d at once, %.3g GB at most with %.3g GB for each picture, of %.3g GB",
        data["global_batch_size"],
        trainer["accumulate_grad_batches"],
        pictures,
        found.size,
        found.peaks.get(found.size, 0) / 1e9,
        found.per_picture / 1e9,
        found.limit / 1e9,
    )


def _settle_parts(settings: dict[str, Any], *, pictures: int, world: int) -> None:
    """`find_batch_size=auto`: parts no larger than asked for. Without a GPU or a limit they are as asked for."""
    limit = memory_limit(settings)
    if limit is None:
        return
    size, foreseen = fitting_part(settings, limit=limit, world=world)
    data, trainer = settings["data"], settings["trainer"]
    data["global_batch_size"] = size * world
    trainer["accumulate_grad_batches"] = pictures // data["global_batch_size"]
    log.info(
        "find_batch_size: %d pictures per step in %d part(s): data.global_batch_size=%d, %.3g GB foreseen of %.3g GB",
        pictures,
        trainer["accumulate_grad_batches"],
        data["global_batch_size"],
        foreseen / 1e9,
        limit / 1e9,
    )


def _settle_text_encoder(config: DictConfig) -> None:
    """Where the weights of the text encoder cannot be had and the experiment names another to go on with, take that
    one, loudly.
    """
    fallback, encoder = config.text_encoder_fallback, config.model.get("text_encoder")
    if fallback is None or encoder is None or class_of(encoder).reachable(plain(encoder)):
        return
    path = config_dir() / "model" / "text_encoder" / f"{fallback}.yaml"
    if not path.is_file():
        raise UserError(f"text_encoder_fallback={fallback} is no choice of model/text_encoder.")
    log.warning(
        "WARNING: the weights of open_clip %s / %s cannot be reached, so a text tower trained from scratch (%s) "
        "takes their place; captions will be followed less well. To train with the real one, run once where the hub "
        "can be reached, or give model.text_encoder.pretrained=<file>.",
        encoder.model,
        encoder.pretrained,
        fallback,
    )
    config.model.text_encoder = OmegaConf.load(path)


def _settle_start(config: DictConfig) -> None:
    """The shape of the model, where the run starts from a UNet of diffusers."""
    folder = Path(config.init_from).expanduser()
    if is_a(config.model, Autoencoder):
        raise UserError(f"init_from={folder} is for text-to-image models, and this run trains an autoencoder: drop it.")
    if "teacher" in config.keys():  # noqa: SIM118 -- as above
        raise UserError(f"a student starts as its teacher, so init_from={folder} has no place here: drop one of them.")
    config.init_from = str(folder)
    model = started_from(plain(config)["model"], folder, typed=_typed())
    config.model = model
    log.info("starting from the UNet of %s: block_channels=%s", folder, model["backbone"]["block_channels"])


def _settle_teacher(config: DictConfig) -> None:
    """Which file the teacher is, and with it all that the student shares with it."""
    run = load_run(plain(config)["teacher"])
    config.teacher = str(run.checkpoint)
    config.model = student_of(run.config["model"], chosen=plain(config.model), origin=run.checkpoint)
    if config.teacher_guidance_scale is None:
        config.teacher_guidance_scale = run.config["guidance_scale"]


# ---------------------------------------------------------------------- several processes


def processes_wanted(trainer: DictConfig) -> int:
    """How many processes this machine should run and nobody has started: 1 under torchrun, SLURM or one device."""
    started = {"LOCAL_RANK", "SLURM_NTASKS", "TORCHELASTIC_RUN_ID"} & os.environ.keys()
    return 1 if started else processes_of(trainer)


def processes_of(trainer: DictConfig) -> int:
    """How many processes share the run on this machine, whoever starts them."""
    devices = trainer.devices
    if not str(trainer.get("strategy", "")).startswith(("ddp", "fsdp")):
        return 1
    if devices in ("auto", -1, "-1"):
        return max(1, torch.cuda.device_count())
    if isinstance(devices, str) and "," in devices:
        return len(devices.split(","))
    return int(devices) if isinstance(devices, int | str) else len(devices)


def launch(settings: dict[str, Any], run_dir: Path, processes: int) -> None:
    """Run the settled config in `processes` processes: none of them composes anything, so none can differ.

    Stop signals that reach this process are passed on, and it ends as they do.

    Raises:
        UserError: one of them failed.
    """
    saved = (run_dir / "launch.yaml").resolve()
    saved.parent.mkdir(parents=True, exist_ok=True)
    hydra: Any = OmegaConf.to_container(OmegaConf.load(config_dir() / "hydra" / "default.yaml"), resolve=False)
    hydra |= {"run": {"dir": str(run_dir)}, "output_subdir": None}
    saved.write_text(OmegaConf.to_yaml(OmegaConf.create({**verbatim(settings), "hydra": hydra})))
    log.info("starting %d processes from %s", processes, saved)
    os.environ[HELD_VARIABLE] = str(run_dir.resolve())
    os.environ.pop("HYDRA_FULL_ERROR", None)  # ours (cli.py)
    module = ["-m", "diffusion_art.train", "--config-path", str(saved.parent), "--config-name", saved.stem]
    try:
        torchrun(["--standalone", f"--nproc-per-node={processes}", *STOPPING, *module])
    except SignalException as error:
        raise SystemExit(exit_status(error.sigval)) from None
    except ChildFailedError as error:
        status = error.get_first_failure()[1].exitcode
        if stop_signal(status):
            raise SystemExit(status) from None
        raise UserError(
            f"the run of {processes} processes ended with status {status}; its messages are above."
        ) from None
    finally:
        del os.environ[HELD_VARIABLE]


# ---------------------------------------------------------------------- the command


def train(config: DictConfig) -> float | None:
    """One run. Returns the value of `optimized_metric`, for sweeps."""
    run_dir = _relative(Path(HydraConfig.get().runtime.output_dir))
    rank = getattr(rank_zero_only, "rank", 0)
    if rank != 0:
        logging.getLogger().setLevel(logging.WARNING)
    if run_dir.name.startswith(f"{config.run}-"):  # the name was taken (fresh_folder)
        config.run = run_dir.name
    with stop_request.heard(), errors_logged():
        try:
            with held(run_dir) if rank == 0 else nullcontext():
                return _train(config, run_dir)
        except Stopped as stopped:
            log.info("%s", _farewell(stopped, run_dir))
            raise


def _train(config: DictConfig, run_dir: Path) -> float | None:
    settings = settle(config, run_dir)
    processes = processes_wanted(config.trainer)
    checkpoint = checked_resume(settings["ckpt_path"], run_dir)
    if settings["find_batch_size"]:
        world = processes_of(config.trainer) * int(settings["trainer"].get("num_nodes", 1))
        settle_batch_size(settings, checkpoint=checkpoint, world=world)
    if checkpoint is not None and (done := steps_done(checkpoint)) >= (wanted := settings["trainer"]["max_steps"]):
        log.info("the run has done its %d steps; prolong it with trainer.max_steps=%d", done, max(2 * wanted, done + 1))
        return last_value(run_dir, settings["optimized_metric"])
    if processes > 1:
        launch(settings, run_dir, processes)
        return last_value(run_dir, settings["optimized_metric"])
    return _fit(settings, run_dir, checkpoint)


def _fit(settings: dict[str, Any], run_dir: Path, checkpoint: Path | None) -> float | None:
    quieten()
    torch.set_float32_matmul_precision("high")
    seed_everything(settings["seed"], workers=False, verbose=False)
    datamodule = build_datamodule(settings)
    module = build_module(settings, checkpoint=checkpoint)
    trainer = build_trainer(settings)
    log.info(
        "run: %s (%s, %s, %s trainable weights)",
        run_dir,
        trainer.strategy.root_device,
        settings["trainer"]["precision"],
        f"{sum(p.numel() for p in module.parameters() if p.requires_grad):,}",
    )
    if checkpoint is not None:
        log.info("resuming from %s", checkpoint)
    try:
        trainer.fit(module, datamodule=datamodule, ckpt_path=checkpoint, weights_only=True)
    except (RuntimeError, MemoryError, ValueError, MisconfigurationException) as error:
        if is_out_of_memory(error):
            saved = str(find_checkpoint(run_dir)) if any(run_dir.glob("checkpoints/*.ckpt")) else None
            raise out_of_memory(error, settings, world=trainer.world_size, saved=saved) from error
        if is_lightnings(error):
            raise refused(error) from error
        raise
    finally:
        datamodule.teardown()  # Lightning leaves the server of a run that failed
    if was_stopped(trainer):
        raise Stopped(stop_request.number or signal.SIGTERM)
    value = trainer.callback_metrics.get(settings["optimized_metric"])
    return None if value is None else float(value)


def last_value(run_dir: Path, metric: str) -> float | None:
    """The last value of a metric in the `metrics.csv` of a run, if there is one."""
    file = run_dir / "metrics.csv"
    if not file.exists():
        return None
    with file.open(newline="") as rows:
        values = [float(value) for row in csv.DictReader(rows) if (value := row.get(metric))]
    return values[-1] if values else None


def _farewell(stopped: Stopped, run_dir: Path) -> str:
    if not any(run_dir.glob("checkpoints/*.ckpt")):
        return f"{stopped.name}: stopped before the first step; nothing to go on from"
    step = steps_done(find_checkpoint(run_dir))
    return f"{stopped.name}: stopped at step {step}, which is saved; go on with: ckpt_path={run_dir}"


@contextmanager
def errors_logged() -> Iterator[None]:
    """The sentence that ends a run is kept in its train.log, not only on the screen."""
    try:
        yield
    except UserError as error:
        record = log.makeRecord(log.name, logging.ERROR, __file__, 0, "%s", (error,), None)
        for handler in logging.getLogger().handlers:
            if isinstance(handler, logging.FileHandler):
                handler.handle(record)
        raise


def _relative(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def quieten() -> None:
    """Hints of Lightning that do not hold here."""
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*This DataLoader will create.*")
    warnings.filterwarnings("ignore", message=".*`IterableDataset` has `__len__` defined.*")
    warnings.filterwarnings("ignore", message=".*exists and is not empty.*")
    warnings.filterwarnings("ignore", message=".*sync_dist=True.*")  # what we log there is reduced already
    warnings.filterwarnings("ignore", message=".*Dynamo detected a call to a `functools.lru_cache`.*")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*is deprecated.*")
    for name in ("utilities.rank_zero", "accelerators.cuda", "trainer.connectors.signal_connector"):
        logging.getLogger(f"lightning.pytorch.{name}").setLevel(logging.WARNING)


main = command("train")(train)

if __name__ == "__main__":
    main()
