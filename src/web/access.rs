//! Access: which clients and which users a location is open to, and how much they may send.
//!
//! In: `[[web.location]]`, a path, a client, its Authorization header; files of users as text.
//! Out: leave, 401, 403, or 503 where passwords are tried too fast. Must not: read files.
//! Read first: nginx ngx_http_access_module, ngx_http_auth_basic_module; RFC 7617; crypt(5).

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::crypt::Hash;
use crate::limits;
use crate::time::Instant;
use crate::units::{ByteCount, IpCidr};

use super::site::is_below;

/// Section `[[web.location]]`: what holds at and below a path (nginx: location). The longest prefix
/// wins, alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Location {
    /// "/admin" or "/admin/": this path and all below it.
    pub prefix: String,
    /// Networks that are let in; nobody else is (nginx: allow, and deny all). Absent: everybody.
    pub allow: Option<Vec<IpCidr>>,
    /// The realm that a browser shows where it asks for name and password (nginx: auth_basic).
    pub auth_basic: Option<String>,
    /// Lines of name, colon, hash of crypt(5), as `openssl passwd -6` makes it (nginx:
    /// auth_basic_user_file).
    pub auth_basic_user_file: Option<String>,
    /// Largest request body here; that of `[web]` if absent.
    pub client_max_body_size: Option<ByteCount>,
}

impl Location {
    /// What is wrong with it, and what to write instead.
    pub(super) fn check(&self) -> Result<(), String> {
        let prefix = &self.prefix;
        if !prefix.starts_with('/') {
            return Err(format!("web.location {prefix:?}: write a path that begins with a slash"));
        }
        if self.auth_basic.is_some() != self.auth_basic_user_file.is_some() {
            return Err(format!(
                "web.location {prefix:?}: write both auth_basic and auth_basic_user_file"
            ));
        }
        let is_text = |byte: u8| (b' '..=b'~').contains(&byte) && byte != b'"' && byte != b'\\';
        if !self.auth_basic.as_deref().unwrap_or_default().bytes().all(is_text) {
            return Err(format!(
                "web.location {prefix:?}: auth_basic: write printable ASCII without quotes"
            ));
        }
        if self.auth_basic_user_file.as_ref().is_some_and(|path| !path.starts_with('/')) {
            return Err(format!(
                "web.location {prefix:?}: auth_basic_user_file: write an absolute path"
            ));
        }
        Ok(())
    }

    /// What this client gets here. `authorization`: the header's value.
    #[must_use]
    pub fn judge(
        &self,
        now: Instant,
        client: IpAddr,
        authorization: Option<&[u8]>,
        users: &UserFiles,
    ) -> Leave {
        let is_member = |networks: &Vec<IpCidr>| networks.iter().any(|it| it.contains(client));
        if !self.allow.as_ref().is_none_or(is_member) {
            return Leave::Forbidden;
        }
        let (Some(realm), Some(path)) = (&self.auth_basic, &self.auth_basic_user_file) else {
            return Leave::Granted(Vec::new());
        };
        let refused = || Leave::Unauthorized(realm.clone());
        let Some((name, password)) = authorization.and_then(credentials) else { return refused() };
        match users.verify(now, path, &name, &password) {
            Some(true) => Leave::Granted(name),
            Some(false) => refused(),
            None => Leave::Busy,
        }
    }
}

/// The location of a path: that with the longest prefix.
pub(super) fn find<'a>(locations: &'a [Location], path: &[u8]) -> Option<&'a Location> {
    // Of two that are as long the first counts.
    let above = locations.iter().rev().filter(|location| is_below(path, &location.prefix));
    above.max_by_key(|location| location.prefix.len())
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leave {
    /// To the user of this name; empty where none is asked for.
    Granted(Vec<u8>),
    Forbidden,
    /// The realm to ask for.
    Unauthorized(String),
    /// Passwords are tried faster than they can be checked.
    Busy,
}

/// RFC 7617, section 2: name and password.
fn credentials(value: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let (scheme, encoded) = value.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let decoded = STANDARD.decode(encoded.trim_ascii()).ok()?;
    let colon = decoded.iter().position(|&byte| byte == b':')?;
    let (name, password) = decoded.split_at(colon);
    Some((name.to_vec(), password.get(1..)?.to_vec()))
}

