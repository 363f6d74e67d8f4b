use std::sync::Arc;

use steps_core::{Clock, Result, SystemClock};

use crate::error;

/// How a [`MemoryStore`](crate::MemoryStore) works.
#[derive(Clone, Debug)]
pub struct MemoryOptions {
    pub(crate) clock: Arc<dyn Clock>,
}

impl MemoryOptions {
    /// The defaults: the machine's clock.
    #[must_use]
    pub fn new() -> Self {
        Self { clock: Arc::new(SystemClock) }
    }

    /// The defaults, for the URL `memory:`, which is the only one.
    ///
    /// # Errors
    /// [`Config`](steps_core::ErrorKind::Config) for any other.
    pub fn from_url(url: &str) -> Result<Self> {
        if url == "memory:" { Ok(Self::new()) } else { Err(error::url()) }
    }

    /// Takes the time from this clock (L4).
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
    fn the_url_is_memory_alone() {
        assert!(MemoryOptions::from_url("memory:").is_ok());
        for url in ["", "memory", "memory:a", "memory://", "memory:?durability=none"] {
            assert_eq!(MemoryOptions::from_url(url).unwrap_err().kind(), ErrorKind::Config, "{url}");
        }
    }
}
