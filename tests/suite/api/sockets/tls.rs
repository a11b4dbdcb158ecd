//! TLS: certificates by files, read again when they change.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use siglip::testing::api::{ApiConfig, Tls};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::{Running, document, post, run, within};
use crate::api::engine_config;

/// Writes a new certificate and its key; gives the certificate.
fn certificate(cert: &Path, key: &Path) -> rustls::pki_types::CertificateDer<'static> {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(cert, made.cert.pem()).unwrap();
    std::fs::write(key, made.signing_key.serialize_pem()).unwrap();
    made.cert.der().clone()
}

/// A connection that trusts this certificate and no other.
async fn connect(
    running: &Running,
    trusted: &rustls::pki_types::CertificateDer<'static>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
    connector.connect("localhost".try_into().unwrap(), running.connect().await).await
}

async fn embed(stream: &mut TlsStream<TcpStream>) {
    use tokio::io::AsyncReadExt;
    stream.write_all(post("/v1/embeddings", r#"{"input": "cat"}"#).as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(document(&answer)["data"][0]["index"], 0);
}

#[tokio::test]
async fn certificates_by_files_that_change() {
    let folder = tempfile::tempdir().unwrap();
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    let first = certificate(&cert, &key);
    let tls = Tls::from_files(&cert, &key).unwrap();
    let running =
        run(ApiConfig::default(), engine_config(), Some(tls.clone()), within(Duration::from_secs(5))).await;
    embed(&mut connect(&running, &first).await.unwrap()).await;

    // Half of a change is no change.
    std::fs::write(&key, rcgen::KeyPair::generate().unwrap().serialize_pem()).unwrap();
    assert!(tls.reload().unwrap_err().to_string().contains("key.pem"), "a key of another certificate");
    let mut before = connect(&running, &first).await.unwrap();

    // The service sees by itself that the files have changed.
    let second = certificate(&cert, &key);
    let began = std::time::Instant::now();
    let mut after = loop {
        match connect(&running, &second).await {
            Ok(stream) => break stream,
            Err(error) => assert!(began.elapsed() < Duration::from_secs(60), "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    embed(&mut after).await;
    assert!(connect(&running, &first).await.is_err(), "the old certificate is not shown any more");
    embed(&mut before).await;
    running.stop().await;
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    certificate(&cert, &key);
    let swapped = Tls::from_files(&key, &cert).unwrap_err().to_string();
    assert!(swapped.contains("key.pem") || swapped.contains("cert.pem"), "{swapped}");
    let nowhere = Tls::from_files(&folder.path().join("no.pem"), &key).unwrap_err().to_string();
    assert!(nowhere.contains("no.pem"), "{nowhere}");
}
