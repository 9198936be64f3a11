//! A host whose database has what the other one's has not: refused, saved, taken back, rejoined.
//!
//! In: a pair, and an administrator who writes on the wrong host. Out: laws of facts/repl.md
//! section 5, 24 and 25.

use std::time::Duration;

use nix::sys::signal::Signal;

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
    pair.servers[1].signal_guard(Signal::SIGTERM)?;
    let host = &mut pair.servers[1].host;
    wait_until("tandem ends", Duration::from_secs(15), || host.ended("tandem").is_some())?;
    if flavour().name == "mysql97" {
        database::ask(host, "SET GLOBAL super_read_only=OFF")?;
    }
    for statement in statements {
        database::ask(host, statement)?;
    }
    pair.start_tandem(1)
}

#[test]
fn errant_transactions_are_refused_saved_and_taken_back_by_one_command() {
    on_a_pair(|pair| {
        do_by_hand(
            pair,
            &[
                "INSERT INTO app.written VALUES (900001, 'by hand', 2)",
                "INSERT INTO app.written VALUES (900002, 'by hand', 2)",
            ],
        )?;
        wait_until("server2 is refused", SETTLE_LIMIT, || pair.servers[1].role() == "refused")?;
        wait_until("they are saved", Duration::from_secs(20), || {
            errant(pair, "directory").starts_with("\"/var/lib/tandem/errant/")
        })
        .map_err(|why| format!("{why}: {}", errant(pair, "obstacle")))?;
        let directory = errant(pair, "directory").trim_matches('"').to_owned();
        let text = pair.servers[1].host.live_path(&format!("{directory}/events.sql"))?;
        let text = std::fs::read_to_string(text).map_err(|error| error.to_string())?;
        check(text.contains("(900002, 'by hand', 2)"), || text)?;

        let (has_rejoined, said) = tandem(pair, &["rejoin"])?;
        check(!has_rejoined && said.contains("2 transactions"), || said.clone())?;
        check(said.contains(&directory) && said.contains("--discard"), || said)?;
        check(pair.servers[1].role() == "refused", || pair.servers[1].summary())?;
        let (has_rejoined, said) = tandem(pair, &["rejoin", "--discard"])?;
        check(has_rejoined, || said.clone())?;
        println!("{said}");
        pair.wait_settled(0, SETTLE_LIMIT)?;
        let rows = [pair.servers[0].rows()?, pair.servers[1].rows()?];
        check(rows[0] == rows[1], || format!("{rows:?}"))?;
        check(errant(pair, "gtids") == "null", || errant(pair, "gtids"))?;
        let (has_rejoined, said) = tandem(pair, &["rejoin"])?;
        check(has_rejoined && said.contains("standby already"), || said)?;
        let (is_done, said) = tandem(pair, &["rejoin", "--discard"])?;
        check(!is_done && said.contains("nothing to take back"), || said)
    });
}

/// A statement cannot be taken back; MySQL 9.7 can be copied.
#[test]
fn a_host_whose_data_cannot_be_mended_is_reseeded_by_one_command() {
    on_a_pair(|pair| {
        do_by_hand(pair, &["CREATE TABLE app.strange (id INT PRIMARY KEY)"])?;
        wait_until("the obstacle is named", SETTLE_LIMIT, || {
            errant(pair, "obstacle").contains("CREATE TABLE app.strange")
        })
        .map_err(|why| format!("{why}: {}", pair.servers[1].summary()))?;
        let (is_done, said) = tandem(pair, &["rejoin", "--discard"])?;
        check(!is_done && said.contains("CREATE TABLE app.strange"), || said)?;
        let (is_done, said) = tandem(pair, &["reseed"])?;
        check(!is_done && said.contains("--yes"), || said)?;
        let (is_done, said) = tandem(pair, &["reseed", "--yes"])?;
        if flavour().name != "mysql97" {
            check(!is_done && said.contains("restore a copy"), || said)?;
            return check(pair.servers[1].role() == "refused", || pair.servers[1].summary());
        }
        check(is_done && said.contains("copy of the other host"), || said)?;
        wait_until("the copy ends its server", Duration::from_secs(20), || {
            database::has_ended(&mut pair.servers[1].host)
        })?;
        database::start(&mut pair.servers[1].host, &pair.flavour)?;
        pair.wait_settled(0, SETTLE_LIMIT)?;
        let strange = "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_NAME='strange'";
        let left = database::ask(&pair.servers[1].host, strange)?;
        check(left.is_empty(), || format!("{left:?}"))
    });
}
