//! nginx: servers become `[web]` and `[[web.site]]`, the upstream of PHP becomes its balancing.
//!
//! In: nginx.conf with what it includes. Out: facts of `[web]`, addresses, notes.
//! Must not: read a location (see `place`). Read first: README, "For those who come from nginx".

use std::collections::BTreeMap;

use super::draft::{Draft, Origin, Whose, list, quoted};
use super::keepalived::{millis, span};
use super::place;
use super::tree::{self, Statement, Style};

/// What belongs together: the servers of one set of names, plain and TLS.
struct Group<'a> {
    names: Vec<&'a str>,
    servers: Vec<&'a Statement>,
    is_default: bool,
}

pub(super) fn read(draft: &mut Draft, at: &Origin, files: &BTreeMap<String, String>) {
    let statements = tree::load(draft, at, Style::Semicolons, files);
    for statement in &statements {
        let at = &statement.origin;
        match statement.name() {
            "http" => http(draft, statement),
            "events"
            | "worker_processes"
            | "worker_rlimit_nofile"
            | "worker_cpu_affinity"
            | "user"
            | "pid"
            | "daemon" => draft.left(at, &statement.shown(), "tandem is one process with one loop"),
            "error_log" => draft.left(at, &statement.shown(), "notes go to syslog, see [console]"),
            "load_module" => draft.left(at, &statement.shown(), "there are no modules"),
            "stream" | "mail" => {
                draft.left(at, &statement.shown(), "tandem passes HTTP and MySQL on, nothing else");
            }
            _ => draft.left(at, &statement.shown(), "tandem does not know it"),
        }
    }
}

fn http(draft: &mut Draft, http: &Statement) {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for statement in http.inner() {
        match statement.name() {
            "server" if statement.block.is_some() => enter(&mut groups, statement),
            "upstream" => upstream(draft, statement),
            "limit_req_zone" => {
                let rate = statement.values().into_iter().find_map(|it| it.strip_prefix("rate="));
                if let Some(rate) = rate {
                    draft.set("web", "limit_req", quoted(rate), &statement.origin);
                }
            }
            // Counted by client, as `limit_conn` says.
            "limit_conn_zone" => {}
            "log_format" => {
                let why = "the access log has the combined format, and who answered how fast";
                draft.left(&statement.origin, &statement.shown(), why);
            }
            _ => shared(draft, statement, &Scope::WEB),
        }
    }
    spread(&mut groups);
    if !groups.iter().any(|group| group.is_default)
        && let Some(first) = groups.first_mut()
    {
        first.is_default = true;
    }
    for group in &groups {
        site(draft, group);
    }
}

fn enter<'a>(groups: &mut Vec<Group<'a>>, server: &'a Statement) {
    let names: Vec<&str> = server
        .inner()
        .iter()
        .filter(|it| it.name() == "server_name")
        .flat_map(Statement::values)
        .filter(|name| !matches!(*name, "_" | "" | "localhost"))
        .collect();
    let is_default = server
        .inner()
        .iter()
        .any(|it| it.name() == "listen" && it.values().contains(&"default_server"));
    let is_same = |group: &&mut Group<'a>| {
        group.names.len() == names.len() && group.names.iter().all(|it| names.contains(it))
    };
    match groups.iter_mut().find(is_same) {
        Some(group) => {
            group.is_default |= is_default;
            group.servers.push(server);
        }
        None => groups.push(Group { names, servers: vec![server], is_default }),
    }
}

/// A server that only sends to HTTPS belongs to every site that has one of its names.
fn spread(groups: &mut Vec<Group<'_>>) {
    let sends = |server: &&Statement| {
        let is_content = |it: &Statement| {
            matches!(it.name(), "root" | "location" | "try_files" | "index" | "ssl_certificate")
        };
        server.inner().iter().any(|it| it.name() == "return")
            && !server.inner().iter().any(is_content)
    };
    for place in 0..groups.len() {
        let Some(group) = groups.get(place) else { return };
        if !group.servers.iter().all(&sends) {
            continue;
        }
        let (names, servers) = (group.names.clone(), group.servers.clone());
        let mut taken = Vec::new();
        for (number, other) in groups.iter_mut().enumerate() {
            let is_meant = match names.is_empty() {
                // Of every host that no other plain server has.
                true => other.servers.iter().any(|it| is_tls(it)),
                false => other.names.iter().any(|it| names.contains(it)),
            };
            if number != place && is_meant {
                taken.extend(other.names.iter().copied().chain([""]));
                other.servers.extend(servers.iter().copied());
            }
        }
        if let Some(group) = groups.get_mut(place) {
            group.names.retain(|it| !taken.contains(it));
            if group.names.is_empty() && !taken.is_empty() {
                group.servers.clear();
            }
        }
    }
    groups.retain(|group| !group.servers.is_empty());
}

