//! What no store is ever asked: the values that the types of `steps-core` refuse, as one table (N1, T1, T2,
//! I1, I3, I5).

use steps_core::{
    BuildId, Error, ErrorKind, IdempotencyKey, InputError, Results, StateString, StepId, StepName, StepNumber, StepUrl,
    Timestamp, limits,
};

/// What refused the value, and the beginning of what it must say.
type Refusal = (&'static str, Option<InputError>, &'static str);

fn name(text: impl Into<String>) -> Option<InputError> {
    StepName::new(text).err()
}

fn key(text: impl Into<String>) -> Option<InputError> {
    IdempotencyKey::new(text).err()
}

fn url(name: impl Into<String>, url: impl Into<String>) -> Option<InputError> {
    StepUrl::new(name, url).err()
}

fn time(text: &str) -> Option<InputError> {
    text.parse::<Timestamp>().err()
}

fn refusals() -> Vec<Refusal> {
    vec![
        ("N1: the empty name", name(""), "step name: it is empty"),
        ("N1: 51 letters", name("x".repeat(51)), "step name: 51 characters are too many"),
        ("N1: 51 characters of four bytes", name("🚀".repeat(51)), "step name: 51 characters are too many"),
        ("N1: a digit first", name("7zip"), "step name: it begins with the digit 7"),
        ("N1: a blank", name("unit tests"), "step name: ' ' at position 4"),
        ("N1: a trailing newline", name("compile\n"), "step name: '\\n' at position 7"),
        ("N1: a NUL", name("a\0"), "step name: '\\0' at position 1"),
        ("N1: a dot", name("a.b"), "step name: '.' at position 1"),
        ("N1: the last ASCII character", name("a\u{7f}"), "step name: '\\u{7f}' at position 1"),
        ("N1: the first past ASCII", name("\u{80}"), "step name: '\\u{80}' at position 0"),
        ("N1: the last before U+00A0", name("é\u{9f}"), "step name: '\\u{9f}' at position 1"),
        (
            "T1: a NUL in a state string",
            StateString::new("a\0b").err(),
            "state string: it has a NUL character at byte 1",
        ),
        (
            "T1: a state string over 1 MiB",
            StateString::new("x".repeat(limits::STATE_STRING_BYTES + 1)).err(),
            "state string: 1048577 bytes of UTF-8 are too many",
        ),
        (
            "T1: a state string over 1 MiB by half a character",
            StateString::new("x".repeat(limits::STATE_STRING_BYTES - 1) + "é").err(),
            "state string: 1048577 bytes of UTF-8 are too many",
        ),
        ("T1: a NUL in the name of a url", url("\0", ""), "url name: it has a NUL character at byte 0"),
        ("T1: a NUL in a url", url("", "http://\0"), "url: it has a NUL character at byte 7"),
        (
            "T1: a name of a url over 64 KiB",
            url("x".repeat(limits::URL_BYTES + 1), ""),
            "url name: 65537 bytes of UTF-8 are too many",
        ),
        ("T1: a url over 64 KiB", url("", "x".repeat(limits::URL_BYTES + 1)), "url: 65537 bytes of UTF-8 are too many"),
        ("T2: before year 1", time("0000-12-31T23:59:59.999999Z"), "time: "),
        ("T2: after year 9999, in UTC", time("9999-12-31T23:59:59.999999-00:01"), "time: "),
        ("T2: no time", time("noon"), "time: \"noon\" is not one"),
        ("T2: a time without a zone", time("2026-01-31T12:00:00"), "time: \"2026-01-31T12:00:00\" is not one"),
        ("T3: past an i32", "2147483648".parse::<Results>().err(), "results: \"2147483648\" is not one"),
        ("I1: 0", StepId::new(0).err(), "step id: 0 is not one"),
        ("I1: past an i64", StepId::try_from(1_u64 << 63).err(), "step id: 9223372036854775808 is not one"),
        ("I2: -1", StepNumber::try_from(-1_i64).err(), "step number: -1 is not one"),
        ("I3: 0", BuildId::new(0).err(), "build id: 0 is not one"),
        ("I3: the least i64", BuildId::new(i64::MIN).err(), "build id: -9223372036854775808 is not one"),
        ("I5: the empty key", key(""), "idempotency key: 0 characters"),
        ("I5: 65 characters", key("k".repeat(65)), "idempotency key: 65 characters"),
        ("I5: a control character", key("k\u{1f}"), "idempotency key: '\\u{1f}' at position 1"),
        ("I5: a tab", key("a\tb"), "idempotency key: '\\t' at position 1"),
        ("I5: past ASCII", key("é"), "idempotency key: 'é' at position 0"),
    ]
}

#[test]
fn values_that_cannot_be_are_refused_with_the_reason() {
    for (what, refusal, message) in refusals() {
        let refusal = refusal.unwrap_or_else(|| panic!("{what}: it is accepted"));
        assert!(refusal.to_string().starts_with(message), "{what}: {refusal}");
        let error = Error::from(refusal);
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{what}");
        assert!(!error.is_retryable() && !error.may_have_applied(), "{what}");
    }
}
