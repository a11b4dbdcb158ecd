"""Train the demo model with the sigmoid loss, for a given number of minutes.

    python train.py --data DATA --out RUN --minutes 80              # CPU, f32
    python train.py --data DATA --out RUN --minutes 15 --device cuda --bf16 --concepts-per-batch 512

The schedule follows the clock, not a step count: the learning rate reaches its end when the minutes are over. On a CPU
these are minutes of processor time for each thread, so that a busy machine or a pause takes nothing from the run; on a
GPU they are the wall clock's. A run that is stopped goes on from RUN/checkpoint.pt when started again.

Beside the sigmoid loss there is one helper that is thrown away afterwards: a unit vector for each concept. Pictures
and texts are each classified against all of them, so that every step compares with every concept and not only with
those of the batch. It makes small batches, all that a CPU can do, learn several times faster.
"""

import argparse
import copy
import json
import math
import os
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # waiting threads must not count as work

import torch
import torch.nn.functional as F

from augment import augment
from data import Dataset
from model import IMAGE_SIDE, MODELS, PATCH, build, image_vectors, start_well, text_vectors
from muon import Muon

START_SHARE = 0.2  # of the time the image tower is also drawn to the linear features
SMALL_SIDE = 48  # most of the time is spent on small pictures, which cost less than half
WARM_UP = 0.02
EMA = 0.995


def sigmoid_loss(images, texts, pairs, scale, bias):
    """SigLIP's loss: every picture-text pair of the batch is a yes or no question of its own."""
    logits = images @ texts.T * scale.exp() + bias
    sign = pairs.float() * 2 - 1
    return -F.logsigmoid(sign * logits).sum(-1).mean()


def groups(model, proxies, decay):
    """Weight decay for matrices only; a few parameters learn faster.

    The helper vectors do because their gradients are sparse, and temperature and bias because a short run has not the
    hundred thousand steps that they have elsewhere: at the common rate the bias would stay at -10, where wrong pairs
    teach nothing.
    """
    matrices = [p for n, p in model.named_parameters() if p.ndim > 1 and "embedding" not in n and "probe" not in n]
    tokens = model.text_model.embeddings.token_embedding.weight
    turned = [p for n, p in model.named_parameters() if p.ndim == 2 and ".encoder.layers" in n]
    inside = {id(p) for p in turned}
    matrices = [p for p in matrices if id(p) not in inside]
    chosen = {id(p) for p in [*turned, *matrices, tokens, model.logit_scale, model.logit_bias]}
    rest = [p for p in model.parameters() if id(p) not in chosen]
    return turned, [
        {"params": matrices, "weight_decay": decay, "factor": 1.0},
        {"params": rest, "weight_decay": 0.0, "factor": 1.0},
        {"params": [proxies], "weight_decay": 0.0, "factor": 3.0},
        {"params": [tokens], "weight_decay": 0.0, "factor": 2.0},
        {"params": [model.logit_scale], "weight_decay": 0.0, "factor": 5.0},
        {"params": [model.logit_bias], "weight_decay": 0.0, "factor": 20.0},
    ]


