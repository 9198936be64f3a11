//! Connection strings of mysql-utilities: `user[:password]@host[:port][:socket]`, `my.cnf[group]`.
//!
//! In: option values, my.cnf files, the environment, a terminal. Out: `Login`. Must not: connect.
//! Read first: facts/repl.md section 1 "Common"; option files in the MySQL manual.
//! Differs: login paths (an obfuscated file of MySQL's own tools) are refused. A password need not
//! be on the command line: an option file, TANDEM_MYSQL_PASSWORD, or --prompt.

use std::fmt;
use std::fs;
use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::path::Path;

/// How to reach a server, and as whom.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Login {
    pub(super) user: String,
    pub(super) password: String,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) socket: Option<String>,
}

impl Login {
    /// As mysql-utilities name a server in their output.
    pub(super) fn name(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Login({} at {}, {:?})", self.user, self.name(), self.socket)
    }
}

/// The password of those who have none in their string.
#[derive(Clone, Default)]
pub(super) struct Passwords {
    pub(super) server: Option<String>,
    pub(super) replication: Option<String>,
}

impl Passwords {
    /// From the environment, or asked for.
    pub(super) fn gather(asks: bool) -> Result<Self, String> {
        let server = if asks {
            Some(prompt("Enter password: ")?)
        } else {
            std::env::var("TANDEM_MYSQL_PASSWORD").ok()
        };
        Ok(Self { server, replication: std::env::var("TANDEM_RPL_PASSWORD").ok() })
    }
}

/// `root:pw@host:3306:/socket`, or a path of an option file.
pub(super) fn parse(text: &str, passwords: &Passwords) -> Result<Login, String> {
    if let Some((path, group)) = config_path(text) {
        return from_file(path, group, passwords);
    }
    let Some((account, place)) = text.rsplit_once('@') else {
        let why = "login paths (mysql_config_editor) are not read: write user:password@host:port, \
                   or the path of an option file, as in /root/.my.cnf[client]";
        return Err(format!("cannot parse \"{text}\": {why}"));
    };
    let (user, password) = account_of(account);
    if user.is_empty() {
        return Err(format!("cannot parse \"{place}\": a user is missing before the @"));
    }
    let (host, port, socket) = place_of(place)?;
    let password = password.or_else(|| passwords.server.clone()).unwrap_or_default();
    Ok(Login { user, password, host, port, socket })
}

/// `user[:password]`; what is in quotes may contain a colon.
pub(super) fn account_of(text: &str) -> (String, Option<String>) {
    let (user, rest) = match quoted(text) {
        Some((user, rest)) => (user.to_owned(), rest.strip_prefix(':')),
        None => match text.split_once(':') {
            Some((user, rest)) => (user.to_owned(), Some(rest)),
            None => (text.to_owned(), None),
        },
    };
    let password = rest.map(|rest| match quoted(rest) {
        Some((password, "")) => password.to_owned(),
        _ => rest.to_owned(),
    });
    (user, password)
}

/// What stands between quotes at the beginning, and what follows them.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    text[1..].split_once(quote)
}

fn place_of(text: &str) -> Result<(String, u16, Option<String>), String> {
    let wrong = || format!("cannot parse \"{text}\": write host, host:port or host:port:socket");
    let (host, rest) = match text.strip_prefix('[') {
        Some(bracketed) => bracketed.split_once(']').ok_or_else(wrong)?,
        None => {
            let (host, rest) = quoted(text)
                .unwrap_or_else(|| text.find(':').map_or((text, ""), |index| text.split_at(index)));
            (host, rest)
        }
    };
    if host.is_empty() {
        return Err(wrong());
    }
    let Some(rest) = rest.strip_prefix(':') else {
        return if rest.is_empty() { Ok((host.to_owned(), 3306, None)) } else { Err(wrong()) };
    };
    let (port, socket) = match rest.split_once(':') {
        Some((port, socket)) => (port, Some(socket.to_owned())),
        None if rest.starts_with('/') => ("", Some(rest.to_owned())),
        None => (rest, None),
    };
    let port = if port.is_empty() { Ok(3306) } else { port.parse().map_err(|_| wrong()) };
    Ok((host.to_owned(), port?, socket))
}

/// Whether a value of an option carries a password that other users of the host can read.
pub(super) fn shows_password(value: &str) -> bool {
    value.split(',').any(|part| match part.rsplit_once('@') {
        Some((account, _)) => config_path(part).is_none() && account_of(account).1.is_some(),
        None => false,
    })
}

/// `/etc/my.cnf[client]`; the group may be left out where the path cannot be anything else.
fn config_path(text: &str) -> Option<(&str, &str)> {
    let (path, group) = match text.strip_suffix(']').and_then(|rest| rest.rsplit_once('[')) {
        Some((path, group)) if !path.contains('@') || path.starts_with('/') => (path, group),
        _ => (text, "client"),
    };
    let is_path = path.starts_with(['/', '.', '~']) || path.ends_with(".cnf");
    is_path.then_some((path, group))
}

fn from_file(path: &str, group: &str, passwords: &Passwords) -> Result<Login, String> {
    let home = std::env::var("HOME").unwrap_or_default();
    let path = path.strip_prefix('~').map_or_else(|| path.to_owned(), |rest| home + rest);
    let text = fs::read_to_string(Path::new(&path)).map_err(|error| format!("{path}: {error}"))?;
    let options = group_of(&text, group)
        .ok_or_else(|| format!("{path}: there is no group [{group}] in it"))?;
    let value = |name: &str| {
        options.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.clone())
    };
    let port = match value("port") {
        Some(text) => text.parse().map_err(|_| format!("{path}: {text:?} is no port"))?,
        None => 3306,
    };
    let user = value("user").ok_or_else(|| format!("{path}: [{group}] names no user"))?;
    Ok(Login {
        user,
        password: value("password").or_else(|| passwords.server.clone()).unwrap_or_default(),
        host: value("host").unwrap_or_else(|| "localhost".to_owned()),
        port,
        socket: value("socket"),
    })
}

