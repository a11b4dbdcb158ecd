"""Embeddings of the built program against transformers, for every family and file layout, live.

    python tests/parity/towers.py --siglip target/debug/siglip [--full] [--images DIR] [--siglip2-tokenizer DIR]

Checkpoints with random weights of the real architectures are written to a temporary folder, in the Hugging Face
layout and, by make_layouts.py, in every other one. The program embeds pictures and token ids from the command
line; transformers embeds the same in f32. Reported for each: the largest absolute difference between normalised
embeddings. --full adds base/16-224 and so400m/14-384 at their real sizes (about 10 GB of memory, some minutes).
Each is also embedded in bf16 and int8, of which the smallest cosine to f32 is reported.
With --images, photographs also go through transformers' own image processor: at least cosine 0.9999.
"""
import argparse, json, os, platform, subprocess, sys, tempfile, warnings
from pathlib import Path

warnings.filterwarnings("ignore")
os.environ["HF_HUB_OFFLINE"] = "1"
import numpy as np
import torch
import transformers
from PIL import Image, ImageOps
from transformers import AutoConfig, AutoModel
from transformers.utils import logging as transformers_logging

transformers_logging.disable_progress_bar()

HERE = Path(__file__).parent
SMALL, FULL = 1e-5, 5e-5      # largest absolute difference allowed at small and at real sizes
PHOTO_COSINE = 0.9999
COSINES = {"bf16": 0.9995, "int8": 0.997}  # smallest cosine to transformers in f32

#       name, arguments of make_checkpoint.py, whether its other layouts are checked too
CASES = [
    ("siglip", ["--family", "siglip", "--size", "tiny"], True),
    ("siglip, head dim 72, patch 14, context 16", ["--family", "siglip", "--size", "odd", "--context", "16"], False),
    ("siglip, 1,024 tokens (medsiglip)", ["--family", "siglip", "--size", "odd", "--image-size", "448"], False),
    ("siglip2", ["--family", "siglip2", "--size", "tiny"], True),
    ("siglip2, head dim 72, patch 14", ["--family", "siglip2", "--size", "odd"], False),
    ("siglip2, patch 32", ["--family", "siglip2", "--size", "tiny", "--patch", "32"], False),
    ("siglip2, image tower wider (giant-opt)", ["--family", "siglip2", "--size", "tiny", "--projection", "128"], True),
    ("siglip2-naflex", ["--family", "siglip2-naflex", "--size", "tiny"], True),
    ("siglip2, massive activations", ["--family", "siglip2", "--size", "odd", "--massive"], False),
]
FULL_CASES = [
    ("siglip2 base/16-224", ["--family", "siglip2", "--size", "base"]),
    ("siglip2-naflex base/16", ["--family", "siglip2-naflex", "--size", "base"]),
    ("siglip so400m/14-384", ["--family", "siglip", "--size", "so400m"]),
]


def pictures(folder):
    """Pictures of various shapes with edges and gradients, as PNG files."""
    rng = np.random.default_rng(7)
    paths = []
    for i, (h, w) in enumerate([(96, 96), (70, 200), (331, 47), (300, 400), (17, 33)]):
        y, x = np.mgrid[0:h, 0:w]
        base = np.stack([128 + 120 * np.sin(x / (5 + 3 * i) + c) * np.cos(y / 11) for c in range(3)], -1)
        pixels = np.clip(base + rng.normal(0, 20, base.shape), 0, 255).astype(np.uint8)
        path = folder / f"{i}.png"
        Image.fromarray(pixels).save(path)
        paths.append(path)
    return paths


def processor_for(checkpoint):
    """transformers' image processor on Pillow: the reference for pixels."""
    config = json.loads((checkpoint / "preprocessor_config.json").read_text())
    name = config["image_processor_type"]
    for module in (f"{name}Pil", name):          # transformers 5 names the Pillow one …Pil
        if hasattr(transformers, module):
            return getattr(transformers, module).from_pretrained(checkpoint)
    raise SystemExit(f"this transformers has no {name}")


def load(checkpoint):
    model = AutoModel.from_pretrained(checkpoint, dtype=torch.float32, attn_implementation="eager").eval()
    return model


