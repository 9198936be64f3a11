//! The screens: 80 columns, no colour, the same words everywhere.
//!
//! In: `Status`. Out: text. Must not: know a terminal.

use std::fmt::Write as _;

use super::note::Record;
use super::status::{DatabaseStatus, LinkStatus, PhpStatus, Status, WitnessStatus};

/// A terminal's last column stays free: some begin a new line there.
const COLUMNS: usize = 79;
/// Of 24, one for the prompt.
const LINES: usize = 23;
const NOTES_SHOWN: usize = 3;
const TITLE: usize = 10;

/// The screen for `tandem status`: what does not fit on 24 lines is counted, or with `is_all` told.
#[must_use]
pub fn status(status: &Status, is_all: bool) -> String {
    let mut lines = Vec::new();
    lines.push(format!(
        "{}  {}  for {}  epoch {}  {}",
        status.host,
        status.role,
        span(status.role_seconds),
        status.epoch,
        status.health.word()
    ));
    let peer = &status.peer;
    lines.push(match peer.role {
        Some(role) => format!("peer      {}  {role}  epoch {}", peer.name, peer.epoch),
        None => format!("peer      {}  SILENT", peer.name),
    });
    lines.push(link("outside", &status.links.outside, peer.heard.outside));
    lines.push(link("inside", &status.links.inside, peer.heard.inside));
    lines.push(witnesses(&status.witnesses));
    lines.extend(vip_lines(status));
    lines.extend(database_lines(status));
    lines.push(sql_line(status));
    lines.push(web_line(status));
    lines.extend(status.web.php.iter().map(php_line));
    lines.extend(status.children.iter().map(|child| {
        let restarts = match child.restarts {
            0 => String::new(),
            count => format!("  died {count} times"),
        };
        let (name, pid, up) = (&child.name, child.pid, span(child.seconds));
        format!("child     {name}  process {pid}  for {up}{restarts}")
    }));
    let findings: Vec<Vec<String>> =
        status.findings.iter().map(|finding| wrap("finding", finding)).collect();
    let shown = if is_all { status.notes.len() } else { NOTES_SHOWN };
    let first = status.notes.len().saturating_sub(shown);
    let notes = status.notes.iter().skip(first).map(note_line);
    let room = if is_all { usize::MAX } else { LINES.saturating_sub(lines.len()) };
    lines.extend(fitted(&findings, notes.collect(), room));
    page(lines)
}

/// Findings before notes, both in the order given, on `room` lines.
fn fitted(findings: &[Vec<String>], notes: Vec<String>, room: usize) -> Vec<String> {
    let needed: usize = findings.iter().map(Vec::len).sum();
    if needed <= room {
        let mut lines = findings.concat();
        let left = notes.len().saturating_sub(room - needed);
        lines.extend(notes.into_iter().skip(left));
        return lines;
    }
    let mut lines = Vec::new();
    for (index, finding) in findings.iter().enumerate() {
        if lines.len() + finding.len() + 1 > room {
            let count = findings.len() - index;
            lines.push(format!("finding   {count} more: `tandem status --all`"));
            break;
        }
        lines.extend_from_slice(finding);
    }
    lines
}

/// One line for a serial line that nobody types on.
#[must_use]
pub fn heartbeat(status: &Status) -> String {
    let database = &status.database;
    let peer = match status.peer.role {
        Some(role) => format!("{} {role}", status.peer.name),
        None => format!("{} SILENT", status.peer.name),
    };
    page(vec![format!(
        "{} {} {}, {peer}, database {}{}, {} findings",
        status.host,
        status.role,
        status.health.word(),
        database.state,
        lag(database.lag_seconds),
        status.findings.len()
    )])
}

/// `tandem vip`.
#[must_use]
pub fn vips(status: &Status) -> String {
    let name = |is_here, is_at_peer| match (is_here, is_at_peer) {
        (true, false) => format!("here, on {}", status.host),
        (false, true) => format!("at {}", status.peer.name),
        (true, true) => "ON BOTH HOSTS".to_owned(),
        (false, false) => "NOWHERE that is known".to_owned(),
    };
    let mut lines = vec![format!("{:<26}{:<12}{}", "address", "device", "is")];
    lines.extend(status.addresses.iter().map(|vip| {
        let place = name(vip.is_here, vip.is_at_peer);
        format!("{:<26}{:<12}{place}", vip.address, vip.device)
    }));
    page(lines)
}

