//! One measurement: wrk or our own load against one server, and the CPU time that the server took.
//!
//! In: a server, a case, connections, a time. Out: requests a second, p99, CPU seconds per million
//! requests. Must not: count a run in which a request failed.

use std::process::Command;
use std::time::Duration;

use crate::servers::Server;
use crate::{Case, Outcome};

#[derive(Debug, Clone)]
pub(crate) struct Figures {
    pub(crate) rate: f64,
    pub(crate) p99_ms: f64,
    /// User and system time of the server's processes.
    pub(crate) cpu: f64,
}

pub(crate) fn run(
    server: &Server,
    case: &Case,
    connections: usize,
    time: Duration,
) -> Outcome<Figures> {
    let before = ticks(server.pid());
    let mut command = Command::new("taskset");
    command.args(["-c", "1"]);
    let connections = connections.to_string();
    let path = case.path;
    if path.starts_with('/') {
        let is_tls = case.is_tls();
        let (scheme, address) =
            if is_tls { ("https", server.ssl_address) } else { ("http", server.address) };
        command.args(["wrk", "-t", "1", "--latency", "-c", &connections]);
        command.args(["-d", &format!("{}s", time.as_secs())]);
        if case.is_closing() {
            command.args(["-H", "Connection: close"]);
        }
        command.arg(format!("{scheme}://{address}{path}"));
    } else {
        let me = std::env::current_exe().map_err(|error| error.to_string())?;
        let address = server.address.to_string();
        let seconds = time.as_secs().to_string();
        command.arg(me).args(["load", &address, path, &connections, &seconds]);
    }
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    let used = ticks(server.pid()) - before;
    let text = String::from_utf8_lossy(&output.stdout);
    let unwell = text.contains("Non-2xx") || text.contains("Socket errors");
    let (Some(rate), Some(p99_ms), Some(requests), false) = (
        after(&text, "Requests/sec:").and_then(|word| word.parse::<f64>().ok()),
        after(&text, " 99%").and_then(milliseconds),
        before_words(&text, " requests in ").and_then(|word| word.parse::<f64>().ok()),
        unwell,
    ) else {
        return Err(format!("{} {path}: {text}", server.name));
    };
    let seconds = f64::from(u32::try_from(used).unwrap_or(u32::MAX)) / TICKS_PER_SECOND;
    Ok(Figures { rate, p99_ms, cpu: seconds / requests * 1e6 })
}

/// proc(5): USER_HZ, 100 on every architecture that matters here.
const TICKS_PER_SECOND: f64 = 100.0;

/// User and system ticks of a process and its children.
fn ticks(process: u32) -> u64 {
    let read = |path: String| std::fs::read_to_string(path).unwrap_or_default();
    let stat = read(format!("/proc/{process}/stat"));
    let fields: Vec<&str> =
        stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let field = |at: usize| fields.get(at).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    let children = read(format!("/proc/{process}/task/{process}/children"));
    let children = children.split_whitespace().filter_map(|text| text.parse().ok()).map(ticks);
    field(11) + field(12) + children.sum::<u64>()
}

fn after<'a>(text: &'a str, mark: &str) -> Option<&'a str> {
    text.split_once(mark)?.1.split_whitespace().next()
}

fn before_words<'a>(text: &'a str, mark: &str) -> Option<&'a str> {
    text.split_once(mark)?.0.split_whitespace().next_back()
}

fn milliseconds(word: &str) -> Option<f64> {
    let units = [("us", 1e-3), ("ms", 1.0), ("s", 1e3)];
    let (number, factor) =
        units.iter().find_map(|&(unit, factor)| Some((word.strip_suffix(unit)?, factor)))?;
    Some(number.parse::<f64>().ok()? * factor)
}
