# SPDX-License-Identifier: MIT
"""Writes the trained model as llama.cpp's converter writes Gemma 3: a text GGUF and an mmproj GGUF.

    python export.py RUN OUT [--check-hf]

RUN is the folder of train.py. With --check-hf the weights are put into transformers'
Gemma3ForConditionalGeneration, which must give the same logits.
"""
import argparse
import os

import gguf
import numpy as np
import torch
import torch.nn.functional as F

import conversations
import model as m
from tokenizer import Tokenizer

NAME = "Kimberlite demo"
TEXT_NAMES = {  # of a layer, as trained and in the file
    "q_proj": "attn_q", "k_proj": "attn_k", "v_proj": "attn_v", "o_proj": "attn_output",
    "q_norm": "attn_q_norm", "k_norm": "attn_k_norm", "gate_proj": "ffn_gate", "up_proj": "ffn_up",
    "down_proj": "ffn_down", "input_layernorm": "attn_norm",
    "post_attention_layernorm": "post_attention_norm", "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm"}
VISION_NAMES = {
    "layer_norm1": "ln1", "layer_norm2": "ln2", "q_proj": "attn_q", "k_proj": "attn_k",
    "v_proj": "attn_v", "out_proj": "attn_out", "fc1": "ffn_up", "fc2": "ffn_down"}
CHAT_TEMPLATE = """\
{{- bos_token -}}
{%- set lead = namespace(text='') -%}
{%- if messages[0]['role'] == 'system' -%}
    {%- if messages[0]['content'] is string -%}
        {%- set lead.text = messages[0]['content'] + '\\n\\n' -%}
    {%- else -%}
        {%- set lead.text = messages[0]['content'][0]['text'] + '\\n\\n' -%}
    {%- endif -%}
    {%- set messages = messages[1:] -%}
{%- endif -%}
{%- for message in messages -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{- raise_exception('user and assistant must take turns') -}}
    {%- endif -%}
    {{- '<start_of_turn>' + ('model' if message['role'] == 'assistant' else message['role']) -}}
    {{- '\\n' + (lead.text if loop.first else '') -}}
    {%- if message['content'] is string -%}
        {{- message['content'] | trim -}}
    {%- else -%}
        {%- for item in message['content'] -%}
            {{- '<start_of_image>' if item['type'] == 'image' else item['text'] | trim -}}
        {%- endfor -%}
    {%- endif -%}
    {{- '<end_of_turn>\\n' -}}
{%- endfor -%}
{{- '<start_of_turn>model\\n' if add_generation_prompt -}}
"""


def load(folder):
    """The averaged weights of the newest stages: vision, text."""
    stages = {}
    for name in ("vision", "text", "joint"):
        path = os.path.join(folder, f"{name}.pt")
        if os.path.exists(path):
            stages[name] = torch.load(path)["mean"]
    return stages["vision"], stages.get("joint") or stages["text"]


def add_tensor(writer, name, values, kind):
    values = values.float().numpy()
    if kind == gguf.GGMLQuantizationType.Q8_0:
        data = gguf.quants.quantize(values, kind)
        writer.add_tensor(name, data, raw_dtype=kind)
    else:
        half = kind == gguf.GGMLQuantizationType.F16
        writer.add_tensor(name, values.astype(np.float16 if half else np.float32))


def begin(path, architecture):
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name(NAME)
    writer.add_license("mit")
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    return writer


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_text(path, text, tokenizer):
    c, q8, f32 = m.CONFIG, gguf.GGMLQuantizationType.Q8_0, gguf.GGMLQuantizationType.F32
    writer = begin(path, "gemma3")
    writer.add_context_length(c["context"])
    writer.add_embedding_length(c["hidden"])
    writer.add_block_count(c["layers"])
    writer.add_feed_forward_length(c["mlp"])
    writer.add_head_count(c["heads"])
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(c["epsilon"])
    writer.add_key_length(c["head"])
    writer.add_value_length(c["head"])
    writer.add_rope_freq_base(c["theta_global"])
    writer.add_sliding_window(c["window"])
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([t for t, _ in tokenizer.tokens])
    writer.add_token_scores(tokenizer.scores)
    writer.add_token_types([t for _, t in tokenizer.tokens])
    writer.add_bos_token_id(tokenizer.ids["<bos>"])
    writer.add_eos_token_id(tokenizer.ids["<eos>"])
    writer.add_unk_token_id(tokenizer.ids["<unk>"])
    writer.add_pad_token_id(tokenizer.ids["<pad>"])
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(CHAT_TEMPLATE)
    add_tensor(writer, "token_embd.weight", text["embed.weight"], q8)
    add_tensor(writer, "output_norm.weight", text["norm.weight"] + 1, f32)
    for i in range(c["layers"]):
        for name, out in TEXT_NAMES.items():
            values = text[f"layers.{i}.{name}.weight"]
            norm = values.ndim == 1
            add_tensor(writer, f"blk.{i}.{out}.weight", values + 1 if norm else values,
                       f32 if norm else q8)
    finish(writer)


