# ruff: noqa: C408 (they are arguments)
"""The backbones of KerasHub that read images, sound, or several kinds of inputs."""

from __future__ import annotations

from typing import Any

import keras
import keras_hub.models as hub
from hub_cases import GROUPED, HEADS, WORDS, case, simple
from keras_hub.src.models.gemma3n.gemma3n_audio_encoder import Gemma3nAudioEncoder
from keras_hub.src.models.rqvae.rqvae_backbone import RQVAEBackbone
from keras_hub.src.models.sam.sam_mask_decoder import SAMMaskDecoder
from keras_hub.src.models.sam.sam_prompt_encoder import SAMPromptEncoder
from keras_hub.src.models.vae.vae_backbone import VAEBackbone

_IMAGE = (32, 32, 3)
_FREE_IMAGE = (None, None, 3)
_VIT = dict(num_layers=2, num_heads=2, hidden_dim=16)
_RESNET = dict(
    input_conv_filters=[64], input_conv_kernel_sizes=[7], stackwise_num_filters=[64, 16, 24],
    stackwise_num_blocks=[1, 2, 1], stackwise_num_strides=[1, 2, 2], image_shape=_FREE_IMAGE,
)  # fmt: skip
_MIT = dict(
    layerwise_depths=[1, 2], hidden_dims=[4, 8], num_layers=2, layerwise_num_heads=[1, 2],
    layerwise_sr_ratios=[4, 2], max_drop_path_rate=0.1, layerwise_patch_sizes=[7, 3],
    layerwise_strides=[4, 2], image_shape=_IMAGE,
)  # fmt: skip
simple("CSPNetBackbone", stem_filters=8, stem_kernel_size=3, stem_strides=1,
        stackwise_strides=2, stackwise_depth=[1, 2], stackwise_num_filters=[8, 12],
        down_growth=True, bottle_ratio=(0.5, 1.0), block_ratio=(1.0, 0.5),
        expand_ratio=(2.0, 1.0), block_type="dark_block", stage_type="csp",
        stem_padding="same")  # fmt: skip
simple("DeiTBackbone", image_shape=_IMAGE, patch_size=8, **_VIT, intermediate_dim=24)
simple("DenseNetBackbone", stackwise_num_repeats=[1, 2, 1], growth_rate=4)
simple("DINOV2Backbone", patch_size=8, **_VIT, intermediate_dim=24, image_shape=_IMAGE,
        position_embedding_shape=(48, 48, 3))  # fmt: skip
simple("DINOV3Backbone", patch_size=8, **_VIT, intermediate_dim=24, image_shape=_IMAGE)
simple("EfficientNetBackbone", stackwise_kernel_sizes=[3, 3], stackwise_num_repeats=[1, 2],
        stackwise_input_filters=[8, 8], stackwise_output_filters=[8, 12],
        stackwise_expansion_ratios=[1, 4], stackwise_squeeze_and_excite_ratios=[0.0, 0.25],
        stackwise_strides=[1, 2], stackwise_block_types=["fused", "unfused"],
        stackwise_force_input_filters=[0] * 2, stackwise_nores_option=[False] * 2,
        width_coefficient=1.0, depth_coefficient=1.0)  # fmt: skip
simple("HGNetV2Backbone", depths=[1, 1], embedding_size=8, hidden_sizes=[16, 24],
        stem_channels=[3, 8, 8], hidden_act="relu", use_learnable_affine_block=True,
        stackwise_stage_filters=[[8, 8, 16, 1, 1, 3], [16, 8, 24, 1, 1, 3]],
        apply_downsample=[False, True], use_lightweight_conv_block=[False, True],
        out_features=["stem", "stage1", "stage2"])  # fmt: skip
