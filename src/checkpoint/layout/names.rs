//! Name maps as tables: which stored tensors make a canonical one, and in what form.
//!
//! A row pairs a canonical module with stored ones. `{}` stands for the number of a layer; the leaf
//! (`.weight`, `.bias`) follows from the form.

use crate::checkpoint::weights::{Part, Recipe};
use crate::model::{ModelSpec, TensorSpec};

/// How a stored tensor differs from the canonical one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// A torch module: `.weight` and `.bias`, as they are.
    Torch,
    /// A torch module that fuses the rows of three; this is one of them.
    Fused(usize),
    /// torch's `MultiheadAttention`, which fuses three without a module: `_weight` and `_bias`.
    InProj(usize),
    /// A torch convolution `[out, channel, y, x]`, or a linear layer over patches.
    Patches,
    /// A flax `LayerNorm`: `/scale` and `/bias`.
    Norm,
    /// A flax `Embed`: `/embedding`.
    Embed,
    /// A flax `Dense`: `/kernel` `[in, out]` and `/bias`.
    Dense,
    /// A flax attention projection: `/kernel` `[in, heads, head]` and `/bias` `[heads, head]`.
    HeadsIn,
    /// A flax attention output: `/kernel` `[heads, head, out]` and `/bias`.
    HeadsOut,
    /// A flax convolution `[y, x, channel, out]`, or a `Dense` over patches.
    FlaxPatches,
    /// A parameter by itself.
    Param,
    /// A position table: with or without a leading 1, its positions on one axis or on two.
    Positions,
    /// One number, with or without an axis.
    Scalar,
}

/// A stored module, its form, and how many shares of the canonical rows it holds.
pub(super) type Source = (&'static str, Form, usize);

/// A canonical module, and the stored ones whose rows make it, in order.
pub(super) struct Row {
    canonical: &'static str,
    stored: &'static [Source],
}

/// A row of a table.
pub(super) const fn row(canonical: &'static str, stored: &'static [Source]) -> Row {
    Row { canonical, stored }
}

/// One tower, as far as forms depend on it.
#[derive(Debug, Clone, Copy)]
struct Tower {
    heads: usize,
    depth: usize,
    stacked: bool,
}

/// What names and forms depend on beside the table.
#[derive(Debug, Clone)]
pub(super) struct Context {
    prefix: &'static str,
    separator: &'static str,
    image: Tower,
    text: Tower,
    patch: usize,
    grid: (usize, usize),
}

impl Context {
    /// For torch layouts: stored names get `prefix`, layers are numbered.
    pub(super) fn torch(spec: &ModelSpec, prefix: &'static str) -> Self {
        Self::new(spec, prefix, "", false, false)
    }

    /// For flax layouts: layers are numbered after an underscore, or stacked in one tensor.
    pub(super) fn flax(spec: &ModelSpec, prefix: &'static str, image: bool, text: bool) -> Self {
        Self::new(spec, prefix, "_", image, text)
    }

    fn new(spec: &ModelSpec, prefix: &'static str, separator: &'static str, image: bool, text: bool) -> Self {
        let tower = |encoder: Option<&crate::model::EncoderSpec>, stacked| Tower {
            heads: encoder.map_or(1, |encoder| encoder.heads),
            depth: encoder.map_or(1, |encoder| encoder.depth),
            stacked,
        };
        Self {
            prefix,
            separator,
            image: tower(spec.image.as_ref().map(|tower| &tower.encoder), image),
            text: tower(spec.text.as_ref().map(|tower| &tower.encoder), text),
            patch: spec.image.as_ref().map_or(1, |tower| tower.patch),
            grid: spec.image.as_ref().map_or((1, 1), |tower| (tower.positions.rows, tower.positions.cols)),
        }
    }
}

/// The recipe of a canonical tensor by tables.
pub(super) fn recipe(tables: &[&[Row]], tensor: &TensorSpec, context: &Context) -> Recipe {
    let name = Name::split(&tensor.name);
    let Some(row) = tables.iter().flat_map(|table| table.iter()).find(|row| row.canonical == name.module)
    else {
        // A canonical name that no table has is reported as missing under that name.
        return Recipe::one(Part::same(tensor.name.clone(), &tensor.shape));
    };
    let shares: usize = row.stored.iter().map(|(_, _, share)| share).sum();
    let parts = row.stored.iter().map(|(stored, form, share)| {
        let mut shape = tensor.shape.clone();
        shape[0] = shape[0] / shares * share;
        part(stored, *form, &name, &shape, context)
    });
    Recipe { parts: parts.collect(), sum: false }
}

/// A canonical name taken apart.
#[derive(Debug, PartialEq, Eq)]
struct Name<'a> {
    module: String,
    leaf: &'a str,
    layer: Option<usize>,
    text: bool,
}

