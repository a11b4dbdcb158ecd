"""Write a SigLIP checkpoint with random weights in the Hugging Face layout.

No trained SigLIP weights can be had on these machines, so parity with the reference
implementation (transformers) and speed are measured on checkpoints of the real
architectures with random weights. The weights are drawn so that the towers behave like
trained ones where it matters: different inputs give clearly different embeddings, and no
activation saturates. Needs: torch, transformers, safetensors (see requirements.txt). --tokenizer
names a folder with SigLIP 2's tokenizer files, which are copied; without it there are none.

    python make_checkpoint.py OUT --size base --family siglip2            # 224 px, 196 tokens
    python make_checkpoint.py OUT --size so400m --family siglip2-naflex
    python make_checkpoint.py OUT --size tiny --family siglip             # for fast tests
"""
import argparse, json, math, os, shutil
import torch
from transformers import SiglipConfig, SiglipModel, Siglip2Config, Siglip2Model

#          width depth heads mlp  patch image
SIZES = {
    "tiny":   (96, 3, 3, 256, 16, 96),
    "odd":    (144, 2, 2, 344, 14, 70),      # head_dim 72, mlp not a multiple of 32, like so400m/14
    "base":   (768, 12, 12, 3072, 16, 224),
    "large":  (1024, 24, 16, 4096, 16, 256),
    "so400m": (1152, 27, 16, 4304, 14, 384),
}

def config(family, size, image_size=None, patch=None, projection=None, context=64, max_patches=256):
    w, d, h, m, p, img = SIZES[size]
    p, img = patch or p, image_size or img
    vocab = 256000 if family.startswith("siglip2") else 32000
    text = dict(hidden_size=w, num_hidden_layers=d, num_attention_heads=h, intermediate_size=m,
                vocab_size=vocab, max_position_embeddings=context, projection_size=projection or w,
                bos_token_id=0, eos_token_id=1, pad_token_id=1)
    if projection and projection != w:       # giant-opt: a wider image tower than text tower
        w, h, m = projection, projection // (w // h), int(m * projection / w)
    vision = dict(hidden_size=w, num_hidden_layers=d, num_attention_heads=h, intermediate_size=m, patch_size=p)
    if family == "siglip2-naflex":
        vision["num_patches"] = max_patches
        return Siglip2Config(text_config=text, vision_config=vision)
    vision["image_size"] = img
    return SiglipConfig(text_config=text, vision_config=vision)

@torch.no_grad()
def randomise(model, seed):
    """Unit-gain linear layers, spread LayerNorm gains, large position and token embeddings."""
    g = torch.Generator().manual_seed(seed)
    rnd = lambda t, std, mean=0.0: t.copy_(torch.randn(t.shape, generator=g) * std + mean)
    for name, p in model.named_parameters():
        if name.endswith("logit_scale"): p.fill_(math.log(110.0))
        elif name.endswith("logit_bias"): p.fill_(-12.0)
        elif "norm" in name: rnd(p, 0.15, 1.0) if name.endswith("weight") else rnd(p, 0.1)
        elif "position_embedding" in name: rnd(p, 0.3)
        elif "token_embedding" in name or name.endswith("probe"): rnd(p, 1.0)
        elif name.endswith("bias"): rnd(p, 0.1)
        else:
            sharp = 1.9 if ("q_proj" in name or "k_proj" in name) else 1.4   # attention that tells tokens apart
            rnd(p, sharp / math.sqrt(p[0].numel()))
    return model

@torch.no_grad()
def massive(model, seed, channels=4, units=8, factor=30.0):
    """A few channels and hidden units that are `factor` times the others, as trained transformers have them, which is what makes bytes
    too coarse. The weights that follow undo it, so that the model computes what it did."""
    g = torch.Generator().manual_seed(seed + 1)
    for tower in (model.vision_model, model.text_model):
        for block in tower.encoder.layers:
            attention, mlp = block.self_attn, block.mlp
            some = torch.randperm(block.layer_norm1.weight.numel(), generator=g)[:channels]
            for norm, layers in (block.layer_norm1, (attention.q_proj, attention.k_proj, attention.v_proj)), (block.layer_norm2, (mlp.fc1,)):
                norm.weight[some] *= factor
                norm.bias[some] *= factor
                for layer in layers:
                    layer.weight[:, some] /= factor
            some = torch.randperm(mlp.fc1.bias.numel(), generator=g)[:units]
            mlp.fc1.bias[some] += factor
            mlp.fc2.weight[:, some] /= factor
            mlp.fc2.bias -= factor * mlp.fc2.weight[:, some].sum(1)

def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("out")
    a.add_argument("--family", choices=["siglip", "siglip2", "siglip2-naflex"], default="siglip2")
    a.add_argument("--size", choices=list(SIZES), default="base")
    a.add_argument("--image-size", type=int)
    a.add_argument("--patch", type=int)
    a.add_argument("--projection", type=int, help="width of the image tower where it differs (giant-opt)")
    a.add_argument("--context", type=int, default=64)
    a.add_argument("--seed", type=int, default=0)
    a.add_argument("--massive", action="store_true", help="channels and hidden units that are much larger than the others (for int8)")
    a.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="float32")
    a.add_argument("--tokenizer")
    o = a.parse_args()
    cfg = config(o.family, o.size, o.image_size, o.patch, o.projection, o.context)
    model = (Siglip2Model if o.family == "siglip2-naflex" else SiglipModel)(cfg)
    randomise(model, o.seed)
    if o.massive:
        massive(model, o.seed)
    model.to(getattr(torch, o.dtype)).eval().save_pretrained(o.out)
    v = cfg.vision_config
    if o.family == "siglip2-naflex":
        pre = dict(image_processor_type="Siglip2ImageProcessor", processor_class="Siglip2Processor",
                   patch_size=v.patch_size, max_num_patches=256, resample=2)
    else:
        pre = dict(image_processor_type="SiglipImageProcessor", processor_class="SiglipProcessor",
                   size=dict(height=v.image_size, width=v.image_size), resample=2 if o.family == "siglip2" else 3)
    pre |= dict(do_resize=True, do_rescale=True, rescale_factor=1 / 255, do_normalize=True,
                image_mean=[0.5] * 3, image_std=[0.5] * 3)
    json.dump(pre, open(os.path.join(o.out, "preprocessor_config.json"), "w"), indent=2)
    if o.tokenizer and o.family.startswith("siglip2"):
        for f in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
            shutil.copy(os.path.join(o.tokenizer, f), o.out)
    print(o.out, f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f} M parameters")

if __name__ == "__main__":
    main()
