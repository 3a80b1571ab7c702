//! What is applied without a person looking: `manifests/install.yaml` and the chart in its shapes, put to a real API server
//! with strict validation. That is more than a schema checker sees (defaults, quantities, references, Pod Security), needs no
//! schemas from elsewhere, and is the version that the cluster runs; so there is no kubeconform beside it.

mod tools;

use std::process::{Command, Output};

use dsn::domain::name::{
    CLUSTER_REST_PORT, CLUSTER_SWARM_PORT, KUBO_SWARM_PORT, LIVE_PORT, METRICS_PORT, SERVER_PORT, STORAGE_PORT,
};
use serde_json::Value;
use tools::{apiserver::ApiServer, stderr, stdout};

const INSTALL: &str = "manifests/install.yaml";

fn read(file: &str) -> String {
    std::fs::read_to_string(tools::repository().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn clean(what: &str, output: &Output) {
    assert!(output.status.success(), "{what}: {}", stderr(output));
    assert_eq!(stderr(output), "", "{what}");
}

#[test]
fn install_yaml_is_what_the_chart_renders() {
    let printed = || {
        let output = Command::new(tools::repository().join("hack/install-yaml")).arg("--print").output();
        let output = output.expect("the script starts");
        assert!(output.status.success(), "{}", stderr(&output));
        stdout(&output)
    };
    assert_eq!(printed(), printed(), "it is not the same twice");
    assert_eq!(read(INSTALL), printed(), "{INSTALL} is out of date: run `make install-yaml`");
}

#[test]
fn install_yaml_installs_the_product_without_helm() {
    let api = ApiServer::start();
    let apply = ["apply", "--server-side", "--validate=strict", "-f", INSTALL];
    clean(INSTALL, &api.kubectl(&apply, ""));
    let kinds = api.kubectl(&["wait", "--for=condition=Established", "--timeout=30s", "-f", "crds/"], "");
    assert!(kinds.status.success(), "{}", stderr(&kinds));

    let versions = || {
        let format = r#"jsonpath={range .items[*]}{.kind}/{.metadata.name}={.metadata.resourceVersion}{"\n"}{end}"#;
        stdout(&api.kubectl(&["get", "-f", INSTALL, "-o", format], ""))
    };
    let first = versions();
    assert_eq!(first.lines().count(), tools::documents(&read(INSTALL)).len(), "{first}");
    clean("a second time", &api.kubectl(&apply, ""));
    assert_eq!(versions(), first, "applying it again wrote something");
    // The kinds are there: a newcomer's next step.
    let sample = api.kubectl(&["apply", "--validate=strict", "-f", "manifests/camera.yaml"], "");
    clean("manifests/camera.yaml", &sample);
}

/// Names of the fields below a schema, but for those that Kubernetes describes itself.
fn fields(schema: &Value, found: &mut Vec<String>) {
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        found.push(name.clone());
        if !["selector", "tolerations"].contains(&name.as_str()) {
            fields(field, found);
        }
    }
    if schema["items"].is_object() {
        fields(&schema["items"], found);
    }
}

/// The README says of each sample that it explains every field.
#[test]
fn the_samples_name_every_field_of_their_kind() {
    for kind in ["camera", "pipeline", "storagenode"] {
        let definition = tools::documents(&read(&format!("crds/{kind}.yaml"))).remove(0);
        let mut found = Vec::new();
        fields(&definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"], &mut found);
        assert!(found.len() > 3, "{found:?}");
        let sample = read(&format!("manifests/{kind}.yaml"));
        let missing: Vec<_> = found.into_iter().filter(|field| !sample.contains(&format!("{field}:"))).collect();
        assert!(missing.is_empty(), "manifests/{kind}.yaml does not speak of {missing:?}");
    }
}

/// An API server that knows the kinds of the Prometheus operator too.
fn with_prometheus_operator() -> ApiServer {
    let api = ApiServer::start();
    for kind in ["podmonitors", "prometheusrules"] {
        let file = format!("example/prometheus-operator-crd/monitoring.coreos.com_{kind}.yaml");
        let module = "github.com/prometheus-operator/prometheus-operator";
        let file = tools::module_file("prometheus-operator", module, &file).display().to_string();
        for arguments in [vec!["create"], vec!["wait", "--for=condition=Established", "--timeout=30s"]] {
            let output = api.kubectl(&[&arguments[..], &["-f", &file]].concat(), "");
            assert!(output.status.success(), "{arguments:?} {kind}: {}", stderr(&output));
        }
    }
    api
}

#[test]
fn the_chart_is_accepted_in_every_shape() {
    let external = "broker.bundled.enabled=false,broker.external.host=rabbitmq.messaging.svc,\
                    broker.external.managementUrl=http://rabbitmq.messaging.svc:15672,broker.external.existingSecret=user";
    let shapes = [
        "networkPolicy.enabled=true",
        "networkPolicy.enabled=true,watchNamespace=cameras,rbac.aggregate=false",
        "server.service.type=NodePort,server.service.nodePort=30123",
        "server.service.type=LoadBalancer,server.service.annotations.example\\.com/scope=inside",
        "monitoring.enabled=true,monitoring.dashboards.enabled=true,monitoring.labels.release=kps",
        "crds.install=false,images.pullSecrets={registry},operator.priorityClassName=system-cluster-critical,\
         server.nodeSelector.disk=fast,server.tolerations[0].operator=Exists,broker.bundled.podAnnotations.a=b,\
         broker.bundled.storage.storageClassName=fast,operator.podDisruptionBudget.enabled=false",
    ];
    let api = with_prometheus_operator();
    let namespaces = "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: dsn-system\n  labels: {pod-security.kubernetes.io/warn: restricted}\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: cameras}\n";
    clean("the namespaces", &api.kubectl(&["apply", "-f", "-"], namespaces));
    let with_policies = format!("{external},networkPolicy.enabled=true");
    for values in shapes.into_iter().chain([external, with_policies.as_str()]) {
        let rendered = tools::run("helm", &["template", "dsn", "charts/dsn", "-n", "dsn-system", "--set", values]);
        assert!(rendered.status.success(), "{values}: {}", stderr(&rendered));
        let rendered = stdout(&rendered);
        let count = tools::documents(&rendered).len();
        assert!(count >= 12, "{values}: only {count}");
        let arguments = ["apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-"];
        let applied = api.kubectl(&arguments, &rendered);
        clean(values, &applied);
        assert_eq!(stdout(&applied).lines().count(), count, "{values}");
    }
}

/// The pods that there are: rendered by the chart, or made by the operator as its snapshots show.
fn pods(chart: &[Value]) -> Vec<Value> {
    let snapshots = tools::files("src/operator", ".snap").into_iter().flat_map(|file| {
        let text = std::fs::read_to_string(file).expect("a snapshot");
        // Below a header; some are no YAML.
        let body = text.splitn(3, "---\n").nth(2).unwrap_or_default().to_owned();
        if body.starts_with("apiVersion:") { tools::documents(&body) } else { Vec::new() }
    });
    let pods = chart.iter().cloned().chain(snapshots).map(|object| object["spec"]["template"].clone());
    pods.filter(|pod| pod["spec"]["containers"].is_array()).collect()
}

/// The pods that a selector takes.
fn selected<'a>(pods: &'a [Value], selector: &Value) -> Vec<&'a Value> {
    let labels = selector["matchLabels"].as_object().expect("labels");
    let fits = |pod: &&Value| labels.iter().all(|(key, value)| pod["metadata"]["labels"][key] == *value);
    pods.iter().filter(fits).collect()
}

