//! What a real API server says to good and to bad manifests: a bad one is refused at `kubectl apply` with a sentence that
//! tells what to write instead, and nothing of it is stored (rows K2, K5).

mod tools;

use tools::{apiserver::ApiServer, stderr, stdout};

/// A Camera with one line replaced or added.
fn camera(name: &str, url: &str, more: &str) -> String {
    format!(
        "apiVersion: dsn.network/v1alpha1\nkind: Camera\nmetadata: {{name: {name}, namespace: default}}\nspec:\n  source:\n    url: '{url}'\n{more}"
    )
}

fn pipeline(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: dsn.network/v1alpha1\nkind: Pipeline\nmetadata: {{name: {name}, namespace: default}}\nspec:\n  {}\n",
        spec.replace("; ", "\n  ")
    )
}

fn storage_node(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: dsn.network/v1alpha1\nkind: StorageNode\nmetadata: {{name: {name}, namespace: default}}\nspec:\n  {}\n",
        spec.replace("; ", "\n  ")
    )
}

/// A Pipeline with these renditions: name, height, kbit/s.
fn ladder(renditions: &[(&str, u32, u32)]) -> String {
    let rungs: Vec<String> = renditions
        .iter()
        .map(|(name, height, kbps)| format!("{{name: {name}, height: {height}, videoBitrateKbps: {kbps}}}"))
        .collect();
    pipeline("p", &format!("{CAMERAS}; transcode: {{sidecar: {{renditions: [{}]}}}}", rungs.join(", ")))
}

const CAMERAS: &str = "cameras: {names: [lobby]}";
const NODE: &str = "managed: {capacity: 2Gi}";