fn is_tls(server: &Statement) -> bool {
    server.inner().iter().any(|it| {
        (it.name() == "listen" && it.values().contains(&"ssl"))
            || (it.name() == "ssl" && it.value() == "on")
    })
}

/// Where a server's lines go.
pub(super) struct Scope {
    pub(super) table: String,
    /// Of the site; empty for `[web]` itself.
    pub(super) site: String,
}

impl Scope {
    pub(super) const WEB: Self = Self { table: String::new(), site: String::new() };

    pub(super) fn table(&self) -> &str {
        if self.is_web() { "web" } else { &self.table }
    }

    pub(super) const fn is_web(&self) -> bool {
        self.site.is_empty()
    }

    /// "web.location//admin", or that of a site: "web.site.location/NAME|/admin".
    pub(super) fn below(&self, kind: &str, what: &str) -> String {
        match self.is_web() {
            true => format!("web.{kind}/{what}"),
            false => format!("web.site.{kind}/{}|{what}", self.site),
        }
    }
}

fn site(draft: &mut Draft, group: &Group<'_>) {
    let scope = match (group.is_default, group.names.first()) {
        (false, Some(name)) => {
            Scope { table: format!("web.site/{name}"), site: (*name).to_owned() }
        }
        (true, _) | (false, None) => Scope::WEB,
    };
    if !scope.is_web() {
        let regex = group.names.iter().any(|name| name.starts_with('~'));
        let origin = group.servers.first().map(|it| it.origin.clone());
        if let Some(origin) = origin {
            if regex {
                let why = "names of sites are no regexes";
                draft.left(&origin, &group.names.join(" "), why);
                for statement in group.servers.iter().flat_map(|it| it.inner()) {
                    draft.left(&statement.origin, &statement.shown(), why);
                }
                return;
            }
            draft.set(&scope.table, "server_name", list(&group.names), &origin);
        }
    }
    for server in &group.servers {
        let is_tls = is_tls(server);
        let root = server.inner().iter().find(|it| it.name() == "root").map(Statement::value);
        for statement in server.inner() {
            match statement.name() {
                "listen" => listen(draft, statement, is_tls),
                "server_name" | "ssl" => {}
                "location" => place::location(draft, statement, &scope, root),
                "return" | "rewrite" | "if" => {
                    place::redirect(draft, statement, &scope, (is_tls, None));
                }
                "error_page" => place::error_page(draft, statement, server, &scope),
                "try_files" => place::try_files(draft, statement, &scope),
                "deny" | "allow" => place::access(draft, statement, (server, "/"), &scope),
                _ => shared(draft, statement, &scope),
            }
        }
    }
}

/// `80`, `*:80`, `[::]:443 ssl`, `10.0.0.1:80 default_server`.
fn listen(draft: &mut Draft, statement: &Statement, is_tls_server: bool) {
    let at = &statement.origin;
    let (place, options) = (statement.value(), statement.values());
    let (host, port) = match place.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port),
        _ if place.parse::<u16>().is_ok() => ("", place),
        _ => (place, "80"),
    };
    let Ok(port) = port.parse::<u16>() else {
        draft.left(at, &statement.shown(), "the front listens on TCP ports only");
        return;
    };
    if let Ok(address) = host.parse() {
        draft.listens_on.push(address);
    }
    let is_tls = options.contains(&"ssl") || (is_tls_server && port == 443);
    let key = if is_tls { "ssl_port" } else { "port" };
    draft.set("web", key, port.to_string(), at);
    if options.contains(&"proxy_protocol") {
        draft.set("web", "proxy_protocol", "true".into(), at);
    }
    for option in options.iter().skip(1) {
        let why = match *option {
            "ssl" | "default_server" | "default" | "proxy_protocol" => continue,
            "http2" | "quic" | "spdy" | "http3" => "HTTP/1.1 is spoken",
            _ => "sockets are opened as tandem needs them",
        };
        draft.left(at, &format!("listen ... {option}"), why);
    }
}

