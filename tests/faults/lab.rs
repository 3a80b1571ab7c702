//! An operator under observation: a namespace to itself, its own vhost, and forwarders between it and the servers.

use std::{
    cell::Cell,
    collections::BTreeSet,
    fs::{self, File},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::http::{Method, StatusCode};
use dsn::domain::id::{InstanceUid, Role};
use serde_json::{Value, json};

use crate::{
    proxy::Proxy,
    site::{KINDS, Site},
    state::{Mask, State, difference, leave_out_instances},
    tools,
    traffic::{Fault, Kill, Moment, Traffic},
    wire::Wire,
};

/// How long nothing is written by an operator that rests.
const REST: Duration = Duration::from_secs(10);
/// What is asked of the broker, and the fields that are compared.
const ROWS: [(&str, &[&str]); 6] = [
    ("queues", &["name", "durable", "auto_delete", "arguments"]),
    ("bindings", &["source", "destination", "routing_key", "arguments"]),
    ("exchanges", &["name", "type", "durable", "auto_delete", "internal", "arguments"]),
    ("policies", &["name", "pattern", "definition", "apply-to", "priority"]),
    ("permissions", &["user", "configure", "write", "read"]),
    ("topic-permissions", &["user", "exchange", "write", "read"]),
];

/// On which way the operator writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// To the API server.
    Api,
    /// To the broker's management API: its vhost, users and policies.
    Management,
    /// To the broker: exchanges, queues, messages.
    Amqp,
}

impl Way {
    /// Each of them.
    pub const ALL: [Self; 3] = [Self::Api, Self::Management, Self::Amqp];
}

/// One operator, its namespace and what it says.
pub struct Lab<'a> {
    site: &'a Site,
    name: String,
    api: Proxy,
    management: Proxy,
    wire: Wire,
    operator: Arc<Mutex<Option<Child>>>,
    deaths: Cell<u32>,
}

impl<'a> Lab<'a> {
    /// The namespaces; the operator is not started yet.
    pub fn new(site: &'a Site, name: &str) -> Self {
        let server = site.server();
        let api = Proxy::to(&site.runtime, &site.client, &server);
        let management = Proxy::to(&site.runtime, &site.client, &site.broker.management());
        let wire = Wire::to(&site.runtime, site.broker.port());
        let lab =
            Self { site, name: name.to_owned(), api, management, wire, operator: Arc::default(), deaths: Cell::new(0) };
        let kubeconfig = fs::read_to_string(site.api.kubeconfig()).expect("a kubeconfig");
        fs::write(lab.file("kubeconfig"), kubeconfig.replace(&server, lab.api.address())).expect("writes");
        site.furnish(name);
        lab
    }

