//! Logits that were published with the weights.

use crate::pipeline::ModelInfo;

/// Logits of one checkpoint.
pub struct Golden {
    /// The checkpoint.
    pub model: &'static str,
    /// Where they were published.
    pub source: &'static str,
    /// Width and height of each picture to draw; `None` where a photograph is needed.
    pub drawn: Option<&'static [(u32, u32)]>,
    /// Each text with its logit for each picture.
    pub logits: &'static [(&'static str, &'static [f32])],
    /// Largest difference allowed. bf16 alone moves a logit of these by a few hundredths.
    pub tolerance: f32,
}

impl Golden {
    /// Whether a loaded model is that checkpoint: by its name, whoever mirrors it.
    pub fn is_of(&self, info: &ModelInfo) -> bool {
        let last = |name: &str| name.split('@').next().and_then(|n| n.rsplit('/').next()).map(str::to_owned);
        last(&info.source) == last(self.model)
    }
}

/// All that are known and can be checked without other data than one photograph.
pub fn all() -> &'static [Golden] {
    &[
        Golden {
            model: "google/siglip2-base-patch16-naflex",
            source: "transformers, tests/models/siglip2/test_modeling_siglip2.py",
            drawn: Some(&[(224, 224), (1024, 1024), (224, 1024)]),
            logits: &[
                ("circle", &[1.0195, -0.0280, -1.4468]),
                ("ellipsoid", &[-4.5395, -6.2269, -1.5667]),
                ("blue circle on red background", &[4.1757, 5.0358, 3.5159]),
                ("blue circle with green border on red background", &[9.4264, 10.1879, 6.3353]),
                ("green circle on red background", &[2.4409, 3.1058, 4.5491]),
                ("a dog", &[-12.3230, -13.7355, -13.4632]),
                ("a blue dog with a green border on a red background", &[1.1520, 1.1687, -1.9647]),
            ],
            tolerance: 0.1,
        },
        Golden {
            model: "google/siglip-base-patch16-224",
            source: "transformers, tests/models/siglip/test_modeling_siglip.py",
            drawn: None,
            logits: &[("a photo of 2 cats", &[-0.7567]), ("a photo of 2 dogs", &[-10.3354])],
            tolerance: 0.1,
        },
    ]
}
