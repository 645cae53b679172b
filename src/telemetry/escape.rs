//! Text that others wrote (ids, names, servers' messages) may hold what moves a cursor, rings a
//! bell or turns writing around. None of that reaches a terminal.

use std::fmt::Write;

/// The longest text shown, in characters.
const LONGEST: usize = 500;

/// A text with control characters, line and paragraph separators and bidirectional controls
/// spelled out, and cut when it is long.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for (count, character) in text.chars().enumerate() {
        if count == LONGEST {
            out.push('…');
            break;
        }
        if is_unsafe(character) {
            // Writing to a String cannot fail.
            let _ = write!(out, "\\u{{{:x}}}", u32::from(character));
        } else {
            out.push(character);
        }
    }
    out
}

/// Whether a character may move a terminal, or what stands around it.
#[must_use]
pub fn is_unsafe(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{061c}'
            | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moves_a_terminal_is_spelled_out() {
        assert_eq!(escape("a\x1b[31m\r\nb\u{9b}\u{7f}"), r"a\u{1b}[31m\u{d}\u{a}b\u{9b}\u{7f}");
        assert_eq!(escape("x\u{202e}y\u{2028}"), r"x\u{202e}y\u{2028}");
        assert_eq!(escape("Grüße, 世界 😀"), "Grüße, 世界 😀");
        assert_eq!(escape(&"x".repeat(600)).chars().count(), LONGEST + 1);
    }
}
