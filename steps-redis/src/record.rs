//! The storage format: what is kept under which key, and how. `docs/redis.md` has it in words, `src/lua` its other
//! half.

use std::collections::BTreeMap;

use redis::Value;
use steps_core::{BuildId, Results, StateString, Step, StepId, StepName, StepNumber, StepUrl, Timestamp, naming};
use steps_lane::Failure;

use crate::error;

/// The version of the format.
pub(crate) const FORMAT: u32 = 1;

/// A step id is its build's id in the upper bits, and its number in these lower ones (I1).
const NUMBER_BITS: u32 = 20;

/// How many steps a build can have (I4).
pub(crate) const STEPS_A_BUILD: u64 = 1 << NUMBER_BITS;

/// The greatest build id (I4).
pub(crate) const GREATEST_BUILD_ID: i64 = i64::MAX >> NUMBER_BITS;

/// The most digits that a suffix may have: a build has fewer steps than there are such suffixes.
const SUFFIX_DIGITS: u32 = 7;

/// What stands for a time or results that are not there.
const ABSENT: i64 = i64::MIN;

/// What a record of a step begins with, and one of a url.
const STEP: u8 = b's';
const URL: u8 = b'u';

/// The keys of one build: the braces have all of them in one slot of a cluster.
#[derive(Clone, Debug)]
pub(crate) struct BuildKeys {
    /// A hash of the records of steps and urls.
    pub(crate) steps: String,
    /// A hash of all by which they are found.
    pub(crate) index: String,
}

impl BuildKeys {
    /// `None` past the greatest build id: such a build has no steps.
    pub(crate) fn new(prefix: &str, build: BuildId) -> Option<Self> {
        (build.get() <= GREATEST_BUILD_ID).then(|| {
            let steps = format!("{{{prefix}:{build}}}");
            Self { index: format!("{steps}:index"), steps }
        })
    }
}

/// The key of the format's version.
pub(crate) fn format_key(prefix: &str) -> String {
    format!("{{{prefix}:format}}")
}

pub(crate) fn step_id(build: BuildId, number: StepNumber) -> Result<StepId, Failure> {
    StepId::new(build.get() << NUMBER_BITS | i64::from(number)).map_err(|error| error::unreadable(&error))
}

/// The build of a step and its number. `None` for an id that no step has.
pub(crate) fn place(id: StepId) -> Option<(BuildId, StepNumber)> {
    let number = u32::try_from(id.get() & (STEPS_A_BUILD as i64 - 1)).ok()?;
    Some((BuildId::new(id.get() >> NUMBER_BITS).ok()?, StepNumber::new(number)))
}

/// For each number of digits of a suffix, how many bytes of the name stay before it (N3).
pub(crate) fn cuts(name: &StepName) -> [u8; SUFFIX_DIGITS as usize] {
    std::array::from_fn(|index| {
        let cut = naming::cut(name, index as u32 + 1);
        u8::try_from(cut.len()).expect("50 code points have at most 200 bytes")
    })
}

/// What stands between the number and the name of a step that was just added (L1): no urls, times or results, and
/// not hidden.
pub(crate) const BLANK: [u8; 4 + 4 * 8 + 1] = {
    let mut bytes = [0; 37];
    let mut place = 4;
    while place < 36 {
        // The first byte of what is absent, of which all others are 0.
        bytes[place] = ABSENT.to_be_bytes()[0];
        place += 8;
    }
    bytes
};

pub(crate) fn time(time: Timestamp) -> [u8; 8] {
    time.unix_micros().to_be_bytes()
}

/// Time, results and hidden, as they follow each other (L4).
pub(crate) fn finish(at: Timestamp, results: Results, hidden: bool) -> Vec<u8> {
    let mut bytes = time(at).to_vec();
    bytes.extend(i64::from(results.code()).to_be_bytes());
    bytes.push(u8::from(hidden));
    bytes
}

/// What follows the place of a url in its record.
pub(crate) fn url(url: &StepUrl) -> Vec<u8> {
    let name = url.name().as_bytes();
    // A name has at most 64 KiB.
    let length = u32::try_from(name.len()).unwrap_or(u32::MAX);
    [&length.to_be_bytes()[..], name, url.url().as_bytes()].concat()
}

/// The step that these records are of: its own, and those of its urls.
///
/// # Errors
/// [`Corrupt`](steps_core::ErrorKind::Corrupt) when one cannot be read, or is another step's.
pub(crate) fn step(build: BuildId, number: StepNumber, records: &[Value]) -> Result<Step, Failure> {
    let mut step = None;
    let mut urls = Vec::with_capacity(records.len());
    for record in records {
        match Record::of(build, record)? {
            Record::Step(of, found) if of == number.get() => step = Some(found),
            Record::Url(of, place, url) if of == number.get() && place as usize == urls.len() => urls.push(url),
            _ => return Err(error::corrupt(format!("the records of step {number} are not its own"))),
        }
    }
    let step = step.ok_or_else(|| error::corrupt(format!("step {number} has no record")))?;
    step.with_urls(number.get(), urls)
}

