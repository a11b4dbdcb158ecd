"""Rewrite a checkpoint of the Hugging Face layout into every other layout that the program reads.

    python make_layouts.py CHECKPOINT OUT      # writes all of them below OUT and lists them

Sharded, wrapped, PyTorch's own file, f16, bf16, FG-CLIP 2, one tower alone (with and without its prefix), the tower inside PaliGemma, timm, open_clip, and
big_vision's npz (layers apart and stacked, with and without `params/`). Where another library can run the layout
(timm, open_clip) that library is the reference, loaded strictly: a name that is not its own is an error here.
Needs: torch, transformers, safetensors, numpy; timm and open_clip_torch for their layouts.
"""
import copy, json, shutil, sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, Optional

import numpy as np
import torch
from PIL import Image, ImageOps
from safetensors.torch import load_file, save_file


@dataclass
class Layout:
    name: str
    path: Path
    image: bool = True
    text: bool = True
    # Called as reference(model, processor, paths, texts, run): normalised image and text embeddings.
    reference: Optional[Callable] = None
    arguments: list = field(default_factory=list)
    # Token ids of its own, where its texts have another length.
    texts: Optional[list] = None

    @property
    def reference_differs(self):
        return self.reference is not None


def unit(x):
    return (x / x.norm(dim=-1, keepdim=True)).detach().numpy()


def folder(out, name, source, weights=True):
    """A folder with the small files of the source."""
    path = out / name
    path.mkdir(parents=True)
    for file in source.iterdir():
        if file.suffix == ".json" and not (not weights and file.name.endswith("config.json") and "tokenizer" not in file.name):
            shutil.copy(file, path)
    return path


def picture(path):
    return ImageOps.exif_transpose(Image.open(path)).convert("RGB")


# ── the same layout in other files ──────────────────────────────────────────────────────────────────────

