//! Compresses the files of the playground; compiles the CUDA kernels for the feature `cuda`; finds libheif for `heif`.
//!
//! `SIGLIP_CUDA_ARCHS` names the compute capabilities, such as `80,90` (then `CUDA_COMPUTE_CAP`, then `80,90`). Each gets its
//! own machine code, all in one file from which the driver takes what the GPU needs. The newest of each generation is also
//! kept as PTX, which the driver translates for GPUs that none of the machine code is for.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, thread};

use flate2::{Compression, GzBuilder};

/// The playground's files: what ends otherwise is for its types and tests.
const PLAYGROUND: &str = "src/api/pages/playground";
const SERVED: [&str; 3] = ["js", "css", "svg"];

const KERNELS: &str = "src/ops/cuda/kernels";
const FILES: [&str; 6] = ["attention", "attention_plain", "elementwise", "norm", "probe", "rows"];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={PLAYGROUND}");
    playground(&PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")));
    #[cfg(feature = "heif")]
    if let Err(error) = pkg_config::Config::new().atleast_version("1.15").probe("libheif") {
        panic!("the feature heif needs libheif (Debian: libheif-dev): {error}");
    }
    if env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return;
    }
    println!("cargo::rerun-if-changed={KERNELS}");
    println!("cargo::rerun-if-env-changed=NVCC");
    println!("cargo::rerun-if-env-changed=CUDA_HOME");
    // src/ops/cuda/driver.rs defines functions of NVIDIA's libraries for this program only; that the libraries call their
    // own is settled when they are loaded, not when this is linked.
    let target = |name: &str| env::var(name).unwrap_or_default();
    if target("CARGO_CFG_TARGET_OS") == "linux" && target("CARGO_CFG_TARGET_ARCH") == "x86_64" {
        println!("cargo::rustc-link-arg=-Wl,--allow-shlib-undefined");
    }
    let archs = archs();
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let nvcc = nvcc();
    // The libraries that the program looks for when it runs are of the toolkit that it was built with.
    println!("cargo::rustc-env=SIGLIP_CUDA_MAJOR={}", major(&nvcc));
    // What the program says to a GPU that it has no kernels for.
    let list: Vec<String> = archs.iter().map(u32::to_string).collect();
    println!("cargo::rustc-env=SIGLIP_CUDA_ARCHS={}", list.join(","));
    thread::scope(|scope| {
        for name in FILES {
            let (archs, out, nvcc) = (&archs, &out, &nvcc);
            scope.spawn(move || compile(nvcc, name, archs, out));
        }
    });
}

/// Writes each file of the playground as gzip, and `playground.rs`: a slice of their names and bytes.
fn playground(out: &Path) {
    let folder = Path::new(PLAYGROUND);
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{PLAYGROUND}: {error}"));
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.rsplit_once('.').is_some_and(|(_, end)| SERVED.contains(&end)))
        .collect();
    names.sort();
    let packed = out.join("playground");
    fs::create_dir_all(&packed).expect("OUT_DIR can be written");
    let mut list = String::from("&[\n");
    for name in names {
        let bytes = fs::read(folder.join(&name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        // Without a time in its header: the same files give the same program.
        let mut gzip = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
        gzip.write_all(&bytes).expect("memory takes it");
        let path = packed.join(format!("{name}.gz"));
        fs::write(&path, gzip.finish().expect("memory takes it")).expect("OUT_DIR can be written");
        list.push_str(&format!("({name:?}, include_bytes!({path:?}).as_slice()),\n"));
    }
    fs::write(out.join("playground.rs"), list + "]").expect("OUT_DIR can be written");
}

/// Compute capabilities in ascending order: 75, 80, 90, 120.
fn archs() -> Vec<u32> {
    let mut text = None;
    for name in ["SIGLIP_CUDA_ARCHS", "CUDA_COMPUTE_CAP"] {
        println!("cargo::rerun-if-env-changed={name}");
        text = text.or_else(|| env::var(name).ok().filter(|value| !value.trim().is_empty()));
    }
    let text = text.unwrap_or_else(|| "80,90".to_owned());
    let mut archs: Vec<u32> = text
        .split([',', ';', ' '])
        .filter(|part| !part.is_empty())
        .map(|part| match part.replace('.', "").parse() {
            Ok(arch @ 75..=200) => arch,
            _ => panic!("SIGLIP_CUDA_ARCHS={text}: {part:?} is no compute capability such as 80 or 90"),
        })
        .collect();
    archs.sort_unstable();
    archs.dedup();
    archs
}

fn nvcc() -> PathBuf {
    if let Some(path) = env::var_os("NVCC") {
        return path.into();
    }
    let home = env::var_os("CUDA_HOME").map(|home| Path::new(&home).join("bin/nvcc"));
    home.filter(|path| path.exists()).unwrap_or_else(|| "nvcc".into())
}

/// Major version of the toolkit.
fn major(nvcc: &Path) -> u32 {
    let output = match Command::new(nvcc).arg("--version").output() {
        Ok(output) => String::from_utf8_lossy(&output.stdout).into_owned(),
        Err(error) => panic!(
            "the feature `cuda` needs NVIDIA's compiler: {} cannot be started ({error}). Install the CUDA toolkit, or \
             set CUDA_HOME or NVCC.",
            nvcc.display()
        ),
    };
    let number = output.split("release ").nth(1).and_then(|rest| rest.split('.').next()?.parse().ok());
    number.unwrap_or_else(|| panic!("{} --version says no version:\n{output}", nvcc.display()))
}

fn compile(nvcc: &Path, name: &str, archs: &[u32], out: &Path) {
    let mut command = Command::new(nvcc);
    command.args(["-std=c++17", "-O3", "-fatbin"]);
    for arch in archs {
        command.arg("-gencode").arg(format!("arch=compute_{arch},code=sm_{arch}"));
    }
    for newest in archs.chunk_by(|a, b| a / 10 == b / 10).filter_map(<[u32]>::last) {
        command.arg("-gencode").arg(format!("arch=compute_{newest},code=compute_{newest}"));
    }
    command.arg("-o").arg(out.join(format!("{name}.fatbin"))).arg(format!("{KERNELS}/{name}.cu"));
    match command.output() {
        Err(error) => panic!("{} cannot be started: {error}", nvcc.display()),
        Ok(result) if !result.status.success() => {
            panic!("nvcc could not compile {name}.cu:\n{}", String::from_utf8_lossy(&result.stderr))
        }
        Ok(_) => {}
    }
}
