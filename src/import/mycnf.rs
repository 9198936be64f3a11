//! my.cnf: what of the database's own configuration the pair needs to know.
//!
//! In: a my.cnf or a file of its conf.d. Out: the port, accounts, addresses; warnings where
//! replication would not work. Must not: take over what the database goes on reading itself.
//! Read first: facts/repl.md; MySQL: "Replication with GTIDs".

use super::draft::{Draft, Origin, Whose, quoted};
use super::ini::{self, Setting};

pub(super) fn read(draft: &mut Draft, at: &Origin, text: &str) {
    let mut is_server = false;
    let mut gtid = None;
    for setting in ini::settings(draft, at, text) {
        match setting.section.as_str() {
            "mysqld" | "server" | "mariadb" | "mariadbd" | "client-server" => {
                is_server |= setting.key == "server-id";
                if setting.key == "gtid-mode" {
                    gtid = Some(setting.text().eq_ignore_ascii_case("on"));
                }
                server(draft, &setting);
            }
            "client" | "mysql" | "mysqladmin" => client(draft, &setting),
            _ => draft.left(
                &setting.origin,
                &format!("[{}] {}", setting.section, setting.shown()),
                "of another program",
            ),
        }
    }
    if is_server && gtid.is_none() {
        draft.warn(
            at,
            "gtid-mode",
            "is not there: MySQL needs gtid_mode=ON and enforce_gtid_consistency=ON (MariaDB has \
             GTIDs always)",
        );
    }
}

fn server(draft: &mut Draft, setting: &Setting) {
    let (at, text) = (&setting.origin, setting.text());
    let is_on = matches!(text.to_ascii_lowercase().as_str(), "on" | "1" | "true" | "")
        || setting.value.is_none();
    match setting.key.as_str() {
        "port" => match text.parse::<u16>() {
            Ok(port) => draft.set("repl", "port", port.to_string(), at),
            Err(_) => draft.error(at, "port with a number, 1 to 65535"),
        },
        "bind-address" | "report-host" => {
            if matches!(text, "127.0.0.1" | "localhost" | "::1") {
                let why =
                    "the other host cannot reach the database: bind to the inside address too";
                draft.warn(at, &setting.shown(), why);
            }
            draft.see(Whose::Own(at.host), text, None, at);
        }
        "gtid-mode" if !is_on => draft.warn(at, &setting.shown(), "tandem needs gtid_mode=ON"),
        "log-slave-updates" | "log-replica-updates" | "log-bin" if !is_on && text == "0" => {
            draft.warn(
                at,
                &setting.shown(),
                "either database may become the source: it has to be on",
            );
        }
        "binlog-format" if !text.eq_ignore_ascii_case("row") => {
            draft.warn(at, &setting.shown(), "ROW is what replicates everything alike");
        }
        "skip-networking" if is_on => {
            draft.warn(at, &setting.shown(), "the other host cannot reach the database");
        }
        key if key.starts_with("replicate-")
            || key.starts_with("binlog-do")
            || key.starts_with("binlog-ignore") =>
        {
            let why = "the databases of a pair are alike: with filters a promotion loses data";
            draft.warn(at, &setting.shown(), why);
        }
        key if key.starts_with("auto-increment") => draft.warn(
            at,
            &setting.shown(),
            "of two sources; in a pair one database takes writes, and it may go",
        ),
        "master-host" | "master-user" | "master-password" => draft.left(
            at,
            &setting.shown(),
            "replication is set up by tandem (and MySQL 5.5 and later refuse it)",
        ),
        "read-only" | "super-read-only" => draft.left(
            at,
            &setting.shown(),
            "tandem opens and closes the databases; =1 in the file is the safe way to start",
        ),
        _ => {
            draft.left(at, &setting.shown(), "stays in my.cnf, which the database goes on reading")
        }
    }
}

/// Who administers the database, where a file says so.
fn client(draft: &mut Draft, setting: &Setting) {
    let (at, text) = (&setting.origin, setting.text());
    match (setting.section.as_str(), setting.key.as_str()) {
        ("client", "user") => draft.set("repl", "user", quoted(text), at),
        ("client", "password") if !text.is_empty() => {
            draft.set("repl", "password", quoted(text), at);
        }
        ("client", "socket") => draft.left(
            at,
            &setting.shown(),
            "the database is asked at its inside address; sql.server_socket is for programs",
        ),
        (_, _) => draft.left(
            at,
            &format!("[{}] {}", setting.section, setting.shown()),
            "of the command-line client",
        ),
    }
}
