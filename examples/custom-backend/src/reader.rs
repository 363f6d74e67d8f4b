//! The lane that reads: all reads that wait share one snapshot, which is begun after they came (R3).

use redb::{Database, ReadableDatabase};
use steps_core::{Step, StepSelector};
use steps_batch::{BatchError, Read, Worker};

use crate::{
    BACKEND,
    error::{failure, unreadable},
    file::RedbFile,
    tables::{self, NAMES, NUMBERS, STEPS, URLS},
};

#[derive(Debug)]
pub(crate) struct Reader {
    /// `None` once it is closed.
    file: Option<RedbFile>,
}

impl Reader {
    pub(crate) fn new(file: RedbFile) -> Self {
        Self { file: Some(file) }
    }
}

impl Worker for Reader {
    type Request = Read;
    type Answer = Vec<Step>;

    const BACKEND: &'static str = BACKEND;
    const BATCH: usize = 1024;

    fn size(_: &Read) -> usize {
        100
    }

    async fn run(&mut self, requests: &[Read]) -> Result<Vec<Result<Vec<Step>, BatchError>>, BatchError> {
        let requests = requests.to_vec();
        RedbFile::blocking(self.file.as_ref(), move |database| answer_all(database, requests)).await
    }

    async fn close(&mut self) {
        self.file = None;
    }
}

fn answer_all(database: &Database, requests: Vec<Read>) -> Result<Vec<Result<Vec<Step>, BatchError>>, BatchError> {
    let snapshot = database.begin_read().map_err(failure)?;
    let steps = snapshot.open_table(STEPS).map_err(failure)?;
    let numbers = snapshot.open_table(NUMBERS).map_err(failure)?;
    let names = snapshot.open_table(NAMES).map_err(failure)?;
    let urls = snapshot.open_table(URLS).map_err(failure)?;
    let answer = |request: Read| {
        let mut ids = Vec::new();
        match request {
            Read::Step(StepSelector::Id(id)) => ids.push(id.get()),
            Read::Step(StepSelector::Number { build_id, number }) => {
                let id = numbers.get((build_id.get(), number.get())).map_err(failure)?;
                ids.extend(id.map(|id| id.value()));
            }
            Read::Step(StepSelector::Name { build_id, name }) => {
                let id = names.get((build_id.get(), name.as_str())).map_err(failure)?;
                ids.extend(id.map(|id| id.value()));
            }
            Read::Steps(build) => {
                for id in numbers.range((build.get(), 0)..=(build.get(), u32::MAX)).map_err(failure)? {
                    ids.push(id.map_err(failure)?.1.value());
                }
            }
        }
        let found = ids.into_iter().filter_map(|id| tables::step(id, &steps, &urls).transpose());
        found.collect::<Result<Vec<_>, _>>().map_err(unreadable)
    };
    Ok(requests.into_iter().map(answer).collect())
}