/// What a person may well write, and what the API server shall answer.
fn refused() -> Vec<(&'static str, String, &'static str)> {
    let good = "rtsp://10.0.0.8:554/stream1";
    let user = "leave user and password out; put them into a Secret";
    let days = "write hours, minutes and seconds, e.g. 720h for 30 days";
    let long = |n: usize| "n".repeat(n);
    vec![
        // Camera
        ("a scheme that is no camera's", camera("c", "http://10.0.0.8/stream", ""), "begin with rtsp:// or rtsps://"),
        ("no scheme", camera("c", "10.0.0.8/stream", ""), "begin with rtsp:// or rtsps://"),
        ("a file of the pod", camera("c", "file:///etc/passwd", ""), "begin with rtsp:// or rtsps://"),
        ("an empty address", camera("c", "", ""), "begin with rtsp:// or rtsps://"),
        ("no host", camera("c", "rtsp:///stream1", ""), "name a host after ://"),
        ("only a port", camera("c", "rtsp://:554/stream1", ""), "name a host after ://"),
        ("a password in the address", camera("c", "rtsp://admin:secret@10.0.0.8/stream1", ""), user),
        ("a user in the address", camera("c", "rtsp://admin@10.0.0.8/stream1", ""), user),
        ("a password with a slash-free oddity", camera("c", "rtsps://a:b@c@10.0.0.8/", ""), user),
        ("an umlaut in the address", camera("c", "rtsp://10.0.0.8/tür", ""), "use printable ASCII only"),
        ("a blank in the address", camera("c", "rtsp://10.0.0.8/stream 1", ""), "use printable ASCII only"),
        (
            "a line break in the address",
            camera("c", good, "").replace(&format!("'{good}'"), "\"rtsp://10.0.0.8/a\\nb\""),
            "use printable ASCII only",
        ),
        (
            "an address without end",
            camera("c", &format!("rtsp://10.0.0.8/{}", long(2048)), ""),
            "may not be more than 2048",
        ),
        ("a transport of its own", camera("c", good, "    transport: QUIC\n"), "\"TCP\", \"UDP\""),
        (
            "a Secret of another namespace",
            camera("c", good, "    credentialsSecretRef: {name: other/lobby}\n"),
            "a name of an object in this namespace",
        ),
        ("a nameless Secret", camera("c", good, "    credentialsSecretRef: {name: ''}\n"), "credentialsSecretRef.name"),
        ("a site in other letters", camera("c", good, "  site: Zürich\n"), "use 1 to 63 ASCII letters, digits"),
        ("an empty site", camera("c", good, "  site: ''\n"), "use 1 to 63 ASCII letters, digits"),
        (
            "no source",
            "apiVersion: dsn.network/v1alpha1\nkind: Camera\nmetadata: {name: c, namespace: default}\nspec: {}\n"
                .into(),
            "spec.source: Required value",
        ),
        ("a Camera's name that is too long", camera(&long(53), good, ""), "use at most 52 characters"),
        ("a Camera's name in other letters", camera("zürich", good, ""), "RFC 1123"),
        (
            "a field that does not exist",
            camera("c", good, "    passwort: geheim\n"),
            "unknown field \"spec.source.passwort\"",
        ),
        // Pipeline
        ("no cameras", pipeline("p", "state: Running"), "spec.cameras: Required value"),
        ("empty cameras", pipeline("p", "cameras: {}"), "give names (e.g. names: [lobby]) or a selector"),
        (
            "cameras of nothing",
            pipeline("p", "cameras: {names: null}"),
            "give names (e.g. names: [lobby]) or a selector",
        ),
        ("an empty list of cameras", pipeline("p", "cameras: {names: []}"), "list at least one Camera"),
        ("a camera twice", pipeline("p", "cameras: {names: [lobby, lobby]}"), "Duplicate value"),
        (
            "a camera's name in other letters",
            pipeline("p", "cameras: {names: [Türe]}"),
            "cameras.names: use names of Cameras",
        ),
        (
            "an operator that selectors do not have",
            pipeline("p", "cameras: {selector: {matchExpressions: [{key: site, operator: Like, values: [hq]}]}}"),
            "supported values: \"In\", \"NotIn\", \"Exists\", \"DoesNotExist\"",
        ),
        (
            "a selector without values",
            pipeline("p", "cameras: {selector: {matchExpressions: [{key: site, operator: In}]}}"),
            "give values",
        ),
        (
            "values that a selector ignores",
            pipeline("p", "cameras: {selector: {matchExpressions: [{key: site, operator: Exists, values: [hq]}]}}"),
            "leave values out",
        ),
        (
            "a label that can not be",
            pipeline("p", "cameras: {selector: {matchLabels: {site: 'Zürich Süd'}}}"),
            "labels and their values",
        ),
        (
            "a state of its own",
            pipeline("p", "state: Idle; cameras: {names: [lobby]}"),
            "\"Running\", \"Paused\", \"Stopped\"",
        ),
        (
            "segments of no length",
            pipeline("p", &format!("{CAMERAS}; capture: {{segmentSeconds: 0}}")),
            "a whole number of seconds from 1 to 30",
        ),
        (
            "segments of a minute",
            pipeline("p", &format!("{CAMERAS}; capture: {{segmentSeconds: 60}}")),
            "a whole number of seconds from 1 to 30",
        ),
        (
            "seconds with a unit",
            pipeline("p", &format!("{CAMERAS}; capture: {{segmentSeconds: 4s}}")),
            "must be of type integer",
        ),
        (
            "a container of its own",
            pipeline("p", &format!("{CAMERAS}; capture: {{container: MKV}}")),
            "supported values: \"FMP4\", \"MPEGTS\"",
        ),
        (
            "a container in small letters",
            pipeline("p", &format!("{CAMERAS}; capture: {{container: mpegts}}")),
            "supported values: \"FMP4\", \"MPEGTS\"",
        ),
        (
            "audio as somebody else encodes it",
            pipeline("p", &format!("{CAMERAS}; capture: {{audio: MP3}}")),
            "supported values: \"AAC\", \"Copy\", \"None\"",
        ),
        (
            "audio switched off as a truth value",
            pipeline("p", &format!("{CAMERAS}; capture: {{audio: false}}")),
            "supported values: \"AAC\", \"Copy\", \"None\"",
        ),
        (
            "a ladder without rungs",
            pipeline("p", &format!("{CAMERAS}; transcode: {{sidecar: {{renditions: []}}}}")),
            "list at least one, e.g. [{name: 480p, height: 480, videoBitrateKbps: 800}]",
        ),
        (
            "a rendition called source",
            ladder(&[("source", 480, 800)]),
            "source is the camera's own encoding; take another name",
        ),
        ("two renditions of a name", ladder(&[("low", 480, 800), ("low", 240, 300)]), "Duplicate value"),
        ("a rendition's name with a slash", ladder(&[("a/b", 480, 800)]), "use lower-case letters, digits and '-'"),
        (
            "six renditions",
            ladder(&[
                ("a", 480, 800),
                ("b", 480, 800),
                ("c", 480, 800),
                ("d", 480, 800),
                ("e", 480, 800),
                ("f", 480, 800),
            ]),
            "must have at most 5 items",
        ),
        ("an odd height", ladder(&[("low", 481, 800)]), "an even number of pixels from 120 to 2160"),
        ("a height of nothing", ladder(&[("low", 0, 800)]), "an even number of pixels from 120 to 2160"),
        ("a bit rate of nothing", ladder(&[("low", 480, 0)]), "a whole number of kbit/s from 50 to 50000"),
        (
            "a bit rate with a unit",
            pipeline(
                "p",
                &format!(
                    "{CAMERAS}; transcode: {{sidecar: {{renditions: [{{name: low, height: 480, videoBitrateKbps: 800k}}]}}}}"
                ),
            ),
            "must be of type integer",
        ),
        (
            "a rendition without a height",
            pipeline(
                "p",
                &format!("{CAMERAS}; transcode: {{sidecar: {{renditions: [{{name: low, videoBitrateKbps: 800}}]}}}}"),
            ),
            "height: Required value",
        ),
        ("days", pipeline("p", &format!("{CAMERAS}; storage: {{retention: 30d}}")), days),
        ("a bare number", pipeline("p", &format!("{CAMERAS}; storage: {{retention: '720'}}")), days),
        ("a fraction", pipeline("p", &format!("{CAMERAS}; storage: {{retention: 1.5h}}")), days),
        ("a duration in other digits", pipeline("p", &format!("{CAMERAS}; storage: {{retention: ٧٢٠h}}")), days),
        ("a negative duration", pipeline("p", &format!("{CAMERAS}; storage: {{retention: -1h}}")), days),
        (
            "a second's retention",
            pipeline("p", &format!("{CAMERAS}; storage: {{retention: 1s}}")),
            "storage.retention: at least 1m",
        ),
        ("no replica", pipeline("p", &format!("{CAMERAS}; storage: {{replicas: 0}}")), "a whole number from 1 to 9"),
        (
            "replicas beyond reason",
            pipeline("p", &format!("{CAMERAS}; storage: {{replicas: 10}}")),
            "a whole number from 1 to 9",
        ),
        (
            "a group in other letters",
            pipeline("p", &format!("{CAMERAS}; storage: {{groupRef: {{name: Übersee}}}}")),
            "storage.groupRef: use lower-case letters, digits and '-'",
        ),
        (
            "a group's name that is too long",
            pipeline("p", &format!("{CAMERAS}; storage: {{groupRef: {{name: {}}}}}", long(41))),
            "storage.groupRef",
        ),
        (
            "roll-ups of a second",
            pipeline("p", &format!("{CAMERAS}; storage: {{rollupSeconds: 1}}")),
            "from 10 to 3600",
        ),
        ("a spool of nothing", pipeline("p", &format!("{CAMERAS}; spool: {{size: 1Mi}}")), "spool.size: at least 64Mi"),
        (
            "a spool of a number of bytes",
            pipeline("p", &format!("{CAMERAS}; spool: {{size: 1024}}")),
            "spool.size: at least 64Mi",
        ),
        (
            "a spool of words",
            pipeline("p", &format!("{CAMERAS}; spool: {{size: ten gigabytes}}")),
            "spool.size: write a quantity, e.g. 10Gi",
        ),
        (
            "a spool without end",
            pipeline("p", &format!("{CAMERAS}; spool: {{size: '{}'}}", "9".repeat(100))),
            "may not be more than 32",
        ),
        (
            "an ephemeral spool on a class",
            pipeline("p", &format!("{CAMERAS}; spool: {{ephemeral: true, storageClassName: fast}}")),
            "an ephemeral spool has no storageClassName",
        ),
        ("a Pipeline's name that is too long", pipeline(&long(53), CAMERAS), "use at most 52 characters"),
        // StorageNode
        ("no capacity", storage_node("node", "managed: {}"), "spec.managed.capacity: Required value"),
        ("no kind of node", storage_node("node", "group: default"), "spec.managed: Required value"),
        ("too small a disk", storage_node("node", "managed: {capacity: 100Mi}"), "capacity: at least 1Gi"),
        (
            "a disk of words",
            storage_node("node", "managed: {capacity: plenty}"),
            "capacity: write a quantity, e.g. 100Gi",
        ),
        ("a disk of less than nothing", storage_node("node", "managed: {capacity: -2Gi}"), "capacity: at least 1Gi"),
        (
            "a group in capitals",
            storage_node("node", &format!("group: Archive; {NODE}")),
            "group: use lower-case letters, digits and '-'",
        ),
        (
            "a group's name without end",
            storage_node("node", &format!("group: {}; {NODE}", long(41))),
            "may not be more than 40",
        ),
        ("a StorageNode's name that is too long", storage_node(&long(41), NODE), "use at most 40 characters"),
        ("a StorageNode's name with a dot", storage_node("disk.1", NODE), "leave out dots"),
    ]
}