impl<'a> Name<'a> {
    /// `a.layers.3.b.weight` is module `a.layers.{}.b`, leaf `weight`, layer 3; a parameter that
    /// belongs to no module (`…probe`, `logit_scale`) has an empty leaf.
    fn split(name: &'a str) -> Self {
        let (module, leaf) = [".weight", ".bias", "_weight", "_bias"]
            .iter()
            .find_map(|end| Some((name.strip_suffix(end)?, &name[name.len() - end.len() + 1..])))
            .filter(|(module, _)| *module != "logit")
            .unwrap_or((name, ""));
        let text = name.starts_with("text_model.");
        if let Some((before, rest)) = module.split_once(".layers.")
            && let Some((number, after)) = rest.split_once('.')
            && let Ok(layer) = number.parse()
        {
            return Self { module: format!("{before}.layers.{{}}.{after}"), leaf, layer: Some(layer), text };
        }
        Self { module: module.to_string(), leaf, layer: None, text }
    }
}

fn part(stored: &str, form: Form, name: &Name, shape: &[usize], context: &Context) -> Part {
    let weight = name.leaf == "weight";
    let tower = if name.text { context.text } else { context.image };
    let stacked = name.layer.is_some() && tower.stacked;
    let number = match name.layer {
        Some(layer) if !stacked => format!("{}{layer}", context.separator),
        _ => String::new(),
    };
    let end = match form {
        Form::Torch | Form::Fused(_) | Form::Patches => format!(".{}", name.leaf),
        Form::InProj(_) => format!("_{}", name.leaf),
        Form::Norm => if weight { "/scale" } else { "/bias" }.to_string(),
        Form::Embed => "/embedding".to_string(),
        Form::Dense | Form::HeadsIn | Form::HeadsOut | Form::FlaxPatches => {
            if weight { "/kernel" } else { "/bias" }.to_string()
        }
        Form::Param | Form::Positions | Form::Scalar => String::new(),
    };
    let mut shapes = shapes(form, weight, shape, tower.heads, context);
    let mut piece = match form {
        Form::Fused(index) | Form::InProj(index) => Some((index, 3)),
        _ => None,
    };
    if stacked {
        shapes.iter_mut().for_each(|(shape, _)| shape.insert(0, tower.depth));
        piece = name.layer.map(|layer| (layer, tower.depth));
    }
    let prefix = if form == Form::Scalar && context.separator.is_empty() { "" } else { context.prefix };
    Part {
        name: format!("{prefix}{}{end}", stored.replace("{}", &number)),
        shapes,
        piece,
        stacked,
        rows: None,
    }
}

type Shapes = Vec<(Vec<usize>, Option<Vec<usize>>)>;

/// The shapes that a stored tensor may have, the usual one first, with the order of axes that makes
/// each canonical.
fn shapes(form: Form, weight: bool, shape: &[usize], heads: usize, context: &Context) -> Shapes {
    let same = || vec![(shape.to_vec(), None)];
    let p = context.patch;
    match form {
        Form::Torch | Form::Norm | Form::Embed | Form::Param => same(),
        Form::Fused(_) | Form::InProj(_) => {
            let mut shape = shape.to_vec();
            shape[0] *= 3;
            vec![(shape, None)]
        }
        Form::Patches if weight => {
            vec![(vec![shape[0], 3, p, p], Some(vec![0, 2, 3, 1])), (shape.to_vec(), None)]
        }
        Form::FlaxPatches if weight => vec![
            (vec![p, p, 3, shape[0]], Some(vec![3, 0, 1, 2])),
            (vec![shape[1], shape[0]], Some(vec![1, 0])),
        ],
        Form::Dense if weight => vec![(vec![shape[1], shape[0]], Some(vec![1, 0]))],
        Form::HeadsIn if weight => {
            vec![(vec![shape[1], heads, shape[0] / heads], Some(vec![1, 2, 0]))]
        }
        Form::HeadsIn => vec![(vec![heads, shape[0] / heads], None)],
        Form::HeadsOut if weight => {
            vec![(vec![heads, shape[1] / heads, shape[0]], Some(vec![2, 0, 1]))]
        }
        Form::Patches | Form::FlaxPatches | Form::Dense | Form::HeadsOut => same(),
        Form::Positions => {
            let (positions, width) = (shape[0], shape[1]);
            let mut shapes = vec![(vec![1, positions, width], None), (vec![positions, width], None)];
            if context.grid.0 * context.grid.1 == positions {
                let (rows, cols) = context.grid;
                shapes.push((vec![rows, cols, width], None));
                shapes.push((vec![1, rows, cols, width], None));
            }
            shapes
        }
        Form::Scalar => vec![(vec![1], None), (vec![], None)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_split() {
        let name = Name::split("vision_model.encoder.layers.11.mlp.fc1.weight");
        assert_eq!((name.module.as_str(), name.leaf), ("vision_model.encoder.layers.{}.mlp.fc1", "weight"));
        assert_eq!((name.layer, name.text), (Some(11), false));
        let name = Name::split("vision_model.head.attention.in_proj_bias");
        assert_eq!((name.module.as_str(), name.leaf), ("vision_model.head.attention.in_proj", "bias"));
        for whole in ["logit_bias", "logit_scale", "vision_model.head.probe"] {
            assert_eq!((Name::split(whole).module.as_str(), Name::split(whole).leaf), (whole, ""));
        }
    }
}
