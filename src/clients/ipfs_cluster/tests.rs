//! Every trap of the REST API as a scenario against a mocked server.

use std::num::NonZeroU32;

use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use wiremock::{
    Mock, MockServer, ResponseTemplate,
    matchers::{basic_auth, method, path, query_param},
};

use super::*;
use crate::domain::{cid, identity::Identity};

const PEER: &str = "12D3KooWQK1wnefoLrcVHbbnf5tLzbopUd3K3bFAoJpA7YJgL5pV";

async fn server() -> (MockServer, IpfsCluster) {
    let server = MockServer::start().await;
    let client = IpfsCluster::with_timeout(&server.uri(), "secret", Duration::from_millis(300)).expect("an address");
    (server, client)
}

fn options() -> PinOptions {
    PinOptions::new("minute", NonZeroU32::new(2).expect("not zero"))
}

fn record(cid: &Cid) -> serde_json::Value {
    json!({
        "replication_factor_min": 2, "replication_factor_max": 2, "name": "minute", "mode": "recursive",
        "shard_size": 0, "user_allocations": null, "expire_at": "0001-01-01T00:00:00Z", "metadata": {},
        "pin_update": null, "origins": null, "cid": cid.to_string(), "type": "pin",
        "allocations": [PEER], "max_depth": -1, "reference": null, "timestamp": "2026-01-01T00:00:00Z",
    })
}

#[tokio::test]
async fn every_option_travels_in_the_url() {
    let (server, client) = server().await;
    let cid = cid::of(b"a");
    let peers = [Identity::from_seed([1; 32]).peer_id, Identity::from_seed([2; 32]).peer_id];
    let expire = Timestamp::now() + SignedDuration::from_hours(1);
    let origin = format!("/dns/sn-a-0.sn-a.ns.svc/tcp/4001/p2p/{PEER}");
    let mut answer = record(&cid);
    answer["expire_at"] = json!(expire.to_string());
    answer["metadata"] = json!({"camera": "lobby"});
    answer["origins"] = json!([origin]);
    Mock::given(method("POST"))
        .and(path(format!("/pins/{cid}")))
        .and(basic_auth("dsn", "secret"))
        .and(query_param("name", "minute"))
        .and(query_param("replication-min", "2"))
        .and(query_param("replication-max", "2"))
        .and(query_param("user-allocations", format!("{},{}", peers[0], peers[1])))
        .and(query_param("expire-at", expire.to_string()))
        .and(query_param("meta-camera", "lobby"))
        .and(query_param("origins", &origin))
        .respond_with(ResponseTemplate::new(200).set_body_json(answer))
        .expect(1)
        .mount(&server)
        .await;
    let options = PinOptions {
        allocations: peers.into(),
        expire_at: Some(expire),
        metadata: [("camera".to_owned(), "lobby".to_owned())].into(),
        origins: vec![origin],
        ..options()
    };
    let record = client.pin(&cid, &options).await.expect("accepted");
    assert_eq!(record.expires().map(Timestamp::as_second), Some(expire.as_second()));
}

#[tokio::test]
async fn options_the_server_would_half_accept_are_never_sent() {
    let (server, client) = server().await;
    Mock::given(method("POST")).respond_with(ResponseTemplate::new(500)).expect(0).mount(&server).await;
    let past = PinOptions { expire_at: Some(Timestamp::UNIX_EPOCH), ..options() };
    let bad = [
        past,
        PinOptions { origins: vec!["/ip4/10.0.0.1/tcp/4001".into()], ..options() },
        PinOptions { origins: vec![format!("/ip4/1/p2p/{PEER},/ip4/2/p2p/{PEER}")], ..options() },
        PinOptions { allocations: vec![Identity::from_seed([1; 32]).peer_id], ..options() },
        PinOptions { metadata: [("a b".to_owned(), String::new())].into(), ..options() },
        PinOptions { name: "n".repeat(256), ..options() },
        PinOptions { metadata: [("a".to_owned(), "x".repeat(4000))].into(), ..options() },
    ];
    for options in bad {
        let error = client.pin(&cid::of(b"a"), &options).await.expect_err("refused before it is sent");
        assert_eq!((error.reason(), error.is_transient()), ("PinInvalid", false), "{options:?}");
    }
}

