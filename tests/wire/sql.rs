//! Targets of the SQL splitter: packets, log-in, statements, the admin port.
//!
//! In: any bytes. Out: a panic where a law is broken. Must not: know a socket.
//! Read first: `targets`; facts/sql.md section 5 for packets, 1.2 for the admin port.

use std::net::SocketAddr;

use tandem::routes::{Flow, Routes, WebIntake};
use tandem::sql::admin::{Desk, Order, Outcome, Standing, View};
use tandem::sql::digest;
use tandem::sql::handshake::{Facts, Greeting, Plugin, Response, SALT_BYTES};
use tandem::sql::kill::Kill;
use tandem::sql::lexer::{Lexer, Mode};
use tandem::sql::login::{Door, Entry, Login, Tls, parse_change_user};
use tandem::sql::packet::{self, HEADER_BYTES, ServerError, Walker};
use tandem::sql::result::{Kind, Reply};
use tandem::sql::route::{self, Charset, Class, Reading};
use tandem::sql::users::Users;
use tandem::sql::{Config, User};
use tandem::units::Secret;
use tandem::wire::HostId;

use super::Cut;

/// The first byte chooses a reply's kind and where the stream is cut: the ends that are found do
/// not depend on the cuts.
pub fn sql_packets(input: &[u8]) {
    let Some((&control, stream)) = input.split_first() else { return };
    let kinds = [Kind::Results, Kind::Prepared, Kind::Rows, Kind::Single, Kind::Silent];
    let kind = kinds[usize::from(control) % kinds.len()];
    let mut whole = Reply::new(kind, control & 0x40 != 0);
    whole.may_ask_for_file = control & 0x80 != 0;
    let mut slow = whole.clone();
    let used = whole.feed(stream);
    assert!(used <= stream.len());
    let mut fed = 0;
    for piece in stream.chunks(1 + usize::from(control >> 3 & 7)) {
        if slow.is_done() || slow.is_file_wanted {
            break;
        }
        fed += slow.feed(piece);
    }
    if !whole.is_file_wanted {
        assert_eq!((slow.is_done(), fed), (whole.is_done(), used));
        assert_eq!((slow.status, slow.error, slow.rows), (whole.status, whole.error, whole.rows));
        assert_eq!((slow.bytes, slow.is_broken), (whole.bytes, whole.is_broken));
    }
    let mut walker = Walker::default();
    let mut rest = stream;
    while let Some((header, payload, after)) = packet::split(rest) {
        let (walked, seen) = walker.walk(rest);
        assert_eq!(walked, HEADER_BYTES + header.length);
        assert_eq!(seen.map(|it| (it.length, it.head.len())), Some((header.length, payload.len())));
        let _any = ServerError::parse(payload);
        rest = after;
    }
}

fn users() -> Users {
    let user = |name: &str, password: &str| User {
        name: name.into(),
        password: Secret::Text(password.into()),
    };
    Users::new(&[user("app", "a password that no input has"), user("open", "")])
}

/// What a client sends to the door, what a server sends to a log-in: nobody comes in without the
/// proof, and nothing is said after a refusal.
pub fn sql_login(input: &[u8]) {
    let users = users();
    let salt = [b's'; SALT_BYTES];
    let mut cut = Cut::new(input);
    let control = cut.byte();
    let plugin = if control & 1 == 0 { Plugin::Native } else { Plugin::CachingSha2 };
    let tls = [Tls::Off, Tls::Offered, Tls::Required][usize::from(control >> 1) % 3];
    let mut door = Door::new(salt, plugin, tls);
    let mut out = Vec::new();
    let facts = Facts { plugin, ..Facts::unknown() };
    door.greet(&facts, 7, &mut out);
    let (header, payload, rest) = packet::split(&out).expect("a greeting");
    assert_eq!((header.sequence, rest.len()), (0, 0));
    let greeting = Greeting::parse(payload).expect("our own is read");
    assert_eq!((greeting.salt, greeting.thread), (salt, 7));
    let mut stream = cut.rest();
    while let Some((header, payload, rest)) = packet::split(stream) {
        stream = rest;
        let before = out.len();
        match door.packet(header, payload, &users, "peer", &mut out) {
            Entry::Waiting => assert!(out.len() > before, "it was asked for more"),
            Entry::Secured => assert!(tls != Tls::Off && out.len() == before, "as was offered"),
            Entry::Admitted(guest, _) => {
                let user = guest.user.and_then(|user| users.get(user)).expect("somebody");
                assert_eq!(user.name, "open", "the proof of the other one cannot be guessed");
                break;
            }
            Entry::Refused => {
                assert_eq!(out[before + HEADER_BYTES], 0xff);
                break;
            }
        }
    }
    let any = Response::parse(cut.rest());
    assert!(any.is_err() || cut.rest().len() >= 32);
    let _any = parse_change_user(cut.rest(), u32::from(control) << 16, &users);
    let (_, user) = users.find(b"app").expect("is there");
    let mut login = Login::new(user, 0, 45, None);
    login.feed(cut.rest(), [1; SALT_BYTES], &mut out);
}

