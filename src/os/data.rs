//! The data plane: the web front and the SQL splitter on one epoll.
//!
//! In: `Routes`, readiness. Out: what it has come to, its status.
//! Must not: wait longer than it is told.
//! Read first: `plane`; design section 6.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::Duration;

use super::plane::{Plane, Ready, Service, Turn, Waited};
use super::serve_sql::{self, ServeSql};
use super::serve_web::{self, ServeWeb};
use super::{clock, file};
use crate::config::{Config, is_link_local};
use crate::console::note::Note;
use crate::console::status::{PhpStatus, SqlStatus, WebStatus};
use crate::limits;
use crate::node::DataPlane;
use crate::os::notes;
use crate::routes::{Flow, Routes, WebIntake};
use crate::time::{Instant, earliest};
use crate::wire::{HostId, LinkId};

#[derive(Debug)]
pub struct Data {
    plane: Plane,
    web: ServeWeb,
    sql: ServeSql,
    buffer: Vec<u8>,
    ready: Vec<Ready>,
    routes: Routes,
    rates: Rates,
    /// The configuration in use, as `tandem config` shows it.
    effective: String,
}

/// How many of each a second.
#[derive(Debug)]
struct Rates {
    since: Instant,
    counts: [u64; 2],
    last: [u64; 2],
}

impl Rates {
    const SPAN: Duration = Duration::from_secs(1);

    fn roll(&mut self, now: Instant, counts: [u64; 2]) {
        if now.since(self.since) >= Self::SPAN {
            *self = Self { since: now, counts, last: self.until(now, counts) };
        }
    }

    /// In the last whole second; over a longer time if nothing turned since.
    fn per_second(&self, now: Instant, counts: [u64; 2]) -> [u64; 2] {
        let is_old = now.since(self.since) >= 2 * Self::SPAN;
        if is_old { self.until(now, counts) } else { self.last }
    }

    fn until(&self, now: Instant, counts: [u64; 2]) -> [u64; 2] {
        let ms = u64::try_from(now.since(self.since).as_millis()).unwrap_or(u64::MAX).max(1);
        let [a, b] = counts;
        let [a_before, b_before] = self.counts;
        [(a - a_before) * 1000 / ms, (b - b_before) * 1000 / ms]
    }
}

/// What one turn left behind.
#[derive(Debug)]
pub struct Turned {
    pub facts: DataPlane,
    /// Something was ready, so that more will be soon.
    pub is_busy: bool,
    /// The shift is over (`begin_shift`).
    pub has_rung: bool,
    /// Something stopped for its budget: turn again without waiting.
    pub has_more: bool,
}

impl Data {
    pub fn open(config: &Config, path: &str, me: HostId) -> io::Result<Self> {
        let plane = Plane::new()?;
        let inside = HostId::ALL.map(|host| config.host(host).inside_address());
        let names = HostId::ALL.map(|host| config.host(host).name.clone());
        let mut php = inside.map(|address| (address, config.web.php_port).into());
        php[me.index()] = ([127, 0, 0, 1], config.web.php_port).into();
        let own = IpAddr::from(config.host(me).address(LinkId::Outside).address);
        // A link-local address is VRRP's; programs would have to name the interface with it.
        let vips = config.link(LinkId::Outside).vip.iter().map(|vip| vip.address.address);
        let vips = vips.filter(|address| !is_link_local(*address)).map(|address| (address, true));
        let addresses: Vec<_> = std::iter::once((own, false)).chain(vips).collect();
        let on = |port: u16| {
            let listen = addresses.iter();
            listen.map(|&(address, is_virtual)| ((address, port).into(), is_virtual)).collect()
        };
        let (listen, listen_ssl) = (on(config.web.port), on(config.web.ssl_port));
        let port = config.web.php_status_port;
        let php_status = php.map(|php: SocketAddr| Some((php.ip(), port?).into()));
        let other = config.host(me.other());
        let others = LinkId::ALL.map(|link| IpAddr::from(other.address(link).address));
        let fastcgi = config.web.fastcgi_listen.iter();
        let fastcgi = fastcgi.filter(|place| place.is_of_host(others)).cloned().collect();
        let site = serve_web::Site {
            me,
            listen,
            listen_ssl,
            fastcgi,
            inside: inside.map(IpAddr::from),
            php,
            php_status,
            server_names: names,
        };
        let web = ServeWeb::new(&config.web, site, &plane)?;
        let servers = inside.map(|address| (address, config.repl.port).into());
        let source = Some(serve_sql::Source::new(path, config));
        let site = serve_sql::Site { me, servers, source };
        let sql = ServeSql::new(&config.sql, site, &plane)?;
        Ok(Self {
            plane,
            web,
            sql,
            buffer: vec![0; limits::READ_BUFFER_BYTES],
            ready: Vec::with_capacity(limits::PLANE_EVENTS_PER_TURN),
            routes: Routes::unknown(),
            rates: Rates { since: clock::now(), counts: [0; 2], last: [0; 2] },
            effective: config.effective(),
        })
    }

    /// A second descriptor of the same epoll, for the loop to wait on.
    pub fn epoll(&self) -> io::Result<OwnedFd> {
        self.plane.epoll().try_clone()
    }

