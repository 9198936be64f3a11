//! haproxy: where it listened for HTTP and for MySQL, and how it shared what came.
//!
//! In: haproxy.cfg. Out: facts of `[web]` and `[sql]`, addresses, notes.
//! Must not: take over its servers of HTTP (tandem serves itself). Read first: haproxy's manual, 4.

use super::atlas;
use super::draft::{Draft, Origin, Whose, quoted};

/// A section, and what is known of it.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Kind {
    #[default]
    Other,
    Global,
    Http,
    Mysql,
}

pub(super) fn read(draft: &mut Draft, at: &Origin, text: &str) {
    let mut is_tcp_default = false;
    let mut section: Vec<(usize, Vec<&str>)> = Vec::new();
    let mut sections = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.split(" #").next().unwrap_or(line);
        let words: Vec<&str> = line.split_whitespace().collect();
        let Some(first) = words.first().filter(|word| !word.starts_with('#')) else { continue };
        let is_head = matches!(
            *first,
            "global"
                | "defaults"
                | "frontend"
                | "backend"
                | "listen"
                | "peers"
                | "userlist"
                | "resolvers"
                | "mailers"
                | "program"
                | "cache"
                | "http-errors"
        );
        if is_head {
            sections.push(std::mem::take(&mut section));
        } else if section.is_empty() {
            draft.error(&at.at(index + 1), "a section, as in `defaults`, before the first line");
        }
        section.push((index + 1, words));
    }
    sections.push(section);
    for section in sections {
        let Some((head_line, head)) = section.first() else { continue };
        let is_tcp = mode(&section).map_or(is_tcp_default, |mode| mode == "tcp");
        if head.first() == Some(&"defaults") {
            is_tcp_default = is_tcp;
        }
        let kind = kind(&section, is_tcp);
        if kind == Kind::Other && head.first() != Some(&"defaults") {
            draft.left(&at.at(*head_line), &head.join(" "), "neither HTTP nor MySQL");
        }
        for (line, words) in section.iter().skip(1) {
            statement(draft, &at.at(*line), words, kind);
        }
    }
}

fn mode<'a>(section: &[(usize, Vec<&'a str>)]) -> Option<&'a str> {
    section.iter().find_map(|(_, words)| match words.as_slice() {
        ["mode", mode] => Some(*mode),
        [..] => None,
    })
}

fn kind(section: &[(usize, Vec<&str>)], is_tcp: bool) -> Kind {
    let says =
        |what: &str| section.iter().any(|(_, words)| words.iter().any(|it| it.contains(what)));
    match section.first().and_then(|(_, words)| words.first()) {
        Some(&"global") => Kind::Global,
        Some(&("frontend" | "backend" | "listen")) if says("stats") && !says("server") => {
            Kind::Other
        }
        Some(&("frontend" | "backend" | "listen")) if is_tcp => {
            let is_mysql = ["mysql", "3306", "maria", "galera", "db"].iter().any(|it| says(it));
            if is_mysql { Kind::Mysql } else { Kind::Other }
        }
        Some(&("frontend" | "backend" | "listen")) => Kind::Http,
        Some(_) | None => Kind::Other,
    }
}

