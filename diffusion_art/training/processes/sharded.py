"""Training whose weights, gradients, optimiser and averages are shared out among the processes (FSDP2).

Each block of the network is gathered when it computes and let go after it. What lies outside of the blocks is one more
share. For grids and validation the averaged weights are gathered once, as a whole, and no process waits in them for
another.

Paper: Zhao et al. 2023, PyTorch FSDP, https://arxiv.org/abs/2304.11277
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.strategies import ModelParallelStrategy, StrategyRegistry
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.optim import Optimizer

from diffusion_art.accel.shares import is_shared, share_of
from diffusion_art.checkpoints import read_checkpoint
from diffusion_art.errors import UserError
from diffusion_art.models.clip_to_train import TrainableClip
from diffusion_art.shared_checkpoint import write_shared, written_file
from diffusion_art.training.run.resume import go_on_from

NAME = "fsdp2"  # of the strategy


class ShardedStrategy(ModelParallelStrategy):
    """One data-parallel group of all processes. A checkpoint is a folder, of which each process writes its share."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(tensor_parallel_size=1, **settings)

    def setup_environment(self) -> None:
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    @property
    def shared_by(self) -> DeviceMesh:
        """The processes that have shares."""
        return self.device_mesh["data_parallel"]

    def share_out(self, step: Any, *, compiled: Any) -> None:
        """The weights of a training step.

        Raises:
            UserError: a model compiled as a whole, or one that has a weight of a single number.
        """
        if compiled == "whole":
            raise UserError("compile=whole makes one graph of what is gathered block by block: take compile=true.")
        if isinstance(step.model, TrainableClip):
            raise UserError(
                "trainer=fsdp shares each weight out among the processes, and one of a CLIP's is a single number: take "
                "trainer=ddp."
            )
        shard(step, list(step.model.shards), self.shared_by)

    @property
    def lightning_restore_optimizer(self) -> bool:
        return True

    def lightning_module_state_dict(self) -> dict[str, Any]:
        assert self.lightning_module is not None
        return self.lightning_module.state_dict()

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        assert self.lightning_module is not None
        self.lightning_module.load_state_dict(checkpoint["state_dict"], strict=strict)

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        return getattr(optimizer, "_optimizer", optimizer).state_dict()

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        for optimizer, saved in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            optimizer.load_state_dict(shared_out(saved, optimizer))

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        write_shared(Path(self.broadcast(str(filepath))), checkpoint, first=self.is_global_zero, wait=self.barrier)

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        return read_checkpoint(checkpoint_path)

    def remove_checkpoint(self, filepath: Any) -> None:
        raise NotImplementedError("callbacks/checkpoint.py removes them")


class FoldersToo(TorchCheckpointIO):
    """Writes a checkpoint beside the one whose place it takes, so that a kill leaves one of them whole: Lightning's own
    goes through $TMPDIR, and where that is another disk, copies over it. Other strategies go on from a folder of
    checkpoints that shares were written to, too.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        if storage_options is not None:
            raise TypeError("a checkpoint is written to a disk, which has no storage_options")
        try:
            with written_file(Path(path)) as partial, partial.open("wb") as file:
                torch.save(checkpoint, file)
        except (OSError, RuntimeError) as error:  # torch finds, in a file that the disk cut short, a fault of its own
            cause = error.__context__ if isinstance(error, RuntimeError) else error
            if not isinstance(cause, OSError):
                raise
            told = f"{path} cannot be written: {cause.strerror}. {go_on_from(Path(path).parent.parent)}"
            raise UserError(told) from error

    def load_checkpoint(self, path: Any, *args: Any, **kwargs: Any) -> Any:
        return read_checkpoint(path) if Path(path).is_dir() else super().load_checkpoint(path, *args, **kwargs)


StrategyRegistry.register(NAME, ShardedStrategy, description="FSDP2: each process holds a share of all states")


def shared_out(saved: Mapping[str, Any], optimizer: Optimizer) -> dict[str, Any]:
    """The state of an optimiser, saved by any number of processes, as shares of its parameters."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]

    def share(value: Any, p: torch.Tensor) -> Any:
        fits = isinstance(value, torch.Tensor) and value.shape == p.shape and is_shared(p)
        return share_of(value, p) if fits else value

    state = {
        index: {name: share(value, parameters[index]) for name, value in of.items()}
        for index, of in saved["state"].items()
    }
    return {**saved, "state": state}


def shard(root: nn.Module, blocks: list[nn.Module], mesh: DeviceMesh) -> None:
    """Share out all weights in `root`, which is what is called in training; each of `blocks` is gathered by itself.

    A block that is compiled is gathered with the rest: compiled code does not run the hooks that gather it.
    """
    for parameter in root.parameters():  # FSDP takes no other memory format
        parameter.data = parameter.data.contiguous()
    for block in blocks:
        if getattr(block, "_compiled_call_impl", None) is None:
            fully_shard(block, mesh=mesh, reshard_after_forward=True)
    fully_shard(root, mesh=mesh, reshard_after_forward=False)  # its backward pass comes next
    _parts(root)[0]._get_fsdp_state()._lazy_init()  # else the first block that a grid calls would become the root


@contextmanager
def whole(root: nn.Module) -> Iterator[None]:
    """Inside the block every process holds all weights. All have to enter it, and to leave it."""
    parts = _parts(root)
    for part in parts:
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()
    try:
        yield
    finally:
        for part in parts:
            part.set_reshard_after_forward(part is not root, recurse=False)
        # shares again; and forward passes of one process alone are forgotten, or its next backward pass would prefetch
        # in another order than the others'
        parts[0].reset_iter_state()


def _parts(root: nn.Module) -> list[FSDPModule]:
    return [module for module in root.modules() if isinstance(module, FSDPModule)]
