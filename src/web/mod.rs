//! The web front: static files answered here, PHP balanced over both hosts' php-fpm by FastCGI.
//!
//! In: section `[web]`. Out: the machines below, which `os::serve_web` drives.
//! Must not: touch sockets, files or clocks. Read first: facts/web.md, "The ten facts"; `session`
//! for a connection, `exchange` for the life of a PHP request, `upstream` for who gets it.

pub mod answer;
pub mod body;
pub mod coding;
pub mod exchange;
pub mod fastcgi;
pub mod files;
pub mod keepalive;
pub mod log;
pub mod lookup;
pub mod origin;
pub mod params;
pub mod path;
pub mod probe;
pub mod proxy;
mod relay;
pub mod reply;
pub mod request;
mod serve;
pub mod session;
pub mod site;
pub mod upstream;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::limits;
use crate::units::{self, ByteCount, Cidr};

/// Section `[web]`: the front that replaces nginx.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// TCP port on the outside address of the host and on every outside VIP.
    pub port: u16,
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
    /// Path prefixes below which no script is run, for what visitors can upload.
    pub no_execute: Vec<String>,
    /// Paths that are somewhere else (nginx: return, rewrite).
    pub redirect: Vec<site::Redirect>,
    /// Virtual hosts; every other host gets what this section says.
    #[serde(rename = "site")]
    pub sites: Vec<site::Config>,
    /// Networks of proxies in front whose X-Forwarded-For and X-Forwarded-Proto are believed
    /// (nginx: set_real_ip_from, with real_ip_recursive).
    pub set_real_ip_from: Vec<Cidr>,
    /// Whether connections from those networks begin with a PROXY protocol header, version 1 or 2
    /// (nginx: listen ... proxy_protocol).
    pub proxy_protocol: bool,
    /// Whether PHP's text is compressed for clients that take it (nginx: gzip, level 1).
    pub gzip: bool,
    /// Answers shorter than this are not (nginx: gzip_min_length).
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
    /// Path of that status (php-fpm: pm.status_path).
    pub php_status_path: String,
    /// Connections to this host's php-fpm that may wait for a next request (nginx: keepalive); 0:
    /// a connection for each request. Together with the requests they stay below
    /// `php_requests_max`; the other host's php-fpm is left to its own front.
    pub keepalive: usize,
    /// How long one may wait: it occupies a worker of php-fpm meanwhile (nginx: keepalive_timeout).
    #[serde(deserialize_with = "units::duration")]
    pub keepalive_idle: Duration,
    /// How long a host's php-fpm that returns gets less than its share, from nearly nothing up: its
    /// caches are cold (nginx: slow_start).
    #[serde(deserialize_with = "units::duration")]
    pub slow_start: Duration,
    /// How long a request may wait for a free php-fpm worker before it gets 503.
    #[serde(deserialize_with = "units::duration")]
    pub queue_limit: Duration,
    /// Time limit of a connection to php-fpm, before the other host is tried (nginx:
    /// fastcgi_connect_timeout).
    #[serde(deserialize_with = "units::duration")]
    pub connect_limit: Duration,
    /// Time limit between two reads of php-fpm's answer (nginx: fastcgi_read_timeout).
    #[serde(deserialize_with = "units::duration")]
    pub answer_limit: Duration,
    /// Time limit for a request's header, and between two reads of its body.
    #[serde(deserialize_with = "units::duration")]
    pub request_limit: Duration,
    /// An idle kept-alive client is closed after this (nginx: keepalive_timeout).
    #[serde(deserialize_with = "units::duration")]
    pub idle_limit: Duration,
    /// Largest request body; larger gets 413 (nginx: client_max_body_size).
    pub body_max: ByteCount,
    /// Client connections at once; one more is closed at once.
    pub connections_max: usize,
    /// Access log in combined format with upstream, time and tries; empty for none.
    pub access_log: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            port: 80,
            root: "/var/www/html".into(),
            index: vec!["index.php".into(), "index.html".into()],
            front_controller: false,
            error_page: BTreeMap::new(),
            deny: Vec::new(),
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
            keepalive: 8,
            keepalive_idle: Duration::from_millis(100),
            slow_start: Duration::from_secs(10),
            queue_limit: Duration::from_secs(10),
            connect_limit: Duration::from_millis(250),
            answer_limit: Duration::from_secs(60),
            request_limit: Duration::from_secs(30),
            idle_limit: Duration::from_secs(65),
            body_max: ByteCount(64 << 20),
            connections_max: 4096,
            access_log: String::new(),
        }
    }
}

impl Config {
    /// What is wrong with it, and what to write instead.
    pub fn check(&self) -> Result<(), String> {
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
        if self.keepalive_idle > limits::WEB_KEEP_AGE_MAX {
            return Err(format!(
                "web.keepalive_idle: a kept connection occupies a worker of php-fpm: write {} ms \
                 or less",
                limits::WEB_KEEP_AGE_MAX.as_millis()
            ));
        }
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
    /// Why it is not up; empty while it is.
    pub reason: String,
    pub in_flight: usize,
    /// Connections that are kept for a next request.
    pub idle: usize,
    pub requests: u64,
}
