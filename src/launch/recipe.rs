//! Command lines that start servers: by name, or as the user writes them.

use super::Command;
use crate::telemetry::hide_command_secrets;

/// How to start a server for a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipe {
    line: String,
    model: String,
}

/// Why a text starts no server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadCommand {
    /// Neither a recipe nor a command line that can be told a port.
    #[error(
        "--serve {0:?} is no recipe ({names}), and as a command line it has no {{port}}: rowmill \
         chooses the port the server is to listen at on 127.0.0.1", names = names()
    )]
    NoPort(String),
}

/// The recipes: their names, and what they stand for. Each replaces the shell, so that signals reach
/// the server itself.
///
/// Sources: the manual pages of `vllm serve`, of `sglang.launch_server`, of llama.cpp's
/// `tools/server`, and Ollama's FAQ on `OLLAMA_HOST`.
const RECIPES: [(&str, &str); 4] = [
    ("vllm", "exec vllm serve {model} --host 127.0.0.1 --port {port}"),
    (
        "sglang",
        "exec python3 -m sglang.launch_server --model-path {model} --host 127.0.0.1 --port {port}",
    ),
    ("llama-server", "exec llama-server {source} {model} --host 127.0.0.1 --port {port}"),
    ("ollama", "OLLAMA_HOST=127.0.0.1:{port} exec ollama serve"),
];

fn names() -> String {
    RECIPES.map(|(name, _)| name).join(", ")
}

impl Recipe {
    /// Reads `--serve`: a recipe's name or a command line, in which `{port}` and `{model}` stand for
    /// the port and the model's name.
    ///
    /// # Errors
    /// When it is neither.
    pub fn parse(text: &str, model: &str) -> Result<Self, BadCommand> {
        let known = RECIPES.iter().find(|(name, _)| *name == text.trim());
        let line = match known {
            // A model of llama.cpp's is a file, or a name at Hugging Face.
            Some((_, line)) if model.ends_with(".gguf") => line.replace("{source}", "-m"),
            Some((_, line)) => line.replace("{source}", "-hf"),
            None => text.to_owned(),
        };
        if !line.contains("{port}") {
            return Err(BadCommand::NoPort(text.to_owned()));
        }
        Ok(Self { line, model: model.to_owned() })
    }

    /// The command that serves at a port, by way of a shell.
    pub(super) fn command(&self, port: u16) -> Command {
        // In one pass: a model's name may hold anything.
        let mut shown = String::new();
        let mut rest = self.line.as_str();
        while let Some(at) = rest.find('{') {
            let (before, from) = rest.split_at(at);
            shown.push_str(before);
            let mut put = |name: &str, value: &str| {
                let behind = from.strip_prefix(name)?;
                shown.push_str(value);
                Some(behind)
            };
            rest = match put("{port}", &port.to_string())
                .or_else(|| put("{model}", &quoted(&self.model)))
            {
                Some(behind) => behind,
                None => {
                    shown.push('{');
                    &from[1..]
                }
            };
        }
        shown.push_str(rest);
        let words = ["sh", "-c", &shown].map(Into::into).to_vec();
        Command { words, shown: hide_command_secrets(&shown) }
    }
}

/// A word as a shell takes it for one.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str, model: &str) -> String {
        Recipe::parse(text, model).unwrap().command(8123).shown
    }

    #[test]
    fn recipes_have_names() {
        assert_eq!(
            shown("vllm", "Qwen/Qwen3-0.6B"),
            "exec vllm serve Qwen/Qwen3-0.6B --host 127.0.0.1 --port 8123"
        );
        assert_eq!(
            shown("llama-server", "models/a b.gguf"),
            "exec llama-server -m 'models/a b.gguf' --host 127.0.0.1 --port 8123"
        );
        assert_eq!(
            shown("llama-server", "ggml-org/gemma-3-1b-it-GGUF"),
            "exec llama-server -hf ggml-org/gemma-3-1b-it-GGUF --host 127.0.0.1 --port 8123"
        );
        assert_eq!(shown("ollama", "llama3"), "OLLAMA_HOST=127.0.0.1:8123 exec ollama serve");
        assert!(shown("sglang", "m").contains("--model-path m "));
    }

    #[test]
    fn a_command_line_is_told_port_and_model() {
        assert_eq!(shown("serve {model} -p {port}", "{port}'s"), r"serve '{port}'\''s' -p 8123");
        assert_eq!(shown("a '{\"x\":1}' {port} {other}", "m"), "a '{\"x\":1}' 8123 {other}");
        for text in ["tgi", "vllm serve {model}", ""] {
            let error = Recipe::parse(text, "m").unwrap_err().to_string();
            assert!(error.contains("vllm, sglang, llama-server, ollama"), "{error}");
        }
    }
}
