//! The environment: variables that others set, and variables that mean nothing.

use std::collections::BTreeSet;
use std::str::FromStr;

use clap::{Command, CommandFactory};

use super::Cli;

/// Variables that are read elsewhere than on the command line.
const OTHERS: [&str; 3] = ["SIGLIP_CPU_KERNELS", "SIGLIP_CUDA_ARCHS", "SIGLIP_CI_CACHE"];

/// A port, or nothing: empty, or what Kubernetes puts into `SIGLIP_PORT` for a service named `siglip`
/// (`tcp://10.96.12.7:8080`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Port(Option<u16>);

impl Port {
    /// The port, if it is one.
    pub fn given(self) -> Option<u16> {
        self.0
    }
}

impl FromStr for Port {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() || is_service_link(text) {
            return Ok(Self(None));
        }
        text.parse().map(|port| Self(Some(port))).map_err(|_| format!("{text:?} is not a port (0 to 65535)"))
    }
}

fn is_service_link(value: &str) -> bool {
    ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme))
}

/// What is to be said about the variables of this process, each in one warning.
pub fn warnings() -> Vec<String> {
    let variables = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.to_string_lossy().into_owned())));
    warnings_about(variables.filter(|(name, _)| name.starts_with("SIGLIP_")).collect())
}

fn warnings_about(variables: Vec<(String, String)>) -> Vec<String> {
    let mut known: BTreeSet<String> = OTHERS.into_iter().map(str::to_owned).collect();
    collect(&Cli::command(), &mut known);
    let (mut links, mut unknown) = (BTreeSet::new(), BTreeSet::new());
    for (name, value) in variables {
        if is_of_kubernetes(&name, &value) {
            links.insert(name);
        } else if !known.contains(&name) {
            unknown.insert(name);
        }
    }
    let list = |names: BTreeSet<String>| names.into_iter().collect::<Vec<_>>().join(", ");
    let mut warnings = Vec::new();
    if !links.is_empty() {
        warnings.push(format!(
            "ignored, as Kubernetes sets them for a service of this name (enableServiceLinks: false ends that): {}",
            list(links)
        ));
    }
    if !unknown.is_empty() {
        warnings.push(format!("environment variables that mean nothing here: {}", list(unknown)));
    }
    warnings
}

/// `SIGLIP_PORT=tcp://…`, `SIGLIP_PORT_8080_TCP_ADDR`, `SIGLIP_SERVICE_HOST`, `SIGLIP_ADMIN_SERVICE_PORT_HTTP`, …
/// (kubernetes.io/docs/concepts/services-networking/service, environment variables).
fn is_of_kubernetes(name: &str, value: &str) -> bool {
    let parts: Vec<&str> = name.split('_').collect();
    let service = name.ends_with("_SERVICE_HOST") || name.contains("_SERVICE_PORT");
    let port = parts.windows(3).any(|three| {
        three[0] == "PORT" && three[1].parse::<u16>().is_ok() && ["TCP", "UDP", "SCTP"].contains(&three[2])
    });
    service || port || (name.ends_with("_PORT") && is_service_link(value))
}

fn collect(command: &Command, known: &mut BTreeSet<String>) {
    let variables = command.get_arguments().filter_map(|argument| argument.get_env()?.to_str());
    known.extend(variables.map(str::to_owned));
    command.get_subcommands().for_each(|command| collect(command, known));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(variables: &[(&str, &str)]) -> Vec<String> {
        warnings_about(variables.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    #[test]
    fn kubernetes_and_mistakes_are_told_apart() {
        assert!(
            about(&[("SIGLIP_MODEL", "demo"), ("SIGLIP_PORT", "80"), ("SIGLIP_CPU_KERNELS", "avx2")])
                .is_empty()
        );
        let links = about(&[
            ("SIGLIP_PORT", "tcp://10.96.12.7:8080"),
            ("SIGLIP_PORT_8080_TCP", "tcp://10.96.12.7:8080"),
            ("SIGLIP_PORT_8080_TCP_PROTO", "tcp"),
            ("SIGLIP_SERVICE_HOST", "10.96.12.7"),
            ("SIGLIP_SERVICE_PORT_HTTP", "8080"),
            ("SIGLIP_ADMIN_PORT", "tcp://10.96.12.8:9090"),
        ]);
        assert!(links.len() == 1 && links[0].contains("SIGLIP_PORT_8080_TCP_PROTO"), "{links:?}");
        let unknown = about(&[("SIGLIP_MODLE", "x"), ("SIGLIP_MAXITEMS", "9"), ("SIGLIP_MODEL", "demo")]);
        assert_eq!(unknown, ["environment variables that mean nothing here: SIGLIP_MAXITEMS, SIGLIP_MODLE"]);
    }
}
