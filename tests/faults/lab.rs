//! An operator under observation: a namespace to itself, its own vhost, and the forwarder between it and the API server.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use base64::Engine;
use regex::Regex;
use serde_json::{Value, json};

use crate::{
    proxy::Proxy,
    tools::{self, apiserver::ApiServer, broker::RabbitMq, stderr, stdout},
};

/// What all labs share.
pub struct Site {
    api: ApiServer,
    broker: RabbitMq,
    /// What the chart gives an operator, with [`LAB`] for the name of a lab.
    arguments: Vec<String>,
}

const LAB: &str = "name-of-the-lab";

impl Site {
    /// API server with the kinds, and a broker.
    pub fn start() -> Self {
        let (api, broker) = (ApiServer::start(), RabbitMq::start());
        let site = Self { arguments: arguments(&broker), api, broker };
        site.kubectl(&["apply", "--server-side", "-f", "crds"], "");
        site
    }

    fn kubectl(&self, arguments: &[&str], input: &str) -> String {
        let output = self.api.kubectl(arguments, input);
        assert!(output.status.success(), "kubectl {arguments:?}: {}", stderr(&output));
        stdout(&output)
    }
}

fn arguments(broker: &RabbitMq) -> Vec<String> {
    let external = format!(
        "broker.external.host=127.0.0.1,broker.external.port={},broker.external.managementUrl={},\
         broker.external.existingSecret=login",
        broker.port(),
        broker.management()
    );
    let own = format!("watchNamespace={LAB},broker.vhost={LAB},broker.bundled.enabled=false");
    let rendered = tools::run("helm", &["template", "dsn", "charts/dsn", "--set", &own, "--set", &external]);
    assert!(rendered.status.success(), "{}", stderr(&rendered));
    tools::operator_arguments(&tools::documents(&stdout(&rendered)), &format!("{LAB}-system"), "operator")
}

/// One operator, its namespace and what it says.
pub struct Lab<'a> {
    site: &'a Site,
    name: String,
    /// Between the operator and the API server.
    pub proxy: Proxy,
    operator: Arc<Mutex<Option<Child>>>,
    deaths: Cell<u32>,
}

impl<'a> Lab<'a> {
    /// The namespaces; the operator is not started yet.
    pub fn new(site: &'a Site, name: &str) -> Self {
        let kubeconfig = fs::read_to_string(site.api.kubeconfig()).expect("a kubeconfig");
        let server = kubeconfig.split('\'').nth(1).expect("the address stands in quotes").to_owned();
        let proxy = Proxy::to(&server);
        let lab = Self { site, name: name.to_owned(), proxy, operator: Arc::default(), deaths: Cell::new(0) };
        fs::write(lab.file("kubeconfig"), kubeconfig.replace(&server, lab.proxy.address())).expect("writes");
        site.kubectl(
            &["apply", "--server-side", "-f", "-"],
            &format!(
                "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}}}\n---\n\
                 apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}-system}}\n---\n\
                 apiVersion: v1\nkind: Secret\nmetadata: {{name: login, namespace: {name}-system}}\n\
                 stringData: {{username: guest, password: guest}}\n"
            ),
        );
        lab
    }

    fn file(&self, ending: &str) -> std::path::PathBuf {
        self.site.api.folder().join(format!("{}.{ending}", self.name))
    }

    /// Starts the operator with the arguments that the chart gives it.
    pub fn start(&self) {
        let name = &self.name;
        let own = |argument: &String| argument.replace(LAB, name);
        let arguments = self.site.arguments.iter().map(own);
        let log = File::options().create(true).append(true).open(self.file("log")).expect("a log");
        let child = Command::new(env!("CARGO_BIN_EXE_dsn"))
            .args(arguments)
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

    /// Something that kills the operator when it is called.
    pub fn killer(&self) -> Box<dyn Fn() + Send> {
        let operator = self.operator.clone();
        Box::new(move || {
            if let Some(child) = operator.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
                let _ = child.kill();
            }
        })
    }