/// The steps of the build that these records, in whatever order, are of (R2).
///
/// # Errors
/// [`Corrupt`](steps_core::ErrorKind::Corrupt) when one cannot be read, or is missing.
pub(crate) fn steps(build: BuildId, records: &[Value]) -> Result<Vec<Step>, Failure> {
    let mut steps: Vec<Option<Found>> = Vec::with_capacity(records.len());
    let mut urls: BTreeMap<(u32, u32), StepUrl> = BTreeMap::new();
    for record in records {
        match Record::of(build, record)? {
            Record::Step(number, found) => {
                let index = number as usize;
                // Not that a number of somebody else's makes room for itself.
                if index >= records.len() {
                    return Err(error::corrupt(format!("there is a step {number}, and fewer records than that")));
                }
                if index >= steps.len() {
                    steps.resize_with(index + 1, || None);
                }
                steps[index] = Some(found);
            }
            Record::Url(number, place, url) => {
                urls.insert((number, place), url);
            }
        }
    }
    let mut urls = urls.into_iter().peekable();
    let found = steps.into_iter().zip(0..).map(|(found, number)| {
        let found =
            found.ok_or_else(|| error::corrupt(format!("step {number} is missing, and later ones are there")))?;
        let mut of_step = Vec::new();
        while let Some(((_, place), url)) = urls.next_if(|((of, _), _)| *of == number) {
            if place as usize != of_step.len() {
                return Err(other_urls(number));
            }
            of_step.push(url);
        }
        found.with_urls(number, of_step)
    });
    let found = found.collect::<Result<Vec<_>, _>>()?;
    match urls.next() {
        Some(((number, _), _)) => Err(other_urls(number)),
        None => Ok(found),
    }
}

fn other_urls(number: u32) -> Failure {
    error::corrupt(format!("step {number} has not the urls that it should have"))
}

/// A step whose urls are still to come.
struct Found {
    step: steps_core::StepBuilder,
    urls: u32,
}

impl Found {
    fn with_urls(self, number: u32, urls: Vec<StepUrl>) -> Result<Step, Failure> {
        if urls.len() != self.urls as usize {
            return Err(other_urls(number));
        }
        Ok(self.step.urls(urls).build())
    }
}

enum Record {
    Step(u32, Found),
    Url(u32, u32, StepUrl),
}

impl Record {
    fn of(build: BuildId, record: &Value) -> Result<Self, Failure> {
        match record {
            Value::BulkString(bytes) => Self::read(build, bytes),
            Value::Nil => Err(error::corrupt("a url of the step is missing")),
            _ => Err(error::unexpected_answer()),
        }
    }

    fn read(build: BuildId, bytes: &[u8]) -> Result<Self, Failure> {
        let mut rest = Bytes(bytes);
        let [kind] = rest.take()?;
        let number = u32::from_be_bytes(rest.take()?);
        if u64::from(number) >= STEPS_A_BUILD {
            return Err(error::corrupt(format!("there is a step {number}, past the greatest number")));
        }
        match kind {
            STEP => {
                let urls = u32::from_be_bytes(rest.take()?);
                let [started_at, locks_acquired_at, complete_at] = [rest.time()?, rest.time()?, rest.time()?];
                let results = rest.optional(|code| i32::try_from(code).ok().map(Results::new))?;
                let [hidden] = rest.take()?;
                let [length] = rest.take()?;
                let name = StepName::new(rest.text(length.into())?).map_err(|error| error::unreadable(&error))?;
                let state = StateString::new(rest.text(rest.0.len())?).map_err(|error| error::unreadable(&error))?;
                let of = StepNumber::new(number);
                let step = Step::builder(step_id(build, of)?, build, of, name, state)
                    .started_at(started_at)
                    .locks_acquired_at(locks_acquired_at)
                    .complete_at(complete_at)
                    .results(results)
                    .hidden(hidden != 0);
                Ok(Self::Step(number, Found { step, urls }))
            }
            URL => {
                let place = u32::from_be_bytes(rest.take()?);
                let length = u32::from_be_bytes(rest.take()?);
                let name = rest.text(length as usize)?;
                let url = StepUrl::new(name, rest.text(rest.0.len())?).map_err(|error| error::unreadable(&error))?;
                Ok(Self::Url(number, place, url))
            }
            _ => Err(error::corrupt("a record is neither that of a step nor that of a url")),
        }
    }
}

/// What is left to read of a record.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Failure> {
        let (taken, rest) = self.0.split_first_chunk().ok_or_else(|| error::corrupt("a record is too short"))?;
        self.0 = rest;
        Ok(*taken)
    }

    fn text(&mut self, length: usize) -> Result<&'a str, Failure> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or_else(|| error::corrupt("a record is too short"))?;
        self.0 = rest;
        str::from_utf8(taken).map_err(|_| error::corrupt("a record has text that is not UTF-8"))
    }

    fn optional<T>(&mut self, read: impl FnOnce(i64) -> Option<T>) -> Result<Option<T>, Failure> {
        match i64::from_be_bytes(self.take()?) {
            ABSENT => Ok(None),
            number => read(number).map(Some).ok_or_else(|| error::corrupt("a record has a number out of its range")),
        }
    }

    fn time(&mut self) -> Result<Option<Timestamp>, Failure> {
        self.optional(|micros| Timestamp::from_unix_micros(micros).ok())
    }
}