@torch.no_grad()
def validate(model, dataset, device, side=IMAGE_SIDE):
    """Top-1 and top-5 of the held-back pictures, at this size, among the English names of all training concepts."""
    model.eval()
    names = [dataset.concepts[c]["names"]["en"] for c in dataset.classes]
    ids = torch.tensor([e.ids for e in dataset.tokenizer.encode_batch(names)])
    texts = torch.cat([text_vectors(model, part.to(device)) for part in ids.split(256)])
    rows = dataset.images[dataset.validation]
    pixels = torch.from_numpy(rows).permute(0, 3, 1, 2).float() / 255
    pixels = pixels[:, :3] * pixels[:, 3:] + 1 - pixels[:, 3:]
    pixels = F.interpolate(pixels, size=(side, side), mode="bilinear", antialias=True) * 2 - 1
    images = torch.cat([image_vectors(model, part.to(device)) for part in pixels.split(100)])
    wanted = torch.tensor([dataset.class_of[dataset.pictures[r]["concept"]] for r in dataset.validation])
    best = (images @ texts.T).topk(5).indices.cpu() == wanted[:, None]
    model.train()
    return best[:, 0].float().mean().item(), best.any(-1).float().mean().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=90)
    parser.add_argument("--small-share", type=float, default=0.5, help="share of the time on small pictures")
    parser.add_argument("--concepts-per-batch", type=int, default=160)
    parser.add_argument("--pictures-per-concept", type=int, default=1)
    parser.add_argument("--texts-per-batch", type=int, default=80)
    parser.add_argument("--learning-rate", type=float, default=1.5e-3)
    parser.add_argument("--muon-rate", type=float, default=0.02)
    parser.add_argument("--strength", type=float, default=0.6, help="of the augmentation; 1 for long runs")
    parser.add_argument("--variant", default="demo", choices=MODELS)
    parser.add_argument("--weight-decay", type=float, default=0.05)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--bf16", action="store_true", help="autocast to bf16 (a GPU, or a CPU with AMX)")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    generator = torch.Generator().manual_seed(arguments.seed)
    device = arguments.device
    clock = time.time if device != "cpu" else lambda: time.process_time() / arguments.threads

    dataset = Dataset(arguments.data, arguments.seed)
    vocabulary = dataset.tokenizer
    model = build(vocabulary.get_vocab_size(), vocabulary.token_to_id("<pad>"), vocabulary.token_to_id("</s>"),
                  arguments.variant)
    if not (arguments.out / "checkpoint.pt").exists():
        dataset.load_images(IMAGE_SIDE)
        rows = torch.randperm(len(dataset.store), generator=generator)[:2048]
        start_well(model, augment(dataset.store[rows], torch.from_numpy(dataset.mono[rows]),
                                  torch.from_numpy(dataset.flip[rows]), IMAGE_SIDE, generator, arguments.strength))
    model.to(device).train()
    start = dataset.linear_features(model.config.vision_config.hidden_size)
    proxies = torch.nn.Parameter(dataset.means.to(device))
    average = copy.deepcopy(model).requires_grad_(False)
    turned, others = groups(model, proxies, arguments.weight_decay)
    optimizer = torch.optim.AdamW(others, lr=arguments.learning_rate, betas=(0.9, 0.98), eps=1e-8)
    muon = Muon(turned, lr=arguments.muon_rate, weight_decay=0.03)
    step, spent = 0, 0.0
    checkpoint = arguments.out / "checkpoint.pt"
    if checkpoint.exists():
        saved = torch.load(checkpoint, map_location=device, weights_only=True)
        model.load_state_dict(saved["model"])
        average.load_state_dict(saved["average"])
        try:
            optimizer.load_state_dict(saved["optimizer"])
            muon.load_state_dict(saved["muon"])
        except ValueError:
            print("the optimisers have changed since; they start afresh", flush=True)
        proxies.data.copy_(saved["proxies"])
        start = saved["start"].cpu()  # their axes are not the same twice
        step, spent = saved["step"], saved["spent"]
        dataset.rng.seed(arguments.seed + step)
        generator.manual_seed(arguments.seed + step)
        print(f"going on from step {step}, {spent / 60:.1f} minutes", flush=True)

    def save():
        torch.save({"model": model.state_dict(), "average": average.state_dict(), "optimizer": optimizer.state_dict(), "muon": muon.state_dict(),
                    "proxies": proxies.data, "start": start, "variant": arguments.variant, "step": step, "spent": spent}, checkpoint.with_suffix(".new"))
        checkpoint.with_suffix(".new").replace(checkpoint)

    parameters = sum(p.numel() for p in model.parameters())
    print(f"{parameters / 1e6:.2f} M parameters, {len(dataset.classes)} concepts, "
          f"{sum(map(len, dataset.rows.values()))} pictures, {len(dataset.right_for)} texts", flush=True)
    budget = arguments.minutes * 60
    side, began = 0, clock()
    saved_at = checked_at = spent
    running, pictures = None, 0
    while spent < budget:
        progress = spent / budget
        wanted = SMALL_SIDE if progress < arguments.small_share else IMAGE_SIDE
        if wanted != side:
            side = wanted
            if dataset.stored_for != side:
                dataset.load_images(side)
            print(f"pictures are now {side} px, {(side // PATCH) ** 2} patches", flush=True)
            began = clock()
        rate = arguments.learning_rate * min(1.0, progress / WARM_UP + 0.02)
        rate *= 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress))
        for group in optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        muon.param_groups[0]["lr"] = arguments.muon_rate * rate / arguments.learning_rate

        rows, classes, ids, pairs, soft = dataset.batch(
            arguments.concepts_per_batch, arguments.pictures_per_concept, arguments.texts_per_batch)
        pixels = augment(dataset.store[rows], torch.from_numpy(dataset.mono[rows]),
                         torch.from_numpy(dataset.flip[rows]), side, generator, arguments.strength).to(device)
        with torch.autocast(torch.device(device).type, dtype=torch.bfloat16, enabled=arguments.bf16):
            images = image_vectors(model, pixels)
            texts = text_vectors(model, ids.to(device))
        anchors = F.normalize(proxies, dim=-1)
        pair_loss = sigmoid_loss(images, texts, pairs.to(device), model.logit_scale, model.logit_bias)
        picture_loss = F.cross_entropy(images @ anchors.T * 16, classes.to(device), label_smoothing=0.05)
        text_loss = F.cross_entropy(texts @ anchors.T * 16, soft.to(device), label_smoothing=0.05)
        start_loss = (1 - (images * start[rows].to(device)).sum(-1)).mean()
        loss = 0.2 * pair_loss + picture_loss + 0.5 * text_loss + max(0.0, 1 - progress / START_SHARE) * 4 * start_loss
        optimizer.zero_grad(set_to_none=True)
        muon.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 3.0)
        optimizer.step()
        muon.step()
        step += 1
        pictures += len(rows)
        with torch.no_grad():
            decay = min(EMA, (1 + step) / (10 + step))
            torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - decay)

        values = torch.tensor([pair_loss.item(), picture_loss.item(), text_loss.item(), start_loss.item(),
                               (images @ anchors.T).argmax(-1).eq(classes.to(device)).float().mean().item()])
        running = values if running is None else running * 0.95 + values * 0.05
        now = clock()
        spent, began = spent + now - began, now
        if step % 20 == 0 or step == 5:
            rest = (budget - spent) / 60
            print(f"step {step} {side} px {spent / 60:.1f} min, {rest:.1f} to go, {spent / step:.2f} s a step | "
                  f"pair {running[0]:.3f} picture {running[1]:.3f} text {running[2]:.3f} "
                  f"start {running[3]:.3f} right {running[4]:.3f} | rate {rate:.2e} t {model.logit_scale.exp().item():.2f} "
                  f"b {model.logit_bias.item():.2f}", flush=True)
        if spent - checked_at > 600:
            first, fifth = validate(average, dataset, device, side)
            print(f"held-back pictures: top-1 {first:.3f} top-5 {fifth:.3f}", flush=True)
            checked_at = spent
        if spent - saved_at > 120:
            save()
            saved_at = spent
    save()
    first, fifth = validate(average, dataset, device)
    print(f"done: {step} steps, {pictures} pictures in this run, top-1 {first:.3f} top-5 {fifth:.3f}", flush=True)
    (arguments.out / "summary.json").write_text(json.dumps(
        {"steps": step, "minutes": spent / 60, "held_back_top1": first, "held_back_top5": fifth,
         "settings": {k: str(v) for k, v in vars(arguments).items()}}, indent=1))


if __name__ == "__main__":
    main()
