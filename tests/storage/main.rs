//! The storage layer against real kubo and real ipfs-cluster on loopback (rows K3, V2, V10; testing.md).
//!
//! Programs are taken from `DSN_TOOLS` or the PATH; without them the tests fail. What the cluster holds is asserted with
//! `ipfs-cluster-ctl` and `ipfs`, not with our own clients.

#![allow(clippy::unwrap_used)]

mod group;

use std::{collections::BTreeMap, num::NonZeroU32, process::Command};

use dsn::{
    clients::ipfs_cluster::{PinOptions, Unpin},
    domain::{
        cid::{self, CHUNK, Cid, Directory, Entry},
        pin::{BATCH_AGE, Spread},
    },
};
use group::{Group, Node, SERVER, UPLOAD, digest, eventually, footage};
use reqwest::StatusCode;

const TWO: NonZeroU32 = NonZeroU32::new(2).unwrap();

/// Uploads files at one node and rolls them up at another.
async fn recorded(at: &Node, rolled_up_at: &Node, files: &[(&str, &[u8])]) -> Directory {
    let mut entries = Vec::new();
    for (name, bytes) in files {
        let digest = digest(bytes);
        at.uploader().put_file(name, &digest, bytes.to_vec()).await.expect("uploaded");
        entries.push(Entry { name: (*name).to_owned(), cid: digest.cid, size: digest.bytes });
    }
    let directory = cid::directory(entries).expect("a directory");
    rolled_up_at.reader().put_directory(&directory).await.expect("rolled up");
    directory
}

/// Pins on two nodes, as the recorder does.
async fn pin(node: &Node, spread: &mut Spread, cid: &Cid, bytes: u64) {
    let peers = node.rest().live_peers().await.expect("peers");
    let options =
        PinOptions { allocations: spread.choose(bytes, TWO, &peers).expect("room"), ..PinOptions::new("minute", TWO) };
    node.rest().pin(cid, &options).await.expect("accepted");
}

async fn pinned(node: &Node, cid: &Cid, times: usize) {
    eventually(&format!("{cid} is pinned {times} times"), || async {
        let status = node.rest().status(&[*cid]).await.map_err(|error| error.to_string())?;
        if status[cid].pinned() == times { Ok(()) } else { Err(format!("{:?}", status[cid])) }
    })
    .await;
}

/// Names of the peers that hold a CID, as `ipfs-cluster-ctl` shows them.
fn holders(node: &Node, cid: &Cid) -> Vec<String> {
    let text = node.ctl(&["status", &cid.to_string()]);
    text.lines()
        .filter(|line| line.contains(": PINNED"))
        .map(|line| line.trim_start_matches([' ', '>']).split_whitespace().next().unwrap_or_default().to_owned())
        .collect()
}

#[tokio::test]
async fn footage_lies_on_two_of_three_nodes_and_is_read_from_any() {
    let group = Group::of(3).await;
    let [first, second, third] = &group.nodes[..] else { panic!("three nodes") };
    let mut spread = Spread::default();
    let mut used: BTreeMap<String, usize> = BTreeMap::new();
    for minute in 0..6u8 {
        // One block, exactly one block, several blocks.
        let segments = [footage(minute, 700_000), footage(minute, CHUNK), footage(minute, 2 * CHUNK + 5)];
        let files: Vec<(&str, &[u8])> =
            ["0.m4s", "1.m4s", "2.m4s"].into_iter().zip(segments.iter().map(Vec::as_slice)).collect();
        let directory = recorded(first, second, &files).await;
        pin(third, &mut spread, &directory.cid, 7_000_000).await;
        pinned(third, &directory.cid, 2).await;

        let holders = holders(first, &directory.cid);
        assert_eq!(holders.len(), 2, "{}", first.ctl(&["status", &directory.cid.to_string()]));
        for holder in holders {
            *used.entry(holder).or_default() += 1;
        }
        for (entry, bytes) in directory.entries.iter().zip(&segments) {
            for node in &group.nodes {
                assert_eq!(
                    node.reader().get(&entry.cid).await.expect("served"),
                    bytes,
                    "{} of {}",
                    entry.name,
                    node.name
                );
            }
            // kubo itself agrees on name and content.
            assert_eq!(&third.ipfs(&["cat", &format!("/ipfs/{}/{}", directory.cid, entry.name)]).unwrap(), bytes);
        }
    }
    assert_eq!(used.values().copied().collect::<Vec<_>>(), [4, 4, 4], "six pins, two copies, three nodes: {used:?}");
}