simple("MiTBackbone", **_MIT)
simple(
    "MobileNetBackbone", stackwise_expansion=[[12], [16, 16]], stackwise_num_blocks=[1, 2],
    stackwise_num_filters=[[8], [12, 12]], stackwise_kernel_size=[[3], [5, 5]],
    stackwise_num_strides=[[2], [2, 1]], stackwise_se_ratio=[[None], [0.25, 0.25]],
    stackwise_activation=[["relu"], ["hard_swish"] * 2, ["hard_swish"]],
    stackwise_padding=[[1], [2, 2]], output_num_filters=24, depthwise_filters=8,
    depthwise_stride=2, depthwise_residual=False, squeeze_and_excite=0.5, last_layer_filter=16,
    image_shape=_IMAGE,
)  # fmt: skip
simple(
    "MobileNetV5Backbone", stackwise_block_types=[["er"], ["uir", "mqa"]],
    stackwise_num_blocks=[1, 2], stackwise_num_filters=[[8], [12, 12]],
    stackwise_strides=[[2], [2, 1]], stackwise_act_layers=[["relu"], ["relu", "relu"]],
    stackwise_exp_ratios=[[4.0], [4.0, 1.0]], stackwise_se_ratios=[[0.0], [0.0, 0.0]],
    stackwise_dw_kernel_sizes=[[0], [5, 3]], stackwise_dw_start_kernel_sizes=[[0], [0, 0]],
    stackwise_dw_end_kernel_sizes=[[0], [0, 0]], stackwise_exp_kernel_sizes=[[3], [0, 0]],
    stackwise_pw_kernel_sizes=[[1], [0, 0]], stackwise_num_heads=[[0], [0, 2]],
    stackwise_key_dims=[[0], [0, 4]], stackwise_value_dims=[[0], [0, 4]],
    stackwise_kv_strides=[[0], [0, 1]], stackwise_use_cpe=[[False], [False, False]],
    stem_size=8, use_msfa=False, image_shape=_IMAGE,
)  # fmt: skip
simple("ResNetBackbone", **_RESNET, block_type="bottleneck_block")
simple("ResNetBackbone 2", **_RESNET, block_type="basic_block", use_pre_activation=True)
simple("SwinTransformerBackbone", image_shape=_IMAGE, embed_dim=8, depths=(2, 2),
        num_heads=(2, 4), window_size=4)  # fmt: skip
simple("VGGBackbone", stackwise_num_repeats=[1, 2], stackwise_num_filters=[4, 8])
simple("ViTBackbone", image_shape=_IMAGE, patch_size=8, **_VIT, mlp_dim=24)
simple("ViTDetBackbone", image_shape=_IMAGE, patch_size=4, hidden_size=8, num_layers=2,
        global_attention_layer_indices=[1], intermediate_dim=16, num_heads=2,
        num_output_channels=4, window_size=4)  # fmt: skip
simple("XceptionBackbone", stackwise_conv_filters=[[8, 12], [16, 16]],
        stackwise_pooling=[True, False])  # fmt: skip
simple("VideoPrismBackbone", num_frames=4, patch_size=8, hidden_dim=16, intermediate_dim=24,
        num_heads=2, num_spatial_layers=1, num_temporal_layers=1, num_auxiliary_layers=1,
        image_shape=_IMAGE)  # fmt: skip
simple("VideoPrismBackbone text", num_frames=4, patch_size=8, hidden_dim=16,
        intermediate_dim=24, num_heads=2, num_spatial_layers=1, num_temporal_layers=1,
        num_auxiliary_layers=1, image_shape=_IMAGE, vocabulary_size=WORDS,
        num_text_layers=1)  # fmt: skip
simple("WhisperBackbone", **HEADS, num_mels=8, max_encoder_sequence_length=80,
        max_decoder_sequence_length=40)  # fmt: skip
simple("MoonshineBackbone", vocabulary_size=WORDS, filter_dim=16, encoder_num_layers=2,
        decoder_num_layers=2, hidden_dim=16, intermediate_dim=32, encoder_num_heads=2,
        decoder_num_heads=2)  # fmt: skip
