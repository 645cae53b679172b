//! How many tokens a text is: counted where the model's tokenizer is public, guessed by its
//! characters where it is not.
//!
//! The tables of a tokenizer are read when the first text is counted, so nobody else waits for them.
//! A guess is by script, with a family's own word on Latin text where it gives one:
//!
//! * OpenAI: 4 characters a token, <https://help.openai.com/en/articles/4936856>
//! * Anthropic: 3.5, <https://platform.claude.com/docs/en/about-claude/glossary>
//! * Gemini: 4, <https://ai.google.dev/gemini-api/docs/tokens>
//! * DeepSeek: 0.3 tokens a character, 0.6 a Chinese one,
//!   <https://api-docs.deepseek.com/quick_start/token_usage>

use std::collections::HashSet;

use tiktoken_rs::CoreBPE;

use crate::job::Protocol;

/// How the tokens of a model are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tokenizer {
    /// OpenAI's, since GPT-4o.
    O200k,
    /// OpenAI's before, and that of its embeddings.
    Cl100k,
    /// None that is known: what a character comes to, by its script.
    Approximation(Weights),
}

/// What characters come to, in hundredths of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weights {
    latin: u64,
    // Han, kana, hangul.
    east_asian: u64,
    // Every other script, and signs.
    other: u64,
}

const USUAL: Weights = Weights { latin: 25, east_asian: 80, other: 50 };
const CLAUDE: Weights = Weights { latin: 29, east_asian: 110, other: 70 };
const DEEPSEEK: Weights = Weights { latin: 30, east_asian: 60, other: 50 };

/// Names that models of OpenAI's newer tokenizer begin with, wherever they are served.
const O200K: &[&str] = &[
    "gpt-4o",
    "gpt-4.1",
    "gpt-4.5",
    "gpt-5",
    "gpt-6",
    "gpt-oss",
    "chatgpt-4o",
    "chat-latest",
    "o1",
    "o3",
    "o4",
    "codex",
];
const CL100K: &[&str] = &["gpt-4", "gpt-3.5", "text-embedding-3", "text-embedding-ada-002"];

/// What a chat puts around each message and in front of the answer, in tokens:
/// <https://cookbook.openai.com/examples/how_to_count_tokens_with_tiktoken>. Others put about as much.
const MESSAGE: u64 = 4;
const ANSWER: u64 = 3;

impl Tokenizer {
    /// That of a model, by its name.
    #[must_use]
    pub fn of(model: &str) -> Self {
        let name = model.rsplit('/').next().unwrap_or(model).to_ascii_lowercase();
        let begins = |names: &[&str]| {
            names.iter().any(|start| {
                let rest = name.strip_prefix(start);
                rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_alphanumeric()))
            })
        };
        if begins(O200K) {
            Self::O200k
        } else if begins(CL100K) {
            Self::Cl100k
        } else if name.contains("claude") {
            Self::Approximation(CLAUDE)
        } else if name.contains("deepseek") {
            Self::Approximation(DEEPSEEK)
        } else {
            Self::Approximation(USUAL)
        }
    }

    /// A guess at the same, without tables: for where time counts more.
    #[must_use]
    pub fn guess(self) -> Self {
        match self {
            Self::O200k | Self::Cl100k => Self::Approximation(USUAL),
            guess @ Self::Approximation(_) => guess,
        }
    }

    /// Its name, as reports have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::O200k => "o200k_base",
            Self::Cl100k => "cl100k_base",
            Self::Approximation(_) => "approximation",
        }
    }

    /// How many tokens a text is.
    #[must_use]
    pub fn count(self, text: &str) -> u64 {
        match self {
            Self::O200k => exactly(tiktoken_rs::o200k_base_singleton(), text),
            Self::Cl100k => exactly(tiktoken_rs::cl100k_base_singleton(), text),
            Self::Approximation(weights) => weights.count(text),
        }
    }

    /// How many tokens go in with a call, besides its prompt: what is put around messages, the
    /// instruction, the schema.
    #[must_use]
    pub fn around(
        self,
        protocol: Protocol,
        instruction: Option<&str>,
        schema: Option<&str>,
    ) -> u64 {
        if protocol == Protocol::Embeddings {
            return 0;
        }
        let instruction = instruction.map_or(0, |text| MESSAGE + self.count(text));
        MESSAGE + ANSWER + instruction + schema.map_or(0, |text| self.count(text))
    }
}

/// Counts with a tokenizer's tables. Long texts are counted in pieces: what a word without an end
/// costs grows faster than its length. Each cut may add a token.
fn exactly(tokenizer: &CoreBPE, text: &str) -> u64 {
    const PIECE: usize = 64 << 10;
    let no_signs = HashSet::new();
    let mut count = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let mut end = rest.len().min(PIECE);
        while !rest.is_char_boundary(end) {
            end -= 1;
        }
        if end < rest.len() {
            end = rest[..end].rfind(' ').filter(|at| *at > 0).unwrap_or(end);
        }
        let (piece, behind) = rest.split_at(end);
        rest = behind;
        count += match tokenizer.count(piece, &no_signs) {
            Ok(tokens) => tokens as u64,
            Err(_) => USUAL.count(piece),
        };
    }
    count
}

