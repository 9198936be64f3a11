//! The admin port, as Atlas has it: a client that speaks MySQL and asks about the splitter itself.
//!
//! In: bytes of a client, a `View` of the splitter. Out: answers, orders. Must not: act itself, or
//! say anything before the one admin user has proved itself.
//! Read first: facts/sql.md 1.2. Differs: a final `;`, any case and spacing, comments and what
//! drivers say at connect are accepted; backends, users and addresses are changed in tandem.toml
//! alone, because both hosts must carry the same text, so ADD, REMOVE and SAVE are refused.

use std::net::SocketAddr;

use crate::limits;
use crate::routes::Routes;
use crate::wire::HostId;

use super::handshake::{Facts, Plugin, Salt};
use super::lexer::{Lexer, Mode, Token};
use super::login::{Door, Entry};
use super::packet::{self, ServerError, status};
use super::table::{Table, Type};
use super::users::Users;
use super::{Config, Status, User, atlas};

/// The splitter at one moment.
#[derive(Debug)]
pub struct View<'a> {
    pub config: &'a Config,
    /// As the control plane gave them.
    pub routes: &'a Routes,
    pub is_offline: [bool; 2],
    pub servers: [SocketAddr; 2],
    pub status: Status,
    pub sessions: Vec<Row>,
}

/// A session, for SHOW SESSIONS.
#[derive(Debug, Clone)]
pub struct Row {
    pub thread: u32,
    pub user: String,
    pub peer: String,
    pub state: &'static str,
}

/// What an operator wants of the splitter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    SetOffline(HostId),
    SetOnline(HostId),
}

/// One client of the admin port.
#[derive(Debug)]
pub struct Desk {
    /// Until the client is in.
    door: Option<Door>,
    inbox: Vec<u8>,
    peer: String,
    is_closed: bool,
}

impl Desk {
    /// Greets a client.
    pub fn new(salt: Salt, thread: u32, peer: String, out: &mut Vec<u8>) -> Self {
        let door = Door::new(salt, Plugin::Native);
        let version = GREETED_VERSION.to_owned();
        let facts = Facts { version, capabilities: 0, collation: 33, plugin: Plugin::Native };
        door.greet(&facts, thread, out);
        Self { door: Some(door), inbox: Vec::new(), peer, is_closed: false }
    }

    #[must_use]
    pub const fn is_closed(&self) -> bool {
        self.is_closed
    }

    #[must_use]
    pub const fn is_at_door(&self) -> bool {
        self.door.is_some()
    }

    /// Takes bytes of the client; returns what it ordered.
    pub fn client_sent(&mut self, bytes: &[u8], view: &View<'_>, out: &mut Vec<u8>) -> Vec<Order> {
        self.inbox.extend_from_slice(bytes);
        let inbox = std::mem::take(&mut self.inbox);
        let mut rest = inbox.as_slice();
        let mut orders = Vec::new();
        while !self.is_closed
            && let Some((header, payload, after)) = packet::split(rest)
        {
            rest = after;
            match &mut self.door {
                Some(door) => {
                    match door.packet(header, payload, &admin(view.config), &self.peer, out) {
                        Entry::Waiting => {}
                        Entry::Admitted(_, sequence) => {
                            packet::ok(out, sequence, status::AUTOCOMMIT);
                            self.door = None;
                        }
                        Entry::Refused => self.is_closed = true,
                    }
                }
                None => self.command(payload, view, &mut orders, out),
            }
        }
        self.is_closed |= rest.len() > limits::SQL_LOGIN_BYTES_MAX;
        self.inbox = rest.to_vec();
        orders
    }

    fn command(
        &mut self,
        payload: &[u8],
        view: &View<'_>,
        orders: &mut Vec<Order>,
        out: &mut Vec<u8>,
    ) {
        let answer = match payload.split_first() {
            Some((0x01, _)) => {
                self.is_closed = true;
                return;
            }
            Some((0x03, text)) => {
                let words = words(text);
                answer(&words.iter().map(String::as_str).collect::<Vec<_>>(), view)
            }
            // COM_INIT_DB, COM_PING, COM_RESET_CONNECTION: nothing that they could disturb.
            Some((0x02 | 0x0e | 0x1f, _)) => Answer::Ok,
            Some(_) | None => Answer::Refused(ServerError::new(1047, b"08S01", "Unknown command")),
        };
        match answer {
            Answer::Ok => packet::ok(out, 1, status::AUTOCOMMIT),
            Answer::Rows(table) => table.emit(out),
            Answer::Ordered(order, table) => {
                orders.push(order);
                table.emit(out);
            }
            Answer::Refused(error) => error.emit(out, 1),
        }
    }
}