#[tokio::test]
async fn a_400_that_pinned_nonetheless_says_so() {
    let (server, client) = server().await;
    // As the server does it: the error, and behind it the pin it made.
    let body = format!("{{\"code\":400,\"message\":\"error decoding multiaddress\"}}\n{}\n", record(&cid::of(b"a")));
    Mock::given(method("POST"))
        .respond_with(ResponseTemplate::new(400).set_body_raw(body, "application/json"))
        .mount(&server)
        .await;
    let error = client.pin(&cid::of(b"a"), &options()).await.expect_err("400");
    assert!(matches!(&error, Error::PinRefused { message, .. } if message == "error decoding multiaddress"), "{error}");
    assert!(!error.is_transient());
}

#[tokio::test]
async fn options_that_got_lost_are_noticed() {
    let (server, client) = server().await;
    Mock::given(method("POST"))
        .respond_with(ResponseTemplate::new(200).set_body_json(record(&cid::of(b"a"))))
        .mount(&server)
        .await;
    let expiring = PinOptions { expire_at: Some(Timestamp::now() + SignedDuration::from_hours(1)), ..options() };
    let error = client.pin(&cid::of(b"a"), &expiring).await.expect_err("the server forgot expire-at");
    assert!(matches!(&error, Error::OptionsLost { lost, .. } if lost.option == "expire-at"), "{error}");
}

#[tokio::test]
async fn lists_are_lines_and_an_empty_list_is_nothing() {
    let (server, client) = server().await;
    let (a, b) = (cid::of(b"a"), cid::of(b"b"));
    let line = |cid: &Cid, status: &str| {
        json!({"cid": cid.to_string(), "name": "", "allocations": null, "origins": null, "metadata": null,
            "created": "0001-01-01T00:00:00Z", "peer_map": {PEER: {"peername": "n", "status": status, "error": "",
            "timestamp": "2026-01-01T00:00:00Z", "attempt_count": 0, "priority_pin": false}}})
        .to_string()
    };
    let body = format!("{}\n{}\n", line(&a, "pinned"), line(&b, "unpinned"));
    Mock::given(method("GET"))
        .and(path("/pins"))
        .and(query_param("cids", format!("{a},{b}")))
        .respond_with(ResponseTemplate::new(200).set_body_raw(body, "application/json"))
        .mount(&server)
        .await;
    Mock::given(path("/peers")).respond_with(ResponseTemplate::new(204)).mount(&server).await;
    Mock::given(path("/allocations")).respond_with(ResponseTemplate::new(204)).mount(&server).await;
    let status = client.status(&[a, b]).await.expect("two lines");
    assert_eq!((status[&a].pinned(), status[&b].pinned()), (1, 0));
    assert!(status[&a].is_known() && !status[&b].is_known());
    assert!(client.peers().await.expect("204").is_empty());
    assert!(client.allocations().await.expect("204").is_empty());
    assert!(client.status(&[]).await.expect("nothing asked").is_empty());
}

#[tokio::test]
async fn a_list_that_ends_early_is_no_answer() {
    let (server, client) = server().await;
    Mock::given(path("/pins")).respond_with(ResponseTemplate::new(204)).mount(&server).await;
    let error = client.status(&[cid::of(b"a")]).await.expect_err("one was asked for");
    assert!(matches!(error, Error::Incomplete { .. }) && error.is_transient());
}

#[tokio::test]
async fn many_cids_are_asked_for_in_several_requests() {
    let (server, client) = server().await;
    Mock::given(path("/pins"))
        .respond_with(|request: &wiremock::Request| {
            let cids = request.url.query_pairs().find(|(key, _)| key == "cids").map(|(_, value)| value.into_owned());
            let lines: Vec<String> = cids
                .unwrap_or_default()
                .split(',')
                .map(|cid| json!({"cid": cid, "peer_map": {}}).to_string())
                .collect();
            ResponseTemplate::new(200).set_body_raw(lines.join("\n"), "application/json")
        })
        .expect(3)
        .mount(&server)
        .await;
    let cids: Vec<Cid> = (0..120u32).map(|n| cid::of(&n.to_be_bytes())).collect();
    assert_eq!(client.status(&cids).await.expect("three answers").len(), 120);
}

