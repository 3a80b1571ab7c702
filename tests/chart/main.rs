//! The chart, rendered by Helm itself: what a person gets for which values, and what is refused.

#[path = "../tools/mod.rs"]
mod tools;
mod values;

use serde_json::Value;
use tools::{stderr, stdout};

/// The text that Helm renders for a release of that name, with options; Err = what Helm said.
fn text(release: &str, options: &[&str]) -> Result<String, String> {
    let output =
        tools::run("helm", &[&["template", release, "charts/dsn", "--namespace", "dsn-system"], options].concat());
    if output.status.success() { Ok(stdout(&output)) } else { Err(stderr(&output)) }
}

/// Renders the chart with some values; Err = what Helm said.
fn render(values: &[&str]) -> Result<Vec<Value>, String> {
    let options: Vec<&str> = values.iter().flat_map(|value| ["--set", value]).collect();
    text("dsn", &options).map(|text| tools::documents(&text))
}

const EXTERNAL: [&str; 4] = [
    "broker.bundled.enabled=false",
    "broker.external.host=rabbitmq.messaging.svc",
    "broker.external.managementUrl=http://rabbitmq.messaging.svc:15672",
    "broker.external.existingSecret=rabbitmq-user",
];

fn find<'a>(objects: &'a [Value], kind: &str, name: &str) -> Option<&'a Value> {
    objects.iter().find(|object| object["kind"] == kind && object["metadata"]["name"] == name)
}

fn pod_specs(objects: &[Value]) -> Vec<(&str, &Value)> {
    objects
        .iter()
        .filter_map(|object| Some((object["metadata"]["name"].as_str()?, object.pointer("/spec/template/spec")?)))
        .collect()
}

fn container_arguments(objects: &[Value], kind: &str, name: &str) -> Vec<String> {
    let object = find(objects, kind, name).expect("it is rendered");
    object["spec"]["template"]["spec"]["containers"][0]["args"]
        .as_array()
        .expect("arguments")
        .iter()
        .map(|argument| argument.as_str().expect("text").to_owned())
        .collect()
}

/// Everything but the definitions, which `crd.rs` holds.
#[test]
fn the_defaults_render_as_before() {
    let objects: Vec<_> = render(&[])
        .expect("the defaults render")
        .into_iter()
        .filter(|object| object["kind"] != "CustomResourceDefinition")
        .collect();
    insta::assert_yaml_snapshot!(objects);
}

#[test]
fn helm_lint_finds_nothing() {
    for values in [&[][..], &["--values", "hack/local-values.yaml"]] {
        let output = tools::run("helm", &[&["lint", "--strict", "charts/dsn"], values].concat());
        assert!(output.status.success(), "{}{}", stdout(&output), stderr(&output));
    }
}

/// Argo CD renders at each sync: the same values give the same text, and nothing is looked up or drawn by lot (row K5).
#[test]
fn rendering_is_repeatable() {
    assert_eq!(text("dsn", &[]), text("dsn", &[]));
    for file in tools::files("charts/dsn/templates", "") {
        let text = std::fs::read_to_string(&file).expect("a template");
        for function in ["lookup ", "rand", "genCA", "genSelfSigned", "genPrivateKey", "uuidv4", "now "] {
            let calls = text.lines().filter(|line| line.contains("{{") && line.contains(function)).count();
            assert_eq!(calls, 0, "{} calls {function}", file.display());
        }
    }
}

#[test]
fn every_pod_meets_the_restricted_level() {
    let objects = render(&[]).expect("the defaults render");
    let pods = pod_specs(&objects);
    assert_eq!(pods.len(), 3, "operator, server, broker");
    for (name, spec) in pods {
        let security = &spec["securityContext"];
        assert_eq!(security["runAsNonRoot"], true, "{name}");
        assert_eq!(security["seccompProfile"]["type"], "RuntimeDefault", "{name}");
        for container in spec["containers"].as_array().expect("containers") {
            let security = &container["securityContext"];
            assert_eq!(security["allowPrivilegeEscalation"], false, "{name}");
            assert_eq!(security["capabilities"]["drop"], serde_json::json!(["ALL"]), "{name}");
            assert_eq!(security["readOnlyRootFilesystem"], true, "{name}");
            assert!(container["resources"]["requests"]["cpu"].is_string(), "{name} asks for nothing");
            assert!(container["resources"]["limits"]["memory"].is_string(), "{name} has no bound");
        }
        for volume in spec["volumes"].as_array().unwrap_or(&Vec::new()) {
            assert!(volume["hostPath"].is_null(), "{name} mounts the host");
        }
        // Only the operator speaks to Kubernetes.
        assert_eq!(spec["automountServiceAccountToken"] == false, name != "dsn-operator", "{name}");
    }
}

