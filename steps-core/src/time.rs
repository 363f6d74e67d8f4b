use std::{fmt, str::FromStr};

use chrono::{DateTime, SecondsFormat, Utc};

use crate::InputError;

/// A point in time: UTC in whole microseconds, from year 1 to year 9999 (T2).
///
/// A timestamp is displayed as RFC 3339 and parsed from it, and is created from a chrono `DateTime<Utc>`. Fractions
/// of a microsecond are truncated towards the past, so that every store can return a time unchanged.
///
/// ```
/// use chrono::{DateTime, Utc};
/// use steps_core::Timestamp;
///
/// let time: DateTime<Utc> = "2026-01-31T12:00:00.123456789Z".parse()?;
/// let time = Timestamp::try_from(time)?;
/// assert_eq!(time.to_string(), "2026-01-31T12:00:00.123456Z");
/// assert_eq!(time.unix_micros(), 1_769_860_800_123_456);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "String", into = "String"))]
pub struct Timestamp(i64);

impl Timestamp {
    /// The earliest timestamp: 0001-01-01T00:00:00Z.
    pub const MIN: Self = Self(-62_135_596_800_000_000);
    /// The latest timestamp: 9999-12-31T23:59:59.999999Z.
    pub const MAX: Self = Self(253_402_300_799_999_999);
    /// 1970-01-01T00:00:00Z.
    pub const UNIX_EPOCH: Self = Self(0);

    /// Creates a timestamp from microseconds since 1970-01-01T00:00:00Z, negative before it.
    ///
    /// # Errors
    /// [`InputError::TimeRange`] outside [`MIN`](Self::MIN) to [`MAX`](Self::MAX).
    pub fn from_unix_micros(micros: i64) -> Result<Self, InputError> {
        let time = Self(micros);
        if (Self::MIN..=Self::MAX).contains(&time) {
            Ok(time)
        } else {
            Err(InputError::TimeRange { value: format!("{micros} µs after 1970") })
        }
    }

    /// The microseconds since 1970-01-01T00:00:00Z, negative before it.
    #[must_use]
    pub const fn unix_micros(self) -> i64 {
        self.0
    }

    /// Adds `duration`, without its fractions of a microsecond. The result is at most [`MAX`](Self::MAX).
    #[must_use]
    pub fn saturating_add(self, duration: std::time::Duration) -> Self {
        let micros = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
        Self(self.0.saturating_add(micros)).min(Self::MAX)
    }
}

impl TryFrom<DateTime<Utc>> for Timestamp {
    type Error = InputError;

    fn try_from(time: DateTime<Utc>) -> Result<Self, InputError> {
        // chrono counts the fraction upwards from the whole second, so this truncates towards the past.
        let micros = time.timestamp() * 1_000_000 + i64::from(time.timestamp_subsec_micros());
        Self::from_unix_micros(micros).map_err(|_| InputError::TimeRange { value: time.to_rfc3339() })
    }
}

impl From<Timestamp> for DateTime<Utc> {
    fn from(time: Timestamp) -> Self {
        DateTime::from_timestamp_micros(time.0).expect("chrono supports the years 1 to 9999")
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&DateTime::from(*self).to_rfc3339_opts(SecondsFormat::Micros, true))
    }
}

impl FromStr for Timestamp {
    type Err = InputError;

    fn from_str(text: &str) -> Result<Self, InputError> {
        let time = DateTime::parse_from_rfc3339(text).map_err(|_| InputError::TimeSyntax { value: text.to_owned() })?;
        time.to_utc().try_into()
    }
}

impl TryFrom<String> for Timestamp {
    type Error = InputError;

    fn try_from(text: String) -> Result<Self, InputError> {
        text.parse()
    }
}

impl From<Timestamp> for String {
    fn from(time: Timestamp) -> String {
        time.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn time(text: &str) -> Result<Timestamp, InputError> {
        text.parse()
    }

    #[test]
    fn years_1_to_9999() {
        assert_eq!(time("0001-01-01T00:00:00Z"), Ok(Timestamp::MIN));
        assert_eq!(time("9999-12-31T23:59:59.9999999Z"), Ok(Timestamp::MAX));
        assert_eq!(Timestamp::MIN.to_string(), "0001-01-01T00:00:00.000000Z");
        for outside in ["0000-12-31T23:59:59.999999Z", "9999-12-31T23:59:59-00:01", "9999-12-31T23:59:60Z"] {
            assert!(matches!(time(outside), Err(InputError::TimeRange { .. })), "{outside}");
        }
        for outside in [Timestamp::MIN.unix_micros() - 1, Timestamp::MAX.unix_micros() + 1, i64::MIN, i64::MAX] {
            assert!(Timestamp::from_unix_micros(outside).is_err());
        }
        for outside in [DateTime::<Utc>::MIN_UTC, DateTime::<Utc>::MAX_UTC] {
            assert!(Timestamp::try_from(outside).is_err());
        }
        assert!(matches!(time("yesterday"), Err(InputError::TimeSyntax { .. })));
    }

    #[test]
    fn fractions_of_a_microsecond_are_truncated_towards_the_past() {
        assert_eq!(time("1970-01-01T00:00:00.0000019Z").unwrap().unix_micros(), 1);
        assert_eq!(time("1969-12-31T23:59:59.9999999Z").unwrap().unix_micros(), -1);
        assert_eq!(time("1969-12-31T23:59:59.9999981Z").unwrap().unix_micros(), -2);
    }

    #[test]
    fn adding_saturates_at_the_latest_timestamp() {
        let later = Timestamp::UNIX_EPOCH.saturating_add(std::time::Duration::from_nanos(1_999));
        assert_eq!(later.unix_micros(), 1);
        assert_eq!(Timestamp::UNIX_EPOCH.saturating_add(std::time::Duration::MAX), Timestamp::MAX);
    }

    proptest! {
        #[test]
        fn a_displayed_timestamp_parses(micros in Timestamp::MIN.0..=Timestamp::MAX.0) {
            let time = Timestamp::from_unix_micros(micros).unwrap();
            prop_assert_eq!(time.to_string().parse(), Ok(time));
            prop_assert_eq!(Timestamp::try_from(DateTime::from(time)), Ok(time));
        }
    }
}
