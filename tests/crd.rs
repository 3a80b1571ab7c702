//! One schema in three places: what `dsn crd` prints, what lies in `crds/`, what the chart installs.

mod tools;

use std::process::Command;

const KINDS: [&str; 3] = ["camera", "pipeline", "storagenode"];

fn printed(kind: &str) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_dsn")).args(["crd", kind]).output().expect("dsn starts");
    assert!(output.status.success(), "{}", tools::stderr(&output));
    tools::stdout(&output)
}

#[test]
fn the_folder_crds_and_the_chart_hold_what_dsn_crd_prints() {
    for kind in KINDS {
        for folder in ["crds", "charts/dsn/files/crds"] {
            let file = tools::repository().join(folder).join(format!("{kind}.yaml"));
            let content = std::fs::read_to_string(&file).unwrap_or_default();
            assert_eq!(content, printed(kind), "{} is out of date: run `make crds`", file.display());
        }
    }
}

#[test]
fn the_chart_installs_them_unchanged_and_keeps_them_at_uninstall() {
    let output = tools::run("helm", &["template", "dsn", "charts/dsn", "--show-only", "templates/crds.yaml"]);
    assert!(output.status.success(), "{}", tools::stderr(&output));
    let mut rendered = tools::documents(&tools::stdout(&output));
    assert_eq!(rendered.len(), KINDS.len());
    for (crd, kind) in rendered.iter_mut().zip(KINDS) {
        let annotations = crd["metadata"].as_object_mut().and_then(|m| m.remove("annotations"));
        assert_eq!(annotations, Some(serde_json::json!({"helm.sh/resource-policy": "keep"})), "{kind}");
        assert_eq!(vec![crd.clone()], tools::documents(&printed(kind)), "{kind}");
    }
}

#[test]
fn the_chart_leaves_them_out_when_told_so() {
    let output = tools::run("helm", &["template", "dsn", "charts/dsn", "--set", "crds.install=false"]);
    assert!(output.status.success(), "{}", tools::stderr(&output));
    assert!(!tools::stdout(&output).contains("CustomResourceDefinition"));
}

/// Argo CD shows a difference for every field that a server fills in (row K5), so defaults live in code.
#[test]
fn no_schema_carries_defaults_or_formats_that_the_api_server_does_not_know() {
    for kind in KINDS {
        let text = printed(kind);
        assert!(!text.contains(" default:"), "{kind}: a default in the schema");
        assert!(!text.contains("format: uint"), "{kind}: an unsigned format");
    }
}
