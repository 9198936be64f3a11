//! A mixed pair: tandem on one host, Debian's keepalived on the other, and who of them serves.
//!
//! In: which server runs tandem. Out: verbs that strike, mend and judge, the same for both
//! programs; after every event one line with the table's median beside what was seen.
//! Must not: know which events there are (`keepalived`).

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::foreign::{self, KEEPALIVED_PID, Timing, VRRP_PID};
use crate::pair::{EXAMPLE, GUARD_PID, NODE_PID, Pair};
use crate::world::{Link, Outcome, wait_until};
use crate::{check, flavour};

/// A shared machine wakes nobody up in time.
pub const MARGIN: Duration = Duration::from_millis(700);
/// Priority 0 was heard on both links: the skew of priority 100.
pub const SKEW: Duration = Duration::from_millis(610);
/// Three advertisements of 1 s and the skew of priority 100.
pub const MASTER_DOWN: Duration = Duration::from_millis(3610);
/// The other claimant's next advertisement is heard.
pub const ADVERTISEMENT: Duration = Duration::from_secs(1);
/// Longer than the election that a host would begin if it heard nobody.
pub const QUIET: Duration = Duration::from_millis(3610 + 900);
/// Both programs end within that: keepalived waits a second, tandem closes a database.
const END_LIMIT: Duration = Duration::from_secs(20);

#[derive(Debug)]
pub struct Mixed {
    pub pair: Pair,
    /// The server that runs tandem; the other one runs keepalived.
    pub tandem: usize,
    /// The server that serves.
    pub master: usize,
    /// For how long both held an address, and were right to or could not help it.
    excused: Duration,
    /// What struck last, for a message.
    event: String,
}

impl Mixed {
    /// Both hosts up; tandem or keepalived was there first and serves, the other one is its backup.
    /// The server with the higher priority, 101 in both configurations, is server1.
    pub fn new(tandem: usize, is_tandem_master: bool) -> Outcome<Self> {
        let pair = Pair::new(flavour())?;
        let text = EXAMPLE.replacen("[peer] ", "[peer]\nkind = \"keepalived\" ", 1);
        pair.configure(tandem, &text)?;
        let priority = if tandem == 0 { 100 } else { 101 };
        foreign::configure(&pair.servers[1 - tandem].host, &Timing::V2, priority)?;
        let master = if is_tandem_master { tandem } else { 1 - tandem };
        let (excused, event) = (Duration::ZERO, "the start".to_owned());
        let mut mixed = Self { pair, tandem, master, excused, event };
        mixed.start(master)?;
        // A tandem that hears no frame at all listens for 35 s before it believes that.
        mixed.wait_holder(master, Duration::from_secs(60))?;
        mixed.start(1 - master)?;
        mixed.nobody_moves()?;
        Ok(mixed)
    }

