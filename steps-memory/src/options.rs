use std::sync::Arc;

use steps_core::{Clock, Result, SystemClock};

use crate::error;

/// The settings of a [`MemoryStore`](crate::MemoryStore).
#[derive(Clone, Debug)]
pub struct MemoryOptions {
    pub(crate) clock: Arc<dyn Clock>,
}

impl MemoryOptions {
    /// Creates the default settings: the system clock.
    #[must_use]
    pub fn new() -> Self {
        Self { clock: Arc::new(SystemClock) }
    }

    /// Returns the default settings for `memory:`, the only URL of this store.
    ///
    /// # Errors
    /// [`Config`](steps_core::ErrorKind::Config) for any other URL.
    pub fn from_url(url: &str) -> Result<Self> {
        if url == "memory:" { Ok(Self::new()) } else { Err(error::invalid_url()) }
    }

    /// Sets the clock of the store (L4).
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }
}

impl Default for MemoryOptions {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use steps_core::ErrorKind;

    use super::*;

    #[test]
    fn the_only_url_is_memory() {
        assert!(MemoryOptions::from_url("memory:").is_ok());
        for url in ["", "memory", "memory:a", "memory://", "memory:?durability=none"] {
            assert_eq!(MemoryOptions::from_url(url).unwrap_err().kind(), ErrorKind::Config, "{url}");
        }
    }
}
