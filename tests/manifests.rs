//! What is applied without a person looking: `manifests/install.yaml` and the chart in its shapes, put to a real API server
//! with strict validation. That is more than a schema checker sees (defaults, quantities, references, Pod Security), needs no
//! schemas from elsewhere, and is the version that the cluster runs; so there is no kubeconform beside it.

mod tools;

use std::{
    collections::BTreeSet,
    process::{Command, Output},
};

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

/// The chart in its shapes. What only the Prometheus operator knows is left out; the tests `monitoring` and `chart` look at that.
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
    let api = ApiServer::start();
    let namespaces = "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: dsn-system\n  labels: {pod-security.kubernetes.io/warn: restricted}\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: cameras}\n";
    clean("the namespaces", &api.kubectl(&["apply", "-f", "-"], namespaces));
    let with_policies = format!("{external},networkPolicy.enabled=true");
    for values in shapes.into_iter().chain([external, with_policies.as_str()]) {
        let rendered = tools::run("helm", &["template", "dsn", "charts/dsn", "-n", "dsn-system", "--set", values]);
        assert!(rendered.status.success(), "{values}: {}", stderr(&rendered));
        let rendered = stdout(&rendered);
        let known: Vec<&str> =
            rendered.split("\n---\n").filter(|document| !document.contains("monitoring.coreos.com")).collect();
        assert!(known.len() >= 12, "{values}: only {}", known.len());
        let arguments = ["apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-"];
        clean(values, &api.kubectl(&arguments, &known.join("\n---\n")));
    }
}

/// The numbers in the network policies are those of the code.
#[test]
fn network_policies_open_the_ports_that_are_used() {
    let rendered = tools::run("helm", &["template", "dsn", "charts/dsn", "--set", "networkPolicy.enabled=true"]);
    assert!(rendered.status.success(), "{}", stderr(&rendered));
    let chart = tools::documents(&stdout(&rendered));
    let sample = tools::documents(&read("manifests/networkpolicies.yaml"));
    let ports = |objects: &[Value], name: &str, way: &str| -> BTreeSet<u64> {
        let policy = objects
            .iter()
            .find(|object| object["kind"] == "NetworkPolicy" && object["metadata"]["name"] == name)
            .expect("a policy");
        let rules = policy["spec"][way].as_array().cloned().unwrap_or_default();
        rules
            .iter()
            .flat_map(|rule| rule["ports"].as_array().cloned().unwrap_or_default())
            .map(|port| {
                // Named ones are resolved by the pod, which carries the number.
                let named = [("http", SERVER_PORT), ("metrics", METRICS_PORT), ("amqp", 5672), ("management", 15672)];
                let name = port["port"].as_str().unwrap_or_default();
                let number = named.iter().find(|(known, _)| *known == name).map(|(_, number)| u64::from(*number));
                number.or_else(|| port["port"].as_u64()).expect("a port")
            })
            .collect()
    };
    let set = |ports: &[u16]| -> BTreeSet<u64> { ports.iter().copied().map(u64::from).collect() };
    let group = [KUBO_SWARM_PORT, CLUSTER_SWARM_PORT];
    assert_eq!(ports(&chart, "dsn-operator", "ingress"), set(&[METRICS_PORT]));
    assert_eq!(ports(&chart, "dsn-server", "ingress"), set(&[SERVER_PORT, METRICS_PORT]));
    let server = [53, 5672, LIVE_PORT, STORAGE_PORT, CLUSTER_REST_PORT];
    assert_eq!(ports(&chart, "dsn-server", "egress"), set(&server));
    assert_eq!(ports(&sample, "dsn-capture", "ingress"), set(&[LIVE_PORT, METRICS_PORT]));
    assert_eq!(ports(&sample, "dsn-capture", "egress"), set(&[53, 5672, STORAGE_PORT]));
    assert_eq!(
        ports(&sample, "dsn-storage", "ingress"),
        set(&[&group[..], &[CLUSTER_REST_PORT, STORAGE_PORT, METRICS_PORT]].concat())
    );
    assert_eq!(ports(&sample, "dsn-storage", "egress"), set(&[&group[..], &[53]].concat()));
}
