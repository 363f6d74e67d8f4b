use std::sync::Arc;

use async_trait::async_trait;
use steps_core::{Backend, Call, ConnectOptions, Description, Error, ErrorKind, Operation, Result, StepsStore};

use crate::{BACKEND, MemoryOptions, MemoryStore};

/// The backend of the URL `memory:`. Each connection is a new, empty store.
#[derive(Clone, Copy, Debug, Default)]
pub struct MemoryBackend;

#[async_trait]
impl Backend for MemoryBackend {
    fn schemes(&self) -> &'static [&'static str] {
        &["memory"]
    }

    async fn connect(&self, url: &str, options: &ConnectOptions) -> Result<Arc<dyn StepsStore>> {
        Ok(Arc::new(open(url, options)?))
    }

    async fn describe(&self, url: &str, options: &ConnectOptions) -> Result<Description> {
        open(url, options)?.describe().await
    }

    fn is_persistent(&self) -> bool {
        false
    }

    fn urls_hold_secrets(&self) -> bool {
        false
    }
}

fn open(url: &str, connect: &ConnectOptions) -> Result<MemoryStore> {
    let mut options = MemoryOptions::from_url(url)?;
    if connect.durability.is_some() {
        let message = "a store in memory is not durable; set no durability, or use a durable store";
        let call = Call::on_store(Operation::Connect);
        return Err(Error::new(ErrorKind::Config, message).with_call(call).with_backend(BACKEND));
    }
    if let Some(clock) = &connect.clock {
        options = options.with_clock(Arc::clone(clock));
    }
    Ok(MemoryStore::with_options(options))
}
