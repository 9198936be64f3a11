//! What the program may cost: bytes on disk, memory and threads of a pair in service.
//!
//! In: the binary that the runs are on, an idle pair. Out: budgets; whoever breaks one by intent
//! raises it, and says why. Must not: measure time (`scripts/bench vrrp --footprint` does).
//! Read first: proc(5) "smaps_rollup".

use crate::footprint::Process;
use crate::pair::{GUARD_PID, NODE_PID, binary};
use crate::world::Outcome;
use crate::{check, host, on_a_pair};

/// Of profile quick, which is a tenth larger than what is shipped.
const BINARY_BYTES: u64 = 11 << 20;
/// Memory that is the process's own, in kB: what one host of the pair has less.
const NODE_KB: u64 = 6144;
const GUARD_KB: u64 = 1024;
/// The loop, and what waits for databases and files.
const NODE_THREADS: usize = 8;

#[test]
fn an_idle_pair_keeps_its_budgets() {
    on_a_pair(|pair| {
        let bytes = std::fs::metadata(binary()).map_err(host::text)?.len();
        check(bytes <= BINARY_BYTES, || format!("the binary has {bytes} bytes"))?;
        for server in &pair.servers {
            let node = Process::find(&server.host, "node", NODE_PID)?;
            let guard = Process::find(&server.host, "guard", GUARD_PID)?;
            within("the node", &node, NODE_KB, NODE_THREADS)?;
            within("the guard", &guard, GUARD_KB, 1)?;
        }
        Ok(())
    });
}

fn within(title: &str, process: &Process, kilobytes: u64, threads: usize) -> Outcome<()> {
    let seen = (process.own_memory()?, process.threads()?);
    println!("{title}: {} kB of its own, {} threads", seen.0, seen.1);
    check(seen.0 <= kilobytes, || format!("{title} has {} kB of its own", seen.0))?;
    check(seen.1 <= threads, || format!("{title} has {} threads", seen.1))
}
