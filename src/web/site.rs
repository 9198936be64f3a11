//! Sites: which of the configured ones a request's host means, and what its paths are closed to.
//!
//! In: sections `[web]` and `[[web.site]]`, a host, a normalised path. Out: a site, a gate.
//! Must not: look at files. Read first: nginx "server names"; RFC 9110, 4.2.3.
//! Differs: an unknown host gets what `[web]` itself says, not the first site.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::limits;

use super::access::{self, Location};
use super::path;

/// Section `[[web.site]]`: a virtual host (nginx: server).
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Names: "www.example.org", "*.example.org" for all below it, ".example.org" for both.
    pub server_name: Vec<String>,
    /// A certificate of its own for these names; that of `[web]` if absent.
    pub ssl_certificate: Option<String>,
    /// The private key of `ssl_certificate`.
    pub ssl_certificate_key: Option<String>,
    /// As in `[web]`, and as there if absent.
    pub ssl_redirect: Option<bool>,
    /// Document root; that of `[web]` if absent.
    pub root: Option<String>,
    /// Index files; those of `[web]` if absent.
    pub index: Option<Vec<String>>,
    /// As in `[web]`, and as there if absent.
    pub front_controller: Option<bool>,
    /// As in `[web]`.
    #[serde(default)]
    pub deny: Vec<String>,
    /// As in `[web]`.
    #[serde(default)]
    pub location: Vec<Location>,
    /// As in `[web]`.
    #[serde(default)]
    pub no_execute: Vec<String>,
    /// As in `[web]`.
    #[serde(default)]
    pub redirect: Vec<Redirect>,
}

/// Section `[[web.redirect]]`: a path, or all below a path that ends with a slash, is somewhere
/// else (nginx: return, rewrite).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Redirect {
    /// "/old" for just this path; "/old/" for all below it; "/" for all of the site.
    pub from: String,
    /// A path, or a whole URL for another host or scheme. What follows `from` is appended where
    /// both end with a slash, and the query always.
    pub to: String,
    /// 301, 302, 307 or 308.
    #[serde(default = "moved_permanently")]
    pub status: u16,
}

const fn moved_permanently() -> u16 {
    301
}

/// One site, complete.
#[derive(Debug, Clone)]
pub struct Site {
    pub root: String,
    pub index: Vec<String>,
    pub front_controller: bool,
    pub gzip_static: bool,
    pub ssl_redirect: bool,
    deny: Vec<String>,
    locations: Vec<Location>,
    no_execute: Vec<String>,
    redirects: Vec<Redirect>,
}

/// All of them, the plain `[web]` first.
#[derive(Debug, Clone)]
pub struct Sites {
    all: Vec<Site>,
    exact: BTreeMap<Vec<u8>, usize>,
    /// By what follows `*.`.
    below: BTreeMap<Vec<u8>, usize>,
}

/// What a site says of a path before any file is looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gate {
    Open,
    Denied,
    /// The realm that name and password are asked for.
    LogIn(String),
    /// Passwords are tried too fast.
    Busy,
    /// OPTIONS *: of the server, not of a path (RFC 9110, 9.3.7).
    Server,
    /// The status, and the location without its query.
    Redirect(u16, Vec<u8>),
}

impl Sites {
    #[must_use]
    pub fn new(config: &super::Config) -> Self {
        let mut sites = Self {
            all: vec![Site {
                root: config.root.clone(),
                index: config.index.clone(),
                front_controller: config.front_controller,
                gzip_static: config.gzip_static,
                ssl_redirect: config.ssl_redirect,
                deny: config.deny.clone(),
                locations: config.location.clone(),
                no_execute: config.no_execute.clone(),
                redirects: config.redirect.clone(),
            }],
            exact: BTreeMap::new(),
            below: BTreeMap::new(),
        };
        for site in &config.sites {
            let number = sites.all.len();
            sites.all.push(Site {
                root: site.root.clone().unwrap_or_else(|| config.root.clone()),
                index: site.index.clone().unwrap_or_else(|| config.index.clone()),
                front_controller: site.front_controller.unwrap_or(config.front_controller),
                gzip_static: config.gzip_static,
                ssl_redirect: site.ssl_redirect.unwrap_or(config.ssl_redirect),
                deny: site.deny.clone(),
                locations: site.location.clone(),
                no_execute: site.no_execute.clone(),
                redirects: site.redirect.clone(),
            });
            for name in &site.server_name {
                let name = name.to_ascii_lowercase();
                // The first site that has a name keeps it.
                if let Some(rest) = name.strip_prefix("*.").or_else(|| name.strip_prefix('.')) {
                    sites.below.entry(rest.into()).or_insert(number);
                }
                if !name.starts_with('*') {
                    let name = name.strip_prefix('.').unwrap_or(&name);
                    sites.exact.entry(name.into()).or_insert(number);
                }
            }
        }
        sites
    }

