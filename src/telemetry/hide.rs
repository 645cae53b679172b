//! Command lines as they may be kept and shown: without the values of what is named as a secret.

/// What stands in the place of a secret.
const HIDDEN: &str = "…";
/// How the names of options and variables end whose values are secrets.
const SECRET: &[&str] =
    &["credential", "credentials", "key", "passwd", "password", "secret", "token"];

/// Whether an option or a variable of this name holds a secret.
#[must_use]
pub fn is_secret_name(name: &str) -> bool {
    let name = name.trim_start_matches('-').to_ascii_lowercase();
    let is_word =
        !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || "-_.".contains(c));
    is_word && name.rsplit(['-', '_', '.']).next().is_some_and(|last| SECRET.contains(&last))
}

/// A command line without the values of secrets: `--api-key VALUE`, `--token=VALUE`, `HF_TOKEN=VALUE`,
/// `Bearer VALUE`.
#[must_use]
pub fn hide_command_secrets(line: &str) -> String {
    let mut is_value = false;
    let words = line.split(' ').map(|word| {
        if word.is_empty() {
            return word.to_owned();
        }
        let bare = word.trim_matches(['"', '\'']);
        let is_named = bare.starts_with('-') && is_secret_name(bare);
        let is_bearer = bare.eq_ignore_ascii_case("bearer") || bare.eq_ignore_ascii_case("basic");
        if std::mem::replace(&mut is_value, is_named || is_bearer) && !bare.starts_with("--") {
            return HIDDEN.to_owned();
        }
        match word.split_once('=') {
            Some((name, value)) if !value.is_empty() && is_secret_name(name) => {
                format!("{name}={HIDDEN}")
            }
            _ => word.to_owned(),
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_in_command_lines_are_hidden() {
        for (line, expected) in [
            ("vllm serve m --api-key geheim --port 1", "vllm serve m --api-key … --port 1"),
            ("HF_TOKEN=geheim x --token='geheim'", "HF_TOKEN=… x --token=…"),
            ("x --header 'Authorization: Bearer geheim'", "x --header 'Authorization: Bearer …"),
            ("x --max-tokens 5 --key-file a keys=3", "x --max-tokens 5 --key-file a keys=3"),
            ("x --api-key --port 1", "x --api-key --port 1"),
        ] {
            assert_eq!(hide_command_secrets(line), expected);
        }
    }
}