enum Answer {
    Ok,
    Rows(Table),
    Ordered(Order, Table),
    Refused(ServerError),
}

/// The tokens of a statement in upper case, without a final semicolon.
fn words(text: &[u8]) -> Vec<String> {
    let mut lexer = Lexer::new(text, Mode::ALL[0]);
    let mut words = Vec::new();
    while let Some(token) = lexer.next() {
        if words.len() > WORDS_MAX || token == Token::Broken {
            return Vec::new();
        }
        words.push(String::from_utf8_lossy(lexer.lexeme()).to_uppercase());
    }
    while words.last().is_some_and(|word| word == ";") {
        words.pop();
    }
    words
}

fn answer(words: &[&str], view: &View<'_>) -> Answer {
    match words {
        ["SELECT", "*", "FROM", what] => select(what, view),
        ["SELECT", "VERSION"] => one("version", VERSION),
        ["SHOW", "STATS"] => Answer::Rows(stats(view)),
        ["SHOW", "SESSIONS" | "PROCESSLIST"] => Answer::Rows(sessions(view)),
        ["SET", "OFFLINE", number] => set(number, true, view),
        ["SET", "ONLINE", number] => set(number, false, view),
        ["ADD", "MASTER" | "SLAVE", ..] | ["REMOVE", "BACKEND", ..] => {
            refuse("the backends are the two hosts of tandem.toml: change [[host]] there, on both")
        }
        ["ADD" | "REMOVE", "CLIENT", ..] => {
            refuse("client addresses stand in tandem.toml: change sql.clients there, on both hosts")
        }
        ["ADD" | "REMOVE", "PWD" | "ENPWD", ..] => {
            refuse("users stand in tandem.toml: change [[sql.user]] there, on both hosts")
        }
        ["SAVE", "CONFIG"] => refuse(
            "there is nothing to save: tandem.toml is the configuration, and SET OFFLINE lasts \
                    until SET ONLINE or a restart",
        ),
        // What drivers and clients say before they let anybody speak.
        ["SET", _, ..] | ["USE", _] | ["COMMIT" | "ROLLBACK" | "BEGIN"] | ["START", ..] => {
            Answer::Ok
        }
        [
            "SHOW",
            "WARNINGS" | "ERRORS" | "VARIABLES" | "COLLATION" | "DATABASES" | "TABLES",
            ..,
        ] => Answer::Rows(Table::new(&[("Variable_name", Type::Text), ("Value", Type::Text)])),
        ["SELECT", rest @ ..] => preamble(rest, view).map_or_else(unknown, Answer::Rows),
        _ => unknown(),
    }
}

fn select(what: &str, view: &View<'_>) -> Answer {
    match what {
        "BACKENDS" => Answer::Rows(
            HostId::ALL.into_iter().fold(backends(), |table, host| table.row(backend(host, view))),
        ),
        "CLIENTS" => Answer::Rows(
            view.config.clients.iter().fold(Table::new(&[("client", Type::Text)]), |table, it| {
                table.row([it.to_string()])
            }),
        ),
        "PWDS" => {
            let table = Table::new(&[("username", Type::Text), ("password", Type::Text)]);
            Answer::Rows(view.config.users.iter().fold(table, |table, user| {
                table.row([user.name.clone(), atlas::encrypt(user.password.reveal())])
            }))
        }
        "HELP" => {
            let table = Table::new(&[("command", Type::Text), ("description", Type::Text)]);
            Answer::Rows(HELP.iter().fold(table, |table, (command, what)| {
                table.row([(*command).to_owned(), (*what).to_owned()])
            }))
        }
        _ => unknown(),
    }
}

fn backends() -> Table {
    Table::new(&[
        ("backend_ndx", Type::Long),
        ("address", Type::Text),
        ("state", Type::Text),
        ("type", Type::Text),
    ])
}