def sharded(out, source, tensors):
    path = folder(out, "sharded", source)
    names, index = sorted(tensors), {}
    for shard in range(3):
        file = f"model-{shard + 1:05d}-of-00003.safetensors"
        part = {name: tensors[name] for name in names[shard::3]}
        save_file(part, path / file, metadata={"format": "pt"})
        index |= {name: file for name in part}
    (path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    return Layout("sharded", path)


def narrow(out, source, tensors, dtype):
    name = str(dtype).split(".")[1]
    path = folder(out, name, source)
    save_file({k: v.to(dtype) for k, v in tensors.items()}, path / "model.safetensors", metadata={"format": "pt"})

    def reference(model, processor, paths, texts, run):
        rounded = copy.deepcopy(model)
        rounded.load_state_dict({k: v.to(dtype).float() for k, v in model.state_dict().items()})
        return run(rounded, processor, paths, texts)
    return Layout(name, path, reference=reference)


def wrapped(out, source, tensors):
    """As DistributedDataParallel around torch.compile saves it."""
    path = folder(out, "wrapped", source)
    save_file({f"module._orig_mod.{k}": v for k, v in tensors.items()}, path / "model.safetensors", metadata={"format": "pt"})
    return Layout("names in wrappers", path)


def pytorch(out, source, tensors):
    path = folder(out, "pytorch", source)
    # One tensor as a transposed view: its values lie in Fortran order.
    turned = {k: v.T.contiguous().T if k.endswith("fc1.weight") else v for k, v in tensors.items()}
    torch.save(turned, path / "pytorch_model.bin")
    return Layout("pytorch_model.bin", path)


def fg_clip(out, source, tensors, config, long=False):
    """FG-CLIP 2: a NaFlex SigLIP 2 with parts that short texts and whole pictures do without; and its long texts."""
    path = folder(out, "fgclip2-long" if long else "fgclip2", source)
    changed = copy.deepcopy(config) | {"model_type": "fgclip2", "auto_map": {"AutoModelForCausalLM": "modeling_fgclip2.FG_CLIP2_Model"}}
    for tower in ("vision", "text"):
        changed[f"{tower}_config"]["model_type"] = f"fgclip2_{tower}_model"
    changed["text_config"] |= {"keep_len": 20, "longtext_len": 196}
    (path / "config.json").write_text(json.dumps(changed))
    width = config["text_config"]["hidden_size"]
    extra = {f"text_model.embeddings.position_embedding_{x}.weight": torch.randn(196, width) for x in ("res", "ori")}
    extra |= {"longtext_head.weight": torch.randn(width, width) / width**0.5, "longtext_head.bias": torch.randn(width)}
    extra |= {"boxtext_head.bias": torch.randn(width), "dense_feature_head.probe": torch.randn(1, 1, width)}
    save_file(tensors | extra, path / "model.safetensors", metadata={"format": "pt"})

    @torch.inference_mode()
    def long_texts(model, processor, paths, texts, run):
        tower, positions = copy.deepcopy(model.text_model), torch.nn.Embedding(196, width)
        first, others = (extra[f"text_model.embeddings.position_embedding_{x}.weight"] for x in ("ori", "res"))
        positions.weight.copy_(torch.cat([first[:20], others[20:]]))
        tower.embeddings.position_embedding, tower.embeddings.position_ids = positions, torch.arange(196)[None]
        pooled = tower(input_ids=torch.tensor(texts)).pooler_output
        return run(model, processor, paths, [[1] * 64])[0], unit(pooled @ extra["longtext_head.weight"].T + extra["longtext_head.bias"])
    ids = np.random.default_rng(4).integers(0, config["text_config"]["vocab_size"], (3, 196)).tolist()
    if long:
        return Layout("FG-CLIP 2, long texts", path, reference=long_texts, arguments=["--long-texts"], texts=ids)
    return Layout("FG-CLIP 2", path)


def one_tower(out, source, tensors, config, tower, prefixed):
    name = f"{tower} tower alone" + ("" if prefixed else ", names without a prefix")
    path = folder(out, name.replace(" ", "-").replace(",", ""), source)
    family = config["model_type"]
    (path / "config.json").write_text(json.dumps(config[f"{tower}_config"] | {"model_type": f"{family}_{tower}_model"}))
    start = f"{tower}_model."
    kept = {k if prefixed else k[len(start):]: v for k, v in tensors.items() if k.startswith(start)}
    save_file(kept, path / "model.safetensors", metadata={"format": "pt"})
    return Layout(name, path, image=tower == "vision", text=tower == "text")


def paligemma(out, source, tensors, config):
    """The tower with its head, and beside it what a language model has."""
    path = folder(out, "paligemma", source)
    vision = config["vision_config"] | {"model_type": "siglip_vision_model", "projection_dim": 2048}
    (path / "config.json").write_text(json.dumps({"model_type": "paligemma", "vision_config": vision, "text_config": {"model_type": "gemma"}}))
    kept = {f"vision_tower.{k}": v for k, v in tensors.items() if k.startswith("vision_model.")}
    kept |= {"language_model.model.norm.weight": torch.ones(7), "multi_modal_projector.linear.bias": torch.ones(5)}
    save_file(kept, path / "model.safetensors", metadata={"format": "pt"})
    return Layout("inside PaliGemma", path, text=False)


# ── timm and open_clip ──────────────────────────────────────────────────────────────────────────────────

def timm_names(tensors, naflex, prefix=""):
    """The image tower by timm's names."""
    result = {}
    embeds = "embeds" if naflex else "patch_embed"
    modules = {"embeddings.patch_embedding": f"{embeds}.proj", "post_layernorm": "norm",
               "head.attention.out_proj": "attn_pool.proj", "head.layernorm": "attn_pool.norm",
               "head.mlp.fc1": "attn_pool.mlp.fc1", "head.mlp.fc2": "attn_pool.mlp.fc2"}
    layers = 1 + max(int(k.split(".")[3]) for k in tensors if k.startswith("vision_model.encoder.layers."))
    for i in range(layers):
        for a, b in [("layer_norm1", "norm1"), ("layer_norm2", "norm2"), ("self_attn.out_proj", "attn.proj"), ("mlp.fc1", "mlp.fc1"), ("mlp.fc2", "mlp.fc2")]:
            modules[f"encoder.layers.{i}.{a}"] = f"blocks.{i}.{b}"
    for leaf in ("weight", "bias"):
        for a, b in modules.items():
            result[f"{b}.{leaf}"] = tensors[f"vision_model.{a}.{leaf}"]
        for i in range(layers):
            result[f"blocks.{i}.attn.qkv.{leaf}"] = torch.cat([tensors[f"vision_model.encoder.layers.{i}.self_attn.{x}_proj.{leaf}"] for x in "qkv"])
        fused = tensors[f"vision_model.head.attention.in_proj_{leaf}"]
        width = len(fused) // 3
        result[f"attn_pool.q.{leaf}"], result[f"attn_pool.kv.{leaf}"] = fused[:width], fused[width:]
    positions = tensors["vision_model.embeddings.position_embedding.weight"]
    side = round(len(positions) ** 0.5)
    result[f"{embeds}.pos_embed" if naflex else "pos_embed"] = positions.reshape(1, side, side, -1) if naflex else positions[None]
    result["attn_pool.latent"] = tensors["vision_model.head.probe"]
    return {prefix + k: v.contiguous().clone() for k, v in result.items()}


def open_clip_text_names(tensors):
    """The text tower and the scores by open_clip's names."""
    modules = {"embeddings.token_embedding": "token_embedding", "final_layer_norm": "ln_final", "head": "text_projection"}
    layers = 1 + max(int(k.split(".")[3]) for k in tensors if k.startswith("text_model.encoder.layers."))
    result = {}
    for i in range(layers):
        for a, b in [("layer_norm1", "ln_1"), ("layer_norm2", "ln_2"), ("self_attn.out_proj", "attn.out_proj"), ("mlp.fc1", "mlp.c_fc"), ("mlp.fc2", "mlp.c_proj")]:
            modules[f"encoder.layers.{i}.{a}"] = f"transformer.resblocks.{i}.{b}"
        for leaf in ("weight", "bias"):
            result[f"text.transformer.resblocks.{i}.attn.in_proj_{leaf}"] = torch.cat([tensors[f"text_model.encoder.layers.{i}.self_attn.{x}_proj.{leaf}"] for x in "qkv"])
    for a, b in modules.items():
        for leaf in ("weight", "bias"):
            if f"text_model.{a}.{leaf}" in tensors:
                result[f"text.{b}.{leaf}"] = tensors[f"text_model.{a}.{leaf}"]
    result["text.positional_embedding"] = tensors["text_model.embeddings.position_embedding.weight"]
    result |= {name: tensors[name].reshape(()) for name in ("logit_scale", "logit_bias")}
    return {k: v.contiguous().clone() for k, v in result.items()}


def timm_layout(out, source, tensors, config, processor):
    import timm
    vision, naflex = config["vision_config"], config["model_type"] == "siglip2"
    path = folder(out, "timm", source, weights=False)
    architecture = "naflexvit_base_patch16_siglip" if naflex else "vit_base_patch16_siglip_224"
    arguments = dict(embed_dim=vision["hidden_size"], depth=vision["num_hidden_layers"], num_heads=vision["num_attention_heads"],
                     mlp_ratio=vision["intermediate_size"] / vision["hidden_size"], patch_size=vision["patch_size"])
    side = 16 * vision["patch_size"] if naflex else vision["image_size"]
    if not naflex:
        arguments["img_size"] = side
    interpolation = {2: "bilinear", 3: "bicubic"}[processor["resample"]]
    (path / "config.json").write_text(json.dumps(dict(
        architecture=architecture, num_classes=0, global_pool="map", model_args=arguments,
        pretrained_cfg=dict(input_size=[3, side, side], interpolation=interpolation, mean=[0.5] * 3, std=[0.5] * 3))))
    state = timm_names(tensors, naflex)
    save_file(state, path / "model.safetensors")

    @torch.inference_mode()
    def reference(model, image_processor, paths, texts, run):
        tower = timm.create_model(architecture, num_classes=0, **arguments).eval()
        tower.load_state_dict(state, strict=True)
        rows = []
        for p in paths:
            inputs = image_processor(images=[picture(p)], return_tensors="pt")
            if naflex:
                rows_, cols = inputs["spatial_shapes"][0].tolist()
                count = rows_ * cols
                coord = torch.stack(torch.meshgrid(torch.arange(rows_), torch.arange(cols), indexing="ij"), -1).reshape(1, count, 2)
                rows.append(tower({"patches": inputs["pixel_values"][:, :count], "patch_coord": coord, "patch_valid": torch.ones(1, count, dtype=torch.bool)})[0])
            else:
                rows.append(tower(inputs["pixel_values"])[0])
        return unit(torch.stack(rows)), None
    return Layout(f"timm ({architecture})", path, text=False, reference=reference)


def open_clip_layout(out, source, tensors, config, marqo=False, bare=False):
    """open_clip names an image tower by its size: one of base size is drawn, the text tower is the source's.

    `marqo` lays a `config.json` of transformers' kind beside it, with the weights under another name, as Marqo's
    repositories do; `bare` leaves the preprocessing out, for which open_clip then has its own.
    """
    import open_clip
    from open_clip.model import CustomTextCLIP
    from transformers import SiglipVisionConfig, SiglipVisionModel
    from make_checkpoint import randomise
    name = "open_clip" + (", as Marqo lays it out" if marqo else "") + (", without preprocess_cfg" if bare else "")
    path = folder(out, name.replace(", ", "-").replace(" ", "-"), source, weights=False)
    text, second = config["text_config"], config["text_config"]["vocab_size"] == 256000
    vision = randomise(SiglipVisionModel(SiglipVisionConfig()), 5).state_dict()
    vision = {k if k.startswith("vision_model.") else f"vision_model.{k}": v for k, v in vision.items()}
    generator = torch.Generator().manual_seed(6)
    width = text["hidden_size"]
    head = {"text_model.head.weight": torch.randn(768, width, generator=generator) * 1.4 / width**0.5,
            "text_model.head.bias": torch.randn(768, generator=generator) * 0.1}
    state = timm_names(vision, False, "visual.trunk.") | open_clip_text_names(tensors | head)
    text_cfg = dict(context_length=text["max_position_embeddings"], vocab_size=text["vocab_size"], width=width,
                    heads=text["num_attention_heads"], layers=text["num_hidden_layers"], no_causal_mask=True,
                    mlp_ratio=(text["intermediate_size"] + 0.5) / width, proj_bias=True, pool_type="last",
                    norm_kwargs=dict(eps=1e-6), hf_tokenizer_name="timm/ViT-B-16-SigLIP", tokenizer_kwargs=dict(clean="canonicalize"))
    if second:
        text_cfg["act_kwargs"] = dict(approximate="tanh")
    model_cfg = dict(embed_dim=768, init_logit_bias=-10, custom_text=True, text_cfg=text_cfg,
                     vision_cfg=dict(image_size=224, timm_model_name="vit_base_patch16_siglip_224", timm_model_pretrained=False, timm_pool="map", timm_proj="none"))
    preprocess = dict(mean=[0.5] * 3, std=[0.5] * 3, interpolation="bicubic", resize_mode="squash")
    (path / "open_clip_config.json").write_text(json.dumps(dict(model_cfg=model_cfg) | ({} if bare else dict(preprocess_cfg=preprocess))))
    if marqo:
        classes = {f"Auto{x}": f"marqo_fashionSigLIP.MarqoFashionSigLIP{x}" for x in ("Config", "Model", "Processor")}
        (path / "config.json").write_text(json.dumps(dict(model_type="siglip", auto_map=classes)))
        save_file({f"model.{k}": v for k, v in state.items()}, path / "model.safetensors")
    else:
        save_file(state, path / "open_clip_model.safetensors")

    @torch.inference_mode()
    def reference(model, processor, paths, texts, run):
        from open_clip.transform import PreprocessCfg, image_transform_v2
        clip = CustomTextCLIP(**{k: v for k, v in copy.deepcopy(model_cfg).items() if k != "custom_text"}).eval()
        clip.load_state_dict(state, strict=True)
        given = {} if bare else dict(mean=(0.5,) * 3, std=(0.5,) * 3, interpolation="bicubic", resize_mode="squash")
        transform = image_transform_v2(PreprocessCfg(size=(224, 224), **given), is_train=False)
        images = torch.cat([clip.encode_image(transform(picture(p))[None], normalize=True) for p in paths])
        return images.numpy(), clip.encode_text(torch.tensor(texts), normalize=True).numpy()
    return Layout(f"{name} (ViT-B-16-SigLIP)", path, reference=reference)


# ── big_vision ──────────────────────────────────────────────────────────────────────────────────────────

def flax_names(tensors, heads, naflex, scanned):
    """Both towers by big_vision's names, kernels as flax keeps them."""
    t = {k: v.float().numpy() for k, v in tensors.items()}
    result = {}

    def dense(to, weight, bias):
        result[f"{to}/kernel"], result[f"{to}/bias"] = weight.T, bias

    def norm(to, source):
        result[f"{to}/scale"], result[f"{to}/bias"] = t[f"{source}.weight"], t[f"{source}.bias"]

    def attention(to, qkv, out, h):
        for name, (weight, bias) in zip(("query", "key", "value"), qkv):
            result[f"{to}/{name}/kernel"] = weight.T.reshape(weight.shape[1], h, -1)
            result[f"{to}/{name}/bias"] = bias.reshape(h, -1)
        weight, bias = out
        result[f"{to}/out/kernel"], result[f"{to}/out/bias"] = weight.T.reshape(h, -1, weight.shape[0]), bias

    pair = lambda name: (t[f"{name}.weight"], t[f"{name}.bias"])
    for tower, to, final, h in [("vision_model", "img/Transformer", "post_layernorm", heads[0]), ("text_model", "txt/Encoder_0", "final_layer_norm", heads[1])]:
        norm(f"{to}/encoder_norm", f"{tower}.{final}")
        layers = 1 + max(int(k.split(".")[3]) for k in t if k.startswith(f"{tower}.encoder.layers."))
        for i in range(layers):
            source, block = f"{tower}.encoder.layers.{i}", f"{to}/encoderblock_{i}"
            norm(f"{block}/LayerNorm_0", f"{source}.layer_norm1")
            norm(f"{block}/LayerNorm_1", f"{source}.layer_norm2")
            attention(f"{block}/MultiHeadDotProductAttention_0", [pair(f"{source}.self_attn.{x}_proj") for x in "qkv"], pair(f"{source}.self_attn.out_proj"), h)
            dense(f"{block}/MlpBlock_0/Dense_0", *pair(f"{source}.mlp.fc1"))
            dense(f"{block}/MlpBlock_0/Dense_1", *pair(f"{source}.mlp.fc2"))
        if scanned:
            first = [k for k in result if k.startswith(f"{to}/encoderblock_0/")]
            for name in first:
                rest = name.split("encoderblock_0/")[1]
                result[f"{to}/encoderblock/{rest}"] = np.stack([result.pop(f"{to}/encoderblock_{i}/{rest}") for i in range(layers)])
    weight = t["vision_model.embeddings.patch_embedding.weight"]
    result["img/embedding/kernel"] = weight.T if naflex else weight.transpose(2, 3, 1, 0)
    result["img/embedding/bias"] = t["vision_model.embeddings.patch_embedding.bias"]
    positions = t["vision_model.embeddings.position_embedding.weight"]
    side = round(len(positions) ** 0.5)
    result["img/pos_embedding"] = positions.reshape(side, side, -1) if naflex else positions[None]
    head, pool = "vision_model.head", "img/MAPHead_0"
    result[f"{pool}/probe"] = t[f"{head}.probe"]
    fused = zip(np.split(t[f"{head}.attention.in_proj_weight"], 3), np.split(t[f"{head}.attention.in_proj_bias"], 3))
    attention(f"{pool}/MultiHeadDotProductAttention_0", list(fused), pair(f"{head}.attention.out_proj"), heads[0])
    norm(f"{pool}/LayerNorm_0", f"{head}.layernorm")
    dense(f"{pool}/MlpBlock_0/Dense_0", *pair(f"{head}.mlp.fc1"))
    dense(f"{pool}/MlpBlock_0/Dense_1", *pair(f"{head}.mlp.fc2"))
    result["txt/Embed_0/embedding"] = t["text_model.embeddings.token_embedding.weight"]
    result["txt/pos_embedding"] = t["text_model.embeddings.position_embedding.weight"][None]
    dense("txt/head", *pair("text_model.head"))
    result["t"], result["b"] = t["logit_scale"], t["logit_bias"]
    return result


def big_vision(out, source, tensors, config, processor, scanned, prefixed, compressed):
    name = "big_vision npz, layers " + ("stacked" if scanned else "apart") + (", params/" if prefixed else "") + (", deflated" if compressed else "")
    path = out / (name.replace(" ", "-").replace(",", "").replace("/", "") + ".npz")
    heads = [config[f"{tower}_config"]["num_attention_heads"] for tower in ("vision", "text")]
    arrays = flax_names(tensors, heads, config["model_type"] == "siglip2", scanned)
    # Kernels are views in Fortran order: numpy saves some of them so, and the reader must notice.
    (np.savez_compressed if compressed else np.savez)(path, **{("params/" if prefixed else "") + k: v for k, v in arrays.items()})

    def reference(model, image_processor, paths, texts, run):
        bilinear = copy.deepcopy(image_processor)
        bilinear.resample = Image.Resampling.BILINEAR
        return run(model, bilinear, paths, texts)
    return Layout(name, path, reference=None if processor["resample"] == 2 else reference)


def layouts(checkpoint, out):
    """Writes every layout below `out`; yields them one by one and deletes each when the next is asked for."""
    checkpoint, out = Path(checkpoint), Path(out)
    out.mkdir(parents=True, exist_ok=True)
    tensors = load_file(checkpoint / "model.safetensors")
    config = json.loads((checkpoint / "config.json").read_text())
    processor = json.loads((checkpoint / "preprocessor_config.json").read_text())
    naflex = config["model_type"] == "siglip2"
    makers = [
        lambda: sharded(out, checkpoint, tensors),
        lambda: wrapped(out, checkpoint, tensors),
        lambda: pytorch(out, checkpoint, tensors),
        lambda: narrow(out, checkpoint, tensors, torch.float16),
        lambda: narrow(out, checkpoint, tensors, torch.bfloat16),
        lambda: one_tower(out, checkpoint, tensors, config, "vision", True),
        lambda: one_tower(out, checkpoint, tensors, config, "vision", False),
        lambda: one_tower(out, checkpoint, tensors, config, "text", True),
        lambda: one_tower(out, checkpoint, tensors, config, "text", False),
        lambda: timm_layout(out, checkpoint, tensors, config, processor),
        lambda: big_vision(out, checkpoint, tensors, config, processor, False, True, False),
        lambda: big_vision(out, checkpoint, tensors, config, processor, True, False, False),
        lambda: big_vision(out, checkpoint, tensors, config, processor, True, True, True),
    ]
    if naflex:
        makers += [lambda long=long: fg_clip(out, checkpoint, tensors, config, long) for long in (False, True)]
    else:
        makers += [lambda: paligemma(out, checkpoint, tensors, config)]
        makers += [lambda kind=kind: open_clip_layout(out, checkpoint, tensors, config, **kind) for kind in ({}, dict(marqo=True), dict(bare=True))]
    for make in makers:
        layout = make()
        yield layout
        if layout.path.is_dir():
            shutil.rmtree(layout.path)
        else:
            layout.path.unlink()


if __name__ == "__main__":
    rmtree, shutil.rmtree = shutil.rmtree, lambda path: None      # keep what is written
    Path.unlink = lambda path: None
    for layout in layouts(sys.argv[1], sys.argv[2]):
        print(layout.path)
