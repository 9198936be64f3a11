//! A host whose database has what the other one's has not, and cannot be mended: reseeded.
//!
//! In: a pair, and an administrator who writes on the wrong host. Out: laws of facts/repl.md
//! section 5, 26. What can be taken back: `stories::replicas`.

use std::time::Duration;

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

/// A statement cannot be taken back; MySQL 9.7 can be copied.
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
