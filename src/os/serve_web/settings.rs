//! Settings: what the front takes from its configuration, with the files that this names.
//!
//! In: section `[web]`. Out: sites, roots, error pages. Must not: change while a request is
//! answered: a reload makes new ones. Read first: `ServeWeb::reload`.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;

use crate::limits;
use crate::web::Config;
use crate::web::reply::Pages;
use crate::web::site::Sites;

use super::root::Root;

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