    /// The servers.
    pub fn site(&self) -> &'a Site {
        self.site
    }

    fn file(&self, ending: &str) -> std::path::PathBuf {
        self.site.api.folder().join(format!("{}.{ending}", self.name))
    }

    /// What goes through on one way.
    pub fn traffic(&self, way: Way) -> &Traffic {
        match way {
            Way::Api => &self.api.traffic,
            Way::Management => &self.management.traffic,
            Way::Amqp => &self.wire.traffic,
        }
    }

    /// Nothing goes wrong any more on any way; counting begins anew.
    pub fn let_be(&self) {
        for way in Way::ALL {
            self.traffic(way).set(None);
        }
    }

    /// At the n-th write on this way, counted from now, the operator dies.
    pub fn dies_at(&self, way: Way, n: u32, moment: Moment) {
        self.traffic(way).set(Some(Fault::At(n, moment, self.killer())));
    }

    fn quiet_for(&self) -> Duration {
        Way::ALL.map(|way| self.traffic(way).quiet_for()).into_iter().min().unwrap_or_default()
    }

    /// Starts the operator with the arguments that the chart gives it.
    pub fn start(&self) {
        let log = File::options().create(true).append(true).open(self.file("log")).expect("a log");
        let child = Command::new(env!("CARGO_BIN_EXE_dsn"))
            .args(self.site.arguments(&self.name, self.wire.port(), self.management.address()))
            .arg("--metrics-listen=127.0.0.1:0")
            .env("KUBECONFIG", self.file("kubeconfig"))
            .env("DSN_LOG", "info")
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file"))
            .stderr(log)
            .spawn()
            .expect("dsn starts");
        *self.child() = Some(child);
    }

    fn child(&self) -> std::sync::MutexGuard<'_, Option<Child>> {
        self.operator.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn killer(&self) -> Kill {
        let operator = self.operator.clone();
        Box::new(move || {
            if let Some(child) = operator.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
                let _ = child.kill();
            }
        })
    }

    /// SIGKILL, now.
    pub fn kill(&self) {
        if let Some(child) = self.child().as_mut() {
            child.kill().expect("it can be killed");
            child.wait().expect("it ends");
        }
    }

    /// Starts it again if it was killed. The one that follows need not wait for the Lease to run out: that is not what
    /// is tried here.
    pub fn revive(&self) -> bool {
        let dead = self.child().as_mut().is_some_and(|child| !matches!(child.try_wait(), Ok(None)));
        if dead {
            let lease = format!("apis/coordination.k8s.io/v1/namespaces/{}-system/leases/dsn-operator", self.name);
            self.site.kubernetes(Method::DELETE, &lease, None);
            self.start();
            self.deaths.set(self.deaths.get() + 1);
        }
        dead
    }

    /// How often it died.
    pub fn deaths(&self) -> u32 {
        self.deaths.get()
    }

    /// What its log says.
    pub fn log(&self) -> String {
        fs::read_to_string(self.file("log")).unwrap_or_default()
    }

    /// kubectl in its namespace.
    pub fn kubectl(&self, arguments: &[&str], input: &str) -> String {
        self.site.kubectl(&[&["-n", &self.name], arguments].concat(), input)
    }

    fn path(&self, kind: &str, name: &str) -> String {
        let (_, group, plural) = KINDS.iter().find(|(known, ..)| *known == kind).expect("a kind of ours");
        format!("{group}/namespaces/{}/{plural}/{name}", self.name).trim_end_matches('/').to_owned()
    }

    fn must(&self, method: &Method, path: &str, body: Option<(&str, &Value)>) -> Value {
        let (status, answer) = self.site.kubernetes(method.clone(), path, body);
        assert!(status.is_success(), "{method} {path}: {status}: {answer}");
        answer
    }

    /// Somebody declares these objects.
    pub fn declare(&self, objects: &str) {
        for object in tools::documents(objects) {
            let text = |at| object.pointer(at).and_then(Value::as_str).expect("kind and name");
            let path = format!("{}?fieldManager=somebody", self.path(text("/kind"), text("/metadata/name")));
            self.must(&Method::PATCH, &path, Some(("application/apply-patch+yaml", &object)));
        }
    }

    /// Somebody edits an object (or, with a name that ends in `/status`, says how it is).
    pub fn edit(&self, kind: &str, name: &str, patch: &Value) {
        self.must(&Method::PATCH, &self.path(kind, name), Some(("application/merge-patch+json", patch)));
    }

    /// Somebody deletes an object.
    pub fn delete(&self, kind: &str, name: &str) {
        self.must(&Method::DELETE, &self.path(kind, name), None);
    }

    /// An object, if it is there.
    pub fn object(&self, kind: &str, name: &str) -> Option<Value> {
        let (status, object) = self.site.kubernetes(Method::GET, &self.path(kind, name), None);
        status.is_success().then_some(object)
    }

    /// The uid of an object that is there.
    pub fn uid(&self, kind: &str, name: &str) -> String {
        let object = self.object(kind, name).expect("it is there");
        object["metadata"]["uid"].as_str().expect("every object has one").to_owned()
    }

    /// The capture instance of a camera in a Pipeline.
    pub fn instance(&self, pipeline: &str, camera: &str) -> InstanceUid {
        InstanceUid::of(&self.uid("Pipeline", pipeline), &self.uid("Camera", camera), Role::Capture, 0)
    }

    /// A condition in the status of an object: its status, its reason and its message.
    pub fn condition(&self, kind: &str, name: &str, condition: &str) -> Option<[String; 3]> {
        let object = self.object(kind, name)?;
        let conditions = object.pointer("/status/conditions")?.as_array()?;
        let found = conditions.iter().find(|found| found["type"] == condition)?;
        Some(["status", "reason", "message"].map(|field| found[field].as_str().unwrap_or_default().to_owned()))
    }

    /// Everything there is, in the API server and the broker, but for what differs between two clean runs.
    pub fn state(&self) -> State {
        let mask = Mask::new(&self.name);
        let mut state = State::new();
        let list = |&(kind, ..): &(&'static str, &str, &str)| {
            let mut list = self.must(&Method::GET, &self.path(kind, ""), None);
            let items = list["items"].as_array_mut().map(std::mem::take).unwrap_or_default();
            items.into_iter().map(move |item| (kind, item))
        };
        let items: Vec<(&str, Value)> = KINDS.iter().flat_map(list).collect();
        let uids: BTreeSet<&str> = items.iter().filter_map(|(_, item)| item["metadata"]["uid"].as_str()).collect();
        for (kind, item) in &items {
            // No garbage collector runs here: a child without its owner is as good as gone.
            let mut owners = item["metadata"]["ownerReferences"].as_array().into_iter().flatten().peekable();
            if owners.peek().is_some()
                && !owners.any(|owner| owner["uid"].as_str().is_some_and(|uid| uids.contains(uid)))
            {
                continue;
            }
            let mut item = item.clone();
            let name = item["metadata"]["name"].clone();
            let metadata = item["metadata"].as_object_mut().expect("metadata");
            metadata.retain(|key, _| ["name", "labels", "annotations", "finalizers"].contains(&key.as_str()));
            if let Some(data) = item.pointer_mut("/data").filter(|_| *kind == "Secret") {
                for value in data.as_object_mut().expect("a map").values_mut() {
                    *value = "…".into();
                }
            }
            leave_out_instances(&mut item);
            mask.value(&mut item);
            state.insert(mask.text(&format!("{kind} {name}")), item);
        }
        for (what, fields) in ROWS {
            // Those that RabbitMQ makes with a vhost are nobody's, and may be missing where that was broken off.
            let is_rabbits = |row: &Value| {
                what == "exchanges"
                    && row["name"].as_str().is_none_or(|name| name.is_empty() || name.starts_with("amq."))
            };
            for mut row in self.in_broker(what).into_iter().filter(|row| !is_rabbits(row)) {
                row.as_object_mut().expect("a row").retain(|key, _| fields.contains(&key.as_str()));
                mask.value(&mut row);
                // Trap: two of a kind look the same, and one of them may be left over.
                let count = state.entry(format!("{what} {row}")).or_insert_with(|| 0.into());
                *count = (count.as_u64().expect("a number") + 1).into();
            }
        }
        state
    }

    /// Rows of its vhost.
    pub fn in_broker(&self, what: &str) -> Vec<Value> {
        let name = &self.name;
        let path =
            if what.ends_with("permissions") { format!("vhosts/{name}/{what}") } else { format!("{what}/{name}") };
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            match self.site.management(Method::GET, &path, None) {
                (StatusCode::OK, list) => return list.as_array().cloned().expect("a list"),
                // There is no such vhost yet.
                (StatusCode::NOT_FOUND, _) => return Vec::new(),
                (code, answer) if Instant::now() > deadline => panic!("{path}: {code}: {answer}"),
                _ => std::thread::sleep(Duration::from_millis(500)),
            }
        }
    }

    /// Somebody changes something at the broker.
    pub fn at_broker(&self, method: &Method, path: &str, body: Option<&Value>) -> Value {
        let (status, answer) = self.site.management(method.clone(), path, body);
        assert!(status.is_success(), "{method} {path}: {status}: {answer}");
        answer
    }

    /// Where the management API has a queue of its vhost.
    pub fn queue(&self, queue: &str) -> String {
        format!("queues/{}/{queue}", self.name)
    }

    /// Names of the queues in its vhost.
    pub fn queues(&self) -> Vec<String> {
        self.in_broker("queues").iter().filter_map(|queue| Some(queue["name"].as_str()?.to_owned())).collect()
    }

    /// Somebody publishes an event, as the agents of the namespace do.
    pub fn say(&self, key: &str, body: &Value) {
        let message = json!({
            "routing_key": key, "payload": body.to_string(), "payload_encoding": "string",
            "properties": {"user_id": format!("dsn-{}", self.name)},
        });
        let path = format!("exchanges/{}/dsn.events/publish", self.name);
        assert_eq!(self.at_broker(&Method::POST, &path, Some(&message))["routed"], true, "{key}");
    }

    /// Waits until the state is this one and nothing is written any more: seconds, but for a queue that was no longer
    /// wanted when its operator died; the sweep of the next one looks after half a minute.
    pub fn settles_at(&self, wanted: &State, what: &str) {
        self.is_at(wanted, Duration::from_secs(1), what);
    }

    /// As [`Self::settles_at`], and nothing is written for so long that one may call it a rest.
    pub fn rests_at(&self, wanted: &State, what: &str) {
        self.is_at(wanted, REST, what);
    }

    fn is_at(&self, wanted: &State, quiet: Duration, what: &str) {
        let deadline = Instant::now() + Duration::from_secs(120);
        // Trap: quiet since before it was asked for anything, or since before it died, is no rest.
        let mut since = Instant::now();
        loop {
            if self.revive() {
                since = Instant::now();
            }
            let quiet_for = self.quiet_for().min(since.elapsed());
            // Both are looked at in the end; the cheaper one first.
            if quiet_for >= quiet {
                let state = self.state();
                if state == *wanted && self.quiet_for() > quiet_for {
                    return;
                }
                assert!(Instant::now() < deadline, "{what}: {}\n{}", difference(wanted, &state), self.log());
            }
            assert!(Instant::now() < deadline, "{what}: it does not come to rest\n{}", self.log());
            std::thread::sleep(Duration::from_millis(300));
        }
    }

    /// Waits until nothing has been written for a while; what there is then.
    pub fn rest(&self) -> State {
        let begun = Instant::now();
        // Trap: quiet since before it was asked for anything is no rest.
        while self.quiet_for().min(begun.elapsed()) < REST / 2 {
            assert!(begun.elapsed() < Duration::from_secs(60), "the operator does not come to rest:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(100));
        }
        // Trap: the management API repeats answers from a cache; once it listed bindings and no queues.
        let mut state = self.state();
        loop {
            std::thread::sleep(Duration::from_secs(1));
            let again = self.state();
            if again == state {
                return state;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "it goes on: {}", difference(&state, &again));
            state = again;
        }
    }
}

impl Drop for Lab<'_> {
    fn drop(&mut self) {
        if let Some(mut child) = self.child().take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