    pub fn program(&self, number: usize) -> &'static str {
        if number == self.tandem { "tandem" } else { "keepalived" }
    }

    pub const fn is_tandem_master(&self) -> bool {
        self.master == self.tandem
    }

    pub const fn backup(&self) -> usize {
        1 - self.master
    }

    pub fn start(&mut self, number: usize) -> Outcome<()> {
        if number == self.tandem {
            self.pair.start_tandem(number)
        } else {
            foreign::start(&mut self.pair.servers[number].host)
        }
    }

    /// Ends in order; whoever calls starts it again.
    pub fn terminate(&self, number: usize) -> Outcome<()> {
        let file = if number == self.tandem { GUARD_PID } else { KEEPALIVED_PID };
        self.pair.servers[number].host.signal(file, Signal::SIGTERM)
    }

    /// Neither process gets to say anything: the child stands still while the parent is killed.
    /// (The other way round nsenter would stand still with the parent, and not see it end.)
    pub fn kill(&self, number: usize) -> Outcome<()> {
        let host = &self.pair.servers[number].host;
        let (parent, child) = self.processes(number);
        host.signal(child, Signal::SIGSTOP)?;
        host.signal(parent, Signal::SIGKILL)?;
        host.signal(child, Signal::SIGKILL)
    }

    /// The process that speaks VRRP.
    pub fn signal_speaker(&self, number: usize, signal: Signal) -> Outcome<()> {
        self.pair.servers[number].host.signal(self.processes(number).1, signal)
    }

    const fn processes(&self, number: usize) -> (&'static str, &'static str) {
        if number == self.tandem { (GUARD_PID, NODE_PID) } else { (KEEPALIVED_PID, VRRP_PID) }
    }

    pub fn start_again(&mut self, number: usize) -> Outcome<()> {
        let program = self.program(number);
        wait_until(&format!("{program} has ended"), END_LIMIT, || {
            self.pair.servers[number].host.ended(program).is_some()
        })?;
        self.start(number)
    }

    /// A firewall that drops the VRRP that a server receives, as CentOS 6 has it by default.
    pub fn deafen(&self, number: usize, is_deaf: bool) -> Outcome<()> {
        let commands: &[&str] = if is_deaf {
            &[
                "add table ip t",
                "add chain ip t in { type filter hook input priority 0; }",
                "add rule ip t in ip protocol 112 drop",
            ]
        } else {
            &["delete table ip t"]
        };
        let host = &self.pair.servers[number].host;
        commands.iter().try_for_each(|command| host.read(&["nft", command]).map(drop))
    }

    pub fn delete_address(&self, number: usize, vip: Ipv4Addr, link: Link) -> Outcome<()> {
        let address = format!("{vip}/24");
        let words = ["ip", "address", "del", address.as_str(), "dev", link.device()];
        self.pair.servers[number].host.read(&words).map(drop)
    }

    /// The addresses are on `holder` and on nobody else.
    pub fn wait_holder(&self, holder: usize, limit: Duration) -> Outcome<()> {
        let what = format!("{} alone has the addresses", self.program(holder));
        wait_until(&what, limit, || self.is_sole_holder(holder)).map(drop).map_err(|why| {
            let held = [0, 1].map(|it| self.pair.servers[it].held());
            format!("{why}; server1 has {:?}, server2 {:?}", held[0], held[1])
        })
    }

    pub fn is_sole_holder(&self, holder: usize) -> bool {
        self.pair.servers[holder].holds_all() && self.pair.servers[1 - holder].holds_none()
    }

    /// The backup gets the addresses within the theory's time and the margin, and is the master
    /// from here on. Whether the old master still has them is judged by `nobody_moves`.
    pub fn taken_over(
        &mut self,
        event: &str,
        table: &str,
        at: Instant,
        theory: Duration,
    ) -> Outcome<()> {
        let struck = self.program(self.master);
        let taker = self.backup();
        let left = (theory + MARGIN).saturating_sub(at.elapsed());
        let what = format!("{struck} master, {event}: {} takes over", self.program(taker));
        wait_until(&what, left, || self.pair.servers[taker].holds_all())?;
        self.master = taker;
        self.say(struck, event, table, at.elapsed());
        Ok(())
    }

    pub fn say(&mut self, master: &str, event: &str, table: &str, seen: Duration) {
        self.event = format!("{master} master, {event}");
        println!(
            "{master} master, {event}: keepalived's table {table}, seen {:.3} s, {} serves",
            seen.as_secs_f64(),
            self.program(self.master)
        );
    }

    /// The same for an event that moves nobody.
    pub fn stays(&mut self, event: &str, table: &str) -> Outcome<()> {
        let master = self.program(self.master);
        self.event = format!("{master} master, {event}");
        self.nobody_moves()?;
        println!("{master} master, {event}: keepalived's table {table}, seen: {master} serves on");
        Ok(())
    }

    /// For the time of an election the master alone has the addresses, and until then there never
    /// were two holders but for what was excused.
    pub fn nobody_moves(&mut self) -> Outcome<()> {
        std::thread::sleep(QUIET + foreign::phase());
        let event = &self.event;
        self.wait_holder(self.master, Duration::ZERO)
            .map_err(|why| format!("after {event}: {why}"))?;
        let two = self.pair.two_holders().saturating_sub(self.excused);
        check(two.is_zero(), || format!("after {event}: two holders for {two:?}"))
    }

    /// Two holders were unavoidable until now, or keepalived's doing.
    pub fn excuse(&mut self) {
        // An interval grows by samples, and a busy machine takes one late.
        std::thread::sleep(Duration::from_millis(100));
        self.excused = self.pair.two_holders();
    }

    /// Either of the two may serve after some events.
    pub fn wait_anyone(&mut self, limit: Duration) -> Outcome<()> {
        wait_until("one of the two alone has the addresses", limit, || {
            self.is_sole_holder(0) || self.is_sole_holder(1)
        })?;
        self.master = if self.is_sole_holder(0) { 0 } else { 1 };
        Ok(())
    }

    /// Makes the server the master, by an orderly end of the other one if need be.
    pub fn hand_to(&mut self, number: usize) -> Outcome<()> {
        if self.master != number {
            let old = self.master;
            self.terminate(old)?;
            self.wait_holder(number, SKEW + MARGIN)?;
            self.master = number;
            self.start_again(old)?;
            self.nobody_moves()?;
        }
        Ok(())
    }
}
