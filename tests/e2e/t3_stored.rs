//! Where the footage is (rows K3, V2, V10): hashes recomputed, pins counted, strangers kept out.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
    time::Duration,
};

use jiff::Timestamp;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::{
    footage::{key, media, replay, sha256},
    kube::{apply, eventually, get, kubectl, list, run, text, tool, try_kubectl, wait_condition},
    world::{USER, admin, camera, http_get_as, pipeline, recording, remove, secret, storage_node, world},
};

/// `ipfs-cluster-ctl` inside a storage pod: the values it prints, lists taken apart.
fn cluster_ctl(node: &str, arguments: &[&str]) -> Vec<Value> {
    let pod = format!("sn-{node}-0");
    let login = format!("dsn:{}", secret(USER, "dsn-group-default", "cluster-password"));
    // With a login the tool would speak TLS, which the REST API inside the group's pods does not.
    let mut line = vec!["-n", USER, "exec", &pod, "-c", "cluster", "--", "ipfs-cluster-ctl", "--force-http"];
    line.extend(["--basic-auth", &login, "--enc=json"]);
    line.extend(arguments);
    serde_json::Deserializer::from_str(&kubectl(&line))
        .into_iter::<Value>()
        .flat_map(|value| match value.expect("ipfs-cluster-ctl prints JSON") {
            Value::Array(items) => items,
            one => vec![one],
        })
        .collect()
}

/// The nodes of the group.
pub const DISKS: [&str; 3] = ["disk-1", "disk-2", "disk-3"];

/// What the group shall pin of a camera.
pub fn pins_of(camera: &str) -> BTreeSet<String> {
    let name = format!("{USER}/{camera}");
    let pins = cluster_ctl("disk-1", &["pin", "ls"]);
    pins.iter().filter(|pin| text(pin, "/metadata/camera") == name).map(|pin| text(pin, "/cid")).collect()
}

/// What the kubo of a node has pinned.
pub fn held_by(node: &str) -> BTreeSet<String> {
    ipfs(node, &["pin", "ls", "--type=recursive", "--quiet"]).lines().map(str::to_owned).collect()
}

/// kubo's own command line inside a storage pod.
fn ipfs(node: &str, arguments: &[&str]) -> String {
    let pod = format!("sn-{node}-0");
    let mut line = vec!["-n", USER, "exec", &pod, "-c", "kubo", "--", "ipfs"];
    line.extend(arguments);
    kubectl(&line)
}

/// Every pin of the group: CID → names of the peers that report PINNED.
fn pins() -> BTreeMap<String, BTreeSet<String>> {
    cluster_ctl("disk-1", &["status"])
        .into_iter()
        .map(|pin| {
            let pinned = pin["peer_map"]
                .as_object()
                .into_iter()
                .flatten()
                .filter(|(_, peer)| peer["status"] == "pinned")
                .map(|(id, _)| id.clone())
                .collect();
            (text(&pin, "/cid"), pinned)
        })
        .collect()
}

/// CIDv1 computed by the `ipfs` tool itself, offline.
fn independent_cid(bytes: &[u8]) -> String {
    let folder = std::env::temp_dir().join(format!("dsn-e2e-ipfs-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a temporary folder");
    if !folder.join("config").exists() {
        run(tool("ipfs").env("IPFS_PATH", &folder).args(["init", "--profile=test"]));
    }
    let file = folder.join("segment");
    std::fs::write(&file, bytes).expect("a temporary file");
    let printed = run(tool("ipfs")
        .env("IPFS_PATH", &folder)
        .args(["add", "-Q", "--only-hash", "--cid-version=1", "--raw-leaves", "--chunker=size-2096896"])
        .arg(&file));
    String::from_utf8_lossy(&printed).trim().to_owned()
}

/// Checks every segment of a replay: bytes → CID → announcement → roll-up → pinned on exactly two peers.
fn every_segment_is_pinned_twice(camera: &str, start: Timestamp, end: Timestamp) -> BTreeSet<String> {
    let playlist = replay(camera, start, end);
    assert!(!playlist.segments.is_empty());
    let mut wanted = BTreeMap::new();
    for segment in &playlist.segments {
        let bytes = media(&segment.uri);
        let cid = independent_cid(&bytes);
        let announced = world().announcements.with(|heard| heard.segments.get(&key(segment)).cloned());
        let announced = announced.unwrap_or_else(|| panic!("{} was not announced", segment.uri));
        assert_eq!(text(&announced, "/cid"), cid, "{}", segment.uri);
        assert_eq!(text(&announced, "/sha256"), sha256(&bytes), "{}", segment.uri);
        wanted.insert(cid, segment.uri.clone());
    }
    let wanted = wanted.into_keys().collect();
    pinned_on(&wanted, |peers| peers == 2)
}

/// Waits until each of these CIDs is in a roll-up, and each roll-up of them on so many peers; on which they are. A roll-up
/// spans a minute and is closed a little after.
fn pinned_on(wanted: &BTreeSet<String>, is_enough: impl Fn(usize) -> bool) -> BTreeSet<String> {
    eventually("pins", Duration::from_secs(180), || {
        let (mut peers, mut missing) = (BTreeSet::new(), wanted.clone());
        let pins = pins();
        for (rollup, members) in members(pins.keys()) {
            if members.is_disjoint(wanted) {
                continue;
            }
            let pinned = &pins[&rollup];
            if !is_enough(pinned.len()) {
                return Err(format!("roll-up {rollup} is pinned on {} peers", pinned.len()));
            }
            missing.retain(|cid| !members.contains(cid));
            peers.extend(pinned.clone());
        }
        if missing.is_empty() { Ok(peers) } else { Err(format!("{} of {} in no roll-up", missing.len(), wanted.len())) }
    })
}

/// Roll-ups → the CIDs in them.
fn members<'a>(rollups: impl Iterator<Item = &'a String>) -> BTreeMap<String, BTreeSet<String>> {
    let mut line = vec!["ls", "--size=false", "--resolve-type=false"];
    line.extend(rollups.map(String::as_str));
    let mut members: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut rollup = line.last().copied().unwrap_or_default().to_owned();
    // "CID:" and then a line for each member; for one alone the lines only.
    for said in ipfs("disk-1", &line).lines() {
        match said.split_once(' ') {
            Some((member, _)) => drop(members.entry(rollup.clone()).or_default().insert(member.to_owned())),
            None => rollup = said.trim_end_matches(':').to_owned(),
        }
    }
    members
}

