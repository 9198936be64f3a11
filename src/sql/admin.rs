//! The admin port, as Atlas has it: a client that speaks MySQL and asks about the splitter itself.
//!
//! In: bytes of a client, a `View` of the splitter. Out: answers, orders. Must not: act itself, or
//! say anything before the one admin user has proved itself.
//! Read first: facts/sql.md 1.2; `preamble` and `show` for the answers that are not Atlas's.
//! Differs: a final `;`, any case and spacing, comments and what drivers say at connect are
//! accepted; the case of passwords counts; the backends are the two hosts, under the numbers 1 and
//! 2 for ever; errors of Atlas may go on after a colon with what to do.

use std::net::SocketAddr;

use crate::limits;
use crate::routes::Routes;
use crate::units::Secret;
use crate::wire::HostId;

use super::gate::Network;
use super::handshake::{Facts, Plugin, Salt};
use super::lexer::{Lexer, Mode, Token};
use super::login::{Door, Entry, Tls};
use super::packet::{self, HEADER_BYTES, Header, ServerError, status};
use super::preamble::{self, Asker, Word};
use super::table::{Table, Type};
use super::users::Users;
use super::{Config, User, atlas};

/// The splitter at one moment.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    pub config: &'a Config,
    pub users: &'a Users,
    /// As the control plane gave them.
    pub routes: &'a Routes,
    pub standing: [Standing; 2],
    pub servers: [SocketAddr; 2],
}

/// What an operator made of a backend.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Standing {
    #[default]
    Online,
    /// Its statements are held or go elsewhere; open transactions get their time.
    Offline,
    /// The same, and it is not listed.
    Removed,
}

/// What an operator wants of the splitter. `Desk::done` takes what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    Stand(HostId, Standing),
    /// The same by the words of Atlas that answer with the backend.
    Set(HostId, Standing),
    AddClient(Network),
    RemoveClient(Network),
    AddUser(User),
    RemoveUser(String),
    Save,
    ShowSessions,
    ShowPool,
    ShowDigests,
    ShowStats,
}

/// What came of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Backend(HostId),
    /// Done as Atlas says it: no row. What the operator should know is a warning.
    Done(String),
    Shown(Table),
    Refused(String),
}

/// One client of the admin port.
#[derive(Debug)]
pub struct Desk {
    /// Until the client is in.
    door: Option<Door>,
    inbox: Vec<u8>,
    peer: String,
    thread: u32,
    /// What the last command has to add, for SHOW WARNINGS.
    warning: Option<String>,
    /// An order is being carried out; what comes after it waits.
    is_waiting: bool,
    is_closed: bool,
}

impl Desk {
    /// Greets a client.
    pub fn new(salt: Salt, thread: u32, peer: String, out: &mut Vec<u8>) -> Self {
        let door = Door::new(salt, Plugin::Native, Tls::Off);
        let version = GREETED_VERSION.to_owned();
        let facts = Facts { version, capabilities: 0, collation: 33, plugin: Plugin::Native };
        door.greet(&facts, thread, out);
        Self {
            door: Some(door),
            inbox: Vec::new(),
            peer,
            thread,
            warning: None,
            is_waiting: false,
            is_closed: false,
        }
    }

    #[must_use]
    pub const fn is_closed(&self) -> bool {
        self.is_closed
    }

    #[must_use]
    pub const fn is_at_door(&self) -> bool {
        self.door.is_some()
    }

    /// Takes bytes of the client. An order that comes of them is to be answered by `done`.
    pub fn client_sent(
        &mut self,
        bytes: &[u8],
        view: View<'_>,
        out: &mut Vec<u8>,
    ) -> Option<Order> {
        self.inbox.extend_from_slice(bytes);
        self.go_on(view, out)
    }

    /// Tells what came of the order, and goes on with what was sent after it.
    pub fn done(&mut self, outcome: Outcome, view: View<'_>, out: &mut Vec<u8>) -> Option<Order> {
        if !std::mem::take(&mut self.is_waiting) {
            return None;
        }
        match outcome {
            Outcome::Backend(host) => {
                self.warning = Some(format!("{HERE_ONLY}, until SET ONLINE or a restart"));
                backends().row(backend(host, view)).emit(self.warnings(), out);
            }
            Outcome::Done(warning) => {
                self.warning = Some(warning);
                done().emit(self.warnings(), out);
            }
            Outcome::Shown(table) => table.emit(0, out),
            Outcome::Refused(why) => error(why).emit(out, 1),
        }
        self.go_on(view, out)
    }

    fn warnings(&self) -> u16 {
        u16::from(self.warning.is_some())
    }

