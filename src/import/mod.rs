//! Import: the configuration files of an old pair become a `tandem.toml`, line by line.
//!
//! In: the files of one or both hosts as text, by path. Out: the new file with the origin of every
//! line, and a report of what is to be filled in, what was wrong, and what was not taken over.
//! Must not: read files, invent a secret, drop a directive in silence, panic on any bytes.
//! Read first: facts/vrrp.md, facts/web.md, facts/sql.md; `draft` for what the dialects hand on.
//!
//! ```text
//!  keepalived, nginx -> tree        \
//!  atlas, mycnf      -> ini          |-> draft -> pair -> write -> tandem.toml, report
//!  haproxy, proxysql, notify, hosts /
//! ```

mod atlas;
mod draft;
mod front;
mod haproxy;
mod hosts;
mod ini;
mod keepalived;
mod mycnf;
mod notify;
mod pair;
mod place;
mod proxysql;
mod tree;
mod write;

use std::collections::BTreeMap;

use draft::{Draft, Origin};

/// The files of one host: absolute paths, as they are on that host, and their texts.
#[derive(Debug, Clone, Default)]
pub struct Host {
    pub name: String,
    pub files: BTreeMap<String, String>,
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The text of a `tandem.toml`.
    pub toml: String,
    /// What an operator has to know of it, for standard error.
    pub report: String,
    /// Nothing is left to be filled in, and every file could be read to its end.
    pub is_complete: bool,
}

/// Who wrote a file, by its name and by what stands in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dialect {
    Keepalived,
    Nginx,
    Atlas,
    Mycnf,
    Haproxy,
    Proxysql,
    Script,
    Network,
}

/// Makes one configuration of what one or two hosts have. `key`: for `peer.key`, fresh and random.
pub fn import(hosts: &[Host], key: &str) -> Result<Outcome, String> {
    let names: Vec<String> = hosts.iter().map(|host| host.name.clone()).collect();
    match names.as_slice() {
        [_] => {}
        [first, second] if first != second => {}
        [name, _] => return Err(format!("both hosts are named {name:?}")),
        [..] => return Err(format!("{} hosts: name one or two", names.len())),
    }
    let mut draft = Draft::new(names);
    for (number, host) in hosts.iter().enumerate() {
        read(&mut draft, number, host);
    }
    if draft.sources.is_empty() {
        return Err(
            "no file of keepalived, nginx, Atlas, MySQL, haproxy or ProxySQL is there".into()
        );
    }
    pair::settle(&mut draft, key);
    Ok(write::outcome(&draft))
}

fn read(draft: &mut Draft, number: usize, host: &Host) {
    for (path, text) in &host.files {
        let Some(dialect) = dialect(path, text) else { continue };
        let at = Origin { host: number, path: path.clone(), line: 1 };
        draft.sources.push(at.clone());
        match dialect {
            Dialect::Keepalived => keepalived::read(draft, &at, &host.files),
            Dialect::Nginx => front::read(draft, &at, &host.files),
            Dialect::Atlas => atlas::read(draft, &at, text),
            Dialect::Mycnf => mycnf::read(draft, &at, text),
            Dialect::Haproxy => haproxy::read(draft, &at, text),
            Dialect::Proxysql => proxysql::read(draft, &at, text),
            Dialect::Script => notify::read(draft, &at, text),
            Dialect::Network => hosts::read(draft, &at, text),
        }
    }
}

/// `None`: not one that is read by itself. Parts that another file includes are among these.
fn dialect(path: &str, text: &str) -> Option<Dialect> {
    let name = path.rsplit('/').next().unwrap_or(path);
    let has = |words: &[&str]| words.iter().any(|word| text.contains(word));
    match name {
        "keepalived.conf" => return Some(Dialect::Keepalived),
        "nginx.conf" => return Some(Dialect::Nginx),
        "haproxy.cfg" => return Some(Dialect::Haproxy),
        "proxysql.cnf" => return Some(Dialect::Proxysql),
        "interfaces" => return Some(Dialect::Network),
        "hosts" if path.ends_with("/etc/hosts") || path == "/hosts" => {
            return Some(Dialect::Network);
        }
        name if name.starts_with("ifcfg-") => return Some(Dialect::Network),
        _ => {}
    }
    let ending = name.rsplit('.').next().unwrap_or_default();
    let is_script = matches!(ending, "sh" | "py" | "pl") || text.starts_with("#!");
    match ending {
        _ if is_script => Some(Dialect::Script),
        "cnf" if has(&["[mysql-proxy]", "proxy-backend-addresses"]) => Some(Dialect::Atlas),
        "cnf" => Some(Dialect::Mycnf),
        _ => None,
    }
}

/// The paths of a set of files that a pattern with `*` and `?` names, in order.
fn matching<'a>(files: &'a BTreeMap<String, String>, pattern: &str) -> Vec<&'a str> {
    let is_hit = |path: &&str| is_like(path.as_bytes(), pattern.as_bytes());
    files.keys().map(String::as_str).filter(is_hit).collect()
}

/// As glob(7) has it, without brackets: a `*` crosses no slash.
fn is_like(mut path: &[u8], mut pattern: &[u8]) -> bool {
    // Where the last star stood, and what it has not swallowed yet.
    let mut star: Option<(&[u8], &[u8])> = None;
    loop {
        match (pattern.split_first(), path.split_first()) {
            (Some((b'*', rest)), _) => {
                star = Some((rest, path));
                pattern = rest;
            }
            (Some((wanted, wants)), Some((is, rest)))
                if wanted == is || (*wanted == b'?' && *is != b'/') =>
            {
                (pattern, path) = (wants, rest);
            }
            (None, None) => return true,
            (_, _) => match star.map(|(after, left)| (after, left.split_first())) {
                Some((after, Some((byte, left)))) if *byte != b'/' => {
                    star = Some((after, left));
                    (pattern, path) = (after, left);
                }
                Some(_) | None => return false,
            },
        }
    }
}

/// The folder of a path, without its final slash.
fn folder(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_stay_in_their_folder() {
        for (path, pattern, is_hit) in [
            ("/etc/a.conf", "/etc/*.conf", true),
            ("/etc/x/a.conf", "/etc/*.conf", false),
            ("/etc/a.conf.bak", "/etc/*.conf", false),
            ("/etc/a.b.conf", "/etc/*.conf", true),
            ("/etc/ab", "/etc/?b", true),
            ("/etc/sites/x", "/etc/sites/*", true),
            ("/etc", "/etc", true),
        ] {
            assert_eq!(is_like(path.as_bytes(), pattern.as_bytes()), is_hit, "{path} {pattern}");
        }
    }
}
