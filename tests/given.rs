//! What `make demo` and `make demo-down` do to a cluster that somebody gave them.

mod tools;

use std::process::{Command, Output};

use tools::{apiserver::ApiServer, stderr, stdout};

fn demo(api: &ApiServer, verb: &str) -> Output {
    Command::new(tools::repository().join("hack/demo"))
        .arg(verb)
        .env("DSN_E2E_KUBECONFIG", api.kubeconfig())
        .env("YES", "1")
        .output()
        .expect("the script starts")
}

/// Once it would have deleted every Camera, Pipeline and `StorageNode` of the cluster.
#[test]
fn a_cluster_with_a_dsn_of_its_own_is_left_alone() {
    let api = ApiServer::start();
    for object in [&["create", "namespace", "dsn-system"][..], &["create", "-f", "crds/camera.yaml"]] {
        assert!(api.kubectl(object, "").status.success());
    }
    let up = demo(&api, "up");
    assert!(!up.status.success(), "{}", stdout(&up));
    let said = stderr(&up);
    for word in ["namespace/dsn-system", "cameras.dsn.network", "without dsn"] {
        assert!(said.contains(word), "{word}: {said}");
    }
    let down = demo(&api, "down");
    assert!(down.status.success() && stderr(&down).contains("nothing was removed"), "{}", stderr(&down));
    let left = api.kubectl(&["get", "namespace/dsn-system", "crd/cameras.dsn.network", "--output", "name"], "");
    assert_eq!(stdout(&left).lines().count(), 2, "{}", stderr(&left));
}

#[test]
fn what_the_demonstration_made_on_a_given_cluster_is_removed() {
    let api = ApiServer::with_controllers(50);
    // As `make demo` begins there; the chart's own objects are not needed to be found.
    for file in ["manifests/demo/0-namespace.yaml", "crds/"] {
        assert!(api.kubectl(&["create", "-f", file], "").status.success());
    }
    assert!(api.kubectl(&["create", "namespace", "dsn-system"], "").status.success());
    let down = demo(&api, "down");
    assert!(down.status.success(), "{}", stderr(&down));
    let names = ["namespace/dsn-system", "namespace/demo", "crd/cameras.dsn.network", "crd/pipelines.dsn.network"];
    let left = api.kubectl(&[&["get", "--ignore-not-found", "--output", "name"], &names[..]].concat(), "");
    assert_eq!((stdout(&left), stderr(&left)), (String::new(), String::new()));
}
