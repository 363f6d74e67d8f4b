//! The storage format: keys, fields and records. `docs/redis.md` specifies it. The scripts in `src/lua` share it.

use redis::Value;
use steps_batch::BatchError;
use steps_core::{
    BuildId, IdempotencyKey, Results, StateString, Step, StepId, StepName, StepNumber, StepUrl, Timestamp, naming,
};

use crate::{error, resp_rewrite};

/// The version of the format.
pub(crate) const FORMAT: u32 = 1;

/// The lower bits of a step id are the step's number, the upper bits its build's id (I1).
const NUMBER_BITS: u32 = 20;

/// How many steps a build can have (I4).
pub(crate) const STEPS_A_BUILD: u64 = 1 << NUMBER_BITS;

/// The largest build id (I4).
pub(crate) const GREATEST_BUILD_ID: i64 = i64::MAX >> NUMBER_BITS;

/// The maximum number of digits of a suffix. A build has fewer steps than there are suffixes of that length.
const MAX_SUFFIX_DIGITS: u32 = 7;

/// How many urls are read by the same command as their step. A step with more urls is read by a script.
const FIRST_URLS: usize = 3;

/// Encodes a missing time or missing results.
const ABSENT: i64 = i64::MIN;

/// The kind byte of a step's record.
const STEP: u8 = b's';

/// The kind byte of a url's record.
const URL: u8 = b'u';

/// The keys of one build. The braces make a cluster hash both keys to the same slot.
#[derive(Clone, Debug)]
pub(crate) struct BuildKeys {
    /// The hash with the records of steps and urls.
    pub(crate) steps: String,
    /// The hash with names, idempotency keys, suffix hints and url digests.
    pub(crate) index: String,
}

impl BuildKeys {
    /// `None` beyond the largest build id: such a build has no steps.
    pub(crate) fn new(prefix: &str, build: BuildId) -> Option<Self> {
        (build.get() <= GREATEST_BUILD_ID).then(|| {
            let steps = format!("{{{prefix}:{build}}}");
            Self { index: format!("{steps}:index"), steps }
        })
    }
}

/// The key that holds the version of the format.
pub(crate) fn format_key(prefix: &str) -> String {
    format!("{{{prefix}:format}}")
}

pub(crate) fn step_id(build: BuildId, number: StepNumber) -> Result<StepId, BatchError> {
    StepId::new(build.get() << NUMBER_BITS | i64::from(number)).map_err(|error| error::unreadable(&error))
}

/// Splits a step id into build id and number. `None` for an id that no step has.
pub(crate) fn split_id(id: StepId) -> Option<(BuildId, StepNumber)> {
    let number = u32::try_from(id.get() & (STEPS_A_BUILD as i64 - 1)).ok()?;
    Some((BuildId::new(id.get() >> NUMBER_BITS).ok()?, StepNumber::new(number)))
}

/// For each number of suffix digits, the length in bytes of the name's prefix before such a suffix (N3). Empty if no
/// suffix shortens the name.
pub(crate) fn prefix_lengths(name: &StepName) -> Vec<u8> {
    if naming::truncated_prefix(name, MAX_SUFFIX_DIGITS) == name.as_str() {
        return Vec::new();
    }
    (1..=MAX_SUFFIX_DIGITS).map(|digits| name_length(naming::truncated_prefix(name, digits))).collect()
}

/// The number of bytes between the kind and the name of a step: url count, three times and results, hidden flag, and
/// name length.
const FIXED_BYTES: usize = 4 + 4 * 8 + 1 + 1;

/// The record of a new step (L1) without its number: no urls, times or results, and not hidden.
pub(crate) fn new_step(name: &StepName, state_string: &StateString) -> Vec<u8> {
    let name = name.as_str();
    let state_string = state_string.as_str();
    let mut bytes = Vec::with_capacity(1 + FIXED_BYTES + name.len() + state_string.len());
    bytes.push(STEP);
    bytes.extend(0_u32.to_be_bytes());
    for _ in 0..4 {
        bytes.extend(ABSENT.to_be_bytes());
    }
    bytes.push(0);
    bytes.push(name_length(name));
    bytes.extend(name.as_bytes());
    bytes.extend(state_string.as_bytes());
    bytes
}

/// The index field of a name.
pub(crate) fn name_field(name: &StepName) -> String {
    format!("n{name}")
}

/// The index field of an idempotency key.
pub(crate) fn key_field(key: &IdempotencyKey) -> String {
    format!("k{key}")
}

/// The fields of a step and its first urls.
pub(crate) fn first_fields(number: StepNumber) -> [String; 1 + FIRST_URLS] {
    std::array::from_fn(|index| match index.checked_sub(1) {
        None => number.to_string(),
        Some(position) => format!("{number}:{position}"),
    })
}