#[tokio::test]
async fn an_unpin_within_the_batch_window_fails_and_the_pin_still_comes() {
    let group = Group::of(1).await;
    let node = &group.nodes[0];
    let one = NonZeroU32::MIN;
    let directory = recorded(node, node, &[("0.m4s", b"footage")]).await;
    node.rest().pin(&directory.cid, &PinOptions::new("minute", one)).await.expect("accepted");
    assert_eq!(node.rest().unpin(&directory.cid).await.expect("an answer"), Unpin::NotThere, "the trap is still there");
    tokio::time::sleep(BATCH_AGE * 2).await;
    pinned(node, &directory.cid, 1).await;
    assert!(node.ipfs(&["pin", "ls", &directory.cid.to_string()]).is_ok());

    assert_eq!(node.rest().unpin(&directory.cid).await.expect("an answer"), Unpin::Accepted);
    eventually("kubo lets it go", || async {
        match node.ipfs(&["pin", "ls", &directory.cid.to_string()]) {
            Ok(pins) => Err(String::from_utf8_lossy(&pins).into_owned()),
            Err(_) => Ok(()),
        }
    })
    .await;
    assert!(node.rest().allocation(&directory.cid).await.expect("an answer").is_none());
}

#[tokio::test]
async fn options_arrive_whole() {
    let group = Group::of(1).await;
    let node = &group.nodes[0];
    let directory = recorded(node, node, &[("0.m4s", b"footage")]).await;
    let expire_at = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(720);
    let options = PinOptions {
        expire_at: Some(expire_at),
        metadata: [("camera".to_owned(), "cams/lobby ü".to_owned()), ("site".to_owned(), "hq".to_owned())].into(),
        allocations: vec![node.cluster_id.peer_id.clone()],
        origins: vec![format!("/dns/localhost/tcp/4001/p2p/{}", node.kubo_id.peer_id)],
        ..PinOptions::new("minute of cams/lobby", NonZeroU32::MIN)
    };
    let echo = node.rest().pin(&directory.cid, &options).await.expect("accepted");
    echo.check(&directory.cid, &options).expect("the echo is what was asked for");
    pinned(node, &directory.cid, 1).await;
    let record = node.rest().allocation(&directory.cid).await.expect("an answer").expect("there");
    record.check(&directory.cid, &options).expect("and so is the record");
    let listed = node.ctl(&["--enc=json", "pin", "ls", &directory.cid.to_string()]);
    assert!(listed.contains("cams/lobby") && listed.contains("\"site\""), "{listed}");
}

#[tokio::test]
async fn a_fourth_node_joins_without_a_restart_of_the_three() {
    let mut group = Group::of(3).await;
    group.join().await;
    for node in &mut group.nodes {
        for process in [&mut node.kubo, &mut node.cluster, &mut node.agent] {
            assert!(process.as_mut().unwrap().is_running(), "{}", node.name);
        }
    }
    let (first, fourth) = (&group.nodes[0], &group.nodes[3]);
    let directory = recorded(first, first, &[("0.m4s", b"footage")]).await;
    let options = PinOptions {
        allocations: vec![first.cluster_id.peer_id.clone(), fourth.cluster_id.peer_id.clone()],
        ..PinOptions::new("minute", TWO)
    };
    first.rest().pin(&directory.cid, &options).await.expect("accepted");
    pinned(first, &directory.cid, 2).await;
    assert!(holders(&group.nodes[1], &directory.cid).contains(&fourth.name));
}

#[tokio::test]
async fn a_kubo_with_another_swarm_key_cannot_connect() {
    let (group, strangers) = (Group::of(1).await, Group::another(1, 99).await);
    let (node, stranger) = (&group.nodes[0], &strangers.nodes[0]);
    let address = |node: &Node| format!("/ip4/127.0.0.1/tcp/{}/p2p/{}", node.kubo_port, node.kubo_id.peer_id);
    let told = stranger.ipfs(&["swarm", "connect", &address(node)]).expect_err("a stranger was let in");
    assert!(told.contains("failure"), "{told}");
    assert!(node.ipfs(&["swarm", "peers"]).unwrap().is_empty());
    let told = node.ipfs(&["swarm", "connect", &address(stranger)]).expect_err("we went to a stranger");
    assert!(told.contains("failure"), "{told}");
}

