//! HTTP for object stores, over the client that the hub has, too: one TLS stack in the program.

use std::io::Read;
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody,
    HttpService,
};
use object_store::{ClientConfigKey, ClientOptions};
use ureq::Agent;
use ureq::tls::{RootCerts, TlsConfig};

use crate::checkpoint::certificates;

/// Bytes of an answer at most: a block of an object, or a page of a list.
pub(super) const ANSWER: usize = 16 << 20;
const CONNECT: Duration = Duration::from_secs(10);
/// For an answer to begin, and for each part of it.
const PART: Duration = Duration::from_secs(30);
const WHOLE: Duration = Duration::from_secs(120);

/// Makes clients.
#[derive(Debug)]
pub(super) struct Connector;

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let mut tls = TlsConfig::builder();
        if let Some(file) = std::env::var_os("SSL_CERT_FILE").filter(|file| !file.is_empty()) {
            let found = certificates(Path::new(&file))
                .map_err(|error| object_store::Error::Generic { store: "HTTP", source: error.into() })?;
            tls = tls.root_certs(RootCerts::new_with_certs(&found));
        }
        let agent = Agent::config_builder()
            .tls_config(tls.build())
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_resolve(Some(CONNECT))
            .timeout_connect(Some(CONNECT))
            .timeout_recv_response(Some(PART))
            .timeout_per_read(Some(PART))
            .timeout_global(Some(WHOLE))
            .accept_encoding("identity")
            .user_agent(concat!("siglip-server/", env!("CARGO_PKG_VERSION")))
            .build()
            .into();
        let plain = options.get_config_value(&ClientConfigKey::AllowHttp).as_deref() == Some("true");
        Ok(HttpClient::new(Service { agent, plain }))
    }
}

#[derive(Debug)]
struct Service {
    agent: Agent,
    /// Whether credentials may go over a connection that is not encrypted.
    plain: bool,
}

/// What is wrong with a request before it is sent.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Refused(&'static str);

#[async_trait]
impl HttpService for Service {
    /// Waits for the answer on the thread that asks: objects are read by threads that have nothing else to do.
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        if !self.plain && request.uri().scheme_str() != Some("https") {
            let text = "the endpoint is not https (AWS_ALLOW_HTTP=true, AZURE_ALLOW_HTTP=true or GOOGLE_ALLOW_HTTP=true)";
            return Err(HttpError::new(HttpErrorKind::Unknown, Refused(text)));
        }
        let (parts, body) = request.into_parts();
        let body = body.as_bytes().cloned();
        let answered = match body.filter(|body| !body.is_empty()) {
            Some(body) => self.agent.run(http::Request::from_parts(parts, body.to_vec())),
            None => self.agent.run(http::Request::from_parts(parts, ())),
        };
        let (parts, body) = answered.map_err(failed)?.into_parts();
        let mut bytes = Vec::new();
        body.into_reader()
            .take(ANSWER as u64 + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| HttpError::new(HttpErrorKind::Interrupted, error))?;
        if bytes.len() > ANSWER {
            return Err(HttpError::new(HttpErrorKind::Decode, Refused("an answer of more than 16 MiB")));
        }
        Ok(HttpResponse::from_parts(parts, HttpResponseBody::from(bytes)))
    }
}

fn failed(error: ureq::Error) -> HttpError {
    let kind = match &error {
        ureq::Error::Timeout(_) => HttpErrorKind::Timeout,
        ureq::Error::HostNotFound | ureq::Error::ConnectionFailed => HttpErrorKind::Connect,
        ureq::Error::Io(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
            HttpErrorKind::Connect
        }
        ureq::Error::Io(_) | ureq::Error::Protocol(_) => HttpErrorKind::Interrupted,
        _ => HttpErrorKind::Unknown,
    };
    HttpError::new(kind, error)
}
