//! Checkpoints from the Hugging Face hub, kept in the cache that `huggingface_hub` uses too:
//! `models--owner--name/{blobs,refs,snapshots}`.

mod client;
mod options;
mod progress;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

#[cfg(feature = "object-store")]
pub(crate) use client::certificates;
pub use options::HubOptions;

use self::client::{Client, is_plain};
use super::detect::Place;
use super::files::Files;
use super::sentence_transformers::MODULES;
use super::wanted::Wanted;
use super::weights_file::SAFETENSORS;
use super::{CheckpointError, adapter, detect, safetensors, sentence_transformers, weights_file};

/// The branch that is meant where none is named.
const MAIN: &str = "main";

/// How long the hub may take to say which commit is meant when one is in the cache.
const BRIEF: Duration = Duration::from_secs(5);

/// What is downloaded beside the weights, where it is there.
const SMALL: &[&str] = &[
    "config.json",
    "open_clip_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    adapter::CONFIG,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    // Beside `tokenizer.json`, and not only without it: which of the two is run depends on what is in both.
    "spiece.model",
    "tokenizer.model",
    "sentencepiece.model",
];

/// A repository in the cache.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) folder: PathBuf,
    pub(super) commit: String,
}

/// Finds a repository in the cache or downloads it: the files that are needed and no others.
pub(super) fn fetch(
    id: &str,
    revision: Option<&str>,
    options: &HubOptions,
    wanted: Wanted,
) -> Result<Snapshot, CheckpointError> {
    let cache = Cache::new(id, revision.unwrap_or(MAIN), options);
    if options.offline {
        return cache.find(id, "HF_HUB_OFFLINE is set", wanted);
    }
    let cached = cache.find(id, "", wanted).ok();
    match (download(id, &cache, options, wanted, cached.is_some()), cached) {
        // Without a network, or with a token that has run out, what is there has to do.
        (
            Err(error @ (CheckpointError::Transfer { .. } | CheckpointError::AccessDenied { .. })),
            Some(cached),
        ) => {
            tracing::warn!(%error, model = id, "the hub does not answer: using the cached files");
            Ok(cached)
        }
        (result, _) => result,
    }
}

/// Downloads what is missing. A question to the hub is not asked twice, nor waited for, where the cache can stand in.
fn download(
    id: &str,
    cache: &Cache,
    options: &HubOptions,
    wanted: Wanted,
    cached: bool,
) -> Result<Snapshot, CheckpointError> {
    let client = Client::new(options, id)?;
    let repository = if cached {
        let brief = HubOptions { attempts: 1, timeout: options.timeout.min(BRIEF), ..options.clone() };
        Client::new(&brief, id)?.repository(&cache.revision)?
    } else {
        client.repository(&cache.revision)?
    };
    let folder = cache.root.join("snapshots").join(&repository.commit);
    let get = |name: &str| cache.get(&client, &repository.commit, name);
    if repository.files.iter().any(|file| file == MODULES) {
        get(MODULES)?;
    }
    // The checkpoint may lie in a folder of its own.
    let inner = sentence_transformers::folder(&Files::Dir(folder.clone()))?.map(|inner| format!("{inner}/"));
    let inner = inner.unwrap_or_default();
    let names: Vec<String> =
        repository.files.iter().filter_map(|file| file.strip_prefix(&inner)).map(str::to_string).collect();
    let has = |name: &str| names.iter().any(|file| file == name);
    let get = |name: &str| get(&format!("{inner}{name}"));
    for name in SMALL.iter().filter(|name| has(name)) {
        get(name)?;
    }
    let files = Files::Dir(folder.join(&inner));
    if has(adapter::CONFIG) && !SAFETENSORS.iter().any(|file| weights_file::is_there(has, file)) {
        get(adapter::WEIGHTS)?;
        cache.remember(&repository.commit)?;
        return Ok(Snapshot { folder, commit: repository.commit });
    }
    let tensors = |file: &str| {
        let index = weights_file::index(file);
        if has(&index) && !has(file) {
            get(&index)?;
            return weights_file::names(&files, file);
        }
        client.tensors(&repository.commit, &format!("{inner}{file}"))
    };
    let plan = detect::detect(&Place { files: &files, names: &names, tensors: &tensors, wanted }, None)?;
    if plan.file.ends_with(".npz") || has(&plan.file) {
        if !is_plain(&plan.file) {
            return Err(CheckpointError::InvalidReference {
                reference: id.to_string(),
                reason: format!("{:?} is not a plain file name", plan.file),
            });
        }
        get(&plan.file)?;
    } else {
        let index = weights_file::index(&plan.file);
        get(&index)?;
        for shard in safetensors::shards(&files, &index, |tensor| plan.wants(tensor))?.unwrap_or_default() {
            get(&shard)?;
        }
    }
    // Last, so that a name never points to a snapshot that is not complete.
    cache.remember(&repository.commit)?;
    Ok(Snapshot { folder, commit: repository.commit })
}