/// Who may be at the other end, e.g. `server of dsn-system`: asserts that such a pod exists.
fn peer(pods: &[Value], peer: &Value) -> String {
    if let Some(network) = peer["ipBlock"]["cidr"].as_str() {
        return network.to_owned();
    }
    let selector = &peer["podSelector"];
    assert!(!selected(pods, selector).is_empty(), "no pod has the labels {selector}");
    let component = selector["matchLabels"]["app.kubernetes.io/component"].as_str().expect("a component");
    match &peer["namespaceSelector"] {
        Value::Null => component.to_owned(),
        namespaces => {
            let name = namespaces["matchLabels"]["kubernetes.io/metadata.name"].as_str();
            format!("{component} of {}", name.unwrap_or("any namespace"))
        }
    }
}

/// The policies, one line for each rule: whose it is, which way it goes, who is at the other end, on which ports.
fn rules(policies: &[Value], pods: &[Value]) -> Vec<String> {
    let mut lines = Vec::new();
    for policy in policies.iter().filter(|object| object["kind"] == "NetworkPolicy") {
        let name = policy["metadata"]["name"].as_str().expect("a name");
        let own = selected(pods, &policy["spec"]["podSelector"]);
        assert!(!own.is_empty(), "{name} is for no pod");
        // Named ports are resolved by the pod, which carries the number.
        let number = |port: &Value| {
            let declared = own.iter().flat_map(|pod| pod["spec"]["containers"].as_array().expect("containers"));
            let mut declared = declared.flat_map(|container| container["ports"].as_array().into_iter().flatten());
            let number =
                port.as_u64().or_else(|| declared.find(|known| known["name"] == *port)?["containerPort"].as_u64());
            number.unwrap_or_else(|| panic!("{name}: no container names its port {port}")).to_string()
        };
        for (way, end) in [("Ingress", "from"), ("Egress", "to")] {
            let given = policy["spec"][way.to_lowercase()].as_array().cloned().unwrap_or_default();
            let is_held = policy["spec"]["policyTypes"].as_array().expect("types").contains(&way.into());
            assert!(is_held || given.is_empty(), "{name} has rules that do not count");
            if is_held && given.is_empty() {
                lines.push(format!("{name} {end} nobody"));
            }
            for rule in given {
                let peers: Vec<String> = rule[end]
                    .as_array()
                    .map_or(vec!["anybody".into()], |all| all.iter().map(|one| peer(pods, one)).collect());
                let mut ports: Vec<String> = rule["ports"]
                    .as_array()
                    .map_or(vec!["any port".into()], |all| all.iter().map(|port| number(&port["port"])).collect());
                // Names are asked for by UDP and by TCP.
                ports.dedup();
                lines.push(format!("{name} {end} {}: {}", peers.join(", "), ports.join(", ")));
            }
        }
    }
    lines
}

