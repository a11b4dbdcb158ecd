"""Checkpoints that transformers itself writes and that are more, or less, than two towers, live.

    python tests/parity/kinds.py --siglip target/release/siglip

Random weights, tiny sizes, real classes: SiglipForImageClassification and its NaFlex form (logits of `siglip classify`),
the image tower inside language models that see (the mean of its patch tokens), and a low-rank adapter as peft writes it,
against weights merged here.
"""
import argparse, json, subprocess, sys, tempfile
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save_file

from make_checkpoint import config, randomise
from make_layouts import picture
from towers import SMALL, Report, difference, load, make, ours, pictures, processor_for, reference

LANGUAGE = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1,
                head_dim=16, vocab_size=300, pad_token_id=0)


def preprocessor(folder, vision, naflex=False):
    size = dict(patch_size=vision.patch_size, max_num_patches=256) if naflex else dict(size=dict(height=vision.image_size, width=vision.image_size))
    kind = "Siglip2ImageProcessor" if naflex else "SiglipImageProcessor"
    (folder / "preprocessor_config.json").write_text(json.dumps(size | dict(
        image_processor_type=kind, resample=2, do_resize=True, do_rescale=True, rescale_factor=1 / 255, do_normalize=True,
        image_mean=[0.5] * 3, image_std=[0.5] * 3)))


@torch.inference_mode()
def classifiers(report, siglip, folder, paths):
    for family, name, problem in [("siglip", "SiglipForImageClassification", None),
                                  ("siglip", "SiglipForImageClassification", "multi_label_classification"),
                                  ("siglip2-naflex", "Siglip2ForImageClassification", "single_label_classification")]:
        checkpoint = folder / f"{name}-{problem}"
        cfg = config(family, "tiny")
        cfg.id2label = {i: label for i, label in enumerate(["cat", "dog", "owl", "none of these"])}
        cfg.problem_type = problem
        model = randomise(getattr(transformers, name)(cfg), 3).eval()
        model.save_pretrained(checkpoint)
        preprocessor(checkpoint, cfg.vision_config, family == "siglip2-naflex")
        processor = processor_for(checkpoint)
        want = [model(**processor(images=[picture(p)], return_tensors="pt")).logits[0] for p in paths]
        command = [siglip, "classify", "--json", "--model", str(checkpoint), "--device", "cpu", "--dtype", "f32", *map(str, paths)]
        run = subprocess.run(command, capture_output=True, text=True)
        if run.returncode:
            raise SystemExit(f"{' '.join(command)}\n{run.stdout}{run.stderr}")
        worst, shares = 0.0, 0.0
        for line, logits in zip(run.stdout.splitlines(), want):
            found = {p["label"]: p for p in json.loads(line)["predictions"]}
            probabilities = torch.sigmoid(logits) if problem == "multi_label_classification" else torch.softmax(logits, -1)
            for i, label in model.config.id2label.items():
                worst = max(worst, abs(found[label]["logit"] - float(logits[i])))
                shares = max(shares, abs(found[label]["score"] - float(probabilities[i])))
        report.add(f"{name}, {problem}: logits, scores", worst, shares, 2e-5)


@torch.inference_mode()
def guests(report, siglip, folder, paths):
    vision = dict(model_type="siglip_vision_model", hidden_size=96, num_hidden_layers=3, num_attention_heads=3, intermediate_size=256,
                  patch_size=16, image_size=96, vision_use_head=False)
    for name, kind, language, more in [
        ("PaliGemmaForConditionalGeneration", "PaliGemmaConfig", "gemma", dict(projection_dim=32)),
        ("Gemma3ForConditionalGeneration", "Gemma3Config", "gemma3_text", dict(mm_tokens_per_image=4)),
        ("LlavaOnevisionForConditionalGeneration", "LlavaOnevisionConfig", "qwen2", {}),
        ("AyaVisionForConditionalGeneration", "AyaVisionConfig", "cohere2", {}),
    ]:
        checkpoint = folder / name
        cfg = getattr(transformers, kind)(vision_config=dict(vision), text_config=dict(LANGUAGE, model_type=language), **more)
        model = randomise(getattr(transformers, name)(cfg), 4).eval()
        model.save_pretrained(checkpoint)
        preprocessor(checkpoint, cfg.vision_config)
        processor = processor_for(checkpoint)
        tower = model.model.vision_tower
        means = [tower(pixel_values=processor(images=[picture(p)], return_tensors="pt")["pixel_values"]).last_hidden_state[0].mean(0) for p in paths]
        want = torch.stack([mean / mean.norm() for mean in means]).numpy()
        report.add(f"{name}: the tower's mean", difference(ours(siglip, checkpoint, paths, [], folder / "out.npy"), want), 0.0, SMALL)


def adapters(report, siglip, folder, paths):
    base = make(folder, "base", ["--family", "siglip", "--size", "tiny"], None)
    tensors = load_file(base / "model.safetensors")
    generator = torch.Generator().manual_seed(8)
    own, rank = {}, 4
    for name, weight in tensors.items():
        if name.endswith(("q_proj.weight", "v_proj.weight", "fc2.weight")):
            down, up = (torch.randn(shape, generator=generator) * 0.1 for shape in ((rank, weight.shape[1]), (weight.shape[0], rank)))
            module = name.removesuffix(".weight")
            own |= {f"base_model.model.{module}.lora_A.weight": down, f"base_model.model.{module}.lora_B.weight": up}
            tensors[name] = weight + 16 / rank * (up @ down)
    adapter = folder / "adapter"
    adapter.mkdir()
    save_file(own, adapter / "adapter_model.safetensors")
    (adapter / "adapter_config.json").write_text(json.dumps(dict(
        peft_type="LORA", base_model_name_or_path=str(base), r=rank, lora_alpha=16, target_modules=["q_proj", "v_proj", "fc2"])))
    model = load(base)
    model.load_state_dict(tensors)
    texts = np.random.default_rng(5).integers(0, 32000, (3, 64)).tolist()
    images, embedded = reference(model, processor_for(base), paths, texts)
    found = ours(siglip, adapter, paths, texts, folder / "out.npy")
    report.add("LoRA adapter", difference(found[len(texts):], images), difference(found[:len(texts)], embedded), SMALL)


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--siglip", required=True)
    o = a.parse_args()
    report = Report()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        paths = pictures(folder)
        classifiers(report, o.siglip, folder, paths)
        guests(report, o.siglip, folder, paths)
        adapters(report, o.siglip, folder, paths)
    print(f"{report.failed} wrong" if report.failed else "all within their bounds")
    sys.exit(report.failed > 0)


if __name__ == "__main__":
    main()
