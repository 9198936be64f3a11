//! php-fpm dies on a host that lives on. The daemons and the databases: see `stories`.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::figures::lost;
use crate::load::{Kind, Record};
use crate::pair::Pair;
use crate::story::failures;
use crate::world::{Outcome, wait_until};
use crate::{check, on_a_pair, php};

const BEFORE: Duration = Duration::from_secs(2);
const AFTER: Duration = Duration::from_secs(4);

#[test]
fn php_killed_on_one_host_fails_no_request() {
    on_a_pair(|pair| {
        let load = pair.load()?;
        for number in [0, 1] {
            std::thread::sleep(BEFORE);
            php::kill(&pair.servers[number].host)?;
            let at = Instant::now();
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