impl Weights {
    fn count(self, text: &str) -> u64 {
        let hundredths: u64 = text.chars().map(|character| self.of(character)).sum();
        hundredths.div_ceil(100)
    }

    fn of(self, character: char) -> u64 {
        match character {
            // ASCII, and Latin with accents.
            '\0'..='\u{24f}' | '\u{1e00}'..='\u{1eff}' | '\u{2010}'..='\u{2027}' => self.latin,
            '\u{2e80}'..='\u{9fff}'
            | '\u{ac00}'..='\u{d7af}'
            | '\u{f900}'..='\u{faff}'
            | '\u{ff00}'..='\u{ffef}'
            | '\u{20000}'..='\u{3ffff}' => self.east_asian,
            // Emoji: two or three tokens each.
            '\u{1f000}'..='\u{1ffff}' => 5 * self.other,
            _ => self.other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_has_its_tokenizer_wherever_it_is_served() {
        for (model, name) in [
            ("gpt-4o-mini-2024-07-18", "o200k_base"),
            ("gpt-4.1-nano", "o200k_base"),
            ("gpt-5", "o200k_base"),
            ("o3-mini", "o200k_base"),
            ("openai/gpt-oss-120b", "o200k_base"),
            ("gpt-4", "cl100k_base"),
            ("gpt-4-turbo", "cl100k_base"),
            ("gpt-3.5-turbo", "cl100k_base"),
            ("text-embedding-3-small", "cl100k_base"),
            ("claude-haiku-4-5", "approximation"),
            ("o365-assistant", "approximation"),
            ("Qwen/Qwen3-8B", "approximation"),
            ("", "approximation"),
        ] {
            assert_eq!(Tokenizer::of(model).name(), name, "{model}");
        }
    }

    #[test]
    fn openais_tokens_are_counted_as_openai_counts_them() {
        // From OpenAI's cookbook on counting tokens, and its tokenizer page.
        for (text, o200k, cl100k) in [
            ("", 0, 0),
            ("antidisestablishmentarianism", 6, 6),
            ("2 + 2 = 4", 7, 7),
            ("お誕生日おめでとう", 8, 9),
        ] {
            assert_eq!(Tokenizer::O200k.count(text), o200k, "{text}");
            assert_eq!(Tokenizer::Cl100k.count(text), cl100k, "{text}");
        }
        // A control word of the tokenizer in a text is a text.
        assert!(Tokenizer::O200k.count("<|endoftext|>") > 1);
    }

    #[test]
    fn a_long_text_is_counted_in_pieces_and_comes_to_the_same() {
        let sentence = "The courier came twice and nobody was at home. ";
        let once = Tokenizer::O200k.count(sentence) - 1;
        let many = Tokenizer::O200k.count(&sentence.repeat(20_000));
        let expected = once * 20_000;
        assert!(many.abs_diff(expected) < 100, "{many} and {expected}");
        // No blank in it at all, and every character of three bytes.
        assert!(Tokenizer::O200k.count(&"漢".repeat(100_000)) > 10_000);
    }

    #[test]
    fn a_guess_knows_scripts_apart_and_is_near_what_is_counted() {
        let guess = Tokenizer::of("some-model");
        assert_eq!(guess.count("abcdefgh"), 2);
        assert!(guess.count("これは日本語の文章です") > guess.count("abcdefghijk"));
        assert!(guess.count("Это предложение") > guess.count("This sentence!!"));
        for text in [
            "The quick brown fox jumps over the lazy dog, and nobody is surprised any more.",
            "Die Lieferung kam zu spät, und der Karton war beschädigt; das Geld will ich zurück.",
            "この製品はとても良いですが、配達が遅すぎました。返金をお願いします。",
            "Товар хороший, но доставка заняла три недели. Верните, пожалуйста, деньги.",
        ] {
            let (counted, guessed) = (Tokenizer::O200k.count(text), guess.count(text));
            assert!(
                guessed * 2 >= counted && guessed <= counted * 2,
                "{text}: {counted}, {guessed}"
            );
        }
    }

    #[test]
    fn a_chat_comes_with_more_than_its_prompt() {
        let chat =
            |instruction, schema| Tokenizer::O200k.around(Protocol::Chat, instruction, schema);
        assert_eq!(chat(None, None), 7);
        assert_eq!(chat(Some("2 + 2 = 4"), None), 7 + 4 + 7);
        assert_eq!(chat(None, Some("2 + 2 = 4")), 7 + 7);
        assert_eq!(Tokenizer::Cl100k.around(Protocol::Embeddings, None, None), 0);
    }
}
