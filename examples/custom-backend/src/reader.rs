//! Reads. All reads of a batch share one snapshot, which begins after their calls (R3).

use redb::{Database, ReadableDatabase};
use steps_batch::{BatchError, Read, Worker};
use steps_core::{Step, StepSelector};

use crate::{
    BACKEND,
    error::{batch_error, read_error},
    file::RedbFile,
    tables::{self, NAMES, NUMBERS, STEPS, URLS},
};

#[derive(Debug)]
pub(crate) struct Reader {
    /// `None` after the close.
    file: Option<RedbFile>,
}

impl Reader {
    pub(crate) fn new(file: RedbFile) -> Self {
        Self { file: Some(file) }
    }
}

impl Worker for Reader {
    type Request = Read;
    type Response = Vec<Step>;

    const BACKEND: &'static str = BACKEND;
    const BATCH: usize = 1024;

    fn size(_: &Read) -> usize {
        100
    }

    async fn run(&mut self, requests: &[Read]) -> Result<Vec<Result<Vec<Step>, BatchError>>, BatchError> {
        let requests = requests.to_vec();
        RedbFile::run_blocking(self.file.as_ref(), move |database| read_all(database, requests)).await
    }

    async fn close(&mut self) {
        self.file = None;
    }
}

fn read_all(database: &Database, requests: Vec<Read>) -> Result<Vec<Result<Vec<Step>, BatchError>>, BatchError> {
    let snapshot = database.begin_read().map_err(batch_error)?;
    let steps = snapshot.open_table(STEPS).map_err(batch_error)?;
    let numbers = snapshot.open_table(NUMBERS).map_err(batch_error)?;
    let names = snapshot.open_table(NAMES).map_err(batch_error)?;
    let urls = snapshot.open_table(URLS).map_err(batch_error)?;
    let read = |request: Read| {
        let mut ids = Vec::new();
        match request {
            Read::Step(StepSelector::Id(id)) => ids.push(id.get()),
            Read::Step(StepSelector::Number { build_id, number }) => {
                let id = numbers.get((build_id.get(), number.get())).map_err(batch_error)?;
                ids.extend(id.map(|id| id.value()));
            }
            Read::Step(StepSelector::Name { build_id, name }) => {
                let id = names.get((build_id.get(), name.as_str())).map_err(batch_error)?;
                ids.extend(id.map(|id| id.value()));
            }
            Read::Steps(build) => {
                for id in numbers.range((build.get(), 0)..=(build.get(), u32::MAX)).map_err(batch_error)? {
                    ids.push(id.map_err(batch_error)?.1.value());
                }
            }
        }
        let steps = ids.into_iter().filter_map(|id| tables::step(id, &steps, &urls).transpose());
        steps.collect::<Result<Vec<_>, _>>().map_err(read_error)
    };
    Ok(requests.into_iter().map(read).collect())
}
