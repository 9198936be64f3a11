//! Certificates of the front: whose is shown to whom, and what happens when their files change.
//!
//! In: section `[web]`, time. Out: an `Acceptor` for the connections that begin. Must not: give up
//! a certificate that works for one that does not; touch connections that have begun.
//! Read first: `tls`; `web::site` for how a name finds its site.

use crate::console::note::Note;
use crate::limits;
use crate::os::notes;
use crate::os::tls::{Acceptor, Identity, Reloading};
use crate::time::Instant;
use crate::web::Config;
use crate::web::site::Sites;

use super::unix_seconds;

/// The certificates of all sites.
#[derive(Debug)]
pub(super) struct Security {
    config: Config,
    /// The section's first, then those of sites that have their own.
    shown: Vec<Shown>,
    acceptor: Acceptor,
    next_look: Instant,
}

#[derive(Debug)]
struct Shown {
    /// The site's number; 0 is the section.
    site: usize,
    certificate: String,
    key: String,
    identity: Reloading<Identity>,
    /// It was told that clients do not believe it.
    is_told: bool,
}

impl Security {
    /// `None`: the section names no certificate.
    pub(super) fn load(config: &Config) -> Result<Option<Self>, String> {
        let mut shown = Vec::new();
        let of_section = (&config.ssl_certificate, &config.ssl_certificate_key);
        let of_sites = config.sites.iter().map(|it| (&it.ssl_certificate, &it.ssl_certificate_key));
        for (site, pair) in std::iter::once(of_section).chain(of_sites).enumerate() {
            if let (Some(certificate), Some(key)) = pair {
                shown.push(Shown::load(site, certificate, key)?);
            }
        }
        if of_section.0.is_none() {
            return Ok(None);
        }
        let acceptor = acceptor(config, &shown)?;
        let config = config.clone();
        Ok(Some(Self { config, shown, acceptor, next_look: Instant::ZERO }))
    }

    /// For a connection that begins now.
    pub(super) fn acceptor(&self) -> Acceptor {
        self.acceptor.clone()
    }

    pub(super) const fn deadline(&self) -> Instant {
        self.next_look
    }

    pub(super) fn expire(&mut self, now: Instant) {
        if self.next_look > now {
            return;
        }
        self.next_look = now + limits::TLS_FILES_INTERVAL;
        let mut is_changed = false;
        for shown in &mut self.shown {
            is_changed |= shown.look();
            if let Some(complaint) = shown.complaint().filter(|_| !shown.is_told) {
                notes::tell(&Note::CertificateTrouble { what: complaint });
                shown.is_told = true;
            }
        }
        if is_changed {
            match acceptor(&self.config, &self.shown) {
                Ok(acceptor) => self.acceptor = acceptor,
                Err(why) => trouble(&why),
            }
        }
    }
}

fn trouble(why: &str) {
    let what = format!("web.ssl_certificate: {why}: the old one is still shown");
    notes::tell(&Note::CertificateTrouble { what });
}

impl Shown {
    fn load(site: usize, certificate: &str, key: &str) -> Result<Self, String> {
        let files = vec![certificate.to_owned(), key.to_owned()];
        let identity = Reloading::load(files, || Identity::load(certificate, key))
            .map_err(|why| format!("web.ssl_certificate: {why}"))?;
        let (certificate, key) = (certificate.to_owned(), key.to_owned());
        Ok(Self { site, certificate, key, identity, is_told: false })
    }

    /// Whether another certificate is there.
    fn look(&mut self) -> bool {
        match self.identity.look(|| Identity::load(&self.certificate, &self.key)) {
            None => false,
            Some(Ok(())) => {
                let what = format!("web.ssl_certificate: {} is loaded again", self.certificate);
                notes::tell(&Note::Certificate { what });
                self.is_told = false;
                true
            }
            Some(Err(why)) => {
                trouble(&why);
                false
            }
        }
    }

    fn complaint(&self) -> Option<String> {
        let complaint = self.identity.value().complaint(unix_seconds())?;
        Some(format!("web.ssl_certificate: {}: {complaint}", self.certificate))
    }
}

/// A name gets the certificate of its site, and that of the section where the site has none.
fn acceptor(config: &Config, shown: &[Shown]) -> Result<Acceptor, String> {
    let sites = Sites::new(config);
    let section = shown.first().ok_or("none is named")?.identity.value().clone();
    let mut by_site = vec![section.clone(); config.sites.len() + 1];
    for it in shown {
        if let Some(identity) = by_site.get_mut(it.site) {
            *identity = it.identity.value().clone();
        }
    }
    Acceptor::choosing(&config.ssl_protocols, move |name| {
        let site = name.map_or(0, |name| sites.find(name.as_bytes()));
        by_site.get(site).unwrap_or(&section).clone()
    })
}

/// Whether the files that the section names can be used: why not, and what to do; or what clients
/// will complain of.
pub(super) fn check_files(config: &Config) -> Result<Vec<String>, String> {
    let security = Security::load(config)?;
    let shown = security.iter().flat_map(|security| &security.shown);
    Ok(shown.filter_map(Shown::complaint).collect())
}
