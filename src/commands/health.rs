//! `siglip health`: asks a running service whether it is ready, for health checks without another program.

use std::process::ExitCode;

use ureq::config::Config;
use ureq::tls::TlsConfig;

use super::error::{Result, failed};
use crate::config::HealthArgs;

/// Asks once.
///
/// # Errors
/// With what the service answered, or why it did not.
pub(super) fn run(args: &HealthArgs) -> Result<ExitCode> {
    let url = args.url();
    // The certificate names the service's public host, not this machine: only that it answers counts here.
    let tls = TlsConfig::builder().disable_verification(true).build();
    let config = Config::builder()
        .timeout_global(Some(args.timeout))
        .http_status_as_error(false)
        .proxy(None)
        .tls_config(tls)
        .build();
    let mut response =
        config.new_agent().get(&url).call().map_err(|error| failed(format!("{url}: {error}")))?;
    let text = response.body_mut().read_to_string().unwrap_or_default();
    if response.status().is_success() {
        return Ok(ExitCode::SUCCESS);
    }
    Err(failed(format!("{url}: {} {}", response.status(), text.trim())))
}