def write_vision(path, vision):
    c, q8, f32 = m.CONFIG, gguf.GGMLQuantizationType.Q8_0, gguf.GGMLQuantizationType.F32
    f16 = gguf.GGMLQuantizationType.F16
    writer = begin(path, "clip")
    writer.add_type("mmproj")
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_string("clip.projector_type", "gemma3")
    writer.add_bool("clip.use_gelu", True)
    writer.add_uint32("clip.vision.image_size", c["image"])
    writer.add_uint32("clip.vision.patch_size", c["patch"])
    writer.add_uint32("clip.vision.embedding_length", c["vision_hidden"])
    writer.add_uint32("clip.vision.feed_forward_length", c["vision_mlp"])
    writer.add_uint32("clip.vision.block_count", c["vision_layers"])
    writer.add_uint32("clip.vision.attention.head_count", c["vision_heads"])
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", c["epsilon"])
    writer.add_uint32("clip.vision.projection_dim", c["hidden"])
    writer.add_array("clip.vision.image_mean", [.5] * 3)
    writer.add_array("clip.vision.image_std", [.5] * 3)
    pool = c["image"] // c["patch"] // int(m.SOFT_TOKENS ** .5)
    writer.add_uint32("clip.vision.projector.scale_factor", pool)
    patch = vision["patch.weight"].view(-1, 3, c["patch"], c["patch"])
    add_tensor(writer, "v.patch_embd.weight", patch, f32)
    add_tensor(writer, "v.patch_embd.bias", vision["patch.bias"], f32)
    add_tensor(writer, "v.position_embd.weight", vision["positions"], f32)
    for i in range(c["vision_layers"]):
        for name, out in VISION_NAMES.items():
            for end in ("weight", "bias"):
                values = vision[f"layers.{i}.{name}.{end}"]
                add_tensor(writer, f"v.blk.{i}.{out}.{end}", values, q8 if values.ndim > 1 else f32)
    for end in ("weight", "bias"):
        add_tensor(writer, f"v.post_ln.{end}", vision[f"post_layernorm.{end}"], f32)
    add_tensor(writer, "mm.soft_emb_norm.weight", vision["norm.weight"] + 1, f32)
    add_tensor(writer, "mm.input_projection.weight", vision["projection"], f16)
    finish(writer)


def rounded(weights):
    """Weights as they are in the files."""
    out = {}
    for name, values in weights.items():
        if name == "projection":
            values = values.half().float()
        elif values.ndim > 1 and name not in ("positions", "patch.weight"):
            q8 = gguf.GGMLQuantizationType.Q8_0
            packed = gguf.quants.quantize(values.float().numpy(), q8)
            values = torch.from_numpy(gguf.quants.dequantize(packed, q8))
        out[name] = values
    return out


