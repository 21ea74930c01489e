"""The processes of a run on this machine: how many, and starting them where no launcher did."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.strategies import Strategy
from omegaconf import OmegaConf
from torch.distributed import PrefixStore  # pyright: ignore[reportPrivateImportUsage] -- documented there
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main as torchrun

from diffusion_art.config import shipped, verbatim
from diffusion_art.errors import UserError
from diffusion_art.stop_signals import SIGNALS, exit_status, stop_signal
from diffusion_art.training.processes.peers import Lost, processes_started, said_of
from diffusion_art.training.run.resume import agreed, go_on_from, launchers_store
from diffusion_art.training.run.run_folder import HELD_VARIABLE

log = logging.getLogger(__name__)

STOPPING = (  # options of torchrun: who stops the run waits for its checkpoint
    f"--signals_to_handle=SIGHUP,SIGQUIT,{','.join(signal.Signals(number).name for number in SIGNALS)}",
    "--shutdown_timeout=600",
)


def processes_wanted(trainer: Mapping[str, Any]) -> int:
    """How many processes this machine should run and nobody has started: 1 under torchrun, SLURM or one device."""
    started = {"LOCAL_RANK", "SLURM_NTASKS", "TORCHELASTIC_RUN_ID"} & os.environ.keys()
    return 1 if started else processes_of(trainer)


def check_processes(trainer: Mapping[str, Any]) -> None:
    """UserError where a launcher started other processes here than the run is for; Lightning would not see it."""
    started, wanted = processes_started(), processes_of(trainer)
    if started in (None, wanted):
        return
    were = "1 process was" if started == 1 else f"{started} processes were"
    group = "" if wanted > 1 or started == 1 else "trainer=ddp "
    raise UserError(
        f"{were} started on this machine, and trainer.devices={trainer['devices']}: give {group}"
        f"trainer.devices={started}."
    )


def processes_of(trainer: Mapping[str, Any]) -> int:
    """How many processes share the run on this machine, however they are started."""
    devices = trainer["devices"]
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
    hydra = shipped("hydra/default") | {"run": {"dir": str(run_dir)}, "output_subdir": None}
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
        raise ended(error, processes=processes, run_dir=run_dir) from None
    finally:
        del os.environ[HELD_VARIABLE]


def ended(error: ChildFailedError, *, processes: int, run_dir: Path) -> SystemExit | UserError:
    """How a run ends whose processes failed. One that was killed is the reason, since the others end for its sake."""
    first = min(each.timestamp for each in error.failures.values())  # in seconds; the last ones torchrun itself kills
    failed = [(rank, each.exitcode) for rank, each in error.failures.items() if each.timestamp == first]
    killed = next((each for each in failed if each[1] < 0 and not stop_signal(each[1])), None)
    if killed is not None:
        why = f"it was killed by {signal.Signals(-killed[1]).name}"
        return UserError(said_of(Lost(killed[0], why), world=processes, go_on=go_on_from(run_dir)))
    status = error.get_first_failure()[1].exitcode
    if stop_signal(status):
        return SystemExit(status)
    return UserError(f"the run of {processes} processes ended with status {status}; its messages are above.")


def join_again(strategy: Strategy) -> None:
    """Make the process group of a run that torchrun starts again, before Lightning would.

    torchrun 2.14 keeps its store between attempts, and gloo finds the addresses of dead processes in it, so each
    attempt has a part of the store for itself.
    """
    alone = os.environ.get("LOCAL_WORLD_SIZE") == os.environ.get("WORLD_SIZE")
    again = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"
    if (alone and not again) or torch.distributed.is_initialized() or (store := launchers_store()) is None:
        return
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    on_gpu = strategy.root_device.type == "cuda"
    torch.distributed.init_process_group(
        "nccl" if on_gpu else "gloo",
        store=PrefixStore(agreed(store, rank=rank, world_size=world_size), store),
        rank=rank,
        world_size=world_size,
        device_id=strategy.root_device if on_gpu else None,
    )
