//! Patterns for ids: `*` is any characters, `?` is one, and a backslash takes the next character as it is.

/// A pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob(Vec<Piece>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece {
    Any,
    One,
    This(char),
}

impl Glob {
    /// Reads a pattern; every text is one.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let mut pieces = Vec::new();
        let mut characters = text.chars();
        while let Some(character) = characters.next() {
            pieces.push(match character {
                '*' => Piece::Any,
                '?' => Piece::One,
                '\\' => Piece::This(characters.next().unwrap_or('\\')),
                character => Piece::This(character),
            });
        }
        Self(pieces)
    }

    /// Whether a whole text fits.
    #[must_use]
    pub fn fits(&self, text: &str) -> bool {
        let (pieces, text) = (&self.0, text.chars().collect::<Vec<_>>());
        let (mut piece, mut at) = (0, 0);
        // The last `*`, and how far it reaches: only it has to be tried again with more.
        let mut star: Option<(usize, usize)> = None;
        while at < text.len() {
            match pieces.get(piece) {
                Some(Piece::Any) => {
                    star = Some((piece, at));
                    piece += 1;
                    continue;
                }
                Some(Piece::One) => {}
                Some(Piece::This(character)) if *character == text[at] => {}
                _ => {
                    let Some((from, reached)) = star else { return false };
                    star = Some((from, reached + 1));
                    (piece, at) = (from + 1, reached + 1);
                    continue;
                }
            }
            piece += 1;
            at += 1;
        }
        pieces[piece..].iter().all(|piece| *piece == Piece::Any)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The same, by trying everything.
    fn fits(pattern: &[char], text: &[char]) -> bool {
        match (pattern, text) {
            ([], []) => true,
            (['*', rest @ ..], _) => (0..=text.len()).any(|at| fits(rest, &text[at..])),
            (['?', rest @ ..], [_, text @ ..]) => fits(rest, text),
            ([one, rest @ ..], [other, text @ ..]) => one == other && fits(rest, text),
            _ => false,
        }
    }

    #[test]
    fn escapes_and_long_texts() {
        assert!(Glob::new(r"a\*b").fits("a*b") && !Glob::new(r"a\*b").fits("axb"));
        assert!(Glob::new("req-*-é?").fits("req-1-2-éx"));
        assert!(!Glob::new(&"*a".repeat(20)).fits(&"a".repeat(19)), "and in no time");
        assert!(!Glob::new(&("*a".repeat(20) + "b")).fits(&"a".repeat(5000)));
        assert!(Glob::new("").fits("") && !Glob::new("").fits("a") && Glob::new("**").fits(""));
    }

    proptest! {
        #[test]
        fn fits_what_trying_everything_finds(pattern in "[ab*?]{0,8}", text in "[ab]{0,8}") {
            let characters = |text: &str| text.chars().collect::<Vec<_>>();
            let expected = fits(&characters(&pattern), &characters(&text));
            prop_assert_eq!(Glob::new(&pattern).fits(&text), expected);
        }
    }
}
