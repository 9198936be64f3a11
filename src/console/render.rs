//! The status screen: 80 columns, no colour, the same words everywhere.
//!
//! In: `Status`. Out: text. Must not: know a terminal.

use std::fmt::Write as _;

use super::message::{LinkStatus, Status, WitnessStatus};

const COLUMNS: usize = 80;

/// The screen for `tandem status`.
#[must_use]
pub fn status(status: &Status) -> String {
    let mut screen = String::new();
    let mut line = |text: String| {
        let cut: String = text.chars().take(COLUMNS).collect();
        let _infallible = writeln!(screen, "{}", cut.trim_end());
    };
    line(format!(
        "{}  {}  for {}  epoch {}",
        status.host,
        status.role,
        span(status.role_seconds),
        status.epoch
    ));
    let peer = &status.peer;
    line(match peer.role {
        Some(role) => format!("peer      {}  {}  epoch {}", peer.name, role, peer.epoch),
        None => format!("peer      {}  SILENT", peer.name),
    });
    line(link("outside", &status.links.outside, peer.heard.outside));
    line(link("inside", &status.links.inside, peer.heard.inside));
    line(witnesses(&status.witnesses));
    line(match status.vips.as_slice() {
        [] => "vip       none here".to_owned(),
        vips => format!("vip       {}", vips.join(" ")),
    });
    let database = &status.database;
    let lag = database.lag_seconds.map_or(String::new(), |lag| format!("  lag {lag} s"));
    line(format!("database  {}{lag}  {}", database.state, database.version));
    if let Some(durability) = &database.durability {
        line(format!("          writes are acknowledged {durability}"));
    }
    if let Some(position) = &database.position {
        line(format!("          at {}", position.replace('\n', "")));
    }
    if let Some(error) = &database.error {
        line(format!("          {error}"));
    }
    let sql = &status.sql;
    line(format!(
        "sql       {} sessions  {} held  {} to source  {} to replica",
        sql.sessions, sql.held, sql.queries_to_source, sql.queries_to_replica
    ));
    let web = &status.web;
    line(format!(
        "web       {} connections  {} requests  {} in flight  {} queued",
        web.connections, web.requests, web.in_flight, web.queued
    ));
    for php in &web.php {
        let state = match (php.is_up, php.is_draining, php.in_flight) {
            (false, false, _) => "DOWN".to_owned(),
            (false, true, _) => "DOWN, drained".to_owned(),
            (true, false, _) => "up".to_owned(),
            (true, true, 0) => "drained".to_owned(),
            (true, true, count) => format!("draining, {count} in flight from here"),
        };
        line(format!("php       {}  {state}  {}", php.host, php.reason));
    }
    for finding in &status.findings {
        wrap("finding", finding).into_iter().for_each(&mut line);
    }
    for note in status.notes.iter().rev().take(3).rev() {
        line(format!("note      {note}"));
    }
    screen
}

/// A sentence of which no word may be cut off: what to do stands at its end.
fn wrap(title: &str, sentence: &str) -> Vec<String> {
    let mut lines = vec![format!("{title:<9}")];
    for word in sentence.split_whitespace() {
        let last = lines.last_mut().expect("one line is there from the start");
        if last.chars().count() + 1 + word.chars().count() > COLUMNS && last.trim() != title {
            lines.push(format!("{:<9} {word}", ""));
        } else {
            last.push(' ');
            last.push_str(word);
        }
    }
    lines
}

/// Without one, what is not covered.
fn witnesses(list: &[WitnessStatus]) -> String {
    if list.is_empty() {
        return "witness   none: with both links cut, each host would serve".to_owned();
    }
    let word = |it: &WitnessStatus| match it.answers {
        true => format!("{} answers", it.address),
        false => format!("{} SILENT", it.address),
    };
    format!("witness   {}", list.iter().map(word).collect::<Vec<_>>().join("  "))
}

fn link(name: &str, link: &LinkStatus, is_peer_heard: bool) -> String {
    let carrier = if link.carrier { "carrier" } else { "NO CARRIER" };
    let peer = if is_peer_heard { "peer heard" } else { "peer NOT heard" };
    format!("{name:<9} {}  {carrier}  {peer}", link.device)
}

fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_told_to_its_end_on_80_columns() {
        let sentence = "vrrp-firewalled: inside: VRRP from server2 arrives on eth1 and the local \
                        firewall drops it: allow IP protocol 112";
        let lines = wrap("finding", sentence);
        assert_eq!(lines.len(), 2);
        assert!(lines.iter().all(|line| line.len() <= COLUMNS), "{lines:?}");
        assert!(lines[0].starts_with("finding   vrrp-firewalled: inside:"), "{lines:?}");
        assert!(lines[1].starts_with("          ") && lines[1].ends_with("protocol 112"));
    }
}