fn backend(host: HostId, view: &View<'_>) -> [String; 4] {
    let is_source = view.routes.source == Some(host);
    let is_up = view.routes.is_host_alive[host.index()]
        && (is_source || view.routes.is_replica_fit[host.index()]);
    let state = match (view.is_offline[host.index()], is_up) {
        (true, _) => "offline",
        (false, true) => "up",
        (false, false) => "down",
    };
    [
        (host.index() + 1).to_string(),
        view.servers[host.index()].to_string(),
        state.to_owned(),
        if is_source { "rw" } else { "ro" }.to_owned(),
    ]
}

fn set(number: &str, is_offline: bool, view: &View<'_>) -> Answer {
    let host = match number {
        "1" => HostId::First,
        "2" => HostId::Second,
        // Atlas's own words.
        _ => return refuse("backend id is not exsit"),
    };
    let order = if is_offline { Order::SetOffline(host) } else { Order::SetOnline(host) };
    let mut mask = view.is_offline;
    mask[host.index()] = is_offline;
    let after = View { is_offline: mask, sessions: Vec::new(), ..*view };
    Answer::Ordered(order, backends().row(backend(host, &after)))
}

fn stats(view: &View<'_>) -> Table {
    let Status {
        sessions,
        held,
        pooled,
        logins,
        queries_to_source,
        queries_to_replica,
        held_total,
        retried,
        errors,
        refused,
    } = view.status;
    let wide = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    [
        ("sessions", wide(sessions)),
        ("held", wide(held)),
        ("pooled", wide(pooled)),
        ("logins", logins),
        ("queries_to_source", queries_to_source),
        ("queries_to_replica", queries_to_replica),
        ("held_total", held_total),
        ("retried", retried),
        ("errors", errors),
        ("refused", refused),
    ]
    .into_iter()
    .fold(Table::new(&[("name", Type::Text), ("value", Type::Text)]), |table, (name, value)| {
        table.row([name.to_owned(), value.to_string()])
    })
}

fn sessions(view: &View<'_>) -> Table {
    let table = Table::new(&[
        ("Id", Type::Long),
        ("User", Type::Text),
        ("Host", Type::Text),
        ("State", Type::Text),
    ]);
    view.sessions.iter().fold(table, |table, row| {
        table.row([
            row.thread.to_string(),
            row.user.clone(),
            row.peer.clone(),
            row.state.to_owned(),
        ])
    })
}

/// `SELECT @@a, @@session.b AS c LIMIT 1` and the functions that clients ask for at connect.
fn preamble(words: &[&str], view: &View<'_>) -> Option<Table> {
    let words = match words {
        [front @ .., "LIMIT", _] => front,
        all => all,
    };
    let mut table = Table::default();
    let mut values = Vec::new();
    for item in words.split(|&word| word == ",") {
        let (expression, alias) = match item {
            [expression @ .., "AS", alias] => (expression, Some(*alias)),
            all => (all, None),
        };
        let value = match expression {
            [variable] if variable.starts_with("@@") => variable_value(variable),
            ["DATABASE" | "SCHEMA", "(", ")"] => None,
            ["VERSION", "(", ")"] => Some(GREETED_VERSION.to_owned()),
            ["USER" | "CURRENT_USER", "(", ")"] => Some(view.config.admin_user.clone()),
            [number] if number.bytes().all(|byte| byte.is_ascii_digit()) => {
                Some((*number).to_owned())
            }
            _ => return None,
        };
        let name = alias.map_or_else(|| expression.concat(), |alias| alias.replace('`', ""));
        table.columns.push((name.to_lowercase(), Type::Text));
        values.push(value);
    }
    table.rows.push(values);
    Some(table)
}

