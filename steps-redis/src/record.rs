//! The storage format: what is kept under which key, and how. `docs/redis.md` has it in words, `src/lua` its other
//! half.

use redis::Value;
use steps_batch::BatchError;
use steps_core::{
    BuildId, IdempotencyKey, Results, StateString, Step, StepId, StepName, StepNumber, StepUrl, Timestamp, naming,
};

use crate::{bundle, error};

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

/// How many urls are read together with their step; a step with more is read by a script.
const FIRST_URLS: usize = 3;

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

pub(crate) fn step_id(build: BuildId, number: StepNumber) -> Result<StepId, BatchError> {
    StepId::new(build.get() << NUMBER_BITS | i64::from(number)).map_err(|error| error::unreadable(&error))
}

/// The build of a step and its number. `None` for an id that no step has.
pub(crate) fn place(id: StepId) -> Option<(BuildId, StepNumber)> {
    let number = u32::try_from(id.get() & (STEPS_A_BUILD as i64 - 1)).ok()?;
    Some((BuildId::new(id.get() >> NUMBER_BITS).ok()?, StepNumber::new(number)))
}

/// For each number of digits of a suffix, how many bytes of the name stay before it (N3); nothing where all stay.
pub(crate) fn cuts(name: &StepName) -> Vec<u8> {
    if naming::truncated_prefix(name, SUFFIX_DIGITS) == name.as_str() {
        return Vec::new();
    }
    (1..=SUFFIX_DIGITS).map(|digits| length(naming::truncated_prefix(name, digits).as_bytes())).collect()
}

/// How many bytes stand between the kind and the name of a step: those of the urls, the times, the results, whether it
/// is hidden, and the length of the name.
const FIXED: usize = 4 + 4 * 8 + 1 + 1;

/// The record of a step that was just added (L1), behind its number: no urls, times or results, and not hidden.
pub(crate) fn new_step(name: &StepName, state_string: &StateString) -> Vec<u8> {
    let (name, state) = (name.as_str().as_bytes(), state_string.as_str().as_bytes());
    let mut bytes = Vec::with_capacity(1 + FIXED + name.len() + state.len());
    bytes.push(STEP);
    bytes.extend(0_u32.to_be_bytes());
    for _ in 0..4 {
        bytes.extend(ABSENT.to_be_bytes());
    }
    bytes.push(0);
    bytes.push(length(name));
    bytes.extend(name);
    bytes.extend(state);
    bytes
}

/// The field of the index that a name has.
pub(crate) fn name_field(name: &StepName) -> String {
    format!("n{name}")
}

/// The field of the index that an idempotency key has.
pub(crate) fn key_field(key: &IdempotencyKey) -> String {
    format!("k{key}")
}

/// The fields of a step and its first urls.
pub(crate) fn first_fields(number: StepNumber) -> [String; 1 + FIRST_URLS] {
    std::array::from_fn(|index| match index.checked_sub(1) {
        None => number.to_string(),
        Some(place) => format!("{number}:{place}"),
    })
}

fn length(name: &[u8]) -> u8 {
    u8::try_from(name.len()).expect("50 code points have at most 200 bytes")
}

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

/// The records of an answer that has many, one after the other; `None` for one that is not there.
///
/// # Errors
/// `Corrupt` when the answer is no such one.
pub(crate) fn records(answer: &Value) -> Result<Vec<Option<&[u8]>>, BatchError> {
    match answer {
        Value::Array(records) => {
            let records = records.iter().map(|record| match record {
                Value::BulkString(bytes) => Ok(Some(bytes.as_slice())),
                Value::Nil => Ok(None),
                _ => Err(error::unexpected_answer()),
            });
            records.collect()
        }
        Value::BulkString(bundle) => bundle::strings(bundle).ok_or_else(error::unexpected_answer),
        _ => Err(error::unexpected_answer()),
    }
}

/// The step that these records are of: its own, and those of its urls.
///
/// # Errors
/// [`Corrupt`](steps_core::ErrorKind::Corrupt) when one cannot be read, or is another step's.
pub(crate) fn step(build: BuildId, number: StepNumber, records: &[Option<&[u8]>]) -> Result<Step, BatchError> {
    let steps = steps_from(number.get(), build, records)?;
    match <[Step; 1]>::try_from(steps) {
        Ok([step]) => Ok(step),
        Err(_) => Err(error::corrupt(format!("the records of step {number} are not its own"))),
    }
}

/// How many urls the step has whose record this is.
///
/// # Errors
/// `Corrupt` when it cannot be read.
pub(crate) fn url_count(record: &[u8]) -> Result<u32, BatchError> {
    let Record { kind, mut rest, .. } = Record::read(record)?;
    if kind == STEP { Ok(u32::from_be_bytes(rest.take()?)) } else { Err(error::corrupt("a step has a url's record")) }
}

/// The steps of the build that these records, in whatever order, are of (R2).
///
/// # Errors
/// [`Corrupt`](steps_core::ErrorKind::Corrupt) when one cannot be read, or is missing.
pub(crate) fn steps(build: BuildId, records: &[Option<&[u8]>]) -> Result<Vec<Step>, BatchError> {
    steps_from(0, build, records)
}

