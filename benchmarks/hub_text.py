# ruff: noqa: C408 (they are arguments)
"""The backbones of KerasHub that read text."""

from __future__ import annotations

from hub_cases import GROUPED, HEADS, PLAIN, SHORT, WORDS, simple

_MOE = dict(moe_intermediate_dim=8, num_experts=4, top_k=2)
_MIXED_ATTENTION = dict(
    num_layers=4, layer_types=["linear_attention"] * 3 + ["full_attention"], head_dim=8,
    linear_num_key_heads=2, linear_num_value_heads=4, linear_key_head_dim=4,
    linear_value_head_dim=4,
)  # fmt: skip
_ENCODER_DECODER = dict(
    **{f"{side}_{name}": value for side in ("encoder", "decoder") for name, value in dict(
        hidden_dim=16, intermediate_dim=24, num_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=4,
        layer_types=["sliding_attention", "full_attention"],
    ).items()},
    vocabulary_size=WORDS, sliding_window=4, cross_attention_hidden_size=16,
    attn_logit_softcapping=50.0,
)  # fmt: skip
_SMOL = dict(
    vocabulary_size=WORDS, hidden_dim=16, intermediate_dim=24, num_layers=2,
    num_attention_heads=4, num_key_value_heads=2, attention_bias=False, attention_dropout=0.0,
    rope_layer_enabled_list=[True, False], layer_types=["attention", "attention"],
    mlp_bias=False, layer_norm_epsilon=1e-5, max_position_embeddings=40, rope_theta=1e4,
    partial_rotary_factor=1.0,
)  # fmt: skip

simple("AlbertBackbone", **HEADS, **SHORT, embedding_dim=8)
simple("BartBackbone", **HEADS, **SHORT)
simple("BertBackbone", **HEADS, **SHORT)
simple("BloomBackbone", **HEADS)
simple("DebertaV3Backbone", **HEADS, **SHORT, bucket_size=8)
simple("DistilBertBackbone", **HEADS, **SHORT)
simple("ESMBackbone", **HEADS, **SHORT)
simple("FNetBackbone", **PLAIN, **SHORT)
simple("FalconBackbone", **PLAIN, num_attention_heads=4)
simple("GPT2Backbone", **HEADS, **SHORT)
simple("GPTNeoXBackbone", **HEADS, **SHORT)
simple("OPTBackbone", **HEADS, **SHORT)
simple("RobertaBackbone", **HEADS, **SHORT)
simple("XLMRobertaBackbone", **HEADS, **SHORT)
simple("XLNetBackbone", **HEADS)
simple("RoformerV2Backbone", **HEADS, head_size=8)
simple("T5Backbone", **HEADS)
simple("GemmaBackbone", **GROUPED, head_dim=4)
simple(
    "GemmaBackbone 2", **GROUPED, head_dim=4, use_post_ffw_norm=True,
    use_post_attention_norm=True, attention_logit_soft_cap=50.0, final_logit_soft_cap=30.0,
    use_sliding_window_attention=True, sliding_window_size=4,
)  # fmt: skip
simple("Gemma3Backbone text", **GROUPED, head_dim=4, image_size=16, sliding_window_size=4,
        use_sliding_window_attention=True)  # fmt: skip
simple("Gemma4Backbone text", **GROUPED, head_dim=4, image_size=16, sliding_window_size=4)
simple("GptOssBackbone", **GROUPED, num_experts=2, top_k=2, sliding_window=4)
simple("LlamaBackbone", **GROUPED)
simple("Llama3Backbone", **GROUPED, rope_frequency_adjustment_factor=8.0,
        rope_low_freq_factor=1.0, rope_high_freq_factor=4.0,
        rope_pretraining_sequence_length=16)  # fmt: skip
simple("MistralBackbone", **GROUPED, sliding_window=4)
simple("MixtralBackbone", **GROUPED, num_experts=3, top_k=2, sliding_window=4)
simple("Phi3Backbone", **GROUPED)
simple("Phi3Backbone su", **GROUPED, max_sequence_length=40, pretraining_sequence_length=5,
        rope_scaling_type="su", rope_scaling_short_factor=[1.2, 1.4],
        rope_scaling_long_factor=[0.8, 0.6])  # fmt: skip
simple("QwenBackbone", **GROUPED)
simple("QwenMoeBackbone", **GROUPED, **_MOE, shared_expert_intermediate_dim=8)
simple("Qwen3Backbone", **GROUPED, head_dim=4)
simple("Qwen3MoeBackbone", **GROUPED, **_MOE, head_dim=4)
simple("Qwen3_5Backbone", **{**GROUPED, **_MIXED_ATTENTION})
simple(
    "Qwen3_5MoeBackbone", **{k: v for k, v in GROUPED.items() if k != "intermediate_dim"}
    | _MIXED_ATTENTION, **_MOE, shared_expert_intermediate_size=8,
)  # fmt: skip
simple("RWKV7Backbone", hidden_size=16, head_size=4, num_layers=2, vocabulary_size=WORDS,
        intermediate_dim=24, gate_lora=8, mv_lora=4, aaa_lora=4, decay_lora=4)  # fmt: skip
simple("SmolLM3Backbone", **_SMOL)
simple("T5GemmaBackbone", **_ENCODER_DECODER)
simple("T5Gemma2Backbone", **_ENCODER_DECODER)
simple("ElectraBackbone", vocab_size=WORDS, num_layers=2, num_heads=2, hidden_dim=16,
        embedding_dim=8, intermediate_dim=24, **SHORT)  # fmt: skip
simple("EdRecBackbone", vocab_size=WORDS, num_layers_enc=2, num_layers_dec=2, hidden_dim=16,
        intermediate_dim=24, num_heads=2)  # fmt: skip
