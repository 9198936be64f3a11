//! Clients that write numbered rows, and the data plane of each host that carries them.
//!
//! In: ARP, routes, time. Out: commits, acknowledgements that are remembered, facts for the node.
//! Must not: reach a database but through a host that holds the virtual address, and its routes.
//! Read first: design section 6; os/data.rs.
//!
//! ```text
//!  client --ARP view--> web of `via` --either php--> splitter of `php` --its Routes--> database
//!         <-------- acknowledged only when the answer comes all the way back --------
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use tandem::net::arp::{Arp, Mac, Operation};
use tandem::node::{DataPlane, Input};
use tandem::routes::{Flow, Routes, WebIntake};
use tandem::time::Instant;
use tandem::wire::{HostId, LinkId};

use super::kernel::mac_of;
use super::mysqld::{Gtid, Life, Payload, STUCK};
use super::semi_sync::{CLIENTS, Commit};
use super::wire::{CLIENT, Frame};
use super::world::{Event, World};

/// The data plane of one host: splitter and web front.
#[derive(Debug)]
pub struct Data {
    pub routes: Routes,
    /// Statements at the database, by the number of their row.
    open: BTreeSet<u64>,
    /// Requests that came in on a virtual address.
    web: BTreeSet<u64>,
    is_drained: bool,
    pub is_php_down: bool,
}

impl Default for Data {
    fn default() -> Self {
        Self {
            routes: Routes::unknown(),
            open: BTreeSet::new(),
            web: BTreeSet::new(),
            is_drained: false,
            is_php_down: false,
        }
    }
}

impl Data {
    pub fn facts(&self) -> DataPlane {
        DataPlane {
            is_web_drained: self.routes.web == WebIntake::Draining && self.is_drained,
            is_sql_quiet: self.routes.writes != Flow::Flowing && self.open.is_empty(),
            is_php_down: self.is_php_down,
            saved_digest: None,
        }
    }
}

#[derive(Debug)]
pub struct Client {
    vip: Ipv4Addr,
    /// The ARP cache's one entry.
    pub view: Option<Mac>,
    next: u64,
    /// Acknowledged rows: the transaction and when.
    pub acknowledged: BTreeMap<u64, (Gtid, Instant)>,
    pub last_acknowledged_at: Instant,
    failures: u32,
    pub is_writing: bool,
}

impl Client {
    pub fn new(vip: IpAddr) -> Self {
        let IpAddr::V4(vip) = vip else { panic!("the example has IPv4 addresses") };
        Self {
            vip,
            view: None,
            next: 1,
            acknowledged: BTreeMap::new(),
            last_acknowledged_at: Instant::ZERO,
            failures: 0,
            is_writing: true,
        }
    }

    pub fn learn(&mut self, arp: &Arp) {
        if arp.sender == self.vip {
            self.view = Some(arp.sender_mac);
        }
    }
}

/// One write, wherever it is at the moment. Runs tell whether a process is still the same.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    row: u64,
    via: HostId,
    via_run: u64,
    php: HostId,
    php_run: u64,
    gives_up_at: Instant,
    stage: Stage,
}

#[derive(Debug, Clone, Copy)]
enum Stage {
    AtWeb,
    AtSplitter,
    AtDatabase {
        source: HostId,
    },
    /// Logged, or about to be; the replica does not have it yet.
    Committing {
        source: HostId,
        run: u64,
    },
    /// The answer is on its way to the splitter.
    Answered {
        source: HostId,
        result: Option<Gtid>,
    },
}

/// The splitter's own limit for a held statement (`sql.hold_limit`).
const HOLD_LIMIT: Duration = Duration::from_secs(10);
/// Whoever kills statements that take long: two looks must have seen that they wait.
const KILLED_AFTER: Duration = Duration::from_secs(2);
/// A connection to a server that does not answer is lost after this.
const SERVER_SILENCE: Duration = Duration::from_secs(5);
/// A client asks by ARP again when this many writes in a row came to nothing.
const FAILURES_MAX: u32 = 5;

impl World {
    pub fn client_tick(&mut self) {
        let pause = 40 + self.rng.below(120);
        self.after(Duration::from_millis(pause), Event::ClientTick);
        if !self.client.is_writing {
            return;
        }
        self.client.failures += 1;
        if self.client.failures > FAILURES_MAX {
            self.client.failures = 0;
            self.ask_arp();
        }
        let vip = self.client.vip;
        let view = self.client.view;
        let found = HostId::ALL
            .into_iter()
            .find(|host| view == Some(mac_of(host.index(), LinkId::Outside)));
        let Some(via) = found else { return };
        let host = &self.hosts[via.index()];
        let is_there = host.is_awake() && host.kernel.holds(LinkId::Outside, vip.into());
        let passes = self.links[LinkId::Outside.index()].passes(CLIENT, via.index());
        if !is_there || !passes || host.process.is_none() {
            return;
        }
        let row = self.client.next;
        self.client.next += 1;
        let request = Request {
            row,
            via,
            via_run: host.run,
            php: via,
            php_run: host.run,
            gives_up_at: self.now + HOLD_LIMIT,
            stage: Stage::AtWeb,
        };
        self.after(Duration::from_micros(300), Event::Request(request));
    }

