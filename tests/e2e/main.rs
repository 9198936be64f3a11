//! End-to-end tests: real hosts (namespaces), real databases, real php-fpm, real requests.
//!
//! In: root; TANDEM_BIN (the binary, else cargo's), TANDEM_E2E_SERVER (mariadb, mysql97, mysql56).
//! Out: laws of the whole product; each test has a pair of its own. Run one or two at a time: the
//! limits are seconds of the real clock.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, dead_code, unreachable_pub)]

mod database;
mod figures;
mod footprint;
mod foreign;
mod host;
mod line;
mod load;
mod machine;
mod mixed;
mod pair;
mod php;
mod sampler;
mod story;
mod wire;
mod world;
mod writers;

mod addresses;
mod adoption;
mod appliance;
mod budgets;
mod confined;
mod console;
mod doctor;
mod durability;
mod errant;
mod faults;
mod findings;
mod flood;
mod harness;
mod install;
mod interop;
mod keepalived;
mod links;
mod old_kernel;
mod preemption;
mod reload;
mod secrets;
mod service;
mod stories;
mod survey;
mod web;
mod witness;
mod wordpress;

use database::Flavour;
use pair::Pair;
use world::Outcome;

/// The database server of this run.
fn flavour() -> Flavour {
    let name = std::env::var("TANDEM_E2E_SERVER").unwrap_or_else(|_| "mariadb".into());
    Flavour::find(&name).expect("the database server can be had")
}

/// Runs a law on a pair in service; shows the hosts' logs if it is broken.
fn on_a_pair(law: impl FnOnce(&mut Pair) -> Outcome<()>) {
    let mut pair = Pair::in_service(flavour()).unwrap_or_else(|why| panic!("{why}"));
    if let Err(why) = law(&mut pair) {
        panic!("{why}\n{}", pair.logs());
    }
}

/// Whether a server's status has a finding with these words.
fn has_finding(pair: &Pair, number: usize, words: &str) -> bool {
    pair.servers[number].status().is_ok_and(|status| {
        let findings = status["findings"].as_array().cloned().unwrap_or_default();
        findings.iter().any(|finding| finding.as_str().is_some_and(|text| text.contains(words)))
    })
}

/// Fails with a sentence.
fn check(is_true: bool, law: impl FnOnce() -> String) -> Outcome<()> {
    if is_true { Ok(()) } else { Err(law()) }
}
