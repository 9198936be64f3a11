//! Linux 2.6.32 (CentOS 6): whatever system call came after it is not there.
//!
//! In: a seccomp filter, put on by bubblewrap, for the daemon, its guard and the verbs: ENOSYS to
//! every number from 299 (recvmmsg, Linux 2.6.33) up, and the answers of 2.6.32 to three options
//! that came later. Out: the same main job, by the same laws. Must not: ask less of an old host.
//! Not shown here: addresses that do not run out, a clock that stops in suspension (README).

use std::fs;

use crate::host::{Host, text};
use crate::pair::{CONFIG, Pair, Server};
use crate::service;
use crate::story;
use crate::world::Outcome;
use crate::{check, flavour};

/// The first number of x86-64 that Linux 2.6.32 does not know.
const FIRST_MISSING: u32 = 299;
const FILTER_FILE: &str = "/etc/old-kernel.bpf";
/// bubblewrap puts the filter on as the last thing before the program begins.
const ENTER: [&str; 4] = [
    "bash",
    "-c",
    "exec bwrap --dev-bind / / --cap-add ALL --seccomp 9 -- \"$@\" 9</etc/old-kernel.bpf",
    "bwrap",
];
/// 2: a filter is on (proc(5), /proc/PID/status).
const NODE_FILTER: &str =
    "sed -n 's/^Seccomp:[[:space:]]*//p' /proc/$(cat /run/tandem/node.pid)/status";

/// Classic BPF over `struct seccomp_data` (seccomp(2)): code, jump if true, jump if false, operand.
/// The low half of argument n is at 16 + 8 n.
const FILTER: [(u16, u8, u8, u32); 23] = [
    (LOAD, 0, 0, 4),
    (IS, 0, 16, 0xC000_003E), // x86-64, or allowed
    (LOAD, 0, 0, 0),
    (REACHES, 15, 0, FIRST_MISSING),
    (IS, 3, 0, 54),  // setsockopt
    (IS, 7, 0, 286), // timerfd_settime
    (IS, 9, 0, 257), // openat
    (RETURN, 0, 0, ALLOWED),
    (LOAD, 0, 0, 24),
    (IS, 0, 2, 6), // SOL_TCP
    (LOAD, 0, 0, 32),
    (IS, 8, 0, 18), // TCP_USER_TIMEOUT (2.6.37)
    (RETURN, 0, 0, ALLOWED),
    (LOAD, 0, 0, 24),
    (HAS, 6, 0, 2), // TFD_TIMER_CANCEL_ON_SET (3.0)
    (RETURN, 0, 0, ALLOWED),
    (LOAD, 0, 0, 32),
    (HAS, 4, 0, 0x40_0000), // O_TMPFILE (3.11)
    (RETURN, 0, 0, ALLOWED),
    (RETURN, 0, 0, FAILS | 38), // ENOSYS
    (RETURN, 0, 0, FAILS | 92), // ENOPROTOOPT
    (RETURN, 0, 0, FAILS | 22), // EINVAL
    (RETURN, 0, 0, FAILS | 21), // EISDIR: an unknown flag, ignored, and a directory to write to
];
const LOAD: u16 = 0x20;
const IS: u16 = 0x15;
const REACHES: u16 = 0x35;
const HAS: u16 = 0x45;
const RETURN: u16 = 0x06;
const ALLOWED: u32 = 0x7FFF_0000;
const FAILS: u32 = 0x0005_0000;

fn install(host: &Host) -> Outcome<()> {
    let bytes: Vec<u8> = FILTER
        .iter()
        .flat_map(|&(code, is_true, is_false, operand)| {
            let [low, high] = code.to_ne_bytes();
            let [a, b, c, d] = operand.to_ne_bytes();
            [low, high, is_true, is_false, a, b, c, d]
        })
        .collect();
    fs::write(host.path(FILTER_FILE), bytes).map_err(text)
}

/// The command line that runs these words on such a kernel.
fn wrapped<'a>(words: &[&'a str]) -> Vec<&'a str> {
    ENTER.iter().chain(words).copied().collect()
}

#[test]
fn the_main_job_is_done_without_a_system_call_newer_than_linux_2_6_32() {
    let mut told = String::new();
    let mut pair = Pair::new(flavour()).unwrap_or_else(|why| panic!("{why}"));
    if let Err(why) = main_job(&mut pair, &mut told) {
        panic!("{why}\n{told}\n{}", pair.logs());
    }
}

fn main_job(pair: &mut Pair, told: &mut String) -> Outcome<()> {
    for server in &pair.servers {
        install(&server.host)?;
        is_old(&server.host)?;
    }
    pair.start_by(&ENTER);
    let report = story::play(pair, &mut |line| *told += &format!("{line}\n"))?;
    *told += &report.table();
    service::judge(&report)?;
    pair.servers.iter().try_for_each(verbs)
}

/// The filter is on: setns, which came with Linux 3.0, is not there; a program that needs nothing
/// new runs.
fn is_old(host: &Host) -> Outcome<()> {
    let newer = host.run(&wrapped(&["nsenter", "--net=/proc/self/ns/net", "true"]))?;
    let said = String::from_utf8_lossy(&newer.stderr).into_owned();
    check(!newer.status.success() && said.contains("Function not implemented"), || {
        format!("setns is there: {said}")
    })?;
    host.read(&wrapped(&["true"])).map(drop)
}

/// What an operator types, and what replaces the mysql-utilities.
fn verbs(server: &Server) -> Outcome<()> {
    let host = &server.host;
    let filters = host.read(&["bash", "-c", NODE_FILTER])?;
    check(filters.trim() == "2", || format!("the node's filter: {filters:?}"))?;
    const MASTER: &str = "--master=root:Xp29at5F37@server1";
    for words in [
        &["tandem", "status"][..],
        &["tandem", "check", CONFIG],
        &["tandem", "encrypt", "Xp29at5F37"],
        &["tandem", "mysqlrplshow", MASTER, "--discover-slaves-login=root:Xp29at5F37"],
        &["tandem", "mysqlrplcheck", MASTER, "--slave=root:Xp29at5F37@server2"],
        &["tandem", "support", "/run/support.tar.gz"],
    ] {
        host.read(&wrapped(words))?;
    }
    Ok(())
}