    /// Starts it again if it was killed. The one that follows need not wait for the Lease to run out: that is not what
    /// is tried here.
    pub fn revive(&self) {
        let dead = self.child().as_mut().is_some_and(|child| !matches!(child.try_wait(), Ok(None)));
        if dead {
            let system = format!("{}-system", self.name);
            self.site.kubectl(&["delete", "lease", "dsn-operator", "-n", &system, "--ignore-not-found"], "");
            self.start();
            self.deaths.set(self.deaths.get() + 1);
        }
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

    /// Everything there is, in the API server and the broker, but for what differs between two clean runs.
    pub fn state(&self) -> BTreeMap<String, Value> {
        let kinds = "pipelines,cameras,storagenodes,deployments,statefulsets,services,configmaps,\
                     persistentvolumeclaims,secrets,poddisruptionbudgets";
        let list: Value = serde_json::from_str(&self.kubectl(&["get", kinds, "-o", "json"], "")).expect("JSON");
        let mask = Mask::new(&self.name);
        let mut state = BTreeMap::new();
        let items = list["items"].as_array().expect("a list");
        let uids: BTreeSet<&str> = items.iter().filter_map(|item| item["metadata"]["uid"].as_str()).collect();
        for item in items {
            // No garbage collector runs here: a child without its owner is as good as gone.
            let mut owners = item["metadata"]["ownerReferences"].as_array().into_iter().flatten().peekable();
            if owners.peek().is_some()
                && !owners.any(|owner| owner["uid"].as_str().is_some_and(|uid| uids.contains(uid)))
            {
                continue;
            }
            let mut item = item.clone();
            let (kind, name) = (item["kind"].clone(), item["metadata"]["name"].clone());
            let metadata = item["metadata"].as_object_mut().expect("metadata");
            metadata.retain(|key, _| ["name", "labels", "annotations", "finalizers"].contains(&key.as_str()));
            if let Some(data) = item.pointer_mut("/data").filter(|_| kind == "Secret") {
                for value in data.as_object_mut().expect("a map").values_mut() {
                    *value = "…".into();
                }
            }
            leave_out_instances(&mut item);
            mask.value(&mut item);
            state.insert(mask.text(&format!("{kind} {name}")), item);
        }
        for what in ["queues", "bindings", "permissions"] {
            for mut row in self.in_broker(what) {
                let fields =
                    ["name", "source", "destination", "routing_key", "arguments", "user", "configure", "write"];
                row.as_object_mut().expect("a row").retain(|key, _| fields.contains(&key.as_str()));
                mask.value(&mut row);
                // Trap: two of a kind look the same, and one of them may be left over.
                let count = state.entry(format!("{what} {row}")).or_insert_with(|| 0.into());
                *count = (count.as_u64().expect("a number") + 1).into();
            }
        }
        state
    }

    fn in_broker(&self, what: &str) -> Vec<Value> {
        let name = &self.name;
        let path = if what == "permissions" { format!("vhosts/{name}/{what}") } else { format!("{what}/{name}") };
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            match self.broker(&["-X", "GET"], &path) {
                (200, list) => return list.as_array().cloned().expect("a list"),
                // There is no such vhost yet.
                (404, _) => return Vec::new(),
                (code, answer) if Instant::now() > deadline => panic!("{path}: {code}: {answer}"),
                _ => std::thread::sleep(Duration::from_millis(500)),
            }
        }
    }

    /// Asks the broker's management API, with curl's options: status and answer.
    fn broker(&self, options: &[&str], path: &str) -> (u16, Value) {
        let url = format!("{}/api/{path}", self.site.broker.management());
        let guest = base64::engine::general_purpose::STANDARD.encode("guest:guest");
        let login = format!("Authorization: Basic {guest}");
        let fixed = ["-sS", "-w", "\n%{http_code}", "-H", &login, &url];
        let output = Command::new("curl").args(fixed).args(options).output().expect("curl runs");
        let said = String::from_utf8_lossy(&output.stdout);
        let (answer, code) = said.rsplit_once('\n').unwrap_or_default();
        (code.parse().unwrap_or(0), serde_json::from_str(answer).unwrap_or_default())
    }

    /// Names of the queues in its vhost.
    pub fn queues(&self) -> Vec<String> {
        self.in_broker("queues").iter().filter_map(|queue| Some(queue["name"].as_str()?.to_owned())).collect()
    }

    /// Somebody deletes a queue.
    pub fn delete_queue(&self, queue: &str) {
        self.broker(&["-X", "DELETE"], &format!("queues/{}/{queue}", self.name));
    }

