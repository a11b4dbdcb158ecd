//! What the tests, benches and examples use of the crate beside the program. It is not an interface: it changes with the crate.
//!
//! The rooms themselves are private, so that the compiler says what nobody uses.

#![allow(missing_docs)] // Each is documented where it is.

pub use crate::{Error, Result};
pub mod api {
    pub use crate::api::{
        ApiConfig, ApiKeys, AppState, Cors, Dialects, DrainTimes, FetchPolicy, ModelAdmin, ModelLoader,
        ModelOpener, Phase, Port, Stopped, Tls, admin, app, serve,
    };
    pub mod parsers {
        pub use crate::api::parsers::{accept, encoded_picture, form, json, query};
    }
}
pub mod budget {
    pub use crate::budget::{MemoryBudget, MemoryKind};
}
pub mod bulk {
    pub mod vectors {
        pub use crate::bulk::vectors::{Vectors, search};
    }
}
pub mod checkpoint {
    pub use crate::checkpoint::{
        Checkpoint, CheckpointError, Files, HubOptions, Layout, ModelRef, Tower, Wanted, image_spec,
        model_spec, open, open_files, open_part,
    };
    pub mod known {
        pub use crate::checkpoint::known::{Known, all, find};
    }
}
pub mod engine {
    pub use crate::engine::{
        Class, EmbedOptions, Embedding, Engine, EngineConfig, EngineError, ImageCost, Input, Labels, Load,
        Model, ModelHandle, ModelState, Order, Output, PipelineModel, Progress, ScoreOptions, Towers, Viewed,
        ViewsCost, ViewsOutput, WhenFull, WorkError,
    };
}
pub mod image {
    pub use crate::image::{
        Area, Cover, Format, Geometry, Grid, ImageDecode, ImageError, ImageLimits, ImageOptions, ImageSpec,
        Patches, Picture, Preprocessor, Resample, ViewMethod, ViewOptions, Views, decode, frames,
        largest_region, probe, resize,
    };
}
pub mod labels {
    pub use crate::labels::{
        Background, Condition, Content, Definition, HeadWeights, LabelError, LabelSets, SetLimits, read_head,
    };
    pub mod store {
        pub use crate::labels::store::Store;
    }
}
pub mod model {
    pub use crate::model::{
        EncoderSpec, ImagePooling, ImageTower, ImageTowerSpec, LabelActivation, LabelSet, ModelError,
        ModelSpec, NoneTest, PatchVectors, Pause, PositionResize, Question, Result, Scores, Siglip,
        TextTower, TextTowerSpec, Thresholds, Weights,
    };
    pub mod scores {
        pub use crate::model::scores::{cosine, l2_normalize, sigmoid, softmax};
    }
    pub mod zero_shot {
        pub use crate::model::zero_shot::{Ranking, mean_direction};
    }
}
pub mod ops {
    pub use crate::ops::{
        Activation, Epilogue, Input, LayerNorm, Linear, Numerics, PixelValues, Probe, Segments, WeightFormat,
        attention, normalize_pixels, probe_attention, query_attention,
    };
    pub mod cpu {
        pub use crate::ops::cpu::{Isa, PackedWeight, WeightFormat};
        pub mod attention {
            pub use crate::ops::cpu::attention::Inputs;
        }
        pub mod linear {
            pub use crate::ops::cpu::linear::Finish;
        }
        pub mod panels {
            pub use crate::ops::cpu::panels::Element;
        }
        pub mod pooling {
            pub use crate::ops::cpu::pooling::Folded;
        }
        pub mod weight {
            pub use crate::ops::cpu::weight::{attend, normalize};
        }
    }
    #[cfg(feature = "cuda")]
    pub mod cuda {
        pub use crate::ops::cuda::{Options, open};
    }
    pub mod pixels {
        pub use crate::ops::pixels::pixel_table;
    }
    pub mod rows {
        pub use crate::ops::rows::{convert, embed_tokens, id_bytes, last_rows, mean_rows, stack_rows};
    }
}
pub mod pipeline {
    pub use crate::pipeline::{DeviceChoice, DeviceKind, LoadOptions, ModelInfo, Pipeline, Precision};
}
pub mod telemetry {
    pub use crate::telemetry::{METRICS, prometheus};
}
pub mod text {
    pub use crate::text::{
        Canonicalization, DEFAULT_MAX_TEXT_BYTES, TextError, TextFamily, TextProcessor, TextSpec, TokenIds,
        TokenizerFiles, canonicalize,
    };
}
