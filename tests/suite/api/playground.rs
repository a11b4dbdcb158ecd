//! The pages for people: who gets them, from where, and what they may do.

use std::io::Read as _;

use axum::body::Body;
use axum::http::Request;
use flate2::read::GzDecoder;
use siglip::testing::api::ApiConfig;

use super::{Answer, Service};

const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8";

async fn ask(service: &Service, path: &str, header: (&str, &str)) -> Answer {
    service.send(Request::get(path).header(header.0, header.1).body(Body::empty()).unwrap()).await
}

/// The addresses of the page's own files.
fn files(page: &Answer) -> Vec<String> {
    let text = String::from_utf8(page.bytes.clone()).unwrap();
    let named = text.split("\"ui/").skip(1).filter_map(|rest| rest.split('"').next());
    named.map(|name| format!("/ui/{name}")).collect()
}

#[tokio::test]
async fn browsers_get_the_page_and_others_the_welcome() {
    let service = Service::new().await;
    let page = ask(&service, "/", ("accept", BROWSER)).await;
    assert_eq!(page.status, 200);
    assert!(page.header("content-type").starts_with("text/html"));
    assert_eq!(page.header("vary"), "accept");
    assert_eq!(page.header("cache-control"), "no-cache");
    assert_eq!(page.header("x-content-type-options"), "nosniff");
    let policy = page.header("content-security-policy");
    for part in ["default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'"] {
        assert!(policy.contains(part), "{policy}");
    }
    assert!(!policy.contains("unsafe") && !policy.contains("data:") && !policy.contains('*'), "{policy}");
    for accept in ["*/*", "application/json", "text/html;q=0"] {
        let welcome = ask(&service, "/", ("accept", accept)).await;
        assert_eq!(welcome.header("vary"), "accept");
        assert_eq!(welcome.ok()["docs"], "/docs");
    }
    assert_eq!(service.get("/").await.ok()["name"], "siglip");
}

#[tokio::test]
async fn files_have_names_that_last_and_the_page_a_tag() {
    let service = Service::new().await;
    let page = service.get("/docs").await;
    let files = files(&page);
    assert!(files.iter().any(|file| file.ends_with("/main.js")), "{files:?}");
    for file in &files {
        let answer = service.get(file).await;
        assert_eq!(answer.status, 200, "{file}");
        assert_eq!(answer.header("cache-control"), "public, max-age=31536000, immutable");
        let kind = answer.header("content-type").to_owned();
        let end = file.rsplit('.').next().unwrap();
        assert!(
            kind.contains(match end {
                "js" => "javascript",
                end => end,
            }),
            "{file}: {kind}"
        );
        let tag = answer.header("etag").to_owned();
        let again = ask(&service, file, ("if-none-match", &format!("\"other\", W/{tag}"))).await;
        assert_eq!((again.status.as_u16(), again.bytes.len()), (304, 0));
        assert_eq!(again.header("etag"), tag);
        let packed = ask(&service, file, ("accept-encoding", "br, gzip;q=0.8")).await;
        assert_eq!((packed.header("content-encoding"), packed.header("vary")), ("gzip", "accept-encoding"));
        assert_ne!(packed.header("etag"), tag);
        let mut unpacked = Vec::new();
        GzDecoder::new(&packed.bytes[..]).read_to_end(&mut unpacked).unwrap();
        assert_eq!(unpacked, answer.bytes, "{file}");
        let plain = ask(&service, file, ("accept-encoding", "gzip;q=0")).await;
        assert_eq!(plain.bytes, answer.bytes);
    }
    let tag = page.header("etag").to_owned();
    assert_eq!(ask(&service, "/docs", ("if-none-match", &tag)).await.status, 304);
    let version = files[0].split('/').nth(2).unwrap();
    for wrong in [
        format!("/ui/{version}/nothing.js"),
        "/ui/0123456789abcdef/main.js".to_owned(),
        format!("/ui/{version}/..%2fdocs.rs"),
    ] {
        service.get(&wrong).await.error(404, "route_not_found");
    }
    service.get("/ui/%ff/main.js").await.error(400, "invalid_request");
}

#[tokio::test]
async fn it_can_be_left_out() {
    let service = Service::configured(ApiConfig { playground: false, ..ApiConfig::default() }).await;
    let with = Service::new().await;
    let [file, ..] = &files(&with.get("/docs").await)[..] else { panic!("no files") };
    let welcome = ask(&service, "/", ("accept", BROWSER)).await.ok();
    assert_eq!(welcome["docs"], "/openapi.json");
    for path in ["/docs", file] {
        let said = service.get(path).await.error(404, "route_not_found");
        assert!(said.contains("/openapi.json lists them"), "{said}");
    }
    let said = service.get("/v1/embeddings").await.error(405, "method_not_allowed");
    assert!(said.contains("/openapi.json lists"), "{said}");
}

#[tokio::test]
async fn below_a_path_relative_addresses_stay_below_it() {
    let config = ApiConfig { base_path: "/siglip".parse().unwrap(), ..ApiConfig::default() };
    let service = Service::configured(config).await;
    let bare = ask(&service, "/siglip", ("accept", BROWSER)).await;
    assert_eq!((bare.status.as_u16(), bare.header("location")), (308, "/siglip/"));
    let page = ask(&service, "/siglip/", ("accept", BROWSER)).await;
    assert_eq!(page.status, 200);
    let text = String::from_utf8(page.bytes.clone()).unwrap();
    assert!(!text.contains("=\"/"), "an address of the page begins at the root");
    for file in files(&page) {
        assert_eq!(service.get(&format!("/siglip{file}")).await.status, 200, "{file}");
    }
    // Programs get what they got.
    assert_eq!(service.get("/siglip").await.ok()["name"], "siglip");
}
