//! Processes die on a host that lives on: tandem's own two, php-fpm, the database.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::figures::lost;
use crate::load::{Kind, Record};
use crate::pair::{GUARD_PID, Pair, SETTLE_LIMIT};
use crate::story::failures;
use crate::world::{Outcome, wait_until};
use crate::{check, database, on_a_pair, php};

const BEFORE: Duration = Duration::from_secs(2);
const AFTER: Duration = Duration::from_secs(4);

#[test]
fn a_node_killed_on_the_active_host_loses_nothing() {
    on_a_pair(|pair| {
        let load = pair.load()?;
        std::thread::sleep(BEFORE);
        let at = Instant::now();
        pair.servers[0].signal_node(Signal::SIGKILL)?;
        // The guard takes the addresses off and says so: skew time, not three lost advertisements.
        wait_until("server2 has the addresses", Duration::from_secs(3), || {
            pair.servers[1].holds_all()
        })?;
        wait_until("a write succeeds", Duration::from_secs(5), || load.has_good(Kind::Write, at))?;
        pair.wait_settled(1, SETTLE_LIMIT)?;
        std::thread::sleep(AFTER);
        nothing_is_lost(pair, &load.finish()?)
    });
}

#[test]
fn a_guard_killed_on_the_active_host_leaves_one_holder() {
    on_a_pair(|pair| {
        let load = pair.load()?;
        std::thread::sleep(BEFORE);
        let at = Instant::now();
        pair.servers[0].signal_guard(Signal::SIGKILL)?;
        wait_until("one host serves", Duration::from_secs(10), || {
            let active = |number: usize| pair.servers[number].role() == "active";
            (active(0) ^ active(1)) && load.has_good(Kind::Write, at + Duration::from_secs(1))
        })?;
        if !pair.servers[0].host.is_alive(GUARD_PID) {
            pair.start_tandem(0)?;
        }
        wait_until("the pair is whole again", SETTLE_LIMIT, || {
            pair.is_settled(0) || pair.is_settled(1)
        })?;
        std::thread::sleep(AFTER);
        nothing_is_lost(pair, &load.finish()?)
    });
}

#[test]
fn php_killed_on_one_host_fails_no_request() {
    on_a_pair(|pair| {
        let load = pair.load()?;
        for number in [0, 1] {
            std::thread::sleep(BEFORE);
            let at = Instant::now();
            php::kill(&pair.servers[number].host)?;
            std::thread::sleep(AFTER);
            let records = load.records();
            // What the killed worker was doing at that moment has died with it, and a page that
            // may have written must not be asked again.
            let failed: Vec<Record> =
                records.into_iter().filter(|it| it.start > at && !it.is_good()).collect();
            check(failed.is_empty(), || {
                format!("{} requests failed after the kill\n{}", failed.len(), failures(&failed))
            })?;
            let again = Instant::now();
            php::start(&mut pair.servers[number].host)?;
            let name = pair.servers[number].name();
            wait_until(&format!("php on {name} is used again"), Duration::from_secs(10), || {
                load.records().iter().any(|it| it.start > again && it.php() == Some(name))
            })?;
        }
        nothing_is_lost(pair, &load.finish()?)
    });
}

/// What happens, by choice: the healthy standby takes over at once. The other answer, waiting for
/// the database to come back, would stop writes for as long as a crash recovery takes.
#[test]
fn a_database_killed_on_the_active_host_moves_the_role() {
    on_a_pair(|pair| {
        let load = pair.load()?;
        std::thread::sleep(BEFORE);
        let at = Instant::now();
        database::kill(&pair.servers[0].host)?;
        wait_until("server2 is active and the source", Duration::from_secs(10), || {
            pair.servers[1]
                .status()
                .is_ok_and(|it| it["role"] == "active" && it["database"]["state"] == "source")
        })?;
        wait_until("a write succeeds", Duration::from_secs(5), || load.has_good(Kind::Write, at))?;
        std::thread::sleep(AFTER);
        database::start(&mut pair.servers[0].host, &pair.flavour)?;
        pair.wait_settled(1, SETTLE_LIMIT)?;
        nothing_is_lost(pair, &load.finish()?)
    });
}

/// Every acknowledged write is among the rows of a survivor.
pub fn has_all_acknowledged(rows: &[Vec<String>], records: &[Record]) -> Outcome<()> {
    let ids: BTreeSet<u64> = rows.iter().filter_map(|row| row.first()?.parse().ok()).collect();
    let (Some(first), Some(last)) = (records.first(), records.iter().map(|it| it.end).max()) else {
        return Err("no request was made".into());
    };
    let lost = lost(records, first.start, last + Duration::from_secs(1), &ids);
    check(lost.is_empty(), || format!("acknowledged and lost: {lost:?}"))
}

/// Never two holders; both databases hold the same rows; every acknowledged write is there.
pub fn nothing_is_lost(pair: &Pair, records: &[Record]) -> Outcome<()> {
    check(pair.two_holders().is_zero(), || format!("two holders: {:?}", pair.two_holders()))?;
    let mut rows = [Vec::new(), Vec::new()];
    wait_until("both databases hold the same rows", Duration::from_secs(10), || {
        rows = [0, 1].map(|number| pair.servers[number].rows().unwrap_or_default());
        !rows[0].is_empty() && rows[0] == rows[1]
    })?;
    has_all_acknowledged(&rows[0], records)?;
    check(records.iter().any(|it| it.kind == Kind::Write && it.is_good()), || {
        "no write succeeded".into()
    })
}
