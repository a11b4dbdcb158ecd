//! What can be wrong with a checkpoint.

use std::path::PathBuf;

use crate::model::ModelError;

/// Why a checkpoint cannot be used. One variant for each thing that can be wrong; every message
/// names the file, and the tensor or the field where there is one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// There is no such file or folder.
    #[error("{}: no such file or folder", .0.display())]
    NotFound(PathBuf),
    /// The name of a model is neither a path, nor a Hugging Face id, nor `demo`.
    #[error("model {reference:?}: {reason}")]
    InvalidReference {
        /// What was given.
        reference: String,
        /// What is wrong with it.
        reason: String,
    },
    /// This build has no model inside.
    #[error(
        "this build has no embedded demo model: name a checkpoint instead, a Hugging Face id such as \
         google/siglip2-base-patch16-224 or a folder"
    )]
    NoDemo,
    /// A file is there but the system does not let us read it.
    #[error("{file}: {source}")]
    Read {
        /// The file.
        file: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file is larger than any real one of its kind.
    #[error("{file}: {found} bytes, larger than the limit of {limit} for such a file")]
    TooLarge {
        /// The file.
        file: String,
        /// Its size in bytes.
        found: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// No layout that we know is in the folder.
    #[error("{place}: no checkpoint that this program knows: {reason}")]
    UnknownLayout {
        /// The folder or file.
        place: String,
        /// What was looked for.
        reason: String,
    },
    /// A file is not JSON, or not an object.
    #[error("{file}: not valid JSON: {reason}")]
    Json {
        /// The file.
        file: String,
        /// What the parser said.
        reason: String,
    },
    /// A field of a configuration file has a value that cannot be used.
    #[error("{file}: {field}: {reason}")]
    Field {
        /// The file.
        file: String,
        /// The field, with dots between levels.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The checkpoint is of another architecture.
    #[error("{file}: unknown architecture {found:?}; known: {known}")]
    UnknownArchitecture {
        /// The configuration file.
        file: String,
        /// The architecture it names.
        found: String,
        /// Those that can be loaded.
        known: String,
    },
    /// The checkpoint is of a kind that is known and cannot be used.
    #[error("{file}: it cannot be loaded: {what}")]
    Unsupported {
        /// The file or folder.
        file: String,
        /// Why, and what to do instead.
        what: String,
    },
    /// Two parts of the checkpoint say different things.
    #[error("{file}: {reason}")]
    Contradiction {
        /// The file that contradicts another one.
        file: String,
        /// What contradicts what.
        reason: String,
    },
    /// The configuration needs a tensor that the weights do not have.
    #[error("{file}: no tensor {tensor:?} (expected with shape {expected:?})")]
    MissingTensor {
        /// The weights file.
        file: String,
        /// The tensor, as this layout calls it.
        tensor: String,
        /// Its shape by the configuration.
        expected: Vec<usize>,
    },
    /// The weights have a tensor that the configuration has no place for.
    #[error("{file}: unexpected tensor {tensor:?} of shape {found:?}{}", more(*.others))]
    UnexpectedTensor {
        /// The weights file.
        file: String,
        /// The first such tensor.
        tensor: String,
        /// Its shape.
        found: Vec<usize>,
        /// How many more there are.
        others: usize,
    },
    /// A tensor has another shape than the configuration says.
    #[error("{file}: tensor {tensor:?}: expected shape {expected:?}, found {found:?}")]
    Shape {
        /// The weights file.
        file: String,
        /// The tensor, as this layout calls it.
        tensor: String,
        /// Its shape by the configuration.
        expected: Vec<usize>,
        /// Its shape in the file.
        found: Vec<usize>,
    },
    /// A tensor's values are of a type that is not a floating-point one.
    #[error("{file}: tensor {tensor:?}: expected f32, f16, bf16 or f64, found {found}")]
    Dtype {
        /// The weights file.
        file: String,
        /// The tensor.
        tensor: String,
        /// The type in the file.
        found: String,
    },
    /// Two files of one checkpoint hold a tensor of the same name.
    #[error("tensor {tensor:?} is in both {first} and {second}")]
    DuplicateTensor {
        /// The tensor.
        tensor: String,
        /// The file it was found in first.
        first: String,
        /// The other file.
        second: String,
    },
    /// A weights file is shorter (or longer) than its header says.
    #[error(
        "{file}: expected {expected} bytes by its header, found {found}: the file is truncated or damaged"
    )]
    Truncated {
        /// The file.
        file: String,
        /// Bytes by the header.
        expected: u64,
        /// Bytes of the file.
        found: u64,
    },
    /// The header of a weights file cannot be read.
    #[error("{file}: not a valid {format} file: {reason}")]
    Header {
        /// The file.
        file: String,
        /// `safetensors` or `npz`.
        format: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The contents of a compressed or checksummed tensor are damaged.
    #[error("{file}: tensor {tensor:?} is damaged: {reason}")]
    Damaged {
        /// The file.
        file: String,
        /// The tensor.
        tensor: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A model of the hub is not in the cache and cannot be downloaded now.
    #[error("{id}@{revision}: not in {cache}: {reason}")]
    NotCached {
        /// The repository.
        id: String,
        /// The revision.
        revision: String,
        /// Its folder in the cache.
        cache: String,
        /// What is missing.
        reason: String,
    },
    /// There is no such repository.
    #[error(
        "{id}: no such repository on the hub (or a private one: set HF_TOKEN to a token that may read it)"
    )]
    NoSuchRepository {
        /// The repository.
        id: String,
    },
    /// The repository has no such revision.
    #[error("{id}: no such revision on the hub: {revision:?}")]
    NoSuchRevision {
        /// The repository.
        id: String,
        /// The revision.
        revision: String,
    },
    /// The hub does not let us read the repository.
    #[error(
        "{id}: the hub refused access (status {status}){}",
        if *token {
            ": the token of HF_TOKEN may not read it; accept the model's terms on its page, or use another token"
        } else {
            ": no such repository, or a gated or private one: accept its terms on its page and set HF_TOKEN to a \
             token that may read it"
        }
    )]
    AccessDenied {
        /// The repository.
        id: String,
        /// 401 or 403.
        status: u16,
        /// Whether a token was sent.
        token: bool,
    },
    /// The hub cannot be reached, or a transfer broke again and again.
    #[error("{url}: given up after {attempts} attempts: {reason}")]
    Transfer {
        /// What was asked for.
        url: String,
        /// How often in a row.
        attempts: u32,
        /// What happened the last time.
        reason: String,
    },
    /// The hub answered something that makes no sense.
    #[error("{url}: unexpected answer: {reason}")]
    OddReply {
        /// What was asked for.
        url: String,
        /// What is wrong with the answer.
        reason: String,
    },
    /// A download is complete but not what the hub said it would be.
    #[error("{url}: expected {expected}, got {found}: the download was deleted, try again")]
    WrongDownload {
        /// What was asked for.
        url: String,
        /// Its size or hash.
        expected: String,
        /// What came.
        found: String,
    },
    /// There is no room for a download.
    #[error("{file}: no space left on the disk ({needed} bytes are needed): set HF_HOME to a larger one")]
    DiskFull {
        /// The file that was being written.
        file: String,
        /// Its full size.
        needed: u64,
    },
    /// A file of the cache cannot be written.
    #[error("{file}: cannot be written: {source}")]
    Write {
        /// The file.
        file: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The towers asked for a tensor that the spec of this checkpoint does not have.
    #[error("{place}: the model has no tensor {tensor:?}")]
    NoSuchTensor {
        /// The checkpoint.
        place: String,
        /// The canonical name.
        tensor: String,
    },
}

impl From<CheckpointError> for ModelError {
    fn from(error: CheckpointError) -> Self {
        Self::Weights(Box::new(error))
    }
}

fn more(others: usize) -> String {
    if others == 0 { String::new() } else { format!(" (and {others} more)") }
}