/// Two cores are enough for a demonstration: everything the chart starts fits beside the pipelines.
#[test]
fn what_is_asked_for_fits_a_small_machine() {
    let objects = render(&[]).expect("the defaults render");
    let mut milli = 0;
    for (name, spec) in pod_specs(&objects) {
        let replicas = if name == "dsn-operator" { 2 } else { 1 };
        let cpu = spec["containers"][0]["resources"]["requests"]["cpu"].as_str().expect("a request");
        milli += replicas * cpu.trim_end_matches('m').parse::<u64>().expect("milli-cores");
    }
    assert!(milli <= 200, "{milli}m");
}

#[test]
fn the_chart_brings_no_custom_resources() {
    for object in render(&[]).expect("the defaults render") {
        let version = object["apiVersion"].as_str().expect("a version");
        assert!(!version.starts_with("dsn.network/"), "{object}");
    }
}

#[test]
fn a_broker_of_ones_own_replaces_the_bundled_one() {
    let objects = render(&EXTERNAL).expect("it renders");
    assert!(objects.iter().all(|object| object["metadata"]["name"] != "dsn-rabbitmq"));
    let arguments = container_arguments(&objects, "Deployment", "dsn-operator");
    for wanted in [
        "--broker-host=rabbitmq.messaging.svc",
        "--management-url=http://rabbitmq.messaging.svc:15672",
        "--broker-secret=rabbitmq-user",
    ] {
        assert!(arguments.iter().any(|argument| argument == wanted), "{wanted} in {arguments:?}");
    }
    let server = find(&objects, "StatefulSet", "dsn-server").expect("a server");
    assert!(server.to_string().contains("rabbitmq-user"), "the server mounts the Secret");
    let role = find(&objects, "Role", "dsn-operator").expect("a role");
    assert!(role.to_string().contains("rabbitmq-user"), "the operator may read the Secret");
}

#[test]
fn one_namespace_needs_no_cluster_role() {
    let objects = render(&["watchNamespace=cameras", "rbac.aggregate=false"]).expect("it renders");
    assert!(objects.iter().all(|object| !object["kind"].as_str().is_some_and(|kind| kind.starts_with("ClusterRole"))));
    let role = find(&objects, "Role", "dsn:dsn-system:operator").expect("a role");
    assert_eq!(role["metadata"]["namespace"], "cameras");
    assert!(
        container_arguments(&objects, "Deployment", "dsn-operator").contains(&"--watch-namespace=cameras".to_owned())
    );
    let everywhere = render(&[]).expect("the defaults render");
    let cluster_role = find(&everywhere, "ClusterRole", "dsn:dsn-system:operator").expect("a role");
    assert_eq!(role["rules"], cluster_role["rules"]);
}

/// The operator mounts Secrets of users into pods and reads a few by name; it never lists or changes one.
#[test]
fn the_operator_may_do_no_more_than_it_needs() {
    for object in render(&[]).expect("the defaults render") {
        for rule in object["rules"].as_array().unwrap_or(&Vec::new()) {
            let text = rule.to_string();
            assert!(!text.contains("\"*\""), "a wildcard: {text}");
            if text.contains("\"secrets\"") {
                for verb in ["list", "watch", "update", "patch", "delete"] {
                    assert!(!text.contains(&format!("\"{verb}\"")), "{text}");
                }
            }
            for resource in ["nodes", "namespaces", "customresourcedefinitions", "clusterroles", "pods/exec"] {
                assert!(!text.contains(&format!("\"{resource}\"")), "{text}");
            }
        }
    }
}

/// Who may edit a namespace declares cameras in it; who may view it looks at them.
#[test]
fn what_people_may_do_is_aggregated_to_the_roles_they_have() {
    let objects = render(&[]).expect("the defaults render");
    for (name, aggregates) in [("dsn:viewer", vec!["view", "edit", "admin"]), ("dsn:editor", vec!["edit", "admin"])] {
        let role = find(&objects, "ClusterRole", name).expect("a role");
        for to in aggregates {
            let label = format!("rbac.authorization.k8s.io/aggregate-to-{to}");
            assert_eq!(role["metadata"]["labels"][&label], "true", "{name}");
        }
        assert!(!role.to_string().contains("/status"), "{name} writes no status");
    }
}

/// A budget over one pod blocks every drain or protects nothing: only the operator has two.
#[test]
fn no_disruption_budget_can_block_a_drain() {
    let budgets = |values: &[&str]| -> Vec<Value> {
        let objects = render(values).expect("renders");
        objects.into_iter().filter(|object| object["kind"] == "PodDisruptionBudget").collect()
    };
    let only = budgets(&[]);
    assert_eq!(only.len(), 1, "{only:?}");
    assert_eq!(only[0]["metadata"]["name"], "dsn-operator");
    assert_eq!(only[0]["spec"]["maxUnavailable"], 1);
    assert!(budgets(&["operator.podDisruptionBudget.enabled=false"]).is_empty());
}