def make_hf(vision, text, tokenizer):
    """The same weights in transformers' own model."""
    import transformers as t
    c, ids = m.CONFIG, tokenizer.ids
    config = t.Gemma3Config(
        text_config=t.Gemma3TextConfig(
            vocab_size=len(tokenizer.tokens), hidden_size=c["hidden"], intermediate_size=c["mlp"],
            num_hidden_layers=c["layers"], num_attention_heads=c["heads"], num_key_value_heads=1,
            head_dim=c["head"], query_pre_attn_scalar=c["head"], sliding_window=c["window"],
            max_position_embeddings=c["context"], bos_token_id=ids["<bos>"],
            eos_token_id=ids["<eos>"], pad_token_id=ids["<pad>"]),
        vision_config=t.SiglipVisionConfig(
            hidden_size=c["vision_hidden"], intermediate_size=c["vision_mlp"],
            num_hidden_layers=c["vision_layers"], num_attention_heads=c["vision_heads"],
            image_size=c["image"], patch_size=c["patch"], vision_use_head=False),
        mm_tokens_per_image=m.SOFT_TOKENS, image_token_index=ids["<image_soft_token>"],
        boi_token_index=ids["<start_of_image>"], eoi_token_index=ids["<end_of_image>"])
    config._attn_implementation = "eager"
    hf = t.Gemma3ForConditionalGeneration(config).eval()
    state, unused = {}, {("v", k) for k in vision} | {("t", k) for k in text}
    for key, there in hf.state_dict().items():
        name = key.replace("self_attn.", "").replace("mlp.", "")
        if "vision_tower" in key:
            part, values = "v", vision
            name = name.split("vision_tower.")[1].replace("vision_model.", "")
            name = name.replace("encoder.", "").replace("embeddings.patch_embedding", "patch")
            name = name.replace("embeddings.position_embedding.weight", "positions")
        elif "projector" in key:
            part, values = "v", vision
            name = "projection" if "projection" in key else "norm.weight"
        else:
            part, values = "t", text
            name = name.replace("model.language_model.", "").replace("lm_head.", "embed.")
            name = name.replace("embed_tokens.", "embed.")
        unused.discard((part, name))
        state[key] = values[name].view(there.shape)
    if unused:
        raise SystemExit(f"transformers has no place for {sorted(unused)}")
    hf.load_state_dict(state)
    return hf


@torch.no_grad()
def check_hf(vision_weights, text_weights, tokenizer):
    """Compares logits with transformers', on single conversations with one and two pictures."""
    import scenes
    hf = make_hf(vision_weights, text_weights, tokenizer)
    vision, text = m.Vision(), m.Text(len(tokenizer.tokens))
    vision.load_state_dict(vision_weights)
    text.load_state_dict(text_weights)
    worst = 0.
    for i in range(8):
        rng = np.random.default_rng([77, i])
        row = conversations.Row(tokenizer)
        seen = [conversations.random_scene(rng, True) for _ in range(1 + i % 2)]
        row.text(conversations.BEGIN + conversations.PICTURE * len(seen))
        row.turn(("", "How many shapes are there?", "I count two of them."))
        batch = conversations.collate([(row, seen)])
        pictures = np.stack([scenes.look(scenes.draw_scene(rng, s)) for s in seen])
        pictures = torch.from_numpy(pictures)
        hidden = text(batch.ids, vision(pictures).flatten(0, 1), batch.soft_at, batch.positions,
                      batch.mask)
        ours = F.linear(hidden[0, :len(row.ids)], text.embed.weight)
        ids = torch.tensor([row.ids])
        pixels = (pictures.float() / 127.5 - 1).permute(0, 3, 1, 2)
        soft = tokenizer.ids["<image_soft_token>"]
        theirs = hf(input_ids=ids, pixel_values=pixels, attention_mask=torch.ones_like(ids),
                    token_type_ids=(ids == soft).long()).logits[0]
        worst = max(worst, (ours - theirs).abs().max().item())
    print(f"largest difference to a logit of transformers: {worst:.2g}, "
          f"logits' standard deviation {theirs.std().item():.2g}")
    if worst > 1e-3:
        raise SystemExit("the model differs from transformers'")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run")
    parser.add_argument("out")
    parser.add_argument("--check-hf", action="store_true")
    options = parser.parse_args()
    vision, text = load(options.run)
    tokenizer = Tokenizer()
    if options.check_hf:
        check_hf(rounded(vision), rounded(text), tokenizer)
    os.makedirs(options.out, exist_ok=True)
    for name, write, values in (("demo.gguf", lambda p, v: write_text(p, v, tokenizer), text),
                                ("demo-mmproj.gguf", write_vision, vision)):
        path = os.path.join(options.out, name)
        write(path + ".new", values)
        os.replace(path + ".new", path)
        print(path, os.path.getsize(path), "bytes")


if __name__ == "__main__":
    main()