/// The folder of one repository in the cache.
struct Cache {
    root: PathBuf,
    locks: PathBuf,
    revision: String,
}

impl Cache {
    fn new(id: &str, revision: &str, options: &HubOptions) -> Self {
        // The name that huggingface_hub gives a model's folder (`file_download.py`, `repo_folder_name`).
        let name = format!("models--{}", id.replace('/', "--"));
        Self {
            root: options.cache.join(&name),
            locks: options.cache.join(".locks").join(&name),
            revision: revision.to_string(),
        }
    }

    /// The snapshot of the revision, complete, without any network.
    fn find(&self, id: &str, why: &str, wanted: Wanted) -> Result<Snapshot, CheckpointError> {
        let missing = |what: String| CheckpointError::NotCached {
            id: id.to_string(),
            revision: self.revision.clone(),
            cache: self.root.display().to_string(),
            reason: if why.is_empty() { what } else { format!("{what}, and {why}") },
        };
        let commit = match std::fs::read_to_string(self.root.join("refs").join(&self.revision)) {
            Ok(commit) => commit.trim().to_string(),
            Err(_) => self.revision.clone(),
        };
        let folder = self.root.join("snapshots").join(&commit);
        if !is_plain(&commit) || !folder.is_dir() {
            return Err(missing("no snapshot of it is there".into()));
        }
        let files = sentence_transformers::inside(Files::Dir(folder.clone()))?;
        if adapter::is_one(&files) {
            if !files.has(adapter::WEIGHTS) {
                return Err(missing(format!("its {} is not there", adapter::WEIGHTS)));
            }
            return Ok(Snapshot { folder, commit });
        }
        let plan = detect::detect_here(&files, None, wanted)
            .map_err(|error| if files.has("config.json") { missing(error.to_string()) } else { error })?;
        if !files.has(&plan.file) {
            let index = weights_file::index(&plan.file);
            let shards = safetensors::shards(&files, &index, |tensor| plan.wants(tensor))?;
            let shards = shards.ok_or_else(|| missing(format!("its {} is not there", plan.file)))?;
            if let Some(shard) = shards.iter().find(|shard| !files.has(shard)) {
                return Err(missing(format!("its {shard} is not there")));
            }
        }
        Ok(Snapshot { folder, commit })
    }

    /// Brings one file into the snapshot of a commit.
    fn get(&self, client: &Client, commit: &str, name: &str) -> Result<(), CheckpointError> {
        let pointer = self.root.join("snapshots").join(commit).join(name);
        if pointer.is_file() {
            return Ok(());
        }
        let Some(metadata) = client.metadata(commit, name)? else { return Ok(()) };
        let blob = self.root.join("blobs").join(&metadata.etag);
        for folder in [blob.parent(), pointer.parent(), Some(self.locks.as_path())].into_iter().flatten() {
            std::fs::create_dir_all(folder).map_err(|source| write(folder, source))?;
        }
        let lock = self.locks.join(format!("{}.lock", metadata.etag));
        let held = File::create(&lock).map_err(|source| write(&lock, source))?;
        // Another process may be downloading the same file: wait for it, then find it done.
        held.lock().map_err(|source| write(&lock, source))?;
        let whole = blob.metadata().is_ok_and(|data| data.len() == metadata.size);
        if !whole {
            let partial = self.root.join("blobs").join(format!("{}.incomplete", metadata.etag));
            client.download(commit, name, &metadata, &partial)?;
            std::fs::rename(&partial, &blob).map_err(|source| write(&blob, source))?;
        }
        link(&blob, &pointer, &metadata.etag, name.matches('/').count())
    }

    /// Notes which commit the revision is.
    fn remember(&self, commit: &str) -> Result<(), CheckpointError> {
        if self.revision == commit {
            return Ok(());
        }
        let path = self.root.join("refs").join(&self.revision);
        let folder = path.parent().unwrap_or(&self.root);
        std::fs::create_dir_all(folder).map_err(|source| write(folder, source))?;
        std::fs::write(&path, commit).map_err(|source| write(&path, source))
    }
}

/// Points from a snapshot to a blob, relatively as `huggingface_hub` does; `depth` folders lie between.
fn link(blob: &Path, pointer: &Path, etag: &str, depth: usize) -> Result<(), CheckpointError> {
    let _ = std::fs::remove_file(pointer);
    #[cfg(unix)]
    {
        let _ = blob;
        let target = Path::new(&"../".repeat(depth)).join("../../blobs").join(etag);
        std::os::unix::fs::symlink(target, pointer).map_err(|source| write(pointer, source))
    }
    #[cfg(not(unix))]
    {
        let _ = (etag, depth);
        std::fs::hard_link(blob, pointer)
            .or_else(|_| std::fs::copy(blob, pointer).map(|_| ()))
            .map_err(|source| write(pointer, source))
    }
}

fn write(path: &Path, source: std::io::Error) -> CheckpointError {
    CheckpointError::Write { file: path.display().to_string(), source }
}
