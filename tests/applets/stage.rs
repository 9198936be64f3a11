//! A real pair with the accounts of the transcripts, and applets run against it.
//!
//! In: a recipe. Out: what was said, what is in the databases.
//! Read first: tests/repl/pair.rs.

use std::ops::Range;

use mysql::prelude::Queryable;

use super::pair::{ADMIN, APP, Pair, Recipe, Server};
use super::said::{Said, Transcript};

pub(crate) struct Stage {
    pub(crate) pair: Pair,
    pub(crate) port: u16,
}

impl Stage {
    /// Two fresh servers that know each other only by their accounts.
    pub(crate) fn new(recipe: &'static Recipe) -> Self {
        let pair = Pair::new(recipe);
        let port = pair.a.address.port();
        for server in [&pair.a, &pair.b] {
            let mut conn = server.connect(ADMIN);
            conn.query_drop("SET SESSION sql_log_bin=0").expect("an administrator");
            // Without a password, and preferred to the one below.
            let _not_everywhere = conn.query_drop("DROP USER 'root'@'127.0.0.1'");
            conn.query_drop("CREATE USER 'root'@'%' IDENTIFIED BY 'pw'").expect("a user");
            let grant = "GRANT ALL ON *.* TO 'root'@'%' WITH GRANT OPTION";
            conn.query_drop(grant).expect("a grant");
        }
        Self { pair, port }
    }

    /// Runs an applet; SERVER1 and SERVER2 stand for host and port.
    pub(crate) fn run(&self, line: &str) -> Said {
        let mut words = line.split_whitespace();
        let program = words.next().expect("a program");
        let place = |word: &str| {
            word.replace("SERVER1", &format!("127.0.0.1:{}", self.port))
                .replace("SERVER2", &format!("127.0.0.2:{}", self.port))
        };
        Said::of(program, &words.map(place).collect::<Vec<_>>(), &[])
    }

    /// The command of a transcript, and everything that its original said.
    pub(crate) fn replay(&self, name: &str) {
        self.replay_but(name, &[]);
    }

    pub(crate) fn replay_but(&self, name: &str, tolerates: &[&str]) {
        let transcript = Transcript::load(name);
        let said = Said::of(&transcript.program, &transcript.arguments_for(self.port), &[]);
        transcript.compare(name, &said, self.port, tolerates);
    }

    pub(crate) fn write(&self, ids: Range<u32>) {
        write(&self.pair.a, ids);
    }

    pub(crate) fn write_on_b(&self, ids: Range<u32>) {
        write(&self.pair.b, ids);
    }

    pub(crate) fn rows_of_both(&self) -> (usize, usize) {
        (rows(&self.pair.a), rows(&self.pair.b))
    }
}

/// As the application; the first rows make their table.
fn write(server: &Server, ids: Range<u32>) {
    let mut conn = server.connect(APP);
    if ids.start == 0 {
        let mut admin = server.connect(ADMIN);
        admin.query_drop("CREATE DATABASE IF NOT EXISTS app").expect("a database");
        admin.query_drop("CREATE TABLE app.t (id INT PRIMARY KEY) ENGINE=InnoDB").expect("a table");
    }
    for id in ids {
        conn.query_drop(format!("INSERT INTO app.t VALUES ({id})")).expect("a write");
    }
}

pub(crate) fn rows(server: &Server) -> usize {
    server.value("SELECT COUNT(*) FROM app.t").parse().expect("a count")
}