/// What must pass, the longest and the oddest that is allowed.
fn accepted() -> Vec<(&'static str, String)> {
    let long = |n: usize| "n".repeat(n);
    let long_url = format!("rtsp://10.0.0.8/{}", long(2048 - 16));
    vec![
        ("the least", camera("least", "rtsp://10.0.0.8/", "")),
        ("capital letters in the scheme", camera("capital", "RTSP://10.0.0.8/", "")),
        ("rtsps, an at in the path", camera("tls", "rtsps://cam.example.org:322/user@home?x=%20", "")),
        ("IPv6", camera("ipv6", "rtsp://[2001:db8::8]:554/1", "")),
        ("the longest address", camera("longest", &long_url, "")),
        (
            "everything",
            camera(
                &long(52),
                "rtsp://10.0.0.8/",
                "    transport: UDP\n    credentialsSecretRef: {name: lobby}\n  site: Plant 2\n",
            ),
        ),
        ("a name with dots", camera("lobby.hq", "rtsp://10.0.0.8/", "")),
        ("a Pipeline's least", pipeline("least", CAMERAS)),
        ("all cameras of the namespace", pipeline("all", "cameras: {selector: {}}")),
        (
            "all selectors",
            pipeline(
                "selectors",
                "cameras: {names: [a.b], selector: {matchLabels: {example.org/site: hq, empty: ''}, matchExpressions: [{key: a, operator: In, values: [b, c]}, {key: d, operator: DoesNotExist}]}}",
            ),
        ),
        (
            "a Pipeline's everything",
            pipeline(
                &long(52),
                "state: Paused; cameras: {names: [lobby]}; capture: {segmentSeconds: 30, container: MPEGTS, audio: None}; storage: {groupRef: {name: default}, replicas: 9, retention: 1h30m5s250ms, rollupSeconds: 3600, deletionPolicy: Delete}; spool: {size: 10Gi, storageClassName: fast, ephemeral: false}; pod: {nodeSelector: {vlan: cameras}, tolerations: [{operator: Exists}], priorityClassName: high, imagePullSecrets: [{name: registry}]}",
            ),
        ),
        ("a spool in plain bytes", pipeline("bytes", &format!("{CAMERAS}; spool: {{size: 1000000000}}"))),
        ("a year's retention", pipeline("year", &format!("{CAMERAS}; storage: {{retention: 8760h}}"))),
        ("the longest retention", pipeline("decade", &format!("{CAMERAS}; storage: {{retention: 99999h99999h}}"))),
        ("a StorageNode's least", storage_node("least", NODE)),
        (
            "a StorageNode's everything",
            storage_node(
                &long(40),
                "group: archive-1; managed: {capacity: 1.5Ti, storageClassName: hdd, nodeSelector: {kubernetes.io/hostname: a}, tolerations: [{key: disk, operator: Exists}], reclaimPolicy: Delete}",
            ),
        ),
        ("a disk in plain bytes", storage_node("bytes", "managed: {capacity: 2000000000}")),
    ]
}