    fn go_on(&mut self, view: View<'_>, out: &mut Vec<u8>) -> Option<Order> {
        let inbox = std::mem::take(&mut self.inbox);
        let mut rest = inbox.as_slice();
        let mut order = None;
        while !self.is_closed
            && !self.is_waiting
            && let Some((header, payload, after)) = packet::split(rest)
        {
            rest = after;
            order = match &mut self.door {
                Some(_) => {
                    self.knock(header, payload, view, out);
                    None
                }
                None => self.command(payload, view, out),
            };
            self.is_waiting = order.is_some();
        }
        if rest.len() > limits::SQL_LOGIN_BYTES_MAX + HEADER_BYTES {
            let text = format!(
                "a command of the admin port has at most {} bytes",
                limits::SQL_LOGIN_BYTES_MAX
            );
            ServerError::new(1153, b"08S01", text).emit(out, 1);
            self.is_closed = true;
        }
        self.inbox = if self.is_closed { Vec::new() } else { rest.to_vec() };
        order
    }

    fn knock(&mut self, header: Header, payload: &[u8], view: View<'_>, out: &mut Vec<u8>) {
        let Some(door) = &mut self.door else { return };
        match door.packet(header, payload, &admin(view.config), &self.peer, out) {
            Entry::Waiting | Entry::Secured => {}
            Entry::Admitted(_, sequence) => {
                packet::ok(out, sequence, status::AUTOCOMMIT);
                self.door = None;
            }
            Entry::Refused => self.is_closed = true,
        }
    }

    fn command(&mut self, payload: &[u8], view: View<'_>, out: &mut Vec<u8>) -> Option<Order> {
        let answer = match payload.split_first() {
            Some((0x01, _)) => {
                self.is_closed = true;
                return None;
            }
            Some((0x03, text)) => self.answer(text, view),
            // COM_INIT_DB, COM_PING, COM_RESET_CONNECTION: nothing that they could disturb.
            Some((0x02 | 0x0e | 0x1f, _)) => Answer::Ok,
            Some(_) | None => {
                let text = "Unknown command: the admin port takes plain queries (COM_QUERY)";
                Answer::Refused(ServerError::new(1047, b"08S01", text))
            }
        };
        match answer {
            Answer::Ok => packet::ok(out, 1, status::AUTOCOMMIT),
            Answer::Rows(table) => table.emit(0, out),
            Answer::Ordered(order) => return Some(order),
            Answer::Refused(error) => error.emit(out, 1),
        }
        None
    }

    fn answer(&mut self, text: &[u8], view: View<'_>) -> Answer {
        let mut lexer = Lexer::new(text, Mode::ALL[0]);
        let mut word = || match lexer.next() {
            Some(Token::Word(word)) => String::from_utf8_lossy(word).to_uppercase(),
            Some(_) | None => String::new(),
        };
        let verbs = [word(), word()];
        match verbs.each_ref().map(String::as_str) {
            ["SHOW", "WARNINGS"] => return Answer::Rows(self.show_warnings()),
            [verb @ ("ADD" | "REMOVE"), what @ ("CLIENT" | "PWD" | "ENPWD")] => {
                self.warning = None;
                return list(verb, what, lexer.rest(), view).unwrap_or_else(refuse);
            }
            ["ADD", "MASTER" | "SLAVE"] => {
                self.warning = None;
                return add_backend(lexer.rest(), view).unwrap_or_else(refuse);
            }
            _ => {}
        }
        self.warning = None;
        let asker =
            Asker { version: GREETED_VERSION, user: &view.config.admin_user, thread: self.thread };
        answer(&words(text), asker, view)
    }

    fn show_warnings(&self) -> Table {
        let table =
            Table::new(&[("Level", Type::Text), ("Code", Type::Long), ("Message", Type::Text)]);
        self.warning.iter().fold(table, |table, warning| {
            table.row(["Warning".to_owned(), "1105".to_owned(), warning.clone()])
        })
    }
}

enum Answer {
    Ok,
    Rows(Table),
    Ordered(Order),
    Refused(ServerError),
}

/// The tokens of a statement, without final semicolons; none when it is too long or broken.
fn words(text: &[u8]) -> Vec<Word> {
    let mut lexer = Lexer::new(text, Mode::ALL[0]);
    let mut words = Vec::new();
    while let Some(token) = lexer.next() {
        if words.len() > WORDS_MAX || token == Token::Broken {
            return Vec::new();
        }
        let written = String::from_utf8_lossy(lexer.lexeme()).into_owned();
        words.push(Word { upper: written.to_uppercase(), written });
    }
    while words.last().is_some_and(|word| word.upper == ";") {
        words.pop();
    }
    words
}