fn statement(draft: &mut Draft, at: &Origin, words: &[&str], kind: Kind) {
    let shown: String = match words.first() {
        Some(&("stats" | "user")) if words.contains(&"auth") || words.contains(&"password") => {
            words.iter().take(2).copied().collect::<Vec<_>>().join(" ")
        }
        _ => words.join(" ").chars().take(60).collect(),
    };
    match (kind, words) {
        (_, ["mode", "http" | "tcp"]) | (Kind::Mysql | Kind::Http, ["default_backend", _]) => {}
        (Kind::Http, ["bind", place, options @ ..]) => bind(draft, at, place, options),
        (Kind::Mysql, ["bind", place, ..]) => atlas::listen(draft, at, "listen", place),
        (Kind::Mysql, ["server", name, place, options @ ..]) => {
            let (address, port) = place.rsplit_once(':').unwrap_or((place, "3306"));
            if port.parse::<u16>().is_ok() {
                draft.set("repl", "port", port.to_owned(), at);
            }
            draft.see(Whose::Named((*name).to_owned()), address, None, at);
            draft.see(Whose::Named(String::new()), address, None, at);
            if options.contains(&"backup") {
                let why = "which database takes writes is decided by their roles";
                draft.left(at, &format!("server {name} ... backup"), why);
            }
        }
        (Kind::Mysql, ["maxconn", count]) if count.parse::<u32>().is_ok() => {
            draft.set("sql", "sessions_max", (*count).to_owned(), at);
        }
        (Kind::Http, ["maxconn", count]) if count.parse::<u32>().is_ok() => {
            draft.set("web", "connections_max", (*count).to_owned(), at);
        }
        (Kind::Mysql, ["timeout", "client", span]) => limit(draft, at, "idle_limit", span),
        (Kind::Mysql, ["timeout", "connect", span]) => limit(draft, at, "connect_limit", span),
        (Kind::Http, ["balance", "leastconn"]) => {
            draft.set("web", "balance", quoted("least_conn"), at);
        }
        (Kind::Http, ["balance", "source"]) => draft.set("web", "sticky", quoted("ip_hash"), at),
        (Kind::Http, ["cookie", name, ..]) => {
            draft.set("web", "sticky", quoted("cookie"), at);
            draft.set("web", "sticky_cookie", quoted(name), at);
        }
        (Kind::Http, ["redirect", "scheme", "https", ..])
        | (Kind::Http, ["http-request", "redirect", "scheme", "https", ..]) => {
            draft.set("web", "ssl_redirect", "true".into(), at);
        }
        (_, _) => draft.left(at, &shown, why(words, kind)),
    }
}

fn bind(draft: &mut Draft, at: &Origin, place: &str, options: &[&str]) {
    let (address, port) = place.rsplit_once(':').unwrap_or(("", place));
    if let Ok(address) = address.parse() {
        draft.listens_on.push(address);
    }
    let key = if options.contains(&"ssl") { "ssl_port" } else { "port" };
    match port.parse::<u16>() {
        Ok(port) => draft.set("web", key, port.to_string(), at),
        Err(_) => draft.left(at, place, "the front listens on one TCP port of each kind"),
    }
    let mut rest = options.iter();
    while let Some(option) = rest.next() {
        match (*option, rest.as_slice().first()) {
            ("crt", Some(path)) if path.ends_with(".pem") => {
                // One file has both for haproxy, and may have them here.
                draft.set("web", "ssl_certificate", quoted(path), at);
                draft.set("web", "ssl_certificate_key", quoted(path), at);
                rest.next();
            }
            ("ssl", _) => {}
            ("accept-proxy", _) => draft.set("web", "proxy_protocol", "true".into(), at),
            (option, _) => draft.left(at, &format!("bind ... {option}"), "has no counterpart"),
        }
    }
}

fn limit(draft: &mut Draft, at: &Origin, key: &'static str, text: &str) {
    let is_bare = text.bytes().all(|byte| byte.is_ascii_digit());
    let full = if is_bare { format!("{text}ms") } else { text.to_owned() };
    let end = full.find(|it: char| !it.is_ascii_digit()).unwrap_or(full.len());
    let (number, unit) = full.split_at(end);
    match number.parse::<u32>() {
        Ok(_) if matches!(unit, "ms" | "s" | "m" | "h") => {
            draft.set("sql", key, quoted(&full), at);
        }
        Ok(_) | Err(_) => draft.error(at, "a time as in 10s"),
    }
}

fn why(words: &[&str], kind: Kind) -> &'static str {
    match (words.first().copied().unwrap_or_default(), kind) {
        ("server" | "server-template", Kind::Http) => {
            "tandem serves the site itself, on both hosts, and shares PHP between them"
        }
        ("server" | "bind" | "default_backend", _) => "of a service that tandem does not have",
        (_, Kind::Global) => "of haproxy's own process",
        ("stats", _) => "`tandem web`, `tandem sql` and metrics tell it",
        ("option", _) if words.iter().any(|it| it.contains("chk") || it.contains("check")) => {
            "databases and php-fpm are checked by themselves"
        }
        ("option" | "log" | "retries" | "errorfile", _) => "built in, or not needed",
        ("acl" | "use_backend" | "http-request" | "http-response" | "rspadd" | "reqadd", _) => {
            "there are no conditions: sites and locations of [web] say what is where"
        }
        ("balance", Kind::Mysql) => "reads go to the replica, the rest to the source",
        ("balance", _) => "web.balance knows round_robin and least_conn",
        ("timeout", _) => "limits of time are built in; see [web] and [sql]",
        ("maxconn", _) => "sessions_max and connections_max are said for each part",
        _ => "tandem does not know it",
    }
}
