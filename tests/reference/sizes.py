"""Model sizes, and the two config.json dialects that describe them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Sizes:
    """Every number that fixes a Janus-Pro network."""

    image: int
    patch: int
    vision_width: int
    vision_layers: int
    vision_heads: int
    vision_mlp_ratio: float
    vision_eps: float
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    rope_theta: float
    rms_eps: float
    max_positions: int
    aligner_depth: int
    gen_aligner_depth: int
    vq_base: int
    vq_multipliers: tuple[int, ...]
    vq_res_blocks: int
    vq_latent: int
    code_dim: int
    codes: int
    usage_buffer: int

    @property
    def vision_mlp(self) -> int:
        return int(self.vision_width * self.vision_mlp_ratio)

    @property
    def vision_tokens(self) -> int:
        return (self.image // self.patch) ** 2

    @property
    def grid(self) -> int:
        """Side of the square of image codes."""
        return self.image // 2 ** (len(self.vq_multipliers) - 1)


def _pro(hidden, intermediate, layers, heads) -> Sizes:
    """A published size: both share everything but the language model's width and depth."""
    return Sizes(
        image=384, patch=16, vision_width=1024, vision_layers=24, vision_heads=16,
        vision_mlp_ratio=4.0, vision_eps=1e-6,
        hidden=hidden, intermediate=intermediate, layers=layers, heads=heads, kv_heads=heads,
        head_dim=128, vocab=102400, rope_theta=10000.0, rms_eps=1e-6, max_positions=16384,
        aligner_depth=2, gen_aligner_depth=2,
        vq_base=128, vq_multipliers=(1, 1, 2, 2, 4), vq_res_blocks=2, vq_latent=256,
        code_dim=8, codes=16384, usage_buffer=65536,
    )


PRO_1B = _pro(2048, 5632, 24, 16)
PRO_7B = _pro(4096, 11008, 30, 32)

# Pictures and codes of the published size, everything else small: for timing training steps.
SMALL = Sizes(
    image=384, patch=16, vision_width=512, vision_layers=8, vision_heads=8,
    vision_mlp_ratio=4.0, vision_eps=1e-6,
    hidden=512, intermediate=1408, layers=8, heads=4, kv_heads=4, head_dim=128, vocab=32768,
    rope_theta=10000.0, rms_eps=1e-6, max_positions=4096,
    aligner_depth=2, gen_aligner_depth=2,
    vq_base=64, vq_multipliers=(1, 1, 2, 2, 4), vq_res_blocks=2, vq_latent=128,
    code_dim=8, codes=16384, usage_buffer=65536,
)

# The released layout in miniature: as many KV heads as heads, default constants.
TINY_PRO = Sizes(
    image=96, patch=8, vision_width=48, vision_layers=2, vision_heads=4,
    vision_mlp_ratio=4.0, vision_eps=1e-6,
    hidden=64, intermediate=176, layers=2, heads=4, kv_heads=4, head_dim=16, vocab=640,
    rope_theta=10000.0, rms_eps=1e-6, max_positions=2048,
    aligner_depth=2, gen_aligner_depth=2,
    vq_base=32, vq_multipliers=(1, 1, 1, 2), vq_res_blocks=2, vq_latent=32,
    code_dim=8, codes=128, usage_buffer=256,
)

# Every constant differs from the released one, so that a hard-coded value shows.
TINY_ODD = Sizes(
    image=96, patch=8, vision_width=40, vision_layers=3, vision_heads=5,
    vision_mlp_ratio=2.0, vision_eps=1e-5,
    hidden=48, intermediate=80, layers=3, heads=6, kv_heads=2, head_dim=12, vocab=640,
    rope_theta=5000.0, rms_eps=1e-5, max_positions=1024,
    aligner_depth=3, gen_aligner_depth=3,
    vq_base=32, vq_multipliers=(1, 1, 2, 1), vq_res_blocks=1, vq_latent=64,
    code_dim=4, codes=50, usage_buffer=256,
)


def _part(cls: str, model_type: str, **params) -> dict:
    return {"cls": cls, "model_type": model_type, "params": params}


