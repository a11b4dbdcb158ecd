//! Template sets that are known by name.
//!
//! CLIP's are those of openai/CLIP at d05afc4 (MIT licence): `data/prompts.md` for the single datasets,
//! `notebooks/Prompt_Engineering_for_ImageNet.ipynb` for ImageNet. SigLIP's is that of transformers
//! (`pipelines/zero_shot_image_classification.py`).

use crate::model::zero_shot::DEFAULT_TEMPLATE;

/// Every set: its name and its templates.
const SETS: [(&str, &[&str]); 10] = [
    ("imagenet-80", IMAGENET_80),
    ("imagenet-7", IMAGENET_7),
    ("pets", PETS),
    ("flowers", FLOWERS),
    ("aircraft", AIRCRAFT),
    ("textures", TEXTURES),
    ("satellite", SATELLITE),
    ("food", FOOD),
    ("actions", ACTIONS),
    ("siglip", &[DEFAULT_TEMPLATE]),
];

/// The templates of a set; `None` if there is no such set.
pub fn built_in(name: &str) -> Option<&'static [&'static str]> {
    SETS.iter().find(|(known, _)| *known == name).map(|&(_, templates)| templates)
}

/// The names of all sets.
pub fn built_in_names() -> impl Iterator<Item = &'static str> {
    SETS.iter().map(|&(name, _)| name)
}

/// CLIP's 80 templates for ImageNet.
const IMAGENET_80: &[&str] = &[
    "a bad photo of a {}.",
    "a photo of many {}.",
    "a sculpture of a {}.",
    "a photo of the hard to see {}.",
    "a low resolution photo of the {}.",
    "a rendering of a {}.",
    "graffiti of a {}.",
    "a bad photo of the {}.",
    "a cropped photo of the {}.",
    "a tattoo of a {}.",
    "the embroidered {}.",
    "a photo of a hard to see {}.",
    "a bright photo of a {}.",
    "a photo of a clean {}.",
    "a photo of a dirty {}.",
    "a dark photo of the {}.",
    "a drawing of a {}.",
    "a photo of my {}.",
    "the plastic {}.",
    "a photo of the cool {}.",
    "a close-up photo of a {}.",
    "a black and white photo of the {}.",
    "a painting of the {}.",
    "a painting of a {}.",
    "a pixelated photo of the {}.",
    "a sculpture of the {}.",
    "a bright photo of the {}.",
    "a cropped photo of a {}.",
    "a plastic {}.",
    "a photo of the dirty {}.",
    "a jpeg corrupted photo of a {}.",
    "a blurry photo of the {}.",
    "a photo of the {}.",
    "a good photo of the {}.",
    "a rendering of the {}.",
    "a {} in a video game.",
    "a photo of one {}.",
    "a doodle of a {}.",
    "a close-up photo of the {}.",
    "a photo of a {}.",
    "the origami {}.",
    "the {} in a video game.",
    "a sketch of a {}.",
    "a doodle of the {}.",
    "a origami {}.",
    "a low resolution photo of a {}.",
    "the toy {}.",
    "a rendition of the {}.",
    "a photo of the clean {}.",
    "a photo of a large {}.",
    "a rendition of a {}.",
    "a photo of a nice {}.",
    "a photo of a weird {}.",
    "a blurry photo of a {}.",
    "a cartoon {}.",
    "art of a {}.",
    "a sketch of the {}.",
    "a embroidered {}.",
    "a pixelated photo of a {}.",
    "itap of the {}.",
    "a jpeg corrupted photo of the {}.",
    "a good photo of a {}.",
    "a plushie {}.",
    "a photo of the nice {}.",
    "a photo of the small {}.",
    "a photo of the weird {}.",
    "the cartoon {}.",
    "art of the {}.",
    "a drawing of the {}.",
    "a photo of the large {}.",
    "a black and white photo of a {}.",
    "the plushie {}.",
    "a dark photo of a {}.",
    "itap of a {}.",
    "graffiti of the {}.",
    "a toy {}.",
    "itap of my {}.",
    "a photo of a cool {}.",
    "a photo of a small {}.",
    "a tattoo of the {}.",
];

