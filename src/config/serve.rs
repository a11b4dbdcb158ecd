//! `siglip serve`.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::http::HeaderValue;
use clap::Args;
use clap::builder::FalseyValueParser;

use super::choice::{ModelChoice, model_choice, models};
use super::environment::Port;
use super::label_sets::{LabelSetArgs, LabelSetConfig};
use super::{ComputeArgs, memory, parse};
use crate::api::{
    ApiConfig, ApiKeys, Cidr, Cors, DrainTimes, FetchPolicy, HostPattern, ImmichUpstream, ModelAdmin,
    ModelLoader, ModelOpener, Tls, TrustedProxies, check_key,
};
use crate::budget::MemoryBudget;
use crate::engine::EngineConfig;
use crate::telemetry::LogFormat;
use crate::{Error, Result};

/// The port where none is given.
pub(super) const PORT: u16 = 8080;

/// Arguments of `siglip serve`, as they were given.
#[derive(Debug, Clone, Args)]
pub struct ServeArgs {
    /// A model: a hub id, a folder, or `demo`; `name=model` gives it another name than its last part.
    /// Repeat it for several; the first is the default
    #[arg(long = "model", value_name = "[NAME=]MODEL", env = "SIGLIP_MODEL", value_delimiter = ',')]
    pub models: Vec<String>,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,

