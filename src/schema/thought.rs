//! Thoughts in what a model says: the parts between marks in which a draft is no answer.
//!
//! Sources: the chat templates of DeepSeek, Qwen, GLM and MiniMax (`<think>`), Magistral (`[THINK]`), Kimi (`◁think▷`),
//! Seed (`<seed:think>`), Command A (`<|START_THINKING|>`), Gemma (`<|channel>thought`), MedGemma (`<unused94>`),
//! OpenAI's harmony (<https://github.com/openai/harmony>), and the tags that prompts ask for (`<thinking>`,
//! `<reasoning>`, `<scratchpad>`).

/// A mark at which a thought begins or ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) kind: Kind,
    /// Its bytes.
    pub(super) length: usize,
}

/// What begins or ends at a mark. A thought ends at the mark of its own family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Begin(Family),
    End(Family),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    Think,
    Reason,
    Reflect,
    Scratchpad,
    Analysis,
    Plan,
    Channel,
    Unused,
    Details,
}

/// The mark that a text begins with, if it does.
pub(super) fn mark_at(text: &str) -> Option<Mark> {
    /// A name and its attributes are shorter than this.
    const LONGEST: usize = 100;
    let first = text.chars().next()?;
    let close = match first {
        '<' => '>',
        '[' => ']',
        '◁' => '▷',
        _ => return None,
    };
    // Brackets are common in texts: those of a thought are in capitals.
    if first == '[' && !text.starts_with("[THINK") && !text.starts_with("[/THINK") {
        return None;
    }
    let rest = &text[first.len_utf8()..];
    let end = rest.char_indices().take(LONGEST).find(|(_, c)| *c == close)?.0;
    let length = first.len_utf8() + end + close.len_utf8();
    let inner = &rest[..end];
    let kind = if first == '[' { kind_in_brackets(inner) } else { kind_of(inner) };
    Some(Mark { kind: kind?, length })
}

fn kind_in_brackets(inner: &str) -> Option<Kind> {
    match inner {
        "THINK" | "THINKING" => Some(Kind::Begin(Family::Think)),
        "/THINK" | "/THINKING" => Some(Kind::End(Family::Think)),
        _ => None,
    }
}

fn kind_of(inner: &str) -> Option<Kind> {
    match inner {
        "|channel" => return Some(Kind::Begin(Family::Channel)),
        "channel|" => return Some(Kind::End(Family::Channel)),
        "unused94" => return Some(Kind::Begin(Family::Unused)),
        "unused95" => return Some(Kind::End(Family::Unused)),
        _ => {}
    }
    let (is_end, name) = match inner.strip_prefix('/') {
        Some(name) => (true, name),
        None => (false, inner),
    };
    let (name, attributes) = name.split_once(char::is_whitespace).unwrap_or((name, ""));
    let name = name.trim_matches('|').to_ascii_lowercase();
    let (is_end, name) = match name.split_once('_') {
        Some(("begin" | "start", rest)) => (is_end, rest.trim_start_matches("of_")),
        Some(("end", rest)) => (true, rest.trim_start_matches("of_")),
        _ => (is_end, &*name),
    };
    let name = name.rsplit(':').next().unwrap_or(name);
    let family = match name {
        "think" | "thinking" | "thought" | "thoughts" | "antthinking" | "thinking_process"
        | "chain_of_thought" | "cot" | "internal_thought" | "internal_thoughts" => Family::Think,
        "reasoning" | "reason" | "rationale" => Family::Reason,
        "reflection" | "reflect" | "self_reflection" | "critique" => Family::Reflect,
        "scratchpad" | "inner_monologue" | "internal_monologue" | "monologue" | "notes"
        | "draft" => Family::Scratchpad,
        "analysis" | "analyse" | "analyze" => Family::Analysis,
        "plan" | "planning" | "brainstorm" => Family::Plan,
        // How Open WebUI shows a thought. Of `</details>` only that one's counts.
        "details" if is_end || attributes.contains("reasoning") => Family::Details,
        _ => return None,
    };
    Some(if is_end { Kind::End(family) } else { Kind::Begin(family) })
}

