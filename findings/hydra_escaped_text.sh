#!/usr/bin/env bash
# hydra-core 1.3.8, omegaconf 2.3.1: `hydra.utils.instantiate` resolves a config and then reads what it resolved again.
# One would guess that text with an escaped `\${name}` reaches the object as the text `${name}`, as `OmegaConf.to_container`
# gives it. It is interpolated: with a key `name` in sight its value is put in, without one an error names a key that is
# no key of the config. Text escaped twice arrives as it was meant.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check hydra-core==1.3.8 omegaconf==2.3.1
"$work/venv/bin/python" - <<'PY'
from hydra.utils import instantiate
from omegaconf import OmegaConf

once = OmegaConf.create({"_target_": "builtins.dict", "text": r"\${name}", "name": "Monet"})
assert OmegaConf.to_container(once, resolve=True)["text"] == "${name}"
given = instantiate(once)["text"]
print(f"escaped once, omegaconf says ${{name}}, instantiate gives: {given}")
assert given == "Monet", given
twice = OmegaConf.create({"_target_": "builtins.dict", "text": r"\\\${name}", "name": "Monet"})
print("escaped twice:", instantiate(twice)["text"])
assert instantiate(twice)["text"] == "${name}"
PY