def original_config(s: Sizes, explicit: bool) -> dict:
    """config.json as the original repositories write it.

    The original's class names imply sizes; `explicit` adds the overrides that
    a network of another size needs (an extension of this project).
    """
    vision = {
        "image_size": s.image, "model_name": "siglip_large_patch16_384",
        "select_feature": "same", "select_layer": -1,
    }
    vq = {"image_token_size": s.codes, "n_embed": s.code_dim}
    if explicit:
        vision |= {
            "patch_size": s.patch, "width": s.vision_width, "layers": s.vision_layers,
            "heads": s.vision_heads, "mlp_ratio": s.vision_mlp_ratio, "layer_norm_eps": s.vision_eps,
        }
        vq |= {
            "ch": s.vq_base, "encoder_ch_mult": list(s.vq_multipliers),
            "decoder_ch_mult": list(s.vq_multipliers),
            "z_channels": s.vq_latent, "num_res_blocks": s.vq_res_blocks,
        }
    config = {
        "aligner_config": _part(
            "MlpProjector", "aligner", depth=s.aligner_depth, input_dim=s.vision_width,
            n_embed=s.hidden, projector_type="mlp_gelu"),
        "gen_aligner_config": _part(
            "MlpProjector", "gen_aligner", depth=s.gen_aligner_depth, input_dim=s.code_dim,
            n_embed=s.hidden, projector_type="mlp_gelu"),
        "gen_head_config": _part(
            "vision_head", "gen_head", image_token_embed=s.hidden, image_token_size=s.codes, n_embed=s.hidden),
        "gen_vision_config": {"cls": "VQ-16", "model_type": "gen_vision", "params": vq},
        "language_config": _original_language_config(s),
        "model_type": "multi_modality",
        "torch_dtype": "bfloat16",
        "transformers_version": "4.33.1",
        "vision_config": {"cls": "CLIPVisionTower", "model_type": "vision", "params": vision},
    }
    if s != PRO_7B:  # only some published files name the class
        config["architectures"] = ["MultiModalityCausalLM"]
    return dict(sorted(config.items()))


def _original_language_config(s: Sizes) -> dict:
    """Language fields; like the published files it leaves out what equals LLaMA's defaults."""
    config = {
        "max_position_embeddings": s.max_positions, "model_type": "llama",
        "num_hidden_layers": s.layers, "torch_dtype": "bfloat16", "vocab_size": s.vocab,
    }
    if s == PRO_7B:
        return config
    config |= {
        "hidden_size": s.hidden, "intermediate_size": s.intermediate,
        "num_attention_heads": s.heads, "num_key_value_heads": s.kv_heads,
    }
    if s.head_dim * s.heads != s.hidden:
        config["head_dim"] = s.head_dim
    if s.rope_theta != 10000.0:
        config["rope_theta"] = s.rope_theta
    if s.rms_eps != 1e-6:
        config["rms_norm_eps"] = s.rms_eps
    return config


def hf_config(s: Sizes, ids: dict[str, int]):
    """The same network as a transformers configuration; `ids` are the special ids by role."""
    from transformers import JanusConfig, JanusVisionConfig, JanusVQVAEConfig, LlamaConfig

    text = LlamaConfig(
        vocab_size=s.vocab, hidden_size=s.hidden, intermediate_size=s.intermediate,
        num_hidden_layers=s.layers, num_attention_heads=s.heads, num_key_value_heads=s.kv_heads,
        head_dim=s.head_dim, hidden_act="silu", max_position_embeddings=s.max_positions,
        rms_norm_eps=s.rms_eps, tie_word_embeddings=False,
        rope_parameters={"rope_type": "default", "rope_theta": s.rope_theta},
        bos_token_id=ids["bos"], eos_token_id=ids["eos"], pad_token_id=ids["pad"],
    )
    vision = JanusVisionConfig(
        hidden_size=s.vision_width, num_hidden_layers=s.vision_layers,
        num_attention_heads=s.vision_heads, image_size=s.image, patch_size=s.patch,
        hidden_act="gelu", layer_norm_eps=s.vision_eps, mlp_ratio=s.vision_mlp_ratio,
        projection_dim=s.hidden, depth=s.aligner_depth, num_image_tokens=s.vision_tokens,
    )
    vq = JanusVQVAEConfig(
        embed_dim=s.code_dim, num_embeddings=s.codes, latent_channels=s.vq_latent,
        base_channels=s.vq_base, channel_multiplier=list(s.vq_multipliers),
        num_res_blocks=s.vq_res_blocks, num_patches=s.grid, projection_dim=s.hidden,
        num_hidden_layers=s.gen_aligner_depth, hidden_act="gelu", image_token_embed_dim=s.hidden,
    )
    # Tied embeddings are this class's default, and wrong for Janus-Pro.
    return JanusConfig(
        text_config=text, vision_config=vision, vq_config=vq,
        image_token_id=ids["image_placeholder"], tie_word_embeddings=False,
    )
