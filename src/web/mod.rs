//! The web front: static files answered here, PHP balanced over both hosts' php-fpm by FastCGI; and
//! the FastCGI port, by which a web server in front has the second part alone.
//!
//! In: section `[web]`. Out: the machines below, which `os::serve_web` drives.
//! Must not: touch sockets, files or clocks. Read first: facts/web.md, "The ten facts"; `session`
//! for a connection, `exchange` for the life of a PHP request, `upstream` for who gets it.
//!
//! Where a request goes:
//! ```text
//!  HTTP     https, proxy -> session -> request -> serve -> site, access, path, lookup
//!                                                  |-> files, coding, reply      a file, a page
//!                                                  \-> body, params, exchange    a PHP request
//!  FastCGI  place -> session -> port -> gateway -----------> exchange            the same
//!  whose    limit -> upstream -> sticky, balance, keepalive; probe tells who is up
//!  answer   fastcgi -> exchange -> response: answer (HTTP), forward (records) -> relay
//!  the end  finish -> log, and the next request; `rules` is what all of it goes by
//! ```

pub mod access;
pub mod answer;
pub mod balance;
pub mod body;
pub mod coding;
pub mod exchange;
pub mod fastcgi;
pub mod files;
mod finish;
pub mod forward;
mod gateway;
pub mod https;
pub mod keepalive;
pub mod limit;
pub mod log;
pub mod lookup;
pub mod origin;
pub mod params;
pub mod path;
pub mod place;
pub mod port;
pub mod probe;
pub mod proxy;
mod queue;
mod relay;
pub mod reply;
pub mod request;
pub mod response;
pub mod rules;
mod running;
mod serve;
pub mod session;
pub mod site;
pub mod sticky;
pub mod upstream;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::limits;
use crate::units::{self, ByteCount, Cidr};
use crate::wire::HostId;

use balance::Balance;
use place::Place;
use sticky::Sticky;

/// In `php_backup`: on each host the other one.
const PEER: &str = "peer";