simple("FluxBackbone", input_channels=8, hidden_size=32, mlp_ratio=2.0, num_heads=2, depth=1,
        depth_single_blocks=1, axes_dim=[4, 6, 6], theta=10_000, use_bias=True,
        guidance_embed=True, image_shape=(6, 8), text_shape=(5, 8), image_ids_shape=(6, 3),
        text_ids_shape=(5, 3), y_shape=(8,))  # fmt: skip
simple("PaliGemmaBackbone", **GROUPED, head_dim=4, image_size=16, vit_patch_size=8,
        vit_num_layers=1, vit_num_heads=2, vit_hidden_dim=8,
        vit_intermediate_dim=12)  # fmt: skip


@case("BASNetBackbone")
def _() -> keras.Model:
    encoder = hub.ResNetBackbone(
        **{**_RESNET, "stackwise_num_filters": [64] * 4, "stackwise_num_blocks": [1] * 4,
           "stackwise_num_strides": [1, 2, 2, 2]}, block_type="basic_block")  # fmt: skip
    return hub.BASNetBackbone(encoder, num_classes=1, image_shape=(64, 64, 3))


@case("BLIP2Backbone")
def _() -> keras.Model:
    vision = hub.BLIP2VisionEncoder(
        image_size=32, patch_size=8, **_VIT, intermediate_dim=24, use_patch_bias=True,
        use_class_token=True, use_mha_bias=True, use_mlp_bias=True, dropout_rate=0.0,
        layer_norm_epsilon=1e-6, initializer_range=0.02)  # fmt: skip
    former = hub.BLIP2QFormer(
        num_query_tokens=2, num_layers=2, num_heads=2, hidden_dim=8, intermediate_dim=12,
        vision_dim=16, cross_attention_frequency=1, dropout=0.0, layer_norm_epsilon=1e-6,
    )  # fmt: skip
    words = hub.BLIP2CustomOPT(
        vocabulary_size=WORDS, num_layers=2, num_heads=2, hidden_dim=8, intermediate_dim=12,
        num_query_tokens=2, qformer_hidden_dim=8, max_sequence_length=40, dropout=0.0,
        language_projection=None)  # fmt: skip
    return hub.BLIP2Backbone(vision, former, words)


def _pair(kind: str, **text: Any) -> tuple[Any, Any]:
    sizes = dict(hidden_dim=16, num_layers=2, num_heads=2, intermediate_dim=24)
    vision = getattr(hub, f"{kind}VisionEncoder")(
        patch_size=8, **sizes, image_shape=_IMAGE, name="vision_encoder"
    )
    words = getattr(hub, f"{kind}TextEncoder")(
        vocabulary_size=WORDS, embedding_dim=16, **sizes, **text, name="text_encoder"
    )
    return vision, words


@case("CLIPBackbone")
def _() -> keras.Model:
    return hub.CLIPBackbone(*_pair("CLIP", max_sequence_length=12), projection_dim=8)


@case("MetaCLIP2Backbone")
def _() -> keras.Model:
    return hub.MetaCLIP2Backbone(*_pair("MetaCLIP2", max_sequence_length=12), projection_dim=8)


@case("SigLIPBackbone")
def _() -> keras.Model:
    return hub.SigLIPBackbone(*_pair("SigLIP", max_sequence_length=12))


@case("DFineBackbone")
def _() -> keras.Model:
    backbone = hub.HGNetV2Backbone(
        depths=[1, 1], embedding_size=8, hidden_sizes=[16, 24], stem_channels=[3, 8, 8],
        hidden_act="relu", use_learnable_affine_block=True,
        stackwise_stage_filters=[[8, 8, 16, 1, 1, 3], [16, 8, 24, 1, 1, 3]],
        apply_downsample=[False, True], use_lightweight_conv_block=[False, False],
        out_features=["stage1", "stage2"])  # fmt: skip
    return hub.DFineBackbone(
        backbone=backbone, decoder_in_channels=[16, 16], encoder_hidden_dim=16, num_denoising=10,
        num_labels=4, hidden_dim=16, learn_initial_query=False, num_queries=10,
        anchor_image_size=(32, 32), feat_strides=[4, 8], num_feature_levels=2,
        encoder_in_channels=[16, 24], encode_proj_layers=[1], num_attention_heads=2,
        encoder_ffn_dim=24, num_encoder_layers=1, hidden_expansion=0.5, depth_multiplier=0.5,
        eval_idx=-1, num_decoder_layers=2, decoder_attention_heads=2, decoder_ffn_dim=24,
        decoder_n_points=[2, 2], lqe_hidden_dim=16, num_lqe_layers=2,
        out_features=["stage1", "stage2"], image_shape=_IMAGE, seed=0)  # fmt: skip