    /// Takes new routes; returns what holds under them.
    pub fn set_routes(&mut self, now: Instant, routes: &Routes) -> DataPlane {
        self.routes = routes.clone();
        let mut turn = Turn { now, plane: &self.plane, buffer: &mut self.buffer };
        self.web.set_routes(&mut turn, routes);
        self.sql.set_routes(&mut turn, routes);
        self.facts()
    }

    /// Reads the configuration's file again and takes its section `[web]`; whatever is refused, all
    /// stays as it was. Requests under way end as they began.
    pub fn reload(&mut self, now: Instant) -> Result<String, String> {
        let known = self.sql.source().ok_or("this daemon was started without a file")?;
        let path = known.path.display().to_string();
        let config = file::load_config(&path)?;
        let mut changed = config.sections.differing(&known.sections);
        changed.retain(|name| name != "web");
        if !changed.is_empty() {
            return Err(format!(
                "{path}: [{}] changed too, which takes a restart of the daemon; nothing was taken",
                changed.join("], [")
            ));
        }
        let mut turn = Turn { now, plane: &self.plane, buffer: &mut self.buffer };
        self.web.reload(&mut turn, &config.web).map_err(|why| format!("{path}: {why}"))?;
        self.sql.set_source(serve_sql::Source::new(path.as_str(), &config));
        self.effective = config.effective();
        Ok(format!("{path} is in use here: both hosts must have one text"))
    }

    /// The configuration in use, without secrets.
    #[must_use]
    pub fn effective(&self) -> &str {
        &self.effective
    }

    /// A busy data plane waits for its next event itself, until this shift is over.
    pub fn begin_shift(&self) -> io::Result<()> {
        let now = clock::now();
        let left = self.deadline().map_or(limits::PLANE_SHIFT, |at| at.since(now));
        self.plane.set_alarm(left.clamp(limits::PLANE_SHIFT_MIN, limits::PLANE_SHIFT))
    }

    /// Serves what is ready, a bounded amount; with `waits`, in a shift, waits for something.
    pub fn turn(&mut self, waits: bool) -> Turned {
        let waited = self.plane.take(&mut self.ready, waits).unwrap_or_else(|error| {
            notes::tell(&Note::SocketTrouble { what: format!("epoll: {error}") });
            // Whoever asked to wait must not be asked again at once.
            Waited { has_more: false, has_rung: true }
        });
        let mut has_more = waited.has_more;
        let now = clock::now();
        let is_busy = !self.ready.is_empty();
        self.rates.roll(now, self.counts());
        let mut turn = Turn { now, plane: &self.plane, buffer: &mut self.buffer };
        for ready in &self.ready {
            match ready.key.service {
                Service::Web => self.web.ready(&mut turn, *ready),
                Service::Sql => self.sql.ready(&mut turn, *ready),
            }
        }
        has_more |= self.web.resume(&mut turn);
        has_more |= self.sql.resume(&mut turn);
        if self.web.deadline().is_some_and(|at| at <= now) {
            self.web.expire(&mut turn);
        }
        if self.sql.deadline().is_some_and(|at| at <= now) {
            self.sql.expire(&mut turn);
        }
        Turned { facts: self.facts(), is_busy, has_rung: waited.has_rung, has_more }
    }

    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        earliest(self.web.deadline(), self.sql.deadline())
    }

    #[must_use]
    pub fn has_programs(&self) -> bool {
        self.sql.status().sessions > 0
    }

    /// Both services at a glance, for the status screen.
    #[must_use]
    pub fn status(&self) -> (SqlStatus, WebStatus) {
        let (sql, web) = (self.sql.status(), self.web.status());
        let [statements, requests] = self.rates.per_second(clock::now(), self.counts());
        let php = web
            .peers
            .into_iter()
            .map(|peer| PhpStatus {
                host: peer.name,
                is_up: peer.is_up,
                reason: peer.reason,
                is_draining: peer.is_draining,
                in_flight: peer.in_flight,
                requests: peer.requests,
                idle: peer.idle,
            })
            .collect();
        let sql = SqlStatus {
            sessions: sql.sessions,
            held: sql.held,
            queries_to_source: sql.queries_to_source,
            queries_to_replica: sql.queries_to_replica,
            pooled: sql.pooled,
            per_second: statements,
            logins: sql.logins,
            held_total: sql.held_total,
            retried: sql.retried,
            blocked: sql.blocked,
            slow: sql.slow,
            errors: sql.errors,
            refused: sql.refused,
        };
        let web = WebStatus {
            connections: web.connections,
            requests: web.requests,
            per_second: requests,
            by_class: web.by_class,
            in_flight: web.in_flight,
            queued: web.queued,
            php,
        };
        (sql, web)
    }

    /// Statements and requests since the start.
    const fn counts(&self) -> [u64; 2] {
        [self.sql.statements(), self.web.requests()]
    }

    fn facts(&self) -> DataPlane {
        DataPlane {
            is_web_drained: self.routes.web == WebIntake::Draining && self.web.is_drained(),
            is_sql_quiet: self.routes.writes != Flow::Flowing && self.sql.is_quiet(),
            is_php_down: self.web.is_php_down(),
            saved_digest: self.sql.saved_digest(),
        }
    }
}
