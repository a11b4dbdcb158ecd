//! big_vision's `.npz`, written here with the `zip` crate as numpy writes it.

use std::io::{Cursor, Write};

use safetensors::tensor::Dtype;
use siglip::testing::checkpoint::{CheckpointError, Layout};
use siglip::testing::image::{Geometry, Resample};
use siglip::testing::model::{ImagePooling, PositionResize};
use siglip::testing::text::Canonicalization;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::{assert_same, broken, open_path, open_tiny, values};
use crate::support::tiny::{Array, Arrays, DEPTH, Family, HEADS, PATCH, Tiny, VOCAB, WIDTH, narrow};

/// Axes of an array in another order.
fn permute(array: &Array, order: &[usize]) -> Array {
    let shape: Vec<usize> = order.iter().map(|axis| array.shape[*axis]).collect();
    let strides: Vec<usize> =
        (0..array.shape.len()).map(|axis| array.shape[axis + 1..].iter().product()).collect();
    let values = (0..array.values.len()).map(|mut index| {
        let mut at = 0;
        for (size, axis) in shape.iter().zip(order).rev() {
            at += index % size * strides[*axis];
            index /= size;
        }
        array.values[at]
    });
    Array { values: values.collect(), shape }
}

fn reshape(array: Array, shape: &[usize]) -> Array {
    Array { shape: shape.to_vec(), ..array }
}

/// How an `.npz` is written.
#[derive(Debug, Clone, Copy, Default)]
struct Form {
    prefixed: bool,
    scanned: bool,
    deflated: bool,
    fortran: bool,
    headless: bool,
    old_positions: bool,
}

