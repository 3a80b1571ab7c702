//! Who may come in: one administrator, whose password is a mounted Secret.
//!
//! A browser logs in and gets a cookie; tools send `Authorization: Basic`. Nothing but the page's own files and health is
//! public. Users of their own and what each may see are not here yet: everyone who is in, sees everything.

use std::{net::IpAddr, path::PathBuf};

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use crate::domain::token::{self, MasterKey, Purpose};

mod attempts;
mod cookie;
mod guard;

pub(super) use guard::{guard, login, logout};

use attempts::Attempts;
use cookie::Sessions;

/// Checks credentials, cookies and attempts.
pub struct Access {
    /// Folder with the files `username` and `password`.
    admin: PathBuf,
    master: MasterKey,
    sessions: Sessions,
    attempts: Attempts,
}

/// What became of a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    In,
    Wrong,
    /// Too many wrong ones: not even looked at. Seconds to wait.
    Later(u32),
    /// The Secret cannot be read.
    Unconfigured,
}

struct Admin {
    username: String,
    password: String,
}

impl Access {
    /// The administrator of the mounted Secret in `admin`.
    pub fn new(admin: PathBuf, master: MasterKey) -> Self {
        Self { admin, master, sessions: Sessions::default(), attempts: Attempts::default() }
    }

    /// Read each time: a Secret may be changed while we run, and its files are in memory.
    fn read(&self) -> Option<Admin> {
        let file = |name| std::fs::read_to_string(self.admin.join(name)).ok();
        let trimmed = |text: String| text.trim_end_matches(['\n', '\r']).to_owned();
        let (username, password) = (trimmed(file("username")?), trimmed(file("password")?));
        (!username.is_empty() && !password.is_empty()).then_some(Admin { username, password })
    }

    /// Checks a name and a password from somewhere.
    pub(super) fn check(&self, from: IpAddr, username: &str, password: &str, now: Timestamp) -> Verdict {
        let Some(admin) = self.read() else { return Verdict::Unconfigured };
        if let Some(seconds) = self.attempts.blocked(from, now) {
            return Verdict::Later(seconds);
        }
        // Hashes have one length: the comparison takes the same time whatever is wrong. Both are always compared.
        let same = |a: &str, b: &str| token::matches(&hash(a), &hash(b));
        let (name_fits, password_fits) = (same(username, &admin.username), same(password, &admin.password));
        if name_fits & password_fits {
            self.attempts.succeeded(from);
            Verdict::In
        } else {
            self.attempts.failed(from, now);
            Verdict::Wrong
        }
    }

    /// A new session: the cookie's value.
    pub(super) fn open_session(&self, now: Timestamp) -> Option<String> {
        Some(cookie::open(&self.key(&self.read()?), now))
    }

    /// Is it the cookie of a session that has neither ended nor been closed?
    pub(super) fn knows_session(&self, cookie: &str, now: Timestamp) -> bool {
        self.read().is_some_and(|admin| self.sessions.knows(&self.key(&admin), cookie, now))
    }

    pub(super) fn close_session(&self, cookie: &str, now: Timestamp) {
        self.sessions.close(cookie, now);
    }

    pub(super) fn username(&self) -> String {
        self.read().map(|admin| admin.username).unwrap_or_default()
    }

    /// Depends on the password: changing it ends every session.
    fn key(&self, admin: &Admin) -> String {
        self.master.derive(Purpose::Session, &hash(&admin.password))
    }
}

fn hash(text: &str) -> String {
    data_encoding::HEXLOWER.encode(&Sha256::digest(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn access() -> (tempfile::TempDir, Access) {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("username"), "admin").expect("writes");
        std::fs::write(folder.path().join("password"), "secret\n").expect("writes");
        let access = Access::new(folder.path().to_owned(), MasterKey::new("k"));
        (folder, access)
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_767_322_800 + seconds).expect("in range")
    }

    #[test]
    fn only_the_right_pair_opens() {
        let (_folder, access) = access();
        assert_eq!(access.check(HERE, "admin", "secret", at(0)), Verdict::In);
        for (name, password) in [("admin", "wrong"), ("root", "secret"), ("", ""), ("admin", "")] {
            assert_eq!(access.check(HERE, name, password, at(0)), Verdict::Wrong, "{name}");
        }
    }

    #[test]
    fn guessing_is_slowed_down_for_the_one_who_guesses() {
        let (_folder, access) = access();
        let verdicts: Vec<_> = (0..30).map(|_| access.check(HERE, "admin", "guess", at(0))).collect();
        assert!(matches!(verdicts.last(), Some(Verdict::Later(_))));
        assert!(matches!(access.check(HERE, "admin", "secret", at(0)), Verdict::Later(_)), "no oracle");
        let other = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 7));
        assert_eq!(access.check(other, "admin", "secret", at(0)), Verdict::In);
        assert_eq!(access.check(HERE, "admin", "secret", at(301)), Verdict::In);
    }

    #[test]
    fn a_changed_password_ends_every_session() {
        let (folder, access) = access();
        let cookie = access.open_session(at(0)).expect("a session");
        assert!(access.knows_session(&cookie, at(1)));
        std::fs::write(folder.path().join("password"), "another").expect("writes");
        assert!(!access.knows_session(&cookie, at(1)));
    }

    #[test]
    fn without_a_secret_nobody_comes_in() {
        let access = Access::new("/nonexistent".into(), MasterKey::new("k"));
        assert_eq!(access.check(HERE, "", "", at(0)), Verdict::Unconfigured);
        assert!(access.open_session(at(0)).is_none());
    }
}
