//! SigLIP, SigLIP 2 and NaFlex: image and text embeddings, zero-shot classification.
