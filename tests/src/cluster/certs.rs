//! The bed's own certificate authority and what it signs.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};

/// A certificate authority that lives as long as one bed.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate for both ends of TLS, with its key, in PEM.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The certificate.
    pub cert: String,
    /// Its private key (PKCS #8).
    pub key: String,
}

impl Authority {
    /// Makes a new authority.
    ///
    /// # Errors
    /// When no key can be made.
    pub fn new() -> Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "sluice-test-bed");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        Ok(Self { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate()?)? })
    }

    /// The authority's own certificate, in PEM.
    pub fn cert(&self) -> String {
        self.issuer.pem()
    }

    /// Signs a certificate. `names` are DNS names or IP addresses.
    ///
    /// # Errors
    /// When a name is neither.
    pub fn identity(&self, common_name: &str, names: &[&str]) -> Result<Identity> {
        let names = names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let mut params = CertificateParams::new(names).context("bad name for a certificate")?;
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate()?;
        let cert = params.signed_by(&key, &self.issuer)?;
        Ok(Identity { cert: cert.pem(), key: key.serialize_pem() })
    }

    /// Writes `ca.crt` and what the control plane starts with: `NAME.crt`, `NAME.key`, and `sa.key`
    /// and `sa.pub`, with which service-account tokens are signed and checked.
    pub(super) fn write_control_plane(&self, dir: &Path, address: &str) -> Result<()> {
        fs::write(dir.join("ca.crt"), self.cert())?;
        // 127.0.0.1 is for the port that the bed opens outside its namespace.
        let names = [address, "127.0.0.1", "10.96.0.1", "localhost", "kubernetes.default.svc"];
        for (name, identity) in [
            ("apiserver", self.identity("kube-apiserver", &names)?),
            // The aggregation layer speaks to extension API servers as this; see --requestheader-allowed-names.
            ("front-proxy", self.identity("front-proxy", &["front-proxy"])?),
        ] {
            fs::write(dir.join(name).with_extension("crt"), identity.cert)?;
            fs::write(dir.join(name).with_extension("key"), identity.key)?;
        }
        let accounts = KeyPair::generate()?;
        fs::write(dir.join("sa.key"), accounts.serialize_pem())?;
        // The API server finds the public key in some forms of a private one, but not in PKCS #8.
        fs::write(dir.join("sa.pub"), accounts.public_key_pem())?;
        Ok(())
    }
}