/// Renames both towers as big_vision does.
fn flax(source: &Arrays, naflex: bool, form: Form) -> Arrays {
    let mut result = Arrays::new();
    let get = |name: String| source[&name].clone();
    let head = WIDTH / HEADS;
    for (tower, flax) in [("vision_model", "img/Transformer"), ("text_model", "txt/Encoder_0")] {
        let norm = if tower == "text_model" { "final_layer_norm" } else { "post_layernorm" };
        result.insert(format!("{flax}/encoder_norm/scale"), get(format!("{tower}.{norm}.weight")));
        result.insert(format!("{flax}/encoder_norm/bias"), get(format!("{tower}.{norm}.bias")));
        let mut blocks: Vec<Arrays> = Vec::new();
        for layer in 0..DEPTH {
            let mut block = Arrays::new();
            let from = format!("{tower}.encoder.layers.{layer}");
            for (old, new) in [("layer_norm1", "LayerNorm_0"), ("layer_norm2", "LayerNorm_1")] {
                block.insert(format!("{new}/scale"), get(format!("{from}.{old}.weight")));
                block.insert(format!("{new}/bias"), get(format!("{from}.{old}.bias")));
            }
            for (old, new) in [("q_proj", "query"), ("k_proj", "key"), ("v_proj", "value")] {
                let kernel = permute(&get(format!("{from}.self_attn.{old}.weight")), &[1, 0]);
                let to = format!("MultiHeadDotProductAttention_0/{new}");
                block.insert(format!("{to}/kernel"), reshape(kernel, &[WIDTH, HEADS, head]));
                let bias = get(format!("{from}.self_attn.{old}.bias"));
                block.insert(format!("{to}/bias"), reshape(bias, &[HEADS, head]));
            }
            let out = permute(&get(format!("{from}.self_attn.out_proj.weight")), &[1, 0]);
            let to = "MultiHeadDotProductAttention_0/out";
            block.insert(format!("{to}/kernel"), reshape(out, &[HEADS, head, WIDTH]));
            block.insert(format!("{to}/bias"), get(format!("{from}.self_attn.out_proj.bias")));
            for (old, new) in [("fc1", "Dense_0"), ("fc2", "Dense_1")] {
                let kernel = permute(&get(format!("{from}.mlp.{old}.weight")), &[1, 0]);
                block.insert(format!("MlpBlock_0/{new}/kernel"), kernel);
                block.insert(format!("MlpBlock_0/{new}/bias"), get(format!("{from}.mlp.{old}.bias")));
            }
            blocks.push(block);
        }
        for name in blocks[0].keys() {
            if form.scanned {
                let mut shape = blocks[0][name].shape.clone();
                shape.insert(0, DEPTH);
                let values = blocks.iter().flat_map(|block| block[name].values.clone()).collect();
                result.insert(format!("{flax}/encoderblock/{name}"), Array { shape, values });
            } else {
                for (layer, block) in blocks.iter().enumerate() {
                    result.insert(format!("{flax}/encoderblock_{layer}/{name}"), block[name].clone());
                }
            }
        }
    }
    let patch = get("vision_model.embeddings.patch_embedding.weight".into());
    let kernel = if naflex { permute(&patch, &[1, 0]) } else { permute(&patch, &[2, 3, 1, 0]) };
    result.insert("img/embedding/kernel".into(), kernel);
    result.insert("img/embedding/bias".into(), get("vision_model.embeddings.patch_embedding.bias".into()));
    let positions = get("vision_model.embeddings.position_embedding.weight".into());
    let shape = if naflex { [4, 4, WIDTH] } else { [1, 9, WIDTH] };
    result.insert("img/pos_embedding".into(), reshape(positions, &shape));
    let pool = "img/MAPHead_0";
    result.insert(format!("{pool}/probe"), get("vision_model.head.probe".into()));
    for (index, name) in ["query", "key", "value"].iter().enumerate() {
        let weight = get("vision_model.head.attention.in_proj_weight".into());
        let rows = weight.values[index * WIDTH * WIDTH..(index + 1) * WIDTH * WIDTH].to_vec();
        let kernel = permute(&Array { shape: vec![WIDTH, WIDTH], values: rows }, &[1, 0]);
        let to = format!("{pool}/MultiHeadDotProductAttention_0/{name}");
        result.insert(format!("{to}/kernel"), reshape(kernel, &[WIDTH, HEADS, head]));
        let bias = get("vision_model.head.attention.in_proj_bias".into());
        let values = bias.values[index * WIDTH..(index + 1) * WIDTH].to_vec();
        result.insert(format!("{to}/bias"), Array { shape: vec![HEADS, head], values });
    }
    let out = permute(&get("vision_model.head.attention.out_proj.weight".into()), &[1, 0]);
    let to = format!("{pool}/MultiHeadDotProductAttention_0/out");
    result.insert(format!("{to}/kernel"), reshape(out, &[HEADS, head, WIDTH]));
    result.insert(format!("{to}/bias"), get("vision_model.head.attention.out_proj.bias".into()));
    result.insert(format!("{pool}/LayerNorm_0/scale"), get("vision_model.head.layernorm.weight".into()));
    result.insert(format!("{pool}/LayerNorm_0/bias"), get("vision_model.head.layernorm.bias".into()));
    for (old, new) in [("fc1", "Dense_0"), ("fc2", "Dense_1")] {
        let kernel = permute(&get(format!("vision_model.head.mlp.{old}.weight")), &[1, 0]);
        result.insert(format!("{pool}/MlpBlock_0/{new}/kernel"), kernel);
        let bias = get(format!("vision_model.head.mlp.{old}.bias"));
        result.insert(format!("{pool}/MlpBlock_0/{new}/bias"), bias);
    }
    result.insert("txt/Embed_0/embedding".into(), get("text_model.embeddings.token_embedding.weight".into()));
    let positions = get("text_model.embeddings.position_embedding.weight".into());
    let shape = [1, positions.shape[0], WIDTH];
    let positions = reshape(positions, &shape);
    if form.old_positions {
        result.insert("txt/Encoder_0/pos_embedding".into(), positions.clone());
    }
    result.insert("txt/pos_embedding".into(), positions);
    if !form.headless {
        let kernel = permute(&get("text_model.head.weight".into()), &[1, 0]);
        result.insert("txt/head/kernel".into(), kernel);
        result.insert("txt/head/bias".into(), get("text_model.head.bias".into()));
    }
    result.insert("t".into(), get("logit_scale".into()));
    result.insert("b".into(), get("logit_bias".into()));
    if form.prefixed {
        result = result.into_iter().map(|(name, array)| (format!("params/{name}"), array)).collect();
        result.insert("opt/step".into(), Array { shape: vec![1], values: vec![7.0] });
    }
    result
}