/// K3: every segment of these is read back, and in a roll-up that is pinned on two peers or more.
pub fn every_byte_is_read_and_pinned(uris: impl Iterator<Item = String>) {
    let login = admin();
    let wanted = uris.map(|uri| {
        let (status, bytes) = http_get_as(&uri, Some(&login));
        assert_eq!(status, 200, "{uri}: {}", String::from_utf8_lossy(&bytes));
        cid_of_one_block(&bytes)
    });
    pinned_on(&wanted.collect(), |peers| peers >= 2);
}

/// The same as [`independent_cid`] by the definition of CIDv1 (raw, SHA-256, base 32), for hundreds of small files.
fn cid_of_one_block(bytes: &[u8]) -> String {
    assert!(bytes.len() <= 2_096_896, "several blocks");
    let cid = [&[0x01, 0x55, 0x12, 0x20], Sha256::digest(bytes).as_slice()].concat();
    format!("b{}", data_encoding::BASE32_NOPAD.encode(&cid).to_ascii_lowercase())
}

/// K3, V2: each segment of the replay: CID recomputed from the bytes = announced = in a roll-up pinned on exactly 2 of 3
/// peers; the data is spread over all three.
#[test]
fn k3_v2_every_segment_is_pinned_on_two_of_three_nodes() {
    let (start, end) = recording();
    let mut peers = BTreeSet::new();
    for camera in ["h264", "oddgop"] {
        peers.extend(every_segment_is_pinned_twice(camera, start, end));
    }
    assert_eq!(peers.len(), 3, "data lies on {peers:?} only");
}

/// V2: a segment of several blocks is hashed, pinned and checked like any other.
#[test]
fn v2_a_segment_of_several_blocks_is_pinned_too() {
    world();
    let start = Timestamp::now();
    // 30 s of this clip make about 2.3 MB.
    apply(&camera("long", &format!("rtsp://camera.{USER}.svc:8554/h265"), "camera-login"));
    apply(&pipeline("long", "[long]", "  capture: {segmentSeconds: 30}\n"));
    wait_condition(("camera", USER, "long"), "Capturing", "True", "", Duration::from_secs(90));
    let segment = eventually("a segment of more than 2,096,896 bytes", Duration::from_secs(120), || {
        let list = crate::footage::try_replay("long", start, Timestamp::now())?;
        let first = list.segments.first().ok_or("no segment yet")?.clone();
        Ok(first)
    });
    let bytes = media(&segment.uri);
    assert!(bytes.len() > 2_096_896, "only {} bytes: the clip is too small for this test", bytes.len());
    assert_eq!(
        text(&world().announcements.with(|h| h.segments[&key(&segment)].clone()), "/cid"),
        independent_cid(&bytes)
    );
    remove("pipeline", "long");
    remove("camera", "long");
}

