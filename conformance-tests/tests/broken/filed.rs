//! Stores in a file that several processes share, each wrong about the other processes; and one that is right.
//!
//! Each call locks the file, reads all of it, and writes it anew.

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

use super::{GREATEST, Kept, PlainStore};

broken! { Filed FILED:
    /// The lock keeps out the other tasks of this process alone: two adds get one number.
    LocksInItsProcess I2 "processes::adds_at_once_leave_no_gap";
    /// The lock of urls keeps out the tasks of this process alone: some are lost.
    LocksUrlsInItsProcess U3 "processes::urls_at_once_are_neither";
    /// A process knows its own keys alone.
    KnowsItsOwnKeys I5 "processes::repeated_adds_at_once";
    /// A process reads the file anew when it writes.
    ReadsWhatItWrote R3 "processes::what_one_answered";
    /// What is answered stands in the file a little later.
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
    /// What was read last, or written. Behind the lock of this process.
    inner: Mutex<PlainStore>,
}

/// The lock of this process, with the keys that its stores know.
static PROCESS: Mutex<Vec<(Option<BuildId>, String)>> = Mutex::new(Vec::new());

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

    /// Makes a call on the content of the file. No call waits.
    fn call(&self, request: Request) -> Result<Response> {
        let kind = match &request {
            Request::Close => return now(self.inner.lock().unwrap().close()).map(|()| Response::Done),
            Request::GetStep(_) | Request::GetSteps(_) => Kind::Read,
            Request::AddUrl(..) => Kind::Url,
            _ => Kind::Write,
        };
        let failed = |error: std::io::Error| Error::new(ErrorKind::Unavailable, error.to_string());
        let mut own_keys = PROCESS.lock().unwrap();
        let inner = self.inner.lock().unwrap();
        let is_shared = match self.flaw {
            Some(Filed::LocksInItsProcess) => false,
            Some(Filed::LocksUrlsInItsProcess) => kind != Kind::Url,
            _ => true,
        };
        // One for the urls where they have a lock of their own.
        let lock = File::options().create(true).append(true).open(self.path.with_extension("lock")).map_err(failed)?;
        if is_shared {
            lock.lock().map_err(failed)?;
        }
        if !(self.has(Filed::ReadsWhatItWrote) && kind == Kind::Read) {
            let saved: Saved = match fs::read(&self.path) {
                Ok(text) => serde_json::from_slice(&text).map_err(|error| failed(error.into()))?,
                Err(_) => Saved::default(),
            };
            let keys = saved.keys.into_iter().map(|(build, key, place)| ((build, key), place));
            let is_known =
                |key: &(Option<BuildId>, String)| !self.has(Filed::KnowsItsOwnKeys) || own_keys.contains(key);
            let keys: HashMap<_, _> = keys.filter(|(key, _)| is_known(key)).collect();
            *inner.kept.lock().unwrap() =
                Kept { steps: saved.steps, keys, lost: HashMap::new(), next_id: saved.next_id };
        }
        let response = now(request.send(&*inner));
        if kind == Kind::Read {
            return response;
        }
        if !is_shared {
            // Long enough for the others to read the same.
            sleep(Duration::from_millis(1));
        }
        let text = {
            let kept = inner.kept.lock().unwrap();
            let new: Vec<_> = kept.keys.keys().filter(|key| !own_keys.contains(key)).cloned().collect();
            own_keys.extend(new);
            let keys = kept.keys.iter().map(|((build, key), place)| (*build, key.clone(), *place)).collect();
            let saved = Saved { steps: kept.steps.clone(), keys, next_id: kept.next_id };
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

/// All of it or nothing.
fn replace(path: &Path, text: &[u8]) -> std::io::Result<()> {
    let new = path.with_extension(format!("new-{}", std::process::id()));
    fs::write(&new, text)?;
    fs::rename(new, path)
}

/// What a call of the plain store gives, which never waits.
fn now<T>(call: impl Future<Output = T>) -> T {
    let waker = std::task::Waker::noop();
    match std::pin::pin!(call).poll(&mut std::task::Context::from_waker(waker)) {
        std::task::Poll::Ready(answer) => answer,
        std::task::Poll::Pending => unreachable!("the plain store waits for nothing"),
    }
}

#[async_trait]
impl Handler for FiledStore {
    async fn handle(&self, request: Request) -> Result<Response> {
        self.call(request)
    }
}

/// Makes stores in files, with one flaw or none. A child learns from the token which it is.
#[derive(Clone, Copy)]
pub(crate) struct FiledStores(pub(crate) Option<Filed>);

/// A folder, which ends with this.
struct Folder(PathBuf);

impl Drop for Folder {
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
            .fold(Profile::strict().with_greatest_build_id(BuildId::new(GREATEST).unwrap()), |profile, feature| {
                profile.without(feature, "it is for several processes")
            })
    }

    async fn create(&self, case: &CaseContext) -> Result<Fixture, BoxError> {
        let folder = std::env::temp_dir().join(format!("steps-filed-{}", case.fresh_build()));
        fs::create_dir(&folder)?;
        let flaw = FILED.iter().position(|broken| Some(broken.flaw) == self.0).map_or(-1, |flaw| flaw as i32);
        let token = format!("{flaw} {}", folder.join("steps").display());
        Ok(self.open(&token, case).await?.with_guard(Folder(folder)))
    }

    async fn open(&self, token: &str, case: &CaseContext) -> Result<Fixture, BoxError> {
        let (flaw, path) = token.split_once(' ').ok_or("a flaw and a path")?;
        let flaw = usize::try_from(flaw.parse::<i32>()?).ok().map(|flaw| FILED[flaw].flaw);
        let inner = Mutex::new(PlainStore::new(Arc::clone(&case.clock())));
        Ok(Fixture::new(Dispatch(FiledStore { flaw, path: path.into(), inner })).with_token(token))
    }
}