/// The bytes of an `.npz`.
fn npz(arrays: &Arrays, dtype: Dtype, form: Form) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    let method = if form.deflated { CompressionMethod::Deflated } else { CompressionMethod::Stored };
    let options = SimpleFileOptions::default().compression_method(method);
    for (name, array) in arrays {
        let descr = match dtype {
            Dtype::F32 => "<f4",
            Dtype::F16 => "<f2",
            Dtype::BF16 => "|V2",
            _ => "<f8",
        };
        let fortran = form.fortran && array.shape.len() > 1;
        let shape: String = array.shape.iter().map(|size| format!("{size}, ")).collect();
        let order = if fortran { "True" } else { "False" };
        let dict = format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': ({shape}), }}");
        let padded = format!("{dict:<117}\n");
        writer.start_file(format!("{name}.npy"), options).unwrap();
        writer.write_all(b"\x93NUMPY\x01\x00").unwrap();
        writer.write_all(&(padded.len() as u16).to_le_bytes()).unwrap();
        writer.write_all(padded.as_bytes()).unwrap();
        let reversed: Vec<usize> = (0..array.shape.len()).rev().collect();
        let stored = if fortran { permute(array, &reversed) } else { array.clone() };
        writer.write_all(&narrow(&stored.values, dtype)).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

#[test]
fn every_form_holds_the_same_weights() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.npz");
    for family in [Family::SigLip1, Family::NaFlex] {
        let source = Tiny::new(family);
        let expected = open_tiny(&source).unwrap();
        for bits in 0..16 {
            let [prefixed, scanned, deflated, fortran] = [1, 2, 4, 8].map(|bit| bits & bit != 0);
            let form = Form { prefixed, scanned, deflated, fortran, ..Form::default() };
            let arrays = flax(&source.arrays, family == Family::NaFlex, form);
            std::fs::write(&path, npz(&arrays, Dtype::F32, form)).unwrap();
            let found = open_path(&path).unwrap();
            assert_eq!(found.layout, Layout::BigVision);
            assert_eq!(found.spec, expected.spec, "{form:?}");
            assert_same(&found, &expected);
        }
    }
    // A folder with one archive is as good as the archive.
    let found = open_path(folder.path()).unwrap();
    assert_eq!(found.image.unwrap().geometry, Geometry::NaFlex { max_num_patches: 256 });
}

#[test]
fn preprocessing_is_big_visions() {
    let source = Tiny::new(Family::SigLip1);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.npz");
    let arrays = flax(&source.arrays, false, Form::default());
    std::fs::write(&path, npz(&arrays, Dtype::F32, Form::default())).unwrap();
    let found = open_path(&path).unwrap();
    let image = found.image.unwrap();
    assert_eq!(image.geometry, Geometry::Squash { height: 12, width: 12 });
    assert_eq!(image.resample, Resample::Bilinear);
    assert_eq!(found.text.unwrap().canonicalization, Canonicalization::BigVision);
    assert_eq!(found.spec.image.unwrap().position_resize, PositionResize::Bicubic);
}

