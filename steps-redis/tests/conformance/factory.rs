use std::{io, sync::Arc};

use async_trait::async_trait;
use conformance_tests::{BoxError, CaseContext, Feature, Fixture, Profile, StoreFactory};
use steps_core::{BuildId, Clock};
use steps_redis::{GREATEST_BUILD_ID, GREATEST_STEPS_A_BUILD, RedisOptions, RedisStore};
use test_servers::KeyPrefix;

/// Stores on one server or cluster, each with a prefix of its own.
pub(crate) struct Redis {
    pub(crate) name: &'static str,
    pub(crate) place: fn() -> io::Result<KeyPrefix>,
}

#[async_trait]
impl StoreFactory for Redis {
    fn name(&self) -> &str {
        self.name
    }

    fn profile(&self) -> Profile {
        let profile = Profile::strict()
            .without(Feature::Faults, "all cases share one server; see tests/redis")
            .with_steps_a_build(GREATEST_STEPS_A_BUILD);
        match BuildId::new(GREATEST_BUILD_ID) {
            Ok(id) => profile.with_greatest_build_id(id),
            Err(_) => profile,
        }
    }

    async fn create(&self, case: &CaseContext) -> Result<Fixture, BoxError> {
        let place = (self.place)()?;
        Ok(self.open(&place.url_with_prefix(), case).await?.with_guard(place))
    }

    async fn open(&self, token: &str, case: &CaseContext) -> Result<Fixture, BoxError> {
        let (url, clock) = (Arc::<str>::from(token), case.clock());
        let connect = move || connect(Arc::clone(&url), clock.clone());
        Ok(Fixture::new(connect().await?).with_reopen(connect.clone()).with_peer(connect).with_token(token))
    }
}

async fn connect(url: Arc<str>, clock: Arc<dyn Clock>) -> Result<RedisStore, BoxError> {
    Ok(RedisStore::connect(RedisOptions::from_url(&url)?.with_clock(clock)).await?)
}