    #[command(flatten)]
    pub(crate) labels: LabelSetArgs,

    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1", env = "SIGLIP_HOST", help_heading = "Network")]
    pub host: String,
    /// Port to listen on; 0 for any free one
    #[arg(long, default_value = "8080", env = "SIGLIP_PORT", help_heading = "Network")]
    pub port: Port,
    /// Port for health, metrics and what operators do; then metrics are not on the main port
    #[arg(long, env = "SIGLIP_ADMIN_PORT", help_heading = "Network")]
    pub admin_port: Option<Port>,
    /// What a proxy puts in front of every path: /siglip
    #[arg(long, value_name = "PATH", default_value = "", env = "SIGLIP_BASE_PATH", help_heading = "Network")]
    pub base_path: String,
    /// Certificate chain (PEM); together with --tls-key. Read again when it changes
    #[arg(long, value_name = "FILE", env = "SIGLIP_TLS_CERT", help_heading = "Network")]
    pub tls_cert: Option<PathBuf>,
    /// Private key of the certificate (PEM)
    #[arg(long, value_name = "FILE", env = "SIGLIP_TLS_KEY", help_heading = "Network")]
    pub tls_key: Option<PathBuf>,
    /// Origin that browsers may call from, or `*`; repeat it for several
    #[arg(
        long,
        value_name = "ORIGIN",
        env = "SIGLIP_CORS_ALLOW_ORIGIN",
        value_delimiter = ',',
        help_heading = "Network"
    )]
    pub cors_allow_origin: Vec<String>,

    /// A key that requests must show; repeat it for several
    #[arg(
        long,
        value_name = "KEY",
        env = "SIGLIP_API_KEY",
        hide_env_values = true,
        value_delimiter = ',',
        help_heading = "Access"
    )]
    pub api_key: Vec<String>,
    /// A file with a key on each line, `name:key` or `key`; the name stands in the log. Read again when it changes
    #[arg(long, value_name = "FILE", env = "SIGLIP_API_KEY_FILE", help_heading = "Access")]
    pub api_key_file: Option<PathBuf>,
    /// A key that may change the models (/admin/models); repeat it for several. Without one nobody may
    #[arg(
        long,
        value_name = "KEY",
        env = "SIGLIP_ADMIN_KEY",
        hide_env_values = true,
        value_delimiter = ',',
        help_heading = "Access"
    )]
    pub admin_key: Vec<String>,
    /// Fetch pictures from http(s) URLs
    #[arg(long, env = "SIGLIP_ALLOW_URL_FETCH", value_parser = FalseyValueParser::new(), action = clap::ArgAction::SetTrue, help_heading = "Access")]
    pub allow_url_fetch: bool,
    /// Host that pictures may be fetched from (`example.com`, `*.example.com`); without any, every public host
    #[arg(
        long,
        value_name = "HOST",
        env = "SIGLIP_URL_FETCH_HOST",
        value_delimiter = ',',
        help_heading = "Access"
    )]
    pub url_fetch_host: Vec<String>,
    /// Host that pictures may be fetched from although its addresses are private
    #[arg(
        long,
        value_name = "HOST",
        env = "SIGLIP_URL_FETCH_PRIVATE_HOST",
        value_delimiter = ',',
        help_heading = "Access"
    )]
    pub url_fetch_private_host: Vec<String>,
    /// Longest picture that is fetched
    #[arg(long, value_name = "BYTES", default_value = "20MiB", value_parser = parse::bytes, env = "SIGLIP_URL_FETCH_MAX_BYTES", help_heading = "Access")]
    pub url_fetch_max_bytes: usize,
    /// Time for one picture that is fetched
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse::duration, env = "SIGLIP_URL_FETCH_TIMEOUT", help_heading = "Access")]
    pub url_fetch_timeout: Duration,

    /// Other services' routes to serve too: `all`, `none`, or names with commas (docs/clients.md lists them)
    #[arg(
        long,
        value_name = "NAMES",
        default_value = "all",
        env = "SIGLIP_DIALECTS",
        help_heading = "Network"
    )]
    pub dialects: String,
    /// Address of an immich-machine-learning that is asked for what Immich wants beside embeddings: faces, text in pictures
    #[arg(long, value_name = "URL", env = "SIGLIP_IMMICH_UPSTREAM", help_heading = "Network")]
    pub immich_upstream: Option<String>,

    /// Leave out the pages for people: the playground at / and /docs
    #[arg(long, env = "SIGLIP_NO_UI", value_parser = FalseyValueParser::new(), action = clap::ArgAction::SetTrue, help_heading = "Network")]
    pub no_ui: bool,

    /// Longest body of a request
    #[arg(long, value_name = "BYTES", default_value = "64MiB", value_parser = parse::bytes, env = "SIGLIP_MAX_BODY_BYTES", help_heading = "Limits")]
    pub max_body_bytes: usize,
    /// Bytes that all requests together may make the service hold, beside the models and the text cache [default: a
    /// quarter of the container's or machine's memory, at least 256MiB]
    #[arg(long, value_name = "BYTES", value_parser = parse::bytes, env = "SIGLIP_MAX_MEMORY", help_heading = "Limits")]
    pub max_memory: Option<usize>,
    /// Inputs of one request
    #[arg(long, value_name = "N", default_value_t = 512, env = "SIGLIP_MAX_ITEMS", help_heading = "Limits")]
    pub max_items: usize,
    /// Label texts of one request: labels times templates
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1024,
        env = "SIGLIP_MAX_LABELS",
        help_heading = "Limits"
    )]
    pub max_labels: usize,
    /// Connections open at once
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1024,
        env = "SIGLIP_MAX_CONNECTIONS",
        help_heading = "Limits"
    )]
    pub max_connections: usize,
    /// Time for a whole request
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse::duration, env = "SIGLIP_REQUEST_TIMEOUT", help_heading = "Limits")]
    pub request_timeout: Duration,
    /// How long a connection may idle between requests; longer than the proxy in front keeps its own (nginx, ALB: 60s)
    #[arg(long, value_name = "TIME", default_value = "75s", value_parser = parse::duration, env = "SIGLIP_KEEP_ALIVE", help_heading = "Network")]
    pub keep_alive: Duration,
    /// Proxy, or block of them (10.0.0.0/8), whose X-Forwarded-For says who the client is; repeat it for several
    #[arg(
        long,
        value_name = "CIDR",
        env = "SIGLIP_TRUSTED_PROXY",
        value_delimiter = ',',
        help_heading = "Network"
    )]
    pub trusted_proxy: Vec<String>,
    /// Time for the head of a request
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse::duration, env = "SIGLIP_HEADER_TIMEOUT", help_heading = "Limits")]
    pub header_timeout: Duration,
    /// Time for the body of a request, and for a client to take some of its answer
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse::duration, env = "SIGLIP_BODY_TIMEOUT", help_heading = "Limits")]
    pub body_timeout: Duration,
    /// How long new work is still taken after a signal to stop, while /health/ready says no
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = parse::duration, env = "SIGLIP_DRAIN_DELAY", help_heading = "Limits")]
    pub drain_delay: Duration,
    /// Time to finish what was begun when the service stops; what is left then gets 503
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse::duration, env = "SIGLIP_DRAIN_TIMEOUT", help_heading = "Limits")]
    pub drain_timeout: Duration,

    /// Inputs that wait or are worked on, over all requests; more are refused with 429
    #[arg(long, value_name = "N", env = "SIGLIP_MAX_QUEUE_ITEMS", help_heading = "Engine")]
    pub max_queue_items: Option<usize>,
    /// Tokens of one batch [default: as many as take 250 ms on the processor, at most 4096; 65536 on a GPU]
    #[arg(long, value_name = "N", env = "SIGLIP_MAX_BATCH_TOKENS", help_heading = "Engine")]
    pub max_batch_tokens: Option<usize>,
    /// Threads that decode and resize pictures
    #[arg(long, value_name = "N", env = "SIGLIP_PREPARE_THREADS", help_heading = "Engine")]
    pub prepare_threads: Option<usize>,
    /// Drop the weights of a model that nobody has used for so long; the next request brings them back [default: never]
    #[arg(long, value_name = "TIME", value_parser = parse::duration, env = "SIGLIP_IDLE_UNLOAD", help_heading = "Engine")]
    pub idle_unload: Option<Duration>,
    /// Bytes of the weights of all models in memory at once; those used least recently make room [default: no bound]
    #[arg(long, value_name = "BYTES", value_parser = parse::bytes, env = "SIGLIP_MAX_MODEL_MEMORY", help_heading = "Engine")]
    pub max_model_memory: Option<usize>,
    /// Bytes of the cache of text embeddings; 0 for none
    #[arg(long, value_name = "BYTES", value_parser = parse::bytes, env = "SIGLIP_TEXT_CACHE_BYTES", help_heading = "Engine")]
    pub text_cache_bytes: Option<usize>,

    /// How log lines look
    #[arg(long, value_enum, default_value = "text", env = "SIGLIP_LOG_FORMAT", help_heading = "Logs")]
    pub log_format: LogFormat,
}

