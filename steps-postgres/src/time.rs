//! The wire format of PostgreSQL's times: microseconds since 2000-01-01T00:00:00Z.

use sqlx::{
    Decode, Encode, Postgres, Type,
    encode::IsNull,
    error::BoxDynError,
    postgres::{PgArgumentBuffer, PgHasArrayType, PgTypeInfo, PgValueRef, types::Oid},
};
use steps_core::{InputError, Timestamp};

/// 2000-01-01T00:00:00Z, in microseconds since 1970.
const EPOCH: i64 = 946_684_800_000_000;

/// A `timestamptz`: every microsecond of a [`Timestamp`] (T2), and any other value that the database may contain.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Time(i64);

impl From<Timestamp> for Time {
    fn from(time: Timestamp) -> Self {
        Self(time.unix_micros() - EPOCH)
    }
}

impl TryFrom<Time> for Timestamp {
    type Error = InputError;

    fn try_from(time: Time) -> Result<Self, InputError> {
        Self::from_unix_micros(time.0.saturating_add(EPOCH))
    }
}

impl Type<Postgres> for Time {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(1184))
    }
}

impl PgHasArrayType for Time {
    fn array_type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(1185))
    }
}

impl Encode<'_, Postgres> for Time {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        Encode::<Postgres>::encode(self.0, buffer)
    }
}

impl Decode<'_, Postgres> for Time {
    fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
        Decode::<Postgres>::decode(value).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_timestamp_comes_back() {
        for time in [Timestamp::MIN, Timestamp::UNIX_EPOCH, Timestamp::MAX] {
            assert_eq!(Timestamp::try_from(Time::from(time)), Ok(time));
        }
        for infinity in [i64::MIN, i64::MAX] {
            assert!(Timestamp::try_from(Time(infinity)).is_err());
        }
    }
}