@torch.inference_mode()
def reference(model, processor, paths, texts):
    """Normalised image and text embeddings by transformers; texts are lists of ids of the full context."""
    pooled = lambda out: out if isinstance(out, torch.Tensor) else out.pooler_output
    images = []
    for path in paths:
        picture = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
        images.append(pooled(model.get_image_features(**processor(images=[picture], return_tensors="pt")))[0])
    text = pooled(model.get_text_features(input_ids=torch.tensor(texts)))
    unit = lambda x: (x / x.norm(dim=-1, keepdim=True)).numpy()
    return unit(torch.stack(images)), unit(text)


def ours(siglip, checkpoint, paths, texts, out, *more, dtype="f32", kernels=None):
    command = [siglip, "embed", "--model", str(checkpoint), "--output", str(out), "--device", "cpu", "--dtype", dtype]
    for ids in texts:
        command += ["--token-ids", ",".join(map(str, ids))]
    environment = {**os.environ, **({"SIGLIP_CPU_KERNELS": kernels} if kernels else {})}
    run = subprocess.run(command + list(more) + [str(p) for p in paths], capture_output=True, text=True, env=environment)
    if run.returncode:
        raise SystemExit(f"{' '.join(command)}\n{run.stdout}{run.stderr}")
    return np.load(out)


def make(folder, name, arguments, tokenizer):
    checkpoint = folder / name
    command = [sys.executable, str(HERE / "make_checkpoint.py"), str(checkpoint), *arguments]
    if tokenizer:
        command += ["--tokenizer", tokenizer]
    subprocess.run(command, check=True, capture_output=True)
    return checkpoint


class Report:
    def __init__(self):
        self.failed, self.rows = 0, []

    def add(self, what, images, texts, bound):
        worst = max(images, texts)
        self.failed += not worst <= bound
        print(f"{'ok   ' if worst <= bound else 'WRONG'} {what:<52} image {images:.2e}  text {texts:.2e}  (bound {bound:.0e})", flush=True)


    def add_cosines(self, what, images, texts, bound):
        worst = min(images.min(), texts.min())
        self.failed += not worst >= bound
        print(f"{'ok   ' if worst >= bound else 'WRONG'} {what:<52} cosine {images.min():.6f}  text {texts.min():.6f}  (bound {bound})", flush=True)


def difference(a, b):
    if a.shape != b.shape:
        raise SystemExit(f"shapes differ: {a.shape} and {b.shape}")
    return float(np.abs(a - b).max()) if a.size else 0.0


def check(report, siglip, name, checkpoint, folder, paths, bound, layouts):
    config = AutoConfig.from_pretrained(checkpoint)
    text = config.text_config
    rng = np.random.default_rng(3)
    texts = rng.integers(0, text.vocab_size, (4, text.max_position_embeddings)).tolist()
    model = load(checkpoint)
    images, embedded = reference(model, processor_for(checkpoint), paths, texts)
    n = len(texts)
    found = ours(siglip, checkpoint, paths, texts, folder / "out.npy")
    report.add(name, difference(found[n:], images), difference(found[:n], embedded), bound)
    alone = np.stack([ours(siglip, checkpoint, [p], [], folder / "one.npy")[0] for p in paths[:3]])
    report.add(f"{name}: alone and in a batch", difference(alone, found[n:n + 3]), 0.0, bound)
    # Bytes on AVX2 have other steps: neighbours of a weight are bounded together.
    others = [("int8", "avx2")] if platform.machine() == "x86_64" else []
    for dtype, kernels in [(dtype, None) for dtype in COSINES] + others:
        least = COSINES[dtype]
        coarse = ours(siglip, checkpoint, paths, texts, folder / "out.npy", dtype=dtype, kernels=kernels)
        report.add_cosines(f"{name}: {dtype}{f' by {kernels}' if kernels else ''}", (coarse[n:] * images).sum(-1), (coarse[:n] * embedded).sum(-1), least)
    if not layouts:
        return
    from make_layouts import layouts as rewritten
    for layout in rewritten(checkpoint, folder / f"{checkpoint.name}-layouts"):
        want_images, want_texts = images, embedded
        ids = layout.texts or texts
        if layout.reference_differs:      # rounded weights, another activation: the reference is run on those
            want_images, want_texts = layout.reference(model, processor_for(checkpoint), paths, ids, reference)
        parts = ours(siglip, layout.path, paths if layout.image else [], ids if layout.text else [], folder / "out.npy", *layout.arguments)
        count = len(ids) if layout.text else 0
        report.add(f"{name}: {layout.name}", difference(parts[count:], want_images) if layout.image else 0.0,
                   difference(parts[:count], want_texts) if layout.text else 0.0, bound)