fn answer(words: &[Word], asker: Asker<'_>, view: View<'_>) -> Answer {
    let uppers: Vec<&str> = words.iter().map(|word| word.upper.as_str()).collect();
    match uppers.as_slice() {
        ["SELECT", "*", "FROM", what] => select(what, view),
        ["SELECT", "VERSION"] => {
            Answer::Rows(Table::new(&[("version", Type::Text)]).row([VERSION.to_owned()]))
        }
        ["SHOW", "STATS"] => Answer::Ordered(Order::ShowStats),
        ["SHOW", "SESSIONS" | "PROCESSLIST"] | ["SHOW", "FULL", "PROCESSLIST"] => {
            Answer::Ordered(Order::ShowSessions)
        }
        ["SHOW", "POOL"] => Answer::Ordered(Order::ShowPool),
        ["SHOW", "DIGESTS"] => Answer::Ordered(Order::ShowDigests),
        ["SET", operation, number] if number.bytes().all(|it| it.is_ascii_digit()) => {
            set(operation, number, view)
        }
        ["SET", "OFFLINE" | "ONLINE", ..] => refuse("backend id is not exsit".to_owned()),
        ["REMOVE", "BACKEND", rest @ ..] => remove_backend(rest, view),
        ["SAVE", "CONFIG"] => Answer::Ordered(Order::Save),
        // What drivers and clients say before they let anybody speak.
        ["SET", _, ..] | ["USE", _] | ["COMMIT" | "ROLLBACK" | "BEGIN"] | ["START", ..] => {
            Answer::Ok
        }
        ["SHOW", "ERRORS"] => Answer::Rows(Table::new(&[
            ("Level", Type::Text),
            ("Code", Type::Long),
            ("Message", Type::Text),
        ])),
        ["SHOW", "SESSION" | "GLOBAL" | "FULL", what, ..] | ["SHOW", what, ..] => {
            preamble::show(what).map_or_else(unknown, Answer::Rows)
        }
        ["SELECT", ..] => {
            let asked = preamble::select(words.get(1..).unwrap_or_default(), asker);
            asked.map_or_else(unknown, Answer::Rows)
        }
        _ => unknown(),
    }
}

fn select(what: &str, view: View<'_>) -> Answer {
    Answer::Rows(match what {
        "BACKENDS" => HostId::ALL
            .into_iter()
            .filter(|host| view.standing[host.index()] != Standing::Removed)
            .fold(backends(), |table, host| table.row(backend(host, view))),
        "CLIENTS" => {
            let table = Table::new(&[("client", Type::Text)]);
            view.config.clients.iter().fold(table, |table, it| table.row([it.to_string()]))
        }
        "PWDS" => {
            let table = Table::new(&[("username", Type::Text), ("password", Type::Text)]);
            view.users.iter().fold(table, |table, (_, user, _)| {
                table.row([user.name.clone(), atlas::encrypt(user.password.reveal())])
            })
        }
        "HELP" => {
            let table = Table::new(&[("command", Type::Text), ("description", Type::Text)]);
            HELP.iter().fold(table, |table, (command, what)| {
                table.row([(*command).to_owned(), (*what).to_owned()])
            })
        }
        _ => return unknown(),
    })
}

fn backends() -> Table {
    Table::new(&[
        ("backend_ndx", Type::Long),
        ("address", Type::Text),
        ("state", Type::Text),
        ("type", Type::Text),
    ])
}

fn backend(host: HostId, view: View<'_>) -> [String; 4] {
    let is_source = view.routes.source == Some(host);
    let is_up = view.routes.is_host_alive[host.index()]
        && (is_source || view.routes.is_replica_fit[host.index()]);
    let state = match (view.standing[host.index()], is_up) {
        (Standing::Offline | Standing::Removed, _) => "offline",
        (Standing::Online, true) => "up",
        (Standing::Online, false) => "down",
    };
    [
        (host.index() + 1).to_string(),
        view.servers[host.index()].to_string(),
        state.to_owned(),
        if is_source { "rw" } else { "ro" }.to_owned(),
    ]
}

fn host_of(number: &str) -> Option<HostId> {
    match number.trim_start_matches('0') {
        "1" => Some(HostId::First),
        "2" => Some(HostId::Second),
        _ => None,
    }
}

/// SET OFFLINE and SET ONLINE, with Atlas's own words for what is neither.
fn set(operation: &str, number: &str, view: View<'_>) -> Answer {
    let listed = host_of(number).filter(|it| view.standing[it.index()] != Standing::Removed);
    let Some(host) = listed else { return refuse("backend id is not exsit".to_owned()) };
    match operation {
        "OFFLINE" => Answer::Ordered(Order::Set(host, Standing::Offline)),
        "ONLINE" => Answer::Ordered(Order::Set(host, Standing::Online)),
        _ => refuse("invalid operation".to_owned()),
    }
}