/// Who may connect to whom and where, with the numbers of the code (the table in docs/architecture.md).
#[test]
fn network_policies_let_those_connect_that_must_and_nobody_else() {
    let rendered = |values: &str| {
        let values = format!("networkPolicy.enabled=true,{values}");
        let output = tools::run("helm", &["template", "dsn", "charts/dsn", "-n", "dsn-system", "--set", &values]);
        assert!(output.status.success(), "{}", stderr(&output));
        tools::documents(&stdout(&output))
    };
    let of_the_chart = |users: &str| {
        vec![
            format!("dsn-operator from anybody: {METRICS_PORT}"),
            format!("dsn-server from anybody: {SERVER_PORT}, {METRICS_PORT}"),
            "dsn-server to anybody: 53".to_owned(),
            "dsn-server to rabbitmq: 5672".to_owned(),
            format!("dsn-server to capture of {users}: {LIVE_PORT}"),
            format!("dsn-server to storage of {users}: {STORAGE_PORT}, {CLUSTER_REST_PORT}"),
            "dsn-rabbitmq from anybody: 5672".to_owned(),
            "dsn-rabbitmq from operator: 15672".to_owned(),
            "dsn-rabbitmq from anybody: 15692".to_owned(),
            "dsn-rabbitmq to nobody".to_owned(),
        ]
    };
    let sorted = |mut lines: Vec<String>| {
        lines.sort();
        lines
    };
    let chart = rendered("watchNamespace=");
    let pods = pods(&chart);
    assert_eq!(sorted(rules(&chart, &pods)), sorted(of_the_chart("any namespace")));
    assert_eq!(sorted(rules(&rendered("watchNamespace=cams"), &pods)), sorted(of_the_chart("cams")));

    let sample = rules(&tools::documents(&read("manifests/networkpolicies.yaml")), &pods);
    assert_eq!(
        sample,
        [
            format!("dsn-capture from server of dsn-system: {LIVE_PORT}"),
            format!("dsn-capture from anybody: {METRICS_PORT}"),
            "dsn-capture to anybody: 53".to_owned(),
            "dsn-capture to rabbitmq of dsn-system: 5672".to_owned(),
            format!("dsn-capture to storage: {STORAGE_PORT}"),
            "dsn-capture to 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16: any port".to_owned(),
            format!("dsn-storage from storage: {KUBO_SWARM_PORT}, {CLUSTER_SWARM_PORT}"),
            format!("dsn-storage from capture: {STORAGE_PORT}"),
            format!("dsn-storage from server of dsn-system: {STORAGE_PORT}, {CLUSTER_REST_PORT}"),
            format!("dsn-storage from anybody: {METRICS_PORT}"),
            "dsn-storage to anybody: 53".to_owned(),
            format!("dsn-storage to storage: {KUBO_SWARM_PORT}, {CLUSTER_SWARM_PORT}"),
        ]
    );
}