#[tokio::test]
async fn a_killed_kubo_is_noticed_and_comes_back_on_its_own() {
    let mut group = Group::of(1).await;
    let node = &mut group.nodes[0];
    let directory = recorded(node, node, &[("0.m4s", b"footage")]).await;
    node.rest().pin(&directory.cid, &PinOptions::new("minute", NonZeroU32::MIN)).await.expect("accepted");
    pinned(node, &directory.cid, 1).await;

    node.kubo.as_mut().unwrap().kill();
    let socket = node.socket();
    assert!(socket.exists(), "a killed kubo leaves its socket behind");
    eventually("the node says that kubo is gone", || async {
        match node.ready().await {
            Err(words) if words.contains("kubo") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    let refused = node.uploader().put_file("1.m4s", &digest(b"more"), &b"more"[..]).await.expect_err("kubo is gone");
    assert!(refused.is_transient(), "{refused}");
    // The container restarts alone, without the init step.
    eventually("the stale socket is gone", || async {
        if socket.exists() { Err("still there".into()) } else { Ok(()) }
    })
    .await;
    node.start_kubo();
    eventually("the node is ready again", || node.ready()).await;
    assert_eq!(node.reader().get(&digest(b"footage").cid).await.expect("served"), "footage");
}

#[tokio::test]
async fn what_should_not_pass_does_not() {
    let group = Group::of(1).await;
    let node = &group.nodes[0];
    let http = reqwest::Client::new();
    let files = format!("{}/v1/files", node.url());
    let put = |token: &str, sha256: &str, body: Vec<u8>| {
        http.put(&files).bearer_auth(token).header("sha256", sha256).header("path", "p").body(body).send()
    };
    let right = digest(b"footage").sha256;

    for token in ["", "wrong", &UPLOAD[1..]] {
        assert_eq!(
            put(token, &right, b"footage".to_vec()).await.unwrap().status(),
            StatusCode::UNAUTHORIZED,
            "{token}"
        );
    }
    assert_eq!(http.put(&files).body("x").send().await.unwrap().status(), StatusCode::UNAUTHORIZED);
    let other = put(UPLOAD, &right, b"other".to_vec()).await.unwrap();
    assert_eq!(other.status(), StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(put(UPLOAD, "abc", b"footage".to_vec()).await.unwrap().status(), StatusCode::BAD_REQUEST);
    // Too big, with a length in the header and without: the agent answers and hangs up, whatever else is being sent.
    let big = vec![0; 64 * 1024 * 1024 + 1];
    let pieces: Vec<_> = big.chunks(1 << 20).map(|piece| Ok::<_, std::io::Error>(piece.to_vec())).collect();
    let streamed = reqwest::Body::wrap_stream(futures::stream::iter(pieces));
    let streamed = http.put(&files).bearer_auth(UPLOAD).header("sha256", &right).body(streamed);
    for answer in [put(UPLOAD, &right, big).await, streamed.send().await] {
        match answer {
            Ok(answer) => assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE),
            Err(error) => assert!(error.is_request(), "{error:?}"),
        }
    }
    eventually("both are counted", || async {
        let metrics = node.metrics().await;
        let refused = "dsn_storage_requests_total{operation=\"upload\",status=\"413\"} 2";
        if metrics.contains(refused) { Ok(()) } else { Err(metrics) }
    })
    .await;

    assert_eq!(put(UPLOAD, &right, b"footage".to_vec()).await.unwrap().status(), StatusCode::OK);
    let cid = cid::of(b"footage");
    let get = |path: String, token: &str, headers: &[(&str, &str)]| {
        let mut request = http.get(format!("{}/ipfs/{path}", node.url())).bearer_auth(token);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send()
    };
    assert_eq!(get(cid.to_string(), UPLOAD, &[]).await.unwrap().status(), StatusCode::FORBIDDEN);
    assert_eq!(get(cid.to_string(), "", &[]).await.unwrap().status(), StatusCode::UNAUTHORIZED);
    assert_eq!(get("nonsense".into(), SERVER, &[]).await.unwrap().status(), StatusCode::BAD_REQUEST);
    let absent = cid::of(b"absent").to_string();
    let cached = [("cache-control", "only-if-cached")];
    assert_eq!(get(absent.clone(), SERVER, &cached).await.unwrap().status(), StatusCode::PRECONDITION_FAILED);
    assert_eq!(get(absent, SERVER, &[]).await.unwrap().status(), StatusCode::NOT_FOUND);
    let rollup =
        http.post(format!("{}/v1/rollups", node.url())).bearer_auth(UPLOAD).json(&serde_json::json!({"entries": []}));
    assert_eq!(rollup.send().await.unwrap().status(), StatusCode::FORBIDDEN);

    // kubo's RPC can do anything; it has no port.
    let listening = Command::new("ss").args(["-Hltnp"]).output().map(|output| output.stdout).unwrap_or_default();
    let listening = String::from_utf8_lossy(&listening);
    let ports = listening.lines().filter(|line| line.contains("\"ipfs\"") && !line.contains("cluster"));
    assert!(ports.clone().all(|line| !line.contains(":5001 ") && !line.contains(":8080 ")), "{listening}");
    assert!(node.metrics().await.contains("dsn_storage_requests_total{operation=\"upload\",status=\"401\"} 4"));
}

#[tokio::test]
async fn nobody_says_no_for_a_node_that_does_not_answer() {
    let mut group = Group::of(2).await;
    let (small, large) = (footage(1, 1000), footage(2, 2 * CHUNK + 5));
    let [first, second] = &group.nodes[..] else { panic!("two nodes") };
    for bytes in [&small, &large] {
        let digest = digest(bytes);
        first.uploader().put_file("f", &digest, bytes.clone()).await.expect("uploaded");
        assert!(first.uploader().has(&digest.cid).await.expect("an answer"));
    }
    assert!(second.uploader().has(&digest(&large).cid).await.expect("an answer"), "its neighbour has it");
    let absent = cid::of(b"absent");
    assert!(!second.uploader().has(&absent).await.expect("both are asked"));

    // Stopped, not ended: its connections stay open for a while.
    let first = &mut group.nodes[0];
    first.kubo.as_ref().unwrap().pause();
    let second = &group.nodes[1];
    for cid in [digest(&small).cid, absent] {
        let unsure = second.uploader().has(&cid).await.expect_err("the first may have it");
        assert_eq!(unsure.reason(), "StorageRefused", "{unsure}");
    }
}

#[tokio::test]
async fn files_are_read_as_players_read_them() {
    let group = Group::of(1).await;
    let node = &group.nodes[0];
    let bytes = footage(1, 2 * CHUNK + 5);
    let directory = recorded(node, node, &[("0.m4s", &bytes), ("empty", b"")]).await;
    let http = reqwest::Client::new();
    let ask = |method: reqwest::Method, path: &str, headers: &[(&str, &str)]| {
        let mut request = http.request(method, format!("{}/ipfs/{path}", node.url())).bearer_auth(SERVER);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send()
    };
    let path = format!("{}/0.m4s", directory.cid);
    let whole = ask(reqwest::Method::GET, &path, &[]).await.unwrap();
    let tag = whole.headers()["etag"].to_str().unwrap().to_owned();
    assert_eq!(tag, format!("\"{}\"", digest(&bytes).cid), "the file's own name, however it was reached");
    assert!(whole.headers()["cache-control"].to_str().unwrap().contains("immutable"));
    assert_eq!(whole.bytes().await.unwrap(), bytes);

    let head = ask(reqwest::Method::HEAD, &path, &[]).await.unwrap();
    assert_eq!(head.headers()["content-length"], bytes.len().to_string());
    // A range over the boundary of two blocks.
    let (from, to) = (CHUNK - 10, CHUNK + 9);
    let part = ask(reqwest::Method::GET, &path, &[("range", &format!("bytes={from}-{to}"))]).await.unwrap();
    assert_eq!(part.status(), StatusCode::PARTIAL_CONTENT);
    assert_eq!(part.headers()["content-range"], format!("bytes {from}-{to}/{}", bytes.len()));
    assert_eq!(part.bytes().await.unwrap(), &bytes[from..=to]);
    let beyond = ask(reqwest::Method::GET, &path, &[("range", &format!("bytes={}-", bytes.len()))]).await.unwrap();
    assert_eq!(beyond.status(), StatusCode::RANGE_NOT_SATISFIABLE);
    let same = ask(reqwest::Method::GET, &path, &[("if-none-match", &tag)]).await.unwrap();
    assert_eq!(same.status(), StatusCode::NOT_MODIFIED);

    let raw =
        ask(reqwest::Method::GET, &directory.cid.to_string(), &[("accept", "application/vnd.ipld.raw")]).await.unwrap();
    assert_eq!(raw.bytes().await.unwrap(), directory.block, "our block is kubo's block");
    let folder = ask(reqwest::Method::GET, &directory.cid.to_string(), &[]).await.unwrap();
    assert_eq!(folder.status(), StatusCode::BAD_REQUEST);
    let empty = ask(reqwest::Method::GET, &format!("{}/empty", directory.cid), &[]).await.unwrap();
    assert_eq!((empty.status(), empty.bytes().await.unwrap().len()), (StatusCode::OK, 0));
    let missing = ask(reqwest::Method::GET, &format!("{}/other", directory.cid), &[]).await.unwrap();
    assert_eq!(missing.status(), StatusCode::NOT_FOUND);

    // A file with a hole must break, never end as if it were whole.
    let leaf = cid::raw(<sha2::Sha256 as sha2::Digest>::digest(&bytes[CHUNK..2 * CHUNK]).into());
    node.ipfs(&["block", "rm", &leaf.to_string()]).unwrap();
    let holed = ask(reqwest::Method::GET, &path, &[("cache-control", "only-if-cached")]).await;
    assert!(match holed {
        Ok(response) => !response.status().is_success() || response.bytes().await.is_err(),
        Err(_) => true,
    });
}