/// What is fixed once it exists: first apply this, then that.
fn fixed() -> Vec<(&'static str, String, String, &'static str)> {
    let group = "group is fixed once the node exists";
    vec![
        (
            "another group",
            storage_node("fix", &format!("group: a; {NODE}")),
            storage_node("fix", &format!("group: b; {NODE}")),
            group,
        ),
        ("the group taken away", storage_node("fix", &format!("group: a; {NODE}")), storage_node("fix", NODE), group),
        (
            "another size",
            storage_node("fix2", NODE),
            storage_node("fix2", "managed: {capacity: 3Gi}"),
            "capacity is fixed once the volume exists",
        ),
        (
            "another class",
            storage_node("fix2", NODE),
            storage_node("fix2", "managed: {capacity: 2Gi, storageClassName: fast}"),
            "storageClassName is fixed once the volume exists",
        ),
        (
            "another spool",
            pipeline("fix", &format!("{CAMERAS}; spool: {{size: 1Gi}}")),
            pipeline("fix", &format!("{CAMERAS}; spool: {{size: 2Gi}}")),
            "spool is fixed once the volumes exist",
        ),
        (
            "the spool taken away",
            pipeline("fix", &format!("{CAMERAS}; spool: {{size: 1Gi}}")),
            pipeline("fix", CAMERAS),
            "spool is fixed once the volumes exist",
        ),
        (
            "a spool where there was the default",
            pipeline("fix2", CAMERAS),
            pipeline("fix2", &format!("{CAMERAS}; spool: {{size: 5Gi}}")),
            "spool is fixed once the volumes exist",
        ),
    ]
}

