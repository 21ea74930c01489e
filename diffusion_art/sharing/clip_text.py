"""A text tower of open_clip as transformers' `CLIPTextModelWithProjection`, with the same weights."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from diffusion_art.errors import UserError
from diffusion_art.models.open_clip_weights import called
from diffusion_art.models.text_encoder import OpenClipPretrained

if TYPE_CHECKING:
    from transformers import CLIPTextModelWithProjection  # pyright: ignore[reportMissingImports]  -- of the extra [share]

ACTIVATIONS = {"GELU": "gelu", "QuickGELU": "quick_gelu"}
PARTS = {  # of a block, there and here
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
WHOLE = {
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
}


def clip_text_model(encoder: OpenClipPretrained) -> CLIPTextModelWithProjection:
    """transformers' own model. It answers `last_hidden_state`, token states, and `text_embeds`, the pooled vector.

    Raises:
        UserError: a tower that is not built like CLIP's.
    """
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection  # pyright: ignore[reportMissingImports]  -- of the extra [share]

    tower: Any = encoder.tower
    name = called(encoder.model, encoder.pretrained)
    block = tower.transformer.resblocks[0]
    activation = ACTIVATIONS.get(type(block.mlp.gelu).__name__)
    plain = tower.attn_mask is not None and tower.cls_emb is None and tower.pool_type in ("argmax", "eos")
    if not (plain and activation and isinstance(tower.text_projection, nn.Parameter)):
        raise UserError(f"the text tower of open_clip {name} is not built like CLIP's, {ADVICE}")
    tokenizer: Any = encoder.tokenizer
    bpe = tokenizer.bpe
    config = CLIPTextConfig(
        vocab_size=tower.vocab_size,
        hidden_size=tower.width,
        intermediate_size=block.mlp.c_fc.out_features,
        projection_dim=encoder.pooled_dim,
        num_hidden_layers=len(tower.transformer.resblocks),
        num_attention_heads=tower.heads,
        max_position_embeddings=tower.context_length,
        hidden_act=activation,
        layer_norm_eps=tower.ln_final.eps,
        bos_token_id=bpe.start_id,
        eos_token_id=bpe.end_id,
        pad_token_id=bpe.end_id,
    )
    model = CLIPTextModelWithProjection(config).eval()
    try:
        model.load_state_dict(converted(tower.state_dict()))
    except (KeyError, RuntimeError) as error:
        raise UserError(f"the text tower of open_clip {name} has other parts than CLIP's, {ADVICE}") from error
    return model


ADVICE = "and transformers has none of its kind: export it with format=file or format=onnx."


def converted(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights under transformers' names. KeyError for one that has none."""
    out: dict[str, Tensor] = {}
    for name, value in state.items():
        value = value.detach().float()
        found = re.fullmatch(r"transformer\.resblocks\.(\d+)\.(.+?)\.?(in_proj_weight|in_proj_bias|weight|bias)", name)
        if name == "text_projection":
            out["text_projection.weight"] = value.T.contiguous()
        elif found is None:
            out[WHOLE[name]] = value
        elif found[3].startswith("in_proj_"):
            layer, kind = f"text_model.encoder.layers.{found[1]}.self_attn", found[3].removeprefix("in_proj_")
            parts = zip("qkv", torch.chunk(value, 3), strict=True)
            out |= {f"{layer}.{letter}_proj.{kind}": part.contiguous() for letter, part in parts}
        else:
            out[f"text_model.encoder.layers.{found[1]}.{PARTS[found[2]]}.{found[3]}"] = value
    return out
