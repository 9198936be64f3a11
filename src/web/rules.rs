//! Rules: what the configuration says of requests, as every session is given it.
//!
//! In: section `[web]`, and what the hands read of the files that it names. Out: the same, as one
//! thing. Must not: read files. Read first: `session::Context`, which carries them.

use super::Config;
use super::access::UserFiles;
use super::reply::Pages;
use super::site::Sites;

#[derive(Debug)]
pub struct Rules {
    pub config: Config,
    pub sites: Sites,
    /// The operator's own error pages.
    pub pages: Pages,
    pub users: UserFiles,
}

impl Rules {
    /// Those of a configuration, without the files that it names.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let sites = Sites::new(&config);
        Self { config, sites, pages: Pages::new(), users: UserFiles::default() }
    }
}