/// What may stand in `http` and in a server.
pub(super) fn shared(draft: &mut Draft, statement: &Statement, scope: &Scope) {
    let (at, value) = (&statement.origin, statement.value());
    let site = scope.table();
    match statement.name() {
        "root" => draft.set(site, "root", quoted(value), at),
        "index" => draft.set(site, "index", list(&statement.values()), at),
        "ssl_certificate" => draft.set(site, "ssl_certificate", quoted(value), at),
        "ssl_certificate_key" => draft.set(site, "ssl_certificate_key", quoted(value), at),
        "client_max_body_size" => match size(value) {
            Some(literal) => draft.set("web", "body_max", literal, at),
            None => draft.left(at, &statement.shown(), "a body has a limit: write body_max"),
        },
        "keepalive_timeout" => time(draft, statement, "idle_limit"),
        "client_header_timeout" | "client_body_timeout" => time(draft, statement, "request_limit"),
        "fastcgi_connect_timeout" => time(draft, statement, "connect_limit"),
        "fastcgi_read_timeout" => time(draft, statement, "answer_limit"),
        "access_log" => match value {
            "off" => {}
            path if path.starts_with('/') => draft.set("web", "access_log", quoted(path), at),
            _ => draft.left(at, &statement.shown(), "the access log is a file, by absolute path"),
        },
        "gzip" | "gzip_static" => match (statement.name(), value == "on" || value == "always") {
            ("gzip", is_on) => draft.set("web", "gzip", is_on.to_string(), at),
            (_, is_on) => draft.set("web", "gzip_static", is_on.to_string(), at),
        },
        "gzip_min_length" => match size(value) {
            Some(literal) => draft.set("web", "gzip_min_length", literal, at),
            None => draft.error(at, "gzip_min_length with a size"),
        },
        "set_real_ip_from" => match value.contains(':') || !value.contains('.') {
            true => draft.left(at, &statement.shown(), "networks of proxies are IPv4 here"),
            false => {
                let network =
                    if value.contains('/') { value.into() } else { format!("{value}/32") };
                draft.add("web", "set_real_ip_from", quoted(&network), at);
            }
        },
        "ssl_protocols" => protocols(draft, statement),
        "limit_req" => {
            let burst = statement.values().into_iter().find_map(|it| it.strip_prefix("burst="));
            if let Some(burst) = burst.filter(|it| it.parse::<u32>().is_ok()) {
                draft.set("web", "limit_req_burst", burst.to_owned(), at);
            }
        }
        "limit_conn" => match statement.values().last().and_then(|it| it.parse::<u32>().ok()) {
            Some(count) => draft.set("web", "connections_max_per_client", count.to_string(), at),
            None => draft.error(at, "limit_conn ZONE with a number"),
        },
        "add_header" => header(draft, statement),
        "deny" | "allow" | "error_page" | "try_files" | "location" => {
            draft.left(at, &statement.shown(), "belongs into a server");
        }
        _ => place::other(draft, statement),
    }
}

fn protocols(draft: &mut Draft, statement: &Statement) {
    let values = statement.values();
    let (new, old): (Vec<&str>, Vec<&str>) =
        values.into_iter().partition(|it| matches!(*it, "TLSv1.2" | "TLSv1.3"));
    if !old.is_empty() {
        let what = format!("ssl_protocols ... {}", old.join(" "));
        draft.left(&statement.origin, &what, "TLS 1.2 and 1.3 are spoken, nothing older");
    }
    if !new.is_empty() {
        draft.set("web", "ssl_protocols", list(&new), &statement.origin);
    }
}

fn header(draft: &mut Draft, statement: &Statement) {
    let values = statement.values();
    let age = values
        .get(1)
        .and_then(|it| it.split(';').find_map(|it| it.trim().strip_prefix("max-age=")));
    match (values.first().map(|it| it.eq_ignore_ascii_case("strict-transport-security")), age) {
        (Some(true), Some(age)) if age.parse::<u64>().is_ok() => {
            draft.set("web", "hsts_max_age", quoted(&format!("{age}s")), &statement.origin);
        }
        (_, _) => draft.left(
            &statement.origin,
            &statement.shown(),
            "tandem adds no headers of this kind: let the program send them",
        ),
    }
}

