//! Certificates made for the run, and clients in TLS that believe their maker.

use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rcgen::{BasicConstraints, Certificate, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion,
};
use tandem::web::Config;

use crate::client::{Client, dial};

pub(crate) type Secured = StreamOwned<ClientConnection, TcpStream>;

/// An authority, and a directory for what it signs, which goes with it.
pub(crate) struct Keys {
    base: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    pub(crate) authority: Certificate,
}

impl Keys {
    /// With a certificate `a` for a.test, localhost and 127.0.0.1.
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("tandem-https-{}-{number}", std::process::id());
        let base = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&base).unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "the authority");
        let key = KeyPair::generate().unwrap();
        let authority = params.self_signed(&key).unwrap();
        let keys = Self { base, issuer: Issuer::new(params, key), authority };
        keys.write("ca.pem", &keys.authority.pem());
        keys.sign("a", &["a.test", "localhost", "127.0.0.1"]);
        keys
    }

    /// Writes a new certificate and its key under this name.
    pub(crate) fn sign(&self, name: &str, names: &[&str]) -> CertificateDer<'static> {
        self.sign_with(name, names, |_| {})
    }

    pub(crate) fn sign_with(
        &self,
        name: &str,
        names: &[&str],
        adjust: impl FnOnce(&mut CertificateParams),
    ) -> CertificateDer<'static> {
        let names: Vec<String> = names.iter().map(|it| (*it).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        adjust(&mut params);
        let key = KeyPair::generate().unwrap();
        let own = params.signed_by(&key, &self.issuer).unwrap();
        self.write(&format!("{name}.pem"), &own.pem());
        self.write(&format!("{name}-key.pem"), &key.serialize_pem());
        own.der().clone()
    }

    /// In a file that takes the place of the one before, as certbot does it.
    pub(crate) fn write(&self, name: &str, text: &str) {
        let (path, other) = (self.base.join(name), self.base.join(format!("{name}.new")));
        std::fs::write(&other, text).unwrap();
        std::fs::set_permissions(&other, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::rename(&other, &path).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.base.join(name).to_str().unwrap().to_owned()
    }

    pub(crate) fn certificate(&self, name: &str) -> CertificateDer<'static> {
        CertificateDer::from_pem_file(self.path(&format!("{name}.pem"))).unwrap()
    }

    /// The lines of a section for this certificate.
    pub(crate) fn lines(&self, name: &str) -> String {
        let (certificate, key) =
            (self.path(&format!("{name}.pem")), self.path(&format!("{name}-key.pem")));
        format!("ssl_certificate = {certificate:?}\nssl_certificate_key = {key:?}\n")
    }

    pub(crate) fn show(&self, name: &str, config: &mut Config) {
        config.ssl_certificate = Some(self.path(&format!("{name}.pem")));
        config.ssl_certificate_key = Some(self.path(&format!("{name}-key.pem")));
    }

    /// What a client believes and speaks.
    pub(crate) fn trust(
        &self,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Arc<ClientConfig> {
        believing(self.authority.der().clone(), versions)
    }

    /// A client of a.test, by what both speak best.
    pub(crate) fn client(&self, address: SocketAddr) -> Client<Secured> {
        secured(&self.trust(rustls::ALL_VERSIONS), address, "a.test")
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.base);
    }
}

/// A client's trust in the authority of this file.
pub(crate) fn believe(path: &str) -> Arc<ClientConfig> {
    believing(CertificateDer::from_pem_file(path).unwrap(), rustls::ALL_VERSIONS)
}

fn believing(
    authority: CertificateDer<'static>,
    versions: &[&'static SupportedProtocolVersion],
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(authority).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider);
    let builder = builder.with_protocol_versions(versions).unwrap();
    Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
}

/// A client after its handshake.
pub(crate) fn secured(
    trust: &Arc<ClientConfig>,
    address: SocketAddr,
    name: &str,
) -> Client<Secured> {
    secure(trust, dial(address), name).unwrap()
}

/// The handshake on a connection.
pub(crate) fn secure(
    trust: &Arc<ClientConfig>,
    mut socket: TcpStream,
    name: &str,
) -> std::io::Result<Client<Secured>> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut tls = ClientConnection::new(Arc::clone(trust), name).unwrap();
    while tls.is_handshaking() {
        tls.complete_io(&mut socket)?;
    }
    Ok(Client::over(StreamOwned::new(tls, socket)))
}