@torch.inference_mode()
def hidden_states(report, example, checkpoint, path):
    """Patch tokens before pooling and the pooling head's attention map."""
    model = load(checkpoint)
    inputs = processor_for(checkpoint)(images=[Image.open(path).convert("RGB")], return_tensors="pt")
    vision, maps = model.vision_model, []
    # The head's MultiheadAttention drops its weights: ask for them.
    head = vision.head.attention
    forward = head.forward
    def wrapped(*a, **k):
        out = forward(*a, **{**k, "need_weights": True, "average_attn_weights": False})
        maps.append(out[1])
        return out
    head.forward = wrapped
    tokens = vision(**inputs).last_hidden_state[0]
    count = int(inputs["pixel_attention_mask"].sum()) if "pixel_attention_mask" in inputs else len(tokens)
    weights = maps[0].reshape(head.num_heads, -1)[:, :count]
    out = subprocess.run([example, str(checkpoint), str(path)], capture_output=True)
    if out.returncode:
        raise SystemExit(out.stderr.decode())
    values = np.frombuffer(out.stdout, "<f4")
    split = count * tokens.shape[-1]
    scale = float(tokens.abs().max())
    report.add(f"hidden states of {checkpoint.name}: tokens, attention map", difference(values[:split], tokens[:count].numpy().ravel()) / scale,
               difference(values[split:], weights.numpy().ravel()), SMALL)


def photographs(report, siglip, checkpoint, folder, directory):
    """Decoding, orientation, colours and resizing included."""
    paths = sorted(p for p in Path(directory).rglob("*") if p.suffix in (".jpg", ".png", ".webp") and "bad" not in p.parts and "animated" not in p.parts)
    images, _ = reference(load(checkpoint), processor_for(checkpoint), paths, [[1] * 64])
    found = ours(siglip, checkpoint, paths, [], folder / "out.npy")
    cosines = (found * images).sum(-1)
    for path, cosine in zip(paths, cosines):
        if cosine < PHOTO_COSINE:
            print(f"WRONG {path.name}: cosine {cosine:.6f}")
            report.failed += 1
    print(f"      {len(paths)} photographs, {checkpoint.name}: smallest cosine {cosines.min():.7f}", flush=True)


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--siglip", required=True)
    a.add_argument("--examples", help="folder of the built example programs (hidden_states)")
    a.add_argument("--full", action="store_true")
    a.add_argument("--images", help="folder of photographs")
    a.add_argument("--siglip2-tokenizer")
    o = a.parse_args()
    torch.set_num_threads(os.cpu_count() or 1)
    sys.path.insert(0, str(HERE))
    report = Report()
    print(f"transformers {transformers.__version__}, torch {torch.__version__}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        paths = pictures(folder)
        for i, (name, arguments, layouts) in enumerate(CASES):
            checkpoint = make(folder, f"small{i}", arguments, o.siglip2_tokenizer)
            check(report, o.siglip, name, checkpoint, folder, paths, SMALL, layouts)
            if o.examples and layouts:
                hidden_states(report, str(Path(o.examples) / "hidden_states"), checkpoint, paths[3])
            if o.images and layouts:
                photographs(report, o.siglip, checkpoint, folder, o.images)
        for i, (name, arguments) in enumerate(FULL_CASES if o.full else []):
            with tempfile.TemporaryDirectory(dir=folder) as full:
                checkpoint = make(Path(full), f"full{i}", arguments, o.siglip2_tokenizer)
                check(report, o.siglip, name, checkpoint, folder, paths[2:4], FULL, False)
    print(f"{report.failed} wrong" if report.failed else "all within their bounds")
    sys.exit(report.failed > 0)


if __name__ == "__main__":
    main()
