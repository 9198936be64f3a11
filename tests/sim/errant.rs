//! What `tandem rejoin` does for the daemon, in a process of its own: saves, takes back.
//!
//! In: `Output::SaveErrant`, `Output::TakeBack`. Out: a database without these transactions, the
//! node's inputs. Must not: take back what somebody was told is done, which fails the run.
//! Read first: os/errant.rs, os/errant/discard.rs; src/node/backing.rs.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tandem::node::Input;
use tandem::repl::errant::Saved;
use tandem::wire::HostId;

use super::mysqld::{Gtid, Life, Mysqld, Payload, Tx, text};
use super::world::{Event, Host, World};

/// How often something was taken back, in all runs.
pub static TAKEN_BACK: AtomicU64 = AtomicU64::new(0);

/// One call of `tandem rejoin`.
#[derive(Debug, Clone)]
pub struct Call {
    host: HostId,
    node_run: u64,
    /// A machine that loses its power loses its processes.
    guard_run: u64,
    known: String,
    takes_back: bool,
}

impl Mysqld {
    /// What is here and not in the other server's position.
    fn errant(&self, known: &str) -> Vec<Tx> {
        let sequences: BTreeMap<u32, u64> = known
            .split(',')
            .filter_map(|it| {
                let mut numbers = it.split('-').skip(1).map(str::parse::<u64>);
                let (server, last) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
                Some((u32::try_from(server).ok()?, last))
            })
            .collect();
        let is_known = |(server, number): Gtid| sequences.get(&server) >= Some(&number);
        self.binlog.iter().filter(|tx| !is_known(tx.gtid)).copied().collect()
    }
}

/// A statement has no rows that could be put back.
fn obstacle(errant: &[Tx]) -> Option<String> {
    let is_row = |tx: &Tx| matches!(tx.payload, Payload::Row(_));
    errant.iter().find(|tx| !is_row(tx)).map(|tx| format!("{} is a statement", text(tx.gtid)))
}

impl World {
    pub fn call_rejoin(&mut self, host: HostId, known: String, takes_back: bool) {
        let target = &self.hosts[host.index()];
        let (node_run, guard_run) = (target.run, target.guard.run);
        let pause = Duration::from_millis(30 + self.rng.below(1200));
        let call = Call { host, node_run, guard_run, known, takes_back };
        self.after(pause, Event::Rejoin(call));
    }

    pub fn rejoin(&mut self, call: Call) {
        let Call { host, node_run, guard_run, ref known, takes_back } = call;
        let target = &self.hosts[host.index()];
        if target.guard.run != guard_run {
            return;
        }
        if target.frozen_since.is_some() || target.database.life == Life::Hung {
            return self.after(Duration::from_millis(50), Event::Rejoin(call));
        }
        let is_up = target.database.life == Life::Up;
        let errant = target.database.errant(known);
        let ready = match (is_up, errant.is_empty()) {
            (false, _) => Err("the database does not answer".to_owned()),
            (true, true) => Err("this database has nothing that the peer's has not".to_owned()),
            (true, false) => Ok(()),
        };
        let input = if takes_back {
            Input::TookBack(ready.and_then(|()| self.take_back(host, &errant)))
        } else {
            Input::ErrantSaved(ready.map(|()| saved(known, &errant)))
        };
        self.after(Duration::ZERO, Event::Input { host, run: node_run, input });
    }

    /// S2 `taken_back_unacknowledged`: whatever is taken back without an operator's word was
    /// acknowledged to nobody, before or after.
    fn take_back(&mut self, host: HostId, errant: &[Tx]) -> Result<(), String> {
        let database = &mut self.host(host).database;
        if !database.read_only {
            return Err("this database takes writes: it must be closed first".to_owned());
        }
        if let Some(why) = obstacle(errant) {
            return Err(why);
        }
        database.forget(errant);
        TAKEN_BACK.fetch_add(1, Ordering::Relaxed);
        self.say(host, format!("takes back {} transactions", errant.len()));
        for tx in errant {
            if let Payload::Row(row) = tx.payload {
                self.checks.taken_back.insert(row);
                self.check_taken_back(host, row);
            }
        }
        Ok(())
    }

    /// S2 `backed_is_true`: where the disk says that the other host has all that is acknowledged,
    /// nothing is on its way to a client that one host alone has. A daemon that stands still cannot
    /// see who is killed.
    pub fn check_backed(&mut self, source: HostId, result: Option<Gtid>) {
        let host = &self.hosts[source.index()];
        let Host { disk, database, .. } = host;
        let is_unseen =
            |gtid: &Gtid| database.semi_sync.answered_by_kill.contains(gtid) && !host.is_running();
        let is_alone = |gtid: &Gtid| !database.semi_sync.on_both.contains(gtid) && !is_unseen(gtid);
        if let Some(gtid) = result.filter(is_alone)
            && disk.backed != 0
        {
            let what = format!("{gtid:?} of {} is on one host", self.name(source));
            self.fail("S2 backed_is_true", what);
        }
    }

    pub fn check_taken_back(&mut self, host: HostId, row: u64) {
        let is_acknowledged = self.client.acknowledged.contains_key(&row);
        if is_acknowledged && self.checks.taken_back.contains(&row) {
            let what = format!("row {row} of {}, which a client was told is done", self.name(host));
            self.fail("S2 taken_back_unacknowledged", what);
        }
    }
}

fn saved(known: &str, errant: &[Tx]) -> Saved {
    let names: Vec<String> = errant.iter().map(|tx| text(tx.gtid)).collect();
    let count = errant.len() as u64;
    Saved {
        directory: "/var/lib/tandem/errant/1".to_owned(),
        extra: names.join(","),
        transactions: count,
        rows: count,
        obstacle: obstacle(errant),
        is_of_one_crash: true,
        known: known.to_owned(),
        digest: String::new(),
    }
}
