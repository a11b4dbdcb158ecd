"""Write a trained run as a Hugging Face checkpoint: config, preprocessing, tokenizer and f16 weights.

    python export.py --data DATA --run RUN --out ..

Before that, temperature and bias are fitted on the held-back pictures of the training vendors against the names of
all training concepts: the batches of training hold far more right pairs than such a search does, so the trained
bias is too optimistic for it. The ranking is not changed by that.
"""

import argparse
import json
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer

from data import Dataset
from model import CONTEXT, IMAGE_SIDE, build, image_vectors, text_vectors


@torch.no_grad()
def held_back_vectors(model, dataset):
    """Vectors of the held-back pictures and of all training names, and which belong together."""
    names = [dataset.concepts[c]["names"]["en"] for c in dataset.classes]
    ids = torch.tensor([e.ids for e in dataset.tokenizer.encode_batch(names)])
    texts = torch.cat([text_vectors(model, part) for part in ids.split(256)])
    pixels = torch.from_numpy(dataset.images[dataset.validation]).permute(0, 3, 1, 2).float() / 255
    pixels = pixels[:, :3] * pixels[:, 3:] + 1 - pixels[:, 3:]
    pixels = F.interpolate(pixels, size=(IMAGE_SIDE, IMAGE_SIDE), mode="bilinear", antialias=True) * 2 - 1
    images = torch.cat([image_vectors(model, part) for part in pixels.split(100)])
    right = torch.tensor([dataset.class_of[dataset.pictures[r]["concept"]] for r in dataset.validation])
    return images, texts, F.one_hot(right, len(names)).float()


def fit_scale_and_bias(images, texts, right, scale, bias):
    """The temperature and bias under which the held-back pairs are most likely."""
    cosine = (images @ texts.T).double()
    scale = torch.nn.Parameter(scale.detach().double().clone())
    bias = torch.nn.Parameter(bias.detach().double().clone())
    optimizer = torch.optim.LBFGS([scale, bias], lr=0.5, max_iter=200, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = F.binary_cross_entropy_with_logits(cosine * scale.exp() + bias, right.double(), reduction="sum") / len(cosine)
        loss.backward()
        return loss

    optimizer.step(closure)
    return scale.detach().float(), bias.detach().float()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    dataset = Dataset(arguments.data, 0)
    pad, eos = (dataset.tokenizer.token_to_id(t) for t in ("<pad>", "</s>"))
    saved = torch.load(arguments.run / "checkpoint.pt", map_location="cpu", weights_only=True)
    model = build(dataset.tokenizer.get_vocab_size(), pad, eos, saved.get("variant", "demo")).eval()
    model.load_state_dict(saved["average"])

    # Round first, so that what is fitted is what is shipped.
    model.half().float()
    images, texts, right = held_back_vectors(model, dataset)
    scale, bias = fit_scale_and_bias(images, texts, right, model.logit_scale, model.logit_bias)
    print(f"trained t {model.logit_scale.exp().item():.3f} b {model.logit_bias.item():.3f}; "
          f"fitted t {scale.exp().item():.3f} b {bias.item():.3f}")
    model.logit_scale.data.copy_(scale)
    model.logit_bias.data.copy_(bias)

    out = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    # The names of the hub's files, which transformers 5 no longer uses inside.
    model.half().save_pretrained(out, safe_serialization=True)
    (out / "preprocessor_config.json").write_text(json.dumps({
        "do_convert_rgb": True, "do_normalize": True, "do_rescale": True, "do_resize": True,
        "image_mean": [0.5, 0.5, 0.5], "image_processor_type": "SiglipImageProcessor",
        "image_std": [0.5, 0.5, 0.5], "processor_class": "SiglipProcessor", "resample": 2,
        "rescale_factor": 1 / 255, "size": {"height": IMAGE_SIDE, "width": IMAGE_SIDE},
    }, indent=2) + "\n")
    # As trained: no padding and truncation inside, the caller pads to the context length.
    tokenizer = Tokenizer.from_file(str(arguments.data / "tokenizer.json"))
    tokenizer.save(str(out / "tokenizer.json"), pretty=False)
    (out / "tokenizer_config.json").write_text(json.dumps({
        "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": CONTEXT, "padding_side": "right",
        "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>", "model_input_names": ["input_ids"],
        "clean_up_tokenization_spaces": False,
    }, indent=2) + "\n")


if __name__ == "__main__":
    main()