/// `tandem link`.
#[must_use]
pub fn links(status: &Status) -> String {
    let (links, heard) = (&status.links, status.peer.heard);
    let mut lines = Vec::new();
    for (name, it, is_heard) in
        [("outside", &links.outside, heard.outside), ("inside", &links.inside, heard.inside)]
    {
        lines.push(link(name, it, is_heard));
        lines.push(format!("          {} here, {} there", it.address, it.peer_address));
        lines.push(format!(
            "          beacon {}, advertisement {}",
            ago(it.beacon_ago_ms),
            ago(it.vrrp_ago_ms)
        ));
    }
    lines.push(witnesses(&status.witnesses));
    if let Some(form) = &status.peer.vrrp_checksum {
        lines.push(format!("vrrp      the peer sums its advertisements {form}"));
    }
    page(lines)
}

/// `tandem db`.
#[must_use]
pub fn databases(status: &Status) -> String {
    let mut lines = vec![format!("{}, this host:", status.host)];
    lines.extend(database_lines(status));
    lines.push(format!("{}, by its last beacon:", status.peer.name));
    match &status.peer.database {
        None => lines.push("database  not known: the host is silent".to_owned()),
        Some(database) => {
            let state = match (database.is_up, database.is_writable, database.is_replicating) {
                (false, ..) => "unreachable",
                (true, true, _) => "source",
                (true, false, true) => "replica",
                (true, false, false) => "closed",
            };
            lines.push(format!("database  {state}{}", lag(database.lag_seconds)));
            if let Some(position) = &database.position {
                lines.extend(wrap("", &format!("at {position}")));
            }
        }
    }
    let text = difference(&status.database, &status.peer.name)
        .unwrap_or_else(|| "not known: one of the positions is not".to_owned());
    lines.push(format!("differ    {text}"));
    if let Some(errant) = &status.database.errant {
        let place = errant.directory.as_deref().unwrap_or("nowhere yet");
        let found = format!("{} ({}), saved in {place}", errant.transactions, errant.gtids);
        lines.extend(wrap("errant", &found));
    }
    page(lines)
}

/// `tandem web`.
#[must_use]
pub fn web(status: &Status) -> String {
    let web = &status.web;
    let mut lines = vec![web_line(status)];
    let classes = [1, 2, 3, 4, 5].into_iter().zip(web.by_class);
    let classes: Vec<String> = classes.map(|(class, count)| format!("{class}xx {count}")).collect();
    lines.push(format!("answers   {}", classes.join("  ")));
    for php in &web.php {
        lines.push(php_line(php));
        lines.push(format!(
            "          {} requests from here, {} in flight, {} connections kept",
            php.requests, php.in_flight, php.idle
        ));
    }
    page(lines)
}

/// `tandem sql`.
#[must_use]
pub fn sql(status: &Status) -> String {
    let sql = &status.sql;
    let line = |title: &str, text: String| format!("{title:<10}{text}");
    page(vec![
        sql_line(status),
        line("ran", format!("{} on the source", sql.queries_to_source)),
        line(
            "",
            format!(
                "{} on a replica, {} of them again on the source",
                sql.queries_to_replica, sql.retried
            ),
        ),
        line("waited", format!("{} ever, {} now", sql.held_total, sql.held)),
        line("refused", format!("{} log-ins, {} statements (blocklist)", sql.refused, sql.blocked)),
        line("errors", format!("{} of servers, {} slow statements", sql.errors, sql.slow)),
        line("servers", format!("{} log-ins, {} idle connections kept", sql.logins, sql.pooled)),
    ])
}

/// One line each, whole.
#[must_use]
pub fn notes(records: &[Record]) -> String {
    records.iter().fold(String::new(), |mut text, record| {
        let _infallible = writeln!(text, "{record}");
        text
    })
}

fn page(lines: Vec<String>) -> String {
    let mut page = String::new();
    for text in lines {
        let cut: String = text.chars().take(COLUMNS).collect();
        let _infallible = writeln!(page, "{}", cut.trim_end());
    }
    page
}

fn vip_lines(status: &Status) -> Vec<String> {
    match status.vips.as_slice() {
        [] => vec!["vip       none here".to_owned()],
        vips => wrap("vip", &vips.join(" ")),
    }
}

fn database_lines(status: &Status) -> Vec<String> {
    let database = &status.database;
    let mut lines = vec![format!(
        "database  {}{}  {}",
        database.state,
        lag(database.lag_seconds),
        database.version
    )];
    if let Some(durability) = &database.durability {
        lines.push(format!("          writes are acknowledged {durability}"));
    }
    if let Some(text) = difference(database, &status.peer.name) {
        lines.push(format!("          {text}"));
    }
    if let Some(position) = &database.position {
        lines.push(format!("          at {}", position.replace('\n', "")));
    }
    if let Some(error) = &database.error {
        lines.push(format!("          {error}"));
    }
    lines
}

fn lag(seconds: Option<u64>) -> String {
    seconds.map_or_else(String::new, |lag| format!("  lag {lag} s"))
}

