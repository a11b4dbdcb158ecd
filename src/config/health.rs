//! `siglip health`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::environment::Port;
use super::parse;
use super::serve::PORT;

/// Arguments of `siglip health`.
#[derive(Debug, Clone, Args)]
pub struct HealthArgs {
    /// Address that the service listens on
    #[arg(long, default_value = "127.0.0.1", env = "SIGLIP_HOST")]
    pub host: String,
    /// Port that the service listens on
    #[arg(long, default_value = "8080", env = "SIGLIP_PORT")]
    pub port: Port,
    /// Port for operators, if the service has one; it is asked there
    #[arg(long, env = "SIGLIP_ADMIN_PORT")]
    pub admin_port: Option<Port>,
    /// Set if the service speaks TLS
    #[arg(long, value_name = "FILE", env = "SIGLIP_TLS_CERT")]
    pub tls_cert: Option<PathBuf>,
    /// How long to wait
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = parse::duration)]
    pub timeout: Duration,
}

impl HealthArgs {
    /// Where the service can be asked from this machine.
    pub fn url(&self) -> String {
        let admin = self.admin_port.and_then(Port::given);
        // The port for operators speaks no TLS.
        let scheme = if self.tls_cert.is_some() && admin.is_none() { "https" } else { "http" };
        let port = admin.or(self.port.given()).unwrap_or(PORT);
        let host = match self.host.parse::<IpAddr>() {
            Ok(IpAddr::V4(ip)) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.to_string(),
            Ok(IpAddr::V6(ip)) if ip.is_unspecified() => format!("[{}]", Ipv6Addr::LOCALHOST),
            Ok(IpAddr::V6(ip)) => format!("[{ip}]"),
            _ => self.host.clone(),
        };
        format!("{scheme}://{host}:{port}/health/ready")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_asks_this_machine() {
        let url = |host: &str| {
            let (host, timeout) = (host.to_owned(), Duration::ZERO);
            HealthArgs { host, port: "80".parse().unwrap(), admin_port: None, tls_cert: None, timeout }.url()
        };
        assert_eq!(url("0.0.0.0"), "http://127.0.0.1:80/health/ready");
        assert_eq!(url("::"), "http://[::1]:80/health/ready");
        assert_eq!(url("::1"), "http://[::1]:80/health/ready");
        assert_eq!(url("localhost"), "http://localhost:80/health/ready");
    }
}