/// The seven of them that forward selection chose, in that order.
const IMAGENET_7: &[&str] = &[
    "itap of a {}.",
    "a bad photo of the {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
];

/// OxfordPets.
const PETS: &[&str] = &["a photo of a {}, a type of pet."];

/// Flowers102.
const FLOWERS: &[&str] = &["a photo of a {}, a type of flower."];

/// FGVCAircraft.
const AIRCRAFT: &[&str] = &["a photo of a {}, a type of aircraft.", "a photo of the {}, a type of aircraft."];

/// DescribableTextures.
const TEXTURES: &[&str] = &[
    "a photo of a {} texture.",
    "a photo of a {} pattern.",
    "a photo of a {} thing.",
    "a photo of a {} object.",
    "a photo of the {} texture.",
    "a photo of the {} pattern.",
    "a photo of the {} thing.",
    "a photo of the {} object.",
];

/// EuroSAT.
const SATELLITE: &[&str] = &[
    "a centered satellite photo of {}.",
    "a centered satellite photo of a {}.",
    "a centered satellite photo of the {}.",
];

/// Food101.
const FOOD: &[&str] = &["a photo of {}, a type of food."];

/// UCF101.
const ACTIONS: &[&str] = &[
    "a photo of a person {}.",
    "a video of a person {}.",
    "a example of a person {}.",
    "a demonstration of a person {}.",
    "a photo of the person {}.",
    "a video of the person {}.",
    "a example of the person {}.",
    "a demonstration of the person {}.",
    "a photo of a person using {}.",
    "a video of a person using {}.",
    "a example of a person using {}.",
    "a demonstration of a person using {}.",
    "a photo of the person using {}.",
    "a video of the person using {}.",
    "a example of the person using {}.",
    "a demonstration of the person using {}.",
    "a photo of a person doing {}.",
    "a video of a person doing {}.",
    "a example of a person doing {}.",
    "a demonstration of a person doing {}.",
    "a photo of the person doing {}.",
    "a video of the person doing {}.",
    "a example of the person doing {}.",
    "a demonstration of the person doing {}.",
    "a photo of a person during {}.",
    "a video of a person during {}.",
    "a example of a person during {}.",
    "a demonstration of a person during {}.",
    "a photo of the person during {}.",
    "a video of the person during {}.",
    "a example of the person during {}.",
    "a demonstration of the person during {}.",
    "a photo of a person performing {}.",
    "a video of a person performing {}.",
    "a example of a person performing {}.",
    "a demonstration of a person performing {}.",
    "a photo of the person performing {}.",
    "a video of the person performing {}.",
    "a example of the person performing {}.",
    "a demonstration of the person performing {}.",
    "a photo of a person practicing {}.",
    "a video of a person practicing {}.",
    "a example of a person practicing {}.",
    "a demonstration of a person practicing {}.",
    "a photo of the person practicing {}.",
    "a video of the person practicing {}.",
    "a example of the person practicing {}.",
    "a demonstration of the person practicing {}.",
];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::model::zero_shot::SLOT;

    #[test]
    fn every_template_has_one_place_for_the_label_and_is_there_once() {
        let count = |name: &str| built_in(name).unwrap().len();
        assert_eq!(
            [count("imagenet-80"), count("imagenet-7"), count("actions"), count("textures")],
            [80, 7, 48, 8]
        );
        for name in built_in_names() {
            let templates = built_in(name).unwrap();
            assert!(templates.iter().all(|template| template.matches(SLOT).count() == 1), "{name}");
            assert_eq!(templates.iter().collect::<HashSet<_>>().len(), templates.len(), "{name}");
        }
        let all: HashSet<_> = built_in("imagenet-80").unwrap().iter().collect();
        assert!(built_in("imagenet-7").unwrap().iter().all(|template| all.contains(template)));
        assert!(built_in("no such").is_none());
    }
}
