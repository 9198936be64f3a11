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

    /// One sample for each value of a label.
    fn gauges<'a>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        samples: impl IntoIterator<Item = (&'a str, u64)>,
    ) {
        self.family(name, "gauge", help);
        for (of, value) in samples {
            self.sample(name, &[(label, of)], value);
        }
    }

    fn counters<'a>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        samples: impl IntoIterator<Item = (&'a str, u64)>,
    ) {
        self.family(name, "counter", help);
        for (of, value) in samples {
            self.sample(&format!("{name}_total"), &[(label, of)], value);
        }
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
    let restarts = status.children.iter().map(|it| (it.name.as_str(), it.restarts.into()));
    page.counters("tandem_child_restarts", "How often a child died.", "child", restarts);
}

fn network(page: &mut Page, status: &Status) {
    let (links, heard) = (&status.links, status.peer.heard);
    let carrier =
        [("outside", links.outside.carrier.into()), ("inside", links.inside.carrier.into())];
    let name = "tandem_link_carrier";
    page.gauges(name, "Whether the interface has carrier.", "link", carrier);
    let heard = [("outside", heard.outside.into()), ("inside", heard.inside.into())];
    let name = "tandem_peer_heard";
    page.gauges(name, "Whether the peer is heard on the link.", "link", heard);
    let held = status.addresses.iter().map(|vip| (vip.address.as_str(), vip.is_here.into()));
    let name = "tandem_vip_held";
    page.gauges(name, "Whether this host has the virtual address.", "address", held);
    let answers = status.witnesses.iter().map(|it| (it.address.as_str(), it.answers.into()));
    let name = "tandem_witness_answers";
    page.gauges(name, "Whether the witness answers.", "address", answers);
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
    let ran = [("source", sql.queries_to_source), ("replica", sql.queries_to_replica)];
    let name = "tandem_sql_statements";
    page.counters(name, "Statements by where they ran.", "target", ran);
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
    let classes = ["1xx", "2xx", "3xx", "4xx", "5xx"].into_iter().zip(web.by_class);
    let name = "tandem_web_requests";
    page.counters(name, "Requests by class of the answer's status.", "code", classes);
    let up = web.php.iter().map(|php| (php.host.as_str(), php.is_up.into()));
    page.gauges("tandem_php_up", "Whether the host's php-fpm takes requests.", "host", up);
    let in_flight = web.php.iter().map(|php| (php.host.as_str(), count(php.in_flight)));
    let name = "tandem_php_in_flight";
    page.gauges(name, "Requests there from this front.", "host", in_flight);
    let requests = web.php.iter().map(|php| (php.host.as_str(), php.requests));
    let name = "tandem_php_requests";
    page.counters(name, "Requests that it ever had from this front.", "host", requests);
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
