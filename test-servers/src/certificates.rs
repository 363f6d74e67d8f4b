use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use crate::TestResult;

/// Who makes certificates, for tests of encrypted connections. Each is one of its own, whom nobody trusts unless told.
#[derive(Debug)]
pub struct Authority {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// A new one.
    ///
    /// # Errors
    /// When there is no randomness to make a key of.
    pub fn new() -> TestResult<Self> {
        let mut params = CertificateParams::new([])?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate()?;
        Ok(Self { certificate: params.self_signed(&key)?.pem(), issuer: Issuer::new(params, key) })
    }

    /// Its own certificate, as PEM: what a client trusts.
    #[must_use]
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// A certificate for a server of this name, and its key, both as PEM.
    ///
    /// # Errors
    /// When there is no such name, or no randomness.
    pub fn certify(&self, name: &str) -> TestResult<(String, String)> {
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new([name.to_owned()])?.signed_by(&key, &self.issuer)?;
        Ok((certificate.pem(), key.serialize_pem()))
    }
}
