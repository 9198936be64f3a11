//! The SQL splitter: one session a client, reads to the replica, everything else to the source.
//!
//! Read first: facts/sql.md sections 3 and 5; `session` for the life of a query.

pub mod admin;
mod aim;
pub mod atlas;
pub mod auth;
pub mod command;
pub mod digest;
pub mod gate;
pub mod handshake;
pub mod intake;
pub mod kill;
pub mod lexer;
pub mod login;
pub mod number;
pub mod own_writes;
pub mod packet;
pub mod pool;
pub mod preamble;
pub mod relay;
pub mod result;
pub mod route;
pub mod saving;
pub mod session;
pub mod setting;
pub mod show;
pub mod statement;
pub mod status;
pub mod table;
pub mod users;
pub mod words;

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::units::{self, Secret};

pub use status::Status;

/// Section `[sql]`: the splitter that replaces Atlas.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where clients connect (Atlas: proxy-address).
    pub listen: Vec<SocketAddr>,
    /// A path where programs of this host connect too, cheaper than by an address.
    pub listen_socket: Option<String>,
    /// The path where this host's own database listens: used instead of its address. The users
    /// must then exist there for localhost.
    pub server_socket: Option<String>,
    /// Certificate chain, a file in PEM form, under which clients are offered TLS.
    pub certificate: Option<String>,
    /// The private key of `certificate`, a file in PEM form.
    pub key: Option<String>,
    /// Certificates in PEM form: a client in TLS must have one that one of these has signed.
    pub client_ca: Option<String>,
    /// Refuse clients that do not come in TLS, unix sockets apart.
    pub require_tls: bool,
    /// TLS of connections to the databases, `server_socket` apart: "off"; "prefer", where the
    /// server offers it; "require", whoever the server is; "verify", and its certificate is one of
    /// `server_ca` or signed by one.
    pub server_tls: ServerTls,
    /// With "verify": certificates in PEM form of which one has signed the server's, or is it.
    pub server_ca: Option<String>,
    /// With "verify": the name that the server's certificate must have; none: any (VERIFY_CA).
    pub server_name: Option<String>,
    /// The users that may log in (Atlas: pwds). The same name and password must exist on both
    /// databases.
    #[serde(rename = "user")]
    pub users: Vec<User>,
    /// How long a statement waits for a source before it gets error 1205.
    #[serde(with = "units::duration")]
    pub hold_limit: Duration,
    /// A session that wrote reads from the source until the replica has got what it wrote.
    pub read_own_writes: bool,
    /// Replication lag above which a replica gets no reads.
    #[serde(with = "units::duration")]
    pub lag_limit: Duration,
    /// Time limit of a connection to a database, log-in included.
    #[serde(with = "units::duration")]
    pub connect_limit: Duration,
    /// An idle client is closed after this (Atlas: wait-timeout).
    #[serde(with = "units::duration")]
    pub idle_limit: Duration,
    /// Client sessions at once; one more gets error 1040.
    pub sessions_max: usize,
    /// Addresses and networks that may connect; none written: all (Atlas: client-ips).
    pub clients: Vec<gate::Network>,
    /// Refuse DELETE and UPDATE without WHERE or LIMIT, and SLEEP, as Atlas does.
    pub blocklist: bool,
    /// Relay LOAD DATA LOCAL: the server then asks the client for the file that it names.
    pub local_infile: bool,
    /// Statements that take this long are logged; none when not written.
    #[serde(with = "units::some_duration")]
    pub slow_limit: Option<Duration>,
    /// Sum up statements for SHOW DIGESTS.
    pub digests: bool,
    /// Where the admin port listens; nowhere when empty (Atlas: admin-address).
    pub admin_listen: Vec<SocketAddr>,
    /// Who may log in at the admin port (Atlas: admin-username).
    pub admin_user: String,
    /// Password of `admin_user`, needed with `admin_listen` (Atlas: admin-password).
    pub admin_password: Option<Secret>,
}

/// How much TLS the connections to the databases must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ServerTls {
    Off,
    /// Where the server offers it.
    Prefer,
    /// Whoever the server is: nobody can listen, somebody could still stand between.
    Require,
    /// And the server's certificate must be one of `server_ca` or signed by one.
    Verify,
}

