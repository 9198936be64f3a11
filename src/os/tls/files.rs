//! Certificates, keys and trust, from files in PEM form.
//!
//! In: paths. Out: configurations of TLS, or which file is wrong, how, and what to do about it.
//! Must not: keep a private key anywhere but in them. Read first: RFC 7468; RFC 5280, 6.
//!
//! Databases of a pair show certificates that nobody knows: MySQL makes its own at its first start,
//! people copy a recipe that makes one of X.509 version 1. So there are two kinds of trust: in
//! anybody, which keeps out who listens and not who stands between; and in a list, of those who
//! sign, or of the servers' own certificates themselves.

use std::fmt;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{
    ClientHello, NoServerSessionStorage, ParsedCertificate, ResolvesServerCert,
    WebPkiClientVerifier,
};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::{TLS12, TLS13};
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, RootCertStore, ServerConfig, SignatureScheme,
};

use super::validity::Validity;
use crate::web::https::Protocol;

/// A certificate chain, the server's own certificate first, and the private key that belongs to it.
#[derive(Clone)]
pub struct Identity {
    key: Arc<CertifiedKey>,
    /// Of the server's own certificate.
    validity: Option<Validity>,
}

impl Identity {
    /// From files in PEM form. The error says which one is wrong, how, and what to do.
    pub fn load(certificate: &str, key: &str) -> Result<Self, String> {
        let key = identity(certificate, key)?;
        let validity = key.end_entity_cert().ok().and_then(|own| Validity::of(own));
        Ok(Self { key: Arc::new(key), validity })
    }

    /// Why clients will not believe the certificate at this time.
    #[must_use]
    pub fn complaint(&self, unix_seconds: u64) -> Option<&'static str> {
        let now = i64::try_from(unix_seconds).unwrap_or(i64::MAX);
        let validity = self.validity?;
        if now > validity.until {
            Some("the certificate has expired: renew it")
        } else if now < validity.from {
            Some("the certificate is not valid yet: look at the clock, or wait")
        } else {
            None
        }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({:?})", self.validity)
    }
}

/// Whom the side that connects believes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// Whoever answers.
    Anybody,
    /// Whoever has a certificate that stands in the file, or that one in it has signed; and of this
    /// name, if there is one.
    Signed { ca: String, name: Option<String> },
}

pub(super) fn server_config(
    certificate: &str,
    key: &str,
    client_ca: Option<&str>,
) -> Result<ServerConfig, String> {
    let own = identity(certificate, key)?;
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = match client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let (roots, _) = roots(path)?;
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
                .build()
                .map_err(|error| format!("{path}: {error}"))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(own)));
    // Each is remembered; a client that comes back takes one.
    config.send_tls13_tickets = 1;
    Ok(config)
}

pub(super) fn choosing_config<F>(protocols: &[Protocol], choose: F) -> Result<ServerConfig, String>
where
    F: Fn(Option<&str>) -> Identity + Send + Sync + 'static,
{
    let versions: Vec<_> = protocols
        .iter()
        .map(|protocol| match protocol {
            Protocol::Tls12 => &TLS12,
            Protocol::Tls13 => &TLS13,
        })
        .collect();
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&versions)
        .map_err(|error| error.to_string())?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Choosing(choose)));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = ring::Ticketer::new().map_err(|error| error.to_string())?;
    Ok(config)
}

/// A certificate for every name.
struct Choosing<F>(F);

impl<F> ResolvesServerCert for Choosing<F>
where
    F: Fn(Option<&str>) -> Identity + Send + Sync,
{
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some((self.0)(hello.server_name()).key)
    }
}

impl<F> fmt::Debug for Choosing<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Choosing")
    }
}

pub(super) fn client_config(
    trust: &Trust,
) -> Result<(ClientConfig, Option<ServerName<'static>>), String> {
    let algorithms = provider().signature_verification_algorithms;
    let (verifier, name): (Arc<dyn ServerCertVerifier>, _) = match trust {
        Trust::Anybody => (Arc::new(Anybody(algorithms)), None),
        Trust::Signed { ca, name } => {
            let (roots, given) = roots(ca)?;
            let name = name.clone().map(ServerName::try_from).transpose();
            let name = name.map_err(|_| "server_name: write a host name or an address")?;
            (Arc::new(Signed { roots, given, name: name.clone(), algorithms }), name)
        }
    };
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    Ok((config, name))
}

fn identity(certificate: &str, key: &str) -> Result<CertifiedKey, String> {
    let chain = certificates(certificate)?;
    let mode = fs::metadata(key).map_err(|error| format!("{key}: {error}"))?.permissions().mode();
    if mode & 0o007 != 0 {
        return Err(format!("{key}: mode is {:04o}: run chmod o= on it", mode & 0o7777));
    }
    let text = read(key)?;
    let private = PrivateKeyDer::from_pem_slice(&text).map_err(|error| {
        if !matches!(error, pem::Error::NoItemsFound) {
            format!("{key}: {error}")
        } else if contains(&text, "ENCRYPTED PRIVATE KEY") {
            format!("{key}: the key is under a passphrase: write it without one, `openssl pkey`")
        } else {
            format!("{key}: no \"-----BEGIN PRIVATE KEY-----\" in it")
        }
    })?;
    CertifiedKey::from_der(chain, private, &provider()).map_err(|error| {
        if matches!(error, Error::InconsistentKeys(_)) {
            format!("{key} is not the private key of {certificate}")
        } else if matches!(error, Error::InvalidCertificate(_)) {
            format!("{certificate}: {error}")
        } else {
            let kinds = "RSA (2048 bits or more), P-256, P-384 or Ed25519";
            format!("{key}: not usable: write a key of {kinds}")
        }
    })
}

/// Those who sign, and the same certificates as they are.
fn roots(path: &str) -> Result<(RootCertStore, Vec<CertificateDer<'static>>), String> {
    let given = certificates(path)?;
    let mut roots = RootCertStore::empty();
    for certificate in &given {
        roots.add(certificate.clone()).map_err(|error| format!("{path}: {error}"))?;
    }
    Ok((roots, given))
}

fn certificates(path: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = read(path)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let chain = chain.map_err(|error| format!("{path}: {error}"))?;
    if chain.is_empty() {
        return Err(format!("{path}: no \"-----BEGIN CERTIFICATE-----\" in it"));
    }
    Ok(chain)
}

fn read(path: &str) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|error| format!("{path}: {error}"))
}

fn contains(text: &[u8], words: &str) -> bool {
    text.windows(words.len()).any(|it| it == words.as_bytes())
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// Believes whoever answers. The signature of the handshake is not looked at either: whoever stands
/// between would sign with a key of their own, and a certificate of version 1 could not be read.
#[derive(Debug)]
struct Anybody(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

/// Believes whoever is in the list or signed by it, as VERIFY_CA; with a name, as VERIFY_IDENTITY.
#[derive(Debug)]
struct Signed {
    roots: RootCertStore,
    given: Vec<CertificateDer<'static>>,
    name: Option<ServerName<'static>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Signed {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        // `openssl req -x509` makes one that signs itself and says that it may sign others, which
        // the rules of paths do not take for a server's.
        if !self.given.contains(end_entity) {
            let (roots, all) = (&self.roots, self.algorithms.all);
            verify_server_cert_signed_by_trust_anchor(
                &certificate,
                roots,
                intermediates,
                now,
                all,
            )?;
        }
        if let Some(name) = &self.name {
            verify_server_name(&certificate, name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
