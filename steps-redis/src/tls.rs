//! The cryptography provider of encrypted connections.

use rustls::crypto::{CryptoProvider, ring};

/// Installs a default cryptography provider for the process, unless it has one. The driver uses that default, and
/// panics if there is none and rustls cannot choose one. An application may have installed its own, which stays.
pub(crate) fn install_provider() {
    if CryptoProvider::get_default().is_none() {
        // An error means that another thread has installed one meanwhile.
        let _ = ring::default_provider().install_default();
    }
}
