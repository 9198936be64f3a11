//! A host whose database has what the other one's has not, and cannot be mended, or has nothing at
//! all: reseeded.
//!
//! In: a pair, an administrator who writes on the wrong host, a new disk. Out: laws of
//! facts/repl.md section 5, 26 and 27. What can be taken back: `stories::replicas`.

use std::time::Duration;

use crate::host::text;
use crate::pair::{Pair, SETTLE_LIMIT};
use crate::world::{Outcome, wait_until};
use crate::{check, database, flavour, on_a_pair};

/// Runs `tandem` with these words on server2; whether it succeeded, and what it said.
fn tandem(pair: &Pair, words: &[&str]) -> Outcome<(bool, String)> {
    let words: Vec<&str> = [&["tandem"], words].concat();
    let output = pair.servers[1].host.run_within(Duration::from_secs(60), &words)?;
    let said = [output.stdout, output.stderr].map(|it| String::from_utf8_lossy(&it).into_owned());
    Ok((output.status.success(), said.concat()))
}

/// Of the database's status on server2.
fn errant(pair: &Pair, name: &str) -> String {
    let status = pair.servers[1].status();
    status.map_or_else(|why| why, |it| it["database"]["errant"][name].to_string())
}

/// What an administrator does on server2 while its tandem is away.
fn do_by_hand(pair: &mut Pair, statements: &[&str]) -> Outcome<()> {
    pair.stop_tandem(1)?;
    let host = &pair.servers[1].host;
    if flavour().name == "mysql97" {
        database::ask(host, "SET GLOBAL super_read_only=OFF")?;
    }
    for statement in statements {
        database::ask(host, statement)?;
    }
    pair.start_tandem(1)
}

/// MySQL 9.7 copies itself, and ends: whoever watches over it starts it again.
fn start_after_clone(pair: &mut Pair) -> Outcome<()> {
    if flavour().name != "mysql97" {
        return Ok(());
    }
    wait_until("the copy ends its server", SETTLE_LIMIT, || {
        database::has_ended(&mut pair.servers[1].host)
    })?;
    database::start(&mut pair.servers[1].host, &pair.flavour)
}

/// A statement cannot be taken back.
#[test]
fn a_host_whose_data_cannot_be_mended_is_reseeded_by_one_command() {
    on_a_pair(|pair| {
        do_by_hand(pair, &["CREATE TABLE app.strange (id INT PRIMARY KEY)"])?;
        wait_until("the obstacle is named", SETTLE_LIMIT, || {
            errant(pair, "obstacle").contains("CREATE TABLE app.strange")
        })
        .map_err(|why| format!("{why}: {}", pair.servers[1].summary()))?;
        let (is_done, said) = tandem(pair, &["rejoin", "--discard", "--yes"])?;
        check(!is_done && said.contains("CREATE TABLE app.strange"), || said)?;
        let (is_done, said) = tandem(pair, &["reseed"])?;
        check(!is_done && said.contains("--yes"), || said)?;
        let (is_done, said) = tandem(pair, &["reseed", "--yes"])?;
        check(is_done && said.contains("copy of the other host"), || said)?;
        start_after_clone(pair)?;
        pair.wait_settled(0, SETTLE_LIMIT)?;
        let strange = "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_NAME='strange'";
        let left = database::ask(&pair.servers[1].host, strange)?;
        check(left.is_empty(), || format!("{left:?}"))
    });
}

/// The host that serves wrote its first binlogs long ago.
fn purge_binlogs(pair: &Pair) -> Outcome<()> {
    let host = &pair.servers[0].host;
    wait_until("the first binlogs are purged", SETTLE_LIMIT, || {
        let purge = || {
            database::ask(host, "FLUSH BINARY LOGS")?;
            let last = database::ask(host, "SHOW BINARY LOGS")?.pop().unwrap_or_default();
            database::ask(host, &format!("PURGE BINARY LOGS TO '{}'", last[0]))?;
            database::ask(host, "SHOW BINARY LOGS").map(|logs| logs.len())
        };
        purge() == Ok(1)
    })
    .map(drop)
}

/// Its disk was replaced: nobody has to say anything.
#[test]
fn a_host_with_a_new_disk_is_filled_and_follows() {
    on_a_pair(|pair| {
        database::ask(&pair.servers[0].host, "CREATE TABLE app.old (id INT PRIMARY KEY)")?;
        database::ask(&pair.servers[0].host, "INSERT INTO app.old VALUES (1), (2)")?;
        pair.stop_tandem(1)?;
        database::kill(&pair.servers[1].host)?;
        std::fs::remove_dir_all(pair.servers[1].host.path("/var/lib/mysql")).map_err(text)?;
        database::create(&mut pair.servers[1].host, &pair.flavour)?;
        purge_binlogs(pair)?;
        pair.start_tandem(1)?;
        start_after_clone(pair)?;
        pair.wait_settled(0, SETTLE_LIMIT)?;
        let rows = database::ask(&pair.servers[1].host, "SELECT COUNT(*) FROM app.old")?;
        check(rows == [["2"]], || format!("{rows:?}"))?;
        // It is as good as the other one.
        let (is_done, said) = tandem(pair, &["switchover", "--yes"])?;
        check(is_done, || said)?;
        pair.wait_settled(1, SETTLE_LIMIT).map(drop)
    });
}
