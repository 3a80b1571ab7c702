//! The address of a camera with its credentials, and how to keep them out of everything a person may read.
//!
//! The full URL exists only at the moment ffmpeg or ffprobe is executed; every text that leaves the runner goes
//! through [`Credentials::redact`]. Not here: reading the mounted Secret (the runner does).

use std::fmt::Write;

use url::Url;

/// What stands in place of a secret.
const MASK: &str = "***";

/// libavformat keeps `user:password` of an RTSP address in a buffer of 128 bytes and cuts silently
/// (rtsp.h, `RTSPState.auth`): longer ones would look like a wrong password.
const MAX_USERINFO: usize = 127;

/// User name and password of a camera.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    /// User name.
    pub username: String,
    /// Password.
    pub password: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials(…)")
    }
}

/// Why no address could be built. Carries no part of the credentials.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Invalid {
    /// Not a URL at all.
    #[error("{0:?} is no address: write e.g. rtsp://10.0.0.8:554/stream1")]
    Address(String),
    /// A scheme we do not read.
    #[error("the scheme {0:?} is not supported: use rtsp or rtsps")]
    Scheme(String),
    /// Credentials in the address.
    #[error("the address carries user and password: put them into a Secret")]
    UserInfo,
    /// No host.
    #[error("the address names no host: write e.g. rtsp://10.0.0.8:554/stream1")]
    Host,
    /// ffmpeg would cut them.
    #[error("user name and password are longer than {MAX_USERINFO} characters together once percent-encoded")]
    TooLong,
    /// `user:name` can't be told from user and password.
    #[error("the user name contains a colon, which no camera can tell from the password")]
    Colon,
}

/// Schemes we read, with the protocols libavformat may open for each. Hostile answers (redirects, playlists,
/// reference streams) reach nothing else, in particular no `file` and no `http`.
const SCHEMES: [(&str, &str); 2] = [("rtsp", "rtsp,rtp,tcp,udp"), ("rtsps", "rtsp,rtsps,rtp,tcp,udp,tls,srtp,crypto")];

/// A checked address of a camera, without credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    url: Url,
    protocols: &'static str,
}

impl Address {
    /// Checks what the assignment says.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let url = Url::parse(text).map_err(|_| Invalid::Address(redact_userinfo(text)))?;
        let Some((_, protocols)) = SCHEMES.iter().find(|(scheme, _)| *scheme == url.scheme()) else {
            return Err(Invalid::Scheme(url.scheme().to_owned()));
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Invalid::UserInfo);
        }
        if url.host_str().is_none_or(str::is_empty) {
            return Err(Invalid::Host);
        }
        Ok(Self { url, protocols })
    }

    /// Value of `-protocol_whitelist`.
    pub fn protocols(&self) -> &'static str {
        self.protocols
    }

    /// The address for an `exec`, never for a log.
    pub fn with(&self, credentials: Option<&Credentials>) -> Result<String, Invalid> {
        let Some(credentials) = credentials else { return Ok(self.url.to_string()) };
        if credentials.username.contains(':') {
            return Err(Invalid::Colon);
        }
        let userinfo = format!("{}:{}", percent_encode(&credentials.username), percent_encode(&credentials.password));
        if userinfo.len() > MAX_USERINFO {
            return Err(Invalid::TooLong);
        }
        let text = self.url.as_str();
        let after_scheme = self.url.scheme().len() + "://".len();
        Ok(format!("{}{userinfo}@{}", &text[..after_scheme], &text[after_scheme..]))
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.url.as_str())
    }
}

/// RFC 3986 §2.1, everything but unreserved characters: what libavformat decodes again.
fn percent_encode(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

impl Credentials {
    /// Masks the password, however written, and any user info in an address.
    pub fn redact(&self, text: &str) -> String {
        let mut clean = redact_userinfo(text);
        for secret in [percent_encode(&self.password), self.password.clone()] {
            if !secret.is_empty() {
                clean = clean.replace(&secret, MASK);
            }
        }
        clean
    }
}

/// Masks what stands between `://` and `@` of every address in a text.
pub fn redact_userinfo(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (head, tail) = rest.split_at(at + 3);
        clean.push_str(head);
        let end = tail.find(|c: char| c.is_whitespace() || "/?#\"'".contains(c)).unwrap_or(tail.len());
        match tail[..end].rfind('@') {
            Some(userinfo) => {
                clean.push_str(MASK);
                rest = &tail[userinfo..];
            }
            None => rest = tail,
        }
    }
    clean.push_str(rest);
    clean
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn credentials(username: &str, password: &str) -> Credentials {
        Credentials { username: username.to_owned(), password: password.to_owned() }
    }

    #[test]
    fn credentials_are_percent_encoded_into_the_address() {
        let address = Address::parse("rtsp://10.0.0.8:554/Streaming/Channels/101?x=1").expect("valid");
        assert_eq!(
            address.with(Some(&credentials("admin", "p@ss:/ü?#%"))).expect("fits"),
            "rtsp://admin:p%40ss%3A%2F%C3%BC%3F%23%25@10.0.0.8:554/Streaming/Channels/101?x=1"
        );
        assert_eq!(address.with(None).expect("fits"), "rtsp://10.0.0.8:554/Streaming/Channels/101?x=1");
    }

    #[test]
    fn what_can_not_work_is_refused_with_the_cure() {
        for (text, want) in [
            ("file:///etc/passwd", Invalid::Scheme("file".to_owned())),
            ("http://h/", Invalid::Scheme("http".to_owned())),
            ("rtsp://a:b@h/", Invalid::UserInfo),
            ("rtsp:///x", Invalid::Host),
            ("concat:a|b", Invalid::Scheme("concat".to_owned())),
        ] {
            assert_eq!(Address::parse(text).expect_err(text), want);
        }
        let address = Address::parse("rtsps://h/").expect("valid");
        assert_eq!(address.with(Some(&credentials("u", &"€".repeat(20)))), Err(Invalid::TooLong));
        assert_eq!(address.with(Some(&credentials("u:v", "x"))), Err(Invalid::Colon));
    }

    #[test]
    fn user_info_of_every_address_in_a_text_is_masked() {
        assert_eq!(
            redact_userinfo("[in] rtsp://a:b@h/x: failed; tcp://c:d@1.2.3.4:5?timeout=1 and rtsp://h/@y"),
            "[in] rtsp://***@h/x: failed; tcp://***@1.2.3.4:5?timeout=1 and rtsp://h/@y"
        );
    }

    proptest! {
        #[test]
        fn a_redacted_text_never_shows_the_password(
            password in "[!-~ü]{4,20}", before in "[a-z ]{0,20}", after in "[a-z ]{0,20}"
        ) {
            prop_assume!(!MASK.contains(&password));
            let credentials = credentials("admin", &password);
            let address = Address::parse("rtsp://10.0.0.8/x").expect("valid").with(Some(&credentials)).expect("fits");
            for text in [format!("{before}{password}{after}"), format!("{before} {address} {after}")] {
                let clean = credentials.redact(&text);
                prop_assert!(!clean.contains(&password), "{clean}");
                prop_assert!(!clean.contains(&percent_encode(&password)), "{clean}");
            }
        }

        #[test]
        fn redaction_never_panics(text in "\\PC*") {
            let _ = redact_userinfo(&text);
        }
    }
}