#[test]
fn network_policies_are_there_when_asked_for() {
    let count = |values: &[&str]| {
        let objects = render(values).expect("renders");
        objects.iter().filter(|object| object["kind"] == "NetworkPolicy").count()
    };
    assert_eq!(count(&[]), 0);
    assert_eq!(count(&["networkPolicy.enabled=true"]), 3);
    assert_eq!(count(&[&EXTERNAL[..], &["networkPolicy.enabled=true"]].concat()), 2);
}

/// A change of the broker's configuration restarts it; the same configuration does not.
#[test]
fn the_broker_follows_its_configuration() {
    let hash = |values: &[&str]| {
        let objects = render(values).expect("renders");
        find(&objects, "StatefulSet", "dsn-rabbitmq").expect("a broker")["spec"]["template"]["metadata"]["annotations"]
            ["dsn.network/config"]
            .clone()
    };
    assert_eq!(hash(&[]), hash(&["broker.bundled.storage.size=9Gi"]));
    assert_ne!(hash(&[]), hash(&["broker.bundled.memoryHighWatermark=400MiB"]));
}

/// What Helm renders is kept in Git by some and shown by `helm get` to many.
#[test]
fn nothing_secret_is_rendered() {
    for values in [&[][..], &EXTERNAL] {
        for object in render(values).expect("renders") {
            assert_ne!(object["kind"], "Secret", "{object}");
            for (name, spec) in pod_specs(std::slice::from_ref(&object)) {
                for container in spec["containers"].as_array().expect("containers") {
                    let given = container["env"].as_array().cloned().unwrap_or_default();
                    let secret = |text: &str| ["PASSWORD", "TOKEN", "KEY"].iter().any(|word| text.contains(word));
                    let env = given.iter().find(|env| secret(env["name"].as_str().unwrap_or_default()));
                    assert!(env.is_none(), "{name}: {env:?}");
                }
            }
        }
    }
}

/// Other parts rely on the names (Secrets, Services), so a release may be called whatever one likes.
#[test]
fn names_do_not_depend_on_the_release() {
    let options = ["--set", "monitoring.enabled=true,monitoring.dashboards.enabled=true,networkPolicy.enabled=true"];
    let names = |release: &str| -> Vec<String> {
        let objects = tools::documents(&text(release, &options).expect("renders"));
        objects.iter().map(|object| format!("{}/{}", object["kind"], object["metadata"]["name"])).collect()
    };
    assert_eq!(names("dsn"), names("video-of-the-whole-company"));
}

/// The kinds of the Prometheus operator and Grafana's dashboards are there when asked for, and only then.
#[test]
fn monitoring_is_there_when_asked_for() {
    let named = |values: &[&str]| -> Vec<String> {
        let objects = render(values).expect("renders");
        let ours = |object: &&Value| {
            object["apiVersion"] == "monitoring.coreos.com/v1" || object["metadata"]["name"] == "dsn-dashboards"
        };
        let name = |object: &Value| format!("{} {}", object["kind"], object["metadata"]["name"]).replace('"', "");
        objects.iter().filter(ours).map(name).collect()
    };
    assert!(named(&[]).is_empty());
    assert_eq!(named(&["monitoring.dashboards.enabled=true"]), ["ConfigMap dsn-dashboards"]);
    let all = ["capture", "operator", "rabbitmq", "server", "storage"].map(|name| format!("PodMonitor dsn-{name}"));
    let mut found = named(&["monitoring.enabled=true"]);
    found.sort();
    assert_eq!(found, [&all[..], &["PrometheusRule dsn".to_owned()]].concat());
    assert!(!named(&[&EXTERNAL[..], &["monitoring.enabled=true"]].concat()).contains(&all[2]));

    let objects = render(&["monitoring.enabled=true", "monitoring.labels.release=kps", "watchNamespace=cameras"]);
    let objects = objects.expect("renders");
    let monitor = find(&objects, "PodMonitor", "dsn-capture").expect("rendered");
    assert_eq!(monitor["metadata"]["labels"]["release"], "kps");
    assert_eq!(monitor["spec"]["namespaceSelector"], serde_json::json!({"matchNames": ["cameras"]}));
    // The port that it asks for by name exists.
    for (component, kind) in [("operator", "Deployment"), ("server", "StatefulSet"), ("rabbitmq", "StatefulSet")] {
        let pod = &find(&objects, kind, &format!("dsn-{component}")).expect("rendered")["spec"]["template"];
        assert!(pod["spec"]["containers"][0]["ports"].to_string().contains("\"metrics\""), "{component}");
        let monitor = find(&objects, "PodMonitor", &format!("dsn-{component}")).expect("rendered");
        for (label, value) in monitor["spec"]["selector"]["matchLabels"].as_object().expect("labels") {
            assert_eq!(pod["metadata"]["labels"][label], *value, "{component}");
        }
    }
}