    fn ask_arp(&mut self) {
        let request = Arp {
            operation: Operation::Request,
            sender_mac: mac_of(CLIENT, LinkId::Outside),
            sender: Ipv4Addr::new(10, 96, 153, 1),
            target_mac: Mac([0; 6]),
            target: self.client.vip,
        };
        self.client.view = None;
        self.send(LinkId::Outside, CLIENT, &Frame::Arp(request.emit().to_vec()));
    }

    /// Moves a request on, as far as it goes at this instant.
    pub fn advance(&mut self, mut request: Request) {
        let is_stalled = |host: HostId| {
            let host = &self.hosts[host.index()];
            host.process.is_some() && !host.is_running()
        };
        if is_stalled(request.via) || is_stalled(request.php) {
            // It waits in a socket buffer; what has reached the database is executed there.
            if !matches!(request.stage, Stage::AtDatabase { .. } | Stage::Committing { .. }) {
                self.again(request, 20);
                return;
            }
        }
        match request.stage {
            Stage::AtWeb => {
                if !self.is_same(request.via, request.via_run) {
                    return;
                }
                let data = &mut self.host(request.via).data;
                if data.routes.web == WebIntake::Draining {
                    return;
                }
                data.web.insert(request.row);
                request.php = self.choose_php(request.via);
                if self.hosts[request.php.index()].data.is_php_down {
                    return self.forget(&request);
                }
                request.php_run = self.hosts[request.php.index()].run;
                request.stage = Stage::AtSplitter;
                self.again(request, 1);
            }
            Stage::AtSplitter => self.at_splitter(request),
            Stage::AtDatabase { source } => self.at_database(request, source),
            Stage::Committing { source, run } => self.committing(request, source, run),
            Stage::Answered { source, result } => self.answered(&request, source, result),
        }
    }

    fn again(&mut self, request: Request, milliseconds: u64) {
        let jitter = self.rng.below(500);
        let delay = Duration::from_millis(milliseconds) + Duration::from_micros(jitter);
        self.after(delay, Event::Request(request));
    }

    fn is_same(&self, host: HostId, run: u64) -> bool {
        let host = &self.hosts[host.index()];
        host.run == run && host.process.is_some()
    }

    /// One request in three is answered by the other host's php, where it is thought to be alive.
    fn choose_php(&mut self, via: HostId) -> HostId {
        let other = via.other();
        let is_alive = self.hosts[via.index()].data.routes.is_host_alive[other.index()];
        let reaches = self.path(LinkId::Inside, via.index(), other.index());
        let is_down = |host: HostId| self.hosts[host.index()].data.is_php_down;
        let may_go =
            is_alive && reaches && self.hosts[other.index()].is_running() && !is_down(other);
        let goes = self.rng.below(3) == 0 || is_down(via);
        if goes && may_go { other } else { via }
    }

    fn at_splitter(&mut self, mut request: Request) {
        if !self.is_same(request.php, request.php_run) || self.now > request.gives_up_at {
            self.forget(&request);
            return;
        }
        let data = &mut self.host(request.php).data;
        match (data.routes.writes, data.routes.source) {
            (Flow::Flowing, Some(source)) => {
                data.open.insert(request.row);
                request.stage = Stage::AtDatabase { source };
                request.gives_up_at = self.now + SERVER_SILENCE;
                // Most statements are short.
                let long = if self.rng.below(20) == 0 { self.rng.below(300) } else { 0 };
                self.again(request, 1 + long);
            }
            (Flow::Flowing | Flow::Held { .. }, _) => self.again(request, 20),
        }
    }

    fn at_database(&mut self, mut request: Request, source: HostId) {
        let reaches = self.reaches_database(request.php, source);
        let now = self.now;
        let host = self.host(source);
        let is_awake = host.is_awake();
        let database = &mut host.database;
        let result = match database.life {
            Life::Down if reaches => None,
            _ if !reaches || !is_awake => {
                if now < request.gives_up_at {
                    self.again(request, 50);
                } else {
                    request.stage = Stage::Answered { source, result: None };
                    self.advance(request);
                }
                return;
            }
            Life::Hung => {
                self.again(request, 50);
                return;
            }
            Life::Up if database.is_closing => {
                self.again(request, 20);
                return;
            }
            Life::Up if database.read_only => None,
            Life::Up if database.is_full => {
                database.writer.get_or_insert(STUCK);
                self.again(request, 50);
                return;
            }
            Life::Up if database.semi_sync.is_crowded() => None,
            Life::Up => {
                let run = database.run;
                let gtid = database.enter(now, CLIENTS + request.row, Payload::Row(request.row));
                if gtid.is_none() {
                    request.stage = Stage::Committing { source, run };
                    self.again(request, 5);
                    return;
                }
                gtid
            }
            Life::Down => None,
        };
        request.stage = Stage::Answered { source, result };
        self.check_backed(source, result);
        self.again(request, 1);
    }

