//! RabbitMQ's management API (HTTP): users, permissions, policies, and the list of queues with their arguments.
//!
//! Not here: messages, queues' declaration (AMQP does that). Called by the operator's broker supervisor only. Works
//! with RabbitMQ 3.10 and later.

use std::{collections::BTreeMap, time::Duration};

use reqwest::{Client, Method, StatusCode};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::broker_address::encode;

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No answer, or not one that could be read.
    #[error("failed to {what} through the broker's management API")]
    Request {
        /// What was tried.
        what: String,
        /// Why it failed.
        #[source]
        source: reqwest::Error,
    },
    /// The API said no.
    #[error("failed to {what} through the broker's management API: it answered {status}")]
    Answer {
        /// What was tried.
        what: String,
        /// Its status.
        status: StatusCode,
    },
    /// A user of that name is there and belongs to somebody else; it is never seized.
    #[error("the broker's user {user:?} belongs to somebody else; rename or delete it, then it is made")]
    Foreign {
        /// Its name.
        user: String,
    },
}

impl Error {
    /// Stable word for conditions, events and metric labels.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Request { .. } => "BrokerAdminUnreachable",
            Self::Answer { status, .. } if status.as_u16() == 401 || status.as_u16() == 403 => "BrokerAdminForbidden",
            Self::Answer { .. } => "BrokerAdminFailed",
            Self::Foreign { .. } => "ForeignUser",
        }
    }
}

/// What a user may do in the vhost: regular expressions over names (AMQP permissions of RabbitMQ).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permissions {
    /// May declare and delete.
    pub configure: String,
    /// May publish to, bind to.
    pub write: String,
    /// May consume from.
    pub read: String,
    /// On this topic exchange, routing keys it may publish.
    pub topic: Option<(String, String)>,
}

/// How a vhost is.
#[derive(Deserialize)]
struct Vhost {
    /// `running`, `stopped` or `nodedown`, by node.
    #[serde(default)]
    cluster_state: BTreeMap<String, String>,
}

/// A queue.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Queue {
    /// Its name.
    pub name: String,
    /// The arguments it was declared with.
    #[serde(default)]
    pub arguments: BTreeMap<String, Value>,
    /// How many messages are in it; absent while the broker has not counted yet.
    #[serde(default)]
    pub messages: Option<u64>,
}

/// A user.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct User {
    /// Its name.
    pub name: String,
    /// Its tags; older brokers give one text, newer a list.
    #[serde(default, deserialize_with = "tags")]
    pub tags: Vec<String>,
}

fn tags<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Tags {
        List(Vec<String>),
        Text(String),
    }
    Ok(match Tags::deserialize(deserializer)? {
        Tags::List(list) => list,
        Tags::Text(text) => text.split(',').filter(|tag| !tag.is_empty()).map(str::to_owned).collect(),
    })
}

/// The API, with the credentials of an administrator.
pub struct BrokerAdmin {
    http: Client,
    base: String,
    user: String,
    password: String,
    vhost: String,
}

impl BrokerAdmin {
    /// The API at `base` (`http://host:15672`), for one vhost.
    pub fn new(base: &str, user: &str, password: &str, vhost: &str) -> Result<Self, Error> {
        let http = Client::builder()
            .timeout(TIMEOUT)
            .build()
            .map_err(|source| Error::Request { what: "set up requests".into(), source })?;
        Ok(Self {
            http,
            base: base.trim_end_matches('/').to_owned(),
            user: user.to_owned(),
            password: password.to_owned(),
            vhost: encode(vhost),
        })
    }

    /// Makes the vhost when it is missing, with all permissions for ourselves, and starts it where it is down.
    ///
    /// Trap: when the one who asks for a vhost goes before the answer (a SIGKILL), the broker breaks off in the middle, and
    /// the vhost is there and down for ever: "access to vhost refused".
    pub async fn ensure_vhost(&self) -> Result<(), Error> {
        let path = format!("vhosts/{}", self.vhost);
        match self.get::<Vhost>("look at the vhost", &path).await? {
            None => self.put("create the vhost", &path, &json!({})).await?,
            Some(vhost) => {
                for (node, _) in vhost.cluster_state.iter().filter(|(_, state)| *state == "stopped") {
                    let path = format!("{path}/start/{}", encode(node));
                    self.send(Method::POST, "start the vhost", &path, Some(&json!({}))).await?;
                }
            }
        }
        let all = json!({"configure": ".*", "write": ".*", "read": ".*"});
        self.put("permit ourselves", &format!("permissions/{}/{}", self.vhost, encode(&self.user)), &all).await
    }