/// How many bytes a text's thought has that begins with it, from its mark to the end of the mark that ends it, with
/// thoughts of its family within it; `None` where it does not end.
pub(super) fn thought_length(text: &str, mark: Mark) -> Option<usize> {
    let Kind::Begin(family) = mark.kind else { return Some(mark.length) };
    let (mut depth, mut at) = (1_usize, mark.length);
    loop {
        at += text.get(at..)?.find(['<', '[', '◁'])?;
        let Some(found) = mark_at(&text[at..]) else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
            continue;
        };
        at += found.length;
        match found.kind {
            Kind::Begin(other) if other == family => depth += 1,
            Kind::End(other) if other == family => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(at);
        }
    }
}

/// What a model says of all that it writes in channels, as OpenAI's harmony has them: the last message of the channel
/// `final`. `Some("")` where all that was written is in others, `None` where there are no channels.
pub(super) fn final_channel(text: &str) -> Option<&str> {
    const CHANNEL: &str = "<|channel|>";
    const MESSAGE: &str = "<|message|>";
    const ENDS: [&str; 4] = ["<|return|>", "<|end|>", "<|call|>", "<|start|>"];
    if text.contains(CHANNEL) {
        let messages = text.split(CHANNEL).skip(1);
        let said = messages.filter_map(|message| {
            let (head, said) = message.split_once(MESSAGE)?;
            head.trim_start().starts_with("final").then_some(said)
        });
        let said = said.last().unwrap_or_default();
        let end = ENDS.into_iter().filter_map(|end| said.find(end)).min();
        return Some(&said[..end.unwrap_or(said.len())]);
    }
    // The same where a server left the marks out and kept the words.
    let rest = text.strip_prefix("analysis")?;
    rest.starts_with(|c: char| c.is_ascii_uppercase()).then(|| {
        let (_, said) = rest.rsplit_once("assistantfinal").unwrap_or_default();
        said
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_of_all_families_are_known() {
        for (begin, end) in [
            ("<think>", "</think>"),
            ("<thinking>", "</thinking>"),
            ("<think duration=\"3\">", "</think>"),
            ("<antThinking>", "</antThinking>"),
            ("<seed:think>", "</seed:think>"),
            ("<reasoning>", "</reasoning>"),
            ("<scratchpad>", "</scratchpad>"),
            ("[THINK]", "[/THINK]"),
            ("◁think▷", "◁/think▷"),
            ("<|START_THINKING|>", "<|END_THINKING|>"),
            ("<|begin_of_thought|>", "<|end_of_thought|>"),
            ("<|channel>", "<channel|>"),
            ("<details type=\"reasoning\">", "</details>"),
        ] {
            let text = format!("{begin}a {{\"a\":1}} b{end} c");
            let mark = mark_at(&text).unwrap_or_else(|| panic!("{begin}"));
            assert_eq!(mark.length, begin.len());
            assert_eq!(thought_length(&text, mark), Some(text.len() - 2), "{begin}");
            let open = format!("{begin}a {{\"a\":1}} b");
            assert_eq!(thought_length(&open, mark), None, "{begin}");
        }
        for other in ["<b>", "<answer>", "[1]", "[think]", "<details>", "<", "<>", "◁x▷", "< think"]
        {
            assert_eq!(mark_at(other), None, "{other}");
        }
        let nested = "<think>a <think>b</think> c</think> d";
        let mark = mark_at(nested).unwrap();
        assert_eq!(thought_length(nested, mark), Some(nested.len() - 2));
        assert_eq!(thought_length("<think>a <think>b</think> c", mark), None);
    }

    #[test]
    fn the_final_channel_is_what_is_said() {
        for (text, said) in [
            ("plain", None),
            (
                "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>final<|message|>b<|return|>",
                Some("b"),
            ),
            ("<|channel|>final <|constrain|>json<|message|>b", Some("b")),
            ("<|channel|>analysis<|message|>a", Some("")),
            ("<|channel|>commentary to=f<|message|>{}<|call|>", Some("")),
            ("analysisWe need b.assistantfinalb", Some("b")),
            ("analysisWe need", Some("")),
            ("analysis of b", None),
        ] {
            assert_eq!(final_channel(text), said, "{text}");
        }
    }
}
