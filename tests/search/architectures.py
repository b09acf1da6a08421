"""How much of known architectures is masked: of transformers' and timm's, as the libraries build them, without data.

    python -m tests.search.architectures        prints the table of docs/models-and-data.md
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import nn

from popup.errors import UsageError
from popup.search.held import refuse_held
from popup.search.trial import refuse_unfaithful
from popup.source.frozen import left_out
from popup.source.layers import find_layers

LANGUAGE = {"vocab_size": 60, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
SMALL = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, **LANGUAGE}
CAUSAL = {**SMALL, "num_key_value_heads": 2, "max_position_embeddings": 32}
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}


@dataclass(frozen=True)
class Architecture:
    """A model of transformers: its class, its config's, and the settings that make it tiny. `inputs`: what it is called with,
    by name, of 2 examples."""

    model: str
    config: str
    tiny: dict
    inputs: tuple[str, ...] = ("input_ids",)

    def settled(self, tied: bool | None, tiny: bool = True) -> object:
        """Its config object; `tied`: whether the head is the embedding, None: as the library has it."""
        import transformers

        config = getattr(transformers, self.config)(**(self.tiny if tiny else {}))
        if tied is not None:
            config.tie_word_embeddings = tied
        return config

    def build(self, tied: bool | None = None, tiny: bool = True) -> nn.Module:
        """The network, in evaluation mode, its dropout being what the config says."""
        import transformers

        return getattr(transformers, self.model)(self.settled(tied, tiny)).eval()


MODELS = {
    "GPT-2": Architecture("GPT2LMHeadModel", "GPT2Config", {
        "n_layer": 4, "n_embd": 128, "n_head": 4, "n_positions": 32, **LANGUAGE}),
    "Llama": Architecture("LlamaForCausalLM", "LlamaConfig", CAUSAL),
    "Mixtral": Architecture("MixtralForCausalLM", "MixtralConfig", {**CAUSAL, **EXPERTS}),
    "Qwen2-MoE": Architecture("Qwen2MoeForCausalLM", "Qwen2MoeConfig", {
        **CAUSAL, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 8, "shared_expert_intermediate_size": 8}),
    "GPT-OSS": Architecture("GptOssForCausalLM", "GptOssConfig", {**CAUSAL, **EXPERTS, "head_dim": 8, "sliding_window": 8}),
    "JetMoe": Architecture("JetMoeForCausalLM", "JetMoeConfig", {**CAUSAL, **EXPERTS, "kv_channels": 8}),
    "BERT": Architecture("BertForMaskedLM", "BertConfig", {**SMALL, "max_position_embeddings": 32}),
    "ALBERT": Architecture("AlbertForMaskedLM", "AlbertConfig", {**SMALL, "embedding_size": 8, "max_position_embeddings": 32}),
    "T5": Architecture("T5ForConditionalGeneration", "T5Config", {
        "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2, "decoder_start_token_id": 0, **LANGUAGE},
        ("input_ids", "decoder_input_ids")),
    "Mamba": Architecture("MambaForCausalLM", "MambaConfig", {
        "hidden_size": 16, "num_hidden_layers": 2, "state_size": 4, **LANGUAGE}),
    "Mamba-2": Architecture("Mamba2ForCausalLM", "Mamba2Config", {
        "hidden_size": 16, "num_hidden_layers": 2, "state_size": 4, "num_heads": 4, "head_dim": 8, "n_groups": 1, **LANGUAGE}),
    "ViT": Architecture("ViTForImageClassification", "ViTConfig", {
        **SMALL, "image_size": 16, "patch_size": 8, "num_labels": 3}, ("pixel_values",)),
    "Whisper's encoder": Architecture("WhisperForAudioClassification", "WhisperConfig", {
        "d_model": 16, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_layers": 1,
        "decoder_attention_heads": 2, "decoder_ffn_dim": 32, "num_mel_bins": 8, "max_source_positions": 16, "num_labels": 3,
        "classifier_proj_size": 8, "decoder_start_token_id": 1, **LANGUAGE}, ("input_features",)),
}
TIMM = [
    "beit_base_patch16_224", "cait_xxs24_224", "coat_tiny", "convit_tiny", "convnext_tiny", "crossvit_tiny_240",
    "deit3_small_patch16_224", "densenet121", "dm_nfnet_f0", "edgenext_small", "efficientformer_l1",
    "efficientnet_b0", "efficientnet_cc_b0_4e", "efficientvit_b0", "eva02_tiny_patch14_224", "fastvit_t8",
    "ghostnet_100", "hrnet_w18", "levit_128", "maxvit_tiny_rw_224", "mixer_s16_224", "mobilenetv3_large_100",
    "mobilevit_s", "mvitv2_tiny", "nf_resnet50", "poolformer_s12", "pvt_v2_b0", "regnetx_002", "repvgg_a0",
    "resmlp_12_224", "resnet50", "resnetv2_50x1_bit", "sequencer2d_s", "swin_tiny_patch4_window7_224",
    "tf_efficientnetv2_s", "vit_base_patch16_224", "vit_base_r50_s16_224", "xcit_nano_12_p16_224"
]


@dataclass(frozen=True)
class Row:
    """What is masked of a network: of all its weights, and of those outside embeddings. `refused`: what attach says."""

    share: float
    outside: float
    refused: str = ""


def row(net: nn.Module) -> Row:
    """What attach would say of a network that may be on "meta"; nothing is drawn."""
    try:
        layers = find_layers(net)
        refuse_held(net, layers), refuse_unfaithful(net, layers)
    except UsageError as error:
        return Row(0.0, 0.0, str(error))
    masked, dense = sum(layer.entries for layer in layers), sum(left_out(net, layers).values())
    tables = {id(table): table.numel() for module in net.modules() if isinstance(module, nn.Embedding)
              for table in module.parameters(recurse=False)}
    return Row(masked / (masked + dense), masked / (masked + dense - sum(tables.values())))


def transformers_row(name: str) -> tuple[Row, bool]:
    """The row of a model with transformers' own settings, and whether its head had to be untied for it."""
    found = row(_without_data(lambda: MODELS[name].build(tiny=False)))
    if "tie_word_embeddings" not in found.refused:
        return found, False
    return row(_without_data(lambda: MODELS[name].build(tied=False, tiny=False))), True


def timm_row(name: str) -> Row:
    """The row of a model of timm's."""
    import timm

    return row(_without_data(lambda: timm.create_model(name)))


def _without_data(build: Callable[[], nn.Module]) -> nn.Module:
    """What `build` builds, on "meta"."""
    with torch.device("meta"):
        return build()


def line(name: str, found: Row, untied: bool = False) -> str:
    """A row as the document has it."""
    if found.refused:
        layer, reason = found.refused.split(" ", 1)
        return f"| {name} | refused | | `{layer}` {reason.split(' in ')[0].split(',')[0]} |"
    return f"| {name} | {found.share:.1%} | {found.outside:.1%} | {'head untied' if untied else ''} |"


def table() -> Iterator[str]:
    """The lines of the whole table."""
    yield from ("| architecture | masked | outside embeddings | |", "|---|---|---|---|")
    yield from (line(name, *transformers_row(name)) for name in MODELS)
    yield from (line(name, timm_row(name)) for name in TIMM)


if __name__ == "__main__":
    for each in table():
        print(each, flush=True)
