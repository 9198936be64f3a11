//! The wire: what every decoder and machine does with any bytes, and with captured ones.
//!
//! In: tests/vectors, seeds, inputs that failed once (`found.txt`). Out: the law that broke, and
//! the input as hexadecimal digits: a line for `found.txt`.
//! Must not: depend on the clock: as many inputs as a debug build does in about a second.
//! Read first: `targets`; `scripts/fuzz` runs the same targets for as long as one likes.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    unreachable_pub,
    missing_debug_implementations
)]

mod captured;
mod mutate;
mod seeds;
mod targets;
mod web_seeds;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;

use mutate::Mutator;
use targets::Target;

/// Where the generator of every target starts.
const SEED: u64 = 1;

fn target(name: &str) -> Target {
    targets::ALL.into_iter().find(|(it, _)| *it == name).unwrap().1
}

/// Gives the input to the target; says which one it was when a law breaks.
fn check(name: &str, input: &[u8], origin: &str) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| target(name)(input))) {
        let hex: String = input.iter().map(|byte| format!("{byte:02x}")).collect();
        println!("{origin}:\n{name} {hex}");
        resume_unwind(panic);
    }
}

fn survives(name: &str, count: u64) {
    for (place, input) in seeds::of(name).iter().enumerate() {
        check(name, input, &format!("seed input {place}"));
    }
    let mut mutator = Mutator::new(SEED, seeds::of(name));
    for number in 0..count {
        check(name, &mutator.next(), &format!("input {number} of seed {SEED}"));
    }
}

#[test]
fn vrrp_keeps_its_laws_on_any_bytes() {
    survives("vrrp", 200_000);
}

#[test]
fn a_virtual_router_keeps_its_laws_on_any_steps() {
    survives("router", 60_000);
}

#[test]
fn arp_keeps_its_laws_on_any_bytes() {
    survives("arp", 300_000);
}

#[test]
fn neighbour_discovery_keeps_its_laws_on_any_bytes() {
    survives("nd", 200_000);
}

#[test]
fn icmp_keeps_its_laws_on_any_bytes() {
    survives("icmp", 300_000);
}

#[test]
fn netlink_keeps_its_laws_on_any_bytes() {
    survives("netlink", 60_000);
}

#[test]
fn beacons_keep_their_laws_on_any_bytes() {
    survives("beacon", 4_000);
}

#[test]
fn a_node_that_starts_keeps_its_laws_on_any_inputs() {
    survives("node", 500);
}

#[test]
fn a_node_that_serves_keeps_its_laws_on_any_inputs() {
    survives("serving", 600);
}

#[test]
fn packets_of_sql_keep_their_laws_on_any_bytes() {
    survives("sql_packets", 100_000);
}

#[test]
fn log_ins_of_sql_keep_their_laws_on_any_bytes() {
    survives("sql_login", 20_000);
}

#[test]
fn statements_keep_their_laws_on_any_bytes() {
    survives("sql_statement", 20_000);
}

#[test]
fn the_admin_port_keeps_its_laws_on_any_bytes() {
    survives("sql_admin", 20_000);
}

#[test]
fn the_fastcgi_port_keeps_its_laws_on_any_bytes() {
    survives("port", 5_000);
}

#[test]
fn web_connections_keep_their_laws_on_any_bytes() {
    survives("web_request", 2_000);
}

#[test]
fn chunked_bodies_keep_their_laws_on_any_bytes() {
    survives("web_chunked", 60_000);
}

#[test]
fn fastcgi_keeps_its_laws_on_any_bytes() {
    survives("web_fastcgi", 2_000);
}

#[test]
fn answers_of_scripts_keep_their_laws_on_any_bytes() {
    survives("web_answer", 20_000);
}

#[test]
fn paths_keep_their_laws_on_any_bytes() {
    survives("web_path", 60_000);
}

#[test]
fn ranges_keep_their_laws_on_any_bytes() {
    survives("web_range", 60_000);
}

#[test]
fn control_frames_keep_their_laws_on_any_bytes() {
    survives("control", 60_000);
}

#[test]
fn keys_keep_their_laws_on_any_bytes() {
    survives("keys", 5_000);
}

/// Whatever failed once, by whichever of the two generators it was found.
#[test]
fn inputs_that_failed_once_keep_the_laws() {
    for line in include_str!("found.txt").lines().filter(|line| !line.starts_with('#')) {
        let (name, hex) = line.split_once(' ').unwrap();
        check(name, &seeds::bytes(hex), "found.txt");
    }
}

/// scripts/fuzz starts from what this writes.
#[test]
#[ignore = "writes the seeds of every target below the directory $CORPUS"]
fn writes_the_corpus() {
    let root = std::env::var("CORPUS").unwrap();
    for (name, _) in targets::ALL {
        let folder = Path::new(&root).join(name);
        std::fs::create_dir_all(&folder).unwrap();
        for (place, input) in seeds::of(name).into_iter().enumerate() {
            std::fs::write(folder.join(format!("seed-{place:03}")), input).unwrap();
        }
    }
}
