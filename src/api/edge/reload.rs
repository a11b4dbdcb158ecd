//! Files that are read again when they change: certificates and keys.

use std::path::PathBuf;
use std::time::Duration;

use crate::Result;
use crate::api::edge::keys::ApiKeys;
use crate::api::edge::server::Tls;

/// How often the files are looked at.
const EVERY: Duration = Duration::from_secs(1);
/// Longest file that is compared.
const LONGEST: u64 = 1 << 20;

/// Files, and what reads them again.
struct Watched {
    what: &'static str,
    paths: Vec<PathBuf>,
    reload: Box<dyn Fn() -> Result<()> + Send>,
    seen: Vec<Option<Vec<u8>>>,
}

/// Looks at the files for as long as it is polled. What cannot be used is logged once, and what was read before stays.
pub async fn watch(keys: Vec<ApiKeys>, tls: Vec<Tls>) {
    let mut watched = Vec::new();
    for keys in keys {
        if let Some(path) = keys.file() {
            let paths = vec![path.to_owned()];
            watched.push(Watched::new("API keys", paths, move || keys.reload()).await);
        }
    }
    for tls in tls {
        watched.push(Watched::new("certificate", tls.files().to_vec(), move || tls.reload()).await);
    }
    if watched.is_empty() {
        return;
    }
    loop {
        tokio::time::sleep(EVERY).await;
        for files in &mut watched {
            files.look().await;
        }
    }
}

impl Watched {
    async fn new(
        what: &'static str,
        paths: Vec<PathBuf>,
        reload: impl Fn() -> Result<()> + Send + 'static,
    ) -> Self {
        let seen = contents(&paths).await;
        Self { what, paths, reload: Box::new(reload), seen }
    }

    async fn look(&mut self) {
        // The content and not the time: a mounted secret is swapped by a link, whose times say little.
        let now = contents(&self.paths).await;
        if now == self.seen {
            return;
        }
        self.seen = now;
        match (self.reload)() {
            Ok(()) => tracing::info!("read the {} again: the files have changed", self.what),
            Err(error) => {
                tracing::error!(%error, "the {} changed and cannot be used; the old ones stay", self.what)
            }
        }
    }
}

/// What is in the files; none where one cannot be read or is no such file.
async fn contents(paths: &[PathBuf]) -> Vec<Option<Vec<u8>>> {
    let mut contents = Vec::with_capacity(paths.len());
    for path in paths {
        let short = tokio::fs::metadata(path).await.is_ok_and(|file| file.is_file() && file.len() <= LONGEST);
        contents.push(if short { tokio::fs::read(path).await.ok() } else { None });
    }
    contents
}