/// Steps whose numbers follow each other, from `first` on.
fn steps_from(first: u32, build: BuildId, records: &[Option<&[u8]>]) -> Result<Vec<Step>, BatchError> {
    let mut steps: Vec<Option<Bytes<'_>>> = Vec::with_capacity(records.len());
    let mut urls = Vec::new();
    for record in records {
        let record = record.ok_or_else(|| error::corrupt("a url of the step is missing"))?;
        let Record { number, kind, mut rest } = Record::read(record)?;
        match kind {
            STEP => {
                let index = number.checked_sub(first).map_or(usize::MAX, |index| index as usize);
                // Not that a number of somebody else's makes room for itself.
                if index >= records.len() {
                    return Err(error::corrupt(format!("there is a step {number}, and fewer records than that")));
                }
                if index >= steps.len() {
                    steps.resize(index + 1, None);
                }
                steps[index] = Some(rest);
            }
            URL => urls.push((number, u32::from_be_bytes(rest.take()?), rest)),
            _ => return Err(error::corrupt("a record is neither that of a step nor that of a url")),
        }
    }
    // They come in no order.
    urls.sort_unstable_by_key(|&(number, place, _)| (number, place));
    let mut urls = &urls[..];
    let mut found = Vec::with_capacity(steps.len());
    for (record, number) in steps.into_iter().zip(first..) {
        let record =
            record.ok_or_else(|| error::corrupt(format!("step {number} is missing, and later ones are there")))?;
        let (of_step, others) = urls.split_at(urls.iter().take_while(|(of, ..)| *of == number).count());
        urls = others;
        found.push(read_step(build, number, record, of_step)?);
    }
    if let Some((number, ..)) = urls.first() { Err(other_urls(*number)) } else { Ok(found) }
}

/// What stands behind a step's number and kind, with its urls in order.
fn read_step(
    build: BuildId,
    number: u32,
    mut record: Bytes<'_>,
    urls: &[(u32, u32, Bytes<'_>)],
) -> Result<Step, BatchError> {
    let count = u32::from_be_bytes(record.take()?);
    if count as usize != urls.len() || urls.iter().zip(0..).any(|((_, place, _), expected)| *place != expected) {
        return Err(other_urls(number));
    }
    let mut found = Vec::with_capacity(urls.len());
    for (.., url) in urls {
        found.push(read_url(*url)?);
    }
    let [started_at, locks_acquired_at, complete_at] = [record.time()?, record.time()?, record.time()?];
    let results = record.optional(|code| i32::try_from(code).ok().map(Results::new))?;
    let [hidden] = record.take()?;
    let [length] = record.take()?;
    let (name, state) = record.two_texts(length.into())?;
    let name = StepName::new(name).map_err(|error| error::unreadable(&error))?;
    let state = StateString::new(state).map_err(|error| error::unreadable(&error))?;
    let number = StepNumber::new(number);
    let step = Step::builder(step_id(build, number)?, build, number, name, state)
        .started_at(started_at)
        .locks_acquired_at(locks_acquired_at)
        .complete_at(complete_at)
        .results(results)
        .urls(found)
        .hidden(hidden != 0);
    Ok(step.build())
}

/// What stands behind a url's place.
fn read_url(mut record: Bytes<'_>) -> Result<StepUrl, BatchError> {
    let length = u32::from_be_bytes(record.take()?);
    let (name, url) = record.two_texts(length as usize)?;
    StepUrl::new(name, url).map_err(|error| error::unreadable(&error))
}

fn other_urls(number: u32) -> BatchError {
    error::corrupt(format!("step {number} has not the urls that it should have"))
}

/// What a record begins with, and what follows.
struct Record<'a> {
    number: u32,
    kind: u8,
    rest: Bytes<'a>,
}

impl<'a> Record<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, BatchError> {
        let digits = bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let is_canonical = digits == 1 || digits > 1 && bytes[0] != b'0';
        let number = bytes[..digits]
            .iter()
            .try_fold(0_u32, |number, digit| number.checked_mul(10)?.checked_add(u32::from(digit - b'0')));
        match (number, &bytes[digits..]) {
            (Some(number), [kind, rest @ ..]) if is_canonical && u64::from(number) < STEPS_A_BUILD => {
                Ok(Self { number, kind: *kind, rest: Bytes(rest) })
            }
            _ => Err(error::corrupt("a record has no number, or one past the greatest")),
        }
    }
}

/// What is left to read of a record.
#[derive(Clone, Copy)]
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], BatchError> {
        let (taken, rest) = self.0.split_first_chunk().ok_or_else(|| error::corrupt("a record is too short"))?;
        self.0 = rest;
        Ok(*taken)
    }

    /// All that is left: a text of so many bytes, and another one.
    fn two_texts(self, length: usize) -> Result<(&'a str, &'a str), BatchError> {
        if self.0.len() < length {
            return Err(error::corrupt("a record is too short"));
        }
        let texts = str::from_utf8(self.0).ok().and_then(|texts| texts.split_at_checked(length));
        texts.ok_or_else(|| error::corrupt("a record has text that is not UTF-8"))
    }

    fn optional<T>(&mut self, read: impl FnOnce(i64) -> Option<T>) -> Result<Option<T>, BatchError> {
        match i64::from_be_bytes(self.take()?) {
            ABSENT => Ok(None),
            number => read(number).map(Some).ok_or_else(|| error::corrupt("a record has a number out of its range")),
        }
    }

    fn time(&mut self) -> Result<Option<Timestamp>, BatchError> {
        self.optional(|micros| Timestamp::from_unix_micros(micros).ok())
    }
}
