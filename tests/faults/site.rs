//! The servers that all labs share, and who asks them beside the operator.

use axum::http::{Method, StatusCode};
use reqwest::{Client, RequestBuilder};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::tools::{self, apiserver::ApiServer, broker::RabbitMq, stderr, stdout};

/// What the operator makes and what makes it: kind, where the API server has it, and its plural.
pub const KINDS: [(&str, &str, &str); 10] = [
    ("Pipeline", "apis/dsn.network/v1alpha1", "pipelines"),
    ("Camera", "apis/dsn.network/v1alpha1", "cameras"),
    ("StorageNode", "apis/dsn.network/v1alpha1", "storagenodes"),
    ("Deployment", "apis/apps/v1", "deployments"),
    ("StatefulSet", "apis/apps/v1", "statefulsets"),
    ("Service", "api/v1", "services"),
    ("ConfigMap", "api/v1", "configmaps"),
    ("PersistentVolumeClaim", "api/v1", "persistentvolumeclaims"),
    ("Secret", "api/v1", "secrets"),
    ("PodDisruptionBudget", "apis/policy/v1", "poddisruptionbudgets"),
];

/// API server with the kinds, and a broker.
pub struct Site {
    /// The API server.
    pub api: ApiServer,
    /// The broker.
    pub broker: RabbitMq,
    /// For the forwarders and for who asks.
    pub runtime: Runtime,
    /// For both servers.
    pub client: Client,
    /// What the chart gives an operator, with [`LAB`] for the name of a lab, and the addresses below.
    arguments: Vec<String>,
}

const LAB: &str = "name-of-the-lab";
const PORT: &str = "1";
const MANAGEMENT: &str = "http://management";

impl Site {
    /// Starts them.
    pub fn start() -> Self {
        let (api, broker) = (ApiServer::start(), RabbitMq::start());
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let client = Client::builder().danger_accept_invalid_certs(true).build().expect("a client");
        let site = Self { api, broker, runtime, client, arguments: arguments() };
        site.kubectl(&["apply", "--server-side", "-f", "crds"], "");
        // It speaks for agents here, whose passwords it does not know.
        let tags = json!({"password": "guest", "tags": "administrator,impersonator"});
        let (status, answer) = site.management(Method::PUT, "users/guest", Some(&tags));
        assert!(status.is_success(), "{status}: {answer}");
        site
    }

    /// What the chart gives the operator of a lab.
    pub fn arguments(&self, lab: &str, amqp_port: u16, management: &str) -> Vec<String> {
        let port = format!("--broker-port={PORT}");
        let own = |argument: &String| {
            if *argument == port {
                format!("--broker-port={amqp_port}")
            } else {
                argument.replace(LAB, lab).replace(MANAGEMENT, management)
            }
        };
        self.arguments.iter().map(own).collect()
    }

    /// The address of the API server.
    pub fn server(&self) -> String {
        let kubeconfig = std::fs::read_to_string(self.api.kubeconfig()).expect("a kubeconfig");
        kubeconfig.split('\'').nth(1).expect("the address stands in quotes").to_owned()
    }

    /// kubectl as the administrator.
    pub fn kubectl(&self, arguments: &[&str], input: &str) -> String {
        let output = self.api.kubectl(arguments, input);
        assert!(output.status.success(), "kubectl {arguments:?}: {}", stderr(&output));
        stdout(&output)
    }

    /// Asks the API server.
    pub fn kubernetes(&self, method: Method, path: &str, body: Option<(&str, &Value)>) -> (StatusCode, Value) {
        let mut request = self.client.request(method, format!("{}/{path}", self.server())).bearer_auth("test");
        if let Some((how, body)) = body {
            request = request.header("content-type", how).body(body.to_string());
        }
        self.ask(request)
    }

    /// Asks the broker's management API.
    pub fn management(&self, method: Method, path: &str, body: Option<&Value>) -> (StatusCode, Value) {
        let request = self.client.request(method, format!("{}/api/{path}", self.broker.management()));
        let request = request.basic_auth("guest", Some("guest"));
        self.ask(if let Some(body) = body { request.json(body) } else { request })
    }

    fn ask(&self, request: RequestBuilder) -> (StatusCode, Value) {
        self.runtime.block_on(async {
            let answer = request.send().await.expect("a server on loopback answers");
            (answer.status(), answer.json().await.unwrap_or_default())
        })
    }

    /// The namespaces of a lab and the broker's login.
    pub fn furnish(&self, lab: &str) {
        let system = format!("{lab}-system");
        let namespace = |name: &str| json!({"metadata": {"name": name}});
        let login = json!({"metadata": {"name": "login"}, "stringData": {"username": "guest", "password": "guest"}});
        let secrets = format!("api/v1/namespaces/{system}/secrets");
        for (path, object) in [
            ("api/v1/namespaces", namespace(lab)),
            ("api/v1/namespaces", namespace(&system)),
            (secrets.as_str(), login),
        ] {
            let (status, answer) = self.kubernetes(Method::POST, path, Some(("application/json", &object)));
            assert_eq!(status, StatusCode::CREATED, "{path}: {answer}");
        }
    }
}

fn arguments() -> Vec<String> {
    let external = format!(
        "broker.external.host=127.0.0.1,broker.external.port={PORT},broker.external.managementUrl={MANAGEMENT},\
         broker.external.existingSecret=login"
    );
    let own = format!("watchNamespace={LAB},broker.vhost={LAB},broker.bundled.enabled=false");
    let rendered = tools::run("helm", &["template", "dsn", "charts/dsn", "--set", &own, "--set", &external]);
    assert!(rendered.status.success(), "{}", stderr(&rendered));
    tools::operator_arguments(&tools::documents(&stdout(&rendered)), &format!("{LAB}-system"), "operator")
}