fn variable_value(variable: &str) -> Option<String> {
    let name = variable.trim_start_matches('@').rsplit('.').next().unwrap_or_default();
    let value = match name {
        "VERSION_COMMENT" => "tandem",
        "VERSION" => GREETED_VERSION,
        "SQL_MODE" | "INIT_CONNECT" => "",
        "MAX_ALLOWED_PACKET" => "1048576",
        "WAIT_TIMEOUT" | "INTERACTIVE_TIMEOUT" => "28800",
        "TIME_ZONE" | "SYSTEM_TIME_ZONE" => "SYSTEM",
        "TX_ISOLATION" | "TRANSACTION_ISOLATION" => "REPEATABLE-READ",
        "AUTO_INCREMENT_INCREMENT" => "1",
        name if name.starts_with("CHARACTER_SET") => "utf8",
        name if name.starts_with("COLLATION") => "utf8_general_ci",
        _ => "0",
    };
    Some(value.to_owned())
}

fn one(column: &str, value: &str) -> Answer {
    Answer::Rows(Table::new(&[(column, Type::Text)]).row([value.to_owned()]))
}

fn refuse(text: &str) -> Answer {
    Answer::Refused(ServerError::new(1105, b"07000", text))
}

fn unknown() -> Answer {
    refuse("use 'SELECT * FROM help' to see the supported commands")
}

fn admin(config: &Config) -> Users {
    let user = |password: &crate::units::Secret| User {
        name: config.admin_user.clone(),
        password: password.clone(),
    };
    Users::new(&config.admin_password.iter().map(user).collect::<Vec<_>>())
}

/// What Atlas greets with, and scripts look for.
const GREETED_VERSION: &str = "5.0.99-agent-admin";
/// What this is, for SELECT VERSION.
const VERSION: &str = concat!("tandem ", env!("CARGO_PKG_VERSION"));

/// The longest statement of a driver has some twenty variables.
const WORDS_MAX: usize = 200;

