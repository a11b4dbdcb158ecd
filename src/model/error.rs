//! What can go wrong in the towers.

/// Why a model could not be loaded or could not compute.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// The checkpoint has no image tower.
    #[error("this model has no image tower: it embeds texts only")]
    NoImageTower,
    /// The checkpoint has no text tower.
    #[error("this model has no text tower: it embeds images only")]
    NoTextTower,
    /// The checkpoint's scale or bias is no number that a cosine can be scaled with.
    #[error(
        "the checkpoint's logit_scale is {logarithm} and its logit_bias {bias}: with exp(logit_scale) = {} no \
         probability can be made",
        logarithm.exp()
    )]
    Scores {
        /// The scale as it is stored.
        logarithm: f32,
        /// The bias.
        bias: f32,
    },
    /// An input that does not fit the tower.
    #[error("{0}")]
    Input(String),
    /// The source of the weights failed.
    #[error(transparent)]
    Weights(Box<dyn std::error::Error + Send + Sync>),
    /// The tensor library or a kernel failed.
    #[error("computing failed: {0}")]
    Compute(#[from] candle_core::Error),
}

/// `std::result::Result` with [`ModelError`].
pub type Result<T, E = ModelError> = std::result::Result<T, E>;