    /// How many nodes the broker has.
    pub async fn nodes(&self) -> Result<usize, Error> {
        let nodes: Vec<Value> = self.get("count the nodes", "nodes?columns=name").await?.unwrap_or_default();
        Ok(nodes.len())
    }

    /// Makes a user, or brings it to this state; `tag` is the mark by which one of ours is known.
    pub async fn ensure_user(
        &self,
        name: &str,
        password: &str,
        tag: &str,
        permissions: &Permissions,
    ) -> Result<(), Error> {
        let user = encode(name);
        let found = self.get::<User>("look at a user", &format!("users/{user}?columns=name,tags")).await?;
        if found.is_some_and(|found| !found.tags.iter().any(|found| found == tag)) {
            return Err(Error::Foreign { user: name.to_owned() });
        }
        self.put("create a user", &format!("users/{user}"), &json!({"password": password, "tags": tag})).await?;
        // Trap: a user without a row of topic permissions may publish *any* key. That row comes first; without the
        // other permissions it allows nothing yet.
        if let Some((exchange, keys)) = &permissions.topic {
            let row = json!({"exchange": exchange, "write": keys, "read": "^$"});
            self.put("limit a user's topics", &format!("topic-permissions/{}/{user}", self.vhost), &row).await?;
        }
        let Permissions { configure, write, read, .. } = permissions;
        let row = json!({"configure": configure, "write": write, "read": read});
        self.put("permit a user", &format!("permissions/{}/{user}", self.vhost), &row).await
    }

    /// Every user.
    pub async fn users(&self) -> Result<Vec<User>, Error> {
        Ok(self.get("list the users", "users?columns=name,tags").await?.unwrap_or_default())
    }

    /// Removes a user and closes its connections; one that does not exist is no error.
    pub async fn delete_user(&self, name: &str) -> Result<(), Error> {
        self.send(Method::DELETE, "remove a user", &format!("users/{}", encode(name)), None::<&()>).await.map(|_| ())
    }

    /// Every queue of the vhost.
    pub async fn queues(&self) -> Result<Vec<Queue>, Error> {
        let path = format!("queues/{}?columns=name,arguments,messages", self.vhost);
        Ok(self.get("list the queues", &path).await?.unwrap_or_default())
    }

    /// One queue.
    pub async fn queue(&self, name: &str) -> Result<Option<Queue>, Error> {
        self.get("look at a queue", &format!("queues/{}/{}?columns=name,arguments", self.vhost, encode(name))).await
    }

    /// Sets options of all queues whose name matches.
    pub async fn ensure_policy(&self, name: &str, pattern: &str, definition: &Value) -> Result<(), Error> {
        let body = json!({"pattern": pattern, "definition": definition, "apply-to": "queues"});
        self.put("set a policy", &format!("policies/{}/{}", self.vhost, encode(name)), &body).await
    }

    async fn get<T: DeserializeOwned>(&self, what: &str, path: &str) -> Result<Option<T>, Error> {
        match self.send(Method::GET, what, path, None::<&()>).await? {
            Some(response) => response
                .json()
                .await
                .map(Some)
                .map_err(|source| Error::Request { what: what.to_owned(), source: source.without_url() }),
            None => Ok(None),
        }
    }

    async fn put(&self, what: &str, path: &str, body: &impl Serialize) -> Result<(), Error> {
        match self.send(Method::PUT, what, path, Some(body)).await? {
            Some(_) => Ok(()),
            None => Err(Error::Answer { what: what.to_owned(), status: StatusCode::NOT_FOUND }),
        }
    }

    /// `None` = 404.
    async fn send(
        &self,
        method: Method,
        what: &str,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<Option<reqwest::Response>, Error> {
        let mut request =
            self.http.request(method, format!("{}/api/{path}", self.base)).basic_auth(&self.user, Some(&self.password));
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request
            .send()
            .await
            .map_err(|source| Error::Request { what: what.to_owned(), source: source.without_url() })?;
        match response.status() {
            StatusCode::NOT_FOUND => Ok(None),
            status if status.is_success() => Ok(Some(response)),
            status => Err(Error::Answer { what: what.to_owned(), status }),
        }
    }
}

#[cfg(test)]
mod tests {
    use wiremock::{
        Mock, MockServer, ResponseTemplate,
        matchers::{basic_auth, method, path},
    };

