//! The life of a release, by Helm itself against a real API server: install, upgrade to the same, uninstall, install again
//! (row K5). Not here: whether the pods run, which the end-to-end tests show.

mod tools;

use std::{collections::BTreeMap, process::Output};

use tools::{apiserver::ApiServer, stderr, stdout};

fn helm(api: &ApiServer, arguments: &[&str]) -> Output {
    let kubeconfig = format!("--kubeconfig={}", api.kubeconfig().display());
    let all: Vec<&str> = [arguments, &["--namespace", "dsn-system", kubeconfig.as_str()]].concat();
    let output = tools::run("helm", &all);
    assert!(output.status.success(), "helm {}: {}", arguments.join(" "), stderr(&output));
    output
}

/// Resource version of everything that the chart installs.
fn versions(api: &ApiServer) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let format = r#"jsonpath={range .items[*]}{.kind}/{.metadata.name}={.metadata.resourceVersion}{"\n"}{end}"#;
    for (kinds, scope) in [
        ("deployments,statefulsets,services,serviceaccounts,configmaps,roles,rolebindings", "--namespace=dsn-system"),
        ("clusterroles,clusterrolebindings,customresourcedefinitions", "--all-namespaces"),
    ] {
        let listed = stdout(&api.kubectl(&["get", kinds, scope, "-o", format], ""));
        found.extend(
            listed
                .lines()
                .filter(|line| line.contains("dsn"))
                .filter_map(|line| line.split_once('='))
                .map(|(name, version)| (name.to_owned(), version.to_owned())),
        );
    }
    found
}

#[test]
fn a_release_is_upgraded_without_a_change_removed_and_installed_again() {
    let api = ApiServer::start();
    let install = ["upgrade", "--install", "dsn", "charts/dsn", "--create-namespace"];
    helm(&api, &install);
    let first = versions(&api);
    assert!(first.len() >= 15, "{first:?}");
    assert!(first.contains_key("CustomResourceDefinition/cameras.dsn.network"), "{first:?}");

    helm(&api, &install);
    assert_eq!(versions(&api), first, "an upgrade to the same chart and values wrote something");

    // Somebody's camera survives the release, because its kind does.
    let waited = api.kubectl(&["wait", "--for=condition=Established", "--timeout=30s", "-f", "crds/"], "");
    assert!(waited.status.success(), "{}", stderr(&waited));
    let applied = api.kubectl(&["apply", "-f", "manifests/camera.yaml"], "");
    assert!(applied.status.success(), "{}", stderr(&applied));
    helm(&api, &["uninstall", "dsn"]);
    let left: Vec<String> = versions(&api).into_keys().collect();
    assert!(left.iter().all(|name| name.starts_with("CustomResourceDefinition/")), "left behind: {left:?}");
    assert_eq!(left.len(), 3, "{left:?}");

    helm(&api, &install);
    let again = versions(&api);
    assert_eq!(again.keys().collect::<Vec<_>>(), first.keys().collect::<Vec<_>>());
    let camera = api.kubectl(&["get", "camera", "lobby", "-o", "name"], "");
    assert_eq!(stdout(&camera).trim(), "camera.dsn.network/lobby");
}
