//! Escapes text from a store: it is untrusted, and must neither control the terminal nor hide in it.

use std::{
    borrow::Cow,
    fmt::{self, Write},
};

/// The text with all characters escaped that control a terminal, change the order of the shown text or are invisible,
/// as in `\n`, `\u{202e}` and `\u{200b}`.
pub(crate) fn shown(text: &str) -> Cow<'_, str> {
    escaped(text, |c, escaped| write!(escaped, "{}", c.escape_default()))
}

/// A part of a JSON string with the same characters as JSON escapes, which do not change its meaning.
pub(crate) fn shown_json(text: &str) -> Cow<'_, str> {
    escaped(text, |c, escaped| c.encode_utf16(&mut [0; 2]).iter().try_for_each(|unit| write!(escaped, "\\u{unit:04x}")))
}

/// As [`shown`], cut after `limit` characters.
pub(crate) fn shown_start(text: &str, limit: usize) -> Cow<'_, str> {
    match text.char_indices().nth(limit) {
        Some((end, _)) => format!("{}…", shown(&text[..end])).into(),
        None => shown(text),
    }
}

fn escaped(text: &str, write: impl Fn(char, &mut String) -> fmt::Result) -> Cow<'_, str> {
    // Most text is plain ASCII, and a fold without a branch for each byte is vectorized.
    if text.bytes().fold(true, |plain, byte| plain & (b' '..0x7f).contains(&byte)) {
        return text.into();
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    let mut previous = None;
    for c in text.chars() {
        if controls_terminal(c) || (is_invisible(c) && !selects_emoji(previous, c)) {
            // Writing to a string does not fail.
            let _ = write(c, &mut escaped);
        } else {
            escaped.push(c);
        }
        previous = Some(c);
    }
    escaped.into()
}

/// Whether a character may control the terminal: control characters (C0, DEL, C1), which begin all escape sequences;
/// separators of lines and paragraphs; interlinear annotations.
fn controls_terminal(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{fff9}'..='\u{fffb}')
}

/// Whether a character is shown as nothing: Unicode's property Default_Ignorable_Code_Point. It contains the marks,
/// embeddings, overrides and isolates of direction, joiners and blanks without a width, fillers, and tags.
fn is_invisible(c: char) -> bool {
    matches!(
        c,
        '\u{ad}'
            | '\u{34f}'
            | '\u{61c}'
            | '\u{115f}'..='\u{1160}'
            | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}'
            | '\u{ffa0}'
            | '\u{fff0}'..='\u{fff8}'
            | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}'
    )
}

/// Whether `c` only chooses the look of a symbol before it, as in ⚠️.
fn selects_emoji(previous: Option<char>, c: char) -> bool {
    let is_symbol = |c: char| matches!(c, '\u{2190}'..='\u{2bff}' | '\u{1f000}'..='\u{1faff}');
    matches!(c, '\u{fe0e}' | '\u{fe0f}') && previous.is_some_and(is_symbol)
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Ranges that must never reach a terminal, listed independently of the functions above.
    const NEVER: [(u32, u32); 13] = [
        (0x00, 0x1f),
        (0x7f, 0x9f),
        (0xad, 0xad),
        (0x61c, 0x61c),
        (0x200b, 0x200f),
        (0x2028, 0x2029),
        (0x202a, 0x202e),
        (0x2060, 0x2064),
        (0x2066, 0x2069),
        (0x3164, 0x3164),
        (0xfeff, 0xfeff),
        (0xe0000, 0xe007f),
        (0xe0100, 0xe01ef),
    ];

    pub(crate) fn harmless(text: &str) -> bool {
        !text.chars().any(|c| NEVER.iter().any(|(first, last)| (*first..=*last).contains(&u32::from(c))))
    }

    /// Text in which the characters of [`NEVER`] are frequent.
    pub(crate) fn any_text() -> impl Strategy<Value = String> {
        let dangerous = (0..NEVER.len(), 0..40_u32).prop_map(|(range, offset)| {
            let (first, last) = NEVER[range];
            char::from_u32((first + offset).min(last)).expect("the ranges contain no surrogate")
        });
        proptest::collection::vec(prop_oneof![dangerous, any::<char>()], 0..40).prop_map(String::from_iter)
    }

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(shown("\u{1b}[31mred\u{7}\n\r\t"), r"\u{1b}[31mred\u{7}\n\r\t");
        assert_eq!(shown("\u{9b}2J\u{7f}"), r"\u{9b}2J\u{7f}");
        assert_eq!(shown("a\u{202e}b\u{2066}c\u{2029}"), r"a\u{202e}b\u{2066}c\u{2029}");
    }

    #[test]
    fn invisible_characters_are_escaped() {
        assert_eq!(shown("a\u{200b}\u{ad}b\u{feff}\u{3164}"), r"a\u{200b}\u{ad}b\u{feff}\u{3164}");
        assert_eq!(shown("👩\u{200d}💻\u{e0041}"), r"👩\u{200d}💻\u{e0041}");
        assert_eq!(shown("a\u{fe0f}\u{fe0f}"), r"a\u{fe0f}\u{fe0f}");
        assert_eq!(shown("⚠\u{fe0f}\u{fe0f}"), "⚠\u{fe0f}\\u{fe0f}");
        assert_eq!(shown_json("a\u{200b}\u{e0041}"), r"a\u200b\udb40\udc41");
    }

    #[test]
    fn all_other_text_stays() {
        for text in ["", "a b", r"C:\new", "é e\u{301} 漢字 🚀 ⚠\u{fe0f} עברית", "\u{a0}"] {
            assert_eq!(shown(text), text);
        }
    }

    #[test]
    fn cut_text_ends_with_an_ellipsis() {
        assert_eq!(shown_start("ab\nc", 3), "ab\\n…");
        assert_eq!(shown_start("äbc", 3), "äbc");
    }

    proptest! {
        #[test]
        fn no_control_character_gets_through(text in any_text()) {
            prop_assert!(harmless(&shown(&text)));
            prop_assert!(harmless(&shown_start(&text, 10)));
        }
    }
}
