//! Takes inputs from many requests at once, and answers each: admission, preparation, lanes,
//! batches, workers, the cache of text embeddings. Knows jobs; knows no HTTP and no tensors' insides.
//!
//! ```text
//!  ModelHandle::embed            one engine              one model: two lanes, alike
//! ┌───────────────────┐      ┌────────────────┐      ┌─────────────────────────────────────────────┐
//! │ texts in the cache├──────┤ admission      │      │ waiting          preparation        ready   │
//! │ ► answered        │ rest │ items and bytes├─────►│ a queue  ──►  image or text  ──►  a queue   │
//! │ headers of images │      │ all or nothing │      │ a client      threads             a client  │
//! └───────▲───────────┘      └───────┬────────┘      └──────────────────────────────────────┬──────┘
//!         │                          ▼                                                      ▼
//!         │                 Overloaded, TooLarge                  worker: the lanes in turn, a batch of
//!         └── Request ◄──────────── Ticket::answer ◄───────────── tokens; halved when out of memory
//! ```
//!
//! - **Admission** counts inputs and the bytes that the engine makes of them: patches or ids that wait. The files
//!   are charged where they came in, and their charge travels with them. A request gets room for all its inputs or is refused at once.
//!   An input's place is free when it is answered, or when its client has gone.
//! - **Views** of a picture are inputs of their own, prepared together: the picture is decoded once.
//! - **Waiting** inputs are prepared in turn over the clients, but only as far as the workers' next
//!   batches need; what is decoded at once is bounded by bytes as well. Both are charged to the budget of
//!   all requests ([`EngineConfig::memory`]), with a share for each client.
//! - **Ready** inputs make batches without a timer: a free worker takes what is there, in turn over
//!   the clients, up to a budget of tokens. Where both lanes have something, they take turns.
//! - **Tickets** are what makes it safe: every admitted input is one, it is answered exactly once, it
//!   answers for itself if it is dropped, and it gives its place back first.
//! - **Texts** are looked up in the cache three times: before admission, before they are tokenised and
//!   before they are computed; the same text twice in a batch is computed once. Those of label sets, which are encoded once, are
//!   not kept in it.
//! - **Faults**: a panic fails the inputs of that call, an error of the model is tried again input by
//!   input, and running out of memory halves the batch and keeps batches small for a while.
//!
//! - **Models** are objects: each has its queues, its workers, its health and its state; [`Engine::add`] loads one while
//!   the others serve. The text cache is keyed by embedding space.
//!
//! Each model's queues are behind a lock of their own; it is never held to decode, to compute or to answer.

mod admission;
mod allocator;
mod batch;
mod budget;
mod cache;
mod config;
mod cost;
mod error;
mod fair;
mod front;
mod handle;
mod health;
mod job;
mod lane;
mod metrics;
mod model;
mod pace;
mod pipeline;
mod preparation;
mod prepare;
mod queues;
mod registry;
mod request;
mod reservation;
mod residency;
mod runtime;
mod scoring;
mod shared;
mod state;
mod submit;
mod sync;
mod turns;
mod views;
mod warmup;
mod worker;

pub use config::EngineConfig;
pub use error::{EngineError, WorkError};
pub use front::{DrainReport, Engine, Load};
pub use handle::ModelHandle;
pub use job::{Class, EmbedOptions, Embedding, Input, Order, Output, Timings, WhenFull};
pub use model::{ImageCost, Model, Towers, ViewsCost};
pub use pipeline::PipelineModel;
pub use scoring::{Labels, ScoreOptions, Scored};
pub use state::{ModelState, ModelStatus, Progress};
pub use views::{Viewed, ViewsOutput};