/// A service as it shall run: every value is checked, certificates and keys are read.
#[derive(Debug, Clone)]
pub struct ServeConfig {
    /// Where to listen.
    pub addresses: Vec<SocketAddr>,
    /// Where operators ask, if not there.
    pub admin: Vec<SocketAddr>,
    /// What to load; at least one, names differ.
    pub models: Vec<ModelChoice>,
    /// Where and how they run.
    pub compute: ComputeArgs,
    /// Bounds of the engine.
    pub engine: EngineConfig,
    /// Settings of the routes.
    pub api: ApiConfig,
    /// Label sets and backgrounds to begin with, and where sets are kept.
    pub labels: LabelSetConfig,
    /// The certificate, if TLS is spoken.
    pub tls: Option<Tls>,
    /// Times of an orderly end.
    pub drain: DrainTimes,
}

impl TryFrom<ServeArgs> for ServeConfig {
    type Error = Error;

    fn try_from(args: ServeArgs) -> Result<Self> {
        let tls = match (&args.tls_cert, &args.tls_key) {
            (Some(cert), Some(key)) => Some(Tls::from_files(cert, key)?),
            (None, None) => None,
            (Some(_), None) => return Err(wrong("--tls-cert needs --tls-key")),
            (None, Some(_)) => return Err(wrong("--tls-key needs --tls-cert")),
        };
        let api = api(&args)?;
        Ok(Self {
            addresses: addresses(&args.host, args.port.given().unwrap_or(PORT))?,
            admin: match args.admin_port.and_then(Port::given) {
                Some(port) => addresses(&args.host, port)?,
                None => Vec::new(),
            },
            models: models(&args.models)?,
            compute: args.compute.clone(),
            engine: engine(&args, &api.memory)?,
            labels: LabelSetConfig::try_from(&args.labels)?,
            tls,
            drain: DrainTimes { delay: args.drain_delay, timeout: args.drain_timeout },
            api,
        })
    }
}

pub(super) fn wrong(message: impl Into<String>) -> Error {
    Error::Config(message.into())
}

