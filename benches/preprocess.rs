//! Decoding and resizing of one photograph: what a request costs before the model sees it.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use libjpeg_turbo_rs::{PixelFormat, Subsampling, compress};
use siglip::testing::image::{
    Geometry, ImageLimits, ImageOptions, ImageSpec, Picture, Preprocessor, Resample, decode, resize,
};

/// Gradients, waves and a little noise: compresses about as a photograph does.
fn scene(width: u32, height: u32) -> Picture {
    let mut noise = 1_u32;
    let mut pixels = Vec::with_capacity((width * height * 3) as usize);
    for y in 0..height {
        for x in 0..width {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let wave = ((x as f32 / 37.0).sin() * (y as f32 / 23.0).cos() * 60.0) as i32;
            let grain = (noise >> 28) as i32;
            let red = (x * 255 / width) as i32 + wave + grain;
            let green = (y * 255 / height) as i32 - wave + grain;
            pixels.extend([red, green, 128 + wave + grain].map(|value| value.clamp(0, 255) as u8));
        }
    }
    Picture::new(width, height, pixels).expect("as many pixels as the size says")
}

fn benches(criterion: &mut Criterion) {
    let limits = ImageLimits::default();
    let spec = |geometry, resample| ImageSpec {
        geometry,
        resample,
        patch: 16,
        mean: [0.5; 3],
        std: [0.5; 3],
        rescale: 1.0 / 255.0,
    };
    let square = Geometry::Squash { height: 224, width: 224 };
    let siglip = Preprocessor::new(spec(square, Resample::Bicubic), limits).expect("a valid specification");
    let naflex = Geometry::NaFlex { max_num_patches: 256 };
    let naflex = Preprocessor::new(spec(naflex, Resample::Bilinear), limits).expect("a valid specification");
    for (width, height) in [(640, 480), (4000, 3000)] {
        let picture = scene(width, height);
        let (w, h) = (width as usize, height as usize);
        let jpeg = compress(picture.pixels(), w, h, PixelFormat::Rgb, 85, Subsampling::S420)
            .expect("the scene can be compressed");
        let mut group = criterion.benchmark_group(format!("{width}x{height}"));
        group.sample_size(if width > 1000 { 10 } else { 50 });
        group.bench_function("decode", |bench| bench.iter(|| decode(black_box(&jpeg), &limits)));
        for (name, resample) in [("bilinear", Resample::Bilinear), ("bicubic", Resample::Bicubic)] {
            group.bench_function(format!("resize to 224, {name}"), |bench| {
                bench.iter(|| resize(black_box(&picture), 224, 224, resample));
            });
        }
        let options = ImageOptions::default();
        group.bench_function("file to patches, 224", |bench| {
            bench.iter(|| siglip.from_bytes(black_box(&jpeg), &options));
        });
        group.bench_function("file to patches, NaFlex 256", |bench| {
            bench.iter(|| naflex.from_bytes(black_box(&jpeg), &options));
        });
        group.finish();
    }
}

criterion_group!(all, benches);
criterion_main!(all);