/// An API server that knows the three kinds.
fn with_definitions() -> ApiServer {
    let api = ApiServer::start();
    let applied = api.kubectl(&["apply", "--server-side", "-f", "crds/"], "");
    // A rule above the cost budget, a type error or an unknown format shows here, as an error or as a warning.
    assert!(applied.status.success(), "{}", stderr(&applied));
    assert_eq!(stderr(&applied), "", "the API server warns about a definition");
    let waited = api.kubectl(&["wait", "--for=condition=Established", "--timeout=30s", "-f", "crds/"], "");
    assert!(waited.status.success(), "{}", stderr(&waited));
    api
}

/// What a newcomer applies passes strict validation and raises no warning, Pod Security's among them; neither does what
/// Helm applies.
#[test]
fn samples_and_chart_are_accepted_without_a_warning() {
    let api = with_definitions();
    let clean = |what: &str, output: &std::process::Output| {
        assert!(output.status.success(), "{what}: {}", stderr(output));
        assert_eq!(stderr(output), "", "{what}");
    };
    // Not install.yaml, which holds the product itself: `manifests.rs` applies that.
    let samples: Vec<String> = tools::files("manifests", ".yaml")
        .iter()
        .map(|file| file.display().to_string())
        .filter(|file| !file.ends_with("/install.yaml"))
        .collect();
    let apply: Vec<&str> = ["apply", "--validate=strict"]
        .into_iter()
        .chain(samples.iter().flat_map(|file| ["-f", file.as_str()]))
        .collect();
    clean("manifests/", &api.kubectl(&apply, ""));
    let again = api.kubectl(&apply, "");
    // kubectl calls a Secret with stringData configured each time.
    let settled = |line: &str| line.ends_with("unchanged") || line.starts_with("secret/");
    assert!(stdout(&again).lines().all(settled), "{}", stdout(&again));

    let namespace = "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: dsn-system\n  labels: {pod-security.kubernetes.io/warn: restricted}\n";
    clean("the namespace", &api.kubectl(&["apply", "-f", "-"], namespace));
    for values in ["charts/dsn/values.yaml", "hack/local-values.yaml"] {
        let rendered = tools::run("helm", &["template", "dsn", "charts/dsn", "-n", "dsn-system", "-f", values]);
        assert!(rendered.status.success(), "{}", stderr(&rendered));
        let arguments = ["apply", "--server-side", "--force-conflicts", "--dry-run=server", "-f", "-"];
        clean(values, &api.kubectl(&arguments, &stdout(&rendered)));
    }
}