/// A statement: tokens lie in it one after the other, and classification, digest and text of it
/// agree with those of the same tokens otherwise spaced.
pub fn sql_statement(text: &[u8]) {
    for mode in Mode::ALL {
        let mut lexer = Lexer::new(text, mode);
        let mut left = text.len();
        while lexer.next().is_some() {
            assert!(lexer.lexeme().len() + lexer.rest().len() <= left);
            left = lexer.rest().len();
        }
        assert_eq!(lexer.rest(), b"");
    }
    let careful = route::classify(text, Reading::default());
    for charset in [Charset::Utf8, Charset::Plain] {
        let verdict = route::classify(text, Reading { charset, has_escapes: true });
        assert!(verdict.class <= careful.class || careful.class == Class::SourcePin);
    }
    let _any = Kill::parse(text);
    let normal = digest::normalised(text);
    assert!(normal.len() <= 3 * tandem::limits::SQL_DIGEST_BYTES_MAX + 4, "{normal}");
    assert!(!normal.contains(char::is_control), "{normal:?}");
    let spaced = [b" /* x */\n", text].concat();
    if spaced.len() <= tandem::limits::SQL_DIGEST_INPUT_BYTES_MAX {
        assert_eq!(digest::digest(&spaced), digest::digest(text));
        assert_eq!(digest::normalised(&spaced), normal);
    }
}

/// A client of the admin port: what it sends before it has proved itself gets nothing but a
/// greeting and a refusal; after that every command gets one whole answer, and orders are sound.
pub fn sql_admin(input: &[u8]) {
    let Some((&control, input)) = input.split_first() else { return };
    let config = Config {
        admin_user: if control & 1 == 0 { "open" } else { "admin" }.to_owned(),
        admin_password: Some(Secret::Text(String::new())),
        ..Config::default()
    };
    let routes = Routes {
        version: 1,
        source: (control & 2 == 0).then_some(HostId::First),
        is_replica_fit: [false, control & 4 == 0],
        writes: Flow::Flowing,
        is_host_alive: [true, control & 8 == 0],
        is_php_draining: [false; 2],
        web: WebIntake::Serving,
    };
    let users = users();
    let standings = [Standing::Online, Standing::Offline, Standing::Removed];
    let view = View {
        config: &config,
        users: &users,
        routes: &routes,
        standing: [4, 6].map(|shift| standings[usize::from(control >> shift & 3) % 3]),
        servers: [1, 2].map(|port| SocketAddr::from(([127, 0, 0, 1], port))),
    };
    let mut out = Vec::new();
    let mut desk = Desk::new([b's'; SALT_BYTES], 1, "peer".into(), &mut out);
    let mut proof = Vec::new();
    packet::frame(&mut proof, 1, |out| {
        Response {
            capabilities: 0,
            collation: 45,
            user: b"open",
            proof: b"",
            database: None,
            plugin: Some(Plugin::Native),
        }
        .emit(out);
    });
    out.clear();
    assert_eq!(desk.client_sent(&proof, view, &mut out), None);
    assert_eq!(desk.is_at_door(), control & 1 != 0, "one user, and that one");
    if desk.is_at_door() {
        assert!(desk.is_closed());
        assert_eq!(desk.client_sent(input, view, &mut out), None);
        return;
    }
    out.clear();
    // One command a line, and the whole as bytes at the end.
    for line in input.split(|&byte| byte == b'\n') {
        let mut bytes = Vec::new();
        packet::command(&mut bytes, 0x03, line);
        let order = desk.client_sent(&bytes, view, &mut out);
        carry_out(&mut desk, order, view, &mut out);
        assert!(answers(&out) == 1 || desk.is_closed(), "{line:?}");
        out.clear();
    }
    let order = desk.client_sent(input, view, &mut out);
    carry_out(&mut desk, order, view, &mut out);
}

fn carry_out(desk: &mut Desk, mut order: Option<Order>, view: View<'_>, out: &mut Vec<u8>) {
    while let Some(next) = order {
        let listed = |host: HostId| view.standing[host.index()] != Standing::Removed;
        let outcome = match next {
            Order::Set(host, _) => {
                assert!(listed(host));
                Outcome::Backend(host)
            }
            Order::Stand(host, standing) => {
                assert_eq!(listed(host), standing == Standing::Removed);
                Outcome::Done("x".into())
            }
            Order::AddUser(user) => {
                assert!(view.users.find(user.name.as_bytes()).is_none() && !user.name.is_empty());
                Outcome::Done("x".into())
            }
            Order::RemoveUser(name) => {
                assert!(view.users.find(name.as_bytes()).is_some());
                Outcome::Done("x".into())
            }
            Order::AddClient(_) | Order::Save => Outcome::Done(String::new()),
            Order::RemoveClient(_) => panic!("there is none"),
            Order::ShowSessions | Order::ShowPool | Order::ShowDigests | Order::ShowStats => {
                Outcome::Refused("x".into())
            }
        };
        order = desk.done(outcome, view, out);
    }
}

/// How many whole replies these bytes are.
fn answers(bytes: &[u8]) -> usize {
    let (mut used, mut count) = (0, 0);
    while used < bytes.len() {
        let mut reply = Reply::new(Kind::Results, false);
        used += reply.feed(&bytes[used..]);
        assert!(reply.is_done() && !reply.is_broken);
        count += 1;
    }
    count
}
