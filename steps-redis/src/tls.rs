//! Encryption.

use rustls::crypto::{CryptoProvider, ring};

/// Sees to it that there is a provider of encryption for the process. The driver takes that, and panics where there
/// is none and it cannot choose: an application may have compiled in another one too, and that one stays.
pub(crate) fn choose_provider() {
    if CryptoProvider::get_default().is_none() {
        // An error means that somebody else was faster.
        let _ = ring::default_provider().install_default();
    }
}
