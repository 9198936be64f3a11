//! Settings: what the configuration says of requests, and how another one takes its place.
//!
//! In: section `[web]`. Out: what sessions are given. Must not: change what a request under way
//! began with, open or close a listener. Read first: `web::Config`; `connection`.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;

use crate::console::note::Note;
use crate::limits;
use crate::os::notes;
use crate::os::plane::Turn;
use crate::web::Config;
use crate::web::access::UserFiles;
use crate::web::reply::Pages;
use crate::web::rules::Rules;
use crate::web::site::Sites;
use crate::web::upstream::Hosts;

use super::ServeWeb;
use super::journal::Journal;
use super::root::Root;
use super::secure::{self, Security};

/// What a reload replaces. A request ends under those that it began under.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) rules: Rules,
    /// By the site's number.
    pub(super) roots: RefCell<Vec<Root>>,
}

impl Settings {
    pub(super) fn new(config: &Config) -> Result<Rc<Self>, String> {
        let mut rules = Rules::new(config.clone());
        rules.users = users(&rules.sites)?;
        rules.pages = pages(config);
        let cache_bytes = limits::WEB_CACHE_BYTES_MAX / rules.sites.roots().count().max(1);
        let roots = rules.sites.roots().map(|root| Root::new(root, cache_bytes));
        let roots = RefCell::new(roots.collect());
        Ok(Rc::new(Self { rules, roots }))
    }
}

impl ServeWeb {
    /// Takes another configuration for requests from now on. Refused, and nothing taken, where it
    /// has other ports, or files that cannot be used.
    pub fn reload(&mut self, turn: &mut Turn<'_>, config: &Config) -> Result<(), String> {
        let old = &self.settings.rules.config;
        for (key, is_changed) in [
            ("port", old.port != config.port),
            ("ssl_port", old.ssl_port != config.ssl_port),
            // It decides whether there are listeners.
            ("ssl_certificate", old.ssl_certificate.is_some() != config.ssl_certificate.is_some()),
            ("php_port", old.php_port != config.php_port),
            ("php_status_port", old.php_status_port != config.php_status_port),
            ("fastcgi_listen", old.fastcgi_listen != config.fastcgi_listen),
            ("fastcgi_group", old.fastcgi_group != config.fastcgi_group),
        ] {
            if is_changed {
                return Err(format!(
                    "web.{key} changed, which takes a restart of the daemon; nothing was taken"
                ));
            }
        }
        let settings = Settings::new(config)?;
        self.security = Security::load(config)?;
        let hosts = Hosts { me: self.site.me, names: &self.site.server_names };
        self.upstream.configure(config, &hosts);
        self.clients.configure(config.connections_max_per_client);
        self.rates.configure(config.limit_req, config.limit_req_burst);
        if old.access_log != config.access_log {
            self.journal = Journal::new(config.access_log.clone());
        }
        self.settings = settings;
        for slot in &mut self.slots {
            if let Some(connection) = &mut slot.connection
                && !connection.session.is_in_flight()
            {
                connection.settings = Rc::clone(&self.settings);
            }
        }
        self.settle(turn);
        Ok(())
    }
}

/// Whether the files that the section names can be used; why not, and what to do. Returns what
/// clients will complain of all the same.
pub fn check_files(config: &Config) -> Result<Vec<String>, String> {
    users(&Sites::new(config))?;
    secure::check_files(config)
}

fn users(sites: &Sites) -> Result<UserFiles, String> {
    let mut users = UserFiles::default();
    for path in sites.user_files() {
        let text = std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
        if text.len() > limits::WEB_USER_FILE_BYTES_MAX {
            return Err(format!("{path}: larger than {} bytes", limits::WEB_USER_FILE_BYTES_MAX));
        }
        users.add(path, &text)?;
    }
    Ok(users)
}

/// The operator's error pages; one that cannot be read is told and does without.
fn pages(config: &Config) -> Pages {
    let read = |(status, path): (&String, &String)| {
        let text = std::fs::read(path).and_then(|bytes| {
            let is_small = bytes.len() <= limits::WEB_ERROR_PAGE_BYTES_MAX;
            if is_small { Ok(bytes) } else { Err(io::Error::other("too large")) }
        });
        match text {
            Ok(text) => Some((status.parse().ok()?, text)),
            Err(error) => {
                notes::tell(&Note::Front { what: format!("error page {path}: {error}") });
                None
            }
        }
    };
    config.error_page.iter().filter_map(read).collect()
}