/// The files of users, by path, as they were read last.
#[derive(Debug, Default)]
pub struct UserFiles {
    files: BTreeMap<String, BTreeMap<Vec<u8>, Hash>>,
    /// SHA-256 of credentials that were good: browsers send them with every request.
    known: RefCell<heapless::Deque<[u8; 32], KNOWN_MAX>>,
    /// When the current second of hashing began, and the hashes in it.
    hashed: Cell<(Instant, u32)>,
}

/// Credentials that are remembered.
const KNOWN_MAX: usize = 64;

impl UserFiles {
    /// Takes the text of a file.
    pub fn add(&mut self, path: &str, text: &str) -> Result<(), String> {
        let mut users = BTreeMap::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let parsed = line
                .split_once(':')
                .and_then(|(name, rest)| Some((name, Hash::parse(rest.split(':').next()?)?)));
            let Some((name, hash)) = parsed else {
                return Err(format!(
                    "{path}: line {}: write name, colon and what `openssl passwd -6` prints, of at \
                     most {} rounds",
                    number + 1,
                    limits::WEB_PASSWORD_ROUNDS_MAX
                ));
            };
            users.insert(name.as_bytes().to_vec(), hash);
        }
        self.files.insert(path.to_owned(), users);
        Ok(())
    }

    /// Whether the file has this user with this password; `None` where too many were tried within
    /// a second: a hash takes milliseconds of the one loop.
    fn verify(&self, now: Instant, path: &str, name: &[u8], password: &[u8]) -> Option<bool> {
        let Some(hash) = self.files.get(path).and_then(|users| users.get(name)) else {
            return Some(false);
        };
        let mut digest = Sha256::new();
        for part in [path.as_bytes(), name, password] {
            digest.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            digest.update(part);
        }
        let digest: [u8; 32] = digest.finalize().into();
        if self.known.borrow().iter().any(|known| *known == digest) {
            return Some(true);
        }
        let (since, count) = self.hashed.get();
        let is_new = now.since(since) >= limits::WEB_PASSWORD_INTERVAL;
        let (since, count) = if is_new { (now, 0) } else { (since, count) };
        if count >= limits::WEB_PASSWORDS_PER_INTERVAL {
            return None;
        }
        self.hashed.set((since, count + 1));
        let is_good = hash.fits(password);
        if is_good {
            let mut known = self.known.borrow_mut();
            if known.is_full() {
                known.pop_front();
            }
            let _has_room = known.push_back(digest);
        }
        Some(is_good)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `openssl passwd -6 -salt saltstring secret`, and the same with -5.
    const FILE: &str = "# users\n\
        ann:$6$saltstring$AIsRs/Ee56G/tC8MEHhvReZTfx8u3rXXMl6eYrjCG9ibix19DxoMBLogd\
        TET5Ukw9Sf7eZTITsuk0Ry5qulYz.\n\
        bob:$5$saltstring$C3o4O1TC6aRHF4FI.QSZMXtHbaj2gSXr4sUc/3NcUi.:a comment\n";

    fn users() -> UserFiles {
        let mut users = UserFiles::default();
        users.add("/users", FILE).expect("valid");
        users
    }

    fn location(text: &str) -> Location {
        let location: Location = toml::from_str(text).expect("parses");
        location.check().expect("valid");
        location
    }

    fn basic(words: &str) -> Vec<u8> {
        format!("Basic {}", STANDARD.encode(words)).into_bytes()
    }

    #[test]
    fn names_and_passwords_are_asked_for_and_checked() {
        let guarded =
            location("prefix = \"/a\"\nauth_basic = \"here\"\nauth_basic_user_file = \"/users\"\n");
        let users = users();
        let client = IpAddr::from([192, 0, 2, 1]);
        let judge = |value: Option<&[u8]>| guarded.judge(Instant::ZERO, client, value, &users);
        let refused = Leave::Unauthorized("here".into());
        assert_eq!(judge(None), refused);
        for wrong in ["ann:wrong", "ann", "eve:secret", ":secret", "ann:"] {
            assert_eq!(judge(Some(&basic(wrong))), refused, "{wrong}");
        }
        for bad in [&b"Basic"[..], b"Basic !!!", b"Bearer x", b""] {
            assert_eq!(judge(Some(bad)), refused);
        }
        for (words, name) in [("ann:secret", "ann"), ("bob:secret", "bob")] {
            assert_eq!(judge(Some(&basic(words))), Leave::Granted(name.into()), "{words}");
        }
        let lower = [b"basic ", basic("ann:secret").get(6..).unwrap_or_default()].concat();
        assert_eq!(judge(Some(&lower)), Leave::Granted("ann".into()));
    }

    #[test]
    fn guessing_is_bounded_and_does_not_shut_out_who_is_known() {
        let guarded =
            location("prefix = \"/a\"\nauth_basic = \"here\"\nauth_basic_user_file = \"/users\"\n");
        let users = users();
        let client = IpAddr::from([192, 0, 2, 1]);
        let judge = |nanos, words: &str| {
            guarded.judge(Instant::from_nanos(nanos), client, Some(&basic(words)), &users)
        };
        assert_eq!(judge(0, "ann:secret"), Leave::Granted("ann".into()));
        for guess in 1..limits::WEB_PASSWORDS_PER_INTERVAL {
            assert_ne!(judge(1, &format!("ann:{guess}")), Leave::Busy);
        }
        assert_eq!(judge(2, "ann:more"), Leave::Busy);
        assert_eq!(judge(2, "eve:more"), Leave::Unauthorized("here".into()), "costs nothing");
        assert_eq!(judge(2, "ann:secret"), Leave::Granted("ann".into()));
        assert_eq!(judge(1_000_000_000, "ann:more"), Leave::Unauthorized("here".into()));
    }

    #[test]
    fn networks_are_let_in_and_the_longest_prefix_wins() {
        let locations = [
            location("prefix = \"/\"\nclient_max_body_size = \"1MiB\"\n"),
            location("prefix = \"/a/\"\nallow = [\"192.168.3.0/24\", \"2001:db8::/32\"]\n"),
            location("prefix = \"/a/open\"\n"),
        ];
        let users = UserFiles::default();
        let leave = |path: &str, client: &str| {
            let found = find(&locations, path.as_bytes()).expect("the root is below all");
            found.judge(Instant::ZERO, client.parse().expect("an address"), None, &users)
        };
        let granted = Leave::Granted(Vec::new());
        for (path, client, expected) in [
            ("/a/x", "192.168.3.9", &granted),
            ("/a/x", "2001:db8::9", &granted),
            ("/a", "192.168.4.9", &Leave::Forbidden),
            ("/a/x", "::ffff:192.168.3.9", &granted),
            ("/a/x", "2001:db9::9", &Leave::Forbidden),
            ("/a/openly", "192.168.4.9", &Leave::Forbidden),
            ("/a/open/x", "192.168.4.9", &granted),
            ("/ab", "192.168.4.9", &granted),
        ] {
            assert_eq!(&leave(path, client), expected, "{path} {client}");
        }
    }

    #[test]
    fn mistakes_are_told_with_the_line() {
        let mut users = UserFiles::default();
        for wrong in ["ann", "ann:plain", "ann:$apr1$x$y", "ann:$6$rounds=900000$s$x"] {
            let why = users.add("/users", &format!("\n{wrong}\n")).expect_err(wrong);
            assert!(why.contains("/users: line 2") && why.contains("openssl passwd -6"), "{why}");
        }
        for (text, what) in [
            ("prefix = \"a\"\n", "slash"),
            ("prefix = \"/\"\nauth_basic = \"x\"\n", "both"),
            ("prefix = \"/\"\nauth_basic = \"x\\\"\"\nauth_basic_user_file = \"/u\"\n", "quotes"),
            ("prefix = \"/\"\nauth_basic = \"x\"\nauth_basic_user_file = \"u\"\n", "absolute"),
        ] {
            let location: Location = toml::from_str(text).expect("parses");
            let why = location.check().expect_err(text);
            assert!(why.contains(what), "{why}");
        }
    }
}