/// Section `[web]`: the front that replaces nginx.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// TCP port of HTTP on the outside address of the host and on every outside VIP (nginx:
    /// listen).
    pub port: u16,
    /// TCP port of HTTPS on the same addresses, where there is a certificate (nginx: listen with
    /// ssl).
    pub ssl_port: u16,
    /// Certificate chain in PEM form, the host's own first: a file at the same path on both hosts.
    /// A file that changes is taken without a restart (nginx: ssl_certificate).
    pub ssl_certificate: Option<String>,
    /// The private key of `ssl_certificate` in PEM form, likewise (nginx: ssl_certificate_key).
    pub ssl_certificate_key: Option<String>,
    /// Versions of TLS that are spoken (nginx: ssl_protocols).
    pub ssl_protocols: Vec<https::Protocol>,
    /// Whether everything on the plain port is answered with 301 to HTTPS (nginx: return 301
    /// https://$host$request_uri).
    pub ssl_redirect: bool,
    /// How long browsers shall come in HTTPS only (nginx: add_header Strict-Transport-Security);
    /// "0s" makes them forget it, and without it they are told nothing.
    #[serde(with = "units::some_duration")]
    pub hsts_max_age: Option<Duration>,
    /// Document root, the same path on both hosts (nginx: root).
    pub root: String,
    /// Index files, in order of preference (nginx: index).
    pub index: Vec<String>,
    /// Whether a path that names no file runs `/index.php` (nginx: try_files $uri $uri/
    /// /index.php?$query).
    pub front_controller: bool,
    /// HTML files to answer with in place of the small pages, by status, as in
    /// `error_page = { 503 = "/etc/tandem/503.html" }`; read at the start (nginx: error_page).
    pub error_page: BTreeMap<String, String>,
    /// Path prefixes that nobody gets anything of: 403 (nginx: deny all).
    pub deny: Vec<String>,
    /// What holds at and below a path: who is let in, how much may be sent (nginx: location).
    pub location: Vec<access::Location>,
    /// Path prefixes below which no script is run, for what visitors can upload.
    pub no_execute: Vec<String>,
    /// Paths that are somewhere else (nginx: return, rewrite).
    pub redirect: Vec<site::Redirect>,
    /// Virtual hosts; every other host gets what this section says (nginx: server).
    #[serde(rename = "site")]
    pub sites: Vec<site::Config>,
    /// Networks of proxies in front whose X-Forwarded-For and X-Forwarded-Proto are believed
    /// (nginx: set_real_ip_from, with real_ip_recursive).
    pub set_real_ip_from: Vec<Cidr>,
    /// Whether connections from the networks of `set_real_ip_from` begin with a PROXY protocol
    /// header, version 1 or 2 (nginx: listen ... proxy_protocol).
    pub proxy_protocol: bool,
    /// Whether PHP's text is compressed for clients that take it (nginx: gzip, level 1).
    pub gzip: bool,
    /// Answers of PHP shorter than this are not compressed (nginx: gzip_min_length).
    pub gzip_min_length: ByteCount,
    /// Whether a file's `.br` or `.gz` beside it is sent instead to clients that take it (nginx:
    /// gzip_static). It costs a look more for every text file.
    pub gzip_static: bool,
    /// TCP port of php-fpm on both hosts: 127.0.0.1 here, the inside address there.
    pub php_port: u16,
    /// Requests at once to one host's php-fpm; more wait here. Below its pm.max_children, so that
    /// a ping finds a worker free: a host where all are busy for long looks like a hung one.
    pub php_requests_max: usize,
    /// TCP port of php-fpm's pm.status_listen on both hosts; none if it is not set up. Its process
    /// answers while all workers are busy: such a host is not taken for a hung one, and the cap
    /// follows the workers of a static pool, less one.
    pub php_status_port: Option<u16>,
    /// Path of the status at `php_status_port` (php-fpm: pm.status_path).
    pub php_status_path: String,
    /// How both hosts' php-fpm share the requests: by turns and weight, or to the host with the
    /// fewest for its weight (nginx: upstream, least_conn).
    pub balance: Balance,
    /// By host name: its share, 1 to 1000; 1 where nothing is said (nginx: server ... weight).
    pub php_weight: BTreeMap<String, u16>,
    /// The host whose php-fpm gets only what the other's cannot take, being out or full; "peer" on
    /// each host for the other one; empty for none (nginx: server ... backup).
    pub php_backup: String,
    /// Whether a client stays with one host: by a cookie of ours, or by its network (nginx: sticky
    /// cookie, ip_hash).
    pub sticky: Sticky,
    /// Name of the cookie of `sticky`.
    pub sticky_cookie: String,
    /// Connections to this host's php-fpm that may wait for a next request (nginx: keepalive); 0:
    /// a connection for each request, the default. Together with the requests they stay below
    /// `php_requests_max`; the other host's php-fpm is left to its own front.
    pub keepalive: usize,
    /// How long a connection of `keepalive` may wait, "250ms" at most: it occupies a worker of
    /// php-fpm meanwhile (nginx: keepalive_timeout).
    #[serde(with = "units::duration")]
    pub keepalive_idle: Duration,
    /// How long a host's php-fpm that returns gets less than its share, from nearly nothing up: its
    /// caches are cold (nginx: slow_start).
    #[serde(with = "units::duration")]
    pub slow_start: Duration,
    /// How long a request may wait for a free php-fpm worker before it gets 503.
    #[serde(with = "units::duration")]
    pub queue_limit: Duration,
    /// Time limit of a connection to php-fpm, before the other host is tried (nginx:
    /// fastcgi_connect_timeout).
    #[serde(with = "units::duration")]
    pub connect_limit: Duration,
    /// Time limit between two reads of php-fpm's answer (nginx: fastcgi_read_timeout).
    #[serde(with = "units::duration")]
    pub answer_limit: Duration,
    /// Time limit for a request's header, and between two reads of its body.
    #[serde(with = "units::duration")]
    pub request_limit: Duration,
    /// An idle kept-alive client is closed after this (nginx: keepalive_timeout).
    #[serde(with = "units::duration")]
    pub idle_limit: Duration,
    /// Largest request body; larger gets 413 (nginx: client_max_body_size).
    pub body_max: ByteCount,
    /// Client connections at once; one more is closed at once.
    pub connections_max: usize,
    /// Client connections at once by one address, a /64 of IPv6; one more gets 503; 0: no limit
    /// (nginx: limit_conn). Those of `set_real_ip_from` count by what the PROXY protocol says, and
    /// else not at all, for one of them serves many clients.
    pub connections_max_per_client: usize,
    /// How often one client may ask for PHP, as in "10r/s" or "30r/m"; more gets 503 (nginx:
    /// limit_req).
    pub limit_req: Option<limit::Rate>,
    /// Requests that may be ahead of `limit_req` (nginx: limit_req ... burst, with nodelay).
    pub limit_req_burst: u32,
    /// Access log in combined format with upstream, time and tries; empty for none.
    pub access_log: String,
    /// Where a web server in front finds PHP on both hosts as if it were one php-fpm, as in
    /// `["127.0.0.1:9001", "unix:/run/tandem-php.sock"]`; none if empty. An address of the other
    /// host is opened there only (nginx: fastcgi_pass; php-fpm: listen).
    pub fastcgi_listen: Vec<Place>,
    /// Networks that may reach `fastcgi_listen`, beside loopback and the inside addresses of the
    /// pair (php-fpm: listen.allowed_clients). Whoever may runs code on both hosts.
    pub fastcgi_allow: Vec<Cidr>,
    /// Group of the unix sockets of `fastcgi_listen`, whose mode is 0660 (php-fpm: listen.group).
    pub fastcgi_group: String,
    /// Whether the web server in front may change PHP's settings by the parameters PHP_VALUE and
    /// PHP_ADMIN_VALUE; else they are dropped.
    pub fastcgi_php_value: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            port: 80,
            ssl_port: 443,
            ssl_certificate: None,
            ssl_certificate_key: None,
            ssl_protocols: vec![https::Protocol::Tls12, https::Protocol::Tls13],
            ssl_redirect: false,
            hsts_max_age: None,
            root: "/var/www/html".into(),
            index: vec!["index.php".into(), "index.html".into()],
            front_controller: false,
            error_page: BTreeMap::new(),
            deny: Vec::new(),
            location: Vec::new(),
            no_execute: Vec::new(),
            redirect: Vec::new(),
            sites: Vec::new(),
            set_real_ip_from: Vec::new(),
            proxy_protocol: false,
            gzip: true,
            gzip_min_length: ByteCount(1024),
            gzip_static: false,
            php_port: 9000,
            php_requests_max: 16,
            php_status_port: None,
            php_status_path: "/status".into(),
            balance: Balance::RoundRobin,
            php_weight: BTreeMap::new(),
            php_backup: String::new(),
            sticky: Sticky::Off,
            sticky_cookie: "srv_id".into(),
            keepalive: 0,
            keepalive_idle: Duration::from_millis(100),
            slow_start: Duration::from_secs(10),
            queue_limit: Duration::from_secs(10),
            connect_limit: Duration::from_millis(250),
            answer_limit: Duration::from_secs(60),
            request_limit: Duration::from_secs(30),
            idle_limit: Duration::from_secs(65),
            body_max: ByteCount(64 << 20),
            connections_max: 4096,
            connections_max_per_client: 0,
            limit_req: None,
            limit_req_burst: 0,
            access_log: String::new(),
            fastcgi_listen: Vec::new(),
            fastcgi_allow: Vec::new(),
            fastcgi_group: "www-data".into(),
            fastcgi_php_value: false,
        }
    }
}

