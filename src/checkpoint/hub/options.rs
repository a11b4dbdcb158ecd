//! Where the hub is, where its files are kept, and who asks: the environment variables that
//! `huggingface_hub` reads, with its meanings.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Is told how a download goes: bytes of a file so far, and all of them.
pub type Watch = Arc<dyn Fn(u64, u64) + Send + Sync>;

/// How checkpoints are downloaded.
#[derive(Clone)]
pub struct HubOptions {
    /// The cache, which is shared with `huggingface_hub`: `HF_HUB_CACHE`, `HF_HOME/hub`.
    pub cache: PathBuf,
    /// The hub or a mirror of it, without a slash at the end: `HF_ENDPOINT`.
    pub endpoint: String,
    /// A token for gated and private repositories: `HF_TOKEN`, or the file that a login writes.
    pub token: Option<String>,
    /// Certificates (PEM) of those whom TLS trusts in place of the ones compiled in: `SSL_CERT_FILE`.
    pub certificates: Option<PathBuf>,
    /// Touch no network and use what is in the cache: `HF_HUB_OFFLINE`.
    pub offline: bool,
    /// Report downloads on the standard error output: a bar on a terminal, else lines.
    pub progress: bool,
    /// Told how each file goes, beside that: bytes of it so far, and all of them.
    pub watch: Option<Watch>,
    /// Attempts in a row without a byte of progress before a transfer is given up.
    pub attempts: u32,
    /// The pause after the first of them, doubled after each.
    pub backoff: Duration,
    /// Longest wait for a connection, for the beginning of an answer, and for each next piece of it.
    pub timeout: Duration,
}

impl fmt::Debug for HubOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The token must not reach a log.
        f.debug_struct("HubOptions")
            .field("cache", &self.cache)
            .field("endpoint", &self.endpoint)
            .field("token", &self.token.as_ref().map(|_| "…"))
            .field("offline", &self.offline)
            .finish_non_exhaustive()
    }
}

impl Default for HubOptions {
    fn default() -> Self {
        Self::from_env()
    }
}

impl HubOptions {
    /// From the environment.
    pub fn from_env() -> Self {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    /// From variables that `get` looks up.
    pub fn from_variables(get: impl Fn(&str) -> Option<String>) -> Self {
        let get =
            |name: &str| get(name).map(|value| value.trim().to_string()).filter(|value| !value.is_empty());
        let truth = |name: &str| {
            get(name)
                .is_some_and(|value| matches!(value.to_uppercase().as_str(), "1" | "ON" | "YES" | "TRUE"))
        };
        let home = get("HF_HOME").map(PathBuf::from).unwrap_or_else(|| {
            let user =
                get("HOME").or_else(|| get("USERPROFILE")).map_or_else(|| PathBuf::from("."), PathBuf::from);
            let cache = get("XDG_CACHE_HOME").map_or_else(|| user.join(".cache"), PathBuf::from);
            cache.join("huggingface")
        });
        let cache = get("HF_HUB_CACHE").or_else(|| get("HUGGINGFACE_HUB_CACHE"));
        let token_file = get("HF_TOKEN_PATH").map_or_else(|| home.join("token"), PathBuf::from);
        let saved = || {
            let token = std::fs::read_to_string(&token_file).ok()?;
            Some(token.trim().to_string()).filter(|token| !token.is_empty())
        };
        Self {
            cache: cache.map_or_else(|| home.join("hub"), PathBuf::from),
            endpoint: get("HF_ENDPOINT")
                .unwrap_or_else(|| "https://huggingface.co".into())
                .trim_end_matches('/')
                .to_string(),
            token: get("HF_TOKEN").or_else(saved),
            certificates: get("SSL_CERT_FILE").map(PathBuf::from),
            offline: truth("HF_HUB_OFFLINE") || truth("TRANSFORMERS_OFFLINE"),
            progress: !truth("HF_HUB_DISABLE_PROGRESS_BARS"),
            watch: None,
            attempts: 5,
            backoff: Duration::from_millis(500),
            timeout: Duration::from_secs(20),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(variables: &'static [(&'static str, &'static str)]) -> HubOptions {
        HubOptions::from_variables(|name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_string())
        })
    }

    #[test]
    fn the_cache_is_where_huggingface_hub_has_it() {
        let cache = |variables| with(variables).cache;
        assert_eq!(cache(&[("HOME", "/u")]), PathBuf::from("/u/.cache/huggingface/hub"));
        assert_eq!(cache(&[("HOME", "/u"), ("XDG_CACHE_HOME", "/x")]), PathBuf::from("/x/huggingface/hub"));
        assert_eq!(cache(&[("HF_HOME", "/h")]), PathBuf::from("/h/hub"));
        assert_eq!(cache(&[("HF_HOME", "/h"), ("HF_HUB_CACHE", "/c")]), PathBuf::from("/c"));
    }

    #[test]
    fn flags_and_tokens() {
        assert!(with(&[("HF_HUB_OFFLINE", "true")]).offline);
        assert!(!with(&[("HF_HUB_OFFLINE", "0")]).offline);
        let options = with(&[("HF_TOKEN", " hf_x\n")]);
        assert_eq!(options.token.as_deref(), Some("hf_x"));
        assert!(!format!("{options:?}").contains("hf_x"));
        assert_eq!(with(&[("HF_ENDPOINT", "http://mirror/")]).endpoint, "http://mirror");
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("token"), "hf_saved\n").unwrap();
        let path = home.path().display().to_string();
        let options = HubOptions::from_variables(|name| (name == "HF_HOME").then(|| path.clone()));
        assert_eq!(options.token.as_deref(), Some("hf_saved"));
    }
}