/// Every address of a host, each once.
fn addresses(host: &str, port: u16) -> Result<Vec<SocketAddr>> {
    let wrong = || wrong(format!("--host {host:?} is neither an address nor a name of this machine"));
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for address in (host, port).to_socket_addrs().map_err(|_| wrong())? {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    if addresses.is_empty() { Err(wrong()) } else { Ok(addresses) }
}

fn engine(args: &ServeArgs, memory: &MemoryBudget) -> Result<EngineConfig> {
    let mut config = EngineConfig::default();
    let at_least_one = |name: &str, value: Option<usize>, place: &mut usize| match value {
        Some(0) => Err(wrong(format!("{name} must be at least 1"))),
        Some(value) => {
            *place = value;
            Ok(())
        }
        None => Ok(()),
    };
    at_least_one("--max-queue-items", args.max_queue_items, &mut config.max_queue_items)?;
    config.max_queue_bytes = memory.limit();
    config.max_decode_bytes = memory.limit() / 2;
    config.memory = memory.clone();
    if args.max_batch_tokens == Some(0) {
        return Err(wrong("--max-batch-tokens must be at least 1"));
    }
    config.max_batch_tokens = args.max_batch_tokens;
    at_least_one("--prepare-threads", args.prepare_threads, &mut config.prepare_threads)?;
    if args.idle_unload == Some(Duration::ZERO) {
        return Err(wrong("--idle-unload must be more than 0"));
    }
    config.idle_unload = args.idle_unload;
    config.max_model_memory = args.max_model_memory.map(|bytes| bytes as u64);
    config.cache_bytes = args.text_cache_bytes.unwrap_or(config.cache_bytes);
    // A classification needs places for its pictures and its labels at once.
    let most = args.max_items.saturating_add(args.max_labels);
    if most > config.max_queue_items {
        let message = format!(
            "--max-items {} and --max-labels {} are together more than the {} inputs that the engine holds \
             (--max-queue-items): such a request could never be taken",
            args.max_items, args.max_labels, config.max_queue_items
        );
        return Err(wrong(message));
    }
    Ok(config)
}

fn api(args: &ServeArgs) -> Result<ApiConfig> {
    for (name, value) in [
        ("--max-body-bytes", args.max_body_bytes),
        ("--max-items", args.max_items),
        ("--max-labels", args.max_labels),
        ("--max-connections", args.max_connections),
        ("--url-fetch-max-bytes", args.url_fetch_max_bytes),
    ] {
        if value == 0 {
            return Err(wrong(format!("{name} must be at least 1")));
        }
    }
    for (name, value) in [
        ("--request-timeout", args.request_timeout),
        ("--header-timeout", args.header_timeout),
        ("--keep-alive", args.keep_alive),
        ("--body-timeout", args.body_timeout),
        ("--url-fetch-timeout", args.url_fetch_timeout),
    ] {
        if value.is_zero() {
            return Err(wrong(format!("{name} must be more than 0")));
        }
    }
    let memory = MemoryBudget::new(args.max_memory.unwrap_or_else(default_memory));
    if args.max_body_bytes > memory.share() {
        let message = format!(
            "--max-body-bytes {} is more than the {} bytes that one client may hold (half of --max-memory {}): such a \
             body could never be taken",
            args.max_body_bytes,
            memory.share(),
            memory.limit()
        );
        return Err(wrong(message));
    }
    Ok(ApiConfig {
        max_body_bytes: args.max_body_bytes,
        memory,
        max_items: args.max_items,
        max_labels: args.max_labels,
        max_label_sets: args.labels.limits(),
        request_timeout: args.request_timeout,
        header_timeout: args.header_timeout,
        keep_alive: args.keep_alive,
        trusted_proxies: trusted_proxies(&args.trusted_proxy)?,
        base_path: args.base_path.parse().map_err(|error| wrong(format!("--base-path: {error}")))?,
        admin_apart: args.admin_port.and_then(Port::given).is_some(),
        body_timeout: args.body_timeout,
        max_connections: args.max_connections,
        api_keys: api_keys(&args.api_key, args.api_key_file.as_deref())?,
        model_admin: model_admin(args)?,
        cors: cors(&args.cors_allow_origin)?,
        fetch: fetch(args)?,
        immich_upstream: immich_upstream(args)?,
        dialects: args.dialects.parse().map_err(|error| wrong(format!("--dialects: {error}")))?,
        playground: !args.no_ui,
    })
}

fn immich_upstream(args: &ServeArgs) -> Result<Option<ImmichUpstream>> {
    let address = args.immich_upstream.as_deref().map(str::trim).filter(|address| !address.is_empty());
    let parsed = address.map(str::parse).transpose();
    parsed.map_err(|error| wrong(format!("--immich-upstream: {error}")))
}

/// A quarter of what the process may use: the models take most of the rest.
fn default_memory() -> usize {
    const LEAST: usize = 256 << 20;
    let available = memory::available().map_or(0, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
    (available / 4).max(LEAST)
}

fn api_keys(given: &[String], file: Option<&Path>) -> Result<ApiKeys> {
    let given = given.iter().map(|key| key.trim()).filter(|key| !key.is_empty()).map(check_key);
    let given = given.collect::<Result<Vec<_>>>()?;
    match file {
        None => Ok(ApiKeys::new(given)),
        Some(file) => ApiKeys::with_file(given, file),
    }
}

fn trusted_proxies(blocks: &[String]) -> Result<TrustedProxies> {
    let blocks = blocks.iter().map(|block| block.trim()).filter(|block| !block.is_empty());
    let parsed =
        blocks.map(|block| block.parse::<Cidr>().map_err(|error| wrong(format!("--trusted-proxy: {error}"))));
    Ok(TrustedProxies::new(parsed.collect::<Result<_>>()?))
}

fn model_admin(args: &ServeArgs) -> Result<Option<ModelAdmin>> {
    let keys = api_keys(&args.admin_key, None)?;
    if keys.is_empty() {
        return Ok(None);
    }
    let compute = args.compute.clone();
    let opener = ModelOpener::new(move |text| {
        let choice = model_choice(text).map_err(|error| error.to_string())?;
        let (names, compute) = (choice.names().map(str::to_owned).collect(), compute.clone());
        let loader: ModelLoader = Box::new(move |progress| choice.load(&compute, progress));
        Ok((names, loader))
    });
    Ok(Some(ModelAdmin { keys, opener }))
}

fn cors(origins: &[String]) -> Result<Cors> {
    let origins: Vec<&str> = origins.iter().map(|o| o.trim()).filter(|o| !o.is_empty()).collect();
    if origins.is_empty() {
        return Ok(Cors::SameOrigin);
    }
    if origins.contains(&"*") {
        return Ok(Cors::Any);
    }
    let checked = origins.into_iter().map(|origin| {
        let url = url::Url::parse(origin).ok().filter(|url| url.origin().ascii_serialization() == origin);
        let value = url.and_then(|_| HeaderValue::from_str(origin).ok());
        value.ok_or_else(|| {
            wrong(format!("--cors-allow-origin {origin:?} is not an origin such as https://example.com"))
        })
    });
    Ok(Cors::Origins(checked.collect::<Result<_>>()?))
}

fn fetch(args: &ServeArgs) -> Result<Option<FetchPolicy>> {
    let patterns = |flag: &str, hosts: &[String]| -> Result<Vec<HostPattern>> {
        let hosts = hosts.iter().map(|host| host.trim()).filter(|host| !host.is_empty());
        hosts.map(|host| host.parse().map_err(|error| wrong(format!("{flag}: {error}")))).collect()
    };
    let hosts = patterns("--url-fetch-host", &args.url_fetch_host)?;
    let private_hosts = patterns("--url-fetch-private-host", &args.url_fetch_private_host)?;
    if !args.allow_url_fetch {
        if hosts.is_empty() && private_hosts.is_empty() {
            return Ok(None);
        }
        return Err(wrong("--url-fetch-host and --url-fetch-private-host need --allow-url-fetch"));
    }
    let (max_bytes, timeout) = (args.url_fetch_max_bytes, args.url_fetch_timeout);
    Ok(Some(FetchPolicy { hosts, private_hosts, max_bytes, timeout, ..FetchPolicy::default() }))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        serve: ServeArgs,
    }

    fn config(arguments: &[&str]) -> Result<ServeConfig, String> {
        let arguments = std::iter::once("siglip").chain(arguments.iter().copied());
        let cli = Cli::try_parse_from(arguments).map_err(|e| e.to_string())?;
        ServeConfig::try_from(cli.serve).map_err(|e| e.to_string())
    }

    fn error(arguments: &[&str]) -> String {
        config(arguments).err().unwrap_or_else(|| panic!("{arguments:?} passed"))
    }

    #[test]
    fn defaults_serve_the_embedded_model_on_loopback() {
        let config = config(&[]).unwrap();
        assert_eq!(config.addresses, ["127.0.0.1:8080".parse().unwrap()]);
        assert!(config.admin.is_empty());
        assert_eq!(config.models.iter().map(|model| model.name.as_str()).collect::<Vec<_>>(), ["demo"]);
        assert!(config.tls.is_none() && config.api.api_keys.is_empty() && config.api.fetch.is_none());
        assert_eq!(config.api.cors, Cors::SameOrigin);
    }

    #[test]
    fn what_cannot_work_is_named_before_anything_starts() {
        for (arguments, part) in [
            (&["--tls-cert", "c.pem"][..], "--tls-cert needs --tls-key"),
            (&["--tls-cert", "/nowhere/c.pem", "--tls-key", "k.pem"], "/nowhere/c.pem"),
            (&["--host", "no such host"], "--host"),
            (&["--max-items", "0"], "--max-items"),
            (&["--max-items", "5000"], "--max-queue-items"),
            (&["--max-queue-items", "64", "--max-items", "60", "--max-labels", "60"], "--max-labels 60"),
            (&["--max-batch-tokens", "0"], "--max-batch-tokens"),
            (&["--idle-unload", "0"], "--idle-unload"),
            (&["--max-memory", "1GiB", "--max-body-bytes", "513MiB"], "half of --max-memory 1073741824"),
            (&["--max-body-bytes", "lots"], "not a size"),
            (&["--request-timeout", "0"], "--request-timeout"),
            (&["--url-fetch-host", "example.com"], "--allow-url-fetch"),
            (&["--allow-url-fetch", "--url-fetch-host", "http://x/"], "not a host name"),
            (&["--cors-allow-origin", "example.com"], "not an origin"),
            (&["--cors-allow-origin", "https://example.com/"], "not an origin"),
            (&["--api-key-file", "/nowhere/keys"], "/nowhere/keys"),
            (&["--api-key", "kä"], "no header can carry"),
            (&["--trusted-proxy", "10.0.0.0/33"], "--trusted-proxy"),
            (&["--base-path", "siglip"], "--base-path"),
            (&["--keep-alive", "0"], "--keep-alive"),
            (&["--label-set", "animals"], "not NAME=FILE"),
            (&["--label-set", "a/b=x.txt"], "is no name for a label set"),
            (&["--label-set", "animals=/nowhere/x.txt"], "/nowhere/x.txt"),
        ] {
            assert!(error(arguments).contains(part), "{arguments:?}: {}", error(arguments));
        }
    }

    #[test]
    fn a_name_is_all_its_addresses() {
        let localhost = config(&["--host", "localhost", "--port", "0"]).unwrap().addresses;
        assert!(localhost.iter().all(|address| address.ip().is_loopback() && address.port() == 0));
        let resolved = ("localhost", 0).to_socket_addrs().unwrap().collect::<std::collections::HashSet<_>>();
        assert_eq!(localhost.len(), resolved.len());
        let admin = config(&["--admin-port", "9090"]).unwrap();
        assert_eq!(admin.admin, ["127.0.0.1:9090".parse().unwrap()]);
        assert!(admin.api.admin_apart);
    }

    #[test]
    fn what_kubernetes_sets_is_no_port() {
        let link = "tcp://10.96.12.7:8080";
        let config = config(&["--port", link, "--admin-port", link]).unwrap();
        assert_eq!(config.addresses, ["127.0.0.1:8080".parse().unwrap()]);
        assert!(config.admin.is_empty() && !config.api.admin_apart);
        assert!(
            error(&["--port", "tcp:80"]).contains("not a port")
                && error(&["--port", "99999"]).contains("not a port")
        );
    }

    #[test]
    fn keys_come_from_flags_and_files() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap();
        assert!(error(&["--api-key-file", path]).contains("no key in it"));
        std::fs::write(file.path(), "# people\none\n\n two \n").unwrap();
        let keys = config(&["--api-key", "three,", "--api-key-file", path]).unwrap().api.api_keys;
        assert!(["one", "two", "three"].iter().all(|key| keys.contains(key)));
        assert!(!keys.contains("") && !keys.contains("# people"));
        assert!(
            config(&["--api-key", ""]).unwrap().api.api_keys.is_empty(),
            "as an unset variable in a compose file"
        );
    }
}
