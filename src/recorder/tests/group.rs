//! A storage group that behaves as the real one was seen to: a storage agent and an ipfs-cluster with its traps.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};
use wiremock::{Mock, MockServer, Request, Respond, ResponseTemplate, matchers::any};

use crate::domain::{
    cid::{self, Entry},
    identity::Identity,
    upload::Rollup,
};

/// What the group is made to do.
#[derive(Default)]
pub struct State {
    /// Pins as written down, by CID.
    pub pins: BTreeMap<String, Value>,
    /// How many of the asked peers hold a pin.
    pub holders: usize,
    /// Peers that report room.
    pub peers: u8,
    /// Peers whose kubo is dead: they report no room and make no copy.
    pub dead: BTreeSet<u8>,
    /// kubo behind the storage agent is dead.
    pub kubo_dead: bool,
    /// The next pin is answered 400 and made nonetheless; `Some(true)`: with half its options.
    pub refuse_pin: Option<bool>,
    /// So many deletions are within a batch window: answered 404, and the pin stays.
    pub deaf_deletions: usize,
    /// Roll-ups built.
    pub built: usize,
    /// Pin requests: (cid, user-allocations).
    pub asked: Vec<(String, String)>,
    /// Deletions asked for.
    pub deletions: usize,
    /// Questions about pins on their way.
    pub looked: usize,
}

/// The running group.
pub struct FakeGroup {
    pub server: MockServer,
    pub state: Arc<Mutex<State>>,
}

struct Answer(Arc<Mutex<State>>);

pub async fn group() -> FakeGroup {
    let state = Arc::new(Mutex::new(State { holders: 2, peers: 3, ..State::default() }));
    let server = MockServer::start().await;
    Mock::given(any()).respond_with(Answer(Arc::clone(&state))).mount(&server).await;
    FakeGroup { server, state }
}

impl FakeGroup {
    pub fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().expect("not poisoned"));
    }

    pub fn get<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        read(&self.state.lock().expect("not poisoned"))
    }
}

pub fn peer(number: u8) -> String {
    Identity::from_seed([number; 32]).peer_id.to_string()
}

impl Respond for Answer {
    fn respond(&self, request: &Request) -> ResponseTemplate {
        let mut state = self.0.lock().expect("not poisoned");
        let path = request.url.path().trim_matches('/').to_owned();
        let words: Vec<&str> = path.split('/').collect();
        match (request.method.as_str(), words.as_slice()) {
            ("POST", ["v1", "rollups"]) => rollup(&mut state, request),
            ("GET", ["monitor", "metrics", "freespace"]) => {
                let list: Vec<_> = (1..=state.peers)
                    .filter(|n| !state.dead.contains(n))
                    .map(|n| json!({"peer": peer(n), "value": "1000000000000", "valid": true}))
                    .collect();
                ResponseTemplate::new(200).set_body_json(list)
            }
            ("GET", ["monitor", "metrics", _]) => ResponseTemplate::new(200).set_body_json(Value::Null),
            ("POST", ["pins", _, "recover"]) => ResponseTemplate::new(200).set_body_json(json!({})),
            ("POST", ["pins", cid]) => pin(&mut state, cid, request),
            ("DELETE", ["pins", cid]) => {
                state.deletions += 1;
                if state.deaf_deletions > 0 {
                    state.deaf_deletions -= 1;
                    return ResponseTemplate::new(404)
                        .set_body_json(json!({"code": 404, "message": "not part of the pinset"}));
                }
                match state.pins.remove(*cid) {
                    Some(record) => ResponseTemplate::new(200).set_body_json(record),
                    None => ResponseTemplate::new(404)
                        .set_body_json(json!({"code": 404, "message": "not part of the pinset"})),
                }
            }
            ("GET", ["allocations", cid]) => match state.pins.get(*cid) {
                Some(record) => ResponseTemplate::new(200).set_body_json(record),
                None => ResponseTemplate::new(404).set_body_json(json!({"code": 404, "message": "not found"})),
            },
            ("GET", ["pins"]) => {
                state.looked += 1;
                status(&state, request)
            }
            other => panic!("unexpected request {other:?}"),
        }
    }
}

fn rollup(state: &mut State, request: &Request) -> ResponseTemplate {
    if state.kubo_dead {
        return ResponseTemplate::new(503)
            .set_body_json(json!({"reason": "KuboDown", "error": "kubo does not answer"}));
    }
    state.built += 1;
    let rollup: Rollup = serde_json::from_slice(&request.body).expect("a roll-up");
    let entries = rollup
        .entries
        .into_iter()
        .map(|entry| Entry { name: entry.name, cid: entry.cid.parse().expect("a CID"), size: entry.size })
        .collect();
    let directory = cid::directory(entries).expect("a directory");
    ResponseTemplate::new(200).set_body_json(json!({"cid": directory.cid.to_string()}))
}

fn pin(state: &mut State, cid: &str, request: &Request) -> ResponseTemplate {
    let query: BTreeMap<String, String> = request.url.query_pairs().into_owned().collect();
    let metadata: BTreeMap<_, _> =
        query.iter().filter_map(|(key, value)| Some((key.strip_prefix("meta-")?.to_owned(), value.clone()))).collect();
    state.asked.push((cid.to_owned(), query["user-allocations"].clone()));
    let mut record = json!({
        "cid": cid, "name": query["name"],
        "replication_factor_min": query["replication-min"].parse::<i64>().expect("a number"),
        "replication_factor_max": query["replication-max"].parse::<i64>().expect("a number"),
        "allocations": query["user-allocations"].split(',').collect::<Vec<_>>(),
        "expire_at": query["expire-at"], "metadata": metadata, "origins": null,
    });
    // Trap: pinning again what is pinned keeps its peers.
    if let Some(known) = state.pins.get(cid) {
        record["allocations"] = known["allocations"].clone();
    }
    match state.refuse_pin.take() {
        None => {
            state.pins.insert(cid.to_owned(), record.clone());
            ResponseTemplate::new(200).set_body_json(record)
        }
        Some(halved) => {
            if halved {
                record["expire_at"] = json!("0001-01-01T00:00:00Z");
                record["metadata"] = Value::Null;
            }
            state.pins.insert(cid.to_owned(), record);
            ResponseTemplate::new(400).set_body_json(json!({"code": 400, "message": "bad option"}))
        }
    }
}

fn status(state: &State, request: &Request) -> ResponseTemplate {
    let cids = request.url.query_pairs().find(|(key, _)| key == "cids").map(|(_, value)| value.into_owned());
    let mut lines = String::new();
    for cid in cids.unwrap_or_default().split(',') {
        let mut peers = serde_json::Map::new();
        if let Some(record) = state.pins.get(cid) {
            for (n, id) in record["allocations"].as_array().into_iter().flatten().enumerate() {
                let holds = n < state.holders && !state.dead.iter().any(|dead| *id == peer(*dead));
                let status = if holds { "pinned" } else { "pin_error" };
                let error = if holds { "" } else { "context deadline exceeded" };
                peers.insert(id.as_str().expect("an id").to_owned(), json!({"status": status, "error": error}));
            }
        } else {
            peers.insert(peer(1), json!({"status": "unpinned"}));
        }
        lines += &json!({"cid": cid, "peer_map": peers}).to_string();
        lines.push('\n');
    }
    ResponseTemplate::new(200).set_body_string(lines)
}
