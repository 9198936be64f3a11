//! Trap 59: a session reads what it wrote, on pairs that really replicate.

use super::replicated::{self, APP, Recipe, log_in};
use super::*;
use tandem::sql::User;
use tandem::units::Secret;

fn front(pair: &replicated::Pair) -> Front {
    Front::before([pair.a.address, pair.b.address], |config| {
        config.users = vec![User { name: APP.0.into(), password: Secret::Text(APP.1.into()) }];
    })
}

fn read(conn: &mut Conn, id: u32) -> Option<String> {
    conn.query_first(format!("SELECT v FROM app.t WHERE id = {id}")).expect("a read")
}

/// The host that answered this session's read.
fn read_from(conn: &mut Conn) -> String {
    conn.query_first("SELECT name FROM app.mark").expect("a read").expect("a row")
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let since = Clock::now();
    while !is_so() {
        assert!(since.elapsed() < Duration::from_secs(20), "{what}");
        thread::sleep(Duration::from_millis(2));
    }
}

fn sessions_read_what_they_wrote(flavour: &'static str) {
    let Some(recipe) = Recipe::of(flavour) else { return };
    let mut pair = replicated::Pair::new(recipe);
    pair.set_up();
    let locks = |state| match flavour {
        "mysql97" => format!("SET GLOBAL super_read_only = {state}"),
        _ => "DO 0".to_owned(),
    };
    for (server, name) in [(&pair.a, "source"), (&pair.b, "replica")] {
        let mut conn = server.connect(replicated::ADMIN);
        for text in [
            &locks("OFF"),
            "SET SESSION sql_log_bin = 0",
            "CREATE TABLE app.mark (name VARCHAR(9))",
            &format!("INSERT INTO app.mark VALUES ('{name}')"),
        ] {
            conn.query_drop(text).expect("an administrator may write anywhere");
        }
    }
    pair.b.run(&locks("ON"));
    let front = front(&pair);
    let connect = || log_in(front.address, APP).expect("the splitter lets in");
    let (mut writer, mut reader) = (connect(), connect());
    let mut from = std::collections::BTreeSet::new();
    for id in 0..300 {
        writer.query_drop(format!("INSERT INTO app.t VALUES ({id}, 'v')")).expect("a write");
        // Long enough, now and then, for the write to arrive in between.
        thread::sleep(Duration::from_micros(u64::from(id % 5) * 3000));
        from.insert(read_from(&mut writer));
        assert_eq!(read(&mut writer, id).as_deref(), Some("v"), "row {id} after {from:?}");
    }
    assert_eq!(from.len(), 2, "every answer came from {from:?}");

    let (stop, start) = match flavour {
        "mysql97" => ("STOP REPLICA SQL_THREAD", "START REPLICA SQL_THREAD"),
        _ => ("STOP SLAVE SQL_THREAD", "START SLAVE SQL_THREAD"),
    };
    pair.b.run(stop);
    writer.query_drop("INSERT INTO app.t VALUES (1000, 'v')").expect("a write");
    let since = Clock::now();
    while since.elapsed() < Duration::from_millis(2500) {
        assert_eq!(read(&mut writer, 1000).as_deref(), Some("v"), "the replica stands");
        assert_eq!(read_from(&mut reader), "replica", "who wrote nothing waits for nothing");
        thread::sleep(Duration::from_millis(20));
    }
    pair.b.run(start);
    wait_until("reads go back to the replica", || read_from(&mut writer) == "replica");
    assert_eq!(read(&mut writer, 1000).as_deref(), Some("v"));

    // A replica that cannot be asked gets no such read either, and no error comes of it.
    writer.query_drop("INSERT INTO app.t VALUES (1001, 'v')").expect("a write");
    pair.b.crash();
    assert_eq!(read(&mut writer, 1001).as_deref(), Some("v"));
    assert_eq!(read(&mut reader, 1001).as_deref(), Some("v"), "the source instead");
}

#[test]
fn mariadb_sessions_read_what_they_wrote() {
    sessions_read_what_they_wrote("mariadb");
}

#[test]
fn mysql97_sessions_read_what_they_wrote() {
    sessions_read_what_they_wrote("mysql97");
}

#[test]
fn mysql56_sessions_read_what_they_wrote() {
    sessions_read_what_they_wrote("mysql56");
}
