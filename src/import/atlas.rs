//! Atlas: its configuration file becomes `[sql]`.
//!
//! In: a cnf with the section [mysql-proxy]. Out: facts, addresses, notes.
//! Must not: show a password. Read first: facts/sql.md.

use crate::sql::atlas;
use crate::sql::gate::Network;

use super::draft::{Draft, Origin, Whose, quoted};
use super::ini::{self, Setting};

pub(super) fn read(draft: &mut Draft, at: &Origin, text: &str) {
    for setting in ini::settings(draft, at, text) {
        let at = &setting.origin;
        let text = setting.text();
        match setting.key.as_str() {
            "proxy-backend-addresses" => {
                for (address, port) in backends(draft, &setting) {
                    draft.writes_to.extend(address.parse::<std::net::Ipv4Addr>());
                    draft.set("repl", "port", port.to_string(), at);
                }
            }
            "proxy-read-only-backend-addresses" => {
                for (address, port) in backends(draft, &setting) {
                    draft.set("repl", "port", port.to_string(), at);
                    draft.see(Whose::Named(String::new()), &address, None, at);
                }
            }
            "pwds" => users(draft, &setting),
            "proxy-address" => listen(draft, at, "listen", text),
            "admin-address" => listen(draft, at, "admin_listen", text),
            "admin-username" => draft.set("sql", "admin_user", quoted(text), at),
            "admin-password" => draft.set("sql", "admin_password", quoted(text), at),
            "client-ips" => {
                for client in text.split(',').map(str::trim).filter(|it| !it.is_empty()) {
                    match Network::of_atlas(client) {
                        Ok(network) => {
                            draft.add("sql", "clients", quoted(&network.to_string()), at);
                        }
                        Err(why) => draft.error(at, &why),
                    }
                }
            }
            "wait-timeout" => match text.parse::<u32>() {
                Ok(0) | Err(_) => draft.left(at, &setting.shown(), "idle_limit is always there"),
                Ok(seconds) => {
                    draft.set("sql", "idle_limit", quoted(&format!("{seconds}s")), at);
                }
            },
            _ => left(draft, &setting),
        }
    }
}

fn left(draft: &mut Draft, setting: &Setting) {
    let why = match setting.key.as_str() {
        "event-threads" => "tandem has one loop and needs no more",
        "daemon" | "keepalive" | "instance" | "basedir" | "pid-file" | "user"
        | "max-open-files" => "`tandem run` under the init system",
        "plugins" | "plugin-dir" | "admin-lua-script" | "proxy-lua-script" => {
            "there are no plugins"
        }
        "log-level" | "log-path" | "log-file" | "log-use-syslog" => {
            "RUST_LOG and [console] syslog say what is logged"
        }
        "sql-log" | "sql-log-slow" => "sql.slow_limit logs statements that take long",
        "charset" => "each session has the character set that its program asks for",
        "tables" => "tables are not sharded",
        "lvs-ips" => "programs connect to this host's own splitter",
        "min-idle-connections" | "max-connections" => "connections are made when they are needed",
        _ => "tandem does not know it",
    };
    draft.left(&setting.origin, &setting.shown(), why);
}

/// `192.168.3.101:3306@1,192.168.3.102:3306`.
fn backends(draft: &mut Draft, setting: &Setting) -> Vec<(String, u16)> {
    let mut found = Vec::new();
    for backend in setting.text().split(',').map(str::trim).filter(|it| !it.is_empty()) {
        let (place, weight) = backend.split_once('@').unwrap_or((backend, "1"));
        if weight != "1" {
            let what = format!("{} ... @{weight}", setting.key);
            draft.left(&setting.origin, &what, "of two databases one is the source, one reads");
        }
        match place.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?))) {
            Some((host, port)) => found.push((host.to_owned(), port)),
            None => draft.error(&setting.origin, "an address and a port, as in 10.0.0.1:3306"),
        }
    }
    found
}

/// `name:form, name:form`.
fn users(draft: &mut Draft, setting: &Setting) {
    let at = &setting.origin;
    for user in setting.text().split(',').map(str::trim).filter(|it| !it.is_empty()) {
        let Some((name, form)) = user.split_once(':') else {
            draft.error(at, "pwds with NAME:PASSWORD, the password as `encrypt` prints it");
            continue;
        };
        let table = format!("sql.user/{name}");
        if atlas::decrypt(form).is_err() {
            let what = format!("pwds of {name}");
            draft.left(at, &what, "it is not what Atlas's `encrypt` makes: Atlas refuses it too");
            continue;
        }
        draft.set(&table, "name", quoted(name), at);
        draft.set(&table, "password_encrypted", quoted(form), at);
    }
}

/// An address and a port that programs connect to.
pub(super) fn listen(draft: &mut Draft, at: &Origin, key: &'static str, text: &str) {
    let full = match text.strip_prefix('*').or_else(|| text.strip_prefix("localhost")) {
        Some(rest) if text.starts_with('*') => format!("0.0.0.0{rest}"),
        Some(rest) => format!("127.0.0.1{rest}"),
        None if text.starts_with(':') => format!("0.0.0.0{text}"),
        None => text.to_owned(),
    };
    match full.parse::<std::net::SocketAddr>() {
        Ok(place) => draft.add("sql", key, quoted(&place.to_string()), at),
        Err(_) => draft.left(at, text, "an address and a port is needed, as in 127.0.0.1:1234"),
    }
}
