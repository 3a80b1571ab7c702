//! The address of the broker as one URL, with user name, password and vhost percent-encoded.
//!
//! Called by the operator (for itself and for the Secrets of the agents) and by whoever connects with parts.

use std::fmt::Write;

/// Where the broker is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerAddress {
    /// Host name, resolvable from every namespace.
    pub host: String,
    /// AMQP port.
    pub port: u16,
    /// Virtual host.
    pub vhost: String,
}

impl BrokerAddress {
    /// `amqp://user:password@host:port/vhost`, with heartbeats short enough to notice a dead peer.
    pub fn url(&self, user: &str, password: &str) -> String {
        format!(
            "amqp://{}:{}@{}:{}/{}?heartbeat=10&connection_timeout=5000",
            encode(user),
            encode(password),
            self.host,
            self.port,
            encode(&self.vhost)
        )
    }
}

/// Percent-encodes everything but unreserved characters (RFC 3986 §2.3): the vhost `/` becomes `%2F`.
pub fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a String can't fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_passwords_and_the_default_vhost_survive() {
        let address = BrokerAddress { host: "rabbit.dsn.svc".into(), port: 5672, vhost: "/".into() };
        assert_eq!(
            address.url("dsn", "p@ss/:?#ü"),
            "amqp://dsn:p%40ss%2F%3A%3F%23%C3%BC@rabbit.dsn.svc:5672/%2F?heartbeat=10&connection_timeout=5000"
        );
    }
}