/// In transactions: what a loss of either host would cost, if nothing more came over.
fn difference(database: &DatabaseStatus, peer: &str) -> Option<String> {
    Some(match (database.missing?, database.ahead?) {
        (0, 0) => format!("has what {peer} has"),
        (missing, 0) => format!("lacks {} of {peer}", transactions(missing)),
        (0, ahead) => format!("has {} that {peer} has not yet", transactions(ahead)),
        (missing, ahead) => {
            format!("lacks {} of {peer}, which lacks {ahead} of these", transactions(missing))
        }
    })
}

/// So many, in words.
#[must_use]
pub fn transactions(count: u64) -> String {
    match count {
        1 => "1 transaction".to_owned(),
        count => format!("{count} transactions"),
    }
}

fn sql_line(status: &Status) -> String {
    let sql = &status.sql;
    format!(
        "sql       {} sessions  {}/s  {} held  {} to source  {} to replica",
        sql.sessions, sql.per_second, sql.held, sql.queries_to_source, sql.queries_to_replica
    )
}

fn web_line(status: &Status) -> String {
    let web = &status.web;
    format!(
        "web       {} connections  {}/s  {} in flight  {} queued  {} requests",
        web.connections, web.per_second, web.in_flight, web.queued, web.requests
    )
}

fn php_line(php: &PhpStatus) -> String {
    let state = match (php.is_up, php.is_draining, php.in_flight) {
        (false, false, _) => "DOWN".to_owned(),
        (false, true, _) => "DOWN, drained".to_owned(),
        (true, false, _) => "up".to_owned(),
        (true, true, 0) => "drained".to_owned(),
        (true, true, count) => format!("draining, {count} in flight from here"),
    };
    format!("php       {}  {state}  {}", php.host, php.reason)
}

/// The time of day is enough on a screen.
fn note_line(record: &Record) -> String {
    let at = super::note::timestamp(record.at_ms);
    format!("note      {}  {}", at.get(11..19).unwrap_or_default(), record.text)
}

/// A sentence of which no word may be cut off: what to do stands at its end.
fn wrap(title: &str, sentence: &str) -> Vec<String> {
    let mut lines = fold(sentence, &" ".repeat(TITLE));
    if let Some(first) = lines.first_mut() {
        first.replace_range(..TITLE, &format!("{title:<TITLE$}"));
    }
    lines
}

/// Words on lines of 79 columns, each behind `indent`.
#[must_use]
pub fn fold(text: &str, indent: &str) -> Vec<String> {
    let mut lines = vec![indent.to_owned()];
    for word in text.split_whitespace() {
        let last = lines.last_mut().expect("one line is there from the start");
        let is_empty = last.len() == indent.len();
        if !is_empty && last.chars().count() + 1 + word.chars().count() > COLUMNS {
            lines.push(format!("{indent}{word}"));
        } else {
            last.push_str(if is_empty { "" } else { " " });
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
    let last = link.beacon_ago_ms.filter(|_| !is_peer_heard);
    let last = last.map_or_else(String::new, |ms| format!(", last {}", ago(Some(ms))));
    format!("{name:<9} {}  {carrier}  {peer}{last}", link.device)
}

fn ago(ms: Option<u64>) -> String {
    match ms {
        None => "never heard".to_owned(),
        Some(ms @ 0..10_000) => format!("{}.{} s ago", ms / 1000, ms % 1000 / 100),
        Some(ms) => format!("{} ago", span(ms / 1000)),
    }
}

/// A length of time in the largest unit that says enough.
fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
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

    #[test]
    fn every_screen_fits() {
        let mut whole = crate::console::status::tests::whole();
        whole.findings = vec!["a finding ".repeat(20); 9];
        for screen in [status(&whole, false), vips(&whole), links(&whole), databases(&whole)]
            .into_iter()
            .chain([web(&whole), sql(&whole), heartbeat(&whole)])
        {
            assert!(screen.lines().count() < 24, "{screen}");
            assert!(screen.lines().all(|line| line.len() < 80), "{screen}");
        }
        assert!(status(&whole, true).lines().count() > 24);
        assert!(databases(&whole).contains("has 1 transaction that server2 has not yet"));
    }

    #[test]
    fn findings_go_before_notes_and_what_does_not_fit_is_counted() {
        let finding = |count| vec!["finding".to_owned(); count];
        let notes = || vec!["note 1".to_owned(), "note 2".to_owned(), "note 3".to_owned()];
        assert_eq!(fitted(&[finding(1)], notes(), 3), ["finding", "note 2", "note 3"]);
        assert_eq!(fitted(&[finding(2)], notes(), 2), ["finding", "finding"]);
        let cut = fitted(&[finding(2), finding(2), finding(1)], notes(), 4);
        assert_eq!(cut, ["finding", "finding", "finding   2 more: `tandem status --all`"]);
    }
}
