//! Settings: what a reload replaces in a running front.
//!
//! In: section `[web]`, again and again. Out: what requests are answered by. Must not: change under
//! a request that has begun. Read first: `data`, for who reads the file.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;

use crate::limits;
use crate::os::plane::Turn;
use crate::web::Config;
use crate::web::reply::Pages;
use crate::web::site::Sites;

use super::ServeWeb;
use super::journal::Journal;
use super::root::Root;
use super::secure::Security;

/// What a reload replaces. A request ends under those that it began under.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) config: Config,
    pub(super) sites: Sites,
    pub(super) pages: Pages,
    /// By the site's number.
    pub(super) roots: RefCell<Vec<Root>>,
}

impl Settings {
    pub(super) fn new(config: &Config) -> Rc<Self> {
        let sites = Sites::new(config);
        let cache_bytes = limits::WEB_CACHE_BYTES_MAX / sites.roots().count().max(1);
        let roots = sites.roots().map(|root| Root::new(root, cache_bytes)).collect::<Vec<Root>>();
        let roots = RefCell::new(roots);
        Rc::new(Self { config: config.clone(), sites, pages: pages(config), roots })
    }
}

impl ServeWeb {
    /// Takes another configuration for requests from now on. Refused, and nothing taken, where it
    /// has other ports, or certificates that cannot be used.
    pub fn reload(&mut self, turn: &mut Turn<'_>, config: &Config) -> Result<(), String> {
        let old = &self.settings.config;
        for (key, is_changed) in [
            ("port", old.port != config.port),
            ("ssl_port", old.ssl_port != config.ssl_port),
            // It decides whether there are listeners.
            ("ssl_certificate", old.ssl_certificate.is_some() != config.ssl_certificate.is_some()),
            ("php_port", old.php_port != config.php_port),
            ("php_status_port", old.php_status_port != config.php_status_port),
        ] {
            if is_changed {
                return Err(format!(
                    "web.{key} changed, which takes a restart of the daemon; nothing was taken"
                ));
            }
        }
        self.security = Security::load(config)?;
        self.upstream.configure(config.php_requests_max, config.slow_start);
        if old.access_log != config.access_log {
            self.journal = Journal::new(config.access_log.clone());
        }
        self.settings = Settings::new(config);
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
                log::warn!("error page {path}: {error}");
                None
            }
        }
    };
    config.error_page.iter().filter_map(read).collect()
}