const HELP: &[(&str, &str)] = &[
    ("SELECT * FROM help", "shows this help"),
    ("SELECT * FROM backends", "lists the databases of both hosts and their state"),
    ("SET OFFLINE $backend_id", "source: holds its statements; replica: sends it no reads"),
    ("SET ONLINE $backend_id", "takes SET OFFLINE back"),
    ("SELECT * FROM clients", "lists the client addresses that may connect"),
    ("SELECT * FROM pwds", "lists the users and their passwords as Atlas writes them"),
    ("SELECT VERSION", "shows the version"),
    ("SHOW SESSIONS", "lists the clients and what they wait for"),
    ("SHOW STATS", "shows counters since the start"),
    ("ADD MASTER $backend", "refused: see [[host]] in tandem.toml"),
    ("ADD SLAVE $backend", "refused: see [[host]] in tandem.toml"),
    ("REMOVE BACKEND $backend_id", "refused: see [[host]] in tandem.toml"),
    ("ADD CLIENT $client", "refused: see sql.clients in tandem.toml"),
    ("REMOVE CLIENT $client", "refused: see sql.clients in tandem.toml"),
    ("ADD PWD $pwd", "refused: see [[sql.user]] in tandem.toml"),
    ("ADD ENPWD $pwd", "refused: see [[sql.user]] in tandem.toml"),
    ("REMOVE PWD $pwd", "refused: see [[sql.user]] in tandem.toml"),
    ("SAVE CONFIG", "refused: nothing changes at run time but SET OFFLINE"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routes::{Flow, WebIntake};
    use crate::units::Secret;

    fn view<'a>(config: &'a Config, routes: &'a Routes) -> View<'a> {
        View {
            config,
            routes,
            is_offline: [false; 2],
            servers: [1, 2].map(|port| SocketAddr::from(([127, 0, 0, 1], port))),
            status: Status::default(),
            sessions: Vec::new(),
        }
    }

    fn config() -> Config {
        let user = User { name: "app".into(), password: Secret::Text("atlas".into()) };
        Config {
            users: vec![user],
            admin_password: Some(Secret::Text("pwd".into())),
            ..Config::default()
        }
    }

    fn routes() -> Routes {
        Routes {
            version: 1,
            source: Some(HostId::First),
            is_replica_fit: [false, true],
            writes: Flow::Flowing,
            is_host_alive: [true; 2],
            web: WebIntake::Serving,
        }
    }

    fn ask(text: &str) -> Answer {
        let (config, routes) = (config(), routes());
        let words = words(text.as_bytes());
        answer(&words.iter().map(String::as_str).collect::<Vec<_>>(), &view(&config, &routes))
    }

    #[track_caller]
    fn rows(text: &str) -> Vec<String> {
        let (Answer::Rows(table) | Answer::Ordered(_, table)) = ask(text) else {
            panic!("{text} has no rows")
        };
        let join = |row: &Vec<Option<String>>| {
            row.iter()
                .map(|it| it.clone().unwrap_or_else(|| "NULL".into()))
                .collect::<Vec<_>>()
                .join(" ")
        };
        table.rows.iter().map(join).collect()
    }

    #[test]
    fn answers_as_atlas_in_any_case_and_spacing() {
        for text in [
            "SELECT * FROM backends",
            "select *  from BACKENDS ;",
            "/* x */ SELECT * FROM backends;",
        ] {
            assert_eq!(rows(text), ["1 127.0.0.1:1 up rw", "2 127.0.0.1:2 up ro"], "{text}");
        }
        assert_eq!(rows("SELECT * FROM pwds"), ["app KsWNCR6qyNk="]);
        assert_eq!(rows("SELECT VERSION"), [VERSION]);
        assert_eq!(rows("SELECT * FROM help").len(), HELP.len());
        assert!(rows("SELECT * FROM clients").is_empty());
        assert_eq!(rows("SHOW STATS")[0], "sessions 0");
    }

    #[test]
    fn offline_and_online_are_orders() {
        assert!(matches!(
            ask("SET OFFLINE 2"),
            Answer::Ordered(Order::SetOffline(HostId::Second), _)
        ));
        assert!(matches!(
            ask("set online 1;"),
            Answer::Ordered(Order::SetOnline(HostId::First), _)
        ));
        assert_eq!(rows("SET OFFLINE 2"), ["2 127.0.0.1:2 offline ro"]);
        assert!(matches!(ask("SET OFFLINE 3"), Answer::Refused(error) if error.code == 1105));
    }

    #[test]
    fn drivers_are_let_speak() {
        for text in ["SET NAMES utf8", "SET AUTOCOMMIT = 0", "USE x", "COMMIT"] {
            assert!(matches!(ask(text), Answer::Ok), "{text}");
        }
        assert_eq!(rows("SELECT @@version_comment LIMIT 1"), ["tandem"]);
        assert_eq!(
            rows("SELECT @@max_allowed_packet,@@session.wait_timeout AS w, DATABASE()"),
            ["1048576 28800 NULL"]
        );
        assert!(rows("SHOW WARNINGS").is_empty());
    }

    #[test]
    fn what_stands_in_the_file_is_refused_with_the_place() {
        for (text, place) in [
            ("ADD MASTER 10.0.0.1:3306", "[[host]]"),
            ("REMOVE BACKEND 1", "[[host]]"),
            ("ADD CLIENT 10.0.0.1", "sql.clients"),
            ("ADD PWD a:b", "[[sql.user]]"),
            ("SAVE CONFIG", "tandem.toml"),
            ("DROP TABLE t", "SELECT * FROM help"),
            ("SELECT sleep(1)", "SELECT * FROM help"),
            ("", "SELECT * FROM help"),
        ] {
            let Answer::Refused(error) = ask(text) else { panic!("{text} is not refused") };
            assert!(error.message.contains(place), "{text}: {error}");
            assert_eq!((error.code, &error.state), (1105, b"07000"));
        }
    }

    #[test]
    fn nothing_is_said_before_the_proof() {
        let (config, routes) = (config(), routes());
        let view = view(&config, &routes);
        let mut rng = crate::time::Rng::new(3);
        for _ in 0..2000 {
            let mut out = Vec::new();
            let mut desk = Desk::new([7; 20], 1, "peer".into(), &mut out);
            out.clear();
            let mut bytes = Vec::new();
            packet::frame(&mut bytes, 1, |out| {
                out.extend((0..rng.below(60)).map(|_| u8::try_from(rng.below(256)).unwrap()));
            });
            packet::command(&mut bytes, 0x03, b"SET OFFLINE 1");
            packet::command(&mut bytes, 0x03, b"SELECT * FROM pwds");
            assert!(desk.client_sent(&bytes, &view, &mut out).is_empty());
            assert!(!out.windows(12).any(|part| part == b"KsWNCR6qyNk="));
        }
    }
}