/// The servers that PHP runs on; 127.0.0.1 is this host, another one the other host.
fn upstream(draft: &mut Draft, block: &Statement) {
    let is_pair = block.inner().iter().any(|it| it.name() == "server" && is_local(it.value()));
    for statement in block.inner() {
        let at = &statement.origin;
        match statement.name() {
            "server" => server(draft, statement, is_pair),
            "least_conn" => draft.set("web", "balance", quoted("least_conn"), at),
            "ip_hash" => draft.set("web", "sticky", quoted("ip_hash"), at),
            "sticky" if statement.value() == "cookie" => {
                draft.set("web", "sticky", quoted("cookie"), at);
                if let Some(name) = statement.values().get(1) {
                    draft.set("web", "sticky_cookie", quoted(name), at);
                }
            }
            "keepalive" if statement.value().parse::<u16>().is_ok() => {
                draft.set("web", "keepalive", statement.value().to_owned(), at);
            }
            // nginx before 1.15 wrote it without a number; the scenario's does.
            "keepalive" => draft.left(at, "keepalive", "write web.keepalive = 8 where it pays"),
            "zone" => draft.left(at, &statement.shown(), "tandem is one process"),
            _ => {
                draft.left(at, &statement.shown(), "PHP is balanced over both hosts, see `balance`")
            }
        }
    }
}

fn is_local(server: &str) -> bool {
    server.starts_with("127.") || server.starts_with("localhost") || server.starts_with("unix:")
}

fn server(draft: &mut Draft, statement: &Statement, is_pair: bool) {
    let (at, place) = (&statement.origin, statement.value());
    php_port(draft, statement, place);
    let address = place.split(':').next().unwrap_or_default();
    if is_pair {
        draft.see(Whose::Other(at.host), address, None, at);
    }
    for option in statement.values().into_iter().skip(1) {
        let (key, value) = option.split_once('=').unwrap_or((option, ""));
        match key {
            "weight" if value == "1" => {}
            "backup" if is_pair && !is_local(place) => {
                draft.set("web", "php_backup", quoted("peer"), at);
            }
            "slow_start" => {
                if let Some(ms) = nginx_millis(value) {
                    draft.set("web", "slow_start", quoted(&span(ms)), at);
                }
            }
            "max_fails" | "fail_timeout" => draft.left(
                at,
                option,
                "a php-fpm that does not answer a ping is taken out, and back in when it does",
            ),
            "weight" => draft.left(at, option, "write web.php_weight = { HOST = NUMBER }"),
            "down" => draft.left(at, option, "`tandem php drain HOST` spares a host"),
            _ => draft.left(at, option, "has no counterpart"),
        }
    }
}

/// Of an upstream's server or of a fastcgi_pass.
pub(super) fn php_port(draft: &mut Draft, statement: &Statement, place: &str) {
    let at = &statement.origin;
    if place.starts_with("unix:") {
        draft.warn(
            at,
            &statement.shown(),
            "php-fpm is asked by TCP, from both hosts: let it listen on port 9000 of loopback and \
             of the inside address, with listen.allowed_clients",
        );
        return;
    }
    if let Some(port) = place.rsplit(':').next().and_then(|it| it.parse::<u16>().ok()) {
        draft.set("web", "php_port", port.to_string(), at);
    }
}

fn time(draft: &mut Draft, statement: &Statement, key: &'static str) {
    match nginx_millis(statement.value()) {
        Some(ms) => draft.set("web", key, quoted(&span(ms)), &statement.origin),
        None => draft.left(&statement.origin, &statement.shown(), "no time that tandem can take"),
    }
}

/// "65", "30s", "5m", "500ms".
fn nginx_millis(text: &str) -> Option<u64> {
    let end = text.find(|it: char| !it.is_ascii_digit() && it != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let ms = millis(number)?;
    match unit {
        "" | "s" => Some(ms),
        "ms" => Some(ms / 1000).filter(|ms| *ms > 0),
        "m" => ms.checked_mul(60),
        "h" => ms.checked_mul(3600),
        "d" => ms.checked_mul(86_400),
        _ => None,
    }
}

/// "8m", "512k", "1g", "1024"; 0 is no limit, which tandem does not have.
pub(super) fn size(text: &str) -> Option<String> {
    let digits = text.trim_end_matches(|it: char| it.is_ascii_alphabetic());
    let unit = text.strip_prefix(digits)?.to_ascii_lowercase();
    let number = digits.parse::<u32>().ok().filter(|it| *it > 0)?;
    let unit = match unit.as_str() {
        "" => "",
        "k" => "KiB",
        "m" => "MiB",
        "g" => "GiB",
        _ => return None,
    };
    Some(quoted(&format!("{number}{unit}")))
}
