//! How the recorder reaches the broker; the credentials are read anew at every connection, so that a rotated Secret takes
//! effect.

use std::{io, path::PathBuf};

use crate::clients::broker_address::BrokerAddress;

/// Address and credentials.
#[derive(Clone, Debug)]
pub struct BrokerLogin {
    /// Where the broker is.
    pub address: BrokerAddress,
    /// Folder with the files `username` and `password`.
    pub credentials: PathBuf,
}

impl BrokerLogin {
    /// The address with user and password. Never to be logged.
    pub(super) fn url(&self) -> io::Result<String> {
        let read = |file| {
            std::fs::read_to_string(self.credentials.join(file)).map(|text| text.trim_end_matches('\n').to_owned())
        };
        Ok(self.address.url(&read("username")?, &read("password")?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(credentials: PathBuf) -> BrokerLogin {
        BrokerLogin { address: BrokerAddress { host: "rabbit".into(), port: 5672, vhost: "a/b".into() }, credentials }
    }

    #[test]
    fn the_credentials_are_those_of_the_moment() {
        let folder = tempfile::tempdir().expect("a folder");
        for password in ["old", "new"] {
            std::fs::write(folder.path().join("username"), "dsn\n").expect("writes");
            std::fs::write(folder.path().join("password"), format!("{password}\n")).expect("writes");
            let url = login(folder.path().to_owned()).url().expect("an address");
            assert!(url.starts_with(&format!("amqp://dsn:{password}@rabbit:5672/a%2Fb?heartbeat=")), "{url}");
        }
    }

    #[test]
    fn missing_credentials_are_an_error() {
        assert!(login("/nonexistent".into()).url().is_err());
    }
}
