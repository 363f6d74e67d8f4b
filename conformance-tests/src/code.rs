//! Values as Rust expressions.

use std::cmp::Reverse;

/// An expression for this text. Repetitions are written with `repeat`.
pub(crate) fn literal(text: &str) -> String {
    const LONG_RUN: usize = 12;
    const LONG_TEXT: usize = 100;
    const LONGEST_UNIT: usize = 64;

    let Some(first) = text.chars().next() else { return r#""""#.into() };
    let run = text.chars().take_while(|c| *c == first).count();
    let longest_unit = if run >= LONG_RUN {
        1
    } else if text.len() > LONG_TEXT {
        LONGEST_UNIT
    } else {
        return format!("{text:?}");
    };
    // The unit whose repetitions cover most of the start of the text; the shortest such unit.
    let ends = text.char_indices().map(|(start, c)| start + c.len_utf8()).take(longest_unit);
    let covers =
        |end: &usize| text.as_bytes().chunks(*end).take_while(|chunk| *chunk == &text.as_bytes()[..*end]).count();
    let Some((end, times)) =
        ends.map(|end| (end, covers(&end))).max_by_key(|(end, times)| (end * times, Reverse(*end)))
    else {
        return format!("{text:?}");
    };
    let unit = &text[..end];
    let rest = &text[end * times..];
    match (times, rest) {
        (1, _) => format!("{text:?}"),
        (_, "") => format!("{unit:?}.repeat({times})"),
        _ => format!("format!(\"{{}}{{}}\", {unit:?}.repeat({times}), {rest:?})"),
    }
}

#[cfg(test)]
mod tests {
    use super::literal;

    #[test]
    fn repetitions_are_written_once() {
        assert_eq!(literal(""), r#""""#);
        assert_eq!(literal("a\"\u{1}"), r#""a\"\u{1}""#);
        assert_eq!(literal(&"x".repeat(50)), r#""x".repeat(50)"#);
        assert_eq!(literal(&format!("{}_10", "é".repeat(47))), r#"format!("{}{}", "é".repeat(47), "_10")"#);
        assert_eq!(literal(&"ab\u{1}".repeat(400)), r#""ab\u{1}".repeat(400)"#);
    }
}
