//! Object stores (`s3://`, `gs://`, `az://`) as inputs: listed, and read in blocks of a bounded size.

#[cfg(feature = "object-store")]
mod http;
#[cfg(feature = "object-store")]
mod store;

#[cfg(feature = "object-store")]
pub use store::Object;
#[cfg(feature = "object-store")]
pub(super) use store::find;

/// Beginnings of URLs of object stores.
const SCHEMES: [&str; 7] = ["s3://", "s3a://", "gs://", "az://", "azure://", "abfs://", "abfss://"];

/// Whether a path is the URL of something in an object store.
pub fn is_url(path: &std::path::Path) -> bool {
    path.to_str().is_some_and(|text| SCHEMES.iter().any(|scheme| text.starts_with(scheme)))
}

#[cfg(not(feature = "object-store"))]
pub use without::Object;
#[cfg(not(feature = "object-store"))]
pub(super) use without::find;

/// What is there without the feature: no object.
#[cfg(not(feature = "object-store"))]
mod without {
    use std::io::Result;
    use std::sync::Arc;

    use crate::bulk::fault::Fault;
    use crate::bulk::inputs::{FindOptions, Found, Globs};
    use crate::bulk::stored::Stored;

    /// Something in an object store.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub enum Object {}

    impl Object {
        pub(in crate::bulk) fn open(&self) -> Result<Arc<dyn Stored>> {
            match *self {}
        }

        pub(in crate::bulk) fn lost(&self) -> Option<String> {
            match *self {}
        }
    }

    pub(in crate::bulk) fn find(
        url: &str,
        _: bool,
        _: &Globs,
        _: &FindOptions,
        _: &mut Found,
    ) -> std::result::Result<(), Fault> {
        Err(Fault::usage(format!(
            "{url}: this program was built without object stores (the feature object-store, which the container has)"
        )))
    }
}
