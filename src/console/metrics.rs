//! The status as OpenMetrics text, for Prometheus and its like.
//!
//! In: `Status`. Out: text. Must not: rename a metric that was released.
//! Read first: OpenMetrics 1.0, "Text format", "Metric naming": base units, `_total` on counters,
//! states as a 0/1 sample for each value, `# EOF` at the end.

use std::fmt::Write as _;

use super::status::{Health, Status};
use crate::wire::Role;

/// The media type of `render`'s text.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

struct Page(String);

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _infallible = write!(self.0, "# TYPE {name} {kind}\n# HELP {name} {help}\n");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: u64) {
        let labels: Vec<String> =
            labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
        let labels = match labels.is_empty() {
            true => String::new(),
            false => format!("{{{}}}", labels.join(",")),
        };
        let _infallible = writeln!(self.0, "{name}{labels} {value}");
    }

    /// A family of one sample.
    fn gauge(&mut self, name: &str, help: &str, value: u64) {
        self.family(name, "gauge", help);
        self.sample(name, &[], value);
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.family(name, "counter", help);
        self.sample(&format!("{name}_total"), &[], value);
    }

    /// One sample for each value that it could have.
    fn states(&mut self, name: &str, help: &str, label: &str, all: &[(&str, bool)]) {
        self.family(name, "stateset", help);
        for (value, is_so) in all {
            self.sample(name, &[(label, value)], u64::from(*is_so));
        }
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// What `/metrics` answers.
#[must_use]
pub fn render(status: &Status) -> String {
    let mut page = Page(String::new());
    pair(&mut page, status);
    network(&mut page, status);
    database(&mut page, status);
    sql(&mut page, status);
    web(&mut page, status);
    page.0.push_str("# EOF\n");
    page.0
}

fn pair(page: &mut Page, status: &Status) {
    page.family("tandem_build", "info", "The program that runs.");
    page.sample("tandem_build_info", &[("version", &status.release), ("host", &status.host)], 1);
    let roles = [
        Role::Joining,
        Role::Standby,
        Role::Promoting,
        Role::Active,
        Role::Demoting,
        Role::Refused,
    ];
    let names = roles.map(|role| role.to_string());
    let all: Vec<(&str, bool)> =
        names.iter().map(String::as_str).zip(roles.map(|role| role == status.role)).collect();
    page.states("tandem_role", "The role of this host.", "tandem_role", &all);
    let all = [Health::Healthy, Health::Degraded, Health::Down]
        .map(|health| (health.word(), health == status.health));
    page.states("tandem_health", "The pair as this host sees it.", "tandem_health", &all);
    page.gauge("tandem_epoch", "Promotions of the pair.", status.epoch);
    page.gauge("tandem_role_age_seconds", "Time in this role.", status.role_seconds);
    page.gauge("tandem_hold", "Whether roles stay where they are.", status.orders.hold.into());
    let maintenance = u64::from(status.orders.maintenance);
    page.gauge("tandem_maintenance", "Whether this host takes no role.", maintenance);
    page.gauge("tandem_findings", "Findings that need an operator.", count(status.findings.len()));
    page.family("tandem_child_restarts", "counter", "How often a child died.");
    for child in &status.children {
        let labels = [("child", child.name.as_str())];
        page.sample("tandem_child_restarts_total", &labels, child.restarts.into());
    }
}

fn network(page: &mut Page, status: &Status) {
    let links = [
        ("outside", status.links.outside.carrier, status.peer.heard.outside),
        ("inside", status.links.inside.carrier, status.peer.heard.inside),
    ];
    page.family("tandem_link_carrier", "gauge", "Whether the interface has carrier.");
    for (link, carrier, _) in links {
        page.sample("tandem_link_carrier", &[("link", link)], carrier.into());
    }
    page.family("tandem_peer_heard", "gauge", "Whether the peer is heard on the link.");
    for (link, _, is_heard) in links {
        page.sample("tandem_peer_heard", &[("link", link)], is_heard.into());
    }
    page.family("tandem_vip_held", "gauge", "Whether this host has the virtual address.");
    for vip in &status.addresses {
        let labels = [("address", vip.address.as_str())];
        page.sample("tandem_vip_held", &labels, vip.is_here.into());
    }
    page.family("tandem_witness_answers", "gauge", "Whether the witness answers.");
    for witness in &status.witnesses {
        let labels = [("address", witness.address.as_str())];
        page.sample("tandem_witness_answers", &labels, witness.answers.into());
    }
}

fn database(page: &mut Page, status: &Status) {
    let database = &status.database;
    let all = ["source", "replica", "closed", "unreachable"]
        .map(|state| (state, state == database.state));
    let name = "tandem_database_state";
    page.states(name, "The database of this host.", name, &all);
    for (name, help, value) in [
        ("tandem_database_lag_seconds", "How far the replica is behind.", database.lag_seconds),
        ("tandem_database_missing", "Transactions that only the peer has.", database.missing),
        ("tandem_database_ahead", "Transactions that only this host has.", database.ahead),
    ] {
        page.family(name, "gauge", help);
        if let Some(value) = value {
            page.sample(name, &[], value);
        }
    }
}

fn sql(page: &mut Page, status: &Status) {
    let sql = &status.sql;
    page.gauge("tandem_sql_sessions", "Clients of the splitter.", count(sql.sessions));
    page.gauge("tandem_sql_held", "Statements that wait for a source.", count(sql.held));
    page.gauge("tandem_sql_pooled", "Idle connections to servers.", count(sql.pooled));
    page.family("tandem_sql_statements", "counter", "Statements by where they ran.");
    for (target, value) in [("source", sql.queries_to_source), ("replica", sql.queries_to_replica)]
    {
        page.sample("tandem_sql_statements_total", &[("target", target)], value);
    }
    page.counter("tandem_sql_waited", "Statements that ever waited.", sql.held_total);
    page.counter("tandem_sql_retried", "Reads that ran again on the source.", sql.retried);
    page.counter("tandem_sql_blocked", "Statements that the blocklist refused.", sql.blocked);
    page.counter("tandem_sql_slow", "Statements over slow_limit.", sql.slow);
    page.counter("tandem_sql_errors", "Errors of servers.", sql.errors);
    page.counter("tandem_sql_refused", "Clients that were refused.", sql.refused);
    page.counter("tandem_sql_logins", "Log-ins on servers.", sql.logins);
}

fn web(page: &mut Page, status: &Status) {
    let web = &status.web;
    page.gauge("tandem_web_connections", "Client connections.", count(web.connections));
    page.gauge("tandem_web_in_flight", "Requests in php-fpm.", count(web.in_flight));
    page.gauge("tandem_web_queued", "Requests that wait for php-fpm.", count(web.queued));
    page.family("tandem_web_requests", "counter", "Requests by class of the answer's status.");
    for (class, value) in ["1xx", "2xx", "3xx", "4xx", "5xx"].into_iter().zip(web.by_class) {
        page.sample("tandem_web_requests_total", &[("code", class)], value);
    }
    page.family("tandem_php_up", "gauge", "Whether the host's php-fpm takes requests.");
    for php in &web.php {
        page.sample("tandem_php_up", &[("host", php.host.as_str())], php.is_up.into());
    }
    page.family("tandem_php_in_flight", "gauge", "Requests there from this front.");
    for php in &web.php {
        let labels = [("host", php.host.as_str())];
        page.sample("tandem_php_in_flight", &labels, count(php.in_flight));
    }
    page.family("tandem_php_requests", "counter", "Requests that it ever had from this front.");
    for php in &web.php {
        let labels = [("host", php.host.as_str())];
        page.sample("tandem_php_requests_total", &labels, php.requests);
    }
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