/// `None` when the group does not occur.
fn group_of(text: &str, group: &str) -> Option<Vec<(String, String)>> {
    let (mut is_inside, mut options) = (false, None);
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            is_inside = name.trim() == group;
            if is_inside {
                options.get_or_insert_with(Vec::new);
            }
        } else if is_inside && !line.is_empty() && !line.starts_with(['#', ';', '!']) {
            let (key, value) = line.split_once('=').unwrap_or((line, ""));
            let value = value.trim();
            let value = match quoted(value) {
                Some((inside, rest)) if rest.trim().is_empty() || rest.trim().starts_with('#') => {
                    inside
                }
                _ => value.split(" #").next().unwrap_or(value).trim(),
            };
            let key = key.trim().replace('_', "-");
            options.get_or_insert_with(Vec::new).push((key, value.to_owned()));
        }
    }
    options
}

/// Reads one line that is not shown while it is typed.
pub(super) fn prompt(what: &str) -> Result<String, String> {
    let input = std::io::stdin();
    eprint!("{what}");
    let _shown_or_not = std::io::stderr().flush();
    let before = if input.is_terminal() { hide_typing(&input) } else { None };
    let mut line = String::new();
    let read = input.lock().read_line(&mut line);
    if let Some(before) = before {
        let now = rustix::termios::OptionalActions::Now;
        let _as_it_was = rustix::termios::tcsetattr(&input, now, &before);
        eprintln!();
    }
    read.map_err(|error| format!("cannot read the password: {error}"))?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// What the terminal was set to before; `None` where it cannot be told.
fn hide_typing(input: &std::io::Stdin) -> Option<rustix::termios::Termios> {
    use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
    let before = tcgetattr(input).ok()?;
    let mut hidden = before.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    tcsetattr(input, OptionalActions::Now, &hidden).ok()?;
    Some(before)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(text: &str) -> Result<(String, String, String, u16, Option<String>), String> {
        parse(text, &Passwords { server: Some("env".to_owned()), replication: None })
            .map(|l| (l.user, l.password, l.host, l.port, l.socket))
    }

    fn own(
        parts: (&str, &str, &str, u16, Option<&str>),
    ) -> (String, String, String, u16, Option<String>) {
        let (user, password, host, port, socket) = parts;
        (user.into(), password.into(), host.into(), port, socket.map(str::to_owned))
    }

    #[test]
    fn a_connection_string_is_split_at_its_last_at() {
        for (text, expected) in [
            ("root:pw@server1:3306", ("root", "pw", "server1", 3306, None)),
            ("root@server1", ("root", "env", "server1", 3306, None)),
            ("root:@server1", ("root", "", "server1", 3306, None)),
            ("rpl:a@b:c%@10.0.0.2:3307", ("rpl", "a@b:c%", "10.0.0.2", 3307, None)),
            ("'a:b':'c:d'@host", ("a:b", "c:d", "host", 3306, None)),
            ("u:p'w@h:1", ("u", "p'w", "h", 1, None)),
            ("root:pw@localhost:3306:/run/s", ("root", "pw", "localhost", 3306, Some("/run/s"))),
            ("root:pw@localhost:/run/s", ("root", "pw", "localhost", 3306, Some("/run/s"))),
            ("u:p@[::1]:3307", ("u", "p", "::1", 3307, None)),
        ] {
            assert_eq!(login(text), Ok(own(expected)), "{text}");
        }
    }

    #[test]
    fn what_is_no_connection_is_refused_without_its_password() {
        for text in ["mypath", "mypath:3306", "@host", "u:secret@", "u:secret@h:x", "u:p@[::1"] {
            let why = login(text).expect_err(text);
            assert!(!why.contains("secret"), "{why}");
        }
        assert!(login("mypath").expect_err("a login path").contains("login paths"));
        assert!(login("/none/my.cnf[client]").expect_err("no file").contains("/none/my.cnf: "));
    }

    #[test]
    fn an_option_file_names_the_account() {
        let text = "[mysqld]\nuser=mysql\n[client]\n# a comment\nuser = root\npassword=\"p#w\"\n\
                    host=h # the other one\nport=3310\n\n[rpl]\nuser=rpl\n";
        let client = group_of(text, "client").expect("it is there");
        let pairs: Vec<_> = client.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(pairs, [("user", "root"), ("password", "p#w"), ("host", "h"), ("port", "3310")]);
        assert_eq!(group_of(text, "none"), None);
        assert_eq!(config_path("/root/.my.cnf[rpl]"), Some(("/root/.my.cnf", "rpl")));
        assert_eq!(config_path("~/.my.cnf"), Some(("~/.my.cnf", "client")));
        assert_eq!(config_path("u:p@[::1]"), None);
    }

    #[test]
    fn a_password_on_the_command_line_is_noticed() {
        assert!(shows_password("root:pw@server1:3306"));
        assert!(shows_password("root@a,root:pw@b"));
        assert!(!shows_password("root@server1:3306"));
        assert!(!shows_password("/root/.my.cnf[client]"));
        assert!(!shows_password("grid"));
    }
}