    use super::*;

    fn admin(server: &MockServer) -> BrokerAdmin {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        BrokerAdmin::new(&server.uri(), "dsn", "pw", "/").expect("client")
    }

    #[tokio::test]
    async fn topic_permissions_come_before_permissions() {
        let server = MockServer::start().await;
        Mock::given(method("PUT"))
            .and(basic_auth("dsn", "pw"))
            .respond_with(ResponseTemplate::new(204))
            .mount(&server)
            .await;
        let permissions = Permissions {
            configure: "^$".into(),
            write: "^dsn\\.events$".into(),
            read: "^dsn\\.ctl\\.".into(),
            topic: Some(("dsn.events".into(), "^evt\\.".into())),
        };
        admin(&server).ensure_user("dsn-cams", "secret", "dsn-agent", &permissions).await.expect("made");
        let paths: Vec<_> = server
            .received_requests()
            .await
            .expect("recorded")
            .iter()
            .filter(|request| request.method == "PUT")
            .map(|request| request.url.path().to_owned())
            .collect();
        assert_eq!(
            paths,
            ["/api/users/dsn-cams", "/api/topic-permissions/%2F/dsn-cams", "/api/permissions/%2F/dsn-cams"]
        );
    }

    /// A new password would lock out whoever uses it, and the sweep would delete it one day.
    #[tokio::test]
    async fn a_user_of_somebody_else_is_left_alone() {
        let permissions = Permissions { configure: "^$".into(), write: "^$".into(), read: "^$".into(), topic: None };
        for (tags, puts) in [(json!([]), 0), (json!(["administrator"]), 0), (json!(["dsn-agent"]), 2)] {
            let server = MockServer::start().await;
            let user = Mock::given(method("GET")).and(path("/api/users/dsn-cams"));
            let found = json!({"name": "dsn-cams", "tags": tags});
            user.respond_with(ResponseTemplate::new(200).set_body_json(found)).mount(&server).await;
            Mock::given(method("PUT")).respond_with(ResponseTemplate::new(204)).expect(puts).mount(&server).await;
            let made = admin(&server).ensure_user("dsn-cams", "secret", "dsn-agent", &permissions).await;
            assert_eq!(made.err().map(|error| error.reason()), (puts == 0).then_some("ForeignUser"));
        }
    }

    #[tokio::test]
    async fn a_vhost_whose_creation_was_broken_off_is_started() {
        let server = MockServer::start().await;
        let state = json!({"name": "/", "cluster_state": {"rabbit@one": "running", "rabbit@two": "stopped"}});
        let vhost = Mock::given(method("GET")).and(path("/api/vhosts/%2F"));
        vhost.respond_with(ResponseTemplate::new(200).set_body_json(state)).mount(&server).await;
        let start = Mock::given(method("POST")).and(path("/api/vhosts/%2F/start/rabbit%40two"));
        start.respond_with(ResponseTemplate::new(204)).expect(1).mount(&server).await;
        Mock::given(method("PUT")).respond_with(ResponseTemplate::new(204)).mount(&server).await;
        admin(&server).ensure_vhost().await.expect("started");
        let started = server.received_requests().await.expect("recorded");
        assert_eq!(started.iter().filter(|request| request.method == "POST").count(), 1);
    }

    #[tokio::test]
    async fn answers_become_reasons() {
        for (code, reason) in [(401, "BrokerAdminForbidden"), (500, "BrokerAdminFailed")] {
            let server = MockServer::start().await;
            Mock::given(path("/api/queues/%2F")).respond_with(ResponseTemplate::new(code)).mount(&server).await;
            let error = admin(&server).queues().await.expect_err("refused");
            assert_eq!(error.reason(), reason);
            assert!(!error.to_string().contains("pw"));
        }
    }

    #[tokio::test]
    async fn a_missing_queue_or_user_is_no_error() {
        let server = MockServer::start().await;
        let admin = admin(&server);
        assert_eq!(admin.queue("dsn.operator").await.expect("answered"), None);
        admin.delete_user("gone").await.expect("answered");
    }

    #[test]
    fn tags_are_a_text_in_older_brokers() {
        for text in [r#"{"name":"u","tags":"a,b"}"#, r#"{"name":"u","tags":["a","b"]}"#] {
            assert_eq!(serde_json::from_str::<User>(text).expect("parses").tags, ["a", "b"]);
        }
    }
}
