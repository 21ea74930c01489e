"""What other trainers and painters call keys and choices, and what may stand for them here."""

from __future__ import annotations

# what they call a key, and what may stand for it, in the command that has it
ELSEWHERE = {
    **dict.fromkeys(("batch_size", "train_batch_size"), ("data.global_batch_size",)),
    **dict.fromkeys(("lr", "learning_rate", "unet_lr"), ("optim.lr",)),
    **dict.fromkeys(("optimizer", "optimizer_type"), ("optim",)),
    **dict.fromkeys(("weight_decay", "adam_weight_decay"), ("optim.weight_decay",)),
    **dict.fromkeys(("lr_scheduler", "scheduler"), ("lr_schedule",)),
    **dict.fromkeys(("lr_warmup_steps", "warmup"), ("lr_schedule.warmup_steps",)),
    **dict.fromkeys(("max_steps", "max_train_steps", "num_train_steps", "iterations"), ("trainer.max_steps",)),
    **dict.fromkeys(("max_epochs", "max_train_epochs", "num_train_epochs", "num_epochs"), ("trainer.max_epochs",)),
    **dict.fromkeys(("epochs",), ("trainer.max_epochs",)),
    **dict.fromkeys(("gpus", "num_gpus", "num_processes"), ("trainer.devices",)),
    **dict.fromkeys(("resolution", "image_size", "img_size"), ("data.image_size_px", "image_size_px", "size")),
    **dict.fromkeys(("width", "height"), ("data.image_size_px", "size")),
    **dict.fromkeys(("train_data_dir", "dataset_name", "dataset", "dataset_path"), ("data.path", "source.path")),
    **dict.fromkeys(("num_workers", "dataloader_num_workers", "max_data_loader_n_workers"), ("data.num_workers",)),
    **dict.fromkeys(("prompt", "validation_prompt", "validation_prompts", "sample_prompts"), ("prompts",)),
    **dict.fromkeys(("num_inference_steps", "ddim_steps"), ("num_steps", "sampler.num_steps")),
    **dict.fromkeys(("cfg_scale", "cfg", "scale"), ("guidance_scale",)),
    **dict.fromkeys(("n", "n_samples", "n_iter", "num_images", "num_images_per_prompt", "batch_count"), ("count",)),
    **dict.fromkeys(("output_dir", "outdir", "output", "save_dir"), ("out", "paths.log_dir", "path")),
    **dict.fromkeys(("ckpt_path", "ckpt", "resume", "resume_from", "resume_from_checkpoint"), ("ckpt_path", "run")),
    **dict.fromkeys(("checkpoint", "checkpoint_path", "model_path", "run_dir"), ("ckpt_path", "run")),
    **dict.fromkeys(("checkpointing_steps", "every_n_train_steps"), ("callbacks.checkpoints.every_n_steps",)),
    **dict.fromkeys(("checkpoints_total_limit", "save_total_limit"), ("callbacks.checkpoints.keep_last",)),
    **dict.fromkeys(("accumulate_grad_batches", "gradient_accumulation_steps"), ("trainer.accumulate_grad_batches",)),
    **dict.fromkeys(("gradient_clip_val", "max_grad_norm"), ("trainer.gradient_clip_val",)),
    **dict.fromkeys(("precision", "mixed_precision"), ("trainer.precision",)),
    **dict.fromkeys(("auto_scale_batch_size", "auto_find_batch_size"), ("find_batch_size",)),
    **dict.fromkeys(("report_to", "wandb", "use_wandb", "tensorboard", "mlflow"), ("logger",)),
    **dict.fromkeys(("std", "outstd", "ema_std"), ("sigma_rel",)),
    "steps": ("num_steps", "trainer.max_steps"),
    "ema_decay": ("ema.decay",),
    "save_top_k": ("callbacks.checkpoints.keep_best",),
    "progress_bar_refresh_rate": ("callbacks.progress.refresh_rate",),
    "task_name": ("name",),
}

# what they call a choice of a group of files, in lower case and without `_` and `-`, and what to say of it
CHOICES: dict[str, dict[str, str]] = {
    "lr_schedule": {
        "constantwithwarmup": "`constant` is it, and warms up over lr_schedule.warmup_steps",
        "none": "lr_schedule=constant lr_schedule.warmup_steps=0 leaves the rate as it is",
        "polynomial": "`linear` is that of power 1",
        "cosinewithrestarts": "`cosine` falls once, without restarts",
        "cosineannealingwarmrestarts": "`cosine` falls once, without restarts",
        **dict.fromkeys(("cosineannealing", "cosineannealinglr", "cosinewithwarmup"), "`cosine` is it"),
        **dict.fromkeys(("reducelronplateau", "reduceonplateau"), "`plateau` is it"),
        **dict.fromkeys(("warmupstabledecay", "trapezoidal"), "`wsd` is it"),
    },
    "optim": {
        "adam": "optim=adamw optim.weight_decay=0 is Adam",
        **dict.fromkeys(("adamw8bit", "adam8bit", "pagedadamw8bit"), "`adamw` keeps its moments in 32 bits"),
        **dict.fromkeys(("prodigy", "dadaptadam", "dadaptation"), "none finds its rate by itself, optim.lr gives it"),
    },
    "ema": dict.fromkeys(("none", "off", "no", "false"), "ema.decay=0 is without averages"),
    "logger": {
        **dict.fromkeys(("none", "off", "no", "false"), "~logger is without any"),
        **dict.fromkeys(("tb", "tensorboardlogger"), "`tensorboard` is it"),
        "wandblogger": "`wandb` is it",
        "manyloggers": "logger=[wandb,tensorboard] is several",
    },
    "callbacks": dict.fromkeys(("none", "off", "no", "false"), "~callbacks is without any"),
    "trainer": {
        **dict.fromkeys(("ddpsim", "ddpspawn", "ddpcpu"), "trainer=ddp trainer.accelerator=cpu is several processes"),
        **dict.fromkeys(("fdr", "fastdevrun"), "trainer.fast_dev_run=true is it"),
        **dict.fromkeys(("deepspeed", "fsdp2"), "`fsdp` shares weights out among processes"),
        "cuda": "`gpu` is it",
    },
    "debug": dict.fromkeys(("fdr", "default", "fastdevrun"), "`one_batch` is it"),
    "data": dict.fromkeys(("imagefolder", "folder", "custom"), "data.path=FOLDER takes pictures of your own"),
    "model": {
        **dict.fromkeys(("unet", "unet2d"), "model/backbone=unet_small chooses the network"),
        **dict.fromkeys(("dit", "jit"), "model/backbone=jit_small chooses the network"),
        "vae": "`autoencoder` is it",
    },
    "model/backbone": dict.fromkeys(("dit", "sit", "uvit", "transformer"), "those called `jit_` are transformers"),
}


def choice(group: str, name: str) -> str | None:
    """What to say of a choice of `group` that others know by `name`; None where that tells nothing."""
    return CHOICES.get(group, {}).get(name.lower().replace("_", "").replace("-", ""))