fn name_length(name: &str) -> u8 {
    u8::try_from(name.len()).expect("50 code points have at most 200 bytes")
}

pub(crate) fn time(time: Timestamp) -> [u8; 8] {
    time.unix_micros().to_be_bytes()
}

/// `complete_at`, results and hidden flag, in the order of the record (L4).
pub(crate) fn finish(at: Timestamp, results: Results, hidden: bool) -> Vec<u8> {
    let mut bytes = time(at).to_vec();
    bytes.extend(i64::from(results.code()).to_be_bytes());
    bytes.push(u8::from(hidden));
    bytes
}

/// The record of a url from its name length on.
pub(crate) fn url(url: &StepUrl) -> Vec<u8> {
    let name = url.name().as_bytes();
    // A name has at most 64 KiB.
    let length = u32::try_from(name.len()).unwrap_or(u32::MAX);
    [&length.to_be_bytes()[..], name, url.url().as_bytes()].concat()
}

/// The records of a reply; `None` stands for a missing one.
///
/// # Errors
/// `Corrupt` for any other reply.
pub(crate) fn records(reply: &Value) -> Result<Vec<Option<&[u8]>>, BatchError> {
    match reply {
        Value::Array(records) => {
            let records = records.iter().map(|record| match record {
                Value::BulkString(bytes) => Ok(Some(bytes.as_slice())),
                Value::Nil => Ok(None),
                _ => Err(error::unexpected_reply()),
            });
            records.collect()
        }
        Value::BulkString(array) => resp_rewrite::split_array(array).ok_or_else(error::unexpected_reply),
        _ => Err(error::unexpected_reply()),
    }
}

/// Decodes a step from its own record and those of its urls.
///
/// # Errors
/// [`Corrupt`](steps_core::ErrorKind::Corrupt) for a record that is invalid or belongs to another step.
pub(crate) fn step(build: BuildId, number: StepNumber, records: &[Option<&[u8]>]) -> Result<Step, BatchError> {
    let steps = decode_steps(number.get(), build, records)?;
    match <[Step; 1]>::try_from(steps) {
        Ok([step]) => Ok(step),
        Err(_) => Err(error::corrupt(format!("the records of step {number} belong to another step"))),
    }
}

/// The url count in the record of a step.
///
/// # Errors
/// `Corrupt` for an invalid record.
pub(crate) fn url_count(record: &[u8]) -> Result<u32, BatchError> {
    let Record { kind, mut rest, .. } = Record::decode(record)?;
    if kind == STEP { Ok(u32::from_be_bytes(rest.take()?)) } else { Err(error::corrupt("a step has a url's record")) }
}

/// Decodes all steps of a build from its records, which are in no order (R2).
///
/// # Errors
/// [`Corrupt`](steps_core::ErrorKind::Corrupt) for a record that is invalid or missing.
pub(crate) fn steps(build: BuildId, records: &[Option<&[u8]>]) -> Result<Vec<Step>, BatchError> {
    decode_steps(0, build, records)
}

/// Decodes steps with consecutive numbers that begin at `first`.
fn decode_steps(first: u32, build: BuildId, records: &[Option<&[u8]>]) -> Result<Vec<Step>, BatchError> {
    let mut step_records: Vec<Option<Bytes<'_>>> = Vec::with_capacity(records.len());
    let mut url_records = Vec::new();
    for record in records {
        let record = record.ok_or_else(|| error::corrupt("a url of the step is missing"))?;
        let Record { number, kind, mut rest } = Record::decode(record)?;
        match kind {
            STEP => {
                let index = number.checked_sub(first).map_or(usize::MAX, |index| index as usize);
                // Limits the allocation below if the number is wrong.
                if index >= records.len() {
                    return Err(error::corrupt(format!("there is a step {number}, but there are fewer records")));
                }
                if index >= step_records.len() {
                    step_records.resize(index + 1, None);
                }
                step_records[index] = Some(rest);
            }
            URL => {
                let position = u32::from_be_bytes(rest.take()?);
                url_records.push(UrlRecord { number, position, rest });
            }
            _ => return Err(error::corrupt("a record is of neither a step nor a url")),
        }
    }
    url_records.sort_unstable_by_key(|url| (url.number, url.position));
    let mut remaining_urls = &url_records[..];
    let mut steps = Vec::with_capacity(step_records.len());
    for (record, number) in step_records.into_iter().zip(first..) {
        let record =
            record.ok_or_else(|| error::corrupt(format!("step {number} is missing, but a later one exists")))?;
        let count = remaining_urls.iter().take_while(|url| url.number == number).count();
        let (urls, rest) = remaining_urls.split_at(count);
        remaining_urls = rest;
        steps.push(decode_step(build, number, record, urls)?);
    }
    match remaining_urls.first() {
        Some(url) => Err(wrong_urls(url.number)),
        None => Ok(steps),
    }
}