fn remove_backend(rest: &[&str], view: View<'_>) -> Answer {
    let host = match rest {
        [number] => host_of(number),
        _ => None,
    };
    match host.filter(|it| view.standing[it.index()] != Standing::Removed) {
        Some(host) => Answer::Ordered(Order::Stand(host, Standing::Removed)),
        None => refuse("invalid backend_id".to_owned()),
    }
}

fn add_backend(rest: &[u8], view: View<'_>) -> Result<Answer, String> {
    let text = argument(rest)?;
    let address: SocketAddr = text
        .parse()
        .map_err(|_| format!("{text:?} is no backend: write ip:port, as in {}", view.servers[0]))?;
    let host = HostId::ALL.into_iter().find(|host| view.servers[host.index()] == address);
    let host = host.ok_or_else(|| {
        let [first, second] = view.servers;
        format!(
            "{address} is neither host's database: they are {first} and {second}; the backends \
             are the two hosts, change [[host]] in tandem.toml on both to have another one"
        )
    })?;
    if view.standing[host.index()] != Standing::Removed {
        return Ok(Answer::Rows(done()));
    }
    Ok(Answer::Ordered(Order::Stand(host, Standing::Online)))
}

/// ADD and REMOVE of clients and users.
fn list(verb: &str, what: &str, rest: &[u8], view: View<'_>) -> Result<Answer, String> {
    let text = argument(rest).map_err(|why| format!("{verb} {what}: {why}"))?;
    let order = match (verb, what) {
        (_, "CLIENT") => {
            let client = Network::of_atlas(&text)?;
            let is_there = view.config.clients.contains(&client);
            match (verb, is_there) {
                ("ADD", true) => return Err("this client is exist".to_owned()),
                ("ADD", false) if view.config.clients.len() >= limits::SQL_USERS_MAX => {
                    return Err(format!("there are {} clients already", limits::SQL_USERS_MAX));
                }
                ("ADD", false) => Order::AddClient(client),
                (_, true) => Order::RemoveClient(client),
                (_, false) => return Err("this client is NOT exist".to_owned()),
            }
        }
        ("ADD", _) => Order::AddUser(user(what, &text, view)?),
        (_, "PWD") if view.users.find(text.as_bytes()).is_some() => Order::RemoveUser(text),
        (_, "PWD") => return Err("this user is NOT exist".to_owned()),
        _ => return Ok(unknown()),
    };
    Ok(Answer::Ordered(order))
}

/// `name:password`, clear or as Atlas writes it.
fn user(what: &str, text: &str, view: View<'_>) -> Result<User, String> {
    let (name, password) = text
        .split_once(':')
        .filter(|(name, password)| !name.is_empty() && !password.is_empty())
        .ok_or_else(|| format!("ADD {what}: write user:password, neither of them empty"))?;
    if view.users.find(name.as_bytes()).is_some() {
        return Err("this user is exist".to_owned());
    }
    if name.chars().count() > USER_CHARACTERS_MAX {
        return Err(format!("ADD {what}: a user has at most {USER_CHARACTERS_MAX} characters"));
    }
    if password.len() > PASSWORD_BYTES_MAX {
        let verb = if what == "PWD" { "encrypt" } else { "decrypt" };
        return Err(format!("failed to {verb}: a password has at most {PASSWORD_BYTES_MAX} bytes"));
    }
    if view.users.iter().count() >= limits::SQL_USERS_MAX {
        return Err(format!("there are {} users already", limits::SQL_USERS_MAX));
    }
    let password = if what == "PWD" {
        password.to_owned()
    } else {
        atlas::decrypt(password).map_err(|why| format!("failed to decrypt: {why}"))?
    };
    Ok(User { name: name.to_owned(), password: Secret::Text(password) })
}

