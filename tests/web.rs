//! The web front over real sockets: `ServeWeb` in a small loop of its own, a scripted FastCGI
//! backend in threads, and php-fpm 8.2 where it is installed.
//!
//! In: raw bytes as a client sends them. Out: what comes back, and what the backends saw.
//! Must not: use fixed ports or names, end processes other than its own children.
//! Read first: facts/web.md 4.2 (the case letters in comments are from there).
#![allow(clippy::disallowed_methods, clippy::disallowed_types, clippy::unwrap_used)]

#[path = "web/backend.rs"]
mod backend;
#[path = "web/balance.rs"]
mod balance;
#[path = "web/cases.rs"]
mod cases;
#[path = "web/client.rs"]
mod client;
#[path = "web/coding.rs"]
mod coding;
#[path = "web/disk.rs"]
mod disk;
#[path = "web/drain.rs"]
mod drain;
#[path = "web/exhaustion.rs"]
mod exhaustion;
#[path = "web/failover.rs"]
mod failover;
#[path = "web/front.rs"]
mod front;
#[path = "web/group.rs"]
mod group;
#[path = "web/https.rs"]
mod https;
#[path = "web/https_files.rs"]
mod https_files;
#[path = "web/in_front.rs"]
mod in_front;
#[path = "web/inside.rs"]
mod inside;
#[path = "web/kept.rs"]
mod kept;
#[path = "web/keys.rs"]
mod keys;
#[path = "web/php_fpm.rs"]
mod php_fpm;
#[path = "web/port.rs"]
mod port;
#[path = "web/proxied.rs"]
mod proxied;
#[path = "web/records.rs"]
mod records;
#[path = "web/reload.rs"]
mod reload;
#[path = "web/sites.rs"]
mod sites;