    /// The site of a host as the client wrote it: with a port, a final dot, in any case. The exact
    /// name wins, then the longest name that it is below, then `[web]`.
    #[must_use]
    pub fn find(&self, host: &[u8]) -> usize {
        if self.exact.is_empty() && self.below.is_empty() {
            return 0;
        }
        let name = host_name(host);
        let name = name.strip_suffix(b".").unwrap_or(name).to_ascii_lowercase();
        if let Some(&number) = self.exact.get(&name) {
            return number;
        }
        let mut rest = name.as_slice();
        while let Some(dot) = rest.iter().position(|&byte| byte == b'.') {
            rest = rest.get(dot + 1..).unwrap_or_default();
            if let Some(&number) = self.below.get(rest) {
                return number;
            }
        }
        0
    }

    /// The site of that number, as `find` gave it.
    #[must_use]
    pub fn site(&self, number: usize) -> &Site {
        let default = self.all.first().expect("the plain section is always there");
        self.all.get(number).unwrap_or(default)
    }

    /// The files of users that locations name.
    pub fn user_files(&self) -> impl Iterator<Item = &str> {
        let locations = self.all.iter().flat_map(|site| &site.locations);
        locations.filter_map(|location| location.auth_basic_user_file.as_deref())
    }

    pub fn roots(&self) -> impl Iterator<Item = &str> {
        self.all.iter().map(|site| site.root.as_str())
    }
}

impl Site {
    #[must_use]
    pub fn gate(&self, path: &[u8]) -> Gate {
        if self.deny.iter().any(|prefix| is_below(path, prefix)) {
            return Gate::Denied;
        }
        for redirect in &self.redirects {
            let Some(rest) = path.strip_prefix(redirect.from.as_bytes()) else { continue };
            if !rest.is_empty() && !redirect.from.ends_with('/') {
                continue;
            }
            let mut location = redirect.to.as_bytes().to_vec();
            if location.ends_with(b"/") {
                location.extend(path::escape(rest));
            }
            return Gate::Redirect(redirect.status, location);
        }
        Gate::Open
    }

    /// What holds at a path beside the rest of the site.
    #[must_use]
    pub fn location(&self, path: &[u8]) -> Option<&Location> {
        access::find(&self.locations, path)
    }

    /// Whether a script of this name may run: not what visitors can upload.
    #[must_use]
    pub fn may_run(&self, script: &[u8]) -> bool {
        !self.no_execute.iter().any(|prefix| is_below(script, prefix))
    }
}

/// Whether a path is this prefix or below it, by whole segments.
pub(super) fn is_below(path: &[u8], prefix: &str) -> bool {
    let prefix = prefix.trim_end_matches('/').as_bytes();
    path.strip_prefix(prefix).is_some_and(|rest| matches!(rest, [] | [b'/', ..]))
}

/// The host without its port.
#[must_use]
pub fn host_name(host: &[u8]) -> &[u8] {
    if host.starts_with(b"[") {
        let end = host.iter().position(|&byte| byte == b']').map_or(host.len(), |end| end + 1);
        return host.get(..end).unwrap_or(host);
    }
    host.split(|&byte| byte == b':').next().unwrap_or(host)
}

/// What is wrong with the sites of a configuration, and what to write instead.
pub(super) fn check(config: &super::Config) -> Result<(), String> {
    let sites = config.sites.iter().flat_map(|site| &site.location);
    config.location.iter().chain(sites).try_for_each(Location::check)?;
    check_paths("web", &config.root, [&config.deny, &config.no_execute], &config.redirect)?;
    if config.sites.len() > limits::WEB_SITES_MAX {
        return Err(format!("web.site: write at most {}", limits::WEB_SITES_MAX));
    }
    let mut names = BTreeMap::new();
    for site in &config.sites {
        let Some(first) = site.server_name.first() else {
            return Err("web.site: write at least one server_name".into());
        };
        for name in &site.server_name {
            let plain = name.strip_prefix("*.").or_else(|| name.strip_prefix('.')).unwrap_or(name);
            let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._[]:".contains(&byte);
            if plain.is_empty() || !plain.bytes().all(is_name) || plain.ends_with('.') {
                return Err(format!(
                    "web.site.server_name {name:?}: write a name, or *. or . and a name"
                ));
            }
            if let Some(other) = names.insert(name.to_ascii_lowercase(), first) {
                return Err(format!("web.site: {name:?} is a name of {other:?} and {first:?}"));
            }
        }
        let root = site.root.as_ref().unwrap_or(&config.root);
        let place = format!("web.site {first:?}");
        check_paths(&place, root, [&site.deny, &site.no_execute], &site.redirect)?;
    }
    Ok(())
}

