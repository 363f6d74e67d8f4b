//! Maximum lengths of text (clauses N1, T1 and I5).

/// The maximum length of a step name, in code points (N1).
pub const NAME_CODE_POINTS: usize = 50;

/// The maximum length of a state string, in bytes of UTF-8: 1 MiB (T1).
pub const STATE_STRING_BYTES: usize = 1024 * 1024;

/// The maximum length of a url, and of the name of a url, in bytes of UTF-8: 64 KiB each (T1).
pub const URL_BYTES: usize = 64 * 1024;

/// The maximum length of an idempotency key, in characters (I5).
pub const IDEMPOTENCY_KEY_CHARACTERS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limits_are_those_of_the_contract() {
        assert_eq!((NAME_CODE_POINTS, IDEMPOTENCY_KEY_CHARACTERS), (50, 64));
        assert_eq!((STATE_STRING_BYTES, URL_BYTES), (1_048_576, 65_536));
    }
}
