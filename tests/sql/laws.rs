//! One way to run a law on every kind of server: scripts of statements that say where each must
//! run, with the answer compared, byte for byte, with what the server itself gives.
//!
//! In: a script. Out: every line of it that ran elsewhere or was answered differently. Must not:
//! believe the splitter about where a statement ran: the servers' general logs say it.
//!
//! ```text
//! R SELECT a FROM t          must run on the replica, and nowhere else
//! W DELETE FROM t            must run on the source, and nowhere else
//! B USE lawa                 state of the session: both connections must have it in the end
//! R[maria] HELP 'SELECT'     on this kind only: maria, 97, 56; several with a comma
//! W~ SELECT UUID_SHORT()     answers differ from call to call: only the place is checked
//! -                          another session
//! ```
//! Every statement runs twice: through the splitter in the database `lawa`, and directly, on the
//! server where it must run, in `lawb`, which is the same. `¶` stands for a new line.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::sync::{Mutex, MutexGuard};

use super::raw::{Hello, Packet, Raw, lossy};
use super::servers::Keeper;
use super::*;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    MariaDb,
    MySql97,
    MySql56,
}

impl Kind {
    pub(super) const ALL: [Self; 3] = [Self::MariaDb, Self::MySql97, Self::MySql56];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::MariaDb => "maria",
            Self::MySql97 => "97",
            Self::MySql56 => "56",
        }
    }
}

/// A pair whose servers write down what they are asked. One law at a time uses it; it ends with
/// the process.
pub(super) struct Watched {
    pub(super) kind: Kind,
    pub(super) pair: Pair,
    read: [u64; 2],
    _keeper: Keeper,
}

static WATCHED: [Mutex<Option<Watched>>; 3] = [const { Mutex::new(None) }; 3];

/// Runs `law` on each kind of server that is here; MariaDB is everywhere.
pub(super) fn on_each(kinds: &[Kind], mut law: impl FnMut(&mut Watched)) {
    for (kind, place) in Kind::ALL.into_iter().zip(&WATCHED) {
        if !kinds.contains(&kind) {
            continue;
        }
        let mut place: MutexGuard<'_, Option<Watched>> =
            place.lock().unwrap_or_else(|it| it.into_inner());
        if place.is_none() {
            let Some(pair) = Pair::of(kind) else { continue };
            for host in [0, 1] {
                pair.sql(host, PREPARATION);
            }
            let keeper = pair.keep();
            *place = Some(Watched { kind, pair, read: [0; 2], _keeper: keeper });
        }
        if let Some(watched) = place.as_mut() {
            watched.fill();
            law(watched);
        }
    }
}

/// Runs a script on every kind of server; every line that is broken is told at once.
pub(super) fn law(script: &str) {
    law_with(script, |_| {});
}

pub(super) fn law_with(script: &str, change: impl Fn(&mut tandem::sql::Config)) {
    let mut broken = String::new();
    on_each(&Kind::ALL, |watched| {
        let front = watched.front(&change);
        let mut talk = Talk::new(watched, &front);
        for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
            if line == "-" {
                talk = Talk::new(watched, &front);
                continue;
            }
            let (mark, text) = line.split_once(' ').expect("a mark and a statement");
            if mark.contains('[') && !mark.contains(watched.kind.name()) {
                continue;
            }
            let step = Step { place: mark.as_bytes()[0], is_compared: !mark.contains('~') };
            if let Err(why) = talk.step(watched, step, text.replace('¶', "\n").as_bytes()) {
                let _ = writeln!(broken, "{}: {line}\n    {why}", watched.kind.name());
            }
        }
    });
    assert!(broken.is_empty(), "\n{broken}");
}

impl Watched {
    /// Makes both databases anew.
    fn fill(&mut self) {
        let extra = match self.kind {
            Kind::MariaDb => "CREATE SEQUENCE s; ",
            Kind::MySql97 | Kind::MySql56 => "",
        };
        for host in [0, 1] {
            let name = ["first", "second"][host];
            let mut text = String::new();
            for database in ["lawa", "lawb"] {
                let _ = write!(
                    text,
                    "DROP DATABASE IF EXISTS {database}; CREATE DATABASE {database}; \
                     USE {database}; {extra}\
                     CREATE TABLE t (a INT AUTO_INCREMENT PRIMARY KEY, b VARCHAR(20)) \
                     ENGINE=InnoDB; \
                     INSERT INTO t (b) VALUES ('one'), ('two'), ('three'); \
                     CREATE TABLE mark (name VARCHAR(20)); INSERT INTO mark VALUES ('{name}'); \
                     CREATE TABLE log (a INT) ENGINE=InnoDB; \
                     CREATE FUNCTION f() RETURNS INT DETERMINISTIC RETURN 1; \
                     CREATE FUNCTION g() RETURNS INT MODIFIES SQL DATA RETURN f(); \
                     CREATE PROCEDURE p() SELECT 1; \
                     CREATE VIEW v AS SELECT a, g() AS g FROM t; "
                );
            }
            self.pair.sql(host, &text);
        }
        self.asked();
    }