#[tokio::test]
async fn an_unpin_within_the_batch_window_is_not_believed() {
    let (server, client) = server().await;
    let not_found = json!({"code": 404, "message": "pin is not part of the pinset"});
    Mock::given(method("DELETE"))
        .respond_with(ResponseTemplate::new(404).set_body_json(not_found))
        .up_to_n_times(1)
        .mount(&server)
        .await;
    Mock::given(method("DELETE"))
        .respond_with(ResponseTemplate::new(200).set_body_json(record(&cid::of(b"a"))))
        .mount(&server)
        .await;
    assert_eq!(client.unpin(&cid::of(b"a")).await.expect("404 is an answer"), Unpin::NotThere);
    assert_eq!(client.unpin(&cid::of(b"a")).await.expect("200"), Unpin::Accepted);
}

#[tokio::test]
async fn a_peer_with_a_dead_kubo_is_not_well() {
    let (server, client) = server().await;
    let dead = json!({"id": PEER, "addresses": null, "cluster_peers": [PEER], "version": "1.1.6", "error": "",
        "peername": "a", "ipfs": {"id": "", "addresses": null, "error": "dial unix api.sock: connection refused"}});
    Mock::given(path("/id")).respond_with(ResponseTemplate::new(200).set_body_json(dead)).mount(&server).await;
    let id = client.id().await.expect("the cluster peer answers");
    assert!(id.problem().is_some_and(|problem| problem.contains("refused")));
}

#[tokio::test]
async fn only_peers_with_a_valid_measurement_are_given_pins() {
    let (server, client) = server().await;
    let other = Identity::from_seed([1; 32]).peer_id;
    let metric =
        |peer: &str, value: &str, valid: bool| json!({"name": "m", "peer": peer, "value": value, "valid": valid});
    Mock::given(path("/monitor/metrics/freespace"))
        .respond_with(
            ResponseTemplate::new(200)
                .set_body_json(json!([metric(PEER, "1000", true), metric(other.as_str(), "0", false)])),
        )
        .mount(&server)
        .await;
    Mock::given(path("/monitor/metrics/tag:host"))
        .respond_with(ResponseTemplate::new(200).set_body_json(json!([metric(PEER, "node-1", true)])))
        .mount(&server)
        .await;
    let peers = client.live_peers().await.expect("metrics");
    assert_eq!(peers, [Peer { id: PEER.parse().expect("a peer id"), host: "node-1".into(), free: 1000 }]);
}

#[tokio::test]
async fn errors_say_whether_to_try_again() {
    let (server, client) = server().await;
    let cid = cid::of(b"a");
    let cases = [
        (ResponseTemplate::new(401), "ClusterUnauthorized", false),
        (ResponseTemplate::new(500).set_body_json(json!({"code": 500, "message": "boom"})), "ClusterRefused", true),
        (ResponseTemplate::new(429), "ClusterRefused", true),
        (
            ResponseTemplate::new(500).set_body_json(
                json!({"code": 500, "message": "not enough peers to allocate CID. Needed at least: 2."}),
            ),
            "TooFewStorageNodes",
            true,
        ),
        (ResponseTemplate::new(200).set_body_string("{\"cid\":"), "ClusterAnswerInvalid", true),
        (ResponseTemplate::new(200).set_body_string(""), "ClusterAnswerInvalid", true),
        (ResponseTemplate::new(200).set_delay(Duration::from_secs(2)), "ClusterTimeout", true),
    ];
    for (answer, reason, transient) in cases {
        server.reset().await;
        Mock::given(method("POST")).respond_with(answer).mount(&server).await;
        let error = client.pin(&cid, &options()).await.expect_err(reason);
        assert_eq!((error.reason(), error.is_transient()), (reason, transient), "{error}");
    }
    drop(server);
    let gone = IpfsCluster::new("http://127.0.0.1:9", "secret").expect("an address");
    assert_eq!(gone.id().await.expect_err("nobody listens").reason(), "ClusterUnreachable");
}

#[tokio::test]
async fn a_missing_allocation_is_none_not_an_error() {
    let (server, client) = server().await;
    Mock::given(path(format!("/allocations/{}", cid::of(b"a"))))
        .respond_with(ResponseTemplate::new(200).set_body_json(record(&cid::of(b"a"))))
        .mount(&server)
        .await;
    assert_eq!(client.allocation(&cid::of(b"a")).await.expect("there").expect("there").allocations.len(), 1);
    assert!(client.allocation(&cid::of(b"b")).await.expect("404 is an answer").is_none());
}
