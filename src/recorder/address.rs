//! Where the broker is; the credentials are read anew at every connection, so that a rotated Secret takes effect.

use std::{io, path::PathBuf};

use url::Url;

/// Parts of the broker's address.
#[derive(Clone, Debug)]
pub struct BrokerAddress {
    /// Host.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Virtual host.
    pub vhost: String,
    /// Folder with the files `username` and `password`.
    pub credentials: PathBuf,
}

impl BrokerAddress {
    /// The address with user and password. Never to be logged.
    pub(super) fn url(&self) -> io::Result<String> {
        let read = |file| {
            std::fs::read_to_string(self.credentials.join(file)).map(|text| text.trim_end_matches('\n').to_owned())
        };
        let (user, password) = (read("username")?, read("password")?);
        let refuse = |()| io::Error::new(io::ErrorKind::InvalidInput, "the broker's host is not a host name");
        let mut url = Url::parse("amqp://localhost").map_err(|_| refuse(()))?;
        url.set_host(Some(&self.host)).map_err(|_| refuse(()))?;
        url.set_port(Some(self.port)).map_err(refuse)?;
        url.set_username(&user).map_err(refuse)?;
        url.set_password(Some(&password)).map_err(refuse)?;
        url.path_segments_mut().map_err(refuse)?.push(&self.vhost);
        Ok(url.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_characters_are_escaped() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("username"), "d:n\n").expect("writes");
        std::fs::write(folder.path().join("password"), "p@ss/word").expect("writes");
        let address = BrokerAddress {
            host: "rabbit".into(),
            port: 5672,
            vhost: "a/b".into(),
            credentials: folder.path().to_owned(),
        };
        assert_eq!(address.url().expect("an address"), "amqp://d%3An:p%40ss%2Fword@rabbit:5672/a%2Fb");
    }

    #[test]
    fn missing_credentials_are_an_error() {
        let address =
            BrokerAddress { host: "h".into(), port: 1, vhost: "/".into(), credentials: "/nonexistent".into() };
        assert!(address.url().is_err());
    }
}