/// V2: each segment was announced with file name, CID, site, camera, start and end; keys are distinct and contiguous.
#[test]
fn v2_every_segment_is_announced_once_with_all_it_needs() {
    let (start, end) = recording();
    let listed: BTreeSet<_> = replay("h265", start, end).segments.iter().map(key).collect();
    world().announcements.with(|heard| {
        assert_eq!(heard.ended, None, "the test's own subscription broke");
        assert!(heard.contradictions.is_empty(), "{:?}", heard.contradictions);
        for one in &listed {
            let segment = heard.segments.get(one).unwrap_or_else(|| panic!("{one:?} was not announced"));
            for field in ["file", "cid", "site", "camera", "start", "end"] {
                assert!(!text(segment, &format!("/{field}")).is_empty(), "{field} is missing in {segment}");
            }
            assert_eq!(text(segment, "/site"), "hq");
        }
    });
}

/// V10: a kubo with another swarm key cannot connect; kubo's RPC answers nobody outside its pod.
#[test]
fn v10_strangers_stay_outside() {
    world();
    let pod = get("pod", USER, "sn-disk-1-0").expect("exists");
    let ip = text(&pod, "/status/podIP");
    for port in [5001, 8080, 9095, 9097] {
        let address = format!("{ip}:{port}").parse().expect("an address");
        let open = std::net::TcpStream::connect_timeout(&address, Duration::from_secs(3)).is_ok();
        assert!(!open, "{address} answers");
    }
    let id = text(&get("storagenode", USER, "disk-1").expect("exists"), "/status/ipfsPeerId");
    let folder = std::env::temp_dir().join(format!("dsn-e2e-stranger-{}", std::process::id()));
    run(tool("ipfs").env("IPFS_PATH", &folder).args(["init", "--profile=test"]));
    std::fs::write(folder.join("swarm.key"), format!("/key/swarm/psk/1.0.0/\n/base16/\n{}\n", "ab".repeat(32)))
        .expect("writes");
    for setting in [["AutoConf.Enabled", "false"], ["AutoTLS.Enabled", "false"]] {
        run(tool("ipfs").env("IPFS_PATH", &folder).args(["config", "--json", setting[0], setting[1]]));
    }
    run(tool("ipfs").env("IPFS_PATH", &folder).args(["config", "Routing.Type", "none"]));
    for list in ["Bootstrap", "Routing.DelegatedRouters", "Ipns.DelegatedPublishers"] {
        run(tool("ipfs").env("IPFS_PATH", &folder).args(["config", "--json", list, "[]"]));
    }
    run(tool("ipfs").env("IPFS_PATH", &folder).args(["config", "--json", "DNS.Resolvers", "{}"]));
    let log = std::fs::File::create(folder.join("daemon.log")).expect("writes");
    let mut stranger = Command::from(tool("ipfs"))
        .env("IPFS_PATH", &folder)
        .env("IPFS_TELEMETRY", "off")
        .args(["daemon"])
        .stdout(log.try_clone().expect("a second handle"))
        .stderr(log)
        .spawn()
        .expect("kubo starts");
    // Asking the daemon with `ipfs` before it holds the lock of its folder would take that lock from it.
    eventually("the stranger's daemon", Duration::from_secs(60), || {
        let said = std::fs::read_to_string(folder.join("daemon.log")).expect("reads");
        if said.contains("Daemon is ready") { Ok(()) } else { Err(said) }
    });
    let attempt = tool("ipfs")
        .env("IPFS_PATH", &folder)
        .args(["swarm", "connect", &format!("/ip4/{ip}/tcp/4001/p2p/{id}")])
        .output()
        .expect("runs");
    let _ = stranger.kill();
    let _ = stranger.wait();
    let _ = std::fs::remove_dir_all(&folder);
    assert!(!attempt.status.success(), "the stranger got in");
}

/// K2: a fourth node joins without a restart of the three.
#[test]
fn a_fourth_node_joins_without_a_restart_of_the_three() {
    world();
    let incarnations = || -> Vec<_> {
        DISKS
            .iter()
            .map(|node| crate::world::incarnation(&get("pod", USER, &format!("sn-{node}-0")).expect("exists")))
            .collect()
    };
    let before = incarnations();
    apply(&storage_node("disk-4"));
    wait_condition(("storagenode", USER, "disk-4"), "Online", "True", "", Duration::from_secs(180));
    eventually("four peers in the cluster", Duration::from_secs(120), || {
        let seen =
            cluster_ctl("disk-4", &["peers", "ls"]).iter().filter(|peer| text(peer, "/error").is_empty()).count();
        if seen >= 4 { Ok(()) } else { Err(format!("{seen} peers")) }
    });
    assert_eq!(before, incarnations(), "a node restarted");
    remove("storagenode", "disk-4");
    eventually("disk-4 is gone", Duration::from_secs(120), || {
        if list("pods", USER, "dsn.network/storage-node=disk-4").is_empty() {
            Ok(())
        } else {
            Err("its pod is there".into())
        }
    });
    // A disk outlives its node by default: this one is the test's own.
    let _ = try_kubectl(&["-n", USER, "delete", "pvc", "data-sn-disk-4-0", "--wait=false"]);
}
