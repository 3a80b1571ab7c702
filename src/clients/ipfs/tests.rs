//! kubo's half-answers against a mocked server; the real kubo is asked in `tests/storage.rs`.

use serde_json::json;
use wiremock::{
    Mock, MockServer, ResponseTemplate,
    matchers::{method, path, query_param},
};

use super::*;
use crate::domain::cid;

async fn server() -> (MockServer, Ipfs) {
    let server = MockServer::start().await;
    let client = Ipfs::build(reqwest::Client::builder(), &server.uri()).expect("a client");
    (server, client)
}

fn stream(bytes: &'static [u8]) -> impl Stream<Item = Result<Bytes, std::convert::Infallible>> + Send + 'static {
    futures::stream::iter(bytes.chunks(3).map(|piece| Ok(Bytes::from_static(piece))))
}

#[tokio::test]
async fn a_file_is_added_unpinned_as_one_raw_block_and_hashed_on_its_way() {
    let (server, client) = server().await;
    let cid = cid::of(b"footage");
    Mock::given(method("POST"))
        .and(path("/api/v0/add"))
        .and(query_param("pin", "false"))
        .and(query_param("cid-version", "1"))
        .and(query_param("raw-leaves", "true"))
        .and(query_param("chunker", "size-2096896"))
        .respond_with(
            ResponseTemplate::new(200).set_body_json(json!({"Name": "file", "Hash": cid.to_string(), "Size": "7"})),
        )
        .expect(1)
        .mount(&server)
        .await;
    let digest = client.add(stream(b"footage")).await.expect("added");
    assert_eq!((digest.cid, digest.bytes), (cid, 7));
    let body = String::from_utf8(server.received_requests().await.expect("recorded")[0].body.clone()).expect("text");
    assert!(body.contains("\r\n\r\nfootage\r\n--"), "{body}");
}

#[tokio::test]
async fn another_cid_than_ours_is_an_error() {
    let (server, client) = server().await;
    Mock::given(path("/api/v0/add"))
        .respond_with(ResponseTemplate::new(200).set_body_json(json!({"Hash": cid::of(b"other").to_string()})))
        .mount(&server)
        .await;
    assert_eq!(client.add(stream(b"footage")).await.expect_err("mismatch").reason(), "CidMismatch");
}

#[tokio::test]
async fn a_200_without_a_result_is_no_success() {
    let (server, client) = server().await;
    for (body, reason) in [
        ("", "KuboAnswerInvalid"),
        ("{\"Name\":\"f", "KuboAnswerInvalid"),
        ("{\"Name\":\"file\"}\n{\"Message\":\"no space left on device\",\"Code\":0,\"Type\":\"error\"}", "KuboRefused"),
    ] {
        server.reset().await;
        Mock::given(path("/api/v0/add"))
            .respond_with(ResponseTemplate::new(200).set_body_string(body))
            .mount(&server)
            .await;
        assert_eq!(client.add(stream(b"footage")).await.expect_err(body).reason(), reason);
    }
}

#[tokio::test]
async fn a_missing_block_is_told_from_a_broken_daemon() {
    let (server, client) = server().await;
    let missing = json!({"Message": "block was not found locally (offline): ipld: could not find bafy", "Code": 0, "Type": "error"});
    Mock::given(path("/api/v0/block/stat"))
        .and(query_param("offline", "true"))
        .respond_with(ResponseTemplate::new(500).set_body_json(missing))
        .up_to_n_times(1)
        .mount(&server)
        .await;
    Mock::given(path("/api/v0/block/stat"))
        .respond_with(
            ResponseTemplate::new(500).set_body_json(json!({"Message": "input/output error", "Type": "error"})),
        )
        .mount(&server)
        .await;
    assert!(!client.has_block(&cid::of(b"a")).await.expect("an answer"));
    assert_eq!(client.has_block(&cid::of(b"a")).await.expect_err("a broken disk").reason(), "KuboRefused");
}

#[tokio::test]
async fn an_error_in_the_middle_of_a_collection_is_heard() {
    let (server, client) = server().await;
    Mock::given(path("/api/v0/repo/gc"))
        .respond_with(ResponseTemplate::new(200).set_body_string("{\"Key\":{\"/\":\"bafy\"}}\n{\"Error\":\"disk\"}\n"))
        .mount(&server)
        .await;
    assert_eq!(client.collect_garbage().await.expect_err("an error line").reason(), "KuboRefused");
}

#[tokio::test]
async fn no_neighbours_is_an_empty_list() {
    let (server, client) = server().await;
    Mock::given(path("/api/v0/swarm/peers"))
        .respond_with(ResponseTemplate::new(200).set_body_json(json!({"Peers": null})))
        .mount(&server)
        .await;
    assert!(client.connected().await.expect("null").is_empty());
}

#[tokio::test]
async fn a_socket_without_a_daemon_is_unreachable() {
    let client = Ipfs::over_socket(Path::new("/nonexistent/api.sock")).expect("a client");
    assert_eq!(client.id().await.expect_err("nobody listens").reason(), "KuboUnreachable");
}