impl Config {
    pub(crate) fn weight(&self, hosts: &upstream::Hosts<'_>, host: HostId) -> u16 {
        self.php_weight.get(&hosts.names[host.index()]).copied().unwrap_or(1)
    }

    /// The host that is a backup for the other one, as this host sees it.
    pub(crate) fn backup(&self, hosts: &upstream::Hosts<'_>) -> Option<HostId> {
        if self.php_backup == PEER {
            return Some(hosts.me.other());
        }
        HostId::ALL.into_iter().find(|host| hosts.names[host.index()] == self.php_backup)
    }

    /// What is wrong with its balancing, given the names of the hosts.
    pub fn check_hosts(&self, names: [&str; 2]) -> Result<(), String> {
        for (name, weight) in &self.php_weight {
            if !names.contains(&name.as_str()) {
                return Err(format!(
                    "web.php_weight: there is no host {name:?}: write {} or {}",
                    names[0], names[1]
                ));
            }
            if !(1..=balance::WEIGHT_MAX).contains(weight) {
                return Err(format!(
                    "web.php_weight: {name} = {weight}: write 1 to {}; `php_backup` or `tandem php \
                     drain` for none",
                    balance::WEIGHT_MAX
                ));
            }
        }
        let backup = self.php_backup.as_str();
        if !backup.is_empty() && backup != PEER && !names.contains(&backup) {
            return Err(format!(
                "web.php_backup: there is no host {backup:?}: write {}, {} or \"{PEER}\"",
                names[0], names[1]
            ));
        }
        Ok(())
    }