@case("DeepLabV3Backbone")
def _() -> keras.Model:
    encoder = hub.ResNetBackbone(**_RESNET, block_type="basic_block")
    return hub.DeepLabV3Backbone(
        encoder, spatial_pyramid_pooling_key="P4", upsampling_size=4, dilation_rates=[1, 2, 3],
        low_level_feature_key="P2", projection_filters=8, image_shape=(64, 64, 3))  # fmt: skip


@case("DepthAnythingBackbone")
def _() -> keras.Model:
    encoder = hub.DINOV2Backbone(
        patch_size=14, num_layers=4, hidden_dim=16, num_heads=2, intermediate_dim=24,
        image_shape=(126, 126, 3), apply_layernorm=True, name="image_encoder")  # fmt: skip
    return hub.DepthAnythingBackbone(
        encoder, reassemble_factors=[4, 2, 1, 0.5], neck_hidden_dims=[4, 8, 8, 8],
        fusion_hidden_dim=8, head_hidden_dim=4, head_in_index=-1,
        feature_keys=["stage1", "stage2", "stage3", "stage4"])  # fmt: skip


@case("Gemma3Backbone images")
def _() -> keras.Model:
    vision = hub.Gemma3VisionEncoder(
        image_size=16, patch_size=4, pool_size=2, num_layers=1, num_heads=2, hidden_dim=8,
        intermediate_dim=12, output_dim=16)  # fmt: skip
    return hub.Gemma3Backbone(**GROUPED, head_dim=4, image_size=16, vision_encoder=vision)


@case("Gemma3nBackbone text")
def _() -> keras.Model:
    return hub.Gemma3nBackbone(**_GEMMA3N)


@case("Gemma3nBackbone images and sound")
def _() -> keras.Model:
    from keras_hub.src.models.mobilenetv5.mobilenetv5_builder import convert_arch_def_to_stackwise

    vision = hub.MobileNetV5Backbone(
        **convert_arch_def_to_stackwise([["er_r1_k3_s1_e1_c8"]]), num_features=4,
        image_shape=_IMAGE, use_msfa=False)  # fmt: skip
    sound = Gemma3nAudioEncoder(
        hidden_size=4, input_feat_size=16, sscp_conv_channel_size=[2, 4],
        sscp_conv_kernel_size=[(1, 1), (1, 1)], sscp_conv_stride_size=[(2, 2), (2, 2)],
        sscp_conv_group_norm_eps=1e-5, num_hidden_layers=1, rms_norm_eps=1e-6,
        gradient_clipping=1.0, residual_weight=0.5, num_attention_heads=1,
        attention_chunk_size=2, num_attention_context_right=1, num_attention_context_left=1,
        attention_logit_cap=50.0, conv_kernel_size=3, reduction_factor=1)  # fmt: skip
    return hub.Gemma3nBackbone(
        **_GEMMA3N, vision_encoder_config=vision.get_config(), vision_hidden_size=8,
        audio_encoder_config=sound.get_config(), audio_hidden_size=4)  # fmt: skip


_GEMMA3N = dict(
    text_vocab_size=WORDS, text_hidden_size=8, num_hidden_layers=2, pad_token_id=0,
    num_attention_heads=2, num_key_value_heads=1, head_dim=4, intermediate_size=[12, 12],
    hidden_activation="gelu_approximate", layer_types=["sliding_attention", "full_attention"],
    sliding_window=4, rope_theta=10000.0, max_position_embeddings=16,
    vocab_size_per_layer_input=WORDS, hidden_size_per_layer_input=2, altup_num_inputs=2,
    laurel_rank=1,
)  # fmt: skip