/// The one argument of a command: up to white space, or in quotes, where a doubled quote is one.
/// Only comments and semicolons may follow. A password may have any character.
fn argument(rest: &[u8]) -> Result<String, String> {
    let text = std::str::from_utf8(rest).map_err(|_| "this is not UTF-8".to_owned())?;
    let text = text.trim_ascii_start();
    let (argument, rest) = match text.chars().next() {
        Some(quote @ ('\'' | '"')) => {
            let mut argument = String::new();
            let mut rest = text.get(1..).unwrap_or_default();
            loop {
                let (part, after) = rest.split_once(quote).ok_or("a quote has no end")?;
                argument.push_str(part);
                let Some(again) = after.strip_prefix(quote) else { break (argument, after) };
                argument.push(quote);
                rest = again;
            }
        }
        Some(_) | None => {
            let end = text.find(|it: char| it.is_ascii_whitespace()).unwrap_or(text.len());
            let (argument, rest) = text.split_at(end);
            (argument.trim_end_matches(';').to_owned(), rest)
        }
    };
    if argument.is_empty() {
        return Err("the argument is missing".to_owned());
    }
    if argument.contains(char::is_control) {
        return Err("the argument has a control character".to_owned());
    }
    if Lexer::new(rest.as_bytes(), Mode::ALL[0]).any(|token| token != Token::Symbol(b';')) {
        return Err("there is more than one argument: put it in quotes".to_owned());
    }
    Ok(argument)
}

/// Atlas's answer to what it did.
fn done() -> Table {
    Table::new(&[("status", Type::Text)])
}

fn error(text: String) -> ServerError {
    ServerError::new(1105, b"07000", text)
}

fn refuse(text: String) -> Answer {
    Answer::Refused(error(text))
}

fn unknown() -> Answer {
    refuse("use 'SELECT * FROM help' to see the supported commands".to_owned())
}

fn admin(config: &Config) -> Users {
    let user =
        |password: &Secret| User { name: config.admin_user.clone(), password: password.clone() };
    Users::new(&config.admin_password.iter().map(user).collect::<Vec<_>>())
}

/// What an operator has to know of every change.
pub const HERE_ONLY: &str = "only this host's splitter: say the same to the other host's";

/// What Atlas greets with, and scripts look for.
const GREETED_VERSION: &str = "5.0.99-agent-admin";
/// What this is, for SELECT VERSION.
const VERSION: &str = concat!("tandem ", env!("CARGO_PKG_VERSION"));

/// The longest statement of a driver has some twenty variables.
const WORDS_MAX: usize = 200;

/// MariaDB: USERNAME_CHAR_LENGTH; MySQL has 32.
const USER_CHARACTERS_MAX: usize = 128;
/// Atlas: the buffers of its encryption.
const PASSWORD_BYTES_MAX: usize = 512;