    /// A splitter in front, whose users can do everything. Reads do not wait for writes to age.
    pub(super) fn front(&self, change: impl Fn(&mut tandem::sql::Config)) -> Front {
        let front = Front::start(self.pair.ports(), |config| {
            let password = tandem::units::Secret::Text(String::new());
            config.users.push(tandem::sql::User { name: "law".into(), password });
            config.read_own_writes = false;
            change(config);
        });
        let what = format!("both servers are known: {}", self.kind.name());
        front.wait(&what, |status| status.logins >= 2);
        front
    }

    pub(super) fn log_in(&self, port: u16, database: &str) -> Raw {
        Raw::log_in(port, Hello { user: "law", database, ..Hello::default() })
    }

    /// What each server was asked since the last time.
    pub(super) fn asked(&mut self) -> [Vec<u8>; 2] {
        let mut asked = [Vec::new(), Vec::new()];
        for (host, asked) in asked.iter_mut().enumerate() {
            let mut file = File::open(self.pair.general_log(host)).expect("a general log");
            file.seek(SeekFrom::Start(self.read[host])).expect("seeks");
            self.read[host] += u64::try_from(file.read_to_end(asked).expect("reads")).unwrap();
        }
        asked
    }
}

/// Everything a law needs, for a user who logs in without a password.
const PREPARATION: &str = "CREATE USER law@'127.0.0.1' IDENTIFIED BY ''; \
    GRANT ALL ON *.* TO law@'127.0.0.1' WITH GRANT OPTION; SET GLOBAL general_log = 1";

/// How one statement is judged.
#[derive(Clone, Copy)]
pub(super) struct Step {
    /// `R`, `W` or `B`.
    pub(super) place: u8,
    pub(super) is_compared: bool,
}

/// A session through the splitter, and the same with each server itself.
pub(super) struct Talk {
    pub(super) through: Raw,
    pub(super) direct: [Raw; 2],
}

impl Talk {
    pub(super) fn new(watched: &Watched, front: &Front) -> Self {
        let through = watched.log_in(front.address.port(), "lawa");
        Self { through, direct: watched.pair.ports().map(|port| watched.log_in(port, "lawb")) }
    }

    pub(super) fn step(
        &mut self,
        watched: &mut Watched,
        step: Step,
        text: &[u8],
    ) -> Result<(), String> {
        watched.asked();
        let answer = self.through.ask(text);
        let asked = watched.asked();
        let needle = needle(text);
        let has = |log: &[u8]| log.windows(needle.len().max(1)).any(|it| it == needle);
        let ran = asked.map(|log| has(&log));
        let wanted = match step.place {
            b'R' => [false, true],
            b'W' => [true, false],
            _ => ran,
        };
        if ran != wanted && !needle.is_empty() {
            return Err(format!("ran on {ran:?} (source, replica); {}", show(&answer)));
        }
        let other = replace(text, b"lawa", b"lawb");
        let [source, replica] = &mut self.direct;
        let expected = match step.place {
            b'W' => source.ask(&other),
            b'R' => replica.ask(&other),
            _ => {
                source.ask(&other);
                replica.ask(&other)
            }
        };
        let plain = |packets: &[Packet]| -> Vec<Packet> {
            packets.iter().map(|(number, it)| (*number, replace(it, b"lawb", b"lawa"))).collect()
        };
        if step.is_compared && plain(&answer) != plain(&expected) {
            return Err(format!("answers {}, not {}", show(&answer), show(&expected)));
        }
        Ok(())
    }
}

/// What of a statement is looked for in a log: servers cut off what stands around it, and cut a
/// multi-statement in pieces.
fn needle(text: &[u8]) -> Vec<u8> {
    let text = text.trim_ascii_end();
    let text = text.strip_suffix(b";").unwrap_or(text).trim_ascii();
    text.get(..text.len().min(60)).unwrap_or(text).to_vec()
}

fn replace(text: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut out = text.to_vec();
    for at in 0..text.len().saturating_sub(from.len() - 1) {
        if text[at..].starts_with(from) {
            out[at..at + to.len()].copy_from_slice(to);
        }
    }
    out
}

fn show(packets: &[Packet]) -> String {
    let show = |(number, it): &Packet| format!("{number}:{:?}", lossy(&it[..it.len().min(80)]));
    packets.iter().take(6).map(show).collect::<Vec<_>>().join(" ")
}