impl Config {
    /// What can be said of the section without a look at any file.
    pub fn check(&self) -> Result<(), String> {
        let refuse = |text: &str| Err(text.to_owned());
        for (place, user) in self.users.iter().enumerate() {
            if self.users.iter().skip(place + 1).any(|it| it.name == user.name) {
                return Err(format!("[[sql.user]]: {:?} stands there twice", user.name));
            }
        }
        if self.users.is_empty() {
            return refuse("no [[sql.user]]: nobody could log in to the splitter");
        }
        if !self.admin_listen.is_empty() && self.admin_password.is_none() {
            return refuse("sql.admin_listen needs sql.admin_password: anybody could hold writes");
        }
        match (&self.certificate, &self.key) {
            (Some(_), None) => return refuse("sql.certificate needs sql.key, its private key"),
            (None, Some(_)) => return refuse("sql.key needs sql.certificate, which it belongs to"),
            (None, None) if self.require_tls => {
                return refuse(
                    "sql.require_tls needs sql.certificate and sql.key, or no client gets in",
                );
            }
            (None, None) if self.client_ca.is_some() => {
                return refuse(
                    "sql.client_ca needs sql.certificate and sql.key: without them no \
                               client is offered TLS",
                );
            }
            (Some(_), Some(_)) | (None, None) => {}
        }
        let is_verified = self.server_tls == ServerTls::Verify;
        if is_verified && self.server_ca.is_none() {
            return refuse(
                "sql.server_tls = \"verify\" needs sql.server_ca, a file of certificates to \
                 verify against (MySQL: ca.pem in the data directory)",
            );
        }
        if !is_verified && (self.server_ca.is_some() || self.server_name.is_some()) {
            return refuse(
                "sql.server_ca and sql.server_name are used by server_tls = \"verify\" only: \
                 write that, or remove them",
            );
        }
        Ok(())
    }
}

/// One user of the splitter: `name`, and `password` or Atlas's form of it, `password_encrypted`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "WrittenUser")]
pub struct User {
    pub name: String,
    pub password: Secret,
}

/// Section `[[sql.user]]`: a user of the splitter, who needs either form of the password. The same
/// name and password must exist on both databases, without SUPER: such a user could write to a
/// fenced one.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenUser {
    /// What the program logs in as.
    name: String,
    /// The password in the clear.
    password: Option<Secret>,
    /// The password as Atlas's pwds has it, and as `tandem encrypt` makes it.
    password_encrypted: Option<String>,
}

impl TryFrom<WrittenUser> for User {
    type Error = String;

    fn try_from(written: WrittenUser) -> Result<Self, String> {
        let WrittenUser { name, password, password_encrypted } = written;
        let password = match (password, password_encrypted) {
            (Some(password), None) => password,
            (None, Some(text)) => {
                let why = |error| format!("user {name:?}: password_encrypted is {error}");
                Secret::Text(atlas::decrypt(&text).map_err(why)?)
            }
            (Some(_), Some(_)) | (None, None) => {
                return Err(format!(
                    "user {name:?}: write password = \"...\" or password_encrypted = \"...\""
                ));
            }
        };
        Ok(Self { name, password })
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 1234))],
            listen_socket: None,
            server_socket: None,
            certificate: None,
            key: None,
            client_ca: None,
            require_tls: false,
            server_tls: ServerTls::Off,
            server_ca: None,
            server_name: None,
            users: Vec::new(),
            hold_limit: Duration::from_secs(10),
            read_own_writes: true,
            lag_limit: Duration::from_secs(5),
            connect_limit: Duration::from_secs(2),
            idle_limit: Duration::from_secs(8 * 3600),
            sessions_max: 1024,
            clients: Vec::new(),
            blocklist: false,
            local_infile: false,
            slow_limit: None,
            digests: true,
            admin_listen: Vec::new(),
            admin_user: "admin".to_owned(),
            admin_password: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users(text: &str) -> Result<Vec<User>, String> {
        toml::from_str::<Config>(text).map(|it| it.users).map_err(|error| error.to_string())
    }

    #[test]
    fn a_password_is_clear_or_as_atlas_writes_it() {
        let text = "[[user]]\nname = \"app\"\npassword_encrypted = \"KsWNCR6qyNk=\"";
        assert_eq!(users(text).expect("parses")[0].password.reveal(), "atlas");
        let error = users(&format!("{text}\npassword = \"x\"")).expect_err("both");
        assert!(error.contains("write password"), "{error}");
        let error = users("[[user]]\nname = \"app\"").expect_err("neither");
        assert!(error.contains("write password"), "{error}");
        let error = users(&text.replace("KsW", "KsX")).expect_err("wrong");
        assert!(error.contains("tandem encrypt"), "{error}");
        assert!(users(&format!("{text}\npasswort = \"x\"")).is_err());
    }
}
