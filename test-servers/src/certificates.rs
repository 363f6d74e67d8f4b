use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use crate::TestResult;

/// A certificate authority for tests of encrypted connections. Each value is a new authority, which no client trusts by
/// default.
#[derive(Debug)]
pub struct Authority {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// A new authority.
    ///
    /// # Errors
    /// When no key can be generated.
    pub fn new() -> TestResult<Self> {
        let mut params = CertificateParams::new([])?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate()?;
        Ok(Self { certificate: params.self_signed(&key)?.pem(), issuer: Issuer::new(params, key) })
    }

    /// The certificate of the authority as PEM, for clients that trust it.
    #[must_use]
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// A certificate for a server of this name, and its key, both as PEM.
    ///
    /// # Errors
    /// When the name is invalid, or no key can be generated.
    pub fn certify(&self, name: &str) -> TestResult<(String, String)> {
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new([name.to_owned()])?.signed_by(&key, &self.issuer)?;
        Ok((certificate.pem(), key.serialize_pem()))
    }
}
