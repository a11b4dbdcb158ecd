//! The tensors of a model, by their canonical names: what a checkpoint must hold for a spec.

use super::spec::{EncoderSpec, ImagePooling, ImageTowerSpec, ModelSpec, TextTowerSpec};

/// One tensor that a spec needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// The canonical name, as documented at [`super::Weights`].
    pub name: String,
    /// The canonical shape; linear weights are `[out, in]`.
    pub shape: Vec<usize>,
}

impl TensorSpec {
    /// Number of values.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

impl ModelSpec {
    /// Every tensor of the model, image tower first, in the order of the computation.
    pub fn tensors(&self) -> Vec<TensorSpec> {
        let mut list = List(Vec::new());
        if let Some(image) = &self.image {
            list.image(image);
        }
        if let Some(text) = &self.text {
            list.text(text);
        }
        if self.scores {
            list.add("logit_scale", &[1]);
            list.add("logit_bias", &[1]);
        }
        if let (Some(classifier), Some(image)) = (&self.classifier, &self.image) {
            list.affine("classifier", &[classifier.labels.len(), image.encoder.width]);
        }
        list.0
    }

    /// Number of learned parameters: the figure that model cards give.
    pub fn parameters(&self) -> usize {
        self.tensors().iter().map(TensorSpec::elements).sum()
    }
}

struct List(Vec<TensorSpec>);

impl List {
    fn add(&mut self, name: impl Into<String>, shape: &[usize]) {
        self.0.push(TensorSpec { name: name.into(), shape: shape.to_vec() });
    }

    fn affine(&mut self, name: &str, shape: &[usize]) {
        self.add(format!("{name}.weight"), shape);
        self.add(format!("{name}.bias"), &shape[..1]);
    }

    fn blocks(&mut self, tower: &str, encoder: &EncoderSpec) {
        let (width, mlp) = (encoder.width, encoder.mlp);
        for index in 0..encoder.depth {
            let block = format!("{tower}.encoder.layers.{index}");
            self.affine(&format!("{block}.layer_norm1"), &[width]);
            for name in ["q_proj", "k_proj", "v_proj", "out_proj"] {
                self.affine(&format!("{block}.self_attn.{name}"), &[width, width]);
            }
            self.affine(&format!("{block}.layer_norm2"), &[width]);
            self.affine(&format!("{block}.mlp.fc1"), &[mlp, width]);
            self.affine(&format!("{block}.mlp.fc2"), &[width, mlp]);
        }
    }

    fn image(&mut self, image: &ImageTowerSpec) {
        let (width, mlp) = (image.encoder.width, image.encoder.mlp);
        let embeddings = "vision_model.embeddings";
        self.affine(&format!("{embeddings}.patch_embedding"), &[width, image.patch * image.patch * 3]);
        self.add(format!("{embeddings}.position_embedding.weight"), &[image.positions.len(), width]);
        self.blocks("vision_model", &image.encoder);
        self.affine("vision_model.post_layernorm", &[width]);
        if image.pooling == ImagePooling::MapHead {
            self.add("vision_model.head.probe", &[1, 1, width]);
            self.add("vision_model.head.attention.in_proj_weight", &[3 * width, width]);
            self.add("vision_model.head.attention.in_proj_bias", &[3 * width]);
            self.affine("vision_model.head.attention.out_proj", &[width, width]);
            self.affine("vision_model.head.layernorm", &[width]);
            self.affine("vision_model.head.mlp.fc1", &[mlp, width]);
            self.affine("vision_model.head.mlp.fc2", &[width, mlp]);
        }
    }

    fn text(&mut self, text: &TextTowerSpec) {
        let width = text.encoder.width;
        self.add("text_model.embeddings.token_embedding.weight", &[text.vocab, width]);
        self.add("text_model.embeddings.position_embedding.weight", &[text.context, width]);
        self.blocks("text_model", &text.encoder);
        self.affine("text_model.final_layer_norm", &[width]);
        if let Some(projection) = text.projection {
            self.affine("text_model.head", &[projection, width]);
        }
        if text.long_head {
            self.affine("text_model.long_head", &[text.out_dim(), text.out_dim()]);
        }
    }
}
