"""The demo model: SigLIP's architecture at small size, as a transformers `SiglipModel`.

Training uses the very class that the exported files are checked against, so nothing is converted on the way.
"""

import math

import torch
from transformers import SiglipConfig, SiglipModel

IMAGE_SIDE = 72
PATCH = 12  # 36 patches; 16 while training begins with smaller pictures
CONTEXT = 16  # as SigLIP so400m-patch14-224
WIDTH = 192

MODELS = {"demo": dict(depth=6, text_depth=3), "shallow": dict(depth=4, text_depth=3)}


def build(vocabulary: int, pad: int, eos: int, variant: str = "demo") -> SiglipModel:
    """A freshly initialised model with SigLIP's starting temperature and bias."""
    sizes = MODELS[variant]
    config = SiglipConfig(
        vision_config=dict(
            hidden_size=WIDTH, intermediate_size=4 * WIDTH, num_hidden_layers=sizes["depth"],
            num_attention_heads=WIDTH // 64, image_size=IMAGE_SIDE, patch_size=PATCH, num_channels=3,
            hidden_act="gelu_pytorch_tanh", layer_norm_eps=1e-6, attention_dropout=0.0,
        ),
        text_config=dict(
            vocab_size=vocabulary, hidden_size=WIDTH, intermediate_size=4 * WIDTH,
            num_hidden_layers=sizes["text_depth"], num_attention_heads=WIDTH // 64,
            max_position_embeddings=CONTEXT, projection_size=WIDTH, hidden_act="gelu_pytorch_tanh",
            layer_norm_eps=1e-6, attention_dropout=0.0, pad_token_id=pad, bos_token_id=eos, eos_token_id=eos,
        ),
    )
    model = SiglipModel(config)
    with torch.no_grad():
        model.logit_scale.fill_(math.log(10.0))
        model.logit_bias.fill_(-10.0)
    return model


def pooled(output):
    """The pooled vector, from transformers 4 (a tensor) and 5 (an output object) alike."""
    return output if torch.is_tensor(output) else output.pooler_output


def image_vectors(model: SiglipModel, pixels: torch.Tensor) -> torch.Tensor:
    """Normalised image embeddings; smaller pictures than the model's size get interpolated positions."""
    smaller = pixels.shape[-1] != IMAGE_SIDE
    vectors = pooled(model.get_image_features(pixel_values=pixels, interpolate_pos_encoding=smaller))
    return torch.nn.functional.normalize(vectors.float(), dim=-1)


def text_vectors(model: SiglipModel, ids: torch.Tensor) -> torch.Tensor:
    """Normalised text embeddings of padded token ids."""
    return torch.nn.functional.normalize(pooled(model.get_text_features(input_ids=ids)).float(), dim=-1)


@torch.no_grad()
def start_well(model: SiglipModel, pixels: torch.Tensor) -> None:
    """Begin with a patch embedding that whitens real patches and with positions that can be told apart.

    A short run has no time to find either: from the usual start the positions are ten times weaker than the content.
    """
    patches = torch.nn.functional.unfold(pixels, PATCH, stride=PATCH).transpose(1, 2).reshape(-1, 3 * PATCH * PATCH)
    mean = patches.mean(0)
    values, vectors = torch.linalg.eigh((patches - mean).T @ (patches - mean) / len(patches))
    values, vectors = values.flip(0)[:WIDTH], vectors.flip(1)[:, :WIDTH]
    weight = (vectors / (values + values[16]).sqrt()).T
    weight = torch.linalg.qr(torch.randn(WIDTH, WIDTH))[0] @ weight
    embeddings = model.vision_model.embeddings
    embeddings.patch_embedding.weight.copy_(weight.view(WIDTH, 3, PATCH, PATCH))
    embeddings.patch_embedding.bias.copy_(-weight @ mean)
    grid = torch.arange(IMAGE_SIDE // PATCH, dtype=torch.float32)
    waves = torch.arange(1, WIDTH // 4 + 1, dtype=torch.float32) * (2 * math.pi / 96)
    wave = grid[:, None] * waves
    one = torch.cat([wave.sin(), wave.cos()], 1)
    rows = one[:, None].expand(-1, len(grid), -1)
    columns = one[None].expand(len(grid), -1, -1)
    positions = torch.cat([rows, columns], -1).reshape(-1, WIDTH)
    embeddings.position_embedding.weight.copy_(0.7 * positions)