    /// Somebody publishes an event with an empty body.
    pub fn say(&self, key: &str) {
        let message = json!({"routing_key": key, "payload": "{}", "payload_encoding": "string", "properties": {}});
        let path = format!("exchanges/{}/dsn.events/publish", self.name);
        assert_eq!(self.broker(&["-d", &message.to_string()], &path).1["routed"], true, "{key}");
    }

    /// Waits until the state is this one and nothing is written any more: seconds, but for a queue that was no longer
    /// wanted when its operator died; the sweep of the next one looks after half a minute.
    pub fn settles_at(&self, wanted: &BTreeMap<String, Value>, what: &str) {
        let deadline = Instant::now() + Duration::from_secs(120);
        loop {
            self.revive();
            let state = self.state();
            if state == *wanted && self.proxy.quiet_for() > Duration::from_secs(1) {
                return;
            }
            assert!(Instant::now() < deadline, "{what}: {}\n{}", difference(wanted, &state), self.log());
            std::thread::sleep(Duration::from_millis(300));
        }
    }

    /// Waits until nothing has been written for a while; what there is then.
    pub fn rest(&self) -> BTreeMap<String, Value> {
        let begun = Instant::now();
        // Trap: quiet since before it was asked for anything is no rest.
        while self.proxy.quiet_for().min(begun.elapsed()) < Duration::from_secs(5) {
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

/// No instance ever reports here: what is said of them changes with time, from "not yet" to "no more".
fn leave_out_instances(object: &mut Value) {
    let Some(status) = object.get_mut("status").and_then(Value::as_object_mut) else { return };
    status.retain(|field, _| !["message", "instances"].contains(&field.as_str()));
    if let Some(conditions) = status.get_mut("conditions").and_then(Value::as_array_mut) {
        conditions.retain(|condition| condition["type"] != "Capturing" && condition["type"] != "Transcoding");
    }
}

/// What is there and should not be, and the other way round.
pub fn difference(wanted: &BTreeMap<String, Value>, found: &BTreeMap<String, Value>) -> String {
    let mut lines = Vec::new();
    for (name, value) in wanted {
        match found.get(name) {
            None => lines.push(format!("missing: {name}")),
            Some(other) if other != value => lines.push(format!("{name}:\n  fresh: {value}\n  found: {other}")),
            Some(_) => {}
        }
    }
    lines.extend(
        found.keys().filter(|name| !wanted.contains_key(*name)).map(|name| format!("not in a fresh one: {name}")),
    );
    lines.join("\n")
}

/// Takes away what two clean runs do not have in common: names of namespaces, uids, keys, times and what counts up.
struct Mask {
    namespace: String,
    patterns: [(Regex, &'static str); 6],
}

impl Mask {
    fn new(namespace: &str) -> Self {
        let pattern = |text: &str| Regex::new(text).expect("a pattern");
        Self {
            namespace: namespace.to_owned(),
            patterns: [
                (pattern("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"), "UUID"),
                (pattern("12D3Koo[0-9A-Za-z]+"), "PEER"),
                // The API server's choice.
                (pattern(r"\b10\.0\.0\.[0-9]+\b"), "SERVICE"),
                (pattern("[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+Z"), "TIME"),
                (pattern(r"\b[0-9a-f]{8,64}\b"), "HEX"),
                (pattern(r#""revision":[0-9]+"#), "\"revision\":0"),
            ],
        }
    }

    fn text(&self, text: &str) -> String {
        let own = text.replace(&self.namespace, "NAMESPACE");
        self.patterns.iter().fold(own, |text, (pattern, word)| pattern.replace_all(&text, *word).into_owned())
    }

    fn value(&self, value: &mut Value) {
        match value {
            Value::String(text) => *text = self.text(text),
            Value::Array(items) => items.iter_mut().for_each(|item| self.value(item)),
            Value::Object(fields) => {
                let masked = std::mem::take(fields).into_iter().map(|(key, mut value)| {
                    // What the API server and a restart count is no state.
                    if ["observedGeneration", "generation", "lastTransitionTime", "resourceVersion"]
                        .contains(&key.as_str())
                    {
                        value = Value::Null;
                    }
                    self.value(&mut value);
                    (self.text(&key), value)
                });
                *fields = masked.collect();
            }
            _ => {}
        }
    }
}
