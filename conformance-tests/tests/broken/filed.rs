//! Stores in a file that mishandle concurrent processes, and a correct one.
//!
//! Each call locks the file, reads it, and replaces it if the call writes.

use std::{
    collections::HashMap,
    fs::{self, File},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    thread::sleep,
    time::Duration,
};

use async_trait::async_trait;
use conformance_tests::{BoxError, CaseContext, Feature, Fixture, Profile, StoreFactory};
use serde::{Deserialize, Serialize};
use steps_core::{BuildId, Dispatch, Error, ErrorKind, Handler, Request, Response, Result, Step, StepsStore};

use super::{Data, MAX_BUILD, PlainStore};

broken! { Filed FILED:
    /// The lock excludes only tasks of the same process, so two adds get one number.
    LocksWithinProcess I2 "processes::adds_at_once_leave_no_gap";
    /// The lock for urls excludes only tasks of the same process, so urls are lost.
    LocksUrlsWithinProcess U3 "processes::urls_at_once_are_neither";
    /// A process knows only the idempotency keys that it used itself.
    KnowsOwnKeysOnly I5 "processes::repeated_adds_at_once";
    /// A process reads the file again only when it writes.
    ReadsStaleData R3 "processes::what_one_answered";
    /// A write is acknowledged before it is in the file.
    WritesLater D1 "processes::one_that_is_killed";
}

#[derive(Default, Deserialize, Serialize)]
struct Saved {
    steps: Vec<Step>,
    keys: Vec<(Option<BuildId>, String, usize)>,
    next_id: i64,
}

#[derive(Debug)]
struct FiledStore {
    flaw: Option<Filed>,
    path: PathBuf,
    /// The content of the file as last read or written.
    inner: Mutex<PlainStore>,
}

/// The idempotency keys that the stores of this process used. The mutex is also the lock within the process.
static OWN_KEYS: Mutex<Vec<(Option<BuildId>, String)>> = Mutex::new(Vec::new());

#[derive(Clone, Copy, Eq, PartialEq)]
enum Kind {
    Read,
    Url,
    Write,
}

impl FiledStore {
    fn has(&self, flaw: Filed) -> bool {
        self.flaw == Some(flaw)
    }

    /// Runs a request on the content of the file, synchronously.
    fn call(&self, request: Request) -> Result<Response> {
        let kind = match &request {
            Request::Close => return now(self.inner.lock().unwrap().close()).map(|()| Response::Done),
            Request::GetStep(_) | Request::GetSteps(_) => Kind::Read,
            Request::AddUrl(..) => Kind::Url,
            _ => Kind::Write,
        };
        let failed = |error: std::io::Error| Error::new(ErrorKind::Unavailable, error.to_string());
        let mut own_keys = OWN_KEYS.lock().unwrap();
        let inner = self.inner.lock().unwrap();
        let is_shared = match self.flaw {
            Some(Filed::LocksWithinProcess) => false,
            Some(Filed::LocksUrlsWithinProcess) => kind != Kind::Url,
            _ => true,
        };
        let lock = File::options().create(true).append(true).open(self.path.with_extension("lock")).map_err(failed)?;
        if is_shared {
            lock.lock().map_err(failed)?;
        }
        if !(self.has(Filed::ReadsStaleData) && kind == Kind::Read) {
            let saved: Saved = match fs::read(&self.path) {
                Ok(text) => serde_json::from_slice(&text).map_err(|error| failed(error.into()))?,
                Err(_) => Saved::default(),
            };
            let keys = saved.keys.into_iter().map(|(build, key, index)| ((build, key), index));
            let is_known =
                |key: &(Option<BuildId>, String)| !self.has(Filed::KnowsOwnKeysOnly) || own_keys.contains(key);
            let keys: HashMap<_, _> = keys.filter(|(key, _)| is_known(key)).collect();
            *inner.data.lock().unwrap() =
                Data { steps: saved.steps, keys, lost: HashMap::new(), next_id: saved.next_id };
        }
        let response = now(request.send(&*inner));
        if kind == Kind::Read {
            return response;
        }
        if !is_shared {
            // Long enough for another process to read the same content.
            sleep(Duration::from_millis(1));
        }
        let text = {
            let data = inner.data.lock().unwrap();
            let new: Vec<_> = data.keys.keys().filter(|key| !own_keys.contains(key)).cloned().collect();
            own_keys.extend(new);
            let keys = data.keys.iter().map(|((build, key), index)| (*build, key.clone(), *index)).collect();
            let saved = Saved { steps: data.steps.clone(), keys, next_id: data.next_id };
            serde_json::to_vec(&saved).map_err(|error| failed(error.into()))?
        };
        if self.has(Filed::WritesLater) {
            let path = self.path.clone();
            std::thread::spawn(move || {
                sleep(Duration::from_millis(10));
                let _ = replace(&path, &text);
                drop(lock);
            });
            return response;
        }
        replace(&self.path, &text).map_err(failed)?;
        response
    }
}

/// Replaces the file atomically.
fn replace(path: &Path, text: &[u8]) -> std::io::Result<()> {
    let new = path.with_extension(format!("new-{}", std::process::id()));
    fs::write(&new, text)?;
    fs::rename(new, path)
}

/// The result of a call of the plain store, whose futures are always ready.
fn now<T>(call: impl Future<Output = T>) -> T {
    let waker = std::task::Waker::noop();
    match std::pin::pin!(call).poll(&mut std::task::Context::from_waker(waker)) {
        std::task::Poll::Ready(answer) => answer,
        std::task::Poll::Pending => unreachable!("the plain store never waits"),
    }
}

#[async_trait]
impl Handler for FiledStore {
    async fn handle(&self, request: Request) -> Result<Response> {
        self.call(request)
    }
}

/// Creates stores in files with at most one flaw, which a child process reads from the token.
#[derive(Clone, Copy)]
pub(crate) struct FiledStores(pub(crate) Option<Filed>);

/// A directory, which is deleted when this is dropped.
struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[async_trait]
impl StoreFactory for FiledStores {
    fn name(&self) -> &str {
        "filed"
    }

    fn profile(&self) -> Profile {
        [Feature::Reopen, Feature::Peers, Feature::Faults]
            .into_iter()
            .fold(Profile::strict().with_greatest_build_id(BuildId::new(MAX_BUILD).unwrap()), |profile, feature| {
                profile.without(feature, "it is a store for several processes")
            })
    }

    async fn create(&self, case: &CaseContext) -> Result<Fixture, BoxError> {
        let directory = std::env::temp_dir().join(format!("steps-filed-{}", case.fresh_build()));
        fs::create_dir(&directory)?;
        let flaw = FILED.iter().position(|broken| Some(broken.flaw) == self.0).map_or(-1, |flaw| flaw as i32);
        let token = format!("{flaw} {}", directory.join("steps").display());
        Ok(self.open(&token, case).await?.with_guard(Directory(directory)))
    }

    async fn open(&self, token: &str, case: &CaseContext) -> Result<Fixture, BoxError> {
        let (flaw, path) = token.split_once(' ').ok_or("expected a flaw and a path")?;
        let flaw = usize::try_from(flaw.parse::<i32>()?).ok().map(|flaw| FILED[flaw].flaw);
        let inner = Mutex::new(PlainStore::new(Arc::clone(&case.clock())));
        Ok(Fixture::new(Dispatch(FiledStore { flaw, path: path.into(), inner })).with_token(token))
    }
}