#[test]
fn types_widen() {
    let source = Tiny::new(Family::SigLip1);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.npz");
    let arrays = flax(&source.arrays, false, Form::default());
    for (dtype, name) in [(Dtype::F16, "f16"), (Dtype::BF16, "bf16"), (Dtype::F64, "f64")] {
        std::fs::write(&path, npz(&arrays, dtype, Form::default())).unwrap();
        let found = open_path(&path).unwrap();
        assert_eq!(found.weights.dtypes(), [name]);
        let tensor = "text_model.embeddings.token_embedding.weight";
        let widened: Vec<f32> = match dtype {
            Dtype::F16 => {
                source.arrays[tensor].values.iter().map(|v| half::f16::from_f32(*v).to_f32()).collect()
            }
            Dtype::BF16 => {
                source.arrays[tensor].values.iter().map(|v| half::bf16::from_f32(*v).to_f32()).collect()
            }
            _ => source.arrays[tensor].values.clone(),
        };
        assert_eq!(values(&found, tensor, &[VOCAB, WIDTH]), widened);
    }
}

#[test]
fn variants_of_old_checkpoints() {
    let source = Tiny::new(Family::SigLip1);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.npz");
    let form = Form { headless: true, old_positions: true, ..Form::default() };
    let mut arrays = flax(&source.arrays, false, form);
    arrays.retain(|name, _| !name.starts_with("img/MAPHead_0"));
    std::fs::write(&path, npz(&arrays, Dtype::F32, form)).unwrap();
    let found = open_path(&path).unwrap();
    assert_eq!(found.spec.text.as_ref().unwrap().projection, None, "no text head");
    assert_eq!(found.spec.image.as_ref().unwrap().pooling, ImagePooling::Mean);
    let name = "text_model.embeddings.position_embedding.weight";
    let doubled: Vec<f32> = source.arrays[name].values.iter().map(|value| value + value).collect();
    assert_eq!(values(&found, name, &source.arrays[name].shape), doubled, "the second table is added");
    assert_eq!(found.spec.image.unwrap().patch, PATCH);
}

#[test]
fn broken_archives() {
    let source = Tiny::new(Family::SigLip1);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.npz");
    let good = flax(&source.arrays, false, Form::default());
    let message = |change: &dyn Fn(&mut Arrays)| {
        let mut arrays = good.clone();
        change(&mut arrays);
        std::fs::write(&path, npz(&arrays, Dtype::F32, Form::default())).unwrap();
        open_path(&path).unwrap_err().to_string()
    };
    let fc1 = "txt/Encoder_0/encoderblock_1/MlpBlock_0/Dense_0/kernel";
    let found = message(&|arrays| {
        arrays.remove(fc1);
    });
    assert!(found.contains("x.npz") && found.contains(fc1), "{found}");
    let found = message(&|arrays| arrays.get_mut(fc1).unwrap().shape.reverse());
    assert!(found.contains("expected shape [8, 12], found [12, 8]"), "{found}");
    let found = message(&|arrays| {
        arrays.insert("img/extra".into(), arrays["b"].clone());
    });
    assert!(found.contains("unexpected tensor \"img/extra\""), "{found}");
    let found = message(&|arrays| arrays.clear());
    assert!(found.contains("unknown architecture"), "{found}");

    let bytes = npz(&good, Dtype::F32, Form::default());
    std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    assert!(matches!(open_path(&path), Err(CheckpointError::Header { .. })));
    // A value that changed is found by the checksum when it is read.
    let name = "txt/Embed_0/embedding.npy";
    let at = bytes.windows(name.len()).position(|window| window == name.as_bytes()).unwrap();
    let mut bytes = bytes;
    bytes[at + name.len() + 200] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let found = open_path(&path).unwrap().weights.digest().unwrap_err().to_string();
    assert!(found.contains("txt/Embed_0/embedding") && found.contains("CRC"), "{found}");
}

#[test]
fn no_damage_panics() {
    let source = Tiny::new(Family::SigLip1);
    for deflated in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let form = Form { scanned: true, deflated, ..Form::default() };
        let bytes = npz(&flax(&source.arrays, false, form), Dtype::F32, form);
        std::fs::write(folder.path().join("x.npz"), &bytes).unwrap();
        broken::fuzz(folder.path(), "x.npz", 800, bytes.len());
    }
}