/// K5: who applies what is in manifests/ beside somebody else (Argo CD beside Flux, a person beside both) sees no difference,
/// and after that neither of the two does.
#[test]
fn k5_a_second_manager_sees_no_difference() {
    let api = with_definitions();
    let mut applied = 0;
    for file in tools::files("manifests", ".yaml") {
        let text = std::fs::read_to_string(&file).expect("a manifest");
        // `stringData` is kept as `data`: docs/gitops.md says what that means.
        let objects: Vec<&str> = text.split("\n---\n").filter(|object| !object.contains("\nstringData:")).collect();
        applied += objects.len();
        let steps =
            [("apply", "first"), ("diff", "second"), ("apply", "second"), ("diff", "first"), ("diff", "second")];
        for (how, manager) in steps {
            let manager = format!("--field-manager={manager}");
            let output = api.kubectl(&[how, "--server-side", &manager, "-f", "-"], &objects.join("\n---\n"));
            // A difference is an exit status, and so is a comparison that did not come about.
            let said = [stdout(&output), stderr(&output)].concat();
            assert!(output.status.success(), "{how} {manager} {}: {said}", file.display());
        }
    }
    assert!(applied > 30, "only {applied} objects");
}

#[test]
fn a_bad_manifest_is_refused_with_what_to_write_instead() {
    let api = with_definitions();
    let mut wrong = Vec::new();
    for (what, manifest, sentence) in refused() {
        let answer = api.kubectl(&["apply", "-f", "-"], &manifest);
        if answer.status.success() {
            wrong.push(format!("{what}: accepted"));
            api.kubectl(&["delete", "--wait=false", "-f", "-"], &manifest);
        } else if !stderr(&answer).contains(sentence) {
            wrong.push(format!("{what}: expected …{sentence}…, got:\n    {}", stderr(&answer).trim()));
        }
    }
    let left = api.kubectl(&["get", "cameras,pipelines,storagenodes", "-A", "-o", "name"], "");
    assert_eq!(stdout(&left), "", "something of a refused manifest was stored");

    for (what, manifest) in accepted() {
        let answer = api.kubectl(&["apply", "-f", "-"], &manifest);
        if !answer.status.success() {
            wrong.push(format!("{what}: refused: {}", stderr(&answer).trim()));
        }
        let again = api.kubectl(&["apply", "-f", "-"], &manifest);
        if !stdout(&again).contains("unchanged") {
            wrong.push(format!("{what}: applied twice: {}{}", stdout(&again).trim(), stderr(&again).trim()));
        }
    }
    for (what, before, after, sentence) in fixed() {
        let first = api.kubectl(&["apply", "-f", "-"], &before);
        let second = api.kubectl(&["apply", "-f", "-"], &after);
        if !first.status.success() || second.status.success() || !stderr(&second).contains(sentence) {
            wrong.push(format!(
                "{what}: expected …{sentence}…, got:\n    {}{}",
                stderr(&first).trim(),
                stderr(&second).trim()
            ));
        }
    }
    assert!(wrong.is_empty(), "{} wrong answers:\n{}", wrong.len(), wrong.join("\n"));
}