    /// What is wrong with it, and what to write instead.
    /// `inside`: the pair's addresses on the inside link.
    pub fn check(&self, inside: &[IpAddr]) -> Result<(), String> {
        for (status, path) in &self.error_page {
            let is_status = status.parse::<u16>().is_ok_and(|status| (400..600).contains(&status));
            if !is_status || !path.starts_with('/') {
                return Err(format!(
                    "web.error_page: {status} = {path:?}: write a status from 400 to 599 and an \
                     absolute path"
                ));
            }
        }
        if self.proxy_protocol && self.set_real_ip_from.is_empty() {
            return Err("web.proxy_protocol: write who may speak it into set_real_ip_from".into());
        }
        if !sticky::is_name(&self.sticky_cookie) {
            return Err(format!(
                "web.sticky_cookie: {:?} is no name of a cookie: write letters, digits, _ and -",
                self.sticky_cookie
            ));
        }
        if self.limit_req_burst > 0 && self.limit_req.is_none() {
            return Err("web.limit_req_burst: needs limit_req, as in \"10r/s\"".into());
        }
        if self.keepalive_idle > limits::WEB_KEEP_AGE_MAX {
            return Err(format!(
                "web.keepalive_idle: a kept connection occupies a worker of php-fpm: write {} ms \
                 or less",
                limits::WEB_KEEP_AGE_MAX.as_millis()
            ));
        }
        place::check(&self.fastcgi_listen, &self.fastcgi_allow, inside)?;
        https::check(self)?;
        site::check(self)
    }
}

/// What the front says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Requests answered since the start.
    pub requests: u64,
    /// Of these, by first digit of the status: 1xx to 5xx.
    pub by_class: [u64; 5],
    /// Requests in php-fpm at this moment, and requests waiting for it.
    pub in_flight: usize,
    pub queued: usize,
    /// Client connections open.
    pub connections: usize,
    /// By host: its php-fpm.
    pub peers: [PeerStatus; 2],
}

/// One host's php-fpm as the front sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerStatus {
    pub name: String,
    pub is_up: bool,
    /// An operator spares it.
    pub is_draining: bool,
    /// Why it is not up; empty while it is.
    pub reason: String,
    pub in_flight: usize,
    /// Connections that are kept for a next request.
    pub idle: usize,
    pub requests: u64,
}