fn check_paths(
    place: &str,
    root: &str,
    prefixes: [&Vec<String>; 2],
    redirects: &[Redirect],
) -> Result<(), String> {
    if !root.starts_with('/') {
        return Err(format!("{place}: root: write an absolute path"));
    }
    let froms = redirects.iter().map(|redirect| &redirect.from);
    for path in prefixes.into_iter().flatten().chain(froms) {
        if !path.starts_with('/') {
            return Err(format!("{place}: {path:?}: write a path that begins with a slash"));
        }
    }
    for redirect in redirects {
        let to = &redirect.to;
        let is_place = to.starts_with("http://")
            || to.starts_with("https://")
            || (to.starts_with('/') && !to.starts_with("//"));
        if !is_place || !to.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(format!("{place}: redirect to {to:?}: write a path or an http(s) URL"));
        }
        if !matches!(redirect.status, 301 | 302 | 307 | 308) {
            return Err(format!("{place}: redirect status: write 301, 302, 307 or 308"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> super::super::Config {
        toml::from_str(text).expect("parses")
    }

    #[test]
    fn a_host_finds_its_site() {
        let config = parse(
            "[[site]]\nserver_name = [\"Www.Example.org\"]\n\
             [[site]]\nserver_name = [\"*.example.org\"]\n\
             [[site]]\nserver_name = [\"*.a.example.org\", \".b.test\", \"[::1]\"]\n",
        );
        let sites = Sites::new(&config);
        for (host, number) in [
            ("www.example.org", 1),
            ("WWW.EXAMPLE.ORG:8080", 1),
            ("www.example.org.", 1),
            ("www.example.org.:80", 1),
            ("x.example.org", 2),
            ("x.www.example.org", 2),
            ("example.org", 0),
            ("x.a.example.org", 3),
            ("a.example.org", 2),
            ("b.test", 3),
            ("x.b.test", 3),
            ("xb.test", 0),
            ("[::1]:80", 3),
            ("", 0),
        ] {
            assert_eq!(sites.find(host.as_bytes()), number, "{host}");
        }
        assert_eq!(sites.site(1).root, config.root, "what is absent is that of [web]");
    }

    #[test]
    fn gates_follow_whole_segments() {
        let config = parse(
            "deny = [\"/private\"]\nno_execute = [\"/up/\"]\n\
             redirect = [{ from = \"/old\", to = \"/new\" }, \
             { from = \"/d/\", to = \"https://b.test/\", status = 308 }]",
        );
        let sites = Sites::new(&config);
        let site = sites.site(0);
        let moved = |status, to: &str| Gate::Redirect(status, to.into());
        for (path, gate) in [
            ("/private", Gate::Denied),
            ("/private/x", Gate::Denied),
            ("/privately", Gate::Open),
            ("/old", moved(301, "/new")),
            ("/old/x", Gate::Open),
            ("/older", Gate::Open),
            ("/d/a b", moved(308, "https://b.test/a%20b")),
            ("/d", Gate::Open),
        ] {
            assert_eq!(site.gate(path.as_bytes()), gate, "{path}");
        }
        assert!(!site.may_run(b"/up/x.php") && site.may_run(b"/upx.php"));
    }

    #[test]
    fn mistakes_are_told() {
        for (text, what) in [
            ("root = \"www\"", "absolute"),
            ("deny = [\"x\"]", "slash"),
            ("[[site]]\nserver_name = []", "at least one"),
            ("[[site]]\nserver_name = [\"a b\"]", "write a name"),
            ("[[site]]\nserver_name = [\"a\"]\n[[site]]\nserver_name = [\"A\"]", "is a name of"),
            ("redirect = [{ from = \"/\", to = \"//evil\" }]", "write a path"),
            ("redirect = [{ from = \"/\", to = \"/x\", status = 200 }]", "write 301"),
        ] {
            let why = check(&parse(text)).expect_err(text);
            assert!(why.contains(what), "{why}");
        }
    }
}