/// Decodes the record of a step from its url count on. The urls are in order.
fn decode_step(
    build: BuildId,
    number: u32,
    mut record: Bytes<'_>,
    url_records: &[UrlRecord<'_>],
) -> Result<Step, BatchError> {
    let count = u32::from_be_bytes(record.take()?);
    let are_consecutive = url_records.iter().zip(0..).all(|(url, position)| url.position == position);
    if count as usize != url_records.len() || !are_consecutive {
        return Err(wrong_urls(number));
    }
    let mut urls = Vec::with_capacity(url_records.len());
    for url in url_records {
        urls.push(decode_url(url.rest)?);
    }
    let started_at = record.time()?;
    let locks_acquired_at = record.time()?;
    let complete_at = record.time()?;
    let results = record.optional(|code| i32::try_from(code).ok().map(Results::new))?;
    let [hidden] = record.take()?;
    let [name_length] = record.take()?;
    let (name, state_string) = record.two_texts(name_length.into())?;
    let name = StepName::new(name).map_err(|error| error::unreadable(&error))?;
    let state_string = StateString::new(state_string).map_err(|error| error::unreadable(&error))?;
    let number = StepNumber::new(number);
    let step = Step::builder(step_id(build, number)?, build, number, name, state_string)
        .started_at(started_at)
        .locks_acquired_at(locks_acquired_at)
        .complete_at(complete_at)
        .results(results)
        .urls(urls)
        .hidden(hidden != 0);
    Ok(step.build())
}

/// Decodes the record of a url from its name length on.
fn decode_url(mut record: Bytes<'_>) -> Result<StepUrl, BatchError> {
    let length = u32::from_be_bytes(record.take()?);
    let (name, url) = record.two_texts(length as usize)?;
    StepUrl::new(name, url).map_err(|error| error::unreadable(&error))
}

fn wrong_urls(number: u32) -> BatchError {
    error::corrupt(format!("the urls of step {number} differ from its url count"))
}

/// A record after decoding of its first two fields.
struct Record<'a> {
    /// The number of the step, or of the url's step.
    number: u32,
    kind: u8,
    rest: Bytes<'a>,
}

/// The record of a url after decoding of its first three fields.
struct UrlRecord<'a> {
    /// The number of its step.
    number: u32,
    /// The index among the urls of the step.
    position: u32,
    rest: Bytes<'a>,
}

impl<'a> Record<'a> {
    fn decode(bytes: &'a [u8]) -> Result<Self, BatchError> {
        let digits = bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let is_canonical = digits == 1 || digits > 1 && bytes[0] != b'0';
        let number = bytes[..digits]
            .iter()
            .try_fold(0_u32, |number, digit| number.checked_mul(10)?.checked_add(u32::from(digit - b'0')));
        match (number, &bytes[digits..]) {
            (Some(number), [kind, rest @ ..]) if is_canonical && u64::from(number) < STEPS_A_BUILD => {
                Ok(Self { number, kind: *kind, rest: Bytes(rest) })
            }
            _ => Err(error::corrupt("a record has no number, or one beyond the largest")),
        }
    }
}

/// The bytes of a record that are not decoded yet.
#[derive(Clone, Copy)]
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], BatchError> {
        let (taken, rest) = self.0.split_first_chunk().ok_or_else(|| error::corrupt("a record is too short"))?;
        self.0 = rest;
        Ok(*taken)
    }

    /// Splits the remaining bytes into a text of this length and another text.
    fn two_texts(self, length: usize) -> Result<(&'a str, &'a str), BatchError> {
        if self.0.len() < length {
            return Err(error::corrupt("a record is too short"));
        }
        let texts = str::from_utf8(self.0).ok().and_then(|texts| texts.split_at_checked(length));
        texts.ok_or_else(|| error::corrupt("a record has text that is not UTF-8"))
    }

    /// Decodes a number that may be [`ABSENT`].
    fn optional<T>(&mut self, decode: impl FnOnce(i64) -> Option<T>) -> Result<Option<T>, BatchError> {
        match i64::from_be_bytes(self.take()?) {
            ABSENT => Ok(None),
            number => decode(number).map(Some).ok_or_else(|| error::corrupt("a record has a number out of range")),
        }
    }

    fn time(&mut self) -> Result<Option<Timestamp>, BatchError> {
        self.optional(|micros| Timestamp::from_unix_micros(micros).ok())
    }
}