    /// It waits for the replica as long as the server says nothing and the connection stands.
    fn committing(&mut self, mut request: Request, source: HostId, run: u64) {
        let reaches = self.reaches_database(request.php, source);
        let (now, has_killers) = (self.now, self.plan.has_killers);
        let host = self.host(source);
        let is_awake = host.is_awake();
        let database = &mut host.database;
        let is_gone = database.life == Life::Down || database.run != run;
        let waits = !reaches || !is_awake || database.life == Life::Hung;
        let waits_since = database.semi_sync.waits_since();
        let is_late = waits_since.is_some_and(|since| now.since(since) >= KILLED_AFTER);
        if has_killers && !waits && !is_gone && is_late {
            database.end_commit(now, CLIENTS + request.row);
        }
        let result = match (waits, is_gone) {
            (true, _) if !reaches && now >= request.gives_up_at => None,
            (true, _) => return self.again(request, 20),
            (false, true) => None,
            (false, false) => match database.how_stands(CLIENTS + request.row) {
                Commit::Waits => return self.again(request, 5),
                Commit::Ended(gtid) => Some(gtid),
                Commit::Lost => None,
            },
        };
        request.stage = Stage::Answered { source, result };
        self.check_backed(source, result);
        self.again(request, 1);
    }

    /// The way back. An answer to a statement that the splitter gave up is nobody's.
    fn answered(&mut self, request: &Request, source: HostId, result: Option<Gtid>) {
        let is_open = self.is_same(request.php, request.php_run)
            && self.host(request.php).data.open.contains(&request.row);
        let comes_back = self.reaches_database(request.php, source)
            && self.is_same(request.via, request.via_run)
            && (request.php == request.via
                || self.path(LinkId::Inside, request.php.index(), request.via.index()))
            && self.links[LinkId::Outside.index()].passes(request.via.index(), CLIENT)
            && self.hosts[request.via.index()].is_awake();
        if let (true, true, Some(gtid)) = (is_open, comes_back, result) {
            self.client.acknowledged.insert(request.row, (gtid, self.now));
            self.client.last_acknowledged_at = self.now;
            self.client.failures = 0;
            self.check_taken_back(source, request.row);
            self.check_acknowledged(source, gtid);
        }
        self.forget(request);
    }

    fn forget(&mut self, request: &Request) {
        let before = HostId::ALL.map(|host| self.hosts[host.index()].data.facts());
        if self.is_same(request.php, request.php_run) {
            self.host(request.php).data.open.remove(&request.row);
        }
        if self.is_same(request.via, request.via_run) {
            self.host(request.via).data.web.remove(&request.row);
        }
        for host in HostId::ALL {
            self.tell_facts(host, before[host.index()]);
        }
    }

    fn tell_facts(&mut self, host: HostId, before: DataPlane) {
        let facts = self.hosts[host.index()].data.facts();
        if facts != before {
            let run = self.hosts[host.index()].run;
            let delay = Duration::from_micros(self.rng.below(3000));
            self.after(delay, Event::Input { host, run, input: Input::DataPlane(facts) });
        }
    }

    pub fn set_php(&mut self, host: HostId, is_down: bool) {
        let before = self.hosts[host.index()].data.facts();
        self.host(host).data.is_php_down = is_down;
        self.tell_facts(host, before);
    }

    // ---- routes ----------------------------------------------------------------------------

    pub fn set_routes(&mut self, host: HostId, routes: Routes) {
        let run = self.hosts[host.index()].run;
        let version = routes.version;
        if let Flow::Held { open_limit } = routes.writes {
            self.after(open_limit, Event::OpenLimit { host, run, version });
        }
        let data = &mut self.host(host).data;
        let drains = routes.web == WebIntake::Draining;
        if drains && data.routes.web != WebIntake::Draining {
            // WEB_DRAIN_GRACE, then as long as requests take.
            let delay = 300 + self.rng.below(200);
            self.after(Duration::from_millis(delay), Event::WebDrained { host, run });
        }
        let data = &mut self.host(host).data;
        data.is_drained &= drains;
        data.routes = routes;
    }

    /// Sessions with an open statement are closed; what it does at the database is not known.
    pub fn open_limit(&mut self, host: HostId, run: u64, version: u64) {
        if !self.is_same(host, run) || self.hosts[host.index()].data.routes.version != version {
            return;
        }
        let before = self.hosts[host.index()].data.facts();
        self.host(host).data.open.clear();
        self.tell_facts(host, before);
    }

    pub fn web_drained(&mut self, host: HostId, run: u64) {
        if !self.is_same(host, run) {
            return;
        }
        let before = self.hosts[host.index()].data.facts();
        let data = &mut self.host(host).data;
        if data.web.is_empty() {
            data.is_drained = true;
            self.tell_facts(host, before);
        } else {
            self.after(Duration::from_millis(20), Event::WebDrained { host, run });
        }
    }
}
