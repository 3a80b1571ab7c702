//! Who may do what at the storage agent: two tokens, compared in constant time.

use axum::http::{HeaderMap, header::AUTHORIZATION};

use crate::domain::token;

/// What a request may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Right {
    /// Put files in, and see how the node is doing. Capture agents have this one: what they wrote they need not read.
    Upload,
    /// All of it. The server's.
    Serve,
}

/// The tokens of the group.
#[derive(Clone)]
pub struct Tokens {
    /// Gives [`Right::Upload`].
    pub upload: String,
    /// Gives [`Right::Serve`].
    pub server: String,
}

impl Tokens {
    /// The right that a request's token gives, if any.
    pub fn right(&self, headers: &HeaderMap) -> Option<Right> {
        let presented = headers.get(AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")?;
        // Both are compared always: which one it was is not told by time either.
        let (server, upload) = (token::matches(presented, &self.server), token::matches(presented, &self.upload));
        match (server, upload) {
            (true, _) => Some(Right::Serve),
            (false, true) => Some(Right::Upload),
            (false, false) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn right(header: Option<&str>) -> Option<Right> {
        let tokens = Tokens { upload: "u".into(), server: "s".into() };
        let mut headers = HeaderMap::new();
        if let Some(header) = header {
            headers.insert(AUTHORIZATION, header.parse().expect("a header"));
        }
        tokens.right(&headers)
    }

    #[test]
    fn tokens_give_their_right_and_nothing_else_does() {
        assert_eq!(right(Some("Bearer u")), Some(Right::Upload));
        assert_eq!(right(Some("Bearer s")), Some(Right::Serve));
        for none in [None, Some(""), Some("Bearer "), Some("Bearer x"), Some("s"), Some("Basic s"), Some("bearer s")] {
            assert_eq!(right(none), None, "{none:?}");
        }
        assert!(Right::Serve > Right::Upload);
    }
}
