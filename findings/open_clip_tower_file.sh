#!/usr/bin/env bash
# open_clip_torch 3.3.0, torch 2.14.1: `create_model(..., pretrained_image_path=FILE)` takes weights for the image tower alone. One would guess
# that a file whose weights do not fit is an error, as it is for `pretrained=FILE`. It is a line in the log: given a file of the
# whole model, as training saves it, the call returns an image tower at random. `pretrained=FILE` reads the same file whole.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 torchvision==0.29.1 open_clip_torch==3.3.0
HF_HUB_OFFLINE=1 "$work/venv/bin/python" - "$work" <<'PY'
import json
import logging
import sys
from pathlib import Path

import open_clip
import torch

work = Path(sys.argv[1])
config = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1},
}
(work / "tiny.json").write_text(json.dumps(config))
open_clip.add_model_config(work / "tiny.json")

torch.manual_seed(0)
trained = open_clip.create_model("tiny")
torch.save(trained.state_dict(), work / "trained.pt")

said = []
listener = logging.Handler()
listener.emit = lambda record: said.append(record.getMessage())
logging.getLogger().addHandler(listener)

torch.manual_seed(1)
tower = open_clip.create_model("tiny", pretrained_image_path=str(work / "trained.pt"))
whole = open_clip.create_model("tiny", pretrained=str(work / "trained.pt"))
wanted = trained.visual.conv1.weight
told = [line.split(" from ")[0] for line in said if "Error loading image tower weights" in line]
print("pretrained_image_path: equal weights:", torch.equal(tower.visual.conv1.weight, wanted), "log:", told)
print("pretrained: equal weights:", torch.equal(whole.visual.conv1.weight, wanted))
if torch.equal(tower.visual.conv1.weight, wanted) or not told or not torch.equal(whole.visual.conv1.weight, wanted):
    raise SystemExit("the behaviour has changed")
PY