@case("Gemma4Backbone images")
def _() -> keras.Model:
    vision = hub.Gemma4VisionEncoder(
        image_size=16, patch_size=4, pool_size=2, num_layers=1, num_heads=2, head_dim=4,
        num_key_value_heads=2, hidden_dim=8, intermediate_dim=12, output_dim=16)  # fmt: skip
    return hub.Gemma4Backbone(**GROUPED, head_dim=4, image_size=16, vision_encoder=vision)


@case("PARSeqBackbone")
def _() -> keras.Model:
    encoder = hub.ViTBackbone(
        image_shape=(16, 32, 3), patch_size=(4, 8), **_VIT, mlp_dim=24, use_class_token=False,
        name="image_encoder")  # fmt: skip
    return hub.PARSeqBackbone(
        encoder, vocabulary_size=WORDS, max_label_length=8, decoder_hidden_dim=16,
        num_decoder_layers=1, num_decoder_heads=2, decoder_mlp_dim=24)  # fmt: skip


@case("RetinaNetBackbone")
def _() -> keras.Model:
    encoder = hub.ResNetBackbone(
        **{**_RESNET, "stackwise_num_filters": [64, 8, 8, 8], "stackwise_num_blocks": [1] * 4,
           "stackwise_num_strides": [1, 2, 2, 2]}, block_type="bottleneck_block")  # fmt: skip
    return hub.RetinaNetBackbone(encoder, min_level=3, max_level=6, use_p5=True)


@case("SAMBackbone")
def _() -> keras.Model:
    encoder = hub.ViTDetBackbone(
        hidden_size=8, num_layers=2, intermediate_dim=16, num_heads=2,
        global_attention_layer_indices=[1], patch_size=16, num_output_channels=8, window_size=2,
        image_shape=(64, 64, 3))  # fmt: skip
    prompts = SAMPromptEncoder(
        hidden_size=8, image_embedding_size=(4, 4), input_image_size=(64, 64), mask_in_channels=8
    )
    masks = SAMMaskDecoder(
        num_layers=2, hidden_size=8, intermediate_dim=16, num_heads=2, embedding_dim=8,
        num_multimask_outputs=3, iou_head_depth=2, iou_head_hidden_dim=8)  # fmt: skip
    return hub.SAMBackbone(encoder, prompts, masks)


@case("SegFormerBackbone")
def _() -> keras.Model:
    return hub.SegFormerBackbone(hub.MiTBackbone(**_MIT), projection_filters=8)


def _vae(**rest: Any) -> keras.Model:
    return VAEBackbone([32] * 4, [1] * 4, [32] * 4, [1] * 4, sampler_method="mode", **rest)


@case("VAEBackbone")
def _() -> keras.Model:
    return _vae()


@case("StableDiffusion3Backbone")
def _() -> keras.Model:
    words = [
        hub.CLIPTextEncoder(WORDS, size, size, 2, 2, 24, activation, -2, name=name)
        for size, activation, name in ((16, "quick_gelu", "clip_l"), (24, "gelu", "clip_g"))
    ]
    return hub.StableDiffusion3Backbone(
        mmdit_patch_size=2, mmdit_hidden_dim=16, mmdit_num_layers=2, mmdit_num_heads=2,
        mmdit_position_size=192, mmdit_qk_norm=None, mmdit_dual_attention_indices=None,
        vae=_vae(name="vae"), clip_l=words[0], clip_g=words[1], image_shape=(64, 64, 3),
    )  # fmt: skip


@case("RQVAEBackbone")
def _() -> keras.Model:
    return RQVAEBackbone(
        input_dim=16, encoder_layer_dims=[12, 8], output_dim=8, decoder_layer_dims=[8, 12],
        num_embeddings=4, num_quantizers=2, decay=0.99, data_variance=1.0,
        commitment_cost=0.25)  # fmt: skip