/// Atlas's sixteen in its order, then the others.
const HELP: &[(&str, &str)] = &[
    ("SELECT * FROM help", "shows this help"),
    ("SELECT * FROM backends", "lists the databases of both hosts and their state"),
    ("SET OFFLINE $backend_id", "source: holds its statements; replica: sends it no reads"),
    ("SET ONLINE $backend_id", "takes SET OFFLINE back"),
    ("ADD MASTER $backend", "takes REMOVE BACKEND back: the ip:port of one of the two hosts"),
    ("ADD SLAVE $backend", "the same: the pair knows which host is the source"),
    ("REMOVE BACKEND $backend_id", "as SET OFFLINE, and it is not listed; numbers stay"),
    ("SELECT * FROM clients", "lists the client addresses that may connect; none: all"),
    ("ADD CLIENT $client", "\"192.168.1.2\", \"192.168.1.0/24\" or \"192.168.1\""),
    ("REMOVE CLIENT $client", "as it is listed"),
    ("SELECT * FROM pwds", "lists the users and their passwords as Atlas writes them"),
    ("ADD PWD $pwd", "user:password; in quotes if it has spaces or ends with a semicolon"),
    ("ADD ENPWD $pwd", "user:password, as `tandem encrypt` prints it"),
    ("REMOVE PWD $pwd", "the user; its sessions go on"),
    ("SAVE CONFIG", "writes clients and users into this host's tandem.toml"),
    ("SELECT VERSION", "shows the version"),
    ("SHOW SESSIONS", "lists the clients, what they do and what they wait for"),
    ("SHOW POOL", "counts the connections to the databases, by backend and user"),
    ("SHOW STATS", "shows counters since the start"),
    ("SHOW DIGESTS", "lists the statements that cost most time"),
    ("SHOW WARNINGS", "what the last command has to add"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routes::{Flow, WebIntake};

    /// A client that is in, and the splitter that it asks.
    struct World {
        desk: Desk,
        config: Config,
        users: Users,
        routes: Routes,
        standing: [Standing; 2],
    }

    impl World {
        fn new() -> Self {
            let mut desk = Desk::new([7; 20], 9, "peer".into(), &mut Vec::new());
            desk.door = None;
            let user = User { name: "app".into(), password: Secret::Text("atlas".into()) };
            Self {
                desk,
                config: Config {
                    admin_password: Some(Secret::Text("pwd".into())),
                    ..Config::default()
                },
                users: Users::new(&[user]),
                routes: Routes {
                    version: 1,
                    source: Some(HostId::First),
                    is_replica_fit: [false, true],
                    writes: Flow::Flowing,
                    is_host_alive: [true; 2],
                    is_php_draining: [false; 2],
                    web: WebIntake::Serving,
                },
                standing: [Standing::Online; 2],
            }
        }

        fn talk(
            &mut self,
            say: impl FnOnce(&mut Desk, View<'_>) -> Option<Order>,
        ) -> Option<Order> {
            let view = View {
                config: &self.config,
                users: &self.users,
                routes: &self.routes,
                standing: self.standing,
                servers: [1, 2].map(|port| SocketAddr::from(([127, 0, 0, 1], port))),
            };
            say(&mut self.desk, view)
        }

        fn answer(&mut self, text: &str) -> Answer {
            let mut answer = Answer::Ok;
            self.talk(|desk, view| {
                answer = desk.answer(text.as_bytes(), view);
                None
            });
            answer
        }

        #[track_caller]
        fn rows(&mut self, text: &str) -> Vec<String> {
            let Answer::Rows(table) = self.answer(text) else { panic!("{text} has no rows") };
            let join = |row: &Vec<Option<String>>| {
                row.iter()
                    .map(|it| it.clone().unwrap_or_else(|| "NULL".into()))
                    .collect::<Vec<_>>()
                    .join(" ")
            };
            table.rows.iter().map(join).collect()
        }

        #[track_caller]
        fn order(&mut self, text: &str) -> Order {
            match self.answer(text) {
                Answer::Ordered(order) => order,
                Answer::Refused(error) => panic!("{text}: {error}"),
                Answer::Ok | Answer::Rows(_) => panic!("{text} is no order"),
            }
        }

        #[track_caller]
        fn refusal(&mut self, text: &str) -> String {
            let Answer::Refused(error) = self.answer(text) else { panic!("{text} is not refused") };
            assert_eq!((error.code, &error.state), (1105, b"07000"), "{text}");
            error.message
        }
    }

    fn network(text: &str) -> Network {
        Network::of_atlas(text).expect("a network")
    }

    #[test]
    fn answers_as_atlas_in_any_case_and_spacing() {
        let mut world = World::new();
        for text in [
            "SELECT * FROM backends",
            "select *  from BACKENDS ;",
            "/* x */ SELECT * FROM backends; -- y",
            "\n\tselect/**/* from\nbackends;;",
        ] {
            assert_eq!(world.rows(text), ["1 127.0.0.1:1 up rw", "2 127.0.0.1:2 up ro"], "{text}");
        }
        assert_eq!(world.rows("SELECT * FROM pwds"), ["app KsWNCR6qyNk="]);
        assert_eq!(world.rows("SELECT VERSION"), [VERSION]);
        assert_eq!(world.rows("SELECT * FROM help").len(), HELP.len());
        assert!(world.rows("SELECT * FROM clients").is_empty());
    }

    #[test]
    fn every_command_of_help_is_one() {
        let mut world = World::new();
        world.standing = [Standing::Removed, Standing::Online];
        world.config.clients = vec![network("10.0.0.1")];
        for (command, _) in HELP {
            let verb = command.split(' ').next().unwrap();
            let text = command
                .replace("$backend_id", "2")
                .replace("$backend", "127.0.0.1:1")
                .replace("$client", if verb == "ADD" { "10.0.0.2" } else { "10.0.0.1" })
                .replace("ENPWD $pwd", "ENPWD new:KsWNCR6qyNk=")
                .replace("$pwd", if verb == "ADD" { "new:x" } else { "app" });
            for text in [format!("{text};"), text.to_lowercase(), format!("/* x */ {text} -- x")] {
                let text = text.replace("kswncr6qynk=", "KsWNCR6qyNk=");
                let answer = world.answer(&text);
                assert!(matches!(answer, Answer::Rows(_) | Answer::Ordered(_)), "{text}");
            }
        }
    }

    #[test]
    fn backends_go_and_come_under_their_numbers() {
        let mut world = World::new();
        let (first, second) = (HostId::First, HostId::Second);
        assert_eq!(world.order("SET OFFLINE 2"), Order::Set(second, Standing::Offline));
        assert_eq!(world.order("set online 1;"), Order::Set(first, Standing::Online));
        assert_eq!(world.order("REMOVE BACKEND 2"), Order::Stand(second, Standing::Removed));
        assert!(world.rows("ADD SLAVE 127.0.0.1:2").is_empty(), "it is there");
        world.standing = [Standing::Offline, Standing::Removed];
        assert_eq!(world.rows("SELECT * FROM backends"), ["1 127.0.0.1:1 offline rw"]);
        assert_eq!(world.order("ADD SLAVE 127.0.0.1:2"), Order::Stand(second, Standing::Online));
        for (text, why) in [
            ("SET OFFLINE 3", "backend id is not exsit"),
            ("SET ONLINE 2", "backend id is not exsit"),
            ("SET ONLINE x", "backend id is not exsit"),
            ("SET ASIDE 1", "invalid operation"),
            ("REMOVE BACKEND 0", "invalid backend_id"),
            ("REMOVE BACKEND 2", "invalid backend_id"),
            ("REMOVE BACKEND", "invalid backend_id"),
        ] {
            assert_eq!(world.refusal(text), why, "{text}");
        }
        for (text, why) in [
            ("ADD MASTER 10.0.0.1:3306", "neither host's database: they are 127.0.0.1:1"),
            ("ADD MASTER localhost:1", "write ip:port, as in 127.0.0.1:1"),
            ("ADD SLAVE 127.0.0.1:2@3", "write ip:port"),
            ("ADD SLAVE", "the argument is missing"),
        ] {
            assert!(world.refusal(text).contains(why), "{text}: {}", world.refusal(text));
        }
    }

    #[test]
    fn clients_come_and_go() {
        let mut world = World::new();
        assert_eq!(world.order("ADD CLIENT 10.0.0.1"), Order::AddClient(network("10.0.0.1")));
        assert_eq!(world.order("add client '10.0.0';"), Order::AddClient(network("10.0.0.0/24")));
        assert_eq!(world.refusal("REMOVE CLIENT 10.0.0.1"), "this client is NOT exist");
        world.config.clients = vec![network("10.1")];
        assert_eq!(world.refusal("ADD CLIENT 10.1.0.0/16"), "this client is exist");
        assert_eq!(world.order("REMOVE CLIENT 10.1"), Order::RemoveClient(network("10.1")));
        for text in ["ADD CLIENT x", "ADD CLIENT 1.2.3.400", "ADD CLIENT 10.0.0.1 10.0.0.2"] {
            world.refusal(text);
        }
    }

    #[test]
    fn users_come_and_go_with_any_password() {
        let mut world = World::new();
        for (text, name, password) in [
            ("ADD PWD u:Plain", "u", "Plain"),
            ("add pwd u:a:b;", "u", "a:b"),
            ("ADD PWD u:it's", "u", "it's"),
            ("ADD PWD u:#--/*\\ -- said", "u", "#--/*\\"),
            ("ADD PWD 'u v:it''s; ';", "u v", "it's; "),
            ("ADD PWD \"u:p;\" /* x */ ;", "u", "p;"),
            ("ADD PWD u:\u{e4}", "u", "\u{e4}"),
            ("ADD ENPWD u:qtyU1btXOo074Itvx0UR9Q==", "u", "Xp29at5F37"),
        ] {
            let password = Secret::Text(password.into());
            let user = User { name: name.into(), password };
            assert!(world.order(text) == Order::AddUser(user), "{text}");
        }
        assert_eq!(world.order("REMOVE PWD app;"), Order::RemoveUser("app".into()));
        assert_eq!(world.refusal("REMOVE PWD App"), "this user is NOT exist");
        assert_eq!(world.refusal("ADD PWD app:x"), "this user is exist");
        for (text, why) in [
            ("ADD ENPWD u:x", "failed to decrypt"),
            ("ADD PWD u", "write user:password"),
            ("ADD PWD u:", "write user:password"),
            ("ADD PWD :p", "write user:password"),
            ("ADD PWD", "the argument is missing"),
            ("ADD PWD 'u:p", "a quote has no end"),
            ("ADD PWD u:p q", "put it in quotes"),
            ("ADD PWD 'u:\u{7}'", "control character"),
            ("REMOVE ENPWD app", "SELECT * FROM help"),
        ] {
            assert!(world.refusal(text).contains(why), "{text}: {}", world.refusal(text));
        }
        assert!(world.refusal(&format!("ADD PWD u:{}", "p".repeat(600))).contains("512 bytes"));
        assert!(world.refusal(&format!("ADD PWD {}:p", "u".repeat(200))).contains("128"));
    }

    #[test]
    fn drivers_are_let_speak() {
        let mut world = World::new();
        for text in ["SET NAMES utf8", "SET AUTOCOMMIT = 0", "USE x", "COMMIT", "set autocommit=1"]
        {
            assert!(matches!(world.answer(text), Answer::Ok), "{text}");
        }
        assert_eq!(world.rows("SELECT @@version_comment LIMIT 1"), ["tandem"]);
        assert_eq!(
            world.rows("SELECT @@max_allowed_packet,@@session.wait_timeout AS w, DATABASE()"),
            ["1048576 28800 NULL"]
        );
        assert_eq!(world.rows("select connection_id()"), ["9"]);
        for text in ["SHOW WARNINGS", "SHOW VARIABLES LIKE 'x'", "show session variables"] {
            assert!(world.rows(text).is_empty(), "{text}");
        }
        // As MySQL Connector/J 8 logs in.
        let text = "/* mysql-connector-java-8.0.33 (Revision: 7d6b0800) */SELECT  \
            @@session.auto_increment_increment AS auto_increment_increment, \
            @@character_set_client AS character_set_client, @@init_connect AS init_connect, \
            @@license AS license, @@lower_case_table_names AS lower_case_table_names, \
            @@sql_mode AS sql_mode, @@system_time_zone AS system_time_zone, \
            @@transaction_isolation AS transaction_isolation, @@wait_timeout AS wait_timeout";
        let Answer::Rows(table) = world.answer(text) else { panic!("it has rows") };
        assert_eq!(
            (table.columns[0].0.as_str(), table.columns.len()),
            ("auto_increment_increment", 9)
        );
        for text in ["DROP TABLE t", "SELECT sleep(1)", "", ";", "SELECT 'x", "SHOW x", "\0"] {
            assert!(world.refusal(text).contains("SELECT * FROM help"), "{text}");
        }
    }

    #[test]
    fn an_order_is_answered_before_what_comes_after_it() {
        let mut world = World::new();
        let (mut bytes, mut out) = (Vec::new(), Vec::new());
        packet::command(&mut bytes, 0x03, b"SAVE CONFIG");
        packet::command(&mut bytes, 0x03, b"SHOW WARNINGS");
        packet::command(&mut bytes, 0x03, b"SET OFFLINE 2");
        let order = world.talk(|desk, view| desk.client_sent(&bytes, view, &mut out));
        assert_eq!((order, out.len()), (Some(Order::Save), 0));
        let ping = b"\x01\0\0\0\x0e";
        assert_eq!(world.talk(|desk, view| desk.client_sent(ping, view, &mut out)), None);
        assert_eq!(out.len(), 0, "it waits");
        let done = Outcome::Done("tell the other host".into());
        let order = world.talk(|desk, view| desk.done(done, view, &mut out));
        assert_eq!(order, Some(Order::Set(HostId::Second, Standing::Offline)));
        let text = String::from_utf8_lossy(&out);
        assert!(text.contains("status") && text.contains("tell the other host"), "{text}");
        assert!(out.windows(9).any(|it| it == b"\x05\0\0\x03\xfe\x01\0\x02\0"), "one warning");
        out.clear();
        world.standing = [Standing::Online, Standing::Offline];
        let backend = Outcome::Backend(HostId::Second);
        assert_eq!(world.talk(|desk, view| desk.done(backend, view, &mut out)), None);
        assert!(String::from_utf8_lossy(&out).contains("offline"));
        assert!(out.ends_with(b"\x07\0\0\x01\0\0\0\x02\0\0\0"), "the ping");
        let again = Outcome::Done(String::new());
        assert_eq!(world.talk(|desk, view| desk.done(again, view, &mut out)), None);
    }

    #[test]
    fn a_command_that_is_too_long_gets_an_error() {
        let mut world = World::new();
        let mut out = Vec::new();
        let bytes = [&[0xff, 0xff, 0x7f, 0, 3][..], &[b'x'; 70_000]].concat();
        world.talk(|desk, view| desk.client_sent(&bytes, view, &mut out));
        assert!(world.desk.is_closed());
        assert!(String::from_utf8_lossy(&out).contains("65536 bytes"));
    }

    #[test]
    fn nothing_is_said_before_the_proof() {
        let mut rng = crate::time::Rng::new(3);
        for _ in 0..2000 {
            let mut world = World::new();
            let mut out = Vec::new();
            world.desk = Desk::new([7; 20], 1, "peer".into(), &mut out);
            out.clear();
            let mut bytes = Vec::new();
            packet::frame(&mut bytes, 1, |out| {
                out.extend((0..rng.below(60)).map(|_| u8::try_from(rng.below(256)).unwrap()));
            });
            packet::command(&mut bytes, 0x03, b"SET OFFLINE 1");
            packet::command(&mut bytes, 0x03, b"SELECT * FROM pwds");
            let order = world.talk(|desk, view| desk.client_sent(&bytes, view, &mut out));
            assert_eq!(order, None);
            assert!(!out.windows(12).any(|part| part == b"KsWNCR6qyNk="));
        }
    }
}
